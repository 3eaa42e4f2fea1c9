"""Checksums of all chunks of an array, in the root document: they bind a chunk to its array, its place and its trace.

A chunk ends with the CRC32C of its content, and its reader checks that. The same four bytes stand in the root document,
in the order of the grid, so a whole chunk that belongs elsewhere is noticed as well, whichever chunk is read.

The last chunk of an array that grows is replaced before the root document says so. Until the trace is complete only
chunks that are full are therefore bound.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from itertools import product
from math import ceil, prod
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from stratoscope.errors import TraceError

CHECKSUMS = "checksums"  # attribute of a root document: name of each array → its checksums
BYTES = 4  # of one

Place = tuple[int, ...]


def settled_grid(shape: Sequence[int], chunks: Sequence[int], *, complete: bool) -> tuple[int, ...]:
    """Number of chunks along each dimension that will not change any more."""
    first = ceil(shape[0] / chunks[0]) if complete else shape[0] // chunks[0]
    return (first, *(ceil(length / chunk) for length, chunk in zip(shape[1:], chunks[1:], strict=True)))


def of_chunk(content: bytes, *, checksummed: bool = True) -> bytes:
    """The checksum of a chunk: its last bytes, or where it has none there, that of the whole."""
    return content[-BYTES:] if checksummed else int(google_crc32c.value(content)).to_bytes(BYTES, "little")


def to_text(found: Mapping[Place, bytes], grid: Sequence[int]) -> str:
    """Checksums of all chunks of a grid as text, the last dimension fastest."""
    return base64.b64encode(b"".join(found[place] for place in product(*map(range, grid)))).decode()


def from_text(text: Any, grid: Sequence[int]) -> bytes | None:
    """The checksums end to end; None where they are not those of such a grid."""
    try:
        found = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        return None
    return found if len(found) == BYTES * prod(grid) else None


def by_place(packed: bytes, grid: Sequence[int]) -> dict[Place, bytes]:
    """The inverse of packing."""
    places = product(*map(range, grid))
    return {place: packed[number * BYTES : (number + 1) * BYTES] for number, place in enumerate(places)}


def at(packed: bytes, place: Place, grid: Sequence[int]) -> bytes | None:
    """The checksum of one chunk; None of one that may still change."""
    if place[0] >= grid[0]:
        return None
    number = int(np.ravel_multi_index(place, tuple(grid)))
    return packed[number * BYTES : (number + 1) * BYTES]


def refuse_other(content: bytes, wanted: bytes | None, path: Path, fix: str, *, checksummed: bool = True) -> None:
    """Raise when a chunk is not the one that was written at its place, if that is known."""
    if wanted is not None and of_chunk(content, checksummed=checksummed) != wanted:
        raise TraceError("is not the chunk that was written here: its checksum is another", where=str(path), fix=fix)
