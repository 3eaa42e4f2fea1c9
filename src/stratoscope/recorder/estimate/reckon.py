"""From what was measured on a few batches to what the whole recording takes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

import numpy as np

from stratoscope import defaults
from stratoscope.names import EFFECTS, QUANTITIES, REAL
from stratoscope.progress import Progress
from stratoscope.recorder.disk_needed import streamed_bytes, uncompressed_bytes
from stratoscope.recorder.estimate import machine
from stratoscope.recorder.estimate.estimate import Cost, Estimate
from stratoscope.recorder.estimate.trial import EVERYTHING, MODEL, Trial
from stratoscope.recorder.estimate.written import quantities_sample, tokens_sample
from stratoscope.recorder.recording import Recording
from stratoscope.trace.format.schema import quantity_layout

_TOKENS = "tokens and texts"


def estimate(recording: Recording, target: Path, begin_seconds: float, progress: Progress) -> Estimate:
    """Record a few batches, and reckon up what all of them take.

    Parameters
    ----------
    recording
        Proved, and nothing recorded yet.
    target
        Where the trace would be; what is tried is written beside it and removed.
    begin_seconds
        What loading and proving took.
    progress
        Called with (stage, done, total or None).

    Returns
    -------
    Estimate
        Memory is the most that the process holds: what it took to load, or the largest batch and what waits to be
        written, whichever is more.

    Raises
    ------
    StratoscopeError
        Not even one batch can be recorded.
    """
    most_until_now, memory_free = machine.most_memory_used(), machine.memory_free()
    memory_free = None if memory_free is None else memory_free + (machine.memory_used() or 0)
    card_free = machine.card_memory_free(recording.devices)
    disk_free = machine.disk_free(target.parent)
    answers = recording.plan.generate or 0
    lengths = [recording.batched.lengths[index] + answers for index in recording.batched.mine]
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.plan-", dir=target.parent) as name:
        trial = Trial(recording, Path(name), progress)
        blocks = list(trial.blocks.values())
        sample = quantities_sample(recording, blocks, Path(name))
        held = sample.scaled(len(lengths), sum(lengths))
        streamed = streamed_bytes(recording.shapes, lengths)
        tokens = tokens_sample(recording, Path(name)).scaled(len(lengths), sum(lengths))
        disk = _by_group({**tokens, **held, **streamed})
        seconds = {way: trial.seconds_of_all(way) for way in trial.typical}
        for_means, calibrating = recording.effects.seconds_before(recording.batched.all_prompts, seconds[MODEL])
        for way in {EVERYTHING, EFFECTS} & seconds.keys():
            seconds[way] += for_means + calibrating
        seconds[EVERYTHING] += _behind(Path(name), sum(streamed.values()), seconds[EVERYTHING])
    waiting = _waiting(recording, lengths)
    alone, together = trial.largest[MODEL], trial.largest[EVERYTHING]
    groups = {
        group: Cost(
            disk_bytes=disk.get(group, 0),
            memory_bytes=_added(trial, group, waiting.get(group, 0)),
            card_memory_bytes=round(trial.scale * max(0, trial.typical[group].cards - trial.typical[MODEL].cards)),
            seconds=max(0.0, seconds[group] - seconds[MODEL]),
        )
        for group in recording.plan.record
    }
    aside = sample.fixed + sum(size for group, size in disk.items() if group not in groups)
    return Estimate(
        prompts=len(lengths),
        tokens=sum(lengths) - answers * len(lengths),
        batches=len(trial.batches),
        begin_seconds=begin_seconds,
        model=Cost(aside, max(most_until_now, alone.most), alone.cards, seconds[MODEL]),
        groups=groups,
        total=Cost(
            aside + sum(cost.disk_bytes for cost in groups.values()),
            max(most_until_now, together.most + sum(waiting.values())),
            together.cards,
            begin_seconds + seconds[EVERYTHING],
        ),
        disk_free=disk_free,
        memory_free=memory_free,
        card_memory_free=card_free,
        has_card=bool(machine.cards(recording.devices)),
        answers_at_most=answers,
        was_split=trial.was_split,
        batching=tuple(note["text"] for note in recording.batch_notes),
        calibration_seconds=calibrating,
    )


def _by_group(sizes: Mapping[str, int]) -> dict[str, int]:
    """Sums over the quantities of each group; what is no quantity is of the group "tokens and texts"."""
    found: dict[str, int] = {}
    for name, size in sizes.items():
        group = QUANTITIES[name].group if name in QUANTITIES else _TOKENS
        found[group] = found.get(group, 0) + size
    return found


def _waiting(recording: Recording, lengths: Sequence[int]) -> dict[str, int]:
    """Bytes of each group that wait in memory to be written.

    They are those of a window, of the next commit, and of the chunks that are not yet whole.
    """
    first = recording.batched.mine.start
    window = max(([lengths[index - first] for index in window] for window in recording.batched.windows()), key=sum)
    of_window = uncompressed_bytes(recording.variables, recording.sizes, window)
    of_all = uncompressed_bytes(recording.variables, recording.sizes, lengths)
    uncommitted = min(1.0, defaults.COMMIT_BYTES / max(1, sum(of_all.values())))
    found = {}
    for name, size in of_all.items():
        layout = quantity_layout(name, REAL)
        unfinished = (
            prod(layout.shape(recording.sizes, layout.chunks(recording.sizes)[0])) * np.dtype(layout.dtype).itemsize
        )
        found[name] = of_window[name] + round(uncommitted * size) + min(size, unfinished)
    return _by_group(found)


def _behind(folder: Path, streamed: int, seconds: float) -> float:
    """Seconds by which a disk is behind a recording that streams so many bytes in so many seconds."""
    return max(0.0, streamed / machine.durable_bytes_per_second(folder, streamed) - seconds) if streamed else 0.0


def _added(trial: Trial, group: str, waiting: int) -> int | None:
    """Bytes of memory that a group adds: while the largest batch runs, and what waits."""
    rise, alone = trial.typical[group].rise, trial.typical[MODEL].rise
    return None if rise is None or alone is None else round(trial.scale * max(0, rise - alone)) + waiting
