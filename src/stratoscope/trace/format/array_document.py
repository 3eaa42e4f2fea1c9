"""What the root document says of one array, checked against the only things the format allows."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn

import numpy as np

from stratoscope.errors import TraceError
from stratoscope.names import (
    ACTIVE,
    COMPONENT,
    DEPTH,
    EFFECT_RANK,
    HEAD,
    LAYER,
    LENS,
    LENS_RANK,
    LOGIT_RANK,
    NEURON,
    OPENER,
    PEAK,
    READ_PART,
    ROUTE,
    ROW,
    STRONGEST,
    TARGET,
    WRITE_RANK,
)
from stratoscope.trace.format.checksums import settled_grid
from stratoscope.trace.format.schema import Layout, fill_value, is_sealed, present_dimensions
from stratoscope.trace.format.shards import MAX_SHARD_BYTES, Shards

MAX_CHUNK_BYTES = 64 * 2**20
MAX_GROWING_LENGTH = 10**12
MAX_LENGTH = {LAYER: 10_000, DEPTH: 10_001, HEAD: 10_000, PEAK: 10_000, OPENER: 10_000, NEURON: 10_000_000}
MAX_LENGTH[ACTIVE] = MAX_LENGTH[NEURON]
MAX_LENGTH |= dict.fromkeys((TARGET, LOGIT_RANK, EFFECT_RANK, STRONGEST, READ_PART, COMPONENT, WRITE_RANK), 10_000)
MAX_LENGTH |= dict.fromkeys((LENS, LENS_RANK, ROUTE), 10_000)

_CHUNK_NAME = re.compile(r"c((?:\.(?:0|[1-9]\d{0,11}))+)")
_KEYS = {
    "attributes", "chunk_grid", "chunk_key_encoding", "codecs", "data_type", "dimension_names", "fill_value",
    "node_type", "shape", "storage_transformers", "zarr_format",
}  # fmt: skip
_KEY_ENCODING = {"name": "default", "configuration": {"separator": "."}}
_BYTES = ({"name": "bytes"}, {"name": "bytes", "configuration": {"endian": "little"}})
_BLOSC = {
    "cname": ("zstd", "lz4", "lz4hc", "blosclz", "zlib"),
    "shuffle": ("noshuffle", "shuffle", "bitshuffle"),
    "clevel": range(10),
    "typesize": range(1, 9),
    "blocksize": range(MAX_CHUNK_BYTES + 1),
}
_CHECKSUM = ({"name": "crc32c"}, {"name": "crc32c", "configuration": {}})


@dataclass(frozen=True)
class ArrayDocument:
    """One array of a trace: `raw` is its metadata document, the rest what was read from it.

    Of a streamed array `chunks` are its shards, and `shards` says where rows lie in them.
    """

    layout: Layout
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    compressed: bool
    checksummed: bool
    attrs: dict[str, str]
    raw: dict[str, Any]
    shards: Shards | None = None

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk in memory."""
        return prod(self.chunks) * np.dtype(self.layout.dtype).itemsize

    @property
    def unpacked_bytes(self) -> int:
        """Bytes that reading all of it unpacks; of the last chunk along a growing dimension only what is used."""
        size = np.dtype(self.layout.dtype).itemsize
        if self.shards is not None:
            return prod(self.shape) * size
        across = prod(count * chunk for count, chunk in zip(self.grid[1:], self.chunks[1:], strict=True))
        rows = self.shape[0] if prod(self.grid[1:]) == 1 else self.grid[0] * self.chunks[0]
        return rows * across * size

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of chunks along each dimension."""
        return settled_grid(self.shape, self.chunks, complete=True)


def chunk_index(file_name: str) -> tuple[int, ...] | None:
    """Place of a chunk in the grid by its file name, None for any other file."""
    match = _CHUNK_NAME.fullmatch(file_name)
    return tuple(int(part) for part in match[1][1:].split(".")) if match else None


def check_array(raw: Any, layout: Layout, version: str) -> ArrayDocument:
    """Check the metadata document of an array.

    Parameters
    ----------
    raw
        The document as parsed JSON.
    layout
        What the array of this name must be.
    version
        The format version of its trace.

    Raises
    ------
    TraceError
        With the first thing that is not as it must be.
    """
    _require(isinstance(raw, dict) and raw.keys() <= _KEYS, "metadata", raw)
    _require(raw.get("zarr_format") == 3 and raw.get("node_type") == "array", "kind of node", raw.get("node_type"))
    _require(raw.get("data_type") == layout.dtype, "data type", raw.get("data_type"))
    dims = raw.get("dimension_names")
    _require(present_dimensions(dims, version) == list(layout.dims), "dimensions", dims)
    _require(raw.get("chunk_key_encoding") == _KEY_ENCODING, "chunk_key_encoding", raw.get("chunk_key_encoding"))
    _require(raw.get("storage_transformers", []) == [], "storage_transformers", raw.get("storage_transformers"))
    _require(raw.get("fill_value") == _stored_fill(layout), "fill_value", raw.get("fill_value"))
    attrs = raw.get("attributes", {})
    _require(isinstance(attrs, dict) and all(isinstance(text, str) for text in attrs.values()), "attributes", attrs)
    _require("column" in attrs or layout.dims != (ROW,) or not layout.name.endswith("_end"), "attributes", attrs)
    shape = _check_shape(raw.get("shape"), layout)
    chunks = _check_chunks(raw.get("chunk_grid"), layout)
    sealed = is_sealed(version)
    shards = _check_shards(raw.get("codecs"), layout, shape, chunks, sealed=sealed) if layout.streamed else None
    compressed, checksummed = (False, False) if shards else _check_codecs(raw.get("codecs"))
    return ArrayDocument(
        layout=layout,
        shape=shape,
        chunks=chunks,
        compressed=compressed,
        checksummed=checksummed,
        attrs=attrs,
        raw=raw,
        shards=shards,
    )


def _refuse(what: str, value: Any) -> NoReturn:
    text = repr(value)
    raise TraceError(f"{what} that is not allowed: {text if len(text) <= 80 else text[:79] + '…'}")


def _require(holds: bool, what: str, value: Any) -> None:
    if not holds:
        _refuse(what, value)


def _stored_fill(layout: Layout) -> object:
    fill = fill_value(layout)
    return "NaN" if fill != fill else fill


def _is_count(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _check_shape(shape: Any, layout: Layout) -> tuple[int, ...]:
    _require(isinstance(shape, list) and len(shape) == len(layout.dims), "shape", shape)
    for length, dim in zip(shape, layout.dims, strict=True):
        _require(_is_count(length, 0, MAX_LENGTH.get(dim, MAX_GROWING_LENGTH)), f"length of '{dim}'", length)
    return tuple(shape)


def _check_chunks(grid: Any, layout: Layout) -> tuple[int, ...]:
    _require(isinstance(grid, dict) and grid.get("name") == "regular", "chunk_grid", grid)
    configuration = grid.get("configuration")
    _require(isinstance(configuration, dict) and configuration.keys() == {"chunk_shape"}, "chunk_grid", grid)
    chunks = configuration["chunk_shape"]
    _require(isinstance(chunks, list) and len(chunks) == len(layout.dims), "chunk_shape", chunks)
    _require(all(_is_count(length, 1, MAX_CHUNK_BYTES) for length in chunks), "chunk_shape", chunks)
    size = prod(chunks) * np.dtype(layout.dtype).itemsize
    most = MAX_SHARD_BYTES if layout.streamed else MAX_CHUNK_BYTES
    _require(size <= most, f"chunk_shape of {size:,} bytes", chunks)
    return tuple(chunks)


def _check_shards(
    codecs: Any, layout: Layout, shape: tuple[int, ...], chunks: tuple[int, ...], *, sealed: bool
) -> Shards:
    """Where the rows of a streamed array lie, if its shards are the only ones that are allowed."""
    _require(isinstance(codecs, list) and len(codecs) == 1 and isinstance(codecs[0], dict), "codecs", codecs)
    _require(
        codecs[0].keys() == {"name", "configuration"} and codecs[0]["name"] == "sharding_indexed", "codecs", codecs
    )
    settings = codecs[0]["configuration"]
    _require(isinstance(settings, dict) and settings.keys() == _SHARDING.keys(), "sharding settings", settings)
    for key, is_sound in _SHARDING.items():
        _require(is_sound(settings[key]), f"sharding {key}", settings[key])
    _, layers, width = shape
    inner = settings["chunk_shape"]
    _require(chunks[1:] == (max(1, layers), max(1, width)), "chunk_shape", list(chunks))
    _require(inner[1:] == [1, max(1, width)] and _is_count(inner[0], 1, chunks[0]), "inner chunk_shape", inner)
    _require(chunks[0] % inner[0] == 0, "inner chunk_shape", inner)
    shards = Shards(chunks[0], inner[0], layers, width, np.dtype(layout.dtype).itemsize, sealed)
    _require(shards.chunk_bytes <= MAX_CHUNK_BYTES, "inner chunk_shape", inner)
    return shards


_SHARDING: dict[str, Callable[[Any], bool]] = {
    "chunk_shape": lambda value: isinstance(value, list) and len(value) == 3,
    "codecs": lambda value: isinstance(value, list) and len(value) == 1 and value[0] in _BYTES,
    "index_codecs": lambda value: (
        isinstance(value, list) and len(value) == 2 and value[0] == _BYTES[1] and value[1] in _CHECKSUM
    ),
    "index_location": lambda value: value == "start",
}


def _check_codecs(codecs: Any) -> tuple[bool, bool]:
    """Whether the codecs compress, and whether they checksum: `bytes`, then perhaps `blosc`, then perhaps `crc32c`."""
    _require(isinstance(codecs, list) and 1 <= len(codecs) <= 3 and codecs[0] in _BYTES, "codecs", codecs)
    rest = list(codecs[1:])
    compressed = bool(rest) and isinstance(rest[0], dict) and rest[0].get("name") == "blosc"
    if compressed:
        _check_blosc(rest.pop(0))
    _require(not rest or rest in [[checksum] for checksum in _CHECKSUM], "codecs", codecs)
    return compressed, bool(rest)


def _check_blosc(codec: dict[str, Any]) -> None:
    configuration = codec.get("configuration")
    _require(codec.keys() == {"name", "configuration"} and isinstance(configuration, dict), "codec", codec)
    assert isinstance(configuration, dict)
    _require(configuration.keys() <= _BLOSC.keys(), "blosc settings", configuration)
    for key, value in configuration.items():
        sound = type(value) in (int, str) and value in _BLOSC[key]
        _require(sound, f"blosc {key}", value)
