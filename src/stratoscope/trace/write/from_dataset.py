"""A Dataset becomes a trace: imports, simulations, and whatever somebody has made of a trace in Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from stratoscope import names
from stratoscope.errors import TraceError
from stratoscope.names import DEPTH, EDGE, LAYER, PROMPT, ROW, TOKEN
from stratoscope.trace.format import schema
from stratoscope.trace.format.legal import check_dataset
from stratoscope.trace.format.schema import WRITTEN, Block
from stratoscope.trace.format.shards import LOGICAL_DTYPE, as_bfloat16
from stratoscope.trace.prompts import Prompts
from stratoscope.trace.write.row_stream import RowStream
from stratoscope.trace.write.writer import TraceWriter

_FIXED = {dim for row in names.QUANTITIES.values() for dim in row.dims} - {TOKEN, PROMPT, EDGE, ROW, LAYER}
_PART_BYTES = 32 * 2**20  # in memory at once, of a streamed array or of all others
_STREAMED_BYTES = 2**30  # of streamed arrays between two blocks


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
    attrs = {key: value for key, value in dataset.attrs.items() if key not in WRITTEN}
    with writer_for(dataset, path, attrs, overwrite=overwrite) as writer:
        for _ in copied(dataset, writer):
            pass
        writer.finish()


def writer_for(dataset: xr.Dataset, path: str | Path, attrs: Mapping[str, Any], *, overwrite: bool) -> TraceWriter:
    """A writer of a trace that takes the prompts of such a Dataset, and appears when it is complete.

    Raises
    ------
    TraceError
        When the Dataset lacks something a trace needs, or the output is occupied or cannot be written.
    """
    check_dataset(dataset)
    missing = sorted(schema.TEXTS.keys() - dataset.variables.keys())
    if missing:
        raise TraceError(
            f"this Dataset has no '{missing[0]}'", fix="Give one that open_trace, simulate or import made."
        )
    if DEPTH in dataset.coords and not np.array_equal(dataset[DEPTH], np.arange(dataset.sizes[DEPTH])):
        raise TraceError("this Dataset holds only a part of the 'depth' axis", fix="Keep it whole.")
    return TraceWriter(
        path,
        attrs=attrs,
        layers=dataset[LAYER].values.tolist(),
        sizes={str(dim): size for dim, size in dataset.sizes.items() if dim in _FIXED},
        variables=_variables(dataset),
        streams=_streams(dataset),
        fixed={name: dataset[name].values for name in _present(dataset) if names.is_floor(name)},
        row_columns=[dataset[name].attrs.get("column", "") for name in _row_columns(dataset)],
        overwrite=overwrite,
        at_once=True,
    )


def copied(dataset: xr.Dataset, writer: TraceWriter) -> Iterator[int]:
    """Append every prompt to a writer that `writer_for` gave; yields how many there are so far."""
    streams, variables, row_columns = _streams(dataset), _variables(dataset), _row_columns(dataset)
    prompts = 0
    for part in _parts(dataset):
        for name, dtype in streams.items():
            _stream(part[name], dtype, writer.stream(name))
        writer.append(_block(part, variables, row_columns))
        prompts += part.sizes[PROMPT]
        yield prompts


def _present(dataset: xr.Dataset) -> list[str]:
    return [name for name in (*schema.MAYBE_TOKEN_COORDS, *names.QUANTITIES) if name in dataset.variables]


def _variables(dataset: xr.Dataset) -> list[str]:
    """What comes in blocks."""
    return [name for name in _present(dataset) if not names.is_floor(name) and not names.is_streamed(name)]


def _streams(dataset: xr.Dataset) -> dict[str, str]:
    """Streamed arrays, with their dtype."""
    return {name: _stream_dtype(dataset[name]) for name in _present(dataset) if names.is_streamed(name)}


def _row_columns(dataset: xr.Dataset) -> list[str]:
    """Extra text columns of an import, in order."""
    columns = sum(schema.text_dimension(str(name)) == ROW for name in dataset.variables)
    return [f"column_{number}" for number in range(columns)]


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


def _parts(dataset: xr.Dataset) -> Iterator[xr.Dataset]:
    """The Dataset in runs of whole prompts that are small enough to copy."""
    prompts = Prompts(dataset)
    if EDGE in dataset.sizes and dataset.sizes[EDGE] != prompts.bounds[EDGE][-1]:
        raise TraceError(
            "this Dataset holds attention of other prompts or tokens than it holds",
            fix="Drop the variable 'attention', or keep the pairs of just these prompts.",
        )
    if ROW in dataset.sizes and ROW not in prompts.bounds:
        yield dataset  # rows that jump between prompts keep their order only in one piece
        return
    for first, stop in pairwise(_bounds(_shares(dataset, prompts))):
        yield prompts.part(first, stop)


def _shares(dataset: xr.Dataset, prompts: Prompts) -> np.ndarray:
    """The share of each prompt in what may be copied at once, from its elements along the dimensions that grow."""
    shares = np.zeros(dataset.sizes[PROMPT])
    for name, variable in dataset.variables.items():
        dim = str(variable.dims[0]) if variable.dims else ""
        if dim in prompts.bounds and len(variable):
            most = _STREAMED_BYTES if names.is_streamed(str(name)) else _PART_BYTES
            shares += np.diff(prompts.bounds[dim]) * (variable.nbytes / len(variable) / most)
    return shares


def _bounds(shares: np.ndarray) -> list[int]:
    """Where runs of prompts begin and end whose shares add up to no more than 1, or that are one prompt."""
    bounds, filled = [0], 0.0
    for prompt, share in enumerate(shares.tolist()):
        if prompt > bounds[-1] and filled + share > 1:
            bounds.append(prompt)
            filled = 0.0
        filled += share
    return [*bounds, len(shares)] if len(shares) else bounds


def _block(part: xr.Dataset, variables: Sequence[str], row_columns: Sequence[str]) -> Block:
    arrays = {name: part[name].values for name in (*schema.TOKEN_COORDS, *variables)}
    if ROW in part.sizes:
        arrays |= {name: part[name].values for name in schema.ROW_ARRAYS}
    return Block(arrays, {name: part[name].values.tolist() for name in (*schema.TEXTS, *row_columns)})
