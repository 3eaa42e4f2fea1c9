"""A | B | B − A over aligned tokens: what all pictures of differences share, of two prompts as of two models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.values.align import GAP
from stratoscope.trace.arrays import AnyFloats
from stratoscope.view.maps.strips import NO_TOKENS, Strip, TokenAxis
from stratoscope.view.spec.maps import DrawnQuantity
from stratoscope.view.spec.tokens import ShownPrompt, unknown_tokens
from stratoscope.words import readable

if TYPE_CHECKING:
    import xarray as xr

Mask = NDArray[np.bool_]
ONLY_A, ONLY_B = "−", "+"  # before a token that only one prompt has
_WIDTH = 12  # characters of a token's label


def aligned_tokens(
    tokens: xr.Dataset, prompts: Sequence[ShownPrompt], *, spelling: str = "text", mark_answers: bool = False
) -> TokenAxis:
    """The token axis of the table `tokens` of a Result; positions are those of A, none where it has no such token.

    Parameters
    ----------
    prompts
        The prompt of A and that of B, of which no column is alone; one where both are the same.
    spelling
        How the texts are spelled, as of `words.readable`.
    mark_answers
        Whether the tokens from which the model answers are marked.
    """
    there = [tokens[f"position_{side}"].values != GAP for side in "ab"]
    signs = ("" if in_a and in_b else ONLY_A if in_a else ONLY_B for in_a, in_b in zip(*there, strict=True))
    of_both = (there[0], there[1] & ~np.asarray(tokens["equal"].values, bool))  # what is equal is written once
    texts = written(tokens["text_a"].values, tokens["text_b"].values, *of_both, width=_WIDTH, spelling=spelling)
    labels = [sign + text for sign, text in zip(signs, texts, strict=True)]
    position = tokens["position_a"].values.astype(np.int32)  # −1 where there is none
    of = np.full(len(labels), 0 if len(prompts) == 1 else -1, np.int32)
    unknown = unknown_tokens(len(labels), np.flatnonzero(tokens["first"].values), labels)
    span = tokens["span"].values.astype(np.int32) if "span" in tokens else unknown.span
    shown = replace(unknown, prompts=tuple(prompts), prompt=of, position=position, span=span)
    dim, unmatched = (np.flatnonzero(mask).astype(np.int64) for mask in (tokens["template"], ~tokens["equal"]))
    rarely_seen = np.flatnonzero(tokens["rarely_seen"]) if "rarely_seen" in tokens else NO_TOKENS
    marked = mark_answers and "predicts" in tokens
    predicting = np.flatnonzero(tokens["predicts"]) if marked else NO_TOKENS
    return TokenAxis("", "", shown, dim=dim, unmatched=unmatched, rarely_seen=rarely_seen, predicting=predicting)


def sides_and_difference(
    cells: xr.Dataset, described: DrawnQuantity, labels: tuple[str, str, str], *, alike: Mask | None
) -> list[Strip]:
    """A, B and B − A of the table of cells of a Result; A and B on one scale.

    Parameters
    ----------
    described
        The quantity.
    labels
        What stands in the legends of A, B and B − A.
    alike
        Tokens that must be the same in both, as of `can_differ`.
    """
    rarely_seen = names.QUANTITIES[described.name].of_later_tokens
    strips = []
    for side, label in zip("ab", labels[:2], strict=True):
        drawn = replace(described, label=label, formula=described.formula if side == "a" else "")
        strips.append(Strip(drawn, [cells[side].values], rarely_seen, limits="sides", rings=False))
    difference = cells["difference"].values
    apart = replace(described, label=labels[2], formula="", signed=True, log=False)
    return [*strips, Strip(apart, [difference], rarely_seen, counted=[can_differ(difference, alike)])]


def described_cells(cells: xr.Dataset, row: names.Quantity, formula: str, said: str = "") -> DrawnQuantity:
    """The words for a quantity of which a Result has a table of cells."""
    numbers = tuple(int(number) for number in cells[row.row_kind].values)
    return DrawnQuantity(row.name, row.label, row.unit, formula, said, row.signed, row.log, row.row_kind, numbers)


def can_differ(difference: AnyFloats, alike: Mask | None = None) -> Mask:
    """The cells that count for the limits of a difference, of its shape (tokens, rows).

    Not those that are exactly zero: most of them are so by construction (the embedding of equal tokens, layers before
    the first that was changed), and limits fitted over them would saturate all others.

    Parameters
    ----------
    alike
        Tokens that have seen the same tokens in the same model, so that all they differ by is rounding, [token]. Where
        that is every token nothing but rounding is shown, and it counts.
    """
    counts: Mask = np.isfinite(difference) & (difference != 0)
    if alike is not None and not alike.all():
        counts &= ~alike[:, None]
    return counts


def written(
    a: Iterable[str], b: Iterable[str], in_a: Mask, in_b: Mask, *, width: int, spelling: str = "text"
) -> list[str]:
    """Labels of aligned tokens: what both sides have, a→b where they differ, the only one where one has none."""
    labels = []
    for one, other, has_a, has_b in zip(a, b, in_a, in_b, strict=True):
        shown = [
            readable(str(text), spelling=spelling, width=width) for text, has in ((one, has_a), (other, has_b)) if has
        ]
        labels.append("→".join(dict.fromkeys(shown)))
    return labels
