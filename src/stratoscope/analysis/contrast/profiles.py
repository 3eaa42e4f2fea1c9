"""The profile over depth: what a quantity is on average over a prompt's own tokens, in each layer, class by class.

Quantities on a logarithmic scale (norms, ratios) are averaged as logarithms to base 2, so that a difference of 1 means
twice as much, and one spike does not make a mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.classes.design import Design
from stratoscope.analysis.classes.units import PAIRS, Units
from stratoscope.analysis.contrast.family import Family, compare_family
from stratoscope.analysis.statistics.rescaled import at_factor
from stratoscope.analysis.values.effect_sums import summed_tokens
from stratoscope.analysis.values.final_norm import final_scales, is_under_final_norm
from stratoscope.analysis.values.tables import table
from stratoscope.trace.arrays import Floats
from stratoscope.trace.prompts import Prompts
from stratoscope.trace.targets import has_targets

if TYPE_CHECKING:
    import xarray as xr

_TOKENS = 2**16  # read at a time
OverTokens = Literal["mean", "sum", "answer"]
MEAN: OverTokens = "mean"
SUM: OverTokens = "sum"
ANSWER: OverTokens = "answer"


@dataclass(frozen=True)
class Profiles(Family):
    """Profiles of some quantities: all their rows are one family.

    Attributes
    ----------
    quantities
        Their names.
    rows
        Layer (or depth) numbers of each row of the arrays below.
    of
        Which quantity each row is of.
    units
        Those compared.
    """

    quantities: tuple[str, ...]
    rows: NDArray[np.int64]
    of: NDArray[np.int64]
    units: Units


def on_scale(values: NDArray[np.floating], quantity: str, *, log: bool | None = None) -> Floats:
    """Values as they are averaged: log2 of what has a logarithmic scale; zero and less have no logarithm."""
    found: Floats = np.asarray(values, np.float64)
    if not (names.QUANTITIES[quantity].log if log is None else log):
        return found
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(found > 0, np.log2(found), np.nan)


def prompt_profiles(
    dataset: xr.Dataset,
    quantity: str,
    prompts: NDArray[np.int64],
    counted: NDArray[np.bool_],
    *,
    log: bool | None = None,
    head: str | int | None = None,
) -> Floats:
    """Mean over the counted tokens of each prompt, of shape (prompt, row); NaN where no token has a value.

    Of direct contributions the value at the answer position, wherever that is: elsewhere they predict nothing. Effects,
    and what adds up over tokens, are added, not averaged.

    Parameters
    ----------
    log
        Whether logarithms to base 2 are averaged; None = where the quantity has a logarithmic scale.
    head
        As of `values.tables.table`.
    """
    of, over = Prompts(dataset), over_tokens(quantity)
    if over == ANSWER:
        counted = np.isin(np.arange(len(of.of_token)), of.answer)
    of_token, place = of.of_token, np.full(len(of), -1)
    place[prompts] = np.arange(len(prompts))
    tokens = np.flatnonzero(counted & (place[of_token] >= 0))
    rows = np.arange(dataset.sizes[names.QUANTITIES[quantity].row_kind])
    total, count = np.zeros((len(prompts), len(rows))), np.zeros((len(prompts), len(rows)))
    for start in range(0, len(tokens), _TOKENS):
        some = tokens[start : start + _TOKENS]
        values = on_scale(table(dataset, quantity, some, rows, head=head), quantity, log=log)
        known = np.isfinite(values)
        prompt = place[of_token[some]]
        np.add.at(total, prompt, np.where(known, values, 0.0))
        np.add.at(count, prompt, known)
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total if over == SUM else total / count, np.nan)


def common_factor(factors: Floats, units: Units) -> Floats:
    """The mean of both sides' factors of the final norm, of pairs their own, for each prompt of the units (L29)."""
    a, b = units.average(factors[:, None])
    if units.design == PAIRS:
        middle: Floats = (a[:, 0] + b[:, 0]) / 2
        return middle[units.unit]
    return np.full(len(factors), (a.mean() + b.mean()) / 2)


def over_tokens(quantity: str) -> OverTokens:
    """What is made of the tokens of a prompt: their mean, their sum where they add up, or one of them."""
    row = names.QUANTITIES[quantity]
    if not has_targets(quantity):
        return MEAN
    return SUM if row.is_effect or quantity == "source_logit" else ANSWER


def compare_profiles(
    dataset: xr.Dataset,
    quantities: Sequence[str],
    design: Design,
    counted: NDArray[np.bool_],
    layers: NDArray[np.int64],
    *,
    permutations: int,
    seed: int,
) -> Profiles:
    """Compare the profiles of the classes; all rows of all quantities are one family, tested on all units.

    What adds up over tokens is summed over all tokens but first ones, the rest averaged over the counted ones.
    """
    units = design.units
    columns, rows, of = [], [], []
    for index, quantity in enumerate(quantities):
        tokens = summed_tokens(Prompts(dataset)) if over_tokens(quantity) == SUM else counted
        found = prompt_profiles(dataset, quantity, units.prompts, tokens)
        if is_under_final_norm(quantity):
            factor = final_scales(dataset, quantity)[units.prompts]
            found = at_factor(found, factor[:, None], common_factor(factor, units)[:, None])
        kind = names.QUANTITIES[quantity].row_kind
        numbers = np.asarray(dataset[kind].values, np.int64)
        chosen = layers if kind == names.LAYER else np.arange(len(numbers))
        columns.append(found[:, chosen])
        rows.append(numbers[chosen])
        of.append(np.full(len(chosen), index))
    a, b = units.average(np.concatenate(columns, axis=1))
    family = compare_family(design, units, a, b, permutations=permutations, seed=seed)
    return Profiles(**vars(family), quantities=tuple(quantities), rows=np.concatenate(rows), of=np.concatenate(of),
                    units=units)  # fmt: skip


def with_tokens(dataset: xr.Dataset, design: Design, counted: NDArray[np.bool_]) -> Design:
    """How profiles are tested: on all units of a design that have a counted token; none of them is held out."""
    units = design.units.having(token_counts(dataset, design.units, counted) > 0, "a token of the span")
    return Design(units, units, None, design.test, design.alpha)


def token_counts(dataset: xr.Dataset, units: Units, counted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Counted tokens of each prompt of the units."""
    of = Prompts(dataset)
    return np.bincount(of.of_token[counted], minlength=len(of))[units.prompts]
