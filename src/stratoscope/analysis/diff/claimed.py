"""What a patch claims, beside what changed: there, elsewhere, not at all; and whether anything changed too early."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stratoscope.analysis.diff.before import before_edits, in_front_of
from stratoscope.analysis.diff.cells import Compared, SharedLayers
from stratoscope.analysis.diff.claims import Claim
from stratoscope.analysis.diff.floor import Noise
from stratoscope.analysis.diff.neurons import NeuronDifferences
from stratoscope.analysis.diff.weight_columns import norms_differ
from stratoscope.trace.arrays import Floats
from stratoscope.words import number

AS_CLAIMED, OTHERWISE, NOT_AT_ALL = "changed as claimed", "changed otherwise", "not at all"
GONE, NOT_SEEN = "gone from the peaks", "not seen"
VERDICTS = (AS_CLAIMED, OTHERWISE, NOT_AT_ALL, GONE, NOT_SEEN)
SAME_FACTOR = 0.01  # relative: how close the measured factor of a column's norm is to the claimed one
AS_MUCH = 0.05  # relative: how close the measured factor of an activation is to the claimed one


@dataclass(frozen=True)
class Claimed:
    """Each claim beside what was measured, [claim]; NaN and −1 where it was not.

    Attributes
    ----------
    difference, largest, times_floor, ratio, column_norm_a, column_norm_b
        As in `NeuronDifferences`.
    rank
        Of its largest |B − A| among all neurons of its layer, 1 = largest; −1 where it did not change at all.
    neurons
        How many neurons its layer has.
    verdict
        One of `VERDICTS`.
    why
        The verdict in words.
    """

    difference: Floats
    largest: Floats
    times_floor: Floats
    ratio: Floats
    column_norm_a: Floats
    column_norm_b: Floats
    rank: NDArray[np.int64]
    neurons: int
    verdict: list[str]
    why: list[str]


def judge(
    claims: Sequence[Claim], neurons: NeuronDifferences | None, rows: SharedLayers, first_changed: int | None
) -> Claimed:
    """Compare every claim with what was measured of that neuron.

    Parameters
    ----------
    first_changed
        The first layer in which anything differs, None where it is not known: activations behind it prove no claim.
    """
    count = len(claims)
    values = {name: np.full(count, np.nan) for name in MEASURED}
    rank, verdicts, why = np.full(count, -1, np.int64), [], []
    place_of = {int(number): place for place, number in enumerate(rows.numbers)}
    first = min([claim.layer for claim in claims] + ([] if first_changed is None else [first_changed]))
    tolerance = neurons.columns.tolerance if neurons is not None else 0.0
    for row, claim in enumerate(claims):
        place = place_of.get(claim.layer)
        if neurons is not None and place is not None and neurons.same[place]:
            for name, array in values.items():
                array[row] = MEASURED[name](neurons)[place, claim.neuron]
            if values["largest"][row] > 0:
                rank[row] = 1 + int((neurons.largest[place] > values["largest"][row]).sum())
        found = {name: float(one[row]) for name, one in values.items()} | {"most_b": np.nan}
        if neurons is not None and place is not None:
            found["most_b"] = float(neurons.columns.most_b[place, claim.neuron])
        verdict, words = _verdict(claim, found, claim.layer > first, tolerance)
        verdicts.append(verdict)
        why.append(words)
    return Claimed(**values, rank=rank, neurons=0 if neurons is None else neurons.largest.shape[1],
                   verdict=verdicts, why=why)  # fmt: skip


MEASURED: dict[str, Callable[[NeuronDifferences], Floats]] = {
    "difference": lambda neurons: neurons.difference,
    "largest": lambda neurons: neurons.largest,
    "times_floor": lambda neurons: neurons.times,
    "ratio": lambda neurons: neurons.ratio,
    "column_norm_a": lambda neurons: neurons.columns.a,
    "column_norm_b": lambda neurons: neurons.columns.b,
}


def _verdict(claim: Claim, found: Mapping[str, float], downstream: bool, tolerance: float) -> tuple[str, str]:
    """The column's norm speaks first: nothing before the neuron can change it."""
    before, after = found["column_norm_a"], found["column_norm_b"]
    known = np.isfinite(before) and np.isfinite(after)
    if known and norms_differ(np.array(before), np.array(after), tolerance):
        factor = after / before
        words = f"the norm of its column went from {number(before, 4)} to {number(after, 4)}"
        if abs(factor - claim.ratio) <= SAME_FACTOR * claim.ratio:
            return AS_CLAIMED, words
        return OTHERWISE, f"{words}: ×{number(factor)}, claimed ×{number(claim.ratio)}"
    moved = np.isfinite(found["times_floor"]) and found["times_floor"] > 1
    if moved and not downstream:
        times, ratio = number(found["times_floor"]), number(found["ratio"])
        words = f"its activation changed by up to {times} × the floor, ×{ratio} in all"
        if abs(found["ratio"] - claim.ratio) <= AS_MUCH * claim.ratio and abs(claim.ratio - 1) > AS_MUCH:
            return AS_CLAIMED, words
        return OTHERWISE, words
    behind = "; its activation changed, as any behind the first change may" if moved else ""
    if known and behind:
        return NOT_AT_ALL, f"the norm of its column is {number(before, 4)} in both{behind}"
    if known and np.isfinite(found["times_floor"]):
        return NOT_AT_ALL, f"neither the norm of its column ({number(before, 4)}) nor, beyond the floor, its activation"
    if known:
        return (
            NOT_AT_ALL,
            f"the norm of its column is {number(before, 4)} in both; no floor says whether its activation changed",
        )
    if np.isfinite(before) and found["most_b"] < (1 - SAME_FACTOR) * claim.ratio * before:
        factor = found["most_b"] / before
        words = f"its column's norm is {number(before, 4)} in A and at most {number(found['most_b'], 4)} in B"
        return OTHERWISE, f"{words}: × at most {number(factor)}, claimed ×{number(claim.ratio)}"
    if np.isfinite(before):
        words = f"its column's norm is {number(before, 4)} in A, and it is not among the peaks of B: it writes less"
        if found["most_b"] < (1 - tolerance) * before:
            words += f", and its norm is at most {number(found['most_b'], 4)}, which fits the claim"
        return GONE, words + behind
    if behind:
        return NOT_SEEN, f"it is not among the peaks of both traces{behind}"
    if np.isfinite(found["times_floor"]):
        return NOT_SEEN, "its activation did not change beyond the floor, and it is not among the peaks of both traces"
    if not np.isfinite(found["largest"]):
        return NOT_SEEN, "nothing of this neuron can be compared"
    return NOT_SEEN, "no floor says whether its activation changed, and it is not among the peaks of both traces"


def elsewhere(claims: Sequence[Claim], neurons: NeuronDifferences | None, rows: SharedLayers) -> dict[str, Any]:
    """How much changed in neurons that nobody claimed, and the share of the change that is in claimed ones."""
    if neurons is None or not neurons.same.any():
        return {}
    claimed = np.zeros(neurons.difference.shape, bool)
    place_of = {int(number): place for place, number in enumerate(rows.numbers)}
    for claim in claims:
        if claim.layer in place_of:
            claimed[place_of[claim.layer], claim.neuron] = True
    in_layer = claimed.any(axis=1)
    first = min(claim.layer for claim in claims)
    with np.errstate(invalid="ignore"):
        above = (neurons.times > 1) & ~claimed
    columns, seen = neurons.columns.changed, neurons.columns.seen
    moved = np.nan_to_num(np.abs(neurons.columns.b - neurons.columns.a))
    return {
        "above_floor": None if np.isnan(neurons.times).all() else int(above.sum()),
        "above_floor_in_claimed_layers": int(above[in_layer].sum()),
        "above_floor_before": int(above[rows.numbers < first].sum()),
        "unclaimed": int((~claimed & np.isfinite(neurons.difference)).sum()),
        "share_of_activation_change": _share(np.abs(neurons.difference), claimed),
        "columns_seen": int((seen & ~claimed).sum()),
        "columns_changed": int((columns & ~claimed).sum()),
        "share_of_column_change": _share(moved, claimed),
    }


def causality(claims: Sequence[Claim], compared: Sequence[Compared], noise: Noise) -> dict[str, Any]:
    """What changed, of tokens before any edit, in layers before the first claimed one; nothing may."""
    first = min(claim.layer for claim in claims)
    counts = {name: sum(int(one.exact[name][in_front_of(one, first)].sum()) for one in compared)
              for name in ("numbers", "changed")}  # fmt: skip
    found = before_edits(compared, noise, first)
    return {
        "first_claimed_layer": first,
        **counts,
        "cells": found.cells,
        "above_floor": found.above,
        "largest": None if np.isnan(found.largest) else found.largest,
        "where": found.where,
        "beyond_noise": found.beyond_noise,
    }


def _share(change: Floats, claimed: NDArray[np.bool_]) -> float | None:
    total = float(np.nansum(change))
    return float(np.nansum(change[claimed])) / total if total > 0 else None
