"""A Dataset becomes a trace: imports, simulations, and whatever somebody has made of a trace in Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from stratoscope import names
from stratoscope.errors import TraceError
from stratoscope.names import ACTIVE, CHOICE, DEPTH, EDGE, HEAD, LAYER, NEURON, OPENER, PROMPT, ROW, TOKEN, K, edges
from stratoscope.trace import schema
from stratoscope.trace.row_stream import RowStream
from stratoscope.trace.schema import Block
from stratoscope.trace.shards import LOGICAL_DTYPE, as_bfloat16
from stratoscope.trace.writer import WRITTEN, TraceWriter

_FIXED = (HEAD, K, CHOICE, NEURON, ACTIVE, DEPTH, OPENER)
_PART_BYTES = 64 * 2**20


def write_dataset(dataset: xr.Dataset, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a Dataset as a complete trace, all at once or not at all.

    Parameters
    ----------
    dataset
        As `open_trace` returns it: every coordinate of docs/format.md, any rows of `names.QUANTITIES`.
    path
        The trace directory.
    overwrite
        Replace a trace that is there.

    Raises
    ------
    TraceError
        When the Dataset lacks something a trace needs, or the output is occupied or cannot be written.
    """
    missing = sorted({*schema.TOKEN_COORDS, *schema.TEXTS, LAYER} - dataset.variables.keys())
    if missing:
        raise TraceError(
            f"this Dataset has no '{missing[0]}'", fix="Give one that open_trace, simulate or import made."
        )
    if DEPTH in dataset.coords and not np.array_equal(dataset[DEPTH], np.arange(dataset.sizes[DEPTH])):
        raise TraceError("this Dataset holds only a part of the 'depth' axis", fix="Keep it whole.")
    present = [name for name in (*schema.MAYBE_TOKEN_COORDS, *names.QUANTITIES) if name in dataset.variables]
    fixed = {name: dataset[name].values for name in present if _is_fixed(name)}
    streams = {name: _stream_dtype(dataset[name]) for name in present if names.is_streamed(name)}
    variables = [name for name in present if name not in fixed and name not in streams]
    rows = [str(name) for name in dataset.variables if schema.text_dimension(str(name)) == ROW]
    with TraceWriter(
        path,
        attrs={key: value for key, value in dataset.attrs.items() if key not in WRITTEN},
        layers=dataset[LAYER].values.tolist(),
        sizes={str(dim): size for dim, size in dataset.sizes.items() if dim in _FIXED},
        variables=variables,
        streams=streams,
        fixed=fixed,
        row_columns=[dataset[f"column_{number}"].attrs.get("column", "") for number in range(len(rows))],
        overwrite=overwrite,
        at_once=True,
    ) as writer:
        for part in _parts(dataset):
            for name in streams:
                _stream(part[name], streams[name], writer.stream(name))
            writer.append(_block(part, variables, rows))
        writer.finish()


def _stream_dtype(variable: xr.DataArray) -> str:
    """What a streamed array is stored as; in memory bfloat16 is float32."""
    return str(variable.attrs.get(LOGICAL_DTYPE, variable.dtype))


def _stream(variable: xr.DataArray, dtype: str, stream: RowStream) -> None:
    """Write the rows of a part of a Dataset, layer by layer, some megabytes at a time."""
    rows, layers, width = variable.shape
    step = max(1, _PART_BYTES // max(1, width * variable.dtype.itemsize))
    for layer in range(layers):
        for first in range(0, rows, step):
            values = variable[first : first + step, layer].values
            stored = as_bfloat16(values) if dtype == "bfloat16" else values
            stream.write(layer, stream.next_row + first, stored)


def _is_fixed(name: str) -> bool:
    """Whether it is an array that does not grow with the prompts."""
    return name in names.QUANTITIES and names.QUANTITIES[name].group == names.FLOOR


def _parts(dataset: xr.Dataset) -> Iterator[xr.Dataset]:
    """The Dataset in runs of whole prompts that are small enough to copy."""
    prompts = dataset.sizes[PROMPT]
    step = max(1, int(prompts * _PART_BYTES // max(1, dataset.nbytes)))
    prompt = dataset["prompt"].values
    row_prompt = prompt[dataset["row_token"].values] if "row_token" in dataset else np.zeros(0, np.int32)
    ends = np.cumsum([edges(int(length)) for length in np.bincount(prompt, minlength=prompts)])
    if dataset.sizes.get(EDGE, ends[-1]) != ends[-1]:
        raise TraceError(
            "this Dataset holds attention of other prompts or tokens than it holds",
            fix="Drop the variable 'attention', or keep the pairs of just these prompts.",
        )
    if (np.diff(row_prompt) < 0).any():
        step = prompts  # rows that jump between prompts keep their order only in one piece
    for first in range(0, prompts, max(1, step)):
        bounds = [first, min(first + step, prompts)]
        tokens = np.searchsorted(prompt, bounds)
        parts = {PROMPT: slice(*bounds), TOKEN: slice(*tokens)}
        if EDGE in dataset.sizes:
            parts[EDGE] = slice(int(ends[bounds[0] - 1]) if first else 0, int(ends[bounds[1] - 1]))
        if "row_token" in dataset:
            parts[ROW] = slice(*np.searchsorted(row_prompt, bounds))
        part = dataset.isel(parts)
        shifts = {"prompt": first, "row_token": int(tokens[0])}
        yield part.assign({name: part[name] - shift for name, shift in shifts.items() if name in part})


def _block(part: xr.Dataset, variables: Sequence[str], row_columns: Sequence[str]) -> Block:
    arrays = {name: part[name].values for name in (*schema.TOKEN_COORDS, *variables)}
    if ROW in part.sizes:
        arrays |= {name: part[name].values for name in schema.ROW_ARRAYS}
    return Block(arrays, {name: part[name].values.tolist() for name in (*schema.TEXTS, *row_columns)})
