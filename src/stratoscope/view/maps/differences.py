"""Which cells of a difference can differ at all: the limits of its colours are fitted on those (L30)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stratoscope.trace.arrays import AnyFloats

Mask = NDArray[np.bool_]


def can_differ(difference: AnyFloats, alike: Mask | None = None) -> Mask:
    """The cells that count for the limits of a difference, of its shape (tokens, rows).

    Not those that are exactly zero: most of them are so by construction (the embedding of equal tokens, layers before
    the first that was changed), and limits fitted over them would saturate all others.

    Parameters
    ----------
    alike
        Tokens that have seen the same tokens in the same model, so that all they differ by is rounding, [token]. Where
        that is every token nothing but rounding is shown, and it counts.
    """
    counts: Mask = np.isfinite(difference) & (difference != 0)
    if alike is not None and not alike.all():
        counts &= ~alike[:, None]
    return counts
