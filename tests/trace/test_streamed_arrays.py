"""Streamed arrays as others read them, and as a stranger may have changed them: right values or one clear error."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from small_traces import ATTRS, SIZES, VARIABLES, edit, prompt_block

from stratoscope import open_trace
from stratoscope.errors import TraceError
from stratoscope.trace.format.schema import Layout
from stratoscope.trace.format.shards import Shards
from stratoscope.trace.info.facts import info, info_text
from stratoscope.trace.write.writer import TraceWriter

DOCS = Path(__file__).parents[2] / "docs" / "format.md"
PROMPTS, LAYERS, WIDTH = 6, 3, 6
Change = Callable[[dict[str, Any]], object]


def values(index: int, tokens: int, dtype: str) -> np.ndarray:
    """Rows of one prompt, as they are stored."""
    numbers = np.random.default_rng(index).normal(size=(tokens, LAYERS, WIDTH)).astype(np.float32)
    return np.right_shift(numbers.view(np.uint32), 16).astype(np.uint16) if dtype == "bfloat16" else numbers


def record(path: Path, dtype: str) -> np.ndarray:
    """A trace with neurons, and what they are as they are stored."""
    stored = []
    with TraceWriter(
        path, attrs=ATTRS, layers=range(LAYERS), sizes=SIZES, variables=VARIABLES, streams={"neurons": dtype}
    ) as writer:
        for index in range(PROMPTS):
            block = prompt_block(index)
            rows = values(index, len(block.texts["text"]), dtype)
            stream = writer.stream("neurons")
            for layer in range(LAYERS):
                stream.write(layer, stream.next_row, np.ascontiguousarray(rows[:, layer]))
            writer.append(block)
            stored.append(rows)
        writer.finish()
    return np.concatenate(stored)


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trace of several small shards."""
    monkeypatch.setattr(Layout, "shards", lambda *_: Shards(4, 2, LAYERS, WIDTH, 4))
    record(tmp_path / "t", "float32")
    assert len(list((tmp_path / "t" / "neurons").glob("c.*"))) > 2
    return tmp_path / "t"


# --- other readers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_plain_zarr_and_xarray_read_what_was_written(tmp_path: Path, dtype: str) -> None:
    wanted = record(tmp_path / "t", dtype)
    of_zarr: Any = zarr.open_group(tmp_path / "t", mode="r")["neurons"]
    with xr.open_zarr(tmp_path / "t", consolidated=True, mask_and_scale=False) as dataset:
        assert np.array_equal(dataset["neurons"].values, wanted)
        assert dataset["neurons"].dims == ("token", "layer", "neuron")
    assert np.array_equal(of_zarr[:], wanted)
    assert np.array_equal(of_zarr[3:9, 1, 2:4], wanted[3:9, 1, 2:4])


def test_the_recipe_for_bfloat16_in_the_documentation_gives_the_numbers(tmp_path: Path) -> None:
    wanted = record(tmp_path / "t", "bfloat16")
    recipe = '(bits.astype("uint32") << 16).view("float32")'
    assert recipe in DOCS.read_text("utf-8")
    group: Any = zarr.open_group(tmp_path / "t", mode="r")
    numbers = eval(recipe, {"bits": group["neurons"][:]})
    assert np.array_equal(numbers, open_trace(tmp_path / "t").neurons.values)
    assert np.array_equal(numbers, (wanted.astype(np.uint32) << 16).view(np.float32))
    assert group["neurons"].attrs["logical_dtype"] == "bfloat16"


def test_info_says_how_numbers_are_stored_and_reads_none(tmp_path: Path) -> None:
    record(tmp_path / "t", "bfloat16")
    for path in (tmp_path / "t" / "neurons").glob("c.*"):
        path.write_bytes(b"")
    assert "neurons" in info_text(info(tmp_path / "t"))


# --- a shard that is not what it must be ------------------------------------------------------------------------------


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def wrong_index(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[:8] = (2**62).to_bytes(8, "little")
    path.write_bytes(content)


def wrong_checksum(path: Path) -> None:
    index = Shards(4, 2, LAYERS, WIDTH, 4).index_bytes
    content = bytearray(path.read_bytes())
    content[index - 1] ^= 1
    path.write_bytes(content)


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("change", [cut, wrong_index, wrong_checksum])
def test_a_damaged_shard_is_an_error_and_others_can_be_read(trace: Path, change: Callable[[Path], None]) -> None:
    whole = open_trace(trace).neurons.values
    change(trace / "neurons" / "c.1.0.0")
    neurons = open_trace(trace).neurons
    with pytest.raises(TraceError, match=r"c\.1\.0\.0"):
        neurons[5].load()
    with pytest.raises(TraceError, match=r"c\.1\.0\.0"):
        neurons.load()
    assert np.array_equal(neurons[:4].values, whole[:4])


@pytest.mark.parametrize("change", [Path.unlink, link, pipe, folder])
@pytest.mark.timeout(20)
def test_a_shard_that_is_missing_or_no_file_is_refused_at_once(trace: Path, change: Callable[[Path], None]) -> None:
    change(trace / "neurons" / "c.1.0.0")
    with pytest.raises(TraceError, match="neurons"):
        open_trace(trace)


def test_shards_beyond_the_shape_are_not_looked_at(trace: Path) -> None:
    whole = open_trace(trace).neurons.values
    (trace / "neurons" / "c.99.0.0").write_bytes(b"x")
    assert np.array_equal(open_trace(trace).neurons.values, whole)


# --- metadata that say something else ---------------------------------------------------------------------------------

WRONG: dict[str, Change] = {
    "more rows than there are": lambda a: a["shape"].__setitem__(0, 10**15),
    "fewer layers": lambda a: a["shape"].__setitem__(1, 2),
    "no rows in a shard": lambda a: a["chunk_grid"]["configuration"]["chunk_shape"].__setitem__(0, 0),
    "a shard of many rows": lambda a: a["chunk_grid"]["configuration"]["chunk_shape"].__setitem__(0, 2**40),
    "chunks that do not fit": lambda a: a["codecs"][0]["configuration"]["chunk_shape"].__setitem__(0, 3),
    "chunks of no row": lambda a: a["codecs"][0]["configuration"]["chunk_shape"].__setitem__(0, 0),
    "compressed chunks": lambda a: a["codecs"][0]["configuration"]["codecs"].append({"name": "gzip"}),
    "an index at the end": lambda a: a["codecs"][0]["configuration"].update(index_location="end"),
    "no shards": lambda a: a.update(codecs=[{"name": "bytes", "configuration": {"endian": "little"}}]),
    "another dtype": lambda a: a.update(data_type="float64"),
    "bits of an unknown dtype": lambda a: a["attributes"].update(logical_dtype="float8"),
    "other dimensions": lambda a: a.update(dimension_names=["token", "layer", "head"]),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_metadata_that_the_format_does_not_allow_are_refused(trace: Path, change: Change) -> None:
    edit(trace, lambda document: change(document["consolidated_metadata"]["metadata"]["neurons"]))
    with pytest.raises(TraceError, match="neurons"):
        open_trace(trace)
