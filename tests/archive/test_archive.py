"""A trace of every released format version opens for ever, with the values it was written with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stratoscope import contrast, diff, export_csv, names, peaks3d, portable
from stratoscope.errors import InputError, TraceError
from stratoscope.trace.format.schema import FORMAT_VERSION, known_layout, major
from stratoscope.trace.info.facts import info, info_text
from stratoscope.trace.read.reader import open_trace
from stratoscope.trace.write.from_dataset import write_dataset
from stratoscope.trace.write.writer import TraceWriter

HERE = Path(__file__).parent
ARCHIVED = sorted(HERE.glob("v*"))


def test_the_present_version_is_archived() -> None:
    assert f"v{FORMAT_VERSION}" in {path.name for path in ARCHIVED}


@pytest.mark.parametrize("folder", ARCHIVED, ids=lambda path: path.name)
def test_a_trace_of_that_version_still_holds_its_values(folder: Path) -> None:
    """`values.json` was written by the release itself, from memory and not from the trace."""
    trace, kept = open_trace(folder / "trace"), json.loads((folder / "values.json").read_text())
    assert trace.attrs["format_version"] == folder.name.removeprefix("v")
    if trace.attrs["format_version"].startswith("1."):
        kept = {{"refused": "opens_as_refusal"}.get(name, name): values for name, values in kept.items()}
    assert set(kept) <= set(trace.variables)
    assert trace["peak_write"].dims == ("token", "layer", "peak")
    for name in trace.variables:
        layout = known_layout(str(name))
        assert layout is None or trace[name].dims == layout.dims, name
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


@pytest.mark.parametrize("folder", ARCHIVED, ids=lambda path: path.name)
def test_a_recording_of_an_older_major_version_is_not_gone_on_with(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "trace", tmp_path / "t")
    document = tmp_path / "t" / "zarr.json"
    document.write_text(document.read_text().replace('"state": "complete"', '"state": "recording"'))
    with pytest.raises(TraceError) as error:
        TraceWriter(tmp_path / "t", attrs={"source": "simulated"}, layers=(0,), sizes={}, variables=(), resume=True)
    older = not folder.name.startswith(f"v{major(FORMAT_VERSION)}.")
    assert ("was begun in format 1." in str(error.value)) == older


@pytest.mark.parametrize("folder", ARCHIVED, ids=lambda path: path.name)
def test_what_is_written_of_an_older_trace_is_of_the_present_version(folder: Path, tmp_path: Path) -> None:
    trace = open_trace(folder / "trace")
    write_dataset(trace, tmp_path / "t")
    again = open_trace(tmp_path / "t")
    assert again.attrs["format_version"] == FORMAT_VERSION
    xr.testing.assert_equal(again, trace)


def test_an_older_trace_goes_through_the_verbs_as_one_of_today(tmp_path: Path) -> None:
    older = open_trace(HERE / "v1.2" / "trace")
    write_dataset(older, tmp_path / "t")
    today = open_trace(tmp_path / "t")
    outcomes = []
    for name, trace in {"older": older, "today": today}.items():
        (file,) = export_csv(trace.drop_dims("row"), tmp_path / f"{name}.csv", prompt="p0")
        with pytest.raises(InputError) as error:
            contrast(trace)
        figure = str(peaks3d(trace, quantity="peak_write").data)
        outcomes.append((file.read_bytes(), str(error.value), figure, portable(trace).sizes))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][3]["peak"] == 2
    found = diff(older, HERE / f"v{FORMAT_VERSION}" / "trace", quantity="mlp_out_norm")
    assert found["tokens"].sizes["column"] == today.sizes["token"]


def test_a_quantity_says_the_version_that_introduced_it() -> None:
    with pytest.raises(TypeError, match="since"):  # nobody adds one without saying it
        names.Quantity("new", ("token",), "float32", "1", "new", "none", names.NORMS)  # type: ignore[call-arg]
    first: dict[str, str] = {}
    for folder in ARCHIVED:
        for name in open_trace(folder / "trace").data_vars:
            first.setdefault(str(name), folder.name.removeprefix("v"))
    for name, row in names.QUANTITIES.items():
        assert row.since in names.FORMAT_VERSIONS, name
        assert first.get(name, row.since) == row.since, name
    assert [f"v{version}" for version in names.FORMAT_VERSIONS] == [folder.name for folder in ARCHIVED]
