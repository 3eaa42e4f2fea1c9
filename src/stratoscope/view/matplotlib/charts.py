"""Charts → matplotlib: the same page, footer and colours as the maps have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from stratoscope.view.matplotlib.figure import Picture, draw_boxes, draw_text
from stratoscope.view.matplotlib.marks import SAMPLE, draw_mark, sample
from stratoscope.view.matplotlib.save import style
from stratoscope.view.sheet import fonts
from stratoscope.view.sheet.footer import footer
from stratoscope.view.sheet.items import DPI, Item, Sheet, Text
from stratoscope.view.sheet.measures import SLIDE, Measures, measures_of
from stratoscope.view.spec.charts import Axis, ChartPanel, Charts, Mark
from stratoscope.view.spec.page import PLAIN_PAGE, Page
from stratoscope.view.spec.palette import Theme
from stratoscope.view.spec.viewspec import ViewSpec
from stratoscope.words import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SLIDE = replace(SLIDE, detail=7.4)
_BETWEEN = 0.3
_LEAST = 2.2  # inches of a chart of width 1, at least, where charts stand side by side on paper
_PER_WIDTH = 4.6  # inches of a chart of width 1, at most
_NARROWEST = 7.4  # inches that a title and a footer have at least
_FEW_TIMES = 2.5
_NUMBERS = 0.32  # inches that the numbers of an axis take beside it
_MOST_TICK = 1.5  # inches of a tick's label: a longer one has its middle left out
_NAME = 0.2  # inches of an axis' name beside it
_TICKS_BELOW = 0.22  # inches from an axis to its name below it


def draw_charts(spec: ViewSpec, charts: Charts, page: Page = PLAIN_PAGE) -> Picture:
    """The figure of a spec whose content is charts; its axes are the charts, from left to right or from the top."""
    sizes = measures_of(page) if page.is_sized else _SLIDE
    colours, margin = spec.colours.themes[spec.look.theme], sizes.margin
    rows = [_placed(panels, sizes) for panels in _rows(charts.panels, sizes)]
    right = sizes.width - margin if sizes.width else max(max(_end(row) for row in rows), _NARROWEST)
    items: list[Item] = []
    title = fonts.wrap(spec.title, sizes.title, right - margin) if page.titled else []
    subtitle = fonts.wrap(spec.subtitle, sizes.subtitle, right - margin) if page.titled and spec.subtitle else []
    y = _lines(items, title, margin, margin, sizes.title, colours.ink, gap=0.03)
    y = _lines(items, subtitle, margin, y, sizes.subtitle, colours.muted) + (0.14 if title else 0.0)
    small, tops = fonts.height(sizes.detail), []
    for row in rows:
        head = max(len(one.title) for one in row) * (fonts.height(sizes.panel) + 0.02)
        top = y + head + max(len(one.key) for one in row) * small + 0.08
        tops.append((y, top))
        y = top + charts.height + _TICKS_BELOW * sizes.unit + max(len(one.name) for one in row) * small + 0.1
    below, footer_height = footer(spec, margin, y, right - margin, colours, sizes, page)
    whole = (sizes.width or sizes.whole(right + margin), sizes.whole(y + footer_height + sizes.bottom))
    with mpl.rc_context(style()):
        figure = Picture(figsize=whole, dpi=DPI / 2, facecolor=colours.paper)
        FigureCanvasAgg(figure)
        figure.dots = sizes.dots
        for row, (head, top) in zip(rows, tops, strict=True):
            bottom = top + charts.height
            for one in row:
                place = (one.x / whole[0], 1 - bottom / whole[1], one.width / whole[0], charts.height / whole[1])
                draw_chart(figure.add_axes(place), one.panel, one.name, one.ticks, colours, sizes)
                _lines(items, one.title, one.x, head, sizes.panel, colours.ink, bold=True)
                _key(figure, items, one, top - 0.06 - len(one.key) * small, whole[1], colours, sizes)
        sheet = Sheet(*whole, (*items, *below))
        for item in sheet.items:
            if isinstance(item, Text):
                draw_text(figure, sheet, item)
        draw_boxes(figure, sheet)
    return figure


def _rows(panels: Sequence[ChartPanel], sizes: Measures) -> list[Sequence[ChartPanel]]:
    """The charts side by side, on a page that is too narrow for that below each other."""
    across = sum(panel.width for panel in panels) * _LEAST * sizes.unit
    return [panels] if sizes.width is None or across <= sizes.room else [[panel] for panel in panels]


def _end(row: Sequence[_Placed]) -> float:
    return row[-1].x + row[-1].width


@dataclass(frozen=True)
class _Placed:
    """A chart in its place: its left edge and width in inches, and its words in lines that fit there.

    Attributes
    ----------
    ticks
        Labels of the vertical axis.
    title, name
        Lines of its title, and of the name of its horizontal axis.
    key
        Marks that are named, with their words, line by line.
    """

    panel: ChartPanel
    x: float
    width: float
    ticks: list[str]
    title: list[str]
    name: list[str]
    key: list[list[tuple[Mark, str]]]


def _placed(panels: Sequence[ChartPanel], sizes: Measures) -> list[_Placed]:
    """The charts side by side."""
    ticks = [[fonts.fit(label, sizes.row, _MOST_TICK) for _, label in panel.y.ticks] for panel in panels]
    lefts = [_NAME + 0.1 + max((fonts.width(one, sizes.row) for one in labels), default=_NUMBERS) for labels in ticks]
    room = sizes.room - sum(lefts) - _BETWEEN * (len(panels) - 1)
    each = min(_PER_WIDTH, room / sum(panel.width for panel in panels))
    placed, x = [], sizes.margin
    for panel, labels, left in zip(panels, ticks, lefts, strict=True):
        width, x = each * panel.width, x + left
        title = fonts.wrap(panel.title, sizes.panel, width + _BETWEEN / 2, bold=True) if panel.title else []
        name = fonts.wrap(panel.x.label, sizes.detail, width + _BETWEEN)
        placed.append(_Placed(panel, x, width, labels, title, name, _key_lines(panel, width + _BETWEEN / 2, sizes)))
        x += width + _BETWEEN
    return placed


def _key_lines(panel: ChartPanel, room: float, sizes: Measures) -> list[list[tuple[Mark, str]]]:
    """The marks that are named, as many in a line as fit."""
    lines: list[list[tuple[Mark, str]]] = []
    used = room
    for mark in panel.marks:
        if mark.label:
            words = fonts.fit(mark.label, sizes.detail, room - SAMPLE - 0.05)
            wide = _entry(words, sizes)
            if used + wide > room:
                lines.append([])
                used = 0.0
            lines[-1].append((mark, words))
            used += wide
    return lines


def _entry(words: str, sizes: Measures) -> float:
    """Inches of an entry of a key."""
    return SAMPLE + 0.05 + fonts.width(words, sizes.detail) + 0.14


def _lines(
    items: list[Item], lines: Sequence[str], x: float, y: float, size: float, colour: str, *, gap: float = 0.02,
    bold: bool = False,
) -> float:  # fmt: skip
    """Put lines of text below each other; where the next one goes."""
    for line in lines:
        items.append(Text(x, y, line, size, colour, bold=bold))
        y += fonts.height(size) + gap
    return y


def _key(
    figure: Picture, items: list[Item], placed: _Placed, y: float, height: float, theme: Theme, sizes: Measures
) -> None:
    """Names of what is drawn behind a sample of each, from `y` downwards on a page of that height."""
    for line in placed.key:
        x = placed.x
        for mark, words in line:
            middle = height - y - fonts.height(sizes.detail) / 2
            figure.add_artist(sample(mark, x, middle, theme, figure.dpi_scale_trans))
            items.append(Text(x + SAMPLE + 0.05, y, words, sizes.detail, theme.ink))
            x += _entry(words, sizes)
        y += fonts.height(sizes.detail)


def draw_chart(
    axes: Axes, panel: ChartPanel, name: Sequence[str], ticks: Sequence[str], theme: Theme, sizes: Measures
) -> None:
    """Draw a chart into its axes.

    Parameters
    ----------
    name
        Lines of the name of its horizontal axis.
    ticks
        Labels of its vertical axis; none = as the axis has them.
    """
    axes.set_facecolor(theme.paper)
    for side, spine in axes.spines.items():  # beside rows with labels a line would look like one of values
        spine.set_visible(side == "bottom" or (side == "left" and not panel.y.ticks))
        spine.set(color=theme.line, linewidth=0.8)
    for mark in panel.marks:
        draw_mark(axes, mark, theme)
    _axis(axes, "x", panel.x, name, [], theme, sizes)
    _axis(axes, "y", panel.y, [panel.y.label], ticks, theme, sizes)
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


def _axis(
    axes: Axes,
    name: Literal["x", "y"],
    given: Axis,
    label: Sequence[str],
    ticks: Sequence[str],
    theme: Theme,
    sizes: Measures,
) -> None:
    axis = axes.xaxis if name == "x" else axes.yaxis
    if given.low is not None:  # before the scale, which would else look for limits of its own
        axes.set(**{f"{name}lim": (given.low, given.high)})
    else:
        axes.margins(x=0.06) if name == "x" else axes.margins(y=0.06)
    if given.log:
        axes.set(**{f"{name}scale": "log"})
    if given.ticks:
        shown = ticks or [label for _, label in given.ticks]
        axis.set_ticks([place for place, _ in given.ticks], [fonts.drawn(label) for label in shown])
    axis.set_label_text(
        "\n".join(map(fonts.drawn, label)),
        size=sizes.detail,
        color=theme.muted,
        family=fonts.families(),
        parse_math=False,
    )
    length = 0.0 if name == "y" and given.ticks else 2.5
    axis.set_tick_params(length=length, width=0.6, color=theme.line, labelsize=sizes.row, labelcolor=theme.ink, pad=2)
    axis.labelpad = 3
    for tick in axis.get_ticklabels():
        tick.set(family=fonts.families(), parse_math=False)


def _round_subs(low: float, high: float) -> tuple[float, ...]:
    """Digits that are labelled on a logarithmic axis: more of them where it spans little."""
    decades = np.log10(high) - np.log10(low)
    if decades > 2:
        return (1.0,)
    return (1.0, 3.0) if decades > 1 else (1.0, 2.0, 5.0) if decades > 0.6 else (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
