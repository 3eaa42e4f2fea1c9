"""The heads that promote and suppress a target most, and from which tokens their direct contribution comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import names
from stratoscope.trace.arrays import Floats, Ints
from stratoscope.trace.prompts import Prompts

if TYPE_CHECKING:
    import xarray as xr

LISTED = 5  # heads of either sign
SOURCES = 3  # tokens of each


def largest_of_either_sign(values: Floats, count: int) -> Ints:
    """Places of the largest positive values, the largest first, then of the most negative, so many of each at most."""
    found: list[int] = []
    for sign in (1, -1):
        some = np.flatnonzero(np.isfinite(values) & (np.sign(values) == sign))
        found += some[np.argsort(-np.abs(values[some]), kind="stable")][:count].tolist()
    return np.array(found, np.int64)


def strongest(values: Floats) -> list[tuple[int, int]]:
    """Places (row of a layer, head) of the strongest of either sign, the promoting ones first.

    Parameters
    ----------
    values
        One value a head, [layer, head]; NaN where there is none.
    """
    rows, heads = np.unravel_index(largest_of_either_sign(values.ravel(), LISTED), values.shape)
    return list(zip(rows.tolist(), heads.tolist(), strict=True))


def sources(dataset: xr.Dataset, target: int, prompt: int, places: list[tuple[int, int]]) -> dict[str, Any] | None:
    """The tokens that most of each head's direct contribution comes from, [listed, source]; None where not recorded."""
    if "source_logit" not in dataset or not places:
        return None
    of = Prompts(dataset)
    own = of.tokens(prompt)
    array = dataset["source_logit"].isel({names.TARGET: target, names.TOKEN: own}).values  # [source, layer, head]
    shape = (len(places), SOURCES)
    position, logit, share = np.full(shape, -1), np.full(shape, np.nan), np.full(shape, np.nan)
    texts = np.full(shape, "", object)
    for number, (row, head) in enumerate(places):
        values = np.asarray(array[:, row, head], np.float64)
        sizes = np.where(np.isfinite(values), np.abs(values), 0.0)
        order = np.argsort(-sizes, kind="stable")[:SOURCES]
        order = order[sizes[order] > 0]
        here = np.s_[number, : len(order)]
        position[here], logit[here] = of.position[own][order], values[order]
        share[here] = values[order] / sizes.sum() if len(order) else np.nan
        texts[here] = list(of.words(own.start + order))
    return {"position": position, "logit": logit, "share": share, "token": texts}


def head_numbers(dataset: xr.Dataset, places: list[tuple[int, int]]) -> dict[str, Ints]:
    """Numbers of the layers and heads of places."""
    layers = np.asarray(dataset[names.LAYER].values, np.int64)
    rows = np.array([row for row, _ in places], np.int64)
    return {"layer": layers[rows], "head": np.array([head for _, head in places], np.int64)}
