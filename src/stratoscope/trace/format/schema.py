"""What lies where in a trace: the arrays of the format, their dimensions, data types, chunks and attributes.

Derived from `stratoscope.names`; the writer creates exactly these arrays and the reader accepts no others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from stratoscope import names
from stratoscope.names import DEPTH, EDGE, LAYER, NEURON, PROMPT, ROW, TOKEN
from stratoscope.trace.format import shards
from stratoscope.trace.format.checksums import CHECKSUMS
from stratoscope.trace.format.shards import Shards
from stratoscope.trace.format.strict_json import DIGEST

FORMAT = "stratoscope-trace"
FORMAT_VERSION = names.FORMAT_VERSIONS[-1]
READABLE = ("1", "2")  # major versions
RECORDING, COMPLETE = "recording", "complete"
RECORDING_DIGEST = "recording_sha256"  # attribute: of what decides the values, the same in all parts of a recording
UNKNOWN_ARRAYS = "unknown_arrays"  # attribute in memory: what a newer Stratoscope wrote and this one cannot read
PUBLISHED = "published"  # attribute: level and promise of a trace that was rewritten for others; it says no times
WRITTEN = (  # attributes that the writer itself gives a trace, or that were true of another one
    *("format", "format_version", "state", "uuid", "created", "finished", "coordinates"),
    *(RECORDING_DIGEST, CHECKSUMS, DIGEST, UNKNOWN_ARRAYS),
)
ROOT_DOCUMENT = "zarr.json"

Sizes = Mapping[str, int]

_MIB = 2**20
_CHUNK_BYTES = (
    4 * _MIB
)  # a chunk is read and rewritten whole: large enough for speed, small enough to look at one token
_ROW_BYTES = 64 * _MIB  # what one row of chunks of a prompt array may take; the writer keeps that much in memory
_CHUNK_TOKENS = 16_384
_CHUNK_ROWS = 65_536
_CHUNK_PROMPTS = 4096
_CHUNK_WIDE_PROMPTS = 32
_CHUNK_TEXT = 2**18
_SHARD_TOKENS, _SHARD_EDGES = 1024, 2**20  # of streamed arrays
_INNER_TOKENS, _INNER_EDGES = 128, 2**16

TOKEN_COORDS = {
    "prompt": ("int32", "index of the token's prompt"),
    "position": ("int32", "place in the prompt"),
    "token_id": ("int32", "the tokenizer's id, −1 unknown"),
    "span": ("int8", "index into " + ", ".join(names.SPANS) + "; −1 unknown"),
}
MAYBE_TOKEN_COORDS = {  # of a recorded trace since version 1.1
    "char_start": ("int32", "first character in the rendered prompt, −1 where the token is not part of it"),
    "char_end": ("int32", "where it ends there (excluded), −1 where the token is not part of it"),
}
ROW_ARRAYS = {
    "row_token": ("int64", "index on token"),
    "row_layer": ("int32", "block number"),
    "row_neuron": ("int32", "Neuron_ID as given"),
}
AXIS_COORDS = {LAYER: "block number", DEPTH: "blocks passed: 0 = before block 0"}
TEXTS = {"text": TOKEN, **dict.fromkeys(names.PROMPT_TEXTS, PROMPT)}
REQUIRED = {LAYER, *TOKEN_COORDS, *(f"{column}_end" for column in TEXTS)}
MAX_COLUMNS = 100  # further ones of an import: each is two arrays
_ROW_COLUMN = re.compile(r"column_\d{1,4}")


@dataclass(frozen=True)
class Block:
    """Whole prompts on their way into a trace.

    Attributes
    ----------
    arrays
        `prompt`, `position`, `token_id`, `span` of shape (token,) and every variable the writer was opened with:
        `char_start` and `char_end` of shape (token,), and quantities in the dimensions of `names.QUANTITIES`. `prompt`
        counts the prompts of this block from 0 without a gap; `row_token` of shape (row,) counts the tokens of this
        block from 0. The writer adds what came before.
    texts
        `text` per token; `prompt_id`, `prompt_class`, `pair`, `group` per prompt ("" = none);
        `column_0`, `column_1`, … per row of an import.
    """

    arrays: Mapping[str, np.ndarray]
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """One array on disk: name, dimensions in order, NumPy dtype and attributes."""

    name: str
    dims: tuple[str, ...]
    dtype: str
    attrs: dict[str, Any]

    @property
    def grows(self) -> bool:
        """Whether the first dimension grows with every prompt."""
        return self.dims[0] not in AXIS_COORDS

    def shape(self, sizes: Sizes, length: int = 0) -> tuple[int, ...]:
        """Shape when the growing dimension has `length`."""
        first = length if self.grows else sizes[self.dims[0]]
        return (first, *(sizes[dim] for dim in self.dims[1:]))

    @property
    def streamed(self) -> bool:
        """Whether its rows are written in place, into shards."""
        return names.is_streamed(self.name)

    def shards(self, sizes: Sizes) -> Shards:
        """Where the rows of a streamed array lie."""
        layers, width = (sizes[dim] for dim in self.dims[1:])
        edges = self.dims[0] == EDGE
        return Shards.fitting(
            layers,
            width,
            np.dtype(self.dtype).itemsize,
            most_rows=_SHARD_EDGES if edges else _SHARD_TOKENS,
            most_chunk_rows=_INNER_EDGES if edges else _INNER_TOKENS,
        )

    def chunks(self, sizes: Sizes) -> tuple[int, ...]:
        """Chunk shape: about 1 to 4 MiB, every other dimension whole where it fits; of a streamed array its shards."""
        if self.streamed:
            return (self.shards(sizes).rows, *(sizes[dim] for dim in self.dims[1:]))
        if not self.grows:
            return self.shape(sizes)
        rest = tuple(max(1, sizes[dim]) for dim in self.dims[1:])
        itemsize = np.dtype(self.dtype).itemsize
        if self.dims[0] == PROMPT and NEURON in self.dims:
            return _wide_prompt_chunks(rest, itemsize)
        return (_chunk_length(self.dims[0], prod(rest) * itemsize), *rest)


def _chunk_length(dim: str, row_bytes: int) -> int:
    """Elements of a growing dimension in a chunk: a power of two within the byte budget."""
    most = {TOKEN: _CHUNK_TOKENS, PROMPT: _CHUNK_PROMPTS, ROW: _CHUNK_ROWS}.get(dim, _CHUNK_TEXT)
    fitting = max(1, _CHUNK_BYTES // row_bytes)
    return min(most, 1 << (fitting.bit_length() - 1))


def _wide_prompt_chunks(rest: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Chunks of (prompt, layer, neuron): few prompts, as many layers as fit, all neurons."""
    layers, neurons = rest
    prompts = max(1, min(_CHUNK_WIDE_PROMPTS, _ROW_BYTES // (layers * neurons * itemsize)))
    fitting = max(1, _CHUNK_BYTES // 2 // (prompts * neurons * itemsize))
    return (prompts, min(layers, fitting), neurons)


def fill_value(layout: Layout) -> int | float:
    """What stands where nothing was recorded: NaN, −1, 0 for the bytes of texts, or false."""
    if shards.LOGICAL_DTYPE in layout.attrs:
        return shards.missing(layout.attrs[shards.LOGICAL_DTYPE])
    return {"f": float("nan"), "i": -1, "u": 0, "b": False}[np.dtype(layout.dtype).kind]


def text_layouts(column: str, dim: str, attrs: Mapping[str, Any] | None = None) -> list[Layout]:
    """The pair of arrays that holds a text column: all bytes end to end, and where each text ends."""
    attrs = dict(attrs or {})
    return [
        Layout(f"{column}_bytes", (f"{column}_byte",), "uint8", {"long_name": f"UTF-8 bytes of {column}", **attrs}),
        Layout(f"{column}_end", (dim,), "int64", {"long_name": f"where each {column} ends in {column}_bytes", **attrs}),
    ]


def text_columns(row_columns: Sequence[str] = ()) -> dict[str, str]:
    """Text columns of a trace → their dimension; `row_columns` are the original names of an import's extra columns."""
    return {**TEXTS, **{f"column_{number}": ROW for number in range(len(row_columns))}}


def text_dimension(column: str) -> str | None:
    """The dimension of a text column of any trace, None where the format has no such column."""
    return ROW if _ROW_COLUMN.fullmatch(column) else TEXTS.get(column)


def companion(name: str) -> str | None:
    """The other array of the pair that holds a text column, None for any other array."""
    for one, other in (("_bytes", "_end"), ("_end", "_bytes")):
        if name.endswith(one) and text_dimension(name.removesuffix(one)) is not None:
            return name.removesuffix(one) + other
    return None


def quantity_layout(name: str, source: str, dtype: str = "") -> Layout:
    """Layout of a row of `names.QUANTITIES`; of a streamed one `dtype` is a key of `shards.DTYPES`."""
    quantity = names.QUANTITIES[name]
    attrs = {"units": quantity.unit, "long_name": quantity.label, "formula": quantity.formula, "source": source}
    if quantity.elsewhere:
        attrs["elsewhere"] = "; ".join(f"{tool}: {other}" for tool, other in quantity.elsewhere.items())
    if not dtype:
        return Layout(name, quantity.dims, quantity.dtype, attrs)
    if quantity.dtype not in ("model", dtype) or dtype not in shards.DTYPES:
        raise ValueError(f"'{name}' is not stored as {dtype}")
    if shards.DTYPES[dtype] != dtype:  # other software sees bits, and must not take them for numbers
        bits = {"units": f"{dtype} bits", "long_name": f"{quantity.label} ({dtype} bits)", shards.LOGICAL_DTYPE: dtype}
        attrs = {**attrs, **bits}
    return Layout(name, quantity.dims, shards.DTYPES[dtype], attrs)


def major(version: str) -> str:
    """The major version of a format version."""
    return version.partition(".")[0]


def is_sealed(version: str) -> bool:
    """Whether traces of a format version carry a digest, checksums of their chunks and the identity of their shards."""
    return major(version) != "1"


def present_name(stored: str, version: str) -> str:
    """What an array of a trace of that format version is called today."""
    return names.RENAMED_ARRAYS.get(stored, stored) if major(version) == "1" else stored


def present_dimensions(stored: object, version: str) -> object:
    """What the dimensions of an array of a trace of that format version are called today."""
    if major(version) != "1" or not isinstance(stored, list):
        return stored
    return [names.RENAMED_DIMENSIONS.get(dim, dim) if isinstance(dim, str) else dim for dim in stored]


def known_layout(name: str) -> Layout | None:
    """Layout of the array of that name in the format, None where there is none."""
    if name in names.QUANTITIES:
        return quantity_layout(name, "")
    if name in AXIS_COORDS:
        return Layout(name, (name,), "int32", {"long_name": AXIS_COORDS[name]})
    for table, dim in ((TOKEN_COORDS, TOKEN), (MAYBE_TOKEN_COORDS, TOKEN), (ROW_ARRAYS, ROW)):
        if name in table:
            dtype, meaning = table[name]
            return Layout(name, (dim,), dtype, {"long_name": meaning})
    column = name.removesuffix("_bytes").removesuffix("_end")
    dim_of_text = text_dimension(column)
    if dim_of_text is None:
        return None
    return next((layout for layout in text_layouts(column, dim_of_text) if layout.name == name), None)


def trace_layouts(
    variables: Iterable[str], row_columns: Sequence[str], source: str, streams: Mapping[str, str] | None = None
) -> dict[str, Layout]:
    """Every array of a trace, by name, that records `variables` (quantities, and `MAYBE_TOKEN_COORDS`).

    `streams`: name of each streamed quantity to its dtype.
    """
    variables = list(variables)
    coords = [name for name in MAYBE_TOKEN_COORDS if name in variables]
    variables = [name for name in variables if name not in coords]
    dims = {dim for name in variables for dim in names.QUANTITIES[name].dims}
    plain = [*TOKEN_COORDS, *coords, *(ROW_ARRAYS if ROW in dims else ()), LAYER, *([DEPTH] if DEPTH in dims else [])]
    layouts = [layout for name in plain if (layout := known_layout(name)) is not None]
    for column, dim in text_columns(row_columns).items():
        attrs = {"column": row_columns[int(column.removeprefix("column_"))]} if dim == ROW else {}
        layouts += text_layouts(column, dim, attrs)
    layouts += [quantity_layout(name, source) for name in variables]
    layouts += [quantity_layout(name, source, dtype) for name, dtype in (streams or {}).items()]
    return {layout.name: layout for layout in layouts}
