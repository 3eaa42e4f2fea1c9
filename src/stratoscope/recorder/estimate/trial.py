"""Measures what a recording will take, by recording its largest batch and a typical one for real.

The largest batch decides how much is held at once; a typical one, repeated, how long all of them take. What is written
goes to the disk that the trace is bound for, into a folder that is removed again.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stratoscope import defaults
from stratoscope.progress import Progress
from stratoscope.recorder.estimate import machine
from stratoscope.recorder.recording import Recording
from stratoscope.recorder.reduce.streams import Shape
from stratoscope.trace.format.schema import Block

MODEL, EVERYTHING = "the model alone", "everything"

_ROUNDS, _ROUNDS_SECONDS = 5, 20.0
_ROWS, _MORE_SECONDS = 2**13, 5.0
_SINK_BYTES = 2**28


@dataclass(frozen=True)
class Run:
    """One way of running one batch.

    Attributes
    ----------
    seconds
        It took.
    most, rise
        The most memory that the process held, and how much that is above what it held before; `rise` is None where
        the system does not say.
    cards
        The most that tensors held on accelerators.
    """

    seconds: float
    most: int
    rise: int | None
    cards: int


class Trial:
    """A recording's largest batch and a typical one, run with everything and alone; the latter with each group too.

    Parameters
    ----------
    recording
        Proved.
    folder
        On the disk that the trace is bound for; what is streamed is written there, over and over in one place.
    progress
        Called with (stage, done, total or None).

    Attributes
    ----------
    largest, typical : dict
        `MODEL` or `EVERYTHING`, of the typical batch also every record group, to how it ran.
    blocks : dict
        Index of each batch that was run to what was recorded of it with everything.
    batches : list
        Indices of the prompts of every batch of the recording.
    was_split : bool
        Whether the largest batch did not fit and was run in parts.
    """

    def __init__(self, recording: Recording, folder: Path, progress: Progress) -> None:
        self._recording, self._folder, self._progress = recording, folder, progress
        self.batches = recording.batched.batches
        self._rows = [len(batch) * max(recording.batched.lengths[index] for index in batch) for batch in self.batches]
        self._largest, self._typical = int(np.argmax(self._rows)), _typical(self._rows)
        self.blocks: dict[int, Block] = {}
        self.largest: dict[str, Run] = {}
        self.typical: dict[str, Run] = {}
        self.was_split = False
        self._run()

    @property
    def scale(self) -> float:
        """How many times as large as the typical batch the largest is."""
        return self._rows[self._largest] / self._rows[self._typical]

    def seconds_of_all(self, name: str) -> float:
        """Seconds that all batches take in one way of running, along a straight line between those that were run."""
        typical, rows = self.typical[name].seconds, self._rows[self._typical]
        slope = typical / rows
        if self.scale > 1 and name in self.largest:
            slope = (self.largest[name].seconds - typical) / (self._rows[self._largest] - rows)
        least = 0.5 * typical / rows
        return sum(max(typical + slope * (one - rows), least * one) for one in self._rows)

    # --- runs -------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        groups = self._recording.plan.record
        whole = {EVERYTHING: groups, MODEL: ()}  # everything first, on memory that nothing has torn yet
        for done, (name, record) in enumerate(whole.items()):
            self._progress("measuring the largest batch", done, len(whole))
            self.largest[name] = self._once(name, record, self._largest)
        self._progress("measuring the largest batch", len(whole), len(whole))
        taken: defaultdict[str, list[Run]] = defaultdict(list)
        start = time.perf_counter()
        for number in range(_ROUNDS):  # one way after the other, so that a slow moment falls on all
            self._progress("measuring a typical batch", number, _ROUNDS)
            for name, record in {**whole, **{group: (group,) for group in groups}}.items():
                taken[name].append(self._once(name, record, self._typical))
            if time.perf_counter() - start > _ROUNDS_SECONDS:
                break
        self._progress("measuring a typical batch", _ROUNDS, _ROUNDS)
        self._run_more(groups)
        self.typical = {name: sorted(runs, key=lambda run: run.seconds)[len(runs) // 2] for name, runs in taken.items()}

    def _run_more(self, record: Sequence[str]) -> None:
        """Further batches, from all over, for what compression leaves of them: of few tokens it leaves more."""
        start = time.perf_counter()
        for number in np.random.default_rng(defaults.SEED).permutation(len(self.batches)).tolist():
            if sum(self._rows[batch] for batch in self.blocks) >= _ROWS or time.perf_counter() - start > _MORE_SECONDS:
                return
            if number not in self.blocks:
                self._once(EVERYTHING, record, number)

    def _once(self, name: str, record: Sequence[str], batch: int) -> Run:
        """Run a batch in one way; what everything gives of it is kept."""
        recording = self._recording.only(tuple(record))
        chosen, devices = sorted(self.batches[batch]), recording.devices
        with ExitStack() as stack:
            run: Callable[[Sequence[int]], Block | None] = recording.forward
            if name != MODEL or recording.plan.generate:
                sinks = {key: stack.enter_context(Sink(self._folder, shape)) for key, shape in recording.shapes.items()}
                run = stack.enter_context(recording.observing(sinks, self._folder))
            machine.forget_most_used(devices)
            before = machine.memory_used()
            start = time.perf_counter()
            block = run(chosen)
            machine.finish(devices)
            seconds = time.perf_counter() - start
            most, cards = machine.most_memory_used(), machine.most_card_memory_used(devices)
        if name == EVERYTHING and block is not None:
            self.blocks[batch] = block
            self.was_split |= recording.was_split
        return Run(seconds, most, None if before is None else max(0, most - before), cards)


class Sink:
    """Rows on their way into a file of limited size, where later ones take the place of earlier ones.

    Parameters
    ----------
    folder
        Where the file is; it has no name there.
    shape
        Of the rows.
    """

    next_row = 0

    def __init__(self, folder: Path, shape: Shape) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._shape, self._place = shape, 0

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, layer: int, row: int, values: np.ndarray) -> None:
        """Put rows somewhere."""
        content = memoryview(np.ascontiguousarray(values)).cast("B")  # type: ignore[arg-type]
        for first in range(0, len(content), _SINK_BYTES):
            piece = content[first : first + _SINK_BYTES]
            place = 0 if self._place + len(piece) > _SINK_BYTES else self._place
            self._place = place + os.pwrite(self._file.fileno(), piece, place)

    def fill(self, layer: int, row: int, count: int) -> None:
        """NaN."""
        self.write(layer, row, np.full((count, self._shape.width), self._shape.missing, self._shape.stored))


def _typical(rows: Sequence[int]) -> int:
    """Index of the batch in which the middle row of all stands, batches in order of size."""
    order = np.argsort(rows, kind="stable")
    passed = np.cumsum(np.asarray(rows)[order])
    return int(order[np.searchsorted(passed, passed[-1] / 2)])
