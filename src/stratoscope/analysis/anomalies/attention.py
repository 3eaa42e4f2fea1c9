"""Heads: a sink that moved, a route that no other prompt of the class uses, rows that are no attention."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np

from stratoscope import names
from stratoscope.analysis.anomalies.finding import (
    Evidence,
    Index,
    Look,
    Member,
    NamedPrompts,
    holding,
    layer_numbers,
    nothing,
)
from stratoscope.analysis.anomalies.heads import (
    LEAST_PROMPTS,
    LEAST_QUERIES,
    LEAST_TOKENS,
    alone,
    angle,
    classes_of,
    others,
    same_prompt,
    typical,
)
from stratoscope.analysis.anomalies.tails import standardised
from stratoscope.analysis.statistics.known import medians
from stratoscope.trace.arrays import Bools, Floats
from stratoscope.words import number, percent

if TYPE_CHECKING:
    import xarray as xr

_LESS = 0.31  # of the typical share: a head that gives more has not changed much
_SINK = 0.3  # least median mass of a head that has a sink to move
_MOSTLY = 0.5  # of the attention
_F16 = 2.0**-11  # rounding of a weight, relative
_F16_SMALL = 2.0**-25  # and of the smallest ones, absolute
_BOUNDED = ("attn_first", "attn_entropy", "attn_entropy_nosink", "attn_null")


def moved_sink(dataset: xr.Dataset, reference: xr.Dataset | None, usual: Bools) -> Look:
    """A prompt in which a head that attends to first tokens gives its own far less than in the other prompts."""
    detector, quantity = "moved sink", "attn_first"
    if quantity not in dataset:
        return nothing(detector, "no attention recorded")
    prompts, numbers = NamedPrompts(dataset), layer_numbers(dataset)
    reference = holding(reference, quantity)
    means = _means(dataset, quantity)
    if np.isfinite(means).all(axis=(1, 2)).sum() < LEAST_PROMPTS and reference is None:
        return nothing(detector, f"fewer than {LEAST_PROMPTS} prompts of {LEAST_TOKENS} tokens")
    of = means if reference is None else _means(reference, quantity)
    sinks = np.nan_to_num(medians(of)) >= _SINK
    values, of = np.where(sinks, angle(means), np.nan), np.where(sinks, angle(of), np.nan)
    scores = alone(standardised(-values, 0, -of), prompts, reference is None)
    scores = np.where(_gathered(dataset, prompts, usual), np.nan, _much_less(scores, means, of))

    def tell(index: Index, expected: float) -> Member:
        prompt, layer, head = index
        place = {"prompt": prompt, "layer": int(numbers[layer]), "head": head}
        return Member(detector, quantity, place, float(means[index]), typical(means, of, index, reference), expected)

    def describe(index: Index) -> tuple[str, Evidence]:
        prompt, layer, head = index
        here = prompts.tokens(prompt)
        values = np.asarray(dataset[quantity].values[here, :, head], np.float64)
        words = (
            f"Head {head} of L{numbers[layer]} gives the first token {percent(means[index])} of its attention in "
            f"{prompts.ids[prompt]}, in {others(reference)} {percent(typical(means, of, index, reference))}."
        )
        mark = (min(LEAST_QUERIES, len(values) - 1), layer)
        return words, prompts.evidence(prompt, values, mark, quantity, numbers)

    return Look(
        detector, "prompt × layer × head", scores, tell, describe, lambda index: same_prompt(prompts, index),
        among=standardised(-of, 0), quantity=quantity,
    )  # fmt: skip


def unusual_route(dataset: xr.Dataset, reference: xr.Dataset | None, usual: Bools) -> Look:
    """A head that gathers its attention on few tokens as in no other prompt of the class."""
    detector, quantity = "unusual route", "attn_entropy_nosink"
    if not {"attn_received_nosink", quantity} <= set(dataset.data_vars):
        return nothing(detector, "no attention recorded")
    prompts, numbers = NamedPrompts(dataset), layer_numbers(dataset)
    reference = holding(reference, quantity)
    means = _means(dataset, quantity)
    if len(means) < LEAST_PROMPTS and reference is None:
        return nothing(detector, f"fewer than {LEAST_PROMPTS} prompts")
    of = angle(means if reference is None else _means(reference, quantity))
    scores = np.full(means.shape, np.nan)
    for members in classes_of(prompts):
        scores[members] = standardised(-angle(means[members]), 0, -(of[members] if reference is None else of))
    among = scores if reference is None else standardised(-of, 0)
    scores = alone(scores, prompts, reference is None)
    scores = np.where(_gathered(dataset, prompts, usual), np.nan, _much_less(scores, means, of))

    def gathered_on(index: Index) -> int:
        prompt, layer, head = index
        here = prompts.tokens(prompt)
        return _most_received(np.asarray(dataset["attn_received_nosink"].values[here, layer, head], np.float64))

    def tell(index: Index, expected: float) -> Member:
        prompt, layer, head = index
        position = int(prompts.position[prompts.starts[prompt] + gathered_on(index)])
        place = {"prompt": prompt, "position": position, "layer": int(numbers[layer]), "head": head}
        return Member(detector, quantity, place, float(means[index]), typical(means, of, index, reference), expected)

    def describe(index: Index) -> tuple[str, Evidence]:
        prompt, layer, head = index
        here = prompts.tokens(prompt)
        values = np.asarray(dataset["attn_received_nosink"].values[here, :, head], np.float64)
        place = gathered_on(index)
        words = (
            f"Head {head} of L{numbers[layer]} gathers its attention, most of all on "
            f"{prompts.token(here.start + place)}: entropy {number(means[index])} of uniform, in {others(reference)} "
            f"{number(typical(means, of, index, reference))}."
        )
        return words, prompts.evidence(prompt, values, (place, layer), "attn_received_nosink", numbers)

    def things(index: Index) -> tuple[Hashable, ...]:
        return (*same_prompt(prompts, index), ("token", index[0], gathered_on(index)))

    return Look(
        detector, "prompt × layer × head", scores, tell, describe, things, among=among, quantity=quantity,
    )  # fmt: skip


def broken_rows(dataset: xr.Dataset) -> Look:
    """Attention rows that do not sum to 1, or masses and entropies that cannot be."""
    detector = "broken attention rows"
    prompts, numbers = NamedPrompts(dataset), layer_numbers(dataset)
    if "attention" in dataset:
        sums = _row_sums(dataset, prompts)
        length = (prompts.place + 1)[:, None, None]
        off = np.abs(sums - 1) - (2 * _F16 + length * _F16_SMALL)
        quantities, which = ["attention"], np.zeros(sums.shape, np.int64)
        values, what = sums, "its attention weights add up to"
    else:
        present = [name for name in _BOUNDED if name in dataset]
        if not present:
            return nothing(detector, "no attention recorded")
        tables = np.stack([np.asarray(dataset[name].values, np.float64) for name in present])
        outside = np.maximum(tables - 1, -tables)
        worst = np.nanargmax(np.where(np.isnan(outside), -np.inf, outside), axis=0)
        off = np.take_along_axis(outside, worst[None], axis=0)[0] - 1e-5
        quantities, which = present, worst
        values, what = np.take_along_axis(tables, worst[None], axis=0)[0], "a share of its attention is"

    def tell(index: Index, expected: float) -> Member:
        token, layer, head = index
        place = {
            "prompt": int(prompts.of_token[token]),
            "position": int(prompts.position[token]),
            "layer": int(numbers[layer]),
            "head": head,
        }
        return Member(detector, quantities[which[index]], place, float(values[index]), 1.0, expected)

    def describe(index: Index) -> tuple[str, None]:
        token, layer, head = index
        return f"At {prompts.token(token)}, head {head} of L{numbers[layer]}: {what} {number(values[index], 4)}.", None

    return Look(
        detector, "query × layer × head", off, tell, describe, lambda index: (("rows", *index[1:]),), certain=True
    )


def _means(dataset: xr.Dataset, quantity: str) -> Floats:
    """Mean of a share over the later queries of each prompt, [prompt, layer, head]."""
    prompts = NamedPrompts(dataset)
    found = np.full((len(prompts), *dataset[quantity].shape[1:]), np.nan)
    for prompt, (start, stop) in enumerate(zip(prompts.starts, prompts.stops, strict=True)):
        if stop - start >= LEAST_TOKENS:
            share = dataset[quantity].isel(token=slice(int(start) + LEAST_QUERIES, int(stop))).values
            found[prompt] = share.astype(np.float64).mean(axis=0)
    return found


def _much_less(scores: Floats, means: Floats, of: Floats) -> Floats:
    """Scores, none above zero where a share is not far below the typical one."""
    typical = np.sin(medians(of) / 2) ** 2
    with np.errstate(invalid="ignore"):
        found: Floats = np.where(means <= _LESS * typical, scores, np.minimum(scores, 0.0))
    return found


def _gathered(dataset: xr.Dataset, prompts: NamedPrompts, usual: Bools) -> Bools:
    """Whether a head's attention, first token aside, lies mostly on usual massive tokens, [prompt, layer, head]."""
    found = np.zeros((len(prompts), dataset.sizes[names.LAYER], dataset.sizes[names.HEAD]), np.bool_)
    if "attn_received_nosink" not in dataset:
        return found
    received = dataset["attn_received_nosink"]
    for token in np.flatnonzero(usual & ~prompts.first).tolist():
        prompt = int(prompts.of_token[token])
        later = np.arange(prompts.place[token] + 1, prompts.stops[prompt] - prompts.starts[prompt])
        if len(later):  # uniform over the tokens that each query sees, the first and itself aside
            uniform = float(np.mean(1 / np.maximum(later - 1, 1)))
            found[prompt] |= np.asarray(received.values[token], np.float64) * uniform >= _MOSTLY
    return found


def _most_received(received: Floats) -> int:
    """Place of the token that most attention goes to, among those that enough queries see."""
    seen = received[1 : max(len(received) - LEAST_QUERIES, 2)]
    return int(np.nanargmax(np.where(np.isnan(seen), -np.inf, seen))) + 1


def _row_sums(dataset: xr.Dataset, prompts: NamedPrompts) -> Floats:
    """Σ_k A[q, k] (and the learned sink's mass) of every query, [token, layer, head]."""
    sums = np.full((len(prompts.of_token), *dataset["attention"].shape[1:]), np.nan)
    edge = 0
    for start, stop in zip(prompts.starts.tolist(), prompts.stops.tolist(), strict=True):
        length = stop - start
        pairs = dataset["attention"].isel({names.EDGE: slice(edge, edge + names.edges(length))}).values
        rows = np.arange(length) * (np.arange(length) + 1) // 2
        weights = np.nan_to_num(pairs.astype(np.float64))
        sums[start:stop] = np.add.reduceat(weights, rows, axis=0)
        edge += names.edges(length)
    if "attn_null" in dataset:
        sums += np.nan_to_num(np.asarray(dataset["attn_null"].values, np.float64))
    return sums
