"""Where the rows of a streamed array lie on disk: shards in which every number has a place that is known beforehand.

A streamed array is (row, layer, width): neurons of tokens, attention of pairs. A shard holds a run of rows of all
layers, cut into inner chunks of a few rows of one layer. Nothing is compressed (24 % is all that it would buy) and the
index, which stands first, never changes; so rows can be written in place, in any order, as layers give them, and a
shard that is still growing is a valid Zarr shard.

    index | identity | inner chunks … | index

The identity says which shard of which array of which recording it is; the index does not refer to it. The second index
is for readers that look for it nowhere but at the end. Before version 2.0 there were neither.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from math import ceil

import google_crc32c
import numpy as np

from stratoscope.trace.format import checksums

DTYPES = {"float32": "float32", "float16": "float16", "bfloat16": "uint16"}  # as numbers, and as they are stored
LOGICAL_DTYPE = "logical_dtype"  # attribute of an array whose numbers are stored as their bits
MAX_SHARD_BYTES = 2**30

_MIB = 2**20
_SHARD_BYTES = 256 * _MIB
_CHUNK_BYTES = 1 * _MIB
_IDENTITY_BYTES = 32


def power_of_two(most: int) -> int:
    """The largest one that is not larger, at least 1."""
    return 1 << (max(1, most).bit_length() - 1)


@dataclass(frozen=True)
class Shards:
    """The places of a streamed array.

    Attributes
    ----------
    rows, chunk_rows
        Rows of a shard and of an inner chunk.
    layers, width, itemsize
        Lengths of the other dimensions, and bytes of a number.
    sealed
        Whether the identity and the second index are there.
    """

    rows: int
    chunk_rows: int
    layers: int
    width: int
    itemsize: int
    sealed: bool = True

    @classmethod
    def fitting(cls, layers: int, width: int, itemsize: int, *, most_rows: int, most_chunk_rows: int) -> Shards:
        """Inner chunks of at most 1 MiB and shards of at most 256 MiB, powers of two of rows."""
        row = max(1, width * itemsize)
        chunk_rows = power_of_two(min(most_chunk_rows, _CHUNK_BYTES // row))
        rows = power_of_two(min(most_rows, _SHARD_BYTES // (row * max(1, layers))))
        return cls(max(rows, chunk_rows), chunk_rows, layers, width, itemsize)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of an inner chunk."""
        return self.chunk_rows * self.width * self.itemsize

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of one layer."""
        return self.width * self.itemsize

    @property
    def index_bytes(self) -> int:
        """Bytes of the index: two numbers of 8 bytes for each inner chunk, and a checksum."""
        return 16 * (self.rows // self.chunk_rows) * self.layers + checksums.BYTES

    @property
    def header_bytes(self) -> int:
        """Bytes before the first inner chunk."""
        return self.index_bytes + (_IDENTITY_BYTES if self.sealed else 0)

    def place(self, row: int, layer: int) -> int:
        """Where a row of a layer begins in its shard's file; `row` is counted from the shard's first."""
        block, within = divmod(row, self.chunk_rows)
        return self.header_bytes + (block * self.layers + layer) * self.chunk_bytes + within * self.row_bytes

    def end(self, rows: int) -> int:
        """Where the inner chunks end in a shard that holds that many rows: all that are begun are whole."""
        return self.header_bytes + ceil(rows / self.chunk_rows) * self.layers * self.chunk_bytes

    def file_bytes(self, rows: int) -> int:
        """Bytes of a shard that holds that many rows and to which nobody adds any."""
        return self.end(rows) + (self.index_bytes if self.sealed else 0)

    def disk_bytes(self, rows: int) -> int:
        """Bytes of the files of an array of that many rows."""
        whole, rest = divmod(rows, self.rows)
        return whole * self.file_bytes(self.rows) + (self.file_bytes(rest) if rest else 0)

    def index(self) -> bytes:
        """The index of every shard: offset and length of each inner chunk, in C order, and its checksum."""
        chunks = self.rows // self.chunk_rows * self.layers
        offsets = self.header_bytes + np.arange(chunks, dtype="<u8") * np.uint64(self.chunk_bytes)
        entries = np.stack([offsets, np.full(chunks, self.chunk_bytes, "<u8")], axis=1).astype("<u8").tobytes()
        return entries + int(google_crc32c.value(entries)).to_bytes(checksums.BYTES, "little")

    def header(self, recording: str, array: str, shard: int) -> bytes:
        """What a shard begins with: the index, and the identity.

        Parameters
        ----------
        recording
            What is recorded, as `recording_digest` gives it.
        array, shard
            The array's name and the shard's number.
        """
        index = self.index()
        name = json.dumps([recording, array, shard]).encode()
        return index + (hashlib.sha256(name + index).digest() if self.sealed else b"")


def file_name(shard: int) -> str:
    """Name of a shard's file in the folder of its array."""
    return f"c.{shard}.0.0"


def as_numbers(values: np.ndarray) -> np.ndarray:
    """Stored rows as numbers: bfloat16, stored as its bits in uint16, becomes float32, which loses nothing."""
    if values.dtype == np.uint16:
        numbers: np.ndarray = np.left_shift(values, 16, dtype=np.uint32).view(np.float32)
        return numbers
    return values


def as_bfloat16(values: np.ndarray) -> np.ndarray:
    """The bits of float32 numbers that are bfloat16 numbers."""
    return np.right_shift(values.astype(np.float32, copy=False).view(np.uint32), 16).astype(np.uint16)


def missing(dtype: str) -> float | int:
    """NaN as it is stored, of a key of `DTYPES`."""
    return 0x7FC0 if DTYPES[dtype] == "uint16" else float("nan")
