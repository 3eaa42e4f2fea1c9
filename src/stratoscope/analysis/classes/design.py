"""How two classes are tested: which units, which test, which part is held out, and when there is nothing to test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stratoscope.analysis.classes.units import PAIRS, Units
from stratoscope.analysis.statistics.permutation import Arrangements, label_permutations, sign_flips, smallest_p
from stratoscope.errors import InputError
from stratoscope.names import Unequal
from stratoscope.words import number

MOST_RATIO = 2.0  # of class sizes for Welch's test: at 8 v. 80 it finds something in 76 % of null splits (L22)
MOST_IMBALANCE = 0.25  # of mean token counts, in standard deviations: beyond it a regression adjustment is not enough
#                        (Rubin 2001, on covariates of matched groups)
LEAST_HELD_OUT = 4  # units of each class: fewer give no interval worth the name
PAIRED_T, WELCH, RANK_SUM = "paired t", "Welch's t", "rank sum"


@dataclass(frozen=True)
class Design:
    """What is tested on which units.

    Attributes
    ----------
    units, tested, held_out
        All of them; those that are tested; those that only measure how large a discovery is (None: too few).
    test
        "paired t", "Welch's t" or "rank sum".
    alpha
        Level of discoveries.
    """

    units: Units
    tested: Units
    held_out: Units | None
    test: str
    alpha: float

    @property
    def paired(self) -> bool:
        """Whether units are pairs."""
        return self.units.design == PAIRS

    def arrangements(self, units: Units, count: int, seed: int) -> Arrangements:
        """Sign flips of pairs, or exchanged labels of the units stacked as `average` gives them, a before b."""
        if self.paired:
            return sign_flips(len(units), count, seed)
        count_a, count_b = units.sizes
        return label_permutations(np.arange(count_a + count_b) < count_a, count, seed)

    def rows(self, part: Units) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which rows of `units.average` are the units of a part, in a and in b."""
        place = {name: number for number, name in enumerate(part.names)}
        sides = []
        for side in (self.units.in_a, ~self.units.in_a):
            here = [self.units.names[unit] for unit in np.unique(self.units.unit[side])]
            sides.append(np.array([row for row, name in enumerate(here) if name in place], np.int64))
        return sides[0], sides[1]


def make_design(units: Units, *, unequal: Unequal, held_out: float, alpha: float, seed: int) -> Design:
    """Decide how to test.

    Raises
    ------
    InputError
        So few units that no p-value could be as small as `alpha`.
    """
    refuse_too_few(units, alpha)
    test = PAIRED_T
    if units.design != PAIRS:
        count_a, count_b = units.sizes
        test = WELCH
        if max(count_a, count_b) > MOST_RATIO * min(count_a, count_b):
            if unequal == "rank-sum":
                test = RANK_SUM
            else:
                units = units.balanced(seed)
    first, second = units.halves(held_out, seed)
    enough = can_be_held_out(first, second, alpha)
    return Design(units, first if enough else units, second if enough else None, test, alpha)


def can_be_held_out(first: Units, second: Units, alpha: float) -> bool:
    """Whether the first part can be tested, and the second give intervals."""
    return testable(first, alpha) and min(second.sizes) >= LEAST_HELD_OUT


def testable(units: Units, alpha: float) -> bool:
    """Whether some arrangement of the units is rarer than `alpha`."""
    return _attainable(units) <= alpha


def refuse_too_few(units: Units, alpha: float) -> None:
    """Raise where no arrangement of so few units is rarer than `alpha`."""
    if testable(units, alpha):
        return
    least = _attainable(units)
    has = units.in_words()
    more = enough(units, alpha)
    if "group" in units.noun:
        has += " (prompts of a group count once; --no-groups counts each)"
    for said in units.left_out:
        has += f" ({said.rstrip('.')})"
    raise InputError(
        f"{has} cannot differ significantly: the smallest p-value they could ever give is {number(least)}",
        where="contrast",
        fix=f"Record at least {more}; or look at single prompts with `stratoscope heatmap`.",
    )


def enough(units: Units, alpha: float) -> str:
    """How many such units could differ significantly, in words."""
    if units.design == PAIRS:
        return f"{next(n for n in range(1, 64) if smallest_p(n) <= alpha)} {units.noun}"
    return f"{next(n for n in range(1, 64) if smallest_p(n, n) <= alpha)} of each class"


def _attainable(units: Units) -> float:
    count_a, count_b = units.sizes
    return smallest_p(count_a) if units.design == PAIRS else smallest_p(count_a, count_b)


def alike_in_length(a: NDArray[np.int64], b: NDArray[np.int64]) -> bool:
    """Whether two classes of these token counts are so alike in length that a difference is hardly one of length."""
    apart = abs(float(a.mean() - b.mean()))
    spread = float(np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)) if min(len(a), len(b)) > 1 else 0.0
    return apart == 0 or apart <= MOST_IMBALANCE * spread
