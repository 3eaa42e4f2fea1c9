"""A sheet of routes → matplotlib: lines and curves, dots, boxes and texts, in the order of the sheet."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Circle, PathPatch, Rectangle
from matplotlib.path import Path

from stratoscope.view.matplotlib.figure import Picture, draw_text
from stratoscope.view.matplotlib.save import style
from stratoscope.view.sheet.items import DPI, Box, Dot, Line, Sheet, Text
from stratoscope.view.sheet.route_layout import arrange_routes
from stratoscope.view.spec.page import PLAIN_PAGE, Page
from stratoscope.view.spec.routes import Routes
from stratoscope.view.spec.viewspec import ViewSpec

_DASHES = (0, (3.0, 2.2))


def draw_routes(spec: ViewSpec, content: Routes, page: Page = PLAIN_PAGE) -> Picture:
    """The figure of a spec of routes; its axes are the whole page, in inches."""
    sheet = arrange_routes(spec, content, page)
    theme = spec.colours.themes[spec.look.theme]
    with mpl.rc_context(style()):
        figure = Picture(figsize=(sheet.width, sheet.height), dpi=DPI / 2, facecolor=theme.paper)
        FigureCanvasAgg(figure)
        figure.dots = sheet.dots
        for order, item in enumerate(sheet.items):
            if isinstance(item, Text):
                draw_text(figure, sheet, item)
            elif isinstance(item, Line | Dot | Box):
                patch = _patch(sheet, item)
                patch.set(transform=figure.dpi_scale_trans, zorder=1 + order / len(sheet.items))
                figure.add_artist(patch)
    return figure


def _patch(sheet: Sheet, item: Line | Dot | Box) -> PathPatch | Circle | Rectangle:
    """What matplotlib draws for it, in inches from the lower left corner."""
    if isinstance(item, Line):
        points = [(x, sheet.height - y) for x, y in item.points]
        codes = [Path.MOVETO, *([Path.CURVE4] * 3 if len(points) == 4 else [Path.LINETO] * (len(points) - 1))]
        return PathPatch(
            Path(points, codes), fill=False, edgecolor=item.colour, linewidth=item.width, alpha=item.opacity,
            linestyle=_DASHES if item.dashed else "solid", capstyle="butt",
        )  # fmt: skip
    if isinstance(item, Box):
        at = (item.x, sheet.height - item.y - item.height)
        return Rectangle(at, item.width, item.height, facecolor=item.fill or "none", edgecolor=item.edge or "none",
                         linewidth=0.6 if item.edge and not item.hatched else 0,
                         hatch="//////" if item.hatched else None)  # fmt: skip
    x, y, half = item.x, sheet.height - item.y, item.size / 2
    drawn: dict[str, Any] = {
        "facecolor": item.colour,
        "edgecolor": item.edge or "none",
        "linewidth": 0.5 if item.edge else 0,
    }
    if item.square:
        return Rectangle((x - half, y - half), item.size, item.size, alpha=item.opacity, **drawn)
    return Circle((x, y), half, alpha=item.opacity, **drawn)
