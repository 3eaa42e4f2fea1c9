"""Reads a streamed array: rows at the places where they must be, after the shard's size and index were checked."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from stratoscope.errors import TraceError
from stratoscope.trace.arrays import as_slice
from stratoscope.trace.format import shards
from stratoscope.trace.format.array_document import ArrayDocument
from stratoscope.trace.format.bounds import DAMAGED
from stratoscope.trace.format.document import Document
from stratoscope.trace.format.schema import COMPLETE, RECORDING_DIGEST


class StoredRows(BackendArray):
    """A streamed array of a trace that reads what is asked for."""

    def __init__(self, document: Document, array: ArrayDocument) -> None:
        assert array.shards is not None
        self._root, self._name = document.path, array.layout.name
        self._recording = str(document.attrs.get(RECORDING_DIGEST, ""))
        self._complete = document.attrs["state"] == COMPLETE
        self._inode = self._root.stat().st_ino
        self._shards = array.shards
        self._stored = np.dtype(array.layout.dtype)
        self._checked: set[int] = set()
        self.shape = array.shape
        self.dtype = np.dtype("float32") if self._stored == np.uint16 else self._stored

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        support = indexing.IndexingSupport.OUTER
        return np.asarray(indexing.explicit_indexing_adapter(key, self.shape, support, self._read))

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        rows, layers, numbers = (_places(one, length) for one, length in zip(key, self.shape, strict=True))
        found = np.empty((len(rows), len(layers), len(numbers)), self.dtype)
        across = (as_slice(layers), as_slice(numbers))
        for shard, first, last in _runs(rows, self._shards.rows):
            stored = self._open(shard)
            within = rows[first:last] - shard * self._shards.rows
            for block, start, stop in _runs(within, self._shards.chunk_rows):
                chunks = stored[block, across[0]]  # [layer, row, number]
                part = chunks[:, as_slice(within[start:stop] - block * self._shards.chunk_rows)][..., across[1]]
                found[first + start : first + stop] = shards.as_numbers(part).swapaxes(0, 1)
        scalars = tuple(0 if isinstance(one, int | np.integer) else slice(None) for one in key)
        return np.asarray(found[scalars])

    def _open(self, shard: int) -> np.ndarray:
        """A shard's numbers, [block, layer, row, number], on disk."""
        rows = min(self.shape[0] - shard * self._shards.rows, self._shards.rows)
        path = self._root / self._name / shards.file_name(shard)
        if not self._root.exists() or self._root.stat().st_ino != self._inode:
            raise TraceError("was replaced since it was opened", where=str(self._root), fix="Open it again.")
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise TraceError(f"cannot be read ({error.strerror})", where=str(path), fix=DAMAGED) from None
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            finished = self._complete or rows == self._shards.rows
            least = self._shards.file_bytes(rows) if finished else self._shards.end(rows)
            if not stat.S_ISREG(status.st_mode) or status.st_size < least:
                raise TraceError("is cut off, or no regular file", where=str(path), fix=DAMAGED)
            if shard not in self._checked:
                self._check(file, shard, self._shards.end(rows) if finished and self._shards.sealed else None, path)
                self._checked.add(shard)
            blocks = -(-rows // self._shards.chunk_rows)
            shape = (blocks, self._shards.layers, self._shards.chunk_rows, self._shards.width)
            return np.memmap(file, self._stored, "r", self._shards.header_bytes, shape)

    def _check(self, file: BinaryIO, shard: int, end: int | None, path: Path) -> None:
        """Compare what stands around the numbers of a shard with what must; `end`: where its second index begins."""
        index = self._shards.index()
        begins = file.read(self._shards.header_bytes)
        indices = [begins[: len(index)]]
        if end is not None:
            file.seek(end)
            indices.append(file.read(len(index)))
        if any(found != index for found in indices):
            raise TraceError("its index is not the one that it must have", where=str(path), fix=DAMAGED)
        if begins != self._shards.header(self._recording, self._name, shard):
            what = "belongs to another array, another place in it, or another recording"
            raise TraceError(what, where=str(path), fix=DAMAGED)


def _places(key: Any, length: int) -> np.ndarray:
    """Non-negative indices that an outer indexer of one dimension means."""
    if isinstance(key, slice):
        return np.arange(*key.indices(length))  # of a long array no more than what is asked for
    places = np.atleast_1d(np.asarray(key))
    return np.where(places < 0, places + length, places)


def _runs(places: np.ndarray, length: int) -> Iterator[tuple[int, int, int]]:
    """Runs of places within one piece of that length: its number, first and last + 1 of the run."""
    piece = places // length
    bounds = [0, *(np.flatnonzero(np.diff(piece)) + 1).tolist(), len(places)]
    for first, last in pairwise(bounds):
        if last > first:
            yield int(piece[first]), first, last
