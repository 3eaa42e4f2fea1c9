"""A trace of every released format version opens for ever, with the values it was written with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stratoscope.trace.info import info, info_text
from stratoscope.trace.reader import open_trace
from stratoscope.trace.schema import FORMAT_VERSION

HERE = Path(__file__).parent
ARCHIVED = sorted(HERE.glob("v*"))


def test_the_present_version_is_archived() -> None:
    assert f"v{FORMAT_VERSION}" in {path.name for path in ARCHIVED}


@pytest.mark.parametrize("folder", ARCHIVED, ids=lambda path: path.name)
def test_a_trace_of_that_version_still_holds_its_values(folder: Path) -> None:
    """`values.json` was written by the release itself, from memory and not from the trace."""
    trace, kept = open_trace(folder / "trace"), json.loads((folder / "values.json").read_text())
    assert trace.attrs["format_version"] == folder.name.removeprefix("v")
    assert set(kept) <= set(trace.variables)
    for name, values in kept.items():
        found = trace[name].values
        if found.dtype == object:
            assert found.tolist() == values, name
        else:
            np.testing.assert_array_equal(found, np.array(values, found.dtype), name)
    assert info_text(info(trace))


@pytest.mark.parametrize("folder", ARCHIVED, ids=lambda path: path.name)
def test_plain_xarray_opens_it(folder: Path) -> None:
    assert xr.open_zarr(folder / "trace").sizes["token"] == open_trace(folder / "trace").sizes["token"]
