"""Tokens before any edit: how far they are beyond the floor, and whether noise alone makes that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stratoscope import names
from stratoscope.analysis.diff.cells import Compared
from stratoscope.analysis.diff.floor import FAR, Noise


@dataclass(frozen=True)
class Before:
    """Cells of tokens before any edit that have a floor.

    Attributes
    ----------
    cells, above
        How many there are, and how many of them are beyond the floor.
    largest, where
        The farthest in times the floor, NaN where there is none; and its quantity and layer.
    beyond_noise
        Whether in a layer more are beyond the floor than noise leaves there, or one is by far: the floor is a maximum
        over a sample, so that a few beyond it are to be expected.
    """

    cells: int
    above: int
    largest: float
    where: str
    beyond_noise: bool


def before_edits(compared: Sequence[Compared], noise: Noise, layer: int | None = None) -> Before:
    """Hold tokens before any edit against the floor; `layer`: only what stands in front of that one."""
    chosen = [(one, in_front_of(one, layer)) for one in compared]
    rows = sum(int((one.early["cells"][there] > 0).sum()) for one, there in chosen)
    cells, above, largest, where, beyond = 0, 0.0, np.nan, "", False
    for one, there in chosen:
        share, count, times = (one.early[name][there] for name in ("share_above", "cells", "times_largest"))
        cells += int(count.sum())
        above += float(np.nansum(share * count))
        beyond |= bool(noise.exceeded(one.quantity, rows, share, count).any())
        if np.isfinite(times).any() and not np.nanmax(times) <= largest:
            place = int(np.nanargmax(times))
            largest, where = float(times[place]), f"{one.quantity} of {one.rows.kind} {one.rows.numbers[there][place]}"
    return Before(cells, round(above), largest, where, beyond or largest >= FAR)


def in_front_of(one: Compared, layer: int | None) -> np.ndarray:
    """The rows of a quantity that a change of a layer cannot reach, [row]; all without a layer."""
    if layer is None:
        return np.ones(len(one.rows.numbers), bool)
    rows: np.ndarray = one.rows.numbers < layer + (one.rows.kind == names.DEPTH)  # depth ℓ stands before block ℓ
    return rows
