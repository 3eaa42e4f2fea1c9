"""Heads: a sink that moved, a route that no other prompt of the class uses, rows that are no attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.anomalies.finding import Finding, Look, Picture, Prompts, holding, layer_numbers, nothing
from stratoscope.analysis.anomalies.tails import standardised

if TYPE_CHECKING:
    import xarray as xr

Floats = NDArray[np.float64]
_LEAST_PROMPTS = 4  # of a distribution over prompts
_LEAST_TOKENS = 6  # of a prompt: shorter ones say nothing about a head
_LEAST_QUERIES = 4  # later tokens that must be able to see a token
_CLIP = 1e-4  # of a mass, before its logit
_F16 = 2.0**-11  # rounding of a weight, relative
_F16_SMALL = 2.0**-25  # and of the smallest ones, absolute
_BOUNDED = ("attn_first", "attn_entropy", "attn_entropy_nosink", "attn_null")


def moved_sink(dataset: xr.Dataset, reference: xr.Dataset | None) -> Look:
    """A prompt in which a head gives its first token far less attention than in the other prompts."""
    detector = "moved sink"
    if "attn_first" not in dataset:
        return nothing(detector, "no attention recorded")
    prompts, numbers = Prompts(dataset), layer_numbers(dataset)
    reference = holding(reference, "attn_first")
    logits = _mean_logit(dataset, "attn_first")
    if np.isfinite(logits).all(axis=(1, 2)).sum() < _LEAST_PROMPTS and reference is None:
        return nothing(detector, f"fewer than {_LEAST_PROMPTS} prompts of {_LEAST_TOKENS} tokens")
    of = None if reference is None else _mean_logit(reference, "attn_first")
    scores = -standardised(logits, 0, of)

    def tell(index: tuple[int, ...], expected: float) -> Finding:
        prompt, layer, head = index
        others = np.delete(logits[:, layer, head], prompt) if of is None else of[:, layer, head]
        value, typical = _share(logits[index]), _share(float(np.nanmedian(others)))
        here = slice(int(prompts.starts[prompt]), int(prompts.stops[prompt]))
        values = np.asarray(dataset["attn_first"].values[here, :, head], np.float64)
        words = (
            f"Head {head} of L{numbers[layer]} gives the first token {value:.0%} of its attention in "
            f"{prompts.ids[prompt]}, in the other prompts {typical:.0%}."
        )
        place = {"prompt": prompt, "layer": int(numbers[layer]), "head": head}
        column = min(_LEAST_QUERIES, len(values) - 1)
        shown = Picture(values, prompts.words(prompt), (column, layer), "attn_first", tuple(numbers.tolist()))
        return Finding(detector, place, value, typical, expected, words, picture=shown)

    among = None if of is None else -standardised(of, 0)
    return Look(detector, "prompt × layer × head", scores, tell, same=lambda index: index[0], among=among)


def unusual_route(dataset: xr.Dataset, reference: xr.Dataset | None) -> Look:
    """A head that gathers its attention on few tokens as in no other prompt of the class."""
    detector = "unusual route"
    if not {"attn_received_nosink", "attn_entropy_nosink"} <= set(dataset.data_vars):
        return nothing(detector, "no attention recorded")
    prompts, numbers = Prompts(dataset), layer_numbers(dataset)
    reference = holding(reference, "attn_entropy_nosink")
    logits = _mean_logit(dataset, "attn_entropy_nosink")
    if len(logits) < _LEAST_PROMPTS and reference is None:
        return nothing(detector, f"fewer than {_LEAST_PROMPTS} prompts")
    of = None if reference is None else _mean_logit(reference, "attn_entropy_nosink")
    scores = np.full(logits.shape, np.nan)
    for members in _classes(prompts):
        scores[members] = -standardised(logits[members], 0, of)

    def tell(index: tuple[int, ...], expected: float) -> Finding:
        prompt, layer, head = index
        others = np.delete(logits[:, layer, head], prompt) if of is None else of[:, layer, head]
        value, typical = _share(logits[index]), _share(float(np.nanmedian(others)))
        here = slice(int(prompts.starts[prompt]), int(prompts.stops[prompt]))
        values = np.asarray(dataset["attn_received_nosink"].values[here, :, head], np.float64)
        place = _most_received(values[:, layer])
        words = (
            f"Head {head} of L{numbers[layer]} gathers its attention, most of all on "
            f"{prompts.token(here.start + place)}: entropy {value:.2f} of uniform, in the other prompts {typical:.2f}."
        )
        at = {"prompt": prompt, "position": place, "layer": int(numbers[layer]), "head": head}
        shown = Picture(values, prompts.words(prompt), (place, layer), "attn_received_nosink", tuple(numbers.tolist()))
        return Finding(detector, at, value, typical, expected, words, picture=shown)

    among = None if of is None else -standardised(of, 0)
    return Look(detector, "prompt × layer × head", scores, tell, same=lambda index: index[0], among=among)


def broken_rows(dataset: xr.Dataset, reference: xr.Dataset | None) -> Look:
    """Attention rows that do not sum to 1, or masses and entropies that cannot be."""
    detector = "broken attention rows"
    prompts, numbers = Prompts(dataset), layer_numbers(dataset)
    if "attention" in dataset:
        sums = _row_sums(dataset, prompts)
        length = (prompts.place + 1)[:, None, None]
        off = np.abs(sums - 1) - (2 * _F16 + length * _F16_SMALL)
        values, what = sums, "its attention weights add up to"
    else:
        present = [name for name in _BOUNDED if name in dataset]
        if not present:
            return nothing(detector, "no attention recorded")
        tables = np.stack([np.asarray(dataset[name].values, np.float64) for name in present])
        outside = np.maximum(tables - 1, -tables)
        worst = np.nanargmax(np.where(np.isnan(outside), -np.inf, outside), axis=0)
        off = np.take_along_axis(outside, worst[None], axis=0)[0] - 1e-5
        values, what = np.take_along_axis(tables, worst[None], axis=0)[0], "a share of its attention is"

    def tell(index: tuple[int, ...], expected: float) -> Finding:
        token, layer, head = index
        prompt = int(prompts.of_token[token])
        value = float(values[index])
        words = f"At {prompts.token(token)}, head {head} of L{numbers[layer]}: {what} {value:.4g}."
        place = {
            "prompt": prompt,
            "position": int(prompts.place[token]),
            "layer": int(numbers[layer]),
            "head": head,
        }
        return Finding(detector, place, value, 1.0, expected, words)

    return Look(detector, "query × layer × head", off, tell, same=lambda index: index[1:], certain=True)


def _classes(prompts: Prompts) -> list[NDArray[np.int64]]:
    """Prompts of each class that has enough of them, else all together."""
    classes = np.array(prompts.classes)
    sizes = {name: int((classes == name).sum()) for name in set(prompts.classes)}
    if min(sizes.values()) < _LEAST_PROMPTS:
        return [np.arange(prompts.count)]
    return [np.flatnonzero(classes == name) for name in sorted(sizes)]


def _mean_logit(dataset: xr.Dataset, quantity: str) -> Floats:
    """Mean logit of a share over the later queries of each prompt, [prompt, layer, head]."""
    prompts = Prompts(dataset)
    found = np.full((prompts.count, *dataset[quantity].shape[1:]), np.nan)
    for prompt, (start, stop) in enumerate(zip(prompts.starts, prompts.stops, strict=True)):
        if stop - start >= _LEAST_TOKENS:
            share = dataset[quantity].isel(token=slice(int(start) + _LEAST_QUERIES, int(stop))).values
            share = np.clip(share.astype(np.float64), _CLIP, 1 - _CLIP)
            found[prompt] = np.log(share / (1 - share)).mean(axis=0)
    return found


def _most_received(received: Floats) -> int:
    """Place of the token that most attention goes to, among those that enough queries see."""
    seen = received[1 : max(len(received) - _LEAST_QUERIES, 2)]
    return int(np.nanargmax(np.where(np.isnan(seen), -np.inf, seen))) + 1


def _row_sums(dataset: xr.Dataset, prompts: Prompts) -> Floats:
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


def _share(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))
