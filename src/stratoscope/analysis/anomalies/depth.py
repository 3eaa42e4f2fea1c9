"""Layers off the trend of their neighbours, and experts that take all tokens."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.anomalies.finding import Evidence, Index, Look, Member, holding, layer_numbers, nothing
from stratoscope.analysis.anomalies.tokens import outside_sinks
from stratoscope.analysis.statistics.known import medians
from stratoscope.trace.arrays import Floats
from stratoscope.words import number, percent

if TYPE_CHECKING:
    import xarray as xr

_RATIOS = ("mlp_write_ratio", "attn_write_ratio")
_ENDS = 2  # layers at either end, where ratios change too steeply for neighbours to predict them
_LEAST_NOISE = 0.05  # in units of the logarithm: a layer 5 % off its neighbours is nothing to speak of
_LEAST_LAYERS = 14
_ODD, _MOST_ODD = 4.0, 4  # layers so far off are set aside before others are judged by them, at most so many
_LOWER_QUARTILE = 0.3186  # of |z|, z normal: one odd layer spoils the expectations of four more
_TAKES_ALL = 0.9  # of the tokens of a layer, where there are experts to choose from
_MOST_EXPERTS = 10_000  # of a layer; more are the number of a stranger


def layer_off_trend(dataset: xr.Dataset, reference: xr.Dataset | None) -> Look:
    """A layer whose median write ratio is not what its neighbours, or the reference, suggest."""
    detector = "layer off the trend"
    present = [name for name in _RATIOS if name in dataset]
    reference = holding(reference, *present)
    if not present:
        return nothing(detector, "no write ratios recorded")
    if reference is None and dataset.sizes[names.LAYER] < _LEAST_LAYERS:
        return nothing(detector, f"fewer than {_LEAST_LAYERS} layers")
    numbers = layer_numbers(dataset)
    medians = np.stack([_median_ratio(dataset, name) for name in present])
    expected_there = np.stack(
        [
            _trend(row) if reference is None else _median_ratio(reference, name)
            for row, name in zip(medians, present, strict=True)
        ]
    )
    scores = _off(medians, expected_there)

    def tell(index: Index, expected: float) -> Member:
        which, layer = index
        place = {"layer": int(numbers[layer])}
        typical = float(expected_there[index])
        return Member(detector, present[which], place, float(medians[index]), typical, expected)

    def describe(index: Index) -> tuple[str, Evidence]:
        which, layer = index
        source = "its neighbours suggest" if reference is None else "the reference has"
        label = names.QUANTITIES[present[which]].label
        value, there = medians[index], expected_there[index]
        words = f"The median {label} of L{numbers[layer]} is {number(value)} where {source} {number(there)}."
        layers = tuple(f"L{number}" for number in numbers)
        return words, Evidence(medians[which], layers, (layer,), f"median {label}")

    return Look(
        detector, "layer × ratio", scores, tell, describe, _near,
        few=True, of_model=reference is None,
    )  # fmt: skip


def expert_takes_all(dataset: xr.Dataset, reference: xr.Dataset | None) -> Look:
    """An expert to which nearly every token of a layer is sent."""
    detector = "expert that takes all"
    if "router_expert" not in dataset:
        return nothing(detector, "no router recorded")
    chosen = np.asarray(dataset["router_expert"].values)
    experts = int(chosen.max()) + 1 if chosen.size else 0
    if experts > _MOST_EXPERTS:
        return nothing(detector, f"an expert has the number {experts - 1:,}, which no model has")
    if experts <= chosen.shape[2] + 1:
        return nothing(detector, "no expert is left out of any choice")
    shares = _shares(chosen, experts)
    known = np.asarray((chosen >= 0).any(axis=(0, 2)))
    numbers = layer_numbers(dataset)
    usual = chosen.shape[2] / experts
    least = max(_TAKES_ALL, 2 * usual)
    scores = np.where(known[:, None], shares - least, np.nan)
    if (reference := holding(reference, "router_expert")) is not None:  # what takes all there too is no news
        scores = np.where(_shares(np.asarray(reference["router_expert"].values), experts) > least, -np.inf, scores)

    def tell(index: Index, expected: float) -> Member:
        layer, expert = index
        place = {"layer": int(numbers[layer]), "expert": expert}
        return Member(detector, "router_expert", place, float(shares[index]), usual, expected)

    def describe(index: Index) -> tuple[str, Evidence]:
        layer, expert = index
        words = (
            f"Expert {expert} of L{numbers[layer]} gets {percent(shares[index])} of the tokens; evenly, each would get "
            f"{percent(usual)}."
        )
        labels = tuple(str(number) for number in range(experts))
        what = f"share of the tokens of L{numbers[layer]}, by expert"
        return words, Evidence(shares[layer], labels, (expert,), what)

    return Look(
        detector, "layer × expert", scores, tell, describe, lambda index: (("experts", index[0]),),
        certain=True, of_model=reference is None,
    )  # fmt: skip


def _shares(chosen: NDArray[np.integer], experts: int) -> Floats:
    """Share of the tokens that each expert gets, [layer, expert]."""
    return np.stack([(chosen == expert).any(axis=2).mean(axis=0) for expert in range(experts)], axis=1)


def _median_ratio(dataset: xr.Dataset, name: str) -> Floats:
    return medians(outside_sinks(dataset, name))


def _near(index: Index) -> tuple[Hashable, ...]:
    """Layers at most two apart are one thing: an odd one spoils what is expected of those two on either side."""
    return tuple(("layers from", index[1] + step) for step in range(3))


def _trend(medians: Floats) -> Floats:
    """What its neighbours suggest for each layer; the worst one is set aside first, so that it misleads no other."""
    cleaned, expected = medians.copy(), _from_neighbours(medians)
    for _ in range(_MOST_ODD):
        off = _off(cleaned, expected)
        if not np.isfinite(off).any() or np.nanmax(off) < _ODD:
            break
        worst = int(np.nanargmax(off))
        cleaned[worst] = expected[worst]
        expected = _from_neighbours(cleaned)
    return expected


def _off(medians: Floats, expected: Floats) -> Floats:
    """How far layers are from what is expected of them, in robust standard deviations."""
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.abs(np.log(medians) - np.log(expected))
    if not np.isfinite(off).any():
        return np.full(off.shape, np.nan)
    scores: Floats = off / max(float(np.nanquantile(off, 0.25)) / _LOWER_QUARTILE, _LEAST_NOISE)
    return scores


def _from_neighbours(medians: Floats) -> Floats:
    """The cubic through two layers on either side, of the logarithm; NaN at the ends."""
    logs = np.log(medians)
    found = np.full(len(logs), np.nan)
    inner = np.arange(_ENDS, len(logs) - _ENDS)
    found[inner] = (4 * (logs[inner - 1] + logs[inner + 1]) - (logs[inner - 2] + logs[inner + 2])) / 6
    found[[*range(_ENDS, _ENDS * 2), *range(len(logs) - 2 * _ENDS, len(logs) - _ENDS)]] = np.nan
    expected: Floats = np.exp(found)
    return expected
