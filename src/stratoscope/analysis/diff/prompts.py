"""The prompts that two traces have in common, token by aligned token."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.align import Alignment, align, token_keys
from stratoscope.errors import InputError

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Match:
    """A prompt of both traces.

    Attributes
    ----------
    name
        Its id.
    a, b
        Its index in either trace.
    start_a, start_b
        Where its tokens begin on the token axes.
    columns
        How its tokens are aligned.
    """

    name: str
    a: int
    b: int
    start_a: int
    start_b: int
    columns: Alignment

    @property
    def same(self) -> bool:
        """Whether both are the same tokens."""
        return self.columns.before == len(self.columns)

    def tokens(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Token indices, in either trace, of the columns that are equal, the first token left out."""
        equal = self.columns.equal & (self.columns.a > 0) & (self.columns.b > 0)
        return self.start_a + self.columns.a[equal], self.start_b + self.columns.b[equal]


@dataclass(frozen=True)
class Matches:
    """All prompts that two traces have in common, and how they were matched."""

    found: tuple[Match, ...]
    by: str
    only_a: int
    only_b: int


def match_prompts(a: xr.Dataset, b: xr.Dataset) -> Matches:
    """Match prompts by their ids, or where no id is shared by their tokens.

    Raises
    ------
    InputError
        The traces have no prompt in common.
    """
    edges_a, edges_b = _edges(a), _edges(b)
    keys_a, keys_b = token_keys(a, slice(None)), token_keys(b, slice(None))
    ids_a, ids_b = ([str(text) for text in one["prompt_id"].values] for one in (a, b))
    by, places = "id", {name: place for place, name in reversed([*enumerate(ids_b)])}
    pairs = [(place, places[name]) for place, name in enumerate(ids_a) if name in places]
    if not pairs:
        by = "tokens"
        prompts_b = {keys_b[low:high].tobytes(): place for place, (low, high) in reversed([*enumerate(edges_b)])}
        tokens_a = [keys_a[low:high].tobytes() for low, high in edges_a]
        pairs = [(place, prompts_b[own]) for place, own in enumerate(tokens_a) if own in prompts_b]
    if not pairs:
        raise InputError(
            "the traces have no prompt in common, by id or by tokens",
            where="diff",
            fix="Record the same prompts file with both models.",
        )
    found = []
    for one, other in pairs:
        (low_a, high_a), (low_b, high_b) = edges_a[one], edges_b[other]
        columns = align(keys_a[low_a:high_a], keys_b[low_b:high_b])
        found.append(Match(ids_a[one], one, other, low_a, low_b, columns))
    return Matches(tuple(found), by, len(ids_a) - len(pairs), len(ids_b) - len({other for _, other in pairs}))


def _edges(dataset: xr.Dataset) -> list[tuple[int, int]]:
    of_token = np.asarray(dataset["prompt"].values)
    edges = np.searchsorted(of_token, np.arange(dataset.sizes[names.PROMPT] + 1)).tolist()
    return list(pairwise(edges))
