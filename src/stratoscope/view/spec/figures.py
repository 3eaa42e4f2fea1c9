"""Numbers in the cells of a map: one power of ten for all of them, and so many digits that they differ."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stratoscope.trace.arrays import AnyFloats
from stratoscope.words import number

_MOST, _FEWEST = 3, 2  # significant digits
_STEPS = 4  # so many different numbers there are at least between most cells, else they have a digit more
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Figures:
    """How numbers are written into cells.

    Attributes
    ----------
    power
        A number in a cell stands for so many times 10 ** power.
    digits
        How many significant digits it has.
    """

    power: int = 0
    digits: int = _FEWEST

    def factor(self) -> str:
        """What the numbers are to be multiplied by, "×10⁻²"; "" = they are the values."""
        return f"×10{str(self.power).translate(_SUPERSCRIPT)}" if self.power else ""

    def explained(self) -> str:
        """An example of a number and its value, where they are not the same."""
        return f"4.7 in a cell is {number(4.7 * 10.0**self.power)}" if self.power else ""

    def written(self, value: float) -> str:
        """A value in at most five characters: 12, 3.4, .56, 1.2k, or in a picture with a factor 1.2e4."""
        if math.isinf(value):
            return "−∞" if value < 0 else "∞"
        size, sign = abs(value) / 10.0**self.power, "−" if value < 0 else ""
        if size < 0.5 * 10**-self.digits:
            return "0" if size == 0 else f"<{10**-self.digits:.{self.digits}f}".replace("0.", ".")
        for whole in range(self.digits):  # digits before the point
            if size < 10**whole - 0.5 * 10 ** (whole - self.digits):
                return f"{sign}{size:.{self.digits - whole}f}".replace("0.", ".", whole == 0)
        if size < 999.5:
            return f"{sign}{size:.0f}"
        if self.power:
            return f"{sign}{size:.1e}".replace("e+0", "e").replace("e+", "e")
        for divisor, letter in ((1e3, "k"), (1e6, "M"), (1e9, "G")):
            if size < 999.5 * divisor:
                return f"{sign}{size / divisor:.{int(size < 9.95 * divisor)}f}{letter}"
        return f"{sign}{size:.0e}".replace("e+", "e")


def figures_of(values: AnyFloats) -> Figures:
    """How most of these values can be written so that two or three digits of them differ.

    The power is that of a small one (the 10 % quantile of their sizes), or as much larger as a large one (the 90 % one)
    needs to have three digits before the point. Without a power .12, 1.2, 12, 123 and 1.2k can be written.
    """
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    if not sizes.size:
        return Figures()
    small, large = np.quantile(sizes, (0.1, 0.9)).tolist()
    lowest, highest = (math.floor(math.log10(end)) for end in (small, large))
    power = max(lowest, highest - 2)
    digits = _MOST if large - small < _STEPS * 10.0 ** (power - 1) else _FEWEST
    needed = power < -1 or (power > _FEWEST and digits == _MOST)
    return Figures(power if needed else 0, digits)
