"""What one lens reads at some tokens, at every depth, and in which cells the parts of its corpus agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope.analysis.lens.lenses import Lenses
from stratoscope.trace.arrays import Floats

if TYPE_CHECKING:
    import xarray as xr

Ids = NDArray[np.int64]
Yes = NDArray[np.bool_]
NONE = -1  # as an id or a rank: not recorded
FEW = 5  # ranks of the answer that are told apart: farther down they are noise in every lens


@dataclass(frozen=True, eq=False)
class Reading:
    """What a lens reads.

    Attributes
    ----------
    name
        Of the lens.
    tokens
        Places on the dimension `token`, of shape (tokens,).
    depths
        Numbers of the depths.
    likeliest
        Id of the likeliest token, of shape (tokens, depths); −1 = not recorded.
    logprob
        Its log-probability; NaN = not recorded.
    answer
        Id of the token that the model itself finds likeliest there, of shape (tokens,).
    answer_logprob, answer_rank
        What the lens gives for it, of shape (tokens, depths); NaN and −1 = not recorded.
    changes
        Cells in which the parts of the lens' corpus do not agree, of shape (tokens, depths): in the likeliest token, or
        in the rank of the model's answer where that is among the first five in one of them. None = it has no parts.
    """

    name: str
    tokens: Ids
    depths: tuple[int, ...]
    likeliest: Ids
    logprob: Floats
    answer: Ids
    answer_logprob: Floats
    answer_rank: Ids
    changes: Yes | None

    @property
    def compared(self) -> Yes:
        """Cells whose parts are compared: recorded ones, but not the last depth, which is the model's own in each."""
        there: Yes = self.likeliest != NONE
        there[:, -1] = False
        return there

    @property
    def stable_share(self) -> float | None:
        """Share of the compared cells in which all parts agree; None = nothing is compared."""
        compared = self.compared
        if self.changes is None or not compared.any():
            return None
        return float((compared & ~self.changes).sum() / compared.sum())


def read(dataset: xr.Dataset, lenses: Lenses, name: str, tokens: Ids) -> Reading:
    """What the lens of this name reads at tokens, by their places on the dimension `token`."""
    place, parts = lenses.place(name), lenses.parts(name)
    likeliest, logprob = (
        _values(dataset[one].isel(token=tokens, lens_rank=0), place) for one in ("lens_token", "lens_logprob")
    )
    answer_logprob, answer_rank = (
        _values(dataset[one].isel(token=tokens), place) for one in ("lens_answer_logprob", "lens_answer_rank")
    )
    return Reading(
        name,
        tokens,
        tuple(depths_of(dataset)),
        likeliest.astype(np.int64),
        logprob.astype(np.float64),
        likeliest[:, -1].astype(np.int64),
        answer_logprob.astype(np.float64),
        answer_rank.astype(np.int64),
        _changes(dataset, tokens, (place, *parts)) if parts else None,
    )


def depths_of(dataset: xr.Dataset) -> Sequence[int]:
    """Numbers of the depths."""
    count = dataset.sizes["depth"]
    return [int(one) for one in dataset["depth"].values] if "depth" in dataset.coords else range(count)


def recorded_tokens(dataset: xr.Dataset, tokens: slice) -> Ids:
    """Places of the tokens of a prompt at which lenses were read."""
    last = dataset["lens_token"].isel(token=tokens, depth=-1, lens=0, lens_rank=0).values
    found: Ids = tokens.start + np.flatnonzero(last != NONE)
    return found


def _values(array: xr.DataArray, place: int) -> NDArray[Any]:
    """What a lens gave, of shape (tokens, depths)."""
    return np.asarray(array.isel(lens=place).transpose("token", "depth").values)


def _changes(dataset: xr.Dataset, tokens: Ids, places: Sequence[int]) -> Yes:
    """Cells that the parts of a lens, at these places, do not read alike."""
    found = [
        dataset["lens_token"].isel(token=tokens, lens_rank=0),
        dataset["lens_answer_rank"].isel(token=tokens),
    ]
    likeliest, rank = (np.stack([_values(one, place) for place in places]) for one in found)
    near = ((rank != NONE) & (rank <= FEW)).any(axis=0)
    differ = (likeliest != likeliest[0]).any(axis=0) | (near & (rank != rank[0]).any(axis=0))
    changed: Yes = differ & (likeliest[0] != NONE)
    return changed
