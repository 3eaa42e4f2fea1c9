"""Full attention as the matrices that people know: a trace holds it as a flat list of pairs (query, key ≤ query)."""

from __future__ import annotations

import numpy as np
import xarray as xr

from stratoscope.errors import InputError
from stratoscope.names import ATTENTION_FULL, EDGE, HEAD, LAYER
from stratoscope.trace.opened import Inputs, opened
from stratoscope.trace.prompts import Prompts
from stratoscope.words import number_ranges

_QUANTITY = "attention"


def attention_matrix(trace: Inputs, prompt: str | int, layer: int, head: int) -> np.ndarray:
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

    Examples
    --------
    >>> import stratoscope
    >>> trace = stratoscope.simulate(prompts=2, layers=3, heads=2, record="attention-full")
    >>> weights = stratoscope.attention_matrix(trace, "critical-1", layer=1, head=0)
    >>> weights[:4, :4].round(2)
    array([[1.  ,  nan,  nan,  nan],
           [0.38, 0.62,  nan,  nan],
           [0.36, 0.25, 0.39,  nan],
           [0.27, 0.09, 0.14, 0.5 ]], dtype=float32)
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
    prompts = Prompts(trace)
    number = prompts.find(prompt)
    layers, heads = trace[LAYER].values.tolist(), trace.sizes[HEAD]
    if layer not in layers:
        raise InputError(f"there is no layer {layer}", fix=f"There are {number_ranges(layers)}.")
    if not 0 <= head < heads:
        raise InputError(f"there is no head {head}", fix=f"There are 0 to {heads - 1}.")
    tokens = int(prompts.lengths[number])
    pairs = trace[_QUANTITY][{EDGE: prompts.run(number, number + 1)[EDGE], LAYER: layers.index(layer), HEAD: head}]
    matrix = np.full((tokens, tokens), np.nan, np.float32)
    matrix[np.tril_indices(tokens)] = pairs.values
    return matrix
