"""Heads: what one brings many later tokens from one token, as in no other prompt of the class."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np

from stratoscope import names
from stratoscope.analysis.anomalies.finding import Evidence, Index, Look, Member, NamedPrompts, layer_numbers, nothing
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
)  # fmt: skip
from stratoscope.analysis.anomalies.tails import standardised
from stratoscope.analysis.statistics.known import medians
from stratoscope.trace.arrays import Bools, Floats, Ints
from stratoscope.words import percent

if TYPE_CHECKING:
    import xarray as xr

_NEEDED = ("route_source", "route_head", "route_weight")
_LEAST_SHARE = 0.02  # of the streams of later tokens: less is not worth a line
_MORE = 3.0  # times the typical share: a head that brings less has not changed much


def has_routes(dataset: xr.Dataset, reference: xr.Dataset | None) -> bool:
    """Whether routes can be held against each other: of the trace, and of the reference if there is one."""
    return all(set(_NEEDED) <= set(one.data_vars) for one in (dataset, reference) if one is not None)


def unusual_route(dataset: xr.Dataset, reference: xr.Dataset | None, usual: Bools) -> Look:
    """A head through which later tokens get more from one token than through it in any other prompt of the class."""
    detector, quantity = "unusual route", "route_weight"
    prompts, numbers = NamedPrompts(dataset), layer_numbers(dataset)
    heads = _heads(dataset)
    shares, source = _strongest(dataset, prompts, heads, usual)
    if np.isfinite(shares).all(axis=(1, 2)).sum() < LEAST_PROMPTS and reference is None:
        return nothing(detector, f"fewer than {LEAST_PROMPTS} prompts of {LEAST_TOKENS} tokens with routes")
    beside = shares if reference is None else _strongest(reference, NamedPrompts(reference), heads, None)[0]
    of = angle(beside)
    scores = np.full(shares.shape, np.nan)
    for members in classes_of(prompts):
        scores[members] = standardised(angle(shares[members]), 0, of[members] if reference is None else of)
    among = scores if reference is None else standardised(of, 0)
    scores = alone(scores, prompts, reference is None)
    large = shares >= np.maximum(_LEAST_SHARE, _MORE * np.sin(medians(of) / 2) ** 2)
    with np.errstate(invalid="ignore"):
        scores = np.where(large | np.isnan(scores), scores, np.minimum(scores, 0.0))

    def tell(index: Index, expected: float) -> Member:
        prompt, layer, head = index
        position = int(prompts.position[prompts.starts[prompt] + source[index]])
        place = {"prompt": prompt, "position": position, "layer": int(numbers[layer]), "head": head}
        usually = typical(shares, of, index, reference)
        return Member(detector, quantity, place, float(shares[index]), usually, expected)

    def describe(index: Index) -> tuple[str, Evidence]:
        prompt, layer, head = index
        brought = _brought(dataset, prompts, prompt, heads)[:, :, head]
        words = (
            f"Head {head} of L{numbers[layer]} brings later tokens {percent(shares[index])} of their streams from "
            f"{prompts.token(int(prompts.starts[prompt]) + int(source[index]))}; in {others(reference)} it brings "
            f"{percent(typical(shares, of, index, reference))} from one token (median; of the "
            f"{dataset.sizes[names.ROUTE]} recorded edges of a token)."
        )
        return words, prompts.evidence(prompt, brought, (int(source[index]), layer), quantity, numbers)

    def things(index: Index) -> tuple[Hashable, ...]:
        return (*same_prompt(prompts, index), ("token", index[0], int(source[index])))

    return Look(
        detector, "prompt × layer × head", scores, tell, describe, things, among=among, quantity=quantity,
    )  # fmt: skip


def _heads(dataset: xr.Dataset) -> int:
    """How many heads there are, as far as any recorded edge says."""
    if names.HEAD in dataset.sizes:
        return int(dataset.sizes[names.HEAD])
    return int(dataset["route_head"].max()) + 1 if dataset["route_head"].size else 0


def _strongest(dataset: xr.Dataset, prompts: NamedPrompts, heads: int, usual: Bools | None) -> tuple[Floats, Ints]:
    """The largest mean share that later tokens get from one token through each head, [prompt, layer, head], and which.

    First tokens, usual massive ones and those that few later tokens see are left out.
    """
    size = (len(prompts), dataset.sizes[names.LAYER], heads)
    shares, source = np.full(size, np.nan), np.zeros(size, np.int64)
    for prompt, (start, stop) in enumerate(zip(prompts.starts.tolist(), prompts.stops.tolist(), strict=True)):
        brought = _brought(dataset, prompts, prompt, heads)
        aside = np.zeros(stop - start, np.bool_) if usual is None else usual[start:stop].copy()
        aside |= prompts.first[start:stop] | np.isnan(brought).all(axis=(1, 2))
        if aside.all():
            continue
        brought[aside] = -1
        source[prompt] = brought.argmax(axis=0)
        shares[prompt] = np.maximum(brought.max(axis=0), 0)
    return shares, source


def _brought(dataset: xr.Dataset, prompts: NamedPrompts, prompt: int, heads: int) -> Floats:
    """Mean size of the share that later tokens get from each token of a prompt, [source, layer, head].

    Edges that are not among the recorded ones count as 0; NaN of tokens that few later ones with routes see.
    """
    here = prompts.tokens(prompt)
    source, head, weight = (np.asarray(dataset[name][here].values) for name in _NEEDED)
    length, layers = source.shape[:2]
    query, layer = np.ogrid[:length, :layers]
    known = (source >= 0) & (head >= 0) & (head < heads) & np.isfinite(weight)
    later = known & (source < query[..., None])
    asked = int(known.any(axis=(1, 2)).sum())  # tokens of an answer have no routes
    total = np.zeros((length, layers, heads))
    at = (source[later], np.broadcast_to(layer[..., None], source.shape)[later], head[later])
    np.add.at(total, at, np.abs(weight[later].astype(np.float64)))
    count = asked - 1 - np.arange(length)
    count = np.where((count >= LEAST_QUERIES) & (asked >= LEAST_TOKENS), count, np.nan)
    found: Floats = total / count[:, None, None]
    return found
