"""Where along the depths the model's answer is the likeliest token: for the first time, and from where to the end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stratoscope.analysis.lens.reading import NONE, Ids


@dataclass(frozen=True, eq=False)
class Leading:
    """Where a token leads, at several positions.

    Attributes
    ----------
    first
        Place among the depths at which it is the likeliest for the first time, of shape (tokens,); −1 = nowhere.
    stays
        Place from which it is the likeliest at every depth that was read, up to the last one; −1 = not at the last.
    """

    first: Ids
    stays: Ids


def leading(rank: Ids) -> Leading:
    """Where ranks of shape (tokens, depths) are 1; a depth that was not read (−1) interrupts nothing."""
    leads, known = rank == 1, rank != NONE
    first = np.where(leads.any(axis=1), leads.argmax(axis=1), NONE)
    others = known & ~leads
    last_other = np.where(others.any(axis=1), rank.shape[1] - 1 - others[:, ::-1].argmax(axis=1), NONE)
    behind = leads & (np.arange(rank.shape[1]) > last_other[:, None])
    stays = np.where(behind.any(axis=1), behind.argmax(axis=1), NONE)
    return Leading(first, stays)
