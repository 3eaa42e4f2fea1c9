"""Tokens with a massive norm that is not one of the usual ones."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.anomalies.finding import Evidence, Index, Look, Member, NamedPrompts, layer_numbers, nothing
from stratoscope.analysis.anomalies.norms import LOOKED_AT, Norms
from stratoscope.analysis.anomalies.tails import spreads, standardised
from stratoscope.analysis.anomalies.usual import MASSIVE, Usual, ordinary, too_few_firsts
from stratoscope.trace.arrays import Floats
from stratoscope.trace.prompts import Prompts
from stratoscope.words import capital, number

if TYPE_CHECKING:
    import xarray as xr

_PLACES = 0.9  # of the layers, in which a value that is large enough is found
_MOST = 700.0  # a larger logarithm is of no number in double precision


def massive_tokens(dataset: xr.Dataset, norms: Norms, usual: Usual, reference: Norms | None) -> list[Look]:
    """Norms far larger than those of other tokens in the same layer, one look a quantity."""
    there = {} if reference is None else ordinary(reference)
    held = [name for name in LOOKED_AT if name in norms.values and name in dataset]
    looks = [_massive(dataset, norms, usual, reference, there, name) for name in held]
    for name, detector in LOOKED_AT.items():
        if detector not in {look.detector for look in looks}:
            looks.append(nothing(detector, f"no {name} recorded"))
    return looks


def _massive(
    dataset: xr.Dataset, norms: Norms, usual: Usual, reference: Norms | None, there: dict[str, Floats], quantity: str
) -> Look:
    detector, row = LOOKED_AT[quantity], names.QUANTITIES[quantity]
    prompts, logs = norms.prompts, norms.logs[quantity]
    looked = np.where(usual.kinds[quantity] > 0, np.nan, logs)
    if too_few_firsts(norms if reference is None else reference):
        looked[norms.first] = np.nan
    others = there.get(quantity, np.where(norms.first[:, None], np.nan, looked))
    scores = standardised(looked, 0, others)
    raised = np.where(looked > MASSIVE, scores, np.where(np.isnan(scores), np.nan, np.minimum(scores, 0.0)))
    numbers = layer_numbers(dataset, row.dims[1])

    def tell(index: Index, expected: float) -> Member:
        value, typical = float(norms.values[quantity][index]), float(norms.typical[quantity][index[1]])
        return Member(detector, quantity, place(prompts, numbers, index), value, typical, expected)

    def describe(index: Index) -> tuple[str, Evidence]:
        token, layer = index
        value = float(norms.values[quantity][index])
        times = value / float(norms.typical[quantity][layer])
        letter = names.ROW_LETTERS[names.QUANTITIES[quantity].row_kind]
        what = capital(row.label)
        beside = "in the reference" if quantity in there else "of tokens there"
        words = (
            f"{what} of {prompts.token(token)} in {letter}{numbers[layer]} is {number(value)}, "
            f"{number(times)} times the median {beside}."
        )
        return words, token_map(prompts, norms.values[quantity], numbers, index, quantity)

    among = standardised(others, 0) if quantity in there else np.where(norms.first[:, None], np.nan, scores)
    middle, spread = (row_of[0] for row_of in spreads(others, 0))

    def least(score: float) -> float:
        logs = (middle + score * spread)[np.isfinite(middle + score * spread)]
        least = max(MASSIVE, float(np.quantile(logs, _PLACES))) if len(logs) else np.nan
        return float(np.exp(least)) if least < _MOST else float("nan")

    same = same_token(dataset, prompts, quantity, usual.recurs[quantity])
    return Look(
        detector, f"token × {row.dims[1]}", raised, tell, describe, same, among=among, quantity=quantity, least=least
    )


def place(prompts: NamedPrompts, numbers: NDArray[np.int64], index: Index) -> dict[str, int]:
    """Where a cell is: prompt, position in it, and layer."""
    token, layer = index[:2]
    return {
        "prompt": int(prompts.of_token[token]),
        "position": int(prompts.position[token]),
        "layer": int(numbers[layer]),
    }


def token_map(
    prompts: NamedPrompts, values: Floats, numbers: NDArray[np.int64], index: Index, quantity: str
) -> Evidence:
    """The prompt of a cell, of [token, layer] values, with the cell marked."""
    token, layer = index
    prompt = int(prompts.of_token[token])
    mark = (int(prompts.place[token]), layer)
    return prompts.evidence(prompt, values[prompts.tokens(prompt)], mark, quantity, numbers)


def same_token(
    dataset: xr.Dataset, prompts: NamedPrompts, quantity: str, recurs: NDArray[np.bool_] | None = None
) -> Callable[[Index], tuple[Hashable, ...]]:
    """What a cell shares with others that are the same thing: its token, its twin, its prompt's beginning, its kind."""
    count = len(prompts.of_token)
    ids = np.asarray(dataset["token_id"].values) if "token_id" in dataset.coords else np.zeros(count, np.int64)

    def things(index: Index) -> tuple[Hashable, ...]:
        token, where = index[0], index[1:]
        prompt = int(prompts.of_token[token])
        same: list[Hashable] = [("token", prompt, int(prompts.place[token]))]
        unit = prompts.units[prompt]
        if unit[0] == "pair":
            same.append(("twins", unit, int(ids[token]), quantity, where))
        start = int(prompts.starts[prompt])
        same.append(("beginning", ids[start : token + 1].tobytes(), quantity, where))
        if recurs is not None and recurs[index]:
            same.append(("recurring", quantity, where))
        return tuple(same)

    return things


def outside_sinks(dataset: xr.Dataset, quantity: str) -> NDArray[np.float64]:
    """Values; NaN at first tokens, at template and special tokens, and where there is nothing above zero."""
    values: NDArray[np.float64] = np.asarray(dataset[quantity].values, np.float64).copy()
    prompts = Prompts(dataset)
    aside = prompts.first | prompts.in_spans(names.TEMPLATE_SPANS)
    values[aside] = np.nan
    values[~(values > 0)] = np.nan
    return values
