"""A factory of small in-memory traces that look like what `open_trace` gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from stratoscope import names

Factory = Callable[..., xr.Dataset]

WORDS = ["<|im_start|>", "user", "\n", "How", " do", " I", " stop", " a", " process", "?", "<|im_end|>", "\n"]


def make_trace(
    *,
    lengths: tuple[int, ...] = (12, 12),
    layers: int = 6,
    heads: int = 3,
    top_k: int = 2,
    quantities: tuple[str, ...] = ("mlp_out_norm",),
    texts: list[str] | None = None,
    classes: tuple[str, ...] | None = None,
    pairs: tuple[str, ...] | None = None,
    sink: float = 40.0,
    seed: int = 0,
    targets: int = 1,
    **attrs: Any,
) -> xr.Dataset:
    """A trace of prompts of these lengths with lognormal (or signed normal) values and a hot first token each."""
    rng = np.random.default_rng(seed)
    prompts, tokens = len(lengths), sum(lengths)
    position = np.concatenate([np.arange(length) for length in lengths]).astype("int32")
    sizes = {"token": tokens, "layer": layers, "depth": layers + 1, "head": heads, "peak": top_k, "prompt": prompts}
    sizes |= {"target": targets, "logit_rank": 20, "effect_rank": 10, "strongest": 20, "write_rank": 10}
    sizes |= {"read_part": 2, "component": 2 + 2 * layers, "neuron": 32}
    data = {}
    for name in quantities:
        row = names.QUANTITIES[name]
        shape = tuple(sizes[dim] for dim in row.dims)
        values = rng.normal(size=shape) if row.signed else rng.lognormal(size=shape)
        if row.unit == "index" and names.PEAK not in row.dims:
            values = rng.integers(0, 32, size=shape)
        if name.startswith("attn_entropy") or name in ("attn_first", "peak_share"):
            values = rng.uniform(size=shape)
        if row.dims[0] == "token":
            values[position == 0] *= int(sink) if row.unit == "index" else sink
        data[name] = (row.dims, values.astype(row.dtype), {"units": row.unit, "source": "real"})
    words = texts or [WORDS[index % len(WORDS)] for index in position]
    return xr.Dataset(
        data,
        coords={
            "prompt": ("token", np.repeat(np.arange(prompts, dtype="int32"), lengths)),
            "position": ("token", position),
            "token_id": ("token", np.full(tokens, -1, "int32")),
            "span": ("token", np.array([_span(word) for word in words], "int8")),
            "text": _text("token", words),
            "prompt_id": _text("prompt", [f"p{index}" for index in range(prompts)]),
            "prompt_class": _text("prompt", (classes or ("critical", "neutral") * prompts)[:prompts]),
            "pair": _text("prompt", (pairs or ("",) * prompts)[:prompts]),
            "group": _text("prompt", ("",) * prompts),
            "layer": np.arange(layers, dtype="int32"),
            "depth": np.arange(layers + 1, dtype="int32"),
        },
        attrs={
            "format": "stratoscope-trace",
            "uuid": "0f0e0d0c-0000-4000-8000-000000000000",
            "source": "real",
            "model": {"name": "org/tiny-model"},
            "token_spelling": "text",
            "notes": [],
            "receipt": {"receipt_line": "logits bit-identical to the unobserved forward"},
            "state": "complete",
            **attrs,
        },
    )


def make_import(
    *, lengths: tuple[int, ...] = (24, 24), layers: tuple[int, ...] = tuple(range(22, 32)), k: int = 10, **attrs: Any
) -> xr.Dataset:
    """What `read_csv` gives for one file per prompt: k rows for every token in every layer."""
    rng = np.random.default_rng(1)
    trace = make_trace(lengths=lengths, layers=len(layers), quantities=(), **attrs)
    rows = np.indices((sum(lengths), len(layers), k)).reshape(3, -1)
    hot = np.where(np.asarray(trace["position"])[rows[0]] == 0, 30.0, 1.0)
    trace = trace.drop_vars("depth").assign_coords(layer=np.array(layers, "int32"))
    trace["imported_norm"] = ("row", hot * rng.lognormal(sigma=0.5, size=rows.shape[1]))
    trace = trace.assign_coords(
        row_token=("row", rows[0].astype("int64")),
        row_layer=("row", np.array(layers, "int32")[rows[1]]),
        row_neuron=("row", rng.integers(0, 14336, rows.shape[1], dtype="int32")),
    )
    trace.attrs |= {"source": "imported", "axis": "unknown", "model": {}, "receipt": {}}
    return trace


def _span(word: str) -> int:
    if word.startswith("<|"):
        return names.SPANS.index("special")
    return names.SPANS.index("template" if word in ("user", "\n") else "user")


def _text(dim: str, items: Sequence[str]) -> xr.Variable:
    """A text column; `fastpath` keeps byte fragments, which xarray would refuse to convert."""
    return xr.Variable((dim,), np.array(items, dtype=object), fastpath=True)
