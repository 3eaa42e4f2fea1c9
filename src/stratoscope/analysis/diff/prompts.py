"""Which prompt of one trace is which of the other, and their tokens side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope.analysis.values.align import GAP, align
from stratoscope.errors import InputError
from stratoscope.trace.arrays import Ints
from stratoscope.trace.numbers import listing
from stratoscope.trace.prompts import PromptChoice, Prompts

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Pair:
    """A prompt that both traces hold.

    Attributes
    ----------
    name
        Its id in A, else its place.
    a, b
        Indices on the prompt axes.
    by_id
        Whether it was found by its id; else by its tokens.
    """

    name: str
    a: int
    b: int
    by_id: bool


@dataclass(frozen=True)
class Columns:
    """The aligned tokens of all pairs, end to end.

    Attributes
    ----------
    pair
        Which pair; [column].
    a, b
        Indices on the token axes, `GAP` where a prompt has no such token.
    equal
        Whether both prompts have the same token there.
    before
        Whether no edit has come yet in that pair.
    first
        Whether it is the first token of either prompt.
    """

    pair: Ints
    a: Ints
    b: Ints
    equal: NDArray[np.bool_]
    before: NDArray[np.bool_]
    first: NDArray[np.bool_]

    @property
    def compared(self) -> NDArray[np.bool_]:
        """Equal tokens, first tokens left out."""
        return self.equal & ~self.first

    def of(self, pairs: Ints) -> NDArray[np.bool_]:
        """The columns of some pairs."""
        mine: NDArray[np.bool_] = np.isin(self.pair, pairs)
        return mine

    def whole(self, pairs: int) -> NDArray[np.bool_]:
        """Of each pair whether all its tokens are the same; bool [pair]."""
        edited = np.zeros(pairs, bool)
        edited[self.pair[~self.before]] = True
        return ~edited


@dataclass(frozen=True, eq=False)
class Side(Prompts):
    """The prompts of one of the two traces.

    Attributes
    ----------
    keys
        What each token is known by.
    """

    keys: NDArray[Any]

    def of(self, prompt: int) -> NDArray[Any]:
        """What the tokens of a prompt are known by."""
        return self.keys[self.tokens(prompt)]


def sides(a: xr.Dataset, b: xr.Dataset) -> tuple[Side, Side]:
    """Both traces; their tokens are known by their ids, or by their texts where ids may mean something else in each."""
    ids = [np.asarray(one["token_id"].values) for one in (a, b)]
    if all((one >= 0).all() for one in ids) and _same_vocabulary(a, b):
        return Side(a, ids[0]), Side(b, ids[1])
    if not all(Prompts(one).has_texts for one in (a, b)):
        raise InputError(
            "its tokens cannot be told apart: no texts, and ids that are not known or of another tokenizer",
            where="trace",
            fix="Compare originals, recorded with one tokenizer; classes of prompts can be compared without texts.",
        )
    return Side(a, np.asarray(a["text"].values)), Side(b, np.asarray(b["text"].values))


def _same_vocabulary(a: xr.Dataset, b: xr.Dataset) -> bool:
    """Whether an id is the same token in both: by the tokenizers, or, where neither is known, by the texts."""
    if a is b:
        return True
    hashes = [str((one.attrs.get("tokenizer") or {}).get("sha256", "")) for one in (a, b)]
    if any(hashes):
        return hashes[0] == hashes[1]
    if not all("text" in one.coords for one in (a, b)):
        return True
    texts = [_texts_by_id(one) for one in (a, b)]
    return all(texts[0][token] & texts[1][token] for token in texts[0].keys() & texts[1].keys())


def _texts_by_id(one: xr.Dataset) -> dict[int, set[str]]:
    """What each token id is spelled like; a part of a character may be spelled in several ways."""
    found: dict[int, set[str]] = {}
    for token, text in {*zip(one["token_id"].values.tolist(), one["text"].values.tolist(), strict=True)}:
        found.setdefault(token, set()).add(text)
    return found


def match(a: Side, b: Side) -> list[Pair]:
    """Prompts of the same id, else of the same tokens, in the order of A; each is part of one pair.

    Raises
    ------
    InputError
        No prompt is in both.
    """
    by_id: dict[str, int] = {}
    by_tokens: dict[tuple[Any, ...], list[int]] = {}
    for prompt, name in enumerate(b.ids):
        by_id.setdefault(name, prompt)
    pairs = {
        prompt: Pair(name, prompt, by_id[name], True)
        for name, prompt in {name: prompt for prompt, name in reversed([*enumerate(a.ids)])}.items()
        if name and name in by_id
    }
    taken = {pair.b for pair in pairs.values()}
    for prompt in range(len(b.ids)):
        if prompt not in taken:
            by_tokens.setdefault(tuple(b.of(prompt).tolist()), []).append(prompt)
    for prompt, name in enumerate(a.ids):
        same = by_tokens.get(tuple(a.of(prompt).tolist())) if prompt not in pairs else None
        if same:
            pairs[prompt] = Pair(name or f"prompt {prompt}", prompt, same.pop(0), False)
    if not pairs:
        raise InputError(
            "the two traces have no prompt in common, neither by its id nor by its tokens",
            where="trace",
            fix="Record both over the same file of prompts; of CSV files give both of a prompt the same name, in two "
            "folders.",
        )
    return [pairs[prompt] for prompt in sorted(pairs)]


def columns_of(pairs: list[Pair], a: Side, b: Side) -> Columns:
    """The aligned tokens of all pairs."""
    parts = []
    for number, pair in enumerate(pairs):
        found = align(a.of(pair.a), b.of(pair.b))
        starts = (a.starts[pair.a], b.starts[pair.b])
        flat = [
            np.where(places == GAP, GAP, places + start)
            for places, start in zip((found.a, found.b), starts, strict=True)
        ]
        first = [(places != GAP) & side.first[places] for places, side in zip(flat, (a, b), strict=True)]
        before = np.arange(len(found)) < found.before
        parts.append((np.full(len(found), number), *flat, found.equal, before, first[0] | first[1]))
    return Columns(*(np.concatenate(one) for one in zip(*parts, strict=True)))


def same_user_tokens(pairs: list[Pair], a: Side, b: Side) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of each pair whether the user's tokens are the same, and whether everything up to their end is; bool [pair]."""
    same, context = np.zeros(len(pairs), bool), np.zeros(len(pairs), bool)
    of_user = [side.in_spans(["user"]) for side in (a, b)]
    for number, pair in enumerate(pairs):
        keys = [side.of(prompt) for side, prompt in ((a, pair.a), (b, pair.b))]
        user = [of_user[0][a.tokens(pair.a)], of_user[1][b.tokens(pair.b)]]
        same[number] = user[0].any() and np.array_equal(keys[0][user[0]], keys[1][user[1]])
        if same[number]:
            ends = [int(np.flatnonzero(one)[-1]) + 1 for one in user]
            context[number] = np.array_equal(keys[0][: ends[0]], keys[1][: ends[1]])
    return same, context


def choose_pairs(pairs: list[Pair], side: Side, wanted: PromptChoice, columns: Columns, most: int, room: int) -> Ints:
    """The pairs that are kept cell by cell: those asked for, else the first ones as long as there is room.

    Parameters
    ----------
    side, wanted
        A, and ids or indices of its prompts.
    most, room
        Of those that nobody asked for: how many pairs, and how many columns together.
    """
    if wanted is None:
        lengths = np.bincount(columns.pair, minlength=len(pairs))[:most]
        return np.arange(max(1, int((np.cumsum(lengths) <= room).sum())))
    number = {pair.a: number for number, pair in enumerate(pairs)}
    chosen = dict.fromkeys(side.find_all(wanted))
    for prompt in chosen.keys() - number.keys():
        raise InputError(f"{side.labels[prompt]!r} is only in A", where="prompt",
                         fix=f"In both are: {listing([pair.name for pair in pairs])}.")  # fmt: skip
    if len(chosen) > most:
        raise InputError(f"{len(chosen)} prompts are too many to keep token by token", where="prompt",
                         fix=f"Choose at most {most}.")  # fmt: skip
    return np.array([number[prompt] for prompt in chosen], dtype=np.int64)
