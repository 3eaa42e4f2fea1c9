"""Other people's Zarr software reads every array of a trace, of every record group, as Stratoscope does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import zarr
import zarrs  # noqa: F401 (registers its codec pipeline)
from small_traces import ATTRS, LENGTHS, prompt_block

from stratoscope import names, open_trace
from stratoscope.names import edges
from stratoscope.trace.format import schema
from stratoscope.trace.format.shards import LOGICAL_DTYPE, as_numbers
from stratoscope.trace.write.writer import TraceWriter

ZARRITA = Path(sys.prefix) / "node" / "node_modules" / "zarrita" / "dist" / "src" / "index.js"
SIZES = {**LENGTHS, "active": 4}
PROMPTS = 5
BLOCKS = tuple(
    name for name, row in names.QUANTITIES.items() if not names.is_streamed(name) and not names.is_floor(name)
    and name != "imported_norm"
)  # fmt: skip
FLOORS = tuple(name for name in names.QUANTITIES if names.is_floor(name))


STREAMS = {"neurons": "bfloat16", "active_neurons": "float32", "attention": "float16"}


def record(path: Path) -> None:
    """A trace with every quantity there is."""
    random = np.random.default_rng(0)
    floors = {
        name: random.random([SIZES[dim] for dim in names.QUANTITIES[name].dims]).astype(np.float32) for name in FLOORS
    }
    with TraceWriter(
        path,
        attrs=ATTRS,
        layers=range(SIZES["layer"]),
        sizes=SIZES,
        variables=BLOCKS,
        streams=STREAMS,
        fixed=floors,
    ) as writer:
        for index in range(PROMPTS):
            block = prompt_block(index, variables=BLOCKS)
            tokens = len(block.texts["text"])
            for name, stored in STREAMS.items():
                rows = edges(tokens) if name == "attention" else tokens
                width = SIZES[names.QUANTITIES[name].dims[2]]
                stream = writer.stream(name)
                for layer in range(SIZES["layer"]):
                    numbers = random.normal(size=(rows, width)).astype(np.float32)
                    bits = (numbers.view(np.uint32) >> 16).astype(np.uint16)
                    stream.write(layer, stream.next_row, bits if stored == "bfloat16" else numbers.astype(stored))
            writer.append(block)
            if index == 1:
                writer.commit()
        writer.finish()


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace of shards of which the last is not full, and of chunks of which there are several."""
    path = tmp_path_factory.mktemp("every group") / "t"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stratoscope.trace.format.schema._SHARD_TOKENS", 4)
        patch.setattr("stratoscope.trace.format.schema._INNER_TOKENS", 2)
        patch.setattr("stratoscope.trace.format.schema._SHARD_EDGES", 8)
        patch.setattr("stratoscope.trace.format.schema._INNER_EDGES", 4)
        patch.setattr("stratoscope.trace.format.schema._CHUNK_TOKENS", 4)
        record(path)
    return path


@pytest.fixture(scope="module")
def wanted(trace: Path) -> dict[str, np.ndarray]:
    """Every array as Stratoscope's own reader has it, texts and bfloat16 as they are stored."""
    group, opened = plain(trace), open_trace(trace).load()
    arrays = {name: np.asarray(array[:]) for name, array in group.arrays()}
    for name, values in arrays.items():
        if schema.companion(name) is None:
            seen = as_numbers(values) if LOGICAL_DTYPE in group[name].attrs else values
            np.testing.assert_array_equal(seen, opened[name].values, name)
    assert {"neurons", "active_neurons", "attention", "router_expert", "opener_log_odds", *FLOORS} <= arrays.keys()
    return arrays


def plain(trace: Path) -> zarr.Group:
    return zarr.open_group(trace, mode="r")


def same(found: np.ndarray, wanted: np.ndarray, name: str) -> None:
    assert found.dtype == wanted.dtype, name
    assert found.shape == wanted.shape, name
    assert found.tobytes() == wanted.tobytes(), name


def test_zarrita_reads_every_array(trace: Path, wanted: dict[str, np.ndarray], tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None or not ZARRITA.exists():
        pytest.skip(f"zarrita.js is not at {ZARRITA}: make zarrita puts it there")
    script = Path(__file__).with_name("read_with_zarrita.mjs")
    told = subprocess.run(
        [node, script, ZARRITA, trace, tmp_path, *wanted], capture_output=True, text=True, check=False, timeout=60
    )
    assert told.returncode == 0, told.stderr
    for name, facts in json.loads(told.stdout).items():
        found = np.frombuffer((tmp_path / f"{name}.bin").read_bytes(), wanted[name].dtype).reshape(facts["shape"])
        same(found, wanted[name], name)


def test_tensorstore_reads_every_array(trace: Path, wanted: dict[str, np.ndarray]) -> None:
    group = plain(trace)
    for name, values in wanted.items():
        store = {"driver": "file", "path": f"{trace / name}/"}
        array = tensorstore.open({"driver": "zarr3", "kvstore": store}, read=True).result()
        same(np.asarray(array.read().result()), values, name)
        assert array.domain.labels == tuple(group[name].metadata.dimension_names)


def test_zarrs_reads_every_array(trace: Path, wanted: dict[str, np.ndarray]) -> None:
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        for name, array in plain(trace).arrays():
            same(np.asarray(array[:]), wanted[name], name)
