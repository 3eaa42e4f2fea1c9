"""Which prompts are nearly the same text: whoever gives one prompt a hundred times is one person, and counts once."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias
from unicodedata import normalize

import numpy as np

from stratoscope import defaults, names
from stratoscope.errors import InputError
from stratoscope.trace.arrays import Ints
from stratoscope.trace.prompts import Prompts

if TYPE_CHECKING:
    import xarray as xr
    from scipy.sparse import csr_matrix

Pairs: TypeAlias = Collection[Hashable]  # the different pairs of neighbouring tokens of a prompt
ALIKE = 0.5  # of all pairs of neighbouring tokens of two prompts, those that both have (docs/decisions/0061)
_EDGE = ""  # stands before the first token and behind the last
_TOGETHER = 256  # prompts that are compared with all others at a time


def duplicates(dataset: xr.Dataset, prompts: Sequence[int] | Ints) -> Ints:
    """Which of some prompts are near-duplicates of each other.

    Two prompts are, where at least half of the pairs of neighbouring tokens that either has are in both, capitals,
    accents, blanks and signs left out; so are two that are near-duplicates of a third. Of the tokens of the user only,
    where it is known which those are. From five tokens on, a prompt with one token replaced is a near-duplicate.

    Parameters
    ----------
    dataset
        A trace.
    prompts
        Indices of prompts.

    Returns
    -------
    numpy.ndarray
        For each of them the number of its cluster, in order of appearance from 0.

    Raises
    ------
    InputError
        The trace holds neither texts nor ids of tokens.

    Examples
    --------
    >>> import stratoscope
    >>> from stratoscope.publish.profiles.duplicates import duplicates
    >>> trace = stratoscope.simulate(prompts=6, layers=1)
    >>> duplicates(trace, [0, 2, 4, 0]).tolist()
    [0, 1, 2, 0]
    """
    return clusters([neighbours(tokens) for tokens in _tokens(dataset, prompts)])


def neighbours(tokens: Sequence[Hashable]) -> set[Hashable]:
    """The different pairs of neighbouring tokens, also of the first and the last with what is not there."""
    return set(pairwise([_EDGE, *tokens, _EDGE]))


def clusters(texts: Sequence[Pairs], alike: float = ALIKE) -> Ints:
    """The number of the cluster of each text: those that share at least `alike` of their pairs, directly or by others.

    Every text is compared with every other, a few at a time; equal ones are compared once.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    different: dict[frozenset[Hashable], int] = {}
    of_text = np.array([different.setdefault(frozenset(text), len(different)) for text in texts], np.int64)
    held = _incidence(list(different))
    sizes, count = np.diff(held.indptr), held.shape[0]
    label: Ints = np.arange(count)
    for start in range(0, count, _TOGETHER):
        shared = (held[start : start + _TOGETHER] @ held.T).tocoo()
        one, other = shared.row + start, shared.col
        near = shared.data >= alike * (sizes[one] + sizes[other] - shared.data)
        links = np.concatenate([one[near], np.arange(count)]), np.concatenate([other[near], label])
        graph = coo_matrix((np.ones(len(links[0]), np.int8), links), shape=(count, count))
        _, label = connected_components(graph, directed=False)
        label = np.asarray(label, np.int64)
    _, first, number = np.unique(label[of_text], return_index=True, return_inverse=True)
    found: Ints = np.argsort(np.argsort(first))[number]
    return found


def _incidence(texts: Sequence[Pairs]) -> csr_matrix:
    """Which text has which pair."""
    from scipy.sparse import csr_matrix

    number: dict[Hashable, int] = {}
    columns = [number.setdefault(pair, len(number)) for text in texts for pair in text]
    ends = np.cumsum([0, *map(len, texts)])
    return csr_matrix((np.ones(len(columns), np.int32), columns, ends), shape=(len(texts), max(1, len(number))))


def _tokens(dataset: xr.Dataset, prompts: Sequence[int] | Ints) -> Iterator[list[Hashable]]:
    """The user's tokens of each prompt: their texts, without what is only a sign or blank, else their ids."""
    of = Prompts(dataset)
    user = of.in_spans([defaults.SPAN])
    user = user if user.any() else np.ones(len(of.of_token), bool)
    if "text" in dataset.variables:
        texts = dataset["text"].values
        for prompt in prompts:
            said = [str(text) for text in texts[of.tokens(prompt)][user[of.tokens(prompt)]]]
            yield [bare for text in said if (bare := _bare(text))] or [text.strip() for text in said]
    elif "token_id" in dataset.variables and (dataset["token_id"].values >= 0).any():
        ids = dataset["token_id"].values
        for prompt in prompts:
            yield ids[of.tokens(prompt)][user[of.tokens(prompt)]].tolist()
    else:
        raise InputError(
            "it holds neither texts nor ids of tokens, so that nobody can say which prompts are the same",
            where="trace",
            fix=f"Publish the trace as it was recorded, or at the level {names.NO_TEXT}.",
        )


def _bare(text: str) -> str:
    """The letters and digits of a text, however they are written: no accents, no width, nothing that is not seen."""
    return "".join(filter(str.isalnum, normalize("NFKD", text).casefold()))
