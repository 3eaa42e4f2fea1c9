"""Norm matching, of which `probe` runs the model: what was published of each token, and what the guesses are worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stratoscope import names
from stratoscope.analysis.results.result import table_in
from stratoscope.publish.attacks.look_up import log2, places_in
from stratoscope.publish.attacks.outcome import Attack, guessed
from stratoscope.publish.averaged import KIND, PROMPT_CLASS
from stratoscope.trace.arrays import Floats, Ints
from stratoscope.trace.prompts import Prompts

if TYPE_CHECKING:
    import xarray as xr

NAME, HOLDS, UNIT = "norm matching", "the model, and the true text before each token", "tokens"


def published_norms(
    published: xr.Dataset | xr.DataTree, original: xr.Dataset, quantities: Sequence[str]
) -> dict[tuple[str, int], Floats]:
    """What a file says of norms of each token of the original.

    Parameters
    ----------
    published
        A trace: of the token itself. A Result of class profiles: of its class.
    original
        The trace that it was made of.
    quantities
        The norms that are asked for.

    Returns
    -------
    dict
        Quantity and layer or depth to logarithms to base 2, NaN where nothing is published; [token].
    """
    import xarray as xr

    found: dict[tuple[str, int], Floats] = {}
    for name in quantities:
        if isinstance(published, xr.Dataset):
            if name in published:
                found |= _of_rows(published, original, name)
        elif KIND in published.children and name in published[KIND].children:
            found |= _of_classes(published, original, name)
    return found


def norm_attack(
    original: xr.Dataset, tokens: Ints, ids: Ints, guesses: Ints, by_norms: Ints, expected: Ints, left: Ints
) -> Attack:
    """The outcome of norm matching.

    Parameters
    ----------
    original
        The trace.
    tokens, ids
        Places of the tokens attacked, and what they are.
    guesses, by_norms, expected
        Guesses by the model and the norms together, by the norms alone, and by the model alone, which is blind.
    left
        How many entries of the vocabulary fit what was published.
    """
    all_ids = np.asarray(original["token_id"].values, np.int64)
    common, count = np.unique(all_ids, return_counts=True)
    blind = {
        "the token that the model expects": expected == ids,
        "the commonest token": ids == common[count.argmax()],
    }
    alone = f"by norms alone it finds {np.mean(by_norms == ids):.0%}"
    note = f"Candidates left: {int(np.median(left)):,} in the median; {alone}."
    return guessed(NAME, HOLDS, UNIT, guesses == ids, blind, Prompts(original).of_token[tokens], note=note)


def _of_rows(published: xr.Dataset, original: xr.Dataset, name: str) -> dict[tuple[str, int], Floats]:
    places = places_in(published, original, np.arange(original.sizes[names.TOKEN]))
    axis = names.QUANTITIES[name].row_kind
    rows, values = published[axis].values.tolist(), log2(published[name].values)
    return {(name, row): np.where(places >= 0, values[places, number], np.nan) for number, row in enumerate(rows)}


def _of_classes(published: xr.DataTree, original: xr.Dataset, name: str) -> dict[tuple[str, int], Floats]:
    table = table_in(published, f"{KIND}/{name}")
    axis = names.QUANTITIES[name].row_kind
    rows, means = table[axis].values.tolist(), table["mean"].transpose(PROMPT_CLASS, axis).values  # of logarithms
    classes = {str(one): number for number, one in enumerate(table[PROMPT_CLASS].values)}
    prompts = Prompts(original)
    of = np.array([classes.get(one, -1) for one in prompts.classes])[prompts.of_token]
    return {(name, row): np.where(of >= 0, means[of, number], np.nan) for number, row in enumerate(rows)}
