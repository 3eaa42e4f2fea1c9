"""Which prompt of one trace is which of the other, and their tokens side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.align import GAP, align
from stratoscope.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

Ints = NDArray[np.int64]
_USER = names.SPANS.index("user")


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
    place_a, place_b
        The same, counted from the beginning of the prompt.
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
    place_a: Ints
    place_b: Ints
    equal: NDArray[np.bool_]
    before: NDArray[np.bool_]

    @property
    def first(self) -> NDArray[np.bool_]:
        """Whether it is the first token of either prompt."""
        first: NDArray[np.bool_] = (self.place_a == 0) | (self.place_b == 0)
        return first

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


class Side:
    """One of the two traces: its prompts, and where the tokens of each are."""

    def __init__(self, dataset: xr.Dataset, keys: NDArray[Any]) -> None:
        of_token = np.asarray(dataset["prompt"].values)
        count = int(dataset.sizes.get(names.PROMPT, int(of_token.max(initial=-1)) + 1))
        self.edges = np.searchsorted(of_token, np.arange(count + 1))
        known = "prompt_id" in dataset.coords
        self.ids = [str(text) for text in dataset["prompt_id"].values] if known else [""] * count
        spans = np.asarray(dataset["span"].values) if "span" in dataset.coords else np.full(len(of_token), -1)
        self.user = spans == _USER
        self.keys = keys

    def tokens(self, prompt: int) -> slice:
        """Where a prompt is on the token axis."""
        return slice(int(self.edges[prompt]), int(self.edges[prompt + 1]))

    def of(self, prompt: int) -> NDArray[Any]:
        """What the tokens of a prompt are known by."""
        return self.keys[self.tokens(prompt)]


def sides(a: xr.Dataset, b: xr.Dataset) -> tuple[Side, Side]:
    """Both traces; their tokens are known by their ids, or by their texts where the tokenizers are not the same."""
    hashes = [str((one.attrs.get("tokenizer") or {}).get("sha256", "")) for one in (a, b)]
    ids = [np.asarray(one["token_id"].values) for one in (a, b)]
    if all((one >= 0).all() for one in ids) and len({*hashes} - {""}) < 2:
        return Side(a, ids[0]), Side(b, ids[1])
    if not all("text" in one.coords for one in (a, b)):
        raise InputError(
            "the tokens of the two traces cannot be told apart: other tokenizers, and no texts",
            where="trace",
            fix="Record both with the tokenizer of the first.",
        )
    return Side(a, np.asarray(a["text"].values)), Side(b, np.asarray(b["text"].values))


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
            fix="Record both over the same file of prompts.",
        )
    return [pairs[prompt] for prompt in sorted(pairs)]


def columns_of(pairs: list[Pair], a: Side, b: Side) -> Columns:
    """The aligned tokens of all pairs."""
    parts = []
    for number, pair in enumerate(pairs):
        found = align(a.of(pair.a), b.of(pair.b))
        starts = (a.edges[pair.a], b.edges[pair.b])
        flat = [
            np.where(places == GAP, GAP, places + start)
            for places, start in zip((found.a, found.b), starts, strict=True)
        ]
        before = np.arange(len(found)) < found.before
        parts.append((np.full(len(found), number), *flat, found.a, found.b, found.equal, before))
    return Columns(*(np.concatenate(one) for one in zip(*parts, strict=True)))


def same_user_tokens(pairs: list[Pair], a: Side, b: Side) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of each pair whether the user's tokens are the same, and whether everything up to their end is; bool [pair]."""
    same, context = np.zeros(len(pairs), bool), np.zeros(len(pairs), bool)
    for number, pair in enumerate(pairs):
        keys = [side.of(prompt) for side, prompt in ((a, pair.a), (b, pair.b))]
        user = [side.user[side.tokens(prompt)] for side, prompt in ((a, pair.a), (b, pair.b))]
        same[number] = user[0].any() and np.array_equal(keys[0][user[0]], keys[1][user[1]])
        if same[number]:
            ends = [int(np.flatnonzero(one)[-1]) + 1 for one in user]
            context[number] = np.array_equal(keys[0][: ends[0]], keys[1][: ends[1]])
    return same, context


def choose_pairs(pairs: list[Pair], wanted: list[str | int] | None, columns: Columns, most: int, room: int) -> Ints:
    """The pairs that are kept cell by cell: those asked for, else the first ones as long as there is room.

    Parameters
    ----------
    wanted
        Ids, or indices of prompts of A.
    most, room
        Of those that nobody asked for: how many pairs, and how many columns together.
    """
    if wanted is None:
        lengths = np.bincount(columns.pair, minlength=len(pairs))[:most]
        return np.arange(max(1, int((np.cumsum(lengths) <= room).sum())))
    if len(wanted) > most:
        raise InputError(f"{len(wanted)} prompts are too many to keep token by token", where="prompt",
                         fix=f"Choose at most {most}.")  # fmt: skip
    by_name = {pair.name: number for number, pair in enumerate(pairs)}
    by_index = {str(pair.a): number for number, pair in enumerate(pairs)}
    found = []
    for one in wanted:
        number = by_name.get(str(one), by_index.get(str(one)))
        if number is None:
            some = ", ".join([pair.name for pair in pairs[:8]]) + (", …" if len(pairs) > 8 else "")
            raise InputError(f"no prompt {one!r} in both traces", where="prompt", fix=f"There are: {some}.")
        found.append(number)
    return np.array(list(dict.fromkeys(found)), dtype=np.int64)
