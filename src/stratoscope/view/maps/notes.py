"""What a picture says about itself: scale, first token, pooling, hatching, and what must not be concluded from it."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np

from stratoscope import names
from stratoscope.view.maps.strips import Strip, TokenAxis
from stratoscope.view.spec.scale import FENCE, INNERMOST, QUANTILES
from stratoscope.view.spec.viewspec import Note
from stratoscope.words import capital, counted, number


def what_was_done(
    panels: Sequence[TokenAxis],
    factors: Sequence[int],
    strips: Sequence[Strip],
    maps: Sequence[dict[str, Any]],
    quantities: Sequence[dict[str, Any]],
    choice: names.Scale,
    *,
    first_token: bool,
    absence_said: bool,
) -> list[Note]:
    """The notes of the drawing itself; `absence_said`: the data already say that absent is not zero (L08)."""
    notes = [Note("L05", "info", _limits_in_words(len(panels), choice, kinds={one["scale"] for one in quantities}))]
    for strip, one in zip(strips, quantities, strict=True):
        if strip.lowest is not None and one["state"] == "ok":
            limits = f"from {number(strip.lowest)}, fixed, to at least {number(2 * strip.lowest)}"
            notes.append(Note("L05", "info", f"{capital(strip.quantity.label)}: {limits}."))
    if any(one["extremes"] for one in quantities):
        notes.append(Note("L05", "info", "Where these quantiles fall together, the limits are the extremes."))
    if differing := _differing_in_words(panels, strips, first_token=first_token):
        notes.append(Note("L30", "info", differing))
    if all(len(panel.first) == panel.count for panel in panels):
        notes.append(Note("L05", "info", "There are only first tokens, so they make the limits."))
    elif any(len(panel.first) for panel in panels):
        notes.append(Note("L05", "info", _first_in_words(maps, pooled=max(factors) > 1, included=first_token)))
    if any(one["negative"] and one["scale"] == "linear" for one in quantities) and choice != "linear":
        notes.append(Note("L05", "info", "Some values are negative, so the scale is linear."))
    without = sum(one["without_logarithm"] for one in maps)
    if without:
        cells = f"{counted(without, 'cell')} of zero or less {'has' if without == 1 else 'have'}"
        notes.append(Note("L05", "info", f"{cells} no logarithm: drawn in the lowest colour."))
    if max(factors) > 1:
        notes.append(Note("L06", "info", _pooling_in_words(panels, factors, maps)))
    if any(len(tokens) for strip in strips for tokens in strip.rarely_seen):
        notes.append(
            Note("L02", "info", "Hatched: fewer than 4 later tokens can attend here; left out of the colour limits.")
        )
    if any(strip.quantity.unit == "L2 norm" for strip in strips):
        notes.append(
            Note("L07", "info", "Raw L2 norms grow with depth: do not rank layers by them, use the write ratios.")
        )
    if infinite := sum(one["infinite"] for one in maps):
        cells = f"{counted(infinite, 'cell')} {'is' if infinite == 1 else 'are'}"
        notes.append(
            Note("L05", "warning", f"{cells} infinite: drawn in the colours of the ends, left out of the limits.")
        )
    if any(one["missing"] for one in maps):
        notes.append(Note("L08", "info", "Grey hatching: undefined or not recorded, which is not zero."))
    if any(strip.quantity.name == "imported_norm" for strip in strips) and not absence_said:
        notes.append(
            Note("L08", "info", "Means of the rows in the file: a neuron that is not in it is unknown, not zero.")
        )
    if any("recorded peaks" in strip.quantity.said for strip in strips) and not absence_said:
        notes.append(Note("L08", "info", "Only recorded peaks: a neuron that is not among them is not zero."))
    dim, tokens = sum(len(panel.dim) for panel in panels), sum(panel.count for panel in panels)
    if dim:
        faint = "" if max(factors) > 1 else " (faint)"
        notes.append(Note("L21", "info", f"{dim:,} of {tokens:,} tokens are template or special tokens{faint}."))
    return notes


_CLIPPED = "; clipped shares stand at the legend's ends."


def _limits_in_words(panels: int, choice: names.Scale, *, kinds: AbstractSet[str]) -> str:
    """What `scale.fit` computed, for the kinds of scale that are drawn."""
    shared = ", shared by all panels" if panels > 1 else ""
    if choice in ("linear", "log"):
        symmetric = ", symmetric about zero" if "diverging" in kinds else ""
        return f"Colour limits: smallest and largest cell shown{symmetric}{shared}."
    (first, last), (tenth, ninetieth) = ([f"{100 * share:g}" for share in pair] for pair in (QUANTILES, INNERMOST))
    fences, upper = f"{FENCE:g} interquartile ranges beyond the", f"the {ninetieth}–{last} %"
    rules = []
    if kinds - {"diverging"}:
        of = " of the logarithms" if "log" in kinds else ""
        of = " (of the logarithms on logarithmic scales)" if {"log", "linear"} <= kinds else of
        rules.append(f"{fences} quartiles{of}, kept within the {first}–{tenth} % and {upper} quantiles")
    if "diverging" in kinds:
        rules.append(f"symmetric, {fences} upper quartile of |value|, kept within its {ninetieth}–{last} % quantiles")
    if choice == "per-layer":
        return f"Colour limits of each layer by itself: {'; '.join(rules)}{shared}; layers are not comparable{_CLIPPED}"
    return f"Colour limits: {'; '.join(rules)}{shared}{_CLIPPED}"


def _differing_in_words(panels: Sequence[TokenAxis], strips: Sequence[Strip], *, first_token: bool) -> str:
    """Over which cells of a difference its limits are fitted, where that is not all of them."""
    for strip in strips:
        known = counted = 0
        for panel, table, mask in zip(panels, strip.tables, strip.counted, strict=False):
            there = np.isfinite(table)
            there[[] if first_token else panel.first] = False
            known, counted = known + int(there.sum()), counted + int((there & mask).sum())
        if 0 < counted < known:
            return (
                f"Limits, histogram and clipped shares of a difference are of the {counted:,} cells (of {known:,}) "
                "that can differ: not exactly equal ones, nor, in one model, tokens before the first edit."
            )
    return ""


def _first_in_words(maps: Sequence[dict[str, Any]], *, pooled: bool, included: bool) -> str:
    if included:
        return "The first token of each prompt takes part in the limits."
    if pooled:
        return "The first token of each prompt is left out."
    badges = any(one["badges"] for one in maps)
    return "The first token (marked) is left out of the limits" + (
        "; ×n = its largest value over the upper limit." if badges else "."
    )


def _pooling_in_words(panels: Sequence[TokenAxis], factors: Sequence[int], maps: Sequence[dict[str, Any]]) -> str:
    each = sorted(set(factors) - {1})
    by = f"{each[0]:,}" if len(each) == 1 else f"{each[0]:,} to {each[-1]:,}"
    shown, total = sum(len(one["spikes"]) for one in maps), sum(one["spikes_in_all"] for one in maps)
    spikes = ""
    if total:
        spikes = (
            f" Rings: {counted(shown, 'outlier')}."
            if shown == total
            else f" Rings: the {shown:,} largest of {total:,} outliers."
        )
    tokens = sum(panel.count for panel in panels)
    return f"{tokens:,} tokens; each column is the maximum over {by} of them, layers are never pooled.{spikes}"
