"""Total effects summed over the tokens of prompts, first ones left out: what they hold is no small change (L05)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.trace.arrays import Floats, Ints
from stratoscope.trace.prompts import GONE, Prompts

if TYPE_CHECKING:
    import xarray as xr

_TOKENS = 2**12  # read at a time


def summed_tokens(prompts: Prompts) -> NDArray[np.bool_]:
    """Whether the effects of a token are summed: of all but first tokens that are no answer positions; [token]."""
    summed: NDArray[np.bool_] = ~prompts.first
    summed[prompts.answer[prompts.answer != GONE]] = True
    return summed


def sums_of_prompts(dataset: xr.Dataset, effects: xr.DataArray, prompts: Ints) -> Floats:
    """Effects [token, …] of a Dataset summed over the `summed_tokens` of each prompt: [prompt, …].

    What has no value is left out; where none of the tokens has one the sum is NaN.
    """
    size = effects.shape[1:]
    found = np.full((len(prompts), *size), np.nan)
    for run, tokens, place in _runs(Prompts(dataset), prompts):
        values = np.asarray(effects.isel({names.TOKEN: tokens}).values, np.float64)
        known = np.isfinite(values)
        sums, counts = (np.zeros((run.stop - run.start, *size)) for _ in range(2))
        np.add.at(sums, place, np.where(known, values, 0.0))
        np.add.at(counts, place, known)
        found[run] = np.where(counts > 0, sums, np.nan)
    return found


def _runs(of: Prompts, prompts: Ints) -> Iterator[tuple[slice, Ints, Ints]]:
    """Prompts a few at a time: which of them, their tokens that are summed, and the place of each one's prompt."""
    start, summed = 0, summed_tokens(of)
    while start < len(prompts):
        stop, count = start, 0
        while stop < len(prompts) and (stop == start or count + int(of.lengths[prompts[stop]]) <= _TOKENS):
            count += int(of.lengths[prompts[stop]])
            stop += 1
        tokens = [np.arange(of.starts[one], of.stops[one]) for one in prompts[start:stop]]
        tokens = [own[summed[own]] for own in tokens]
        place = np.repeat(np.arange(stop - start), [len(own) for own in tokens])
        yield slice(start, stop), np.concatenate(tokens), place
        start = stop
