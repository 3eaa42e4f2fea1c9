"""Tables of tokens × layers become a ViewSpec: limits, pooling, marks and the words that say what was done. NumPy only."""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.trace.arrays import AnyFloats
from stratoscope.view.maps.notes import what_was_done
from stratoscope.view.maps.strips import NO_TOKENS, Strip, TokenAxis
from stratoscope.view.spec import pool, scale
from stratoscope.view.spec.buffers import indices
from stratoscope.view.spec.figures import figures_of
from stratoscope.view.spec.look import FirstTokens, Look
from stratoscope.view.spec.maps import PROMPT_ROWS, Colouring, Map, MapMarks, MapPanel, MapQuantity, Maps
from stratoscope.view.spec.page import PLAIN_PAGE, Page
from stratoscope.view.spec.scale import Distribution, Kind
from stratoscope.view.spec.selected import Selected
from stratoscope.view.spec.tokens import joined
from stratoscope.view.spec.viewspec import Note, Provenance, ViewSpec
from stratoscope.words import times

_BADGE_FROM = 1.05  # a first token that hardly exceeds the limit needs no badge
Value = TypeVar("Value")
ByFirst = Mapping[FirstTokens, Value]


def build(
    title: str,
    subtitle: str,
    panels: Sequence[TokenAxis],
    strips: Sequence[Strip],
    *,
    look: Look | None = None,
    selected: Selected | None = None,
    notes: Sequence[Note] = (),
    provenance: Provenance | None = None,
    missing: Sequence[str] = (),
    advice: str = "",
    most_unpooled: int = pool.MOST_UNPOOLED,
    page: Page = PLAIN_PAGE,
) -> ViewSpec:
    """The picture of some quantities (each on its own scale, shared by all panels) over some prompts.

    Parameters
    ----------
    notes
        What the data bring along.
    missing, advice
        Labels of what the input does not have, and how to get it.
    most_unpooled
        Panels of more tokens are pooled, unless the page says how many columns fit.
    page
        The page that it will be drawn on.
    """
    look = look or Look()
    fitting = (most_unpooled,) if page.most_columns is None else (page.most_columns, page.most_columns)
    factors = pool.factors([panel.count for panel in panels], *fitting)
    first_tokens = any(len(panel.first) for panel in panels)
    ready = [_pooled(strip, panels, factors, differ=first_tokens) for strip in strips]
    quantities, maps = [], []
    for index, (strip, mine) in enumerate(zip(strips, ready, strict=True)):
        alike = [one for other, one in zip(strips, ready, strict=True) if strip.limits and other.limits == strip.limits]
        negative = strip.negative or any(one.negative for one in strips if strip.limits and one.limits == strip.limits)
        quantity = _quantity(strip, mine, alike or [mine], look.scale, negative=negative)
        quantities.append(quantity)
        maps += [_map(index, place, strip, quantity, mine, panels, factors) for place in range(len(panels))]
    starts = np.cumsum([0, *(panel.count for panel in panels)]).tolist()
    content = Maps(
        tuple(quantities),
        tuple(_panel(panel, start, by) for panel, start, by in zip(panels, starts[:-1], factors, strict=True)),
        tuple(maps),
        tuple(missing),
        advice,
    )
    done = what_was_done(content, panels, strips, absence_said=any(note.id == "L08" for note in notes))
    return ViewSpec(
        title,
        subtitle,
        content,
        look,
        joined([panel.tokens for panel in panels]),
        selected or Selected(),
        (*done, *notes),
        provenance or Provenance(),
    )


def _by_first(compute: Callable[[FirstTokens], Value], *, differ: bool) -> ByFirst[Value]:
    """What is computed with first tokens in the limits and without; once, where there are none."""
    without = compute("without_first")
    return {"without_first": without, "with_first": compute("with_first") if differ else without}


@dataclass(frozen=True)
class _Pooled:
    """The tables of a strip, pooled; what of them counts for the limits; and their columns that do not stand aside."""

    tables: list[AnyFloats]
    counted: list[AnyFloats]
    usual: list[AnyFloats]

    @cached_property
    def distribution(self) -> Distribution:
        """The values that count."""
        return Distribution(self.counted)


def _pooled(strip: Strip, panels: Sequence[TokenAxis], factors: Sequence[int], *, differ: bool) -> ByFirst[_Pooled]:
    only = [np.where(mask, table, np.nan) for mask, table in zip(strip.counted, strip.tables, strict=False)]
    signed = strip.quantity.signed
    whole, whole_only = (
        [(table, pool.pool(table, by, signed=signed)) for table, by in zip(tables, factors, strict=False)]
        for tables in (strip.tables, only)
    )

    def of(first: FirstTokens) -> _Pooled:
        aside = [
            np.union1d(
                panel.rarely_seen if strip.rarely_seen else NO_TOKENS,
                panel.first if first == "without_first" else NO_TOKENS,
            )
            for panel in panels
        ]

        def kept(pairs: Sequence[tuple[AnyFloats, AnyFloats]]) -> list[AnyFloats]:
            return [
                pool.without(pooled, table, by, skipped, signed=signed)
                for (table, pooled), by, skipped in zip(pairs, factors, aside, strict=True)
            ]

        def counted(tables: Sequence[AnyFloats]) -> list[AnyFloats]:
            return [
                table[~pool.only_of(by, panel.count, skipped)]
                for table, panel, by, skipped in zip(tables, panels, factors, aside, strict=True)
            ]

        tables = kept(whole)
        usual = counted(tables)
        usual = usual if _any_known(usual) else tables  # else only those that stand aside
        counting = counted(kept(whole_only)) if only else []
        return _Pooled(tables, counting if _any_known(counting) else usual, usual)

    return _by_first(of, differ=differ)


def _any_known(tables: Sequence[AnyFloats]) -> bool:
    return any(np.isfinite(one).any() for one in tables)


def _quantity(
    strip: Strip, mine: ByFirst[_Pooled], alike: Sequence[ByFirst[_Pooled]], chosen: names.Scale, *, negative: bool
) -> MapQuantity:
    """One quantity on all its scales.

    Parameters
    ----------
    alike
        Strips that share its limits.
    chosen
        A scale it must have.
    negative
        Whether one of them has negative values, though their scale is not a signed one.
    """
    quantity = strip.quantity
    differ = mine["with_first"] is not mine["without_first"]

    def limiting(first: FirstTokens) -> Distribution:
        if len(alike) == 1:
            return mine[first].distribution
        return Distribution([table for one in alike for table in one[first].counted])

    limits_of = _by_first(limiting, differ=differ)
    scales: dict[names.Scale, ByFirst[Colouring]] = {}
    for choice in names.SCALES:
        if quantity.signed and choice == "log" and choice != chosen:
            continue
        if quantity.row_kind == PROMPT_ROWS and choice == "per-layer":
            continue
        kind = scale.natural(signed=quantity.signed, log=quantity.log, choice=choice)
        if negative and choice != "log":  # no logarithm; only an import can hold them
            kind = "linear"

        def colouring(first: FirstTokens, kind: Kind = kind, choice: names.Scale = choice) -> Colouring:
            limits, own = limits_of[first].fit(kind, choice, lowest=strip.lowest), mine[first].distribution
            edges, counts = own.histogram(limits)
            below, above = own.clipped(limits)
            exceptions = limits.state in ("zero", "equal") and strip.varies
            return Colouring(limits, (round(below, 6), round(above, 6)), edges, indices(counts), exceptions)

        scales[choice] = _by_first(colouring, differ=differ)
    figures = figures_of(mine["without_first"].distribution.whole)
    return MapQuantity(quantity, bool(strip.counted), negative, figures, scales)


def _map(
    index: int,
    place: int,
    strip: Strip,
    quantity: MapQuantity,
    ready: ByFirst[_Pooled],
    panels: Sequence[TokenAxis],
    factors: Sequence[int],
) -> Map:
    """The cells and the marks of one quantity in one panel."""
    panel, by, full = panels[place], factors[place], strip.tables[place]
    cells: dict[FirstTokens, AnyFloats] = {first: ready[first].tables[place] for first in get_args(FirstTokens)}
    if by == 1:  # nothing is pooled: the same cells
        cells["with_first"] = cells["without_first"]
    table = cells["without_first"]
    rarely_seen = panel.rarely_seen if strip.rarely_seen and by == 1 else NO_TOKENS
    absent = np.zeros(table.shape, bool)
    if strip.absent:
        absent = pool.pool(np.where(strip.absent[place], np.nan, 1.0), by, signed=False) != 1
    medians = _by_first(
        lambda first: pool.row_medians(ready[first].usual[place], signed=strip.quantity.signed),
        differ=ready["with_first"] is not ready["without_first"],
    )
    marks = {
        choice: {
            first: _marks(one.limits, cells[first], medians[first], full, panel, by, strip)
            for first, one in by_first.items()
        }
        for choice, by_first in quantity.scales.items()
    }
    return Map(
        index,
        place,
        cells,
        marks,
        tuple(column for column in rarely_seen.tolist() if np.isfinite(table[column]).any()),
        bool((np.isnan(table) & ~absent).any()),
        strip.infinite(place),
        _runs(absent),
    )


def _runs(cells: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Row, start and stop of each run of cells of shape (columns, rows)."""
    edges = np.diff(np.pad(cells.T, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    return indices(np.stack([rows, starts, np.nonzero(edges == -1)[1]], axis=1).reshape(-1, 3))


def _marks(
    limits: scale.Limits,
    table: AnyFloats,
    medians: AnyFloats,
    full: AnyFloats,
    panel: TokenAxis,
    by: int,
    strip: Strip,
) -> MapMarks:
    """Badges on first tokens and on rows beyond the limits, and rings around the spikes of a pooled map."""
    badges: tuple[tuple[int, str], ...] = ()
    if by == 1 and len(panel.first) < panel.count:
        ratios = scale.ratio_to_limit(full[panel.first], limits)
        badges = tuple(
            (column, times(ratio))
            for column, ratio in zip(panel.first.tolist(), ratios.tolist(), strict=True)
            if ratio >= _BADGE_FROM
        )
    cells, total = (np.empty((0, 2), np.int64), 0) if strip.ringed is None else (strip.ringed, len(strip.ringed))
    if strip.ringed is None and by > 1 and strip.rings:
        cells, total = pool.spikes(limits.strength(table), log=limits.kind == "log")
    without_logarithm = int((table <= 0).sum()) if limits.kind == "log" else 0
    rows = _row_badges(medians, limits, lowest=strip.lowest is None)
    return MapMarks(badges, rows, indices(cells).reshape(-1, 2), total, without_logarithm)


def _row_badges(medians: AnyFloats, limits: scale.Limits, *, lowest: bool) -> tuple[tuple[int, str], ...]:
    """Rows whose median cell lies clearly beyond a limit; `lowest`: whether also beyond the lower one."""
    below, above, ratios = scale.beyond(medians, limits)
    lowest = lowest and limits.state not in ("zero", "below")  # on a logarithmic scale these limits are made up
    found = []
    for row in np.flatnonzero(above | (below & lowest)).tolist():
        ratio = float(ratios[row])
        if np.isnan(ratio):
            words = "↓" if below[row] else "↑"
        elif ratio < _BADGE_FROM:
            continue
        else:
            words = times(ratio).replace("×", "÷") if below[row] else times(ratio)
        found.append((row, words))
    return tuple(found)


def _panel(panel: TokenAxis, start: int, by: int) -> MapPanel:
    return MapPanel(
        panel.title,
        panel.detail,
        start,
        start + panel.count,
        by,
        tuple(np.unique(panel.first // by).tolist()),
        tuple(panel.dim.tolist()) if by == 1 else (),
        tuple((place // by, name) for place, name in panel.starts),
        tuple(np.unique(panel.answers // by).tolist()),
        tuple(np.unique(panel.predicting // by).tolist()),
    )
