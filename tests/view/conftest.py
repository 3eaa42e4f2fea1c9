"""Factories of small in-memory traces, for any test of a picture."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import xarray as xr
from view_traces import make_import, make_trace

Factory = Callable[..., xr.Dataset]


@pytest.fixture
def trace_of() -> Factory:
    return make_trace


@pytest.fixture
def import_of() -> Factory:
    return make_import
