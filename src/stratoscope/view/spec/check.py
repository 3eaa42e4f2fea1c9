"""What the types of a ViewSpec do not say: which lengths agree, what refers to what. A painter relies on it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import astuple
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike

from stratoscope import names
from stratoscope.view.spec.charts import Axis, ChartPanel, Charts, Density, Mark
from stratoscope.view.spec.document import Unfit
from stratoscope.view.spec.lens import Lens
from stratoscope.view.spec.look import FirstTokens
from stratoscope.view.spec.maps import Colouring, Map, MapPanel, MapQuantity, Maps
from stratoscope.view.spec.palette import STEPS, Colours
from stratoscope.view.spec.peaks import Heights, PeakComparison, Peaks
from stratoscope.view.spec.routes import RoutePanel, Routes
from stratoscope.view.spec.tokens import ShownTokens
from stratoscope.view.spec.viewspec import ViewSpec

_FIRST = get_args(FirstTokens)
_COLOUR = re.compile(r"#[0-9a-f]{6}")


def check(spec: ViewSpec) -> None:
    """See to it that the parts of a spec agree.

    Raises
    ------
    Unfit
        They do not; the message says where.
    """
    _check_tokens(spec.tokens)
    _check_colours(spec.colours)
    match spec.content:
        case Maps() as maps:
            _check_maps(maps, len(spec.tokens.prompt), spec.look.scale)
        case Charts() as charts:
            _check_charts(charts)
        case Peaks() as peaks:
            _check_peaks(peaks, len(spec.tokens.prompt), spec.look.scale)
        case Routes() as routes:
            _check_routes(routes, len(spec.tokens.prompt))
        case Lens() as lens:
            _check_maps(lens.maps, len(spec.tokens.prompt), spec.look.scale)
            _check_lens(lens)


def _check_tokens(tokens: ShownTokens) -> None:
    count = len(tokens.prompt)
    _same_lengths(tokens, ("position", "span", "first"), count, "tokens")
    _need(len(tokens.text) in (0, count), "tokens.text", f"has {len(tokens.text)} items instead of {count}")
    _within(tokens.prompt, -1, len(tokens.prompts), "tokens.prompt")
    _within(tokens.span, -1, len(names.SPANS), "tokens.span")
    _within(tokens.first, 0, 2, "tokens.first")


def _check_colours(colours: Colours) -> None:
    for at, steps in (("sequential", colours.sequential), ("diverging", colours.diverging)):
        _need(len(steps) == STEPS, f"colours.{at}", f"has {len(steps)} items instead of {STEPS}")
        _need(all(map(_COLOUR.fullmatch, steps)), f"colours.{at}", "has what is no #rrggbb")
    _names(colours.themes, names.THEMES, "colours.themes")
    for name, theme in colours.themes.items():
        _need(all(map(_COLOUR.fullmatch, astuple(theme)[1:])), f"colours.themes[{name!r}]", "has what is no #rrggbb")


def _check_maps(maps: Maps, tokens: int, scale: names.Scale) -> None:
    for place, quantity in enumerate(maps.quantities):
        _check_quantity(quantity, scale, f"content.quantities[{place}]")
    for place, panel in enumerate(maps.panels):
        _check_panel(panel, tokens, f"content.panels[{place}]")
    pairs = set()
    for place, one in enumerate(maps.maps):
        at = f"content.maps[{place}]"
        _within([one.quantity], 0, len(maps.quantities), f"{at}.quantity")
        _within([one.panel], 0, len(maps.panels), f"{at}.panel")
        _check_map(one, maps.quantities[one.quantity], maps.panels[one.panel], at)
        pairs.add((one.quantity, one.panel))
    expected = len(maps.quantities) * len(maps.panels)
    _need(len(maps.maps) == len(pairs) == expected, "content.maps", "has not each quantity in each panel once")


def _check_quantity(one: MapQuantity, scale: names.Scale, at: str) -> None:
    rows = one.quantity.rows
    _ascend(rows, f"{at}.quantity.rows")
    _need(scale in one.scales, f"{at}.scales", f"lacks {scale!r}")
    for name, colourings in one.scales.items():
        _names(colourings, _FIRST, f"{at}.scales[{name!r}]")
        for first, colouring in colourings.items():
            _check_colouring(colouring, len(rows), f"{at}.scales[{name!r}][{first!r}]")


def _check_colouring(colouring: Colouring, rows: int, at: str) -> None:
    limits = colouring.limits
    _same_lengths(limits, ("low", "high"), rows if limits.by_row else 1, f"{at}.limits")
    _need(bool((limits.low < limits.high).all()), f"{at}.limits", "do not run upwards")
    _same_lengths(colouring, ("edges",), len(colouring.counts) + 1, at)


def _check_panel(panel: MapPanel, tokens: int, at: str) -> None:
    _need(0 <= panel.start < panel.stop <= tokens, at, f"is none of the {tokens} tokens")
    _need(panel.tokens_per_column > 0, f"{at}.tokens_per_column", "is not above 0")
    for name, columns in (("first", panel.first), ("dim", panel.dim), ("answers", panel.answers),
                          ("starts", [one for one, _ in panel.starts])):  # fmt: skip
        _within(columns, 0, panel.columns, f"{at}.{name}")


def _check_map(one: Map, quantity: MapQuantity, panel: MapPanel, at: str) -> None:
    shape = (panel.columns, len(quantity.quantity.rows))
    _names(one.cells, _FIRST, f"{at}.cells")
    for first, cells in one.cells.items():
        _need(cells.shape == shape, f"{at}.cells[{first!r}]", f"has the shape {cells.shape} instead of {shape}")
    _within(one.rarely_seen, 0, panel.columns, f"{at}.rarely_seen")
    _need(one.absent.shape[1] == 3, f"{at}.absent", "has not rows and columns")
    _within(one.absent[:, 0], 0, shape[1], f"{at}.absent")
    _within(one.absent[:, 1:], 0, shape[0] + 1, f"{at}.absent")
    _names(one.marks, quantity.scales, f"{at}.marks")
    for scale, states in one.marks.items():
        _names(states, _FIRST, f"{at}.marks[{scale!r}]")
        for first, marks in states.items():
            here = f"{at}.marks[{scale!r}][{first!r}]"
            _within([column for column, _ in marks.badges], 0, panel.columns, f"{here}.badges")
            _within([row for row, _ in marks.row_badges], 0, shape[1], f"{here}.row_badges")
            _need(marks.rings.shape[1] == 2, f"{here}.rings", "has not columns and rows")
            _within(marks.rings[:, 0], 0, shape[0], f"{here}.rings")
            _within(marks.rings[:, 1], 0, shape[1], f"{here}.rings")


def _check_charts(charts: Charts) -> None:
    _need(bool(charts.panels), "content.panels", "is empty")
    _need(charts.height > 0, "content.height", "is not above 0")
    _check_panels(charts.panels)


def _check_panels(panels: Sequence[ChartPanel], of: str = "content.panels") -> None:
    for place, panel in enumerate(panels):
        at = f"{of}[{place}]"
        _need(panel.width > 0, f"{at}.width", "is not above 0")
        _check_axis(panel.x, f"{at}.x")
        _check_axis(panel.y, f"{at}.y")
        for number, mark in enumerate(panel.marks):
            _check_mark(mark, f"{at}.marks[{number}]")


def _check_lens(lens: Lens) -> None:
    one_each = len(lens.maps.quantities) == len(lens.maps.panels) == 1
    _need(one_each, "content.maps", "is not one quantity in one panel")
    columns, rows = shape = lens.maps.panels[0].columns, len(lens.maps.quantities[0].quantity.rows)
    found = lens.likeliest.shape
    _need(found == shape, "content.likeliest", f"has the shape {found} instead of {shape}")
    _within(lens.likeliest, -1, len(lens.texts), "content.likeliest")
    _need(lens.changing.shape[1] == 2, "content.changing", "has not columns and rows")
    _within(lens.changing[:, 0], 0, columns, "content.changing")
    _within(lens.changing[:, 1], 0, rows, "content.changing")
    _same_lengths(lens, ("first", "stays"), columns, "content")
    _within(lens.first, -1, rows, "content.first")
    _within(lens.stays, -1, rows, "content.stays")
    _within([lens.chosen], 0, columns, "content.chosen")
    _check_panels(lens.charts, "content.charts")


def _check_axis(axis: Axis, at: str) -> None:
    ends = [end for end in (axis.low, axis.high) if end is not None]
    _need(len(ends) < 2 or ends[0] < ends[1], at, "does not run upwards")
    _need(not axis.log or all(end > 0 for end in ends), at, "is logarithmic and does not stay above 0")


def _check_mark(mark: Mark, at: str) -> None:
    """All that a mark has of something, it has as often; of edges one more."""
    if isinstance(mark, Density):
        columns, rows = mark.counts.shape
        _same_lengths(mark, ("x_edges",), columns + 1, at)
        _same_lengths(mark, ("y_edges",), rows + 1, at)
        return
    several = [name for name, value in vars(mark).items() if isinstance(value, np.ndarray | tuple)]
    if several:
        _same_lengths(mark, several, len(getattr(mark, several[0])), at)


def _check_peaks(peaks: Peaks, tokens: int, scale: names.Scale) -> None:
    _need(bool(peaks.scenes), "content.scenes", "is empty")
    _ascend(peaks.layers, "content.layers")
    _same_lengths(peaks, ("token_scene", "token_place", "token_choice", "token_rank"), tokens, "content")
    _within(peaks.token_scene, 0, len(peaks.scenes), "content.token_scene")
    _within(peaks.token_choice, 0, len(peaks.choices), "content.token_choice")
    count = len(peaks.token)
    _same_lengths(peaks, ("layer", "neuron", "value", "height", "highest"), count, "content")
    _same_lengths(peaks, [name for name in ("expert", "write") if len(getattr(peaks, name))], count, "content")
    _within(peaks.token, 0, tokens, "content.token")
    _within(peaks.highest, 0, 2, "content.highest")
    _need(bool(np.isin(peaks.layer, peaks.layers).all()), "content.layer", "has what is not in content.layers")
    _need(scale in peaks.scales, "content.scales", f"lacks {scale!r}")
    for name, one in peaks.scales.items():
        _names(one.heights, _FIRST, f"content.scales[{name!r}].heights")
        for first, heights in one.heights.items():
            _check_heights(heights, count, f"content.scales[{name!r}].heights[{first!r}]")
    if peaks.comparison is not None:
        _check_comparison(peaks.comparison, tokens, count)


def _check_comparison(one: PeakComparison, tokens: int, peaks: int) -> None:
    at = "content.comparison"
    _same_lengths(one, ("column", "equal"), tokens, at)
    _within(one.column, 0, 2 * tokens, f"{at}.column")
    _within(one.equal, 0, 2, f"{at}.equal")
    _same_lengths(one, ("listed", "difference"), len(one.peak), at)
    _within(one.peak, 0, peaks, f"{at}.peak")
    _within(one.listed, 0, 3, f"{at}.listed")
    _names(one.scales, ("robust", "linear"), f"{at}.scales")
    for name, scale in one.scales.items():
        _names(scale.heights, _FIRST, f"{at}.scales[{name!r}].heights")
        for first, heights in scale.heights.items():
            _check_heights(heights, len(one.peak), f"{at}.scales[{name!r}].heights[{first!r}]")


def _check_heights(heights: Heights, count: int, at: str) -> None:
    _same_lengths(heights, ("place",), count, at)
    _same_lengths(heights, ("times",), len(heights.beyond), at)
    _within(heights.beyond, 0, count, f"{at}.beyond")
    _need(heights.low <= heights.high and heights.floor <= heights.ceiling, at, "does not run upwards")


def _check_routes(routes: Routes, tokens: int) -> None:
    _need(bool(routes.panels), "content.panels", "is empty")
    _ascend(routes.weight.rows, "content.weight.rows")
    _need(routes.widest > 0, "content.widest", "is not above 0")
    for place, panel in enumerate(routes.panels):
        _check_route_panel(panel, tokens, routes.depths, f"content.panels[{place}]")


def _check_route_panel(panel: RoutePanel, tokens: int, depths: int, at: str) -> None:
    _need(0 <= panel.start < panel.stop <= tokens, at, f"is none of the {tokens} tokens")
    columns = panel.columns
    _same_lengths(panel, ("left_out",), columns + 1, at)
    _within([panel.end], 0, columns, f"{at}.end")
    _same_lengths(panel, ("there", "in_view"), depths, at)
    _same_lengths(panel, ("node_depth", "node_flow", "node_rest"), len(panel.node_column), at)
    _within(panel.node_column, 0, columns, f"{at}.node_column")
    _within(panel.node_depth, 0, depths, f"{at}.node_depth")
    of_edges = ("to_depth", "from_column", "from_depth", "edge_kind", "head", "weight", "flow", "covered_by")
    _same_lengths(panel, of_edges, len(panel.to_column), at)
    _within(panel.to_column, 0, columns, f"{at}.to_column")
    _within(panel.to_depth, 0, depths, f"{at}.to_depth")
    _within(panel.from_column, -1, columns, f"{at}.from_column")
    _within(panel.from_depth, -1, depths, f"{at}.from_depth")
    _within(panel.edge_kind, 0, len(names.ROUTE_KINDS), f"{at}.edge_kind")
    _need(bool((panel.left_out >= 0).all()), f"{at}.left_out", "is below 0")
    _same_lengths(panel, ("unmatched",), columns, at)
    _within(panel.unmatched, 0, 2, f"{at}.unmatched")
    if panel.sides is not None:
        _same_lengths(panel.sides, ("a", "b", "most"), len(panel.to_column), f"{at}.sides")
    if (neurons := panel.neurons) is not None:
        listed = ("neuron", "expert", "value", "size", "promotes")
        _same_lengths(neurons, listed, len(neurons.node), f"{at}.neurons")
        _within(neurons.node, 0, len(panel.node_column), f"{at}.neurons.node")


def _need(truth: bool, at: str, what: str) -> None:
    if not truth:
        raise Unfit(f"{at} {what}")


def _same_lengths(thing: Any, fields: Sequence[str], length: int, at: str) -> None:
    for name in fields:
        found = len(getattr(thing, name))
        _need(found == length, f"{at}.{name}", f"has {found:,} items instead of {length:,}")


def _within(values: ArrayLike, lowest: int, end: int, at: str) -> None:
    found = np.asarray(values)
    outside = bool(found.size) and not lowest <= found.min() <= found.max() < end
    _need(not outside, at, f"has what is not one of {lowest} to {end - 1:,}")


def _ascend(numbers: Sequence[int], at: str) -> None:
    _need(bool(numbers) and list(numbers) == sorted(set(numbers)), at, "are not ascending numbers")


def _names(found: Collection[str], expected: Collection[str], at: str) -> None:
    _need(set(found) == set(expected), at, f"has not each of {', '.join(map(repr, expected))}")
