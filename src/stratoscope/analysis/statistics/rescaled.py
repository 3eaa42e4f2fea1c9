"""The difference of parts that were multiplied by a factor each: what the parts changed, and what the factors did.

Direct contributions are writes times the factor of the final norm, which every write of a layer changes: subtracted as
they stand, they blame layers that did not change for what the norm did (docs/pitfalls.md, L29).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from stratoscope.trace.arrays import Floats


@dataclass(frozen=True)
class RescaledDifference:
    """a − b of parts that were multiplied by a factor each: `change` + `rescaling`.

    Attributes
    ----------
    change
        What the parts themselves changed, at the mean of both factors; 0 (up to rounding) where they did not change.
    rescaling
        What the other factor made of their mean. Summed over all parts it is one row of its own: "final norm".
    """

    change: Floats
    rescaling: Floats


def at_factor(parts: ArrayLike, factor: ArrayLike, wanted: ArrayLike) -> Floats:
    """Parts that were multiplied by one factor, as another one would have them."""
    parts, factor, wanted = (np.asarray(one, np.float64) for one in (parts, factor, wanted))
    return parts * (wanted / factor)


def rescaled_difference(a: ArrayLike, b: ArrayLike, factor_a: ArrayLike, factor_b: ArrayLike) -> RescaledDifference:
    """Split the difference of two parts, each multiplied by its factor.

    With c the parts without their factors, so that a = c_a f_a and b = c_b f_b:
    a − b = (c_a − c_b)(f_a + f_b)/2 + (c_a + c_b)/2 (f_a − f_b).

    Parameters
    ----------
    a, b
        Parts as they were recorded: with their factors.
    factor_a, factor_b
        The factors (of direct contributions `final_scale`), positive, of shapes that fit to those of a and b.
    """
    a, b, factor_a, factor_b = (np.asarray(one, np.float64) for one in (a, b, factor_a, factor_b))
    middle = (factor_a + factor_b) / 2
    change = at_factor(a, factor_a, middle) - at_factor(b, factor_b, middle)
    return RescaledDifference(change, a - b - change)
