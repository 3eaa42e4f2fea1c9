"""Round numbers for an axis on which equal steps are not equal differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from stratoscope.words import number

Ticks = tuple[tuple[float, str], ...]  # place on the axis and label of each
APART = 0.085  # of the length of the axis: labels that are nearer to each other would touch
FEW = 3  # with fewer labels, less round numbers are taken too
_ROUND = ((1,), (5,), (2,), (3,), (4, 6, 7, 8), (1.5,), (2.5,))
_LESS_ROUND = (tuple(one / 10 for one in range(11, 100)), tuple(one / 100 for one in range(101, 1000)))


def round_ticks(low: float, high: float, place: Callable[[float], float], floor: float | None = None) -> Ticks:
    """The roundest positive numbers between two, as many as there is room for; ascending.

    Parameters
    ----------
    low, high
        Ends of the axis, as numbers.
    place
        Where a number stands on the axis; it rises.
    floor
        Where the axis begins, if not at `low`; no label is near it.
    """
    ends = place(low), place(high)
    apart = APART * (ends[1] - (ends[0] if floor is None else 2 * floor - ends[1]))
    kept: list[tuple[float, str]] = []
    for one, is_round in _candidates(low, high):
        if not is_round and len(kept) >= FEW:
            break
        at = place(one)
        if floor is not None and at - floor < apart:
            continue
        if ends[0] <= at <= ends[1] and all(abs(at - other) >= apart for other, _ in kept):
            kept.append((at, number(one)))
    return tuple(sorted(kept))


def _candidates(low: float, high: float) -> Iterator[tuple[float, bool]]:
    """Numbers between two positive ones, the roundest first, and whether they are round."""
    powers = range(int(np.floor(np.log10(low))), int(np.floor(np.log10(high))) + 1)
    for steps in (*_ROUND, *_LESS_ROUND):
        for power in powers:
            for step in steps:
                one = float(f"{step}e{power}")
                if low <= one <= high:
                    yield one, steps in _ROUND
