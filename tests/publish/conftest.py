"""A simulated trace of enough prompts to be published at every level, made once."""

from __future__ import annotations

import pytest
import xarray as xr

import stratoscope


@pytest.fixture(scope="session")
def simulated() -> xr.Dataset:
    """Two classes of 60 prompts; of each 36 count as different from all others."""
    return stratoscope.simulate(prompts=120, layers=4, d_model=32, d_ff=64, heads=4)
