"""Factories of small in-memory traces, for any test of a picture."""

from __future__ import annotations

import pytest
from view_traces import Factory, make_import, make_trace


@pytest.fixture
def trace_of() -> Factory:
    return make_trace


@pytest.fixture
def import_of() -> Factory:
    return make_import
