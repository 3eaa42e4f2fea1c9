"""A neuron or a head that writes far more than the whole that it is a part of, beside what it does at other tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stratoscope import names
from stratoscope.analysis.anomalies.finding import Evidence, Index, Look, Member, NamedPrompts, layer_numbers, nothing
from stratoscope.analysis.anomalies.tails import standardised
from stratoscope.analysis.anomalies.tokens import place, same_token, token_map
from stratoscope.analysis.statistics.known import medians
from stratoscope.trace.arrays import Floats
from stratoscope.trace.prompts import Prompts
from stratoscope.words import capital, number

if TYPE_CHECKING:
    import xarray as xr

_LEAST = 6.0  # times the share that is typical, and more than the whole: less is no finding


def massive_neuron(dataset: xr.Dataset, reference: xr.Dataset | None) -> Look:
    """The strongest neuron, beside the output of its MLP."""
    return _part(dataset, reference, "massive neuron", "peak_write", "mlp_out_norm")


def massive_head(dataset: xr.Dataset, reference: xr.Dataset | None) -> Look:
    """What a head moves, beside what attention writes."""
    return _part(dataset, reference, "massive head", "attn_value_norm", "attn_write_norm")


def _part(dataset: xr.Dataset, reference: xr.Dataset | None, detector: str, part: str, whole: str) -> Look:
    if not {part, whole} <= set(dataset.data_vars):
        return nothing(detector, f"no {part} and {whole} recorded", part)
    prompts, numbers = NamedPrompts(dataset), layer_numbers(dataset)
    shares, others = _shares(dataset, part, whole), _shares(dataset, part, whole, later=True)
    with_reference = reference is not None and {part, whole} <= set(reference.data_vars)
    if reference is not None and with_reference:
        others = _shares(reference, part, whole, later=True)
    scores = standardised(shares, 0, others)
    among = np.where(np.isnan(others), np.nan, scores) if not with_reference else standardised(others, 0)
    typical = medians(others)
    raised = np.where(shares > np.maximum(_LEAST * typical, 1.0), scores, np.minimum(scores, 0.0))
    values = _values(dataset, part)

    def tell(index: Index, expected: float) -> Member:
        at = {**place(prompts, numbers, index), **_which(dataset, index)}
        there = float(typical[index[1:]] * values[index] / shares[index])
        return Member(detector, part, at, float(values[index]), there, expected)

    def describe(index: Index) -> tuple[str, Evidence]:
        token, layer = index[:2]
        kind, which = next(iter(_which(dataset, index).items()), ("the strongest neuron", -1))
        who = f"{kind} {which}" if which >= 0 else kind
        words = (
            f"{capital(who)} of L{numbers[layer]} writes {number(values[index])} at {prompts.token(token)}, "
            f"{number(shares[index])} times the whole {names.QUANTITIES[whole].label} there; at other tokens "
            f"{number(typical[index[1:]])} times."
        )
        shown = values if values.ndim == 2 else values[..., index[2]]
        return words, token_map(prompts, shown, numbers, (token, layer), part)

    what = "token × layer" if values.ndim == 2 else "token × layer × head"
    same = same_token(dataset, prompts, part)
    return Look(detector, what, raised, tell, describe, same, among=among, quantity=part)


def _values(dataset: xr.Dataset, name: str) -> Floats:
    """Norms; of ranked ones the strongest; NaN where there is nothing."""
    array = dataset[name].isel({names.PEAK: 0}) if names.PEAK in dataset[name].dims else dataset[name]
    values = np.asarray(array.values, np.float64)
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _shares(dataset: xr.Dataset, part: str, whole: str, later: bool = False) -> Floats:
    """The part over the whole; `later`: NaN at first tokens."""
    parts, of = _values(dataset, part), _values(dataset, whole)
    shares: Floats = parts / (of if parts.ndim == 2 else of[..., None])
    if later:
        shares[Prompts(dataset).first] = np.nan
    return shares


def _which(dataset: xr.Dataset, index: Index) -> dict[str, int]:
    """The head, or the strongest neuron of a cell where it is known."""
    if len(index) == 3:
        return {"head": index[2]}
    if "peak_neuron" not in dataset or "peak_expert" in dataset:
        return {}
    neuron = int(dataset["peak_neuron"].values[index[0], index[1], 0])
    return {"neuron": neuron} if neuron >= 0 else {}
