"""What leaves for other tools: netCDF, Zarr and tables hold the same values, and everything said as text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import stratoscope
from stratoscope.errors import InputError
from stratoscope.trace.csv.read import read_csv

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


@pytest.fixture(scope="module")
def trace(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("portable") / "TRACE"
    stratoscope.simulate(path, prompts=2, layers=3, d_model=16, d_ff=32, heads=2, top_k=2)
    return path


def assert_same(one: xr.Dataset, two: xr.Dataset) -> None:
    assert set(one.variables) == set(two.variables)
    for name in one.variables:
        assert one[name].dims == two[name].dims
        if one[name].dtype.kind in "fiub":
            np.testing.assert_array_equal(one[name].values, two[name].values)
        else:
            assert one[name].values.tolist() == two[name].values.tolist()


def test_the_lines_of_the_documentation_write_what_reads_back_as_the_same(trace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "TRACE").symlink_to(trace)
    code = re.search(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert code
    names: dict = {}
    exec(code[1], names)
    opened = names["trace"]
    for back in (xr.open_dataset("trace.nc"), xr.open_zarr("plain.zarr", consolidated=False)):
        assert_same(stratoscope.portable(opened), back)
        assert json.loads(back.attrs["notes"]) == opened.attrs["notes"]
        assert json.loads(back.attrs["model"]) == opened.attrs["model"]
        assert back.attrs["uuid"] == opened.attrs["uuid"]
    assert len(names["table"]) == opened["mlp_out_norm"].size
    np.testing.assert_array_equal(names["table"]["mlp_out_norm"], opened["mlp_out_norm"].values.ravel())


def test_a_piece_of_a_character_is_spelled_and_the_trace_itself_is_left_as_it_is(trace):
    opened = stratoscope.open_trace(trace)
    stray = [text for text in opened["text"].values if re.search("[\udc80-\udcff]", text)]
    assert stray  # a simulated trace has some
    made = stratoscope.portable(trace)
    assert all(text.encode() for text in made["text"].values)
    assert [text for text in made["text"].values if text.startswith("<0x")]
    assert [text for text in opened["text"].values if re.search("[\udc80-\udcff]", text)] == stray
    assert isinstance(opened.attrs["notes"], list)


def test_results_and_imports_can_be_written_too(trace, tmp_path):
    opened = stratoscope.open_trace(trace)
    (tmp_path / "p.csv").write_text("Token_Pos,Token,Layer,Neuron_ID,Activation_Norm,note\n0,a,1,2,0.1,x\n")
    imported = stratoscope.portable(read_csv(tmp_path / "p.csv"))
    imported.to_netcdf(tmp_path / "import.nc")
    assert_same(imported, xr.open_dataset(tmp_path / "import.nc"))
    result = stratoscope.portable(stratoscope.diff(opened, opened, layers=[0]))
    result.to_zarr(tmp_path / "diff.zarr", consolidated=False)
    found = xr.open_datatree(tmp_path / "diff.zarr", engine="zarr", consolidated=False)
    for path, table in result.to_dict().items():
        assert_same(table, found[path].to_dataset())
    with pytest.raises(InputError, match="a result, not a trace"):
        stratoscope.heatmap(result)
