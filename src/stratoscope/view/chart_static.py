"""ViewSpec of kind "chart" → matplotlib: the same page, footer and colours as the maps have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from stratoscope.view.matplotlib.figure import Picture, draw_boxes, draw_text
from stratoscope.view.matplotlib.save import style
from stratoscope.view.sheet import fonts
from stratoscope.view.sheet.footer import footer
from stratoscope.view.sheet.items import DPI, Box, Sheet, Text
from stratoscope.view.spec import palette
from stratoscope.view.spec.viewspec import ViewSpec
from stratoscope.words import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 12.75 + 2 * 0.34
MARGIN, _LEFT, _BETWEEN, _BELOW, _KEY = 0.34, 0.62, 0.62, 0.5, 0.2
_TITLE, _SUBTITLE, _PANEL, _SMALL, _TICK = 13.0, 8.2, 8.6, 7.4, 7.0  # points
_PER_WIDTH = 4.6  # inches of a chart of width 1, at most


def draw_chart(spec: ViewSpec, *, theme: str) -> Picture:
    """The figure of a spec of charts; its axes are the charts, from left to right."""
    colours = palette.theme(theme)
    panels, height = spec.content["panels"], float(spec.content["height"])
    widths = _widths(panels)
    right = max(MARGIN + _LEFT + sum(widths) + _BETWEEN * (len(widths) - 1), 7.4)
    items: list[Any] = []
    y = MARGIN
    for line in fonts.wrap(spec.title, _TITLE, right - MARGIN):
        items.append(Text(MARGIN, y, line, _TITLE, colours.ink))
        y += fonts.height(_TITLE) + 0.03
    for line in fonts.wrap(spec.subtitle, _SUBTITLE, right - MARGIN) if spec.subtitle else []:
        items.append(Text(MARGIN, y, line, _SUBTITLE, colours.muted))
        y += fonts.height(_SUBTITLE) + 0.02
    titles = [
        fonts.wrap(panel["title"], _PANEL, width + _BETWEEN * 0.6, bold=True)
        for panel, width in zip(panels, widths, strict=True)
    ]
    head = max(len(lines) for lines in titles) * (fonts.height(_PANEL) + 0.02)
    keyed = any(_key_of(panel) for panel in panels)
    top = y + 0.14 + head + (_KEY if keyed else 0.05)
    bottom = top + height
    below, footer_height = footer(spec, MARGIN, bottom + _BELOW, right - MARGIN, colours)
    whole = (round((right + MARGIN) * DPI) / DPI, round((bottom + _BELOW + footer_height + MARGIN * 0.8) * DPI) / DPI)
    with mpl.rc_context(style()):
        figure = Picture(figsize=whole, dpi=DPI / 2, facecolor=colours.paper)
        FigureCanvasAgg(figure)
        x = MARGIN + _LEFT
        for panel, width, lines in zip(panels, widths, titles, strict=True):
            axes = figure.add_axes((x / whole[0], 1 - bottom / whole[1], width / whole[0], height / whole[1]))
            _chart(axes, panel, spec, colours)
            at = y + 0.14
            for line in lines:
                items.append(Text(x, at, line, _PANEL, colours.ink, bold=True))
                at += fonts.height(_PANEL) + 0.02
            items += _key(panel, x, top - _KEY + 0.02, colours)
            x += width + _BETWEEN
        sheet = Sheet(*whole, (*items, *below))
        for item in sheet.items:
            if isinstance(item, Text):
                draw_text(figure, sheet, item)
        draw_boxes(figure, sheet)
    return figure


def _widths(panels: list[dict[str, Any]]) -> list[float]:
    room = WIDTH - 2 * MARGIN - _LEFT - _BETWEEN * (len(panels) - 1)
    each = min(_PER_WIDTH, room / sum(panel["width"] for panel in panels))
    return [each * panel["width"] for panel in panels]


def _chart(axes: Axes, panel: Mapping[str, Any], spec: ViewSpec, theme: palette.Theme) -> None:
    axes.set_facecolor(theme.paper)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set(color=theme.line, linewidth=0.8)
    for one in panel["marks"]:
        arrays = {name: spec.buffers[key] for name, key in one["arrays"].items()}
        _DRAW[one["kind"]](axes, one, arrays, theme)
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        given = panel[name]
        if given["low"] is not None:  # before the scale, which would else look for limits of its own
            limits = (given["low"], given["high"])
            axes.set_xlim(*limits) if name == "x" else axes.set_ylim(*limits)
        else:
            axes.margins(x=0.06) if name == "x" else axes.margins(y=0.06)
        if given["log"]:
            axes.set_xscale("log") if name == "x" else axes.set_yscale("log")
        if given["ticks"]:
            axis.set_ticks([place for place, _ in given["ticks"]], [fonts.drawn(label) for _, label in given["ticks"]])
        axis.set_label_text(
            fonts.drawn(given["label"]), size=_SMALL, color=theme.muted, family=fonts.families(), parse_math=False
        )
        axis.set_tick_params(length=2.5, width=0.6, color=theme.line, labelsize=_TICK, labelcolor=theme.ink, pad=2)
        axis.labelpad = 3
        for tick in axis.get_ticklabels():
            tick.set(family=fonts.families(), parse_math=False)
    if panel["x"]["log"]:
        axes.xaxis.set_major_locator(LogLocator(subs=_round_subs(*axes.get_xlim()), numticks=6))
        axes.xaxis.set_major_formatter(lambda value, _: number(value))
        axes.xaxis.set_minor_locator(NullLocator())
    elif not panel["x"]["ticks"]:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(visible=True, axis="x", color=theme.line, linewidth=0.4, alpha=0.6)
    axes.set_axisbelow(True)


def _round_subs(low: float, high: float) -> tuple[float, ...]:
    """Digits that are labelled on a logarithmic axis: more of them where it spans little."""
    decades = np.log10(high) - np.log10(low)
    if decades > 2:
        return (1.0,)
    return (1.0, 3.0) if decades > 1 else (1.0, 2.0, 5.0) if decades > 0.6 else (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


def _ink(styled: str, theme: palette.Theme) -> str:
    low, high = palette.sides(theme.name)
    return {"a": high, "b": low, "plain": theme.ink, "accent": theme.accent, "muted": theme.muted}[styled]


def _line(axes: Axes, one: Mapping[str, Any], arrays: Mapping[str, Any], theme: palette.Theme) -> None:
    axes.plot(arrays["x"], arrays["y"], color=_ink(one["style"], theme), linewidth=1.5, solid_capstyle="round")


def _band(axes: Axes, one: Mapping[str, Any], arrays: Mapping[str, Any], theme: palette.Theme) -> None:
    colour = _ink(one["style"], theme)
    axes.fill_betweenx(arrays["y"], arrays["low"], arrays["high"], color=colour, alpha=0.2, linewidth=0)


def _points(axes: Axes, one: Mapping[str, Any], arrays: Mapping[str, Any], theme: palette.Theme) -> None:
    colour = _ink(one["style"], theme)
    axes.scatter(arrays["x"], arrays["y"], s=11, color=colour, linewidths=0.3, edgecolors=theme.paper, zorder=3)


def _intervals(axes: Axes, one: Mapping[str, Any], arrays: Mapping[str, Any], theme: palette.Theme) -> None:
    colour = _ink(one["style"], theme)
    axes.hlines(arrays["y"], arrays["low"], arrays["high"], color=colour, linewidth=1.3)
    axes.scatter(arrays["x"], arrays["y"], s=20, color=colour, linewidths=0, zorder=3)


def _density(axes: Axes, one: Mapping[str, Any], arrays: Mapping[str, Any], theme: palette.Theme) -> None:
    counts = np.ma.masked_less(arrays["counts"].T.astype(float), 1)
    faint, strong = palette.rgb_of(theme.line), palette.rgb_of(theme.muted)
    colours = LinearSegmentedColormap.from_list("stratoscope-density", [faint, strong])
    norm = LogNorm(1, max(float(counts.max() or 1), 2))
    axes.pcolormesh(arrays["x_edges"], arrays["y_edges"], counts, cmap=colours, norm=norm, linewidth=0, rasterized=True)


def _vertical(axes: Axes, one: Mapping[str, Any], arrays: Mapping[str, Any], theme: palette.Theme) -> None:
    for place in np.atleast_1d(arrays["x"]):
        axes.axvline(place, color=_ink(one["style"], theme), linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)


def _horizontal(axes: Axes, one: Mapping[str, Any], arrays: Mapping[str, Any], theme: palette.Theme) -> None:
    for place in np.atleast_1d(arrays["y"]):
        axes.axhline(place, color=_ink(one["style"], theme), linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)


def _span(axes: Axes, one: Mapping[str, Any], arrays: Mapping[str, Any], theme: palette.Theme) -> None:
    for low, high in zip(np.atleast_1d(arrays["low"]), np.atleast_1d(arrays["high"]), strict=True):
        axes.axvspan(low, high, color=_ink(one["style"], theme), alpha=0.1, linewidth=0, zorder=0)


def _words(axes: Axes, one: Mapping[str, Any], arrays: Mapping[str, Any], theme: palette.Theme) -> None:
    low, high = axes.get_xlim()
    for x, y, words in zip(arrays["x"], arrays["y"], one["words"], strict=True):
        left = (x - low) < 0.75 * (high - low)
        axes.annotate(
            fonts.drawn(words), (x, y), (4 if left else -4, 3), textcoords="offset points",
            ha="left" if left else "right",
            size=_TICK - 0.6, color=_ink(one["style"], theme), family=fonts.families(), parse_math=False, zorder=4,
        )  # fmt: skip


_DRAW = {
    "line": _line,
    "band": _band,
    "points": _points,
    "intervals": _intervals,
    "density": _density,
    "vertical": _vertical,
    "horizontal": _horizontal,
    "span": _span,
    "words": _words,
}


def _key_of(panel: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(one["style"], one["label"]) for one in panel["marks"] if one["label"]]


def _key(panel: Mapping[str, Any], x: float, y: float, theme: palette.Theme) -> list[Any]:
    """Names of what is drawn, in its colours, on one line."""
    items: list[Any] = []
    for styled, label in _key_of(panel):
        items.append(Box(x, y + 0.035, 0.12, 0.045, fill=_ink(styled, theme)))
        items.append(Text(x + 0.16, y, label, _SMALL, theme.ink))
        x += 0.16 + fonts.width(label, _SMALL) + 0.14
    return items
