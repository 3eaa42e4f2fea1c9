"""The yardstick of a comparison: how many differences as strong as these other pairs of prompts of the trace show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np

from stratoscope import defaults
from stratoscope.analysis.compare.cells import Cells, aligned, compared
from stratoscope.analysis.compare.prompts import Two
from stratoscope.analysis.diff.cells import SharedLayers
from stratoscope.progress import Progress
from stratoscope.trace.prompts import Prompts

MOST_PAIRS = 30
MOST_TOKENS = 20_000  # of both prompts, over all pairs; the first three pairs are always measured
MOST_PAIRED = 100  # prompts of a class that are paired at all
_LEAST_PAIRS = 3


@dataclass(frozen=True)
class Others:
    """What other pairs of prompts show.

    Attributes
    ----------
    relation
        What they have in common with the two that are compared, in words: "other minimal pairs".
    of
        How many such pairs there are, of at most a hundred prompts of either class.
    measured
        Of each that was measured the two prompts, how many cells count, how many of them are as strong as the strongest
        hundredth of the two that are compared, and the largest.
    """

    relation: str
    of: int
    measured: tuple[Measured, ...]


@dataclass(frozen=True)
class Measured:
    """One other pair of prompts: their indices, cells that count, cells as strong, and the largest difference."""

    a: int
    b: int
    cells: int
    as_strong: int
    largest: float

    @property
    def share(self) -> float:
        """The share of its cells that are as strong."""
        return self.as_strong / self.cells


def measure_others(
    two: Two, quantity: str, rows: SharedLayers, spans: Sequence[str], strong: float, report: Progress
) -> Others:
    """Measure other pairs: all of them, or a random sample of as many as the work allows.

    Parameters
    ----------
    strong
        From which size on a difference is as strong as the strongest of the two that are compared.
    report
        Is told how many pairs are measured.
    """
    relation, pairs = related(two)
    order = np.random.default_rng(defaults.SEED).permutation(len(pairs))
    found: list[Measured] = []
    tokens = 0
    for a, b in (pairs[place] for place in order.tolist()):
        tokens += int(two.sides[0].lengths[a] + two.sides[1].lengths[b])
        if len(found) >= MOST_PAIRS or (len(found) >= _LEAST_PAIRS and tokens > MOST_TOKENS):
            break
        report("comparing other pairs", len(found), min(len(pairs), MOST_PAIRS))
        other = replace(two, prompts=(a, b))
        if measured := _measured(compared(other, quantity, rows, aligned(other, spans)), a, b, strong):
            found.append(measured)
    return Others(relation, len(pairs), tuple(sorted(found, key=lambda one: (one.a, one.b))))


def _measured(cells: Cells, a: int, b: int, strong: float) -> Measured | None:
    sizes = cells.counted
    if not sizes.size:
        return None
    return Measured(a, b, len(sizes), int((sizes >= strong).sum()), float(sizes.max()))


def related(two: Two) -> tuple[str, list[tuple[int, int]]]:
    """Other pairs of prompts that belong together as these two do, by the closest relation of which there are any."""
    found = _twins(two) if two.one_trace else _namesakes(two)
    return found if found[1] else _of_these_classes(two)


def _twins(two: Two) -> tuple[str, list[tuple[int, int]]]:
    """Other minimal pairs, where the two are one."""
    prompts, (a, b) = two.sides[0], two.prompts
    found = []
    if prompts.pairs[a] and prompts.pairs[a] == prompts.pairs[b]:
        for pair in dict.fromkeys(prompts.pairs):
            if not pair or pair == prompts.pairs[a]:
                continue
            members = [prompt for prompt, name in enumerate(prompts.pairs) if name == pair]
            of_class = [[one for one in members if prompts.classes[one] == name] for name in two.classes]
            if of_class[0] and (second := [one for one in of_class[1] if one != of_class[0][0]]):
                found.append((of_class[0][0], second[0]))
    return "other minimal pairs", found


def _namesakes(two: Two) -> tuple[str, list[tuple[int, int]]]:
    """Other prompts that both traces hold, where the two are the same prompt."""
    a, b = two.sides
    first, second = two.prompts
    if a.labels[first] != b.labels[second]:
        return "", []
    there = {identity: prompt for prompt, identity in enumerate(b.ids) if identity}
    pairs = [(prompt, there[name]) for prompt, name in enumerate(a.ids) if name in there and prompt != first]
    return "other prompts that both traces hold", pairs


def _of_these_classes(two: Two) -> tuple[str, list[tuple[int, int]]]:
    """Pairs of prompts of the same two classes as these, else of any two; of many prompts a random sample is paired."""
    classes = two.classes
    of_a, of_b = (_of_class(side, name, two) for side, name in zip(two.sides, classes, strict=True))
    known = bool(all(classes) and of_a and of_b)
    if not known:
        of_a, of_b = (_of_class(side, "", two) for side in two.sides)
    rng = np.random.default_rng(defaults.SEED)
    few_a, few_b = (sorted(rng.permutation(some)[:MOST_PAIRED].tolist()) for some in (of_a, of_b))
    if not two.one_trace or (known and classes[0] != classes[1]):
        pairs = list(product(few_a, few_b))
    else:
        pairs = list(combinations(few_a, 2))
    if not known:
        return "other pairs of prompts", pairs
    both = f"one prompt of {classes[0]} and one of {classes[1]}"
    return f"other pairs of {both if classes[0] != classes[1] else f'two prompts of {classes[0]}'}", pairs


def _of_class(prompts: Prompts, name: str, two: Two) -> list[int]:
    """The prompts of a class ("" = of all) that are none of the two."""
    taken = {prompt for side, prompt in zip(two.sides, two.prompts, strict=True) if side is prompts}
    return [one for one, of in enumerate(prompts.classes) if one not in taken and name in ("", of)]
