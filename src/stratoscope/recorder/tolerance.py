"""How far what is computed in two ways may be apart before a recording stops."""

from __future__ import annotations

import math

import torch

from stratoscope.model.sites import unit_roundoff


class Tolerance:
    """What rounding explains of an error, relative to the sizes of what is added or compared.

    More than that stops a recording of float32 or float64. In half precision it is kept and said, as far as it is a
    number: how a model rounds inside its layers is not known.

    Parameters
    ----------
    dtype
        In which the model computes.
    full
        The limit in float32 and float64.
    roundings
        The limit in half precision, in roundings of one number.

    Attributes
    ----------
    limit
        The one that applies.
    """

    def __init__(self, dtype: torch.dtype, *, full: float, roundings: int) -> None:
        self._half = dtype.itemsize < 4
        self.limit = roundings * unit_roundoff(dtype) if self._half else full

    def stops(self, error: float) -> bool:
        """Whether a recording stops at an error, which may be NaN."""
        return not error <= self.limit and not (self._half and math.isfinite(error))
