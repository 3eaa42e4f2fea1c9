"""Cells with words, what marks them, and charts on their rows → matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator

from stratoscope.view.matplotlib.charts import draw_chart
from stratoscope.view.matplotlib.figure import Picture, draw_boxes, draw_text, place
from stratoscope.view.matplotlib.maps import draw_map
from stratoscope.view.matplotlib.marks import sample
from stratoscope.view.matplotlib.save import style
from stratoscope.view.sheet import fonts
from stratoscope.view.sheet.cell_words import colour_steps, words_in
from stratoscope.view.sheet.items import DPI, CellMap, Text
from stratoscope.view.sheet.lens import arrange_lens
from stratoscope.view.sheet.measures import measures_of
from stratoscope.view.spec import palette
from stratoscope.view.spec.lens import Lens
from stratoscope.view.spec.page import PLAIN_PAGE, Page
from stratoscope.view.spec.viewspec import ViewSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE, _HALO = 1.3, 2.6  # points of the line from which up an answer stays
_FEW_NUMBERS = 1.15  # inches of a chart that has room for two or three numbers
_LEAST_IN_AXES = 0.8  # of the points that were asked for
_HATCHES = "////"


def draw_lens(spec: ViewSpec, content: Lens, page: Page = PLAIN_PAGE) -> Picture:
    """The figure of what lenses read; its axes are the cells, then the charts."""
    arranged = arrange_lens(spec, content, page)
    sheet, theme, sizes = arranged.sheet, spec.colours.themes[spec.look.theme], measures_of(page)
    with mpl.rc_context(style()):
        figure = Picture(figsize=(sheet.width, sheet.height), dpi=DPI / 2, facecolor=theme.paper)
        FigureCanvasAgg(figure)
        figure.dots = sheet.dots
        for item in sheet.items:
            if isinstance(item, CellMap):
                mark_cells(draw_map(figure, sheet, item, spec, content.maps), spec, content)
            elif isinstance(item, Text):
                draw_text(figure, sheet, item)
        for one in arranged.charts:
            axes = figure.add_axes(place(sheet, one.x, one.y, one.width, one.height))
            draw_chart(axes, one.panel, one.name, (), theme, sizes)
            if one.panel.x.log:
                axes.xaxis.set_major_locator(LogLocator(numticks=4))
            elif one.width < _FEW_NUMBERS:
                axes.xaxis.set_major_locator(MaxNLocator(2))
            axes.set_yticks([row for row, _ in one.rows], [fonts.drawn(text) for _, text in one.rows])
        for entry in arranged.key:
            figure.add_artist(sample(entry.mark, entry.x, sheet.height - entry.y, theme, figure.dpi_scale_trans))
        draw_boxes(figure, sheet)
    return figure


def mark_cells(axes: Axes, spec: ViewSpec, content: Lens) -> None:
    """Hatch cells that change with the corpus, and draw from where up each column's answer stays, and first leads."""
    theme = spec.colours.themes[spec.look.theme]
    _hatch(axes, spec, content)
    there = content.stays >= 0
    columns, edges = np.arange(len(there)), content.stays - 0.5
    halo = [withStroke(linewidth=_HALO, foreground=theme.ring_halo)]
    line: dict[str, Any] = {"color": theme.ring, "linewidth": _LINE, "zorder": 2.5, "path_effects": halo}
    if not content.marks_first:
        axes.hlines(edges[there], columns[there] - 0.5, columns[there] + 0.5, **line)
        return
    x, y = np.stack([columns - 0.5, columns + 0.5], axis=1).ravel(), np.where(there, edges, np.nan).repeat(2)
    axes.plot(x, y, solid_capstyle="butt", **line)
    earlier = (content.first >= 0) & (content.first != content.stays)
    axes.scatter(
        columns[earlier] - 0.5, content.first[earlier], marker=9, s=16, color=theme.ring, linewidths=0, zorder=2.6,
        path_effects=halo,
    )  # fmt: skip


def _hatch(axes: Axes, spec: ViewSpec, content: Lens) -> None:
    """Lines over cells in a colour on which their words stay readable."""
    if not len(content.changing):
        return
    colours = spec.colours.of(signed=False)
    steps = colour_steps(spec, content)[tuple(content.changing.T)]
    for step in np.unique(steps).tolist():
        squares = [
            ((x - 0.5, y - 0.5), (x - 0.5, y + 0.5), (x + 0.5, y + 0.5), (x + 0.5, y - 0.5))
            for x, y in content.changing[steps == step].tolist()
        ]
        lines = palette.lines_on(palette.rgb_of(colours[step]))
        axes.add_collection(
            PolyCollection(squares, facecolors="none", edgecolors=lines, linewidths=0, hatch=_HATCHES, zorder=1.5),
            autolim=False,
        )


def draw_words(spec: ViewSpec, content: Lens, axes: Axes, points: float) -> None:
    """Write words of so many points, or a little less, into cells that are drawn in somebody's own axes; mark them."""
    box, (columns, rows) = axes.get_window_extent(), content.likeliest.shape
    pitch, row = (length / axes.figure.dpi for length in (box.width / columns, box.height / rows))
    words = words_in(spec, content, pitch, row, (_LEAST_IN_AXES * points, points))
    for one in words.cells:
        axes.text(
            one.column, one.row, one.text, size=words.size, color=one.colour, ha="center", va="center_baseline",
            family=fonts.families(), parse_math=False, zorder=3,
        )  # fmt: skip
    mark_cells(axes, spec, content)


def draw_charts_into(spec: ViewSpec, content: Lens, axes: Sequence[Axes], points: float) -> None:
    """Draw the charts of trajectories into somebody's own axes."""
    theme, sizes = spec.colours.themes[spec.look.theme], measures_of(Page(font_size=points))
    for panel, into in zip(content.charts, axes, strict=True):
        room = into.get_window_extent().width / into.figure.dpi
        draw_chart(into, panel, fonts.wrap(panel.x.label, points, room), (), theme, sizes)
        into.set_yticks([])
