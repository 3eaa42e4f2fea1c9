"""Tables of tokens × layers become a ViewSpec: limits, pooling, marks and the words that say what was done. NumPy only."""  # noqa: E501

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.trace.arrays import AnyFloats, Ints
from stratoscope.view.maps.notes import what_was_done
from stratoscope.view.maps.strips import NO_TOKENS, Strip, TokenAxis
from stratoscope.view.spec import pool, scale
from stratoscope.view.spec.viewspec import Note, Provenance, ViewSpec
from stratoscope.words import times

_BADGE_FROM = 1.05  # a first token that hardly exceeds the limit needs no badge


def build(
    kind: str,
    title: str,
    subtitle: str,
    panels: Sequence[TokenAxis],
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
    ready = [_pooled(strip, panels, factors, first_token=first_token) for strip in strips]
    for index, (strip, mine) in enumerate(zip(strips, ready, strict=True)):
        alike = [one for other, one in zip(strips, ready, strict=True) if strip.limits and other.limits == strip.limits]
        described, drawn = _strip(strip, mine, alike or [mine], panels, factors, choice)
        quantities.append(described)
        for place, (one, values) in enumerate(drawn):
            name = f"{index}/{place}"
            buffers[name] = values
            maps.append({"quantity": index, "panel": place, "values": name, **one})
    absence_said = any(note.id == "L08" for note in notes)
    done = what_was_done(
        panels, factors, strips, maps, quantities, choice, first_token=first_token, absence_said=absence_said
    )
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
        notes=(*done, *notes),
        provenance=provenance or Provenance(),
        facts={
            "quantities": [{key: one[key] for key in _FACTS} for one in quantities],
            "tokens_per_column": factors,
            "first_token_in_limits": first_token,
            "left_out": left_out,
        },
    )


_FACTS = ("name", "unit", "formula", "said", "scale", "choice", "low", "high", "clipped", "state")


@dataclass(frozen=True)
class _Pooled:
    """The tables of a strip, pooled, and the columns of them that count for the limits."""

    tables: list[AnyFloats]
    counted: list[AnyFloats]


def _pooled(strip: Strip, panels: Sequence[TokenAxis], factors: Sequence[int], *, first_token: bool) -> _Pooled:
    aside = [
        np.union1d(skipped, NO_TOKENS if first_token else panel.first)
        for panel, skipped in zip(panels, strip.rarely_seen or [NO_TOKENS] * len(panels), strict=True)
    ]

    def pooled(tables: Sequence[AnyFloats]) -> list[AnyFloats]:
        return [
            pool.pool_without(table, by, skipped, signed=strip.quantity.signed)
            for table, by, skipped in zip(tables, factors, aside, strict=True)
        ]

    def without(tables: Sequence[AnyFloats]) -> list[AnyFloats]:
        return [
            _without(table, panel.count, by, skipped)
            for table, panel, by, skipped in zip(tables, panels, factors, aside, strict=True)
        ]

    tables = pooled(strip.tables)
    only = [np.where(mask, table, np.nan) for mask, table in zip(strip.counted, strip.tables, strict=False)]
    counted = without(pooled(only)) if only else []
    if not _any_known(counted):
        counted = without(tables)
    return _Pooled(tables, counted if _any_known(counted) else tables)  # else nothing but tokens left out elsewhere


def _any_known(tables: Sequence[AnyFloats]) -> bool:
    return any(np.isfinite(one).any() for one in tables)


def _strip(
    strip: Strip,
    ready: _Pooled,
    alike: Sequence[_Pooled],
    panels: Sequence[TokenAxis],
    factors: Sequence[int],
    choice: names.Scale,
) -> tuple[dict[str, Any], list[tuple[dict[str, Any], AnyFloats]]]:
    """One quantity and its maps; `alike`: all strips that share its limits."""
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
    negative = not quantity.signed and any((table < 0).any() for table in strip.tables)
    if negative and choice != "log":  # no logarithm; only an import can hold them
        kind = "linear"
    limits = scale.fit([table for one in alike for table in one.counted], kind, choice, lowest=strip.lowest)
    edges, counts = scale.histogram(ready.counted, limits)
    maps = [
        (_map(table, full, limits, panel, by, skipped, rings=strip.rings), table)
        for table, full, panel, by, skipped in zip(
            ready.tables, strip.tables, panels, factors, strip.rarely_seen or [NO_TOKENS] * len(panels), strict=True
        )
    ]
    return base | {
        "scale": kind,
        "negative": negative,
        "difference": bool(strip.counted),
        "low": limits.low.tolist(),
        "high": limits.high.tolist(),
        "clipped": [round(share, 6) for share in scale.clipped(ready.counted, limits)],
        "state": limits.state,
        "extremes": limits.extremes,
        "exceptions": limits.state in ("zero", "equal") and _vary(strip.tables),
        "edges": edges.tolist(),
        "counts": counts.tolist(),
    }, maps


def _vary(tables: Sequence[AnyFloats]) -> bool:
    """Whether there is more than one finite value, those that do not count for the limits included."""
    known = np.concatenate([table[np.isfinite(table)] for table in tables])
    return bool(known.size and known.min() < known.max())


def _without(table: AnyFloats, tokens: int, by: int, skipped: Ints) -> AnyFloats:
    """The columns that count for the limits."""
    return table[~pool.only_of(by, tokens, skipped)]


def _map(
    table: AnyFloats, full: AnyFloats, limits: scale.Scale, panel: TokenAxis, by: int, rarely_seen: Ints, *, rings: bool
) -> dict[str, Any]:
    """Marks of one map: badges on first tokens beyond the limits, spikes of a pooled one, hatched columns."""
    badges = []
    if by == 1:
        for column in panel.first.tolist():
            ratio = scale.ratio_to_limit(full[column], limits)
            if ratio >= _BADGE_FROM and len(panel.first) < panel.count:
                badges.append([column, times(ratio)])
    cells, total = pool.spikes(limits.strength(table)) if by > 1 and rings else (np.empty((0, 2), np.int64), 0)
    return {
        "badges": badges,
        "spikes": cells.tolist(),
        "spikes_in_all": total,
        "rarely_seen": [column for column in rarely_seen.tolist() if np.isfinite(table[column]).any()]
        if by == 1
        else [],
        "without_logarithm": int((table <= 0).sum()) if limits.kind == "log" else 0,
        "missing": bool(np.isnan(table).any()),
        "infinite": int(np.isinf(full).sum()),
    }


def _panel(panel: TokenAxis, by: int) -> dict[str, Any]:
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
