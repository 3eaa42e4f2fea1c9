"""How far what is computed in two ways may be apart before a recording stops."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

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


class LargestErrors:
    """The largest errors so far, by name: through interruptions, and into the receipt.

    Parameters
    ----------
    key
        That of the receipt under which they stand.
    errors
        What they are called there.
    limit
        What rounding explains of them.
    beyond
        The sentence among the limits of the receipt where one is larger, as it may be in half precision.
    """

    def __init__(self, key: str, errors: Collection[str], limit: float, beyond: str) -> None:
        self._key, self._names, self._limit, self._beyond = key, tuple(errors), limit, beyond
        self._largest: dict[str, float] = {}

    def go_on(self, receipt: Mapping[str, Any] | None) -> None:
        """Take up what was found before an interruption."""
        known = (receipt or {}).get(self._key) or {}
        self._largest = {name: known[name] for name in self._names if known.get(name) is not None}

    def add(self, name: str, error: float) -> None:
        """Keep an error if it is the largest of its name."""
        self._largest[name] = max(self._largest.get(name, 0.0), error)

    def into(self, receipt: Mapping[str, Any]) -> dict[str, Any]:
        """The receipt with them, if there are any."""
        if not self._largest:
            return dict(receipt)
        limits = [limit for limit in receipt["limits"] if limit != self._beyond]
        if not max(self._largest.values()) <= self._limit:
            limits.append(self._beyond)
        return {**receipt, self._key: {**self._largest, "limit": self._limit}, "limits": limits}
