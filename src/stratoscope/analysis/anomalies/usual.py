"""Massive tokens that are usual: first tokens, tokens that behave as those do, and what recurs from prompt to prompt.

A model keeps one massive residual for its attention sinks. Every prompt has one, at its first token, and most have
more. A tail fitted to data that contain them hides everything else, so they are told apart by what they look like: the
norms of a few layers around a value, of the MLP, attention and the residual stream together. A value is usual

- when it looks like this at first tokens (the middle one of all prompts), or
- when it looks like this at tokens of at least two other prompts (twins count once) and of one prompt in twenty, or
- when it is an MLP's write at the layer where a usual massive residual begins or ends.

With a reference, only what the reference shows is usual. A value that stands alone in its surroundings, or that is
larger than what it looks like, is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.anomalies.norms import SHAPE, WRITES, Norms, writer_of
from stratoscope.trace.arrays import Bools, Floats
from stratoscope.words import number

MASSIVE = np.log(6.0)  # over the typical norm: less is no finding
_RAISED = np.log(3.0)  # less is not asked whether it is usual
_ALIKE, _ALIKE_RESIDUAL = 0.65, 0.8  # least cosine of two surroundings; a residual's neighbours follow from itself
_LARGER = np.log(2.5)  # than the middle first token, at most
_FACTOR = np.log(3.0)  # between two values that are alike
_WRITE_FACTOR = np.log(8.0)  # between a write that makes or ends a residual and that residual
_CHANGE = np.log(1.25)  # of a residual over a layer that writes or ends it
_OTHERS, _SHARE = 2, 0.05  # other prompts in which something recurs: at least so many, and this share
_COMPARED = 512  # values that one is compared with, at most
_FIRSTS = 3  # first tokens whose middle one is not moved by one of them
_TEXTS = 5  # of a class that are named
SHOWN_NORMS = ("mlp_out_norm", "attn_write_norm", "resid_norm")  # in the words about a class, where they were recorded

_SINKS = ("First tokens are massive", "Second sinks")  # listed in however few prompts

LIKE_FIRST, RECURRING = 1, 2


@dataclass(frozen=True)
class Class:
    """Usual massive tokens of one kind.

    Attributes
    ----------
    words
        One sentence.
    tokens, prompts
        How many tokens, in how many prompts.
    ratio
        The largest value over the typical one of its layer.
    """

    words: str
    tokens: int
    prompts: int
    ratio: float


@dataclass(frozen=True)
class Usual:
    """Which norms are usual.

    Attributes
    ----------
    kinds
        Quantity -> [token, row]: 0, `LIKE_FIRST` or `RECURRING`.
    recurs
        Quantity -> [token, row]: what recurs in the trace, but not in the reference.
    tokens
        [token], whether it is a massive one that is usual.
    """

    kinds: dict[str, NDArray[np.int8]]
    recurs: dict[str, Bools]
    tokens: Bools


def usual_of(norms: Norms, reference: Norms | None = None) -> Usual:
    """What is usual in a trace, by itself or by a reference."""
    kinds = {name: np.zeros(logs.shape, np.int8) for name, logs in norms.logs.items()}
    recurs = {name: np.zeros(logs.shape, np.bool_) for name, logs in norms.logs.items()}
    for name, logs in norms.logs.items():
        model = reference if reference is not None and name in reference.logs else norms
        for row in range(logs.shape[1]):
            raised = np.flatnonzero(logs[:, row] > _RAISED)
            if not len(raised):
                continue
            first = _like_first(norms, model, name, row, raised)
            kinds[name][raised[first], row] = LIKE_FIRST
            rest = raised[~first]
            if len(rest):
                known = _recurring(norms, model, name, row, rest)
                kinds[name][rest[known], row] = RECURRING
                if model is not norms:
                    recurs[name][rest, row] = ~known & _recurring(norms, norms, name, row, rest)
    if "resid_norm" in kinds:
        _refuse_other_beginnings(norms, kinds["resid_norm"])
        _add_writes(norms, kinds)
    massive = [((kind > 0) & (norms.logs[name] > MASSIVE)).any(axis=1) for name, kind in kinds.items()]
    return Usual(kinds, recurs, np.any(massive, axis=0) if massive else np.zeros(len(norms.first), np.bool_))


def ordinary(norms: Norms) -> dict[str, Floats]:
    """Quantity -> logs over the typical norm; NaN at first tokens and where it is usual that they are massive."""
    usual = usual_of(norms).kinds
    return {name: np.where(norms.first[:, None] | (usual[name] > 0), np.nan, logs) for name, logs in norms.logs.items()}


def too_few_firsts(norms: Norms) -> bool:
    """Whether there are too few first tokens to say what is usual of them."""
    return int(norms.first.sum()) < _FIRSTS


def classes(norms: Norms, usual: Usual) -> list[Class]:
    """The usual massive tokens, each kind once: first tokens, others that behave as those do, others that recur."""
    shown = [name for name in SHOWN_NORMS if name in usual.kinds] or list(usual.kinds)
    massive = {name: usual.kinds[name] * (norms.logs[name] > MASSIVE) for name in shown}
    like = _any(massive, LIKE_FIRST)
    recurring = _any(massive, RECURRING) & ~like & ~norms.first
    kinds = (
        (_SINKS[0], False, norms.first & _any(massive, LIKE_FIRST, RECURRING)),
        (f"{_SINKS[1]}, which behave as first tokens do", True, like & ~norms.first),
        ("Massive in prompt after prompt", True, recurring),
    )
    found = [_class(norms, massive, words, named, tokens) for words, named, tokens in kinds if tokens.any()]
    return [one for one in found if one.prompts > _OTHERS or one.words.startswith(_SINKS)]


def _class(norms: Norms, massive: dict[str, NDArray[np.int8]], words: str, named: bool, tokens: Bools) -> Class:
    prompts, at = norms.prompts, np.flatnonzero(tokens)
    counts = Counter(map(prompts.text, at.tolist()))
    texts = ", ".join(f"{text!r} ({count})" for text, count in counts.most_common(_TEXTS))
    more = f" and {len(counts) - _TEXTS} more texts" if len(counts) > _TEXTS else ""
    where, ratio = [], 0.0
    for name, kinds in massive.items():
        cells = kinds[tokens] > 0
        if cells.any():
            ratio = max(ratio, float(np.exp(norms.logs[name][tokens][cells].max())))
            letter = names.ROW_LETTERS[names.QUANTITIES[name].row_kind]
            where.append(f"{names.QUANTITIES[name].label} {spans(np.flatnonzero(cells.any(axis=0)), letter)}")
    count = len(set(prompts.of_token[at].tolist()))
    size = f"{len(at)} token{'s' * (len(at) != 1)} in {count} prompt{'s' * (count != 1)}"
    said = f"{words}: {size}, {texts}{more}" if named else f"{words}: {size}"
    return Class(f"{said}; up to {number(ratio)} times the median ({'; '.join(where)}).", len(at), count, ratio)


def spans(rows: Sequence[int] | NDArray[np.integer], letter: str) -> str:
    """Rows in words: L2, L9–10."""
    rows = np.asarray(rows)
    breaks = np.flatnonzero(np.diff(rows) > 1) + 1
    parts = [(int(part[0]), int(part[-1])) for part in np.split(rows, breaks)]
    return ", ".join(f"{letter}{a}" if a == b else f"{letter}{a}–{b}" for a, b in parts)


def _any(kinds: dict[str, NDArray[np.int8]], *wanted: int) -> Bools:
    found: Bools = np.any([np.isin(one, wanted).any(axis=1) for one in kinds.values()], axis=0)
    return found


def _looks(norms: Norms, other: Norms, name: str, row: int, tokens: NDArray[np.integer]) -> Floats:
    """What a value looks like at tokens: itself, and what surrounds it."""
    around = norms.shapes(writer_of(name, row), tokens, other)
    itself = np.nan_to_num(np.maximum(norms.logs[name][tokens, row], 0.0))
    return around if name in SHAPE else np.column_stack([around, itself])


def _like_first(norms: Norms, model: Norms, name: str, row: int, tokens: NDArray[np.integer]) -> Bools:
    """Which of the raised values at tokens look like the middle first token's."""
    at_first = model.logs[name][model.first, row]
    if np.isnan(at_first).all():
        return np.zeros(len(tokens), np.bool_)
    level = float(np.nanmedian(at_first))
    middle = np.median(_looks(model, norms, name, row, np.flatnonzero(model.first)), axis=0)
    alike = _alike(name, _looks(norms, model, name, row, tokens), middle[None])[:, 0]
    found: Bools = alike & (norms.logs[name][tokens, row] <= level + _LARGER)
    return found


def _recurring(norms: Norms, model: Norms, name: str, row: int, tokens: NDArray[np.integer]) -> Bools:
    """Which of the raised values at tokens are like those of enough other prompts (of one, in a reference)."""
    logs = model.logs[name][:, row]
    others = np.flatnonzero(logs > _RAISED)
    others = others[:: max(1, len(others) // _COMPARED)]
    if not len(others):
        return np.zeros(len(tokens), np.bool_)
    alike = _alike(name, _looks(norms, model, name, row, tokens), _looks(model, norms, name, row, others))
    alike &= np.abs(norms.logs[name][tokens, row][:, None] - logs[others]) <= _FACTOR
    units = model.prompts.unit_numbers()
    unit_of = units[model.prompts.of_token[others]]
    needed = 1.0
    if model is norms:
        alike &= units[norms.prompts.of_token[tokens]][:, None] != unit_of
        needed = max(_OTHERS, _SHARE * len(set(units.tolist())))
    at = np.unique(unit_of, return_inverse=True)[1]
    per_unit = np.zeros((len(tokens), at.max() + 1), np.bool_)
    for place, unit in enumerate(at.tolist()):
        per_unit[:, unit] |= alike[:, place]
    found: Bools = per_unit.sum(axis=1) >= needed
    return found


def _refuse_other_beginnings(norms: Norms, kinds: NDArray[np.int8]) -> None:
    """A residual stays massive for many layers, each like the next: it is usual only if it begins as usual ones do."""
    raised = norms.logs["resid_norm"] > _RAISED
    for token, row in np.argwhere(raised & (kinds == 0)).tolist():
        if row == 0 or not raised[token, row - 1]:
            after = np.flatnonzero(~raised[token, row:])
            kinds[token, row : row + int(after[0]) if len(after) else None] = 0


def _add_writes(norms: Norms, kinds: dict[str, NDArray[np.int8]]) -> None:
    """What an MLP writes where a usual residual begins or ends belongs to it."""
    residual, of = norms.logs["resid_norm"], kinds["resid_norm"]
    layers = residual.shape[1] - 1
    around = [np.arange(layers) + step for step in (-1, 0, 1, 2)]  # its input and output, and one depth on either side
    near = np.stack([of[:, np.clip(depths, 0, layers)] for depths in around]).astype(np.int64)
    changes = np.where(np.abs(np.diff(residual, axis=1)) > _CHANGE, near.max(axis=0), 0)
    higher = np.stack([residual[:, np.clip(depths, 0, layers)] for depths in around]).max(axis=0)
    for name in WRITES:
        if name in kinds:
            logs = norms.logs[name]
            with np.errstate(invalid="ignore"):
                inside = (kinds[name] == 0) & (logs > _RAISED) & (logs <= higher + _WRITE_FACTOR)
            kinds[name] = np.where(inside, changes, kinds[name]).astype(np.int8)


def _alike(name: str, one: Floats, other: Floats) -> Bools:
    """Which rows of two tables look alike, by their cosine, [row of one, row of the other]; never where one is zero."""
    length, others = np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1)
    cosines = (one @ other.T) / np.maximum(length[:, None] * others, np.finfo(float).tiny)
    found: Bools = cosines >= (_ALIKE_RESIDUAL if names.QUANTITIES[name].row_kind == names.DEPTH else _ALIKE)
    return found
