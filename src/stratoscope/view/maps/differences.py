"""What differences between aligned tokens share: which cells can differ at all (L30), and how tokens are written."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from stratoscope.trace.arrays import AnyFloats
from stratoscope.words import readable

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


def written(a: Iterable[str], b: Iterable[str], in_a: Mask, in_b: Mask, *, width: int) -> list[str]:
    """Labels of aligned tokens: what both sides have, a→b where they differ, the only one where one has none."""
    labels = []
    for one, other, has_a, has_b in zip(a, b, in_a, in_b, strict=True):
        shown = [readable(str(text), width=width) for text, has in ((one, has_a), (other, has_b)) if has]
        labels.append("→".join(dict.fromkeys(shown)))
    return labels
