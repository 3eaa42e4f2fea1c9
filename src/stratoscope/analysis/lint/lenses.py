"""Checks of lenses: how much of what a fitted lens reads is the corpus that it was fitted on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stratoscope import names
from stratoscope.analysis.lint.check import LOOKED_AT, check
from stratoscope.trace.lenses import LOGIT_LENS, lens_names, parts_of
from stratoscope.trace.notes import INFO
from stratoscope.words import percent

if TYPE_CHECKING:
    import xarray as xr


@check("L35", INFO, "What a fitted lens reads is taken for the model's, and is its corpus's too.", ("lens_token",))
def lens_shows_its_corpus(dataset: xr.Dataset) -> str | None:
    """Parts of a fitted lens's corpus read other tokens, or it has no parts."""
    if "lens_token" not in dataset or not all(dataset["lens_token"].shape):
        return None
    lenses = lens_names(dataset.attrs.get("plan"), dataset.sizes[names.LENS])
    if len(lenses) < 2:
        return None
    whole = next(name for name in lenses if name != LOGIT_LENS)
    parts = [*parts_of(whole, lenses)]
    if len(parts) < 2:
        return f"How far the {whole} lens depends on the corpus it was fitted on is not known: it has no parts."
    first = dataset["lens_token"].isel({names.LENS_RANK: 0, names.TOKEN: slice(LOOKED_AT)}).values[:, :-1, parts]
    read = (first >= 0).all(axis=-1)
    other = read & (first != first[..., :1]).any(axis=-1)
    if not other.any():
        return None
    share = percent(np.count_nonzero(other) / np.count_nonzero(read))
    return (
        f"At {share} of the places below the last depth, parts of the corpus of the {whole} lens read another token "
        "first: there it shows its corpus as much as the model."
    )
