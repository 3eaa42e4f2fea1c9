"""Numbers of layers as a person writes them, "22-31,0", and lists of things in a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from stratoscope.errors import InputError, UsageError
from stratoscope.trace.arguments import whole
from stratoscope.words import number_ranges

LayerChoice: TypeAlias = "str | int | Sequence[int] | None"
_SHOWN = 8  # names listed in an error


def choose_layers(available: Iterable[int], layers: LayerChoice = None, *, kind: str = "layer") -> NDArray[np.int64]:
    """Positions, ascending, of the wanted numbers among the `available` ones.

    Parameters
    ----------
    available
        The block (or depth) numbers that the data have.
    layers
        "22-31,0", one number, or a sequence of numbers; None = all. Ranges include both ends.
    kind
        What the numbers are, for the error.
    """
    numbers = [int(number) for number in available]
    if layers is None:
        return np.arange(len(numbers))
    wanted = _parse_numbers(layers, numbers, kind)
    missing = sorted(wanted - set(numbers))
    if missing:
        raise InputError(f"no {kind} {listing(missing)}", where=f"{kind}s", fix=f"There are: {number_ranges(numbers)}.")
    return np.array([index for index, number in enumerate(numbers) if number in wanted], dtype=np.int64)


def _parse_numbers(layers: LayerChoice, available: list[int], kind: str) -> set[int]:
    where, fix = f"{kind}s", f'Write "22-31,0", or list the numbers; there are: {number_ranges(available)}.'
    if not isinstance(layers, str):
        given = list(layers) if isinstance(layers, Iterable) else [layers]
        if not given or not all(isinstance(one, str) for one in given):
            return {whole(number, where, fix) for number in given}
        layers = ",".join(map(str, given))
    wanted: set[int] = set()
    for part in layers.split(","):
        first, dash, last = (piece.strip().removeprefix("L") for piece in part.partition("-"))
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise UsageError(f"cannot read {layers!r}", where=where, fix=fix)
        ends = (int(first), int(last) if dash else int(first))
        if ends[1] - ends[0] > 100_000:
            raise InputError(f"no {kind} {ends[1]}", where=where, fix=f"There are: {number_ranges(available)}.")
        wanted |= set(range(ends[0], ends[1] + 1))
    return wanted


def listing(items: Sequence[object]) -> str:
    """Items in a sentence, the first few of many."""
    shown = ", ".join(str(item) for item in items[:_SHOWN])
    return f"{shown}, … ({len(items)} in all)" if len(items) > _SHOWN else shown
