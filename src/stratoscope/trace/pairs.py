"""Full attention as the matrices that people know: a trace holds it as a flat list of pairs (query, key ≤ query)."""

from __future__ import annotations

import os

import numpy as np
import xarray as xr

from stratoscope.errors import InputError
from stratoscope.names import ATTENTION_FULL, EDGE, HEAD, LAYER, edges
from stratoscope.trace.arguments import is_whole
from stratoscope.trace.opened import opened
from stratoscope.words import number_ranges

_QUANTITY = "attention"


def attention_matrix(
    trace: str | os.PathLike[str] | xr.Dataset, prompt: str | int, layer: int, head: int
) -> np.ndarray:
    """The attention weights of one head over one prompt; only these are read.

    Parameters
    ----------
    trace
        A trace recorded with the group `attention-full`, or its Dataset.
    prompt
        Its id, or its place in the trace.
    layer
        Number of the block.
    head
        Number of the head.

    Returns
    -------
    ndarray
        float32 [query, key]: what the token `query` takes from the token `key`. Rows sum to 1, but for what a learned
        sink takes. NaN where the mask hides the key, and for all keys after the query.

    Raises
    ------
    InputError
        The trace holds no full attention, or has no such prompt, layer or head.
    """
    given, trace = trace, opened(trace)
    if _QUANTITY not in trace and isinstance(given, xr.Dataset) and _QUANTITY in given:
        raise InputError("its tokens were cut and its attention pairs were not", fix="Ask the whole trace.")
    if _QUANTITY not in trace:
        raise InputError(
            "this trace holds no attention matrices",
            where=str(trace.encoding.get("source", "")),
            fix=f"Record it with --record {ATTENTION_FULL}.",
        )
    number = _prompt(trace, prompt)
    layers, heads = trace[LAYER].values.tolist(), trace.sizes[HEAD]
    if layer not in layers:
        raise InputError(f"there is no layer {layer}", fix=f"There are {number_ranges(layers)}.")
    if not 0 <= head < heads:
        raise InputError(f"there is no head {head}", fix=f"There are 0 to {heads - 1}.")
    lengths = np.bincount(trace["prompt"].values, minlength=number + 1).tolist()
    first, tokens = sum(map(edges, lengths[:number])), lengths[number]
    pairs = trace[_QUANTITY][{EDGE: slice(first, first + edges(tokens)), LAYER: layers.index(layer), HEAD: head}]
    matrix = np.full((tokens, tokens), np.nan, np.float32)
    matrix[np.tril_indices(tokens)] = pairs.values
    return matrix


def _prompt(trace: xr.Dataset, prompt: str | int) -> int:
    ids = trace["prompt_id"].values.tolist()
    if isinstance(prompt, str) and prompt in ids:
        return int(ids.index(prompt))
    if is_whole(prompt) and 0 <= int(prompt) < len(ids):
        return int(prompt)
    raise InputError(f"there is no prompt {prompt!r}", fix=f"There are {len(ids)} prompts, from {ids[0]} to {ids[-1]}.")
