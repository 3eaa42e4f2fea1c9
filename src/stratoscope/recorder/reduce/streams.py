"""Rows on their way from a layer to their place: neurons and full attention, too large to be held.

Where a prompt's rows go is known before its forward, so they are written the moment a layer gives them. Only where the
model writes answers, whose lengths nobody knows before, do the rows of a window of prompts wait in a file.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from stratoscope.errors import CaptureError, TraceError
from stratoscope.names import EDGE, QUANTITIES, edges
from stratoscope.recorder.input.batches import Batch
from stratoscope.trace.format import shards

_PIECE_BYTES, _PIECE_ROWS = 2**22, 2**14


class Rows(Protocol):
    """Where the rows of one quantity go; `trace.row_stream.RowStream` is one."""

    def write(self, layer: int, row: int, values: np.ndarray) -> None:
        """Put values, [rows, width] as they are stored, where `row` and the following are."""

    def fill(self, layer: int, row: int, count: int) -> None:
        """Say of rows that the layer has no values for them."""


class Target(Rows, Protocol):
    """Rows that go into a trace."""

    @property
    def next_row(self) -> int:
        """The first row behind everything that was appended."""


@dataclass(frozen=True)
class Shape:
    """Layers, width and data type of the rows of a quantity.

    `dtype` is float32, float16, or bfloat16, which NumPy does not have: its rows are uint16, the numbers' bits.
    """

    layers: int
    width: int
    dtype: str

    @property
    def stored(self) -> np.dtype[np.generic]:
        """The NumPy dtype of rows."""
        return np.dtype(shards.DTYPES[self.dtype])

    @property
    def missing(self) -> float | int:
        """NaN, as it is stored."""
        return shards.missing(self.dtype)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of one layer."""
        return self.width * self.stored.itemsize

    def fitted(self, values: np.ndarray) -> np.ndarray:
        """Rows of a layer that may be narrower, or of a narrower dtype, as they are stored; NaN where there is nothing.

        Raises
        ------
        CaptureError
            They would not fit without loss.
        """
        if values.dtype == self.stored and values.shape[1] == self.width:
            return values
        if values.shape[1] > self.width or (values.dtype != self.stored and self.stored != np.float32):
            raise CaptureError(
                f"a layer gives {values.shape[1]} numbers as {values.dtype}, but the first forward gave at most "
                f"{self.width} as {self.stored}",
                fix="The model runs differently from when it was proved; nothing of this batch was kept.",
            )
        fitted = np.full((len(values), self.width), self.missing, self.stored)
        fitted[:, : values.shape[1]] = values if values.dtype == self.stored else shards.as_numbers(values)
        return fitted


def rows_of(name: str, tokens: int) -> int:
    """Rows that a prompt has in a streamed quantity."""
    return edges(tokens) if QUANTITIES[name].dims[0] == EDGE else tokens


class Streams:
    """Hands the rows of the forwards in hand to where they go; outside of `window` and `kept` they go nowhere.

    Parameters
    ----------
    names
        What is streamed.
    layers
        Blocks of the model.

    Attributes
    ----------
    shapes
        Name to shape: known once rows have been `kept`.
    """

    def __init__(self, names: Sequence[str], layers: int) -> None:
        self.names, self._layers = tuple(names), layers
        self.shapes: dict[str, Shape] = {}
        self._to: Mapping[str, Rows] = {}
        self._targets: Mapping[str, Target] = {}
        self._folder = Path()
        self._firsts: dict[str, list[int]] = {}  # first row of each prompt of the window
        self._spooled = False
        self._prompts: Sequence[int] = ()  # of the batch, as indices in the window
        self._passed: np.ndarray = np.zeros(0, np.int64)  # tokens of each that earlier forwards have passed
        self._counts: np.ndarray = np.zeros(0, np.int64)  # … and that the present one passes
        self._runs: list[tuple[int, int, int, int]] = []  # rows (start, stop) of the rectangle, prompt, its position

    # --- where rows go ----------------------------------------------------------------------------------------------

    def stream_into(self, targets: Mapping[str, Target], folder: Path) -> None:
        """Say where the rows of windows go, and a folder on the same disk for what has to wait."""
        self._targets, self._folder = targets, folder

    @contextmanager
    def window(self, lengths: Sequence[int], *, answers: int) -> Iterator[None]:
        """While open, rows of these prompts, of `lengths` tokens in file order, go to the targets.

        With `answers`, the most tokens that may follow each prompt, they wait in files until `settle`.
        """
        targets, self._spooled = self._targets, bool(answers)
        most = [length + answers for length in lengths]
        counts = {name: [rows_of(name, tokens) for tokens in most] for name in targets}
        start = {name: 0 if self._spooled else target.next_row for name, target in targets.items()}
        self._firsts = {name: (start[name] + np.cumsum([0, *counts[name]])).tolist() for name in targets}
        spools: dict[str, Spool] = {}
        try:
            if self._spooled:
                for name in targets:
                    spools[name] = Spool(self._folder, self.shapes[name], sum(counts[name]))
            self._to = spools or targets
            yield
        finally:
            self._to = {}
            for spool in spools.values():
                spool.close()

    @contextmanager
    def kept(self, lengths: Sequence[int]) -> Iterator[dict[str, np.ndarray]]:
        """While open, rows of a batch of these lengths are kept; then name to [row, layer, width], as they are stored.

        The shapes are learned from them.
        """
        counts = {name: [rows_of(name, tokens) for tokens in lengths] for name in self.names}
        self._firsts = {name: np.cumsum([0, *counts[name]]).tolist() for name in self.names}
        kept = {name: Kept() for name in self.names}
        self._to, self._spooled = kept, False
        found: dict[str, np.ndarray] = {}
        self.batch(range(len(lengths)))
        try:
            yield found
            for name, rows in kept.items():
                self.shapes[name] = rows.shape(self._layers)
                found[name] = rows.values(self.shapes[name], sum(counts[name]))
        finally:
            self._to = {}

    def settle(self, lengths: Sequence[int]) -> None:
        """Bring rows that wait in files to their targets, now that each prompt's length with its answer is known."""
        if not self._spooled:
            return
        for name, spool in self._to.items():
            assert isinstance(spool, Spool)
            target = self._targets[name]
            for layer in range(self.shapes[name].layers):
                row = target.next_row
                for first, tokens in zip(self._firsts[name], lengths, strict=False):
                    for values in spool.read(layer, first, rows_of(name, tokens)):
                        target.write(layer, row, values)
                        row += len(values)

    # --- the forwards -------------------------------------------------------------------------------------------------

    def __contains__(self, name: str) -> bool:
        """Whether rows of that quantity go anywhere at present."""
        return name in self._to

    def batch(self, prompts: Sequence[int]) -> None:
        """The next forwards are of these prompts of the window."""
        self._prompts = prompts
        self._passed = self._counts = np.zeros(len(prompts), np.int64)

    def begin(self, batch: Batch, *, goes_on: bool) -> None:
        """The next forward; `goes_on`: its tokens follow those of the forward before."""
        if not self._to:
            return
        mask = batch.mask.cpu().numpy()
        prompts, length = mask.shape
        self._passed = self._passed + self._counts if goes_on else np.zeros(prompts, np.int64)
        self._counts = mask.sum(1)
        starts = mask.argmax(1) + np.arange(prompts) * length
        found = zip(starts.tolist(), self._counts.tolist(), self._passed.tolist(), strict=True)
        self._runs = [(start, start + n, prompt, passed) for prompt, (start, n, passed) in enumerate(found) if n]

    def write(self, name: str, layer: int, values: np.ndarray) -> None:
        """Rows of a quantity of tokens: those of the forward's whole rectangle, padding included, [row, width]."""
        to, firsts = self._to[name], self._firsts[name]
        values = self._fitted(name, values)
        for start, stop, prompt, passed in self._runs:
            to.write(layer, firsts[self._prompts[prompt]] + passed, values[start:stop])

    def fill(self, name: str, layer: int) -> None:
        """The layer has no such rows in this forward."""
        firsts = self._firsts[name]
        for start, stop, prompt, passed in self._runs:
            self._to[name].fill(layer, firsts[self._prompts[prompt]] + passed, stop - start)

    def fill_prompts(self, name: str, layer: int) -> None:
        """The layer had no such rows in any forward of the batch."""
        for prompt, tokens in zip(self._prompts, (self._passed + self._counts).tolist(), strict=True):
            row, end = self._firsts[name][prompt], self._firsts[name][prompt] + rows_of(name, tokens)
            while row < end:
                count = min(_PIECE_ROWS, end - row)
                self._to[name].fill(layer, row, count)
                row += count

    def write_edges(self, name: str, layer: int, prompt: int, first_query: int, values: np.ndarray) -> None:
        """Rows of a quantity of pairs: of whole queries of one prompt, from the one at position `first_query` on."""
        row = self._firsts[name][self._prompts[prompt]] + edges(first_query)
        self._to[name].write(layer, row, self._fitted(name, values))

    def _fitted(self, name: str, values: np.ndarray) -> np.ndarray:
        return self.shapes[name].fitted(values) if name in self.shapes else values


class Kept:
    """Rows that stay in memory: of a few tokens, to learn from and to be compared."""

    def __init__(self) -> None:
        self._pieces: list[tuple[int, int, np.ndarray]] = []

    def write(self, layer: int, row: int, values: np.ndarray) -> None:
        """Keep a copy."""
        self._pieces.append((layer, row, values.copy()))

    def fill(self, layer: int, row: int, count: int) -> None:
        """What is not written is missing."""

    def shape(self, layers: int) -> Shape:
        """As wide as the widest layer; float32 where layers differ."""
        stored = {str(values.dtype) for _, _, values in self._pieces}
        dtype = next((name for name, of in shards.DTYPES.items() if stored == {of}), "float32")
        return Shape(layers, max((values.shape[1] for _, _, values in self._pieces), default=0), dtype)

    def values(self, shape: Shape, rows: int) -> np.ndarray:
        """[rows, layer, width]."""
        found = np.full((rows, shape.layers, shape.width), shape.missing, shape.stored)
        for layer, row, values in self._pieces:
            found[row : row + len(values), layer] = shape.fitted(values)
        return found


class Spool:
    """Rows that wait in a file of their own, which has no name and so is gone when it is closed.

    Parameters
    ----------
    folder
        On the disk that the rows are bound for.
    shape
        Of the rows.
    rows
        The most that may come, of each layer. What is not written takes no space.

    Raises
    ------
    TraceError
        The disk refuses.
    """

    def __init__(self, folder: Path, shape: Shape, rows: int) -> None:
        self._folder, self._shape, self._rows = folder, shape, rows
        with self._errors():
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._missing = np.full((1, shape.width), shape.missing, shape.stored)

    def write(self, layer: int, row: int, values: np.ndarray) -> None:
        """Put rows where they will be found."""
        content = memoryview(np.ascontiguousarray(values)).cast("B")  # type: ignore[arg-type]
        place = self._place(layer, row)
        with self._errors():
            while content:
                written = os.pwrite(self._file.fileno(), content, place)
                content, place = content[written:], place + written

    def fill(self, layer: int, row: int, count: int) -> None:
        """NaN."""
        self.write(layer, row, np.repeat(self._missing, count, 0))

    def read(self, layer: int, row: int, count: int) -> Iterator[np.ndarray]:
        """Rows of one layer, in pieces of some megabytes."""
        step = max(1, _PIECE_BYTES // self._shape.row_bytes)
        for first in range(row, row + count, step):
            rows = min(step, row + count - first)
            with self._errors():
                content = os.pread(self._file.fileno(), rows * self._shape.row_bytes, self._place(layer, first))
            if len(content) != rows * self._shape.row_bytes:
                raise CaptureError("rows are missing that a layer should have given", where=f"layer {layer}")
            yield np.frombuffer(content, self._shape.stored).reshape(rows, self._shape.width)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _place(self, layer: int, row: int) -> int:
        return (layer * self._rows + row) * self._shape.row_bytes

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TraceError(
                f"what waits to be written cannot be kept ({error.strerror or error})",
                where=str(self._folder),
                fix="Free some space, then use --resume; what was committed is whole.",
            ) from None
