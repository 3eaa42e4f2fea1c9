"""Writes the rows of a streamed array in place, the moment somebody has them; a commit makes them part of the trace."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from stratoscope.disk import step, sync_files
from stratoscope.errors import TraceError
from stratoscope.trace.format import shards
from stratoscope.trace.format.bounds import DAMAGED
from stratoscope.trace.format.shards import Shards
from stratoscope.trace.write.store import StagingStore

Guard = Callable[[], AbstractContextManager[None]]

_FIX = "This is a fault of the program that records, not of the input."
_START_WRITING = 2  # SYNC_FILE_RANGE_WRITE


class RowStream:
    """The writer's side of one streamed array.

    Rows before `next_row` are settled. Others may be written in any order, also twice, layer by layer; `append` settles
    a run of them once every layer has given all. What was written beyond the committed rows is not part of the trace.

    Parameters
    ----------
    array
        The array, with its committed shape.
    store
        What the trace is written through: its root is where the trace is at present.
    dtype
        Key of `shards.DTYPES`.
    layout
        Where rows lie.
    recording
        What is recorded, for the identity of the shards.
    guard
        Within which the disk is written: says what the system refused.

    Attributes
    ----------
    next_row
        The first row behind everything that was appended.
    """

    def __init__(
        self, array: zarr.Array[Any], store: StagingStore, dtype: str, layout: Shards, recording: str, guard: Guard
    ) -> None:
        self._array, self._store, self._layout, self._guard = array, store, layout, guard
        self._recording, self._index = recording, layout.index()
        self.next_row: int = array.shape[0]
        self._stored = np.dtype(shards.DTYPES[dtype])
        self._missing = shards.missing(dtype)
        self._given: list[list[tuple[int, int]]] = [[] for _ in range(layout.layers)]  # runs of rows beyond next_row
        self._files: dict[int, int] = {}  # shard → file descriptor
        self._unsafe: set[int] = set()  # shards that are not durable as they are
        self._ended: dict[int, int] = {}  # shards that end with the index, and where their inner chunks end
        self._new = False  # whether the folder has entries that are not durable
        self._background = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._cut_off()

    # --- rows ---------------------------------------------------------------------------------------------------------

    def write(self, layer: int, row: int, values: np.ndarray) -> None:
        """Put rows in place.

        Parameters
        ----------
        layer
            Place on the layer axis.
        row
            Index of the first one on the array's first axis, `next_row` or behind it.
        values
            [rows, width], C-contiguous, in the stored dtype (bfloat16: its bits, as uint16).

        Raises
        ------
        TraceError
            They are not as the array's, settled already, or the disk refuses.
        """
        if values.ndim != 2 or values.shape[1] != self._layout.width or values.dtype != self._stored:
            self._refuse(f"gets rows of {values.shape[1:]} {values.dtype}, not {self._layout.width} {self._stored}")
        if row < self.next_row:
            self._refuse(f"gets row {row} again, which was appended before")
        content = memoryview(np.ascontiguousarray(values)).cast("B")  # type: ignore[arg-type]
        given = self._given[layer]
        if given and given[-1][1] == row:
            given[-1] = given[-1][0], row + len(values)
        else:
            given.append((row, row + len(values)))
        end = row + len(values)
        with self._guard():
            while row < end:
                shard, within = divmod(row, self._layout.rows)
                rows = min(end - row, self._layout.chunk_rows - within % self._layout.chunk_rows)
                self._put(shard, self._layout.place(within, layer), content[: rows * self._layout.row_bytes])
                content, row = content[rows * self._layout.row_bytes :], row + rows

    def fill(self, layer: int, row: int, count: int) -> None:
        """Say of `count` rows that the layer has no values for them: NaN."""
        self.write(layer, row, np.full((count, self._layout.width), self._missing, self._stored))

    def append(self, rows: int) -> None:
        """Settle the next rows; TraceError where a layer has not given one of them."""
        end = self.next_row + rows
        for layer, given in enumerate(self._given):
            reached = self.next_row
            for start, stop in sorted(given):
                if start > reached:
                    break
                reached = max(reached, stop)
            if reached < end:
                self._refuse(f"lacks row {reached} of layer {layer}")
        self._forget_given()
        self.next_row = end
        self._start_writing()

    def _forget_given(self) -> None:
        for given in self._given:
            given.clear()

    @property
    def open_files(self) -> int:
        """Shards that are kept open until the next commit."""
        return len(self._files)

    # --- the trace ----------------------------------------------------------------------------------------------------

    def commit(self, *, last: bool = False) -> None:
        """Make every appended row durable, and part of the array's shape; what says so is the root document.

        Rows that were given and not appended stay, unless this is the last commit.
        """
        if last:
            self._forget_given()
        for shard in self._unsafe:
            self._end(shard, self.next_row)
        self._wait()
        for shard in sorted(self._unsafe):
            step("fsync", self._path(shard))
            os.fsync(self._files[shard])  # the very descriptor that was written through: it knows of every error
        if self._new:
            sync_files([self._folder])
        self._new = False
        self._unsafe.clear()
        for shard in [one for one in self._files if (one + 1) * self._layout.rows <= self.next_row]:
            os.close(self._files.pop(shard))
        self._array.resize((self.next_row, self._layout.layers, self._layout.width))

    def close(self) -> None:
        """Let go of the files; what is committed ends as it must, whatever was written behind it."""
        self._wait()
        self._background.shutdown()
        self._forget_given()
        for shard in self._files:
            with suppress(OSError):  # only readers that look at the end of a shard that still grows need it
                self._end(shard, self._array.shape[0])
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    # --- files --------------------------------------------------------------------------------------------------------

    @property
    def _folder(self) -> Path:
        return self._store.root / self._array.basename

    def _path(self, shard: int) -> Path:
        return self._folder / shards.file_name(shard)

    def _put(self, shard: int, place: int, content: memoryview) -> None:
        step("write", self._path(shard))
        descriptor = self._file(shard)
        self._unsafe.add(shard)
        if shard in self._ended:
            os.ftruncate(descriptor, self._ended.pop(shard))
        while content:
            written = os.pwrite(descriptor, content, place)
            content, place = content[written:], place + written

    def _file(self, shard: int) -> int:
        descriptor = self._files.get(shard)
        if descriptor is None:
            self._folder.mkdir(exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = self._files[shard] = os.open(self._path(shard), flags, 0o644)
            if os.fstat(descriptor).st_size < self._layout.header_bytes:
                os.pwrite(descriptor, self._header(shard), 0)
                self._new = True
        return descriptor

    def _header(self, shard: int) -> bytes:
        return self._layout.header(self._recording, self._array.basename, shard)

    def _end(self, shard: int, rows: int) -> None:
        """Put the index behind the inner chunks of a shard's part of so many rows, which are whole, also the last."""
        held = min(max(rows - shard * self._layout.rows, 0), self._layout.rows)
        end, descriptor = self._layout.end(held), self._files[shard]
        if held < self._layout.rows and any(self._given):  # rows that are not appended may lie where it would stand
            if os.fstat(descriptor).st_size < end:
                os.ftruncate(descriptor, end)
            return
        os.ftruncate(descriptor, end)
        os.pwrite(descriptor, self._index, end)
        self._ended[shard] = end

    def _cut_off(self) -> None:
        """Remove what lies beyond the committed rows; TraceError where committed rows are not there."""
        if not self._folder.is_dir():
            return
        last, rest = divmod(self.next_row, self._layout.rows)
        for path in self._folder.glob("c.*"):
            parts = path.name.split(".")
            if len(parts) > 1 and parts[1].isdigit() and int(parts[1]) >= last + bool(rest):
                path.unlink()
        if rest:
            if not self._path(last).is_file():
                raise TraceError("this part is missing", where=str(self._path(last)), fix=DAMAGED)
            descriptor, header = self._file(last), self._header(last)
            if os.fstat(descriptor).st_size < self._layout.end(rest) or os.pread(descriptor, len(header), 0) != header:
                raise TraceError("is cut off, or another shard", where=str(self._path(last)), fix=DAMAGED)
            self._unsafe.add(last)
            self._end(last, self.next_row)

    def _start_writing(self) -> None:
        """Let the system write to disk what it has, while the model goes on, and give back the memory of what it wrote.

        A commit then has less to wait for, and a long recording does not push everything else out of memory.
        """
        if _sync_file_range is not None:
            self._wait()
            files = [self._files[shard] for shard in sorted(self._unsafe)]
            self._writing = self._background.submit(_write_back, files)

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _refuse(self, what: str) -> None:
        raise TraceError(f"a block's '{self._array.basename}' {what}", fix=_FIX)


def _system_call() -> Any:
    """Linux's sync_file_range; None elsewhere."""
    try:
        function = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return function


_sync_file_range = _system_call()


def _write_back(files: Sequence[int]) -> None:
    for descriptor in files:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # of pages on disk; others stay
        _sync_file_range(descriptor, 0, 0, _START_WRITING)


def close_all(streams: Sequence[RowStream]) -> None:
    """Let go of all their files."""
    for stream in streams:
        stream.close()
