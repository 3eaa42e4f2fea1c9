"""What a picture of maps is made of: the tokens of each panel, and the quantities that are drawn over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stratoscope.trace.arrays import AnyFloats, Ints
from stratoscope.view.spec.maps import DrawnQuantity
from stratoscope.view.spec.tokens import ShownTokens

NO_TOKENS: Ints = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class TokenAxis:
    """The tokens of one panel, in reading order.

    Attributes
    ----------
    title, detail
        What stands above it.
    tokens
        Its part of the picture's table of tokens.
    dim
        Places of template and special tokens.
    starts
        Where each prompt begins and what it is called, when there are several.
    answers
        Where generated answers begin.
    rarely_seen
        Places of tokens that few later ones can attend to.
    unmatched
        Of two prompts side by side: places of tokens without an equal one on the other side, whose cells are empty.
    predicting
        Places of the tokens from which the model answers, where that is marked.
    """

    title: str
    detail: str
    tokens: ShownTokens
    dim: Ints = field(default_factory=lambda: NO_TOKENS)
    starts: tuple[tuple[int, str], ...] = ()
    answers: Ints = field(default_factory=lambda: NO_TOKENS)
    rarely_seen: Ints = field(default_factory=lambda: NO_TOKENS)
    unmatched: Ints = field(default_factory=lambda: NO_TOKENS)
    predicting: Ints = field(default_factory=lambda: NO_TOKENS)

    @property
    def count(self) -> int:
        """Number of tokens."""
        return len(self.tokens.position)

    @property
    def first(self) -> Ints:
        """Places of the tokens that are the first of their prompt."""
        return np.flatnonzero(self.tokens.first)


@dataclass(frozen=True)
class Strip:
    """One quantity in all panels.

    Attributes
    ----------
    quantity
        What it is.
    tables
        One array of shape (tokens, rows) for each panel.
    rarely_seen
        Whether its values rest on the later tokens: those of tokens that few can attend to are drawn hatched.
    limits
        Strips of the same word here are compared, and have the same limits; "" = its own.
    lowest
        A lower limit that means something, such as the noise; None = as the values lie.
    rings
        Whether the outliers of a pooled map are ringed.
    ringed
        Cells to be ringed in place of outliers, (column, row) each, in the only panel.
    counted
        For each panel the cells that count for the limits, for the clipped shares and in the histogram: of a difference
        `differences.can_differ`. Empty = all.
    absent
        For each panel the cells at which there is no token; they are NaN. Empty = none.
    """

    quantity: DrawnQuantity
    tables: Sequence[AnyFloats]
    rarely_seen: bool = False
    limits: str = ""
    lowest: float | None = None
    rings: bool = True
    ringed: NDArray[np.integer] | None = None
    counted: Sequence[NDArray[np.bool_]] = ()
    absent: Sequence[NDArray[np.bool_]] = ()

    @cached_property
    def _extremes(self) -> list[tuple[float, float]]:
        """The smallest and the largest value of each table."""
        return [(float(np.fmin.reduce(one, axis=None)), float(np.fmax.reduce(one, axis=None))) for one in self.tables]

    @property
    def negative(self) -> bool:
        """Whether it has negative values, though its scale is not a signed one."""
        return not self.quantity.signed and any(low < 0 for low, _ in self._extremes)

    @property
    def varies(self) -> bool:
        """Whether there is more than one finite value, those that do not count for the limits included."""
        known = np.concatenate([table[np.isfinite(table)] for table in self.tables])
        return bool(known.size and known.min() < known.max())

    def infinite(self, panel: int) -> int:
        """How many of its values in a panel are infinite."""
        return int(np.isinf(self.tables[panel]).sum()) if np.isinf(self._extremes[panel]).any() else 0
