"""Small recordings of a pretended causal model: what a token gives depends on the tokens up to it and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from stratoscope import names

LAYERS, NEURONS, PEAKS = 3, 12, 4


def activations(tokens: Sequence[int], model: int = 0) -> np.ndarray:
    """Signed activations of every neuron, [token, layer, neuron]."""
    found = [
        np.random.default_rng([model, *(token + 1 for token in tokens[: place + 1])]).normal(size=(LAYERS, NEURONS))
        for place in range(len(tokens))
    ]
    return np.array(found).reshape(-1, LAYERS, NEURONS)


def columns_of(model: int = 0) -> np.ndarray:
    """Norm of the column of each neuron, [layer, neuron]."""
    return np.random.default_rng([9, model]).uniform(0.5, 2, size=(LAYERS, NEURONS))


def recorded(
    prompts: Sequence[Sequence[int]],
    *,
    classes: Sequence[str] = (),
    pairs: Sequence[str] = (),
    model: int = 0,
    **attrs: Any,
) -> xr.Dataset:
    """A trace of these prompts, given as token ids, as `open_trace` gives one: a norm of each cell, and its peaks."""
    ids = np.array([token for prompt in prompts for token in prompt], "int32")
    lengths = [len(prompt) for prompt in prompts]
    active = np.concatenate([activations(prompt, model) for prompt in prompts])
    write = np.abs(active) * columns_of(model)
    order = np.argsort(-write, axis=2)[:, :, :PEAKS]
    peaks = {
        "peak_neuron": order,
        "peak_value": np.take_along_axis(active, order, 2),
        "peak_write": np.take_along_axis(write, order, 2),
    }
    values = {"mlp_out_norm": np.linalg.norm(active, axis=2), **peaks}
    texts = {
        "prompt_id": [f"p{place}" for place in range(len(prompts))],
        "prompt_class": classes or [""] * len(prompts),
        "pair": pairs or [""] * len(prompts),
        "group": [""] * len(prompts),
    }
    data = {
        name: (names.QUANTITIES[name].dims, of.astype(names.QUANTITIES[name].dtype), {"source": "real"})
        for name, of in values.items()
    }
    coords = {
        "prompt": ("token", np.repeat(np.arange(len(prompts), dtype="int32"), lengths)),
        "position": ("token", np.concatenate([np.arange(length, dtype="int32") for length in lengths])),
        "token_id": ("token", ids),
        "span": ("token", np.full(len(ids), names.SPANS.index("user"), "int8")),
        "text": ("token", np.array([f" w{token}" for token in ids.tolist()], object)),
        "layer": np.arange(LAYERS, dtype="int32"),
        **{name: ("prompt", np.array(list(of), object)) for name, of in texts.items()},
    }
    about = {
        "source": "real",
        "state": "complete",
        "notes": [],
        "uuid": "0",
        "token_spelling": "text",
        "model": {"name": "org/pretended", "dtype": "float32", "weights_sha256": f"w{model}"},
    }
    return xr.Dataset(data, coords, {**about, **attrs})
