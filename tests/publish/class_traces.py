"""Small traces of given prompts and values, for tests that say exactly what is in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from stratoscope import names
from stratoscope.trace.labels import labelled, root_attributes

LAYERS = 3


def trace_of(
    prompts: Sequence[str], classes: Sequence[str], *, values: Sequence[float] | None = None, layers: int = LAYERS
) -> xr.Dataset:
    """A trace whose prompts have these words as tokens, after a first token of its own.

    `mlp_write_ratio` of each is its value at all tokens, times 2 to the layer, and 1,000 at the first token;
    `mlp_write_cos` is its value / 10; of `prompt_mean` it is the value of each of two neurons.
    """
    tokens = [["<s>", *text.split()] for text in prompts]
    lengths = np.array([len(one) for one in tokens])
    of, place = np.repeat(np.arange(len(tokens)), lengths), np.concatenate([np.arange(one) for one in lengths])
    value = np.arange(1.0, len(tokens) + 1) if values is None else np.asarray(values, float)
    by_layer = value[of][:, None] * 2.0 ** np.arange(layers)
    by_layer[place == 0] = 1000.0
    words = sorted({word for one in tokens for word in one})
    spans = np.where(place == 0, names.SPANS.index("special"), names.SPANS.index("user"))
    model = {"name": "/home/ann/models/secret-7b", "architecture": "Tiny", "n_layers": layers, "device": "cuda"}
    return labelled(
        {
            "prompt": of,
            "position": place,
            "token_id": np.array([words.index(word) for one in tokens for word in one]),
            "span": spans,
            "layer": np.arange(layers),
            "mlp_write_ratio": by_layer,
            "mlp_write_cos": np.repeat(value[of][:, None] / 10, layers, axis=1),
            "prompt_mean": np.repeat(value, layers * 2).reshape(-1, layers, 2),
        },
        {
            "text": [word for one in tokens for word in one],
            "prompt_id": [f"id-{number}" for number in range(len(tokens))],
            "prompt_class": classes,
        },
        root_attributes(names.REAL, model=model, plan={"prompts_sha256": "f00d" * 16}),
    )


def different(count: int, *, length: int = 9) -> list[str]:
    """Prompts of which no two share a word."""
    return [" ".join(f"w{number}x{place}" for place in range(length)) for number in range(count)]
