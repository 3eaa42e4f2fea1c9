"""Tables of tokens × layers become a ViewSpec: limits, pooling, marks and the words that say what was done. NumPy only."""  # noqa: E501

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.view import pool, scale
from stratoscope.view.spec import Note, Provenance, ViewSpec
from stratoscope.view.values import Floats, Quantity

Ints = NDArray[np.int64]
_BADGE_FROM = 1.05  # a first token that hardly exceeds the limit needs no badge
NO_TOKENS: Ints = np.empty(0, np.int64)


@dataclass(frozen=True)
class Tokens:
    """The tokens of one panel, in reading order.

    Attributes
    ----------
    labels
        Readable labels, or none at all where tokens are pooled.
    first
        Places of the tokens that are the first of their prompt.
    dim
        Places of template and special tokens.
    starts
        Where each prompt begins and what it is called, when there are several.
    count
        Number of tokens.
    """

    title: str
    detail: str
    labels: Sequence[str]
    count: int
    first: Ints = field(default_factory=lambda: NO_TOKENS)
    dim: Ints = field(default_factory=lambda: NO_TOKENS)
    starts: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Strip:
    """One quantity in all panels.

    Attributes
    ----------
    quantity
        What it is.
    tables
        One array of shape (tokens, rows) for each panel.
    thin
        For each panel the places of tokens whose value rests on too little, drawn hatched.
    """

    quantity: Quantity
    tables: Sequence[Floats]
    thin: Sequence[Ints] = ()


def build(
    kind: str,
    title: str,
    subtitle: str,
    panels: Sequence[Tokens],
    strips: Sequence[Strip],
    *,
    choice: names.Scale,
    first_token: bool,
    notes: Sequence[Note] = (),
    provenance: Provenance | None = None,
    left_out: str = "",
    missing: Sequence[str] = (),
    advice: str = "",
    most_unpooled: int = pool.MOST_UNPOOLED,
) -> ViewSpec:
    """The picture of some quantities (each on its own scale, shared by all panels) over some prompts.

    Parameters
    ----------
    kind
        "heatmap" or "engagement".
    choice
        The colour scale.
    first_token
        Whether first tokens take part in the limits.
    notes, left_out
        What the data bring along; what the selection left out.
    missing, advice
        Labels of what the input does not have, and how to get it.
    most_unpooled
        Panels of more tokens are pooled.
    """
    factors = [pool.factor(panel.count, most_unpooled) for panel in panels]
    buffers: dict[str, NDArray[Any]] = {}
    maps: list[dict[str, Any]] = []
    quantities: list[dict[str, Any]] = []
    for index, strip in enumerate(strips):
        described, drawn = _strip(strip, panels, factors, choice, first_token=first_token)
        quantities.append(described)
        for place, (one, values) in enumerate(drawn):
            name = f"{index}/{place}"
            buffers[name] = values
            maps.append({"quantity": index, "panel": place, "values": name, **one})
    said = [*_what_was_done(panels, factors, strips, quantities, maps, choice, first_token=first_token), *notes]
    return ViewSpec(
        kind,
        title,
        subtitle,
        content={
            "quantities": quantities,
            "panels": [_panel(panel, by) for panel, by in zip(panels, factors, strict=True)],
            "maps": maps,
            "missing": {"labels": list(missing), "advice": advice},
        },
        buffers=buffers,
        notes=tuple(said),
        provenance=provenance or Provenance(),
        facts={
            "quantities": [{key: one[key] for key in _FACTS} for one in quantities],
            "tokens_per_column": factors,
            "first_token_in_limits": first_token,
            "left_out": left_out,
        },
    )


_FACTS = ("name", "unit", "formula", "said", "scale", "choice", "low", "high", "clipped", "state")


def _strip(
    strip: Strip, panels: Sequence[Tokens], factors: Sequence[int], choice: names.Scale, *, first_token: bool
) -> tuple[dict[str, Any], list[tuple[dict[str, Any], Floats]]]:
    """One quantity and its maps."""
    quantity = strip.quantity
    base = {
        "name": quantity.name,
        "label": quantity.label,
        "unit": quantity.unit,
        "formula": quantity.formula,
        "said": quantity.said,
        "signed": quantity.signed,
        "row_kind": quantity.row_kind,
        "rows": list(quantity.rows),
        "choice": choice,
    }
    kind = scale.natural(signed=quantity.signed, log=quantity.log, choice=choice)
    thin = strip.thin or [NO_TOKENS] * len(panels)
    aside = [
        np.union1d(skipped, NO_TOKENS if first_token else panel.first)
        for panel, skipped in zip(panels, thin, strict=True)
    ]
    tables = [
        pool.pool_without(table, by, skipped, signed=quantity.signed)
        for table, by, skipped in zip(strip.tables, factors, aside, strict=True)
    ]
    counted = [
        _without(table, panel.count, by, skipped)
        for table, panel, by, skipped in zip(tables, panels, factors, aside, strict=True)
    ]
    if not any(np.isfinite(one).any() for one in counted):  # nothing but tokens that are left out elsewhere
        counted = tables
    limits = scale.fit(counted, kind, choice)
    edges, counts = scale.histogram(counted, limits)
    maps = [
        (_map(table, full, limits, panel, by, skipped), table)
        for table, full, panel, by, skipped in zip(tables, strip.tables, panels, factors, thin, strict=True)
    ]
    return base | {
        "scale": kind,
        "low": limits.low.tolist(),
        "high": limits.high.tolist(),
        "clipped": [round(share, 6) for share in scale.clipped(counted, limits)],
        "state": limits.state,
        "edges": edges.tolist(),
        "counts": counts.tolist(),
    }, maps


def _without(table: Floats, tokens: int, by: int, skipped: Ints) -> Floats:
    """The columns that count for the limits."""
    return table[~pool.only_of(by, tokens, skipped)]


def _map(table: Floats, full: Floats, limits: scale.Scale, panel: Tokens, by: int, thin: Ints) -> dict[str, Any]:
    """Marks of one map: badges on first tokens beyond the limits, spikes of a pooled one, hatched columns."""
    badges = []
    if by == 1:
        for column in panel.first.tolist():
            ratio = scale.ratio_to_limit(full[column], limits)
            if ratio >= _BADGE_FROM and len(panel.first) < panel.count:
                badges.append([column, times(ratio)])
    cells, total = pool.spikes(limits.strength(table)) if by > 1 else (np.empty((0, 2), np.int64), 0)
    return {
        "badges": badges,
        "spikes": cells.tolist(),
        "spikes_in_all": total,
        "thin": thin.tolist() if by == 1 else [],
    }


def _panel(panel: Tokens, by: int) -> dict[str, Any]:
    return {
        "title": panel.title,
        "detail": panel.detail,
        "tokens": panel.count,
        "tokens_per_column": by,
        "columns": -(-panel.count // by),
        "labels": list(panel.labels) if by == 1 else [],
        "dim": panel.dim.tolist() if by == 1 else [],
        "first": np.unique(panel.first // by).tolist(),
        "starts": [[place // by, name] for place, name in panel.starts],
    }


def times(ratio: float) -> str:
    """A ratio as a badge: ×1.4, ×7, ×63, ×1.2k."""
    if ratio >= 1_000:
        return f"×{ratio / 1_000:.2g}k" if ratio < 1_000_000 else f"×{ratio:.0e}".replace("e+0", "e")
    return f"×{ratio:.0f}" if ratio >= 3 else f"×{ratio:.1f}"


def _what_was_done(
    panels: Sequence[Tokens],
    factors: Sequence[int],
    strips: Sequence[Strip],
    quantities: Sequence[dict[str, Any]],
    maps: Sequence[dict[str, Any]],
    choice: names.Scale,
    *,
    first_token: bool,
) -> list[Note]:
    """The notes that follow from the drawing itself."""
    notes = [Note("L05", "info", _limits_in_words(len(panels), choice, signed=strips[0].quantity.signed))]
    if all(len(panel.first) == panel.count for panel in panels):
        notes.append(Note("L05", "info", "There are only first tokens, so they make the limits."))
    elif any(len(panel.first) for panel in panels):
        notes.append(Note("L05", "info", _first_in_words(maps, pooled=max(factors) > 1, included=first_token)))
    if max(factors) > 1:
        notes.append(Note("L06", "info", _pooling_in_words(panels, factors, maps)))
    if any(len(tokens) for strip in strips for tokens in strip.thin):
        notes.append(
            Note("L02", "info", "Hatched: fewer than 4 later tokens can attend here; left out of the colour limits.")
        )
    if any(strip.quantity.unit == "L2 norm" for strip in strips):
        notes.append(
            Note("L07", "info", "Raw L2 norms grow with depth: do not rank layers by them, use the write ratios.")
        )
    if any(strip.quantity.name == "imported_norm" for strip in strips):
        notes.append(
            Note("L08", "info", "Means of the rows in the file: a neuron that is not in it is unknown, not zero.")
        )
    if any("recorded peaks" in strip.quantity.said for strip in strips):
        notes.append(Note("L08", "info", "Only recorded peaks: a neuron that is not among them is not zero."))
    dim, tokens = sum(len(panel.dim) for panel in panels), sum(panel.count for panel in panels)
    if dim:
        faint = "" if max(factors) > 1 else " (faint)"
        notes.append(Note("L21", "info", f"{dim:,} of {tokens:,} tokens are template or special tokens{faint}."))
    return notes


def _limits_in_words(panels: int, choice: names.Scale, *, signed: bool) -> str:
    shared = ", shared by all panels" if panels > 1 else ""
    if signed and choice in ("robust", "per-layer"):
        where = "of the cells shown" if choice == "robust" else "of each layer"
        return f"Colour limits: plus and minus the 99 % quantile of |value| {where}{shared}."
    if choice == "robust":
        return f"Colour limits: 1 % and 99 % quantiles of the cells shown{shared}."
    if choice == "per-layer":
        return f"Colour limits: 1 % and 99 % quantiles of each layer{shared}; layers are not comparable."
    return f"Colour limits: smallest and largest cell shown{shared}."


def _first_in_words(maps: Sequence[dict[str, Any]], *, pooled: bool, included: bool) -> str:
    if included:
        return "The first token of each prompt takes part in the limits."
    if pooled:
        return "The first token of each prompt is left out."
    badges = any(one["badges"] for one in maps)
    return "The first token (marked) is left out of the limits" + (
        "; ×n = its largest value over the upper limit." if badges else "."
    )


def _pooling_in_words(panels: Sequence[Tokens], factors: Sequence[int], maps: Sequence[dict[str, Any]]) -> str:
    each = sorted(set(factors) - {1})
    by = f"{each[0]:,}" if len(each) == 1 else f"{each[0]:,} to {each[-1]:,}"
    shown, total = sum(len(one["spikes"]) for one in maps), sum(one["spikes_in_all"] for one in maps)
    spikes = ""
    if total:
        spikes = (
            f" Rings: {shown:,} outliers."
            if shown == total
            else f" Rings: the {shown:,} largest of {total:,} outliers."
        )
    tokens = sum(panel.count for panel in panels)
    return f"{tokens:,} tokens; each column is the maximum over {by} of them, layers are never pooled.{spikes}"
