"""Which token of one prompt is which token of another: runs of equal tokens are paired, and gaps stay gaps.

Two prompts of different lengths compared place by place give noise (L11). Only equal tokens are compared; a token
before the first edit has seen the same tokens in both prompts, so that a causal model must treat it alike.

Ratcliff and Obershelp's search takes more than the square of the length: long prompts are cut first, at runs of tokens
that stand once in either (as patience diff does with lines), and only what is between two cuts is searched.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stratoscope.names import TOKEN
from stratoscope.trace.arrays import Ints
from stratoscope.trace.prompts import Prompts

if TYPE_CHECKING:
    import xarray as xr

GAP = -1
_WHOLE = 4_000**2  # up to this product of their lengths two prompts are aligned as a whole
_PIECE = 500  # tokens: longer parts of long prompts are cut at runs that only one place of either has
_RUNS = (16, 4, 1)  # tokens of such a run, the surest first


@dataclass(frozen=True)
class Alignment:
    """Two prompts side by side, column by column, in reading order.

    Attributes
    ----------
    a, b
        Place of the column's token in either prompt, `GAP` where that prompt has none; int64 [column].
    equal
        Whether both have the same token; bool [column]. A column with two different tokens stands for a replacement
        of equally many tokens.
    before
        How many columns stand before the first edit; all of them where the prompts are the same.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    equal: NDArray[np.bool_]
    before: int

    def __len__(self) -> int:
        return len(self.a)


def align(a: Sequence[Any] | NDArray[Any], b: Sequence[Any] | NDArray[Any]) -> Alignment:
    """Align two prompts on runs of equal tokens (Ratcliff and Obershelp, as Python's difflib has it).

    What both begin with is paired first: those tokens have seen the same tokens, and the first of them, the sink, must
    not be taken for a later one of the same text (of two chat templates one may begin with a system prompt).

    Parameters
    ----------
    a, b
        Token ids, or texts where ids are not known.
    """
    one, other = _numbered(np.asarray(a).tolist(), np.asarray(b).tolist())
    same = _equal_at_the_start(one, other)
    of_one, of_other = one[same:], other[same:]
    search = _searched if len(of_one) * len(of_other) <= _WHOLE else _cut
    runs = [(0, 0, same), *((same + start, same + first, size) for start, first, size in search(of_one, of_other))]
    columns: list[tuple[int, int]] = []
    stop, last = 0, 0  # of the run before
    for start, first, size in [*runs, (len(one), len(other), 0)]:
        if start - stop == first - last:
            columns += zip(range(stop, start), range(last, first), strict=True)
        else:
            columns += [(place, GAP) for place in range(stop, start)]
            columns += [(GAP, place) for place in range(last, first)]
        stop, last = start + size, first + size
        columns += zip(range(start, stop), range(first, last), strict=True)
    places = np.array(columns, dtype=np.int64).reshape(-1, 2)
    there = np.flatnonzero((places != GAP).all(axis=1))
    equal = np.zeros(len(places), bool)
    equal[there] = one[places[there, 0]] == other[places[there, 1]]
    edits = np.flatnonzero(~equal)
    return Alignment(places[:, 0], places[:, 1], equal, int(edits[0]) if len(edits) else len(equal))


_Runs: TypeAlias = list[tuple[int, int, int]]  # of equal tokens: where in either prompt, and how many; ascending


def _numbered(one: list[Any], other: list[Any]) -> tuple[Ints, Ints]:
    """Both prompts as small numbers, equal where the tokens are equal."""
    number: dict[Any, int] = {}
    a, b = (np.array([number.setdefault(token, len(number)) for token in tokens], np.int64) for tokens in (one, other))
    return a, b


def _equal_at_the_start(one: Ints, other: Ints) -> int:
    """How many tokens both begin with."""
    shared = min(len(one), len(other))
    differ = np.flatnonzero(one[:shared] != other[:shared])
    return int(differ[0]) if len(differ) else shared


def _searched(one: Ints, other: Ints) -> _Runs:
    """The longest equal run, then the same on either side of it."""
    blocks = SequenceMatcher(None, one.tolist(), other.tolist(), autojunk=False).get_matching_blocks()
    return [(start, first, size) for start, first, size in blocks if size]


def _cut(one: Ints, other: Ints, lengths: Sequence[int] = _RUNS) -> _Runs:
    """What both begin and end with, and the runs between the cuts of the rest."""
    begin = _equal_at_the_start(one, other)
    end = _equal_at_the_start(one[begin:][::-1], other[begin:][::-1])
    a, b = one[begin : len(one) - end], other[begin : len(other) - end]
    ends = [(0, 0, begin), (len(one) - end, len(other) - end, end)]
    found: _Runs = []
    if len(a) and len(b):
        if max(len(a), len(b)) <= _PIECE:
            found = _searched(a, b)
        else:
            cuts = _once_in_both(a, b, lengths[0]) if lengths else _evenly(a, b)
            stops = [*cuts[1:], (len(a), len(b))]
            for (start, first), (stop, last) in zip(cuts, stops, strict=True):
                inner = _cut(a[start:stop], b[first:last], lengths[1:])
                found += [(start + x, first + y, size) for x, y, size in inner]
    return [run for run in (ends[0], *((begin + x, begin + y, size) for x, y, size in found), ends[1]) if run[2]]


def _evenly(a: Ints, b: Ints) -> list[tuple[int, int]]:
    """Cuts where nothing says which place is which: both into equally many pieces."""
    pieces = -(-max(len(a), len(b)) // _PIECE)
    return [(len(a) * piece // pieces, len(b) * piece // pieces) for piece in range(pieces)]


def _once_in_both(a: Ints, b: Ints, length: int) -> list[tuple[int, int]]:
    """The start, and the longest chain of runs of some length that stand once in a and once in b."""
    if min(len(a), len(b)) < length:
        return [(0, 0)]
    runs = _runs(np.concatenate([a, b]), length)
    of_a, of_b = runs[: len(a) - length + 1], runs[len(a) :]
    at: list[tuple[Ints, Ints]] = []
    for mine in (of_a, of_b):
        run, where, times = np.unique(mine, return_index=True, return_counts=True)
        at.append((run[times == 1], where[times == 1]))
    (runs_a, where_a), (runs_b, where_b) = at
    _, in_a, in_b = np.intersect1d(runs_a, runs_b, assume_unique=True, return_indices=True)
    places = sorted(zip(where_a[in_a].tolist(), where_b[in_b].tolist(), strict=True))
    return [(0, 0), *(place for place in _ascending(places) if place != (0, 0))]


def _runs(tokens: Ints, length: int) -> Ints:
    """A number for the run that begins at each place, the same where runs are the same; the length is a power of 2."""
    if length == 1:
        return tokens
    half = _runs(tokens, length // 2)
    both = half[: -(length // 2)] * (int(half.max()) + 1) + half[length // 2 :]
    numbers: Ints = np.unique(both, return_inverse=True)[1]
    return numbers


def _ascending(places: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest chain of places, ascending in a, that ascends in b."""
    last: list[int] = []  # place in b at which the best chain of each length ends
    ends: list[int] = []  # and which of `places` that is
    before: list[int] = []
    for number, (_, place) in enumerate(places):
        length = bisect_left(last, place)
        before.append(ends[length - 1] if length else GAP)
        last[length : length + 1] = [place]
        ends[length : length + 1] = [number]
    chain: list[tuple[int, int]] = []
    number = ends[-1] if ends else GAP
    while number != GAP:
        chain.append(places[number])
        number = before[number]
    return chain[::-1]


def token_keys(dataset: xr.Dataset, tokens: NDArray[np.int64] | slice) -> NDArray[Any]:
    """What makes two tokens equal: their ids, or their texts where ids are not known; without these none is equal."""
    ids = np.full(dataset.sizes[TOKEN], -1)
    if "token_id" in dataset.variables:
        ids = np.asarray(dataset["token_id"].values)
    if (ids[tokens] >= 0).all() or not Prompts(dataset).has_texts:
        return np.where(ids >= 0, ids, -1 - np.arange(len(ids)))[tokens]
    return np.asarray(dataset["text"].values)[tokens]
