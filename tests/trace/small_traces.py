"""Small recordings with known values, for the tests of the trace on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from stratoscope import names
from stratoscope.trace.format import checksums, strict_json
from stratoscope.trace.format.array_document import chunk_index
from stratoscope.trace.format.schema import Block
from stratoscope.trace.write.writer import TraceWriter

LAYERS = (0, 1, 2)
SIZES = {"peak": 2, "head": 2, "neuron": 6, "opener": 2, "target": 2, "choice": 2} | {
    **{names.LOGIT_RANK: 4, names.EFFECT_RANK: 3, names.STRONGEST: 4, names.READ_PART: 2},
    **{names.COMPONENT: 8, names.WRITE_RANK: 2, names.LENS: 2, names.LENS_RANK: 2, names.ROUTE: 3},
}
VARIABLES = ("mlp_out_norm", "resid_norm", "peak_neuron", "peak_value", "prompt_mean")
LENGTHS = {**SIZES, "layer": len(LAYERS), "depth": len(LAYERS) + 1}
ATTRS: dict[str, Any] = {
    "source": "simulated",
    "token_spelling": "text",
    "model": {"name": "small", "revision": None},
    "plan": {"record": ["norms"], "top_k": 2},
    "notes": [{"id": "L01", "severity": "info", "text": "a note"}],
}
PROMPT_TEXTS = {"prompt_id": "p{}", "prompt_class": "critical", "pair": "pair {}", "group": ""}


def prompt_block(index: int, texts: Sequence[str] | None = None, variables: Sequence[str] = VARIABLES) -> Block:
    """The prompt of that number: its length, tokens and values depend on the number only."""
    texts = [f"t{index}-{place}" for place in range(1 + index % 3)] if texts is None else texts
    random, tokens = np.random.default_rng(index), len(texts)
    arrays = {
        "prompt": np.zeros(tokens, np.int32),
        "position": np.arange(tokens, dtype=np.int32),
        "token_id": random.integers(0, 1000, tokens, dtype=np.int32),
        "span": np.full(tokens, names.SPANS.index("user"), np.int8),
    }
    lengths = {**LENGTHS, "token": tokens, "prompt": 1}
    for name in variables:
        quantity = names.QUANTITIES[name]
        shape = tuple(lengths[dim] for dim in quantity.dims)
        arrays[name] = (random.random(shape) * 100).astype(quantity.dtype)
    return Block(arrays, {"text": list(texts), **{key: [text.format(index)] for key, text in PROMPT_TEXTS.items()}})


def merged(blocks: Sequence[Block]) -> Block:
    """Several blocks as one."""
    arrays = {name: np.concatenate([block.arrays[name] for block in blocks]) for name in blocks[0].arrays}
    counts = [int(block.arrays["prompt"][-1]) + 1 for block in blocks]
    before = np.concatenate([[0], np.cumsum(counts)[:-1]])
    moved = [block.arrays["prompt"] + first for block, first in zip(blocks, before, strict=True)]
    arrays["prompt"] = np.concatenate(moved).astype(np.int32)
    texts = {name: [text for block in blocks for text in block.texts[name]] for name in blocks[0].texts}
    return Block(arrays, texts)


def as_dataset(block: Block, variables: Sequence[str] = VARIABLES) -> xr.Dataset:
    """The block as the Dataset that `open_trace` should give, built without touching a disk."""
    coords: dict[str, Any] = {
        name: ("token", block.arrays[name]) for name in ("prompt", "position", "token_id", "span")
    }
    coords["layer"] = ("layer", np.array(LAYERS, np.int32))
    if "resid_norm" in variables:
        coords["depth"] = ("depth", np.arange(len(LAYERS) + 1, dtype=np.int32))
    for name, texts in block.texts.items():
        dim = "token" if name == "text" else "prompt"
        coords[name] = xr.Variable((dim,), np.array(texts, dtype=object), fastpath=True)  # pandas refuses stray bytes
    data = {name: (names.QUANTITIES[name].dims, block.arrays[name]) for name in variables}
    return xr.Dataset(data, coords)


def writer(path: Path, **options: Any) -> TraceWriter:
    """A writer of small traces that commits only when told to."""
    given = {"attrs": ATTRS, "layers": LAYERS, "sizes": SIZES, "variables": VARIABLES, "commit_seconds": 1e9}
    return TraceWriter(path, **{**given, **options})


def record(path: Path, prompts: int = 5, **options: Any) -> Path:
    """A complete trace of that many prompts."""
    with writer(path, **options) as recording:
        for index in range(recording.committed_prompts, prompts):
            recording.append(prompt_block(index))
        recording.finish()
    return path


def expected(prompts: int) -> xr.Dataset:
    """What a trace of that many prompts holds."""
    return as_dataset(merged([prompt_block(index) for index in range(prompts)]))


def edit(trace: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the root document of a trace, as one who also renews its digest."""
    root = trace / "zarr.json"
    content = json.loads(root.read_text())
    change(content)
    root.write_text(json.dumps(strict_json.sealed(content) if "attributes" in content else content))


def renew_checksums(trace: Path, name: str) -> None:
    """Take the chunks of an array, which were changed, for those that were written."""
    found = {place: path for path in (trace / name).iterdir() if (place := chunk_index(path.name)) is not None}
    grid = [length + 1 for length in max(found)]
    sums = {place: checksums.of_chunk(path.read_bytes()) for place, path in found.items()}

    def renew(content: Mapping[str, Any]) -> None:
        content["attributes"][checksums.CHECKSUMS][name] = checksums.to_text(sums, grid)

    edit(trace, renew)
