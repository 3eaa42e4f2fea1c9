"""Charts → matplotlib: the same page, footer and colours as the maps have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, assert_never

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from stratoscope.view.matplotlib.figure import Picture, draw_boxes, draw_text
from stratoscope.view.matplotlib.save import style
from stratoscope.view.sheet import fonts
from stratoscope.view.sheet.footer import footer
from stratoscope.view.sheet.items import DPI, Box, Item, Sheet, Text
from stratoscope.view.sheet.measures import SLIDE
from stratoscope.view.spec import palette
from stratoscope.view.spec.charts import (
    Axis,
    Band,
    ChartPanel,
    Charts,
    Density,
    Horizontal,
    Intervals,
    Line,
    Mark,
    Points,
    Span,
    Style,
    Vertical,
    Words,
)
from stratoscope.view.spec.page import PLAIN_PAGE
from stratoscope.view.spec.palette import Theme
from stratoscope.view.spec.viewspec import ViewSpec
from stratoscope.words import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 12.75 + 2 * 0.34
MARGIN, _LEFT, _BETWEEN, _BELOW, _KEY = 0.34, 0.62, 0.62, 0.5, 0.2
_TITLE, _SUBTITLE, _PANEL, _SMALL, _TICK = 13.0, 8.2, 8.6, 7.4, 7.0  # points
_PER_WIDTH = 4.6  # inches of a chart of width 1, at most
_NARROWEST = 7.4  # inches that a title and a footer have at least
_FEW_TIMES = 2.5
_SWATCH, _BETWEEN_NAMES = 0.16, 0.14  # inches of a colour beside its name, and from name to name
_DASHES = (0, (4, 3))


def draw_charts(spec: ViewSpec, charts: Charts) -> Picture:
    """The figure of a spec whose content is charts; its axes are the charts, from left to right."""
    colours = spec.colours.themes[spec.look.theme]
    panels, widths = charts.panels, _widths(charts.panels)
    right = max(MARGIN + _LEFT + sum(widths) + _BETWEEN * (len(widths) - 1), _NARROWEST)
    items: list[Item] = []
    title = fonts.wrap(spec.title, _TITLE, right - MARGIN)
    subtitle = fonts.wrap(spec.subtitle, _SUBTITLE, right - MARGIN) if spec.subtitle else []
    y = _lines(items, title, MARGIN, MARGIN, _TITLE, colours.ink, gap=0.03)
    y = _lines(items, subtitle, MARGIN, y, _SUBTITLE, colours.muted)
    titles = [
        fonts.wrap(panel.title, _PANEL, width + _BETWEEN * 0.6, bold=True)
        for panel, width in zip(panels, widths, strict=True)
    ]
    head = max(len(lines) for lines in titles) * (fonts.height(_PANEL) + 0.02)
    keys = [_key_lines(panel, width + _BETWEEN * 0.6) for panel, width in zip(panels, widths, strict=True)]
    top = y + 0.14 + head + (_KEY * max(map(len, keys)) or 0.05)
    bottom = top + charts.height
    below, footer_height = footer(spec, MARGIN, bottom + _BELOW, right - MARGIN, colours, SLIDE, PLAIN_PAGE)
    whole = (round((right + MARGIN) * DPI) / DPI, round((bottom + _BELOW + footer_height + MARGIN * 0.8) * DPI) / DPI)
    with mpl.rc_context(style()):
        figure = Picture(figsize=whole, dpi=DPI / 2, facecolor=colours.paper)
        FigureCanvasAgg(figure)
        x = MARGIN + _LEFT
        for panel, width, lines, key in zip(panels, widths, titles, keys, strict=True):
            place = (x / whole[0], 1 - bottom / whole[1], width / whole[0], charts.height / whole[1])
            _chart(figure.add_axes(place), panel, colours)
            _lines(items, lines, x, y + 0.14, _PANEL, colours.ink, bold=True)
            _key(items, key, x, top, colours)
            x += width + _BETWEEN
        sheet = Sheet(*whole, (*items, *below))
        for item in sheet.items:
            if isinstance(item, Text):
                draw_text(figure, sheet, item)
        draw_boxes(figure, sheet)
    return figure


def _widths(panels: Sequence[ChartPanel]) -> list[float]:
    room = WIDTH - 2 * MARGIN - _LEFT - _BETWEEN * (len(panels) - 1)
    each = min(_PER_WIDTH, room / sum(panel.width for panel in panels))
    return [each * panel.width for panel in panels]


def _lines(
    items: list[Item], lines: Sequence[str], x: float, y: float, size: float, colour: str, *, gap: float = 0.02,
    bold: bool = False,
) -> float:  # fmt: skip
    """Put lines of text below each other; where the next one goes."""
    for line in lines:
        items.append(Text(x, y, line, size, colour, bold=bold))
        y += fonts.height(size) + gap
    return y


def _key_lines(panel: ChartPanel, width: float) -> list[list[tuple[Style, str]]]:
    """Names of what is drawn, on as many lines as they take."""
    lines: list[list[tuple[Style, str]]] = []
    used = 0.0
    for mark in panel.marks:
        if mark.label:
            label = fonts.fit(mark.label, _SMALL, width - _SWATCH)
            wide = _SWATCH + fonts.width(label, _SMALL)
            if not lines or used + wide > width:
                lines.append([])
                used = 0.0
            lines[-1].append((mark.style, label))
            used += wide + _BETWEEN_NAMES
    return lines


def _key(items: list[Item], lines: Sequence[Sequence[tuple[Style, str]]], left: float, y: float, theme: Theme) -> None:
    """Names of what is drawn, in its colours; the last line ends at y."""
    for place, line in enumerate(lines):
        x, top = left, y - (len(lines) - place) * _KEY + 0.02
        for side, label in line:
            items.append(Box(x, top + 0.035, 0.12, 0.045, fill=_ink(side, theme)))
            items.append(Text(x + _SWATCH, top, label, _SMALL, theme.ink))
            x += _SWATCH + fonts.width(label, _SMALL) + _BETWEEN_NAMES


def _chart(axes: Axes, panel: ChartPanel, theme: Theme) -> None:
    axes.set_facecolor(theme.paper)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set(color=theme.line, linewidth=0.8)
    for mark in panel.marks:
        _draw(axes, mark, theme)
    _axis(axes, "x", panel.x, theme)
    _axis(axes, "y", panel.y, theme)
    if panel.x.log:
        low, high = axes.get_xlim()
        few = high < _FEW_TIMES * low  # too near to each other for the round numbers of a logarithmic axis
        places = MaxNLocator(4) if few else LogLocator(subs=_round_subs(low, high), numticks=6)
        axes.xaxis.set_major_locator(places)
        axes.xaxis.set_major_formatter(lambda value, _: number(value))
        axes.xaxis.set_minor_locator(NullLocator())
    elif not panel.x.ticks:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(visible=True, axis="x", color=theme.line, linewidth=0.4, alpha=0.6)
    axes.set_axisbelow(True)


def _axis(axes: Axes, name: Literal["x", "y"], given: Axis, theme: Theme) -> None:
    axis = axes.xaxis if name == "x" else axes.yaxis
    if given.low is not None:  # before the scale, which would else look for limits of its own
        axes.set(**{f"{name}lim": (given.low, given.high)})
    else:
        axes.margins(x=0.06) if name == "x" else axes.margins(y=0.06)
    if given.log:
        axes.set(**{f"{name}scale": "log"})
    if given.ticks:
        axis.set_ticks([place for place, _ in given.ticks], [fonts.drawn(label) for _, label in given.ticks])
    axis.set_label_text(
        fonts.drawn(given.label), size=_SMALL, color=theme.muted, family=fonts.families(), parse_math=False
    )
    axis.set_tick_params(length=2.5, width=0.6, color=theme.line, labelsize=_TICK, labelcolor=theme.ink, pad=2)
    axis.labelpad = 3
    for tick in axis.get_ticklabels():
        tick.set(family=fonts.families(), parse_math=False)


def _round_subs(low: float, high: float) -> tuple[float, ...]:
    """Digits that are labelled on a logarithmic axis: more of them where it spans little."""
    decades = np.log10(high) - np.log10(low)
    if decades > 2:
        return (1.0,)
    return (1.0, 3.0) if decades > 1 else (1.0, 2.0, 5.0) if decades > 0.6 else (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


def _ink(style: Style, theme: Theme) -> str:
    return {**theme.sides, "plain": theme.ink, "accent": theme.accent, "muted": theme.muted}[style]


def _draw(axes: Axes, mark: Mark, theme: Theme) -> None:
    ink = _ink(mark.style, theme)
    match mark:
        case Line():
            axes.plot(mark.x, mark.y, color=ink, linewidth=1.5, solid_capstyle="round")
        case Band():
            axes.fill_betweenx(mark.y, mark.low, mark.high, color=ink, alpha=0.2, linewidth=0)
        case Points():
            axes.scatter(mark.x, mark.y, s=11, color=ink, linewidths=0.3, edgecolors=theme.paper, zorder=3)
        case Intervals():
            axes.hlines(mark.y, mark.low, mark.high, color=ink, linewidth=1.3)
            axes.scatter(mark.x, mark.y, s=20, color=ink, linewidths=0, zorder=3)
        case Density():
            _density(axes, mark, theme)
        case Vertical():
            axes.axvline(mark.x, color=ink, linewidth=0.9, linestyle=_DASHES, zorder=1)
        case Horizontal():
            axes.axhline(mark.y, color=ink, linewidth=0.9, linestyle=_DASHES, zorder=1)
        case Span():
            axes.axvspan(mark.low, mark.high, color=ink, alpha=0.1, linewidth=0, zorder=0)
        case Words():
            _words(axes, mark, ink)
        case _:
            assert_never(mark)


def _density(axes: Axes, mark: Density, theme: Theme) -> None:
    faint, strong = palette.rgb_of(theme.line), palette.rgb_of(theme.muted)
    axes.pcolormesh(
        mark.x_edges,
        mark.y_edges,
        np.ma.masked_less(mark.counts.T.astype(float), 1),
        cmap=LinearSegmentedColormap.from_list("stratoscope-density", [faint, strong]),
        norm=LogNorm(1, max(float(mark.counts.max() or 1), 2)),
        linewidth=0,
        rasterized=True,
    )


def _words(axes: Axes, mark: Words, ink: str) -> None:
    low, high = axes.get_xlim()
    for x, y, words in zip(mark.x, mark.y, mark.words, strict=True):
        left = (x - low) < 0.75 * (high - low)
        axes.annotate(
            fonts.drawn(words), (x, y), (4 if left else -4, 3), textcoords="offset points",
            ha="left" if left else "right", size=_TICK - 0.6, color=ink, family=fonts.families(), parse_math=False,
            zorder=4,
        )  # fmt: skip
