"""What a picture says about itself: scale, first token, pooling, hatching, and what must not be concluded from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

import numpy as np

from stratoscope import names
from stratoscope.trace.arrays import AnyFloats
from stratoscope.view.maps.strips import Strip, TokenAxis
from stratoscope.view.spec.cautions import ONLY_PEAKS, RAW_NORM, ROWS_OF_A_FILE, SEEN_BY_FEW
from stratoscope.view.spec.look import Look
from stratoscope.view.spec.maps import MapMarks, Maps
from stratoscope.view.spec.viewspec import Note
from stratoscope.words import agreeing, capital, counted, number


def what_was_done(
    content: Maps, panels: Sequence[TokenAxis], strips: Sequence[Strip], *, absence_said: bool
) -> list[Note]:
    """The notes of the drawing itself, each with the scales and states that it holds in.

    Parameters
    ----------
    absence_said
        Whether the data already say that absent is not zero (L08).
    """
    scales = [choice for choice in names.SCALES if all(choice in one.scales for one in content.quantities)]
    looks = [Look(choice, first) for first in (False, True) for choice in scales]
    by_look = {look: _notes(content, panels, strips, look, absence_said=absence_said) for look in looks}
    merged: list[Note] = []
    for notes in by_look.values():  # in one order, in which those of each look keep theirs
        at = 0
        for note in notes:
            if note in merged:
                at = merged.index(note) + 1
            else:
                merged.insert(at, note)
                at += 1
    return [stated for note in merged for stated in _stated(note, by_look, scales)]


def _stated(note: Note, by_look: Mapping[Look, Sequence[Note]], scales: Sequence[str]) -> list[Note]:
    """A note with the states that it holds in."""
    without, with_first = (
        tuple(look.scale for look, notes in by_look.items() if look.first_token == first and note in notes)
        for first in (False, True)
    )

    def on(chosen: tuple[str, ...]) -> tuple[str, ...]:
        return () if len(chosen) == len(scales) else chosen

    if without == with_first:
        return [replace(note, scales=on(without))]
    each = ((without, False), (with_first, True))
    return [replace(note, scales=on(chosen), first_token=first) for chosen, first in each if chosen]


def _notes(
    content: Maps, panels: Sequence[TokenAxis], strips: Sequence[Strip], look: Look, *, absence_said: bool
) -> list[Note]:
    """The notes for one look."""
    colourings = [one.colouring(look) for one in content.quantities]
    marks = [one.marks[look.scale][look.first] for one in content.maps]
    pooled = max(panel.tokens_per_column for panel in content.panels) > 1
    kinds = {one.limits.kind for one in colourings}
    notes = [Note("L05", "info", _limits_in_words(len(panels), look.scale, kinds=kinds))]
    for strip, one in zip(strips, colourings, strict=True):
        if strip.lowest is not None and one.limits.state == "ok":
            limits = f"from {number(strip.lowest)}, fixed, to at least {number(2 * strip.lowest)}"
            notes.append(Note("L05", "info", f"{capital(strip.quantity.label)}: {limits}."))
    if any(one.limits.extremes for one in colourings):
        notes.append(Note("L05", "info", "Where quantiles fall together, the limits are the extremes."))
    if differing := _differing_in_words(panels, strips, first_token=look.first_token):
        notes.append(Note("L30", "info", differing))
    if all(len(panel.first) == panel.count for panel in panels):
        notes.append(Note("L05", "info", "Only first tokens: they make the limits."))
    elif any(len(panel.first) for panel in panels):
        badges = any(one.badges for one in marks)
        notes.append(Note("L05", "info", _first_in_words(badges=badges, pooled=pooled, included=look.first_token)))
    if words := _rows_in_words([badge for one in marks for _, badge in one.row_badges]):
        notes.append(Note("L05", "info", words))
    negative = any(
        one.negative and colouring.limits.kind == "linear"
        for one, colouring in zip(content.quantities, colourings, strict=True)
    )
    if negative and look.scale != "linear":
        notes.append(Note("L05", "info", "Some values are negative, so the scale is linear."))
    if without := sum(one.without_logarithm for one in marks):
        cells = f"{counted(without, 'cell')} of zero or less {'has' if without == 1 else 'have'}"
        notes.append(Note("L05", "info", f"{cells} no logarithm: drawn in the lowest colour."))
    if pooled:
        notes.append(Note("L06", "info", _pooling_in_words(content, marks)))
    if any(strip.rarely_seen for strip in strips) and any(len(panel.rarely_seen) for panel in panels):
        notes.append(
            Note(
                "L02",
                "info",
                f"Hatched over colours: {SEEN_BY_FEW}; not in the limits.",
            )
        )
    if any(strip.quantity.unit == "L2 norm" for strip in strips):
        notes.append(RAW_NORM)
    if infinite := sum(one.infinite for one in content.maps):
        cells = f"{counted(infinite, 'cell')} {'is' if infinite == 1 else 'are'}"
        notes.append(Note("L05", "warning", f"{cells} infinite: in the colours of the ends, not in the limits."))
    if any(
        one.missing and _undefined(panels[one.panel], strips[one.quantity].tables[one.panel]) for one in content.maps
    ):
        notes.append(Note("L08", "info", "Grey hatching: undefined or not recorded, which is not zero."))
    if any(strip.quantity.name == "imported_norm" for strip in strips) and not absence_said:
        notes.append(ROWS_OF_A_FILE)
    if any("recorded peaks" in strip.quantity.said for strip in strips) and not absence_said:
        notes.append(ONLY_PEAKS)
    if words := _template_in_words(panels, pooled=pooled):
        notes.append(Note("L21", "info", words))
    return notes


def _undefined(panel: TokenAxis, table: AnyFloats) -> bool:
    """Whether a cell is empty of which its token does not say why."""
    return not len(panel.unmatched) or bool(np.isnan(np.delete(table, panel.unmatched, axis=0)).any())


def _limits_in_words(panels: int, choice: names.Scale, *, kinds: AbstractSet[str]) -> str:
    """How the limits were found, in short: `scale.rule` has all of it."""
    shared = ", shared by all panels" if panels > 1 else ""
    if choice in ("linear", "log"):
        symmetric = ", symmetric about zero" if "diverging" in kinds else ""
        return f"Colour limits: smallest and largest cell{symmetric}{shared}."
    if choice == "per-layer":
        return f"Robust colour limits of each layer by itself{shared}: layers are not comparable."
    return f"Robust colour limits{shared}."


def _differing_in_words(panels: Sequence[TokenAxis], strips: Sequence[Strip], *, first_token: bool) -> str:
    """Over which cells of a difference its limits are fitted, where that is not all of them."""
    for strip in strips:
        known = counted = 0
        for panel, table, mask in zip(panels, strip.tables, strip.counted, strict=False):
            there = np.isfinite(table)
            there[[] if first_token else panel.first] = False
            known, counted = known + int(there.sum()), counted + int((there & mask).sum())
        if 0 < counted < known:
            return f"Scale of the difference: from the {counted:,} of {known:,} cells that can differ."
    return ""


def _first_in_words(*, badges: bool, pooled: bool, included: bool) -> str:
    if included:
        return "The first token of each prompt takes part."
    if pooled:
        return "The first token of each prompt is left out."
    return "The first token (marked) is left out" + (
        "; ×n = its largest value over the upper limit." if badges else "."
    )


def _rows_in_words(badges: Sequence[str]) -> str:
    if not badges:
        return ""
    signs = (("×", "×n the upper"), ("÷", "÷n the lower"))
    ratios = ", ".join(words for sign, words in signs if any(badge.startswith(sign) for badge in badges))
    return f"Bars at the right: rows whose median cell lies beyond a limit{f' ({ratios})' if ratios else ''}."


def _template_in_words(panels: Sequence[TokenAxis], *, pooled: bool) -> str:
    system_span = names.SPANS.index("system")
    tokens, dim = sum(panel.count for panel in panels), sum(len(panel.dim) for panel in panels)
    system = sum(int((panel.tokens.span == system_span).sum()) for panel in panels)
    if not dim:
        return ""
    faint = "" if pooled else " (faint)" if not system else " (faintest)"
    also = f", {system:,} of a system message{'' if pooled else ' (faint)'}" if system else ""
    return f"{dim:,} of {tokens:,} tokens {agreeing(dim, 'is', 'are')} template or special{faint}{also}."


def _pooling_in_words(content: Maps, marks: Sequence[MapMarks]) -> str:
    each = sorted({panel.tokens_per_column for panel in content.panels} - {1})
    by = f"{each[0]:,}" if len(each) == 1 else f"{each[0]:,} to {each[-1]:,}"
    shown, total = sum(len(one.rings) for one in marks), sum(one.outliers for one in marks)
    spikes = ""
    if total:
        spikes = (
            f" Rings: {counted(shown, 'outlier')}."
            if shown == total
            else f" Rings: {shown:,} for {total:,} outliers, the largest, one for those beside each other."
        )
    tokens = sum(panel.tokens for panel in content.panels)
    signed = {one.quantity.signed for one in content.quantities}
    most = "the value of largest size" if signed == {True} else "the maximum"
    also = " (of signed values the one of largest size)" if len(signed) > 1 else ""
    return f"Each column is {most} over {by} of {tokens:,} tokens{also}.{spikes}"
