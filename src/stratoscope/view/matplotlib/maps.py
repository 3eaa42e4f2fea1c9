"""Sheet → matplotlib. Draws what the sheet says, with a figure of its own: no global state, no style of the user's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import EllipseCollection
from matplotlib.colors import ListedColormap, Normalize
from numpy.typing import NDArray

from stratoscope.trace.arrays import AnyFloats
from stratoscope.view.matplotlib.figure import Picture, draw_boxes, draw_text, font, place
from stratoscope.view.matplotlib.save import style
from stratoscope.view.sheet import fonts
from stratoscope.view.sheet.items import DPI, LABEL_PAD, CellMap, Ring, Sheet, Text
from stratoscope.view.sheet.layout import arrange
from stratoscope.view.spec import scale
from stratoscope.view.spec.maps import MapQuantity, Maps
from stratoscope.view.spec.page import PLAIN_PAGE, Page
from stratoscope.view.spec.viewspec import ViewSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

_RING = 0.055  # inches across: 11 pixels of a bitmap


class ScaleNorm(Normalize):
    """Limits of a ViewSpec as a matplotlib norm; values beyond them take the end colours, NaN none."""

    def __init__(self, limits: scale.Limits) -> None:
        super().__init__(limits.low.item(), limits.high.item(), clip=True)
        self.limits = limits

    def __call__(self, value: Any, clip: bool | None = None) -> Any:
        """Values as 0..1."""
        values: NDArray[Any] = np.ma.filled(np.ma.asarray(value, dtype=float), np.nan)
        return np.ma.masked_invalid(self.limits.unit(values).clip(0, 1))

    def inverse(self, value: Any) -> Any:
        """Values at 0..1, for a colour bar."""
        low, high = (scale.forward(end, self.limits.kind) for end in (self.limits.low, self.limits.high))
        return scale.backward(low + np.asarray(value) * (high - low), self.limits.kind)


def draw_maps(spec: ViewSpec, content: Maps, page: Page = PLAIN_PAGE) -> Picture:
    """The figure of maps on a page; its axes are these, in reading order."""
    sheet = arrange(spec, content, page)
    colours = spec.colours.themes[spec.look.theme]
    with mpl.rc_context(style()):
        figure = Picture(figsize=(sheet.width, sheet.height), dpi=DPI / 2, facecolor=colours.paper)
        FigureCanvasAgg(figure)
        figure.dots = sheet.dots
        for item in sheet.items:
            if isinstance(item, CellMap):
                draw_map(figure, sheet, item, spec, content)
            elif isinstance(item, Text):
                draw_text(figure, sheet, item)
        draw_boxes(figure, sheet)
        _rings(figure, sheet)
    return figure


def draw_map(figure: Picture, sheet: Sheet, item: CellMap, spec: ViewSpec, content: Maps) -> Axes:
    """Draw one map of a sheet; gives its axes."""
    look, theme = spec.look, spec.colours.themes[spec.look.theme]
    one = content.maps[item.index]
    quantity = content.quantities[one.quantity]
    values = one.cells[look.first][item.start : item.stop]
    axes = figure.add_axes(place(sheet, item.x, item.y, item.width, item.height))
    rows = values.shape[1]
    draw_cells(axes, values, quantity, spec, start=item.start, hatched=one.is_hatched)
    if item.lines:
        axes.vlines(np.arange(item.start, item.stop - 1) + 0.5, -0.5, rows - 0.5, theme.paper, linewidth=0.6)
        axes.hlines(np.arange(rows - 1) + 0.5, item.start - 0.5, item.stop - 0.5, theme.paper, linewidth=0.6)
    for cell in item.cells:
        axes.text(
            cell.column,
            cell.row,
            cell.text,
            size=item.cell_size,
            color=cell.colour,
            ha="center",
            va="center_baseline",
            family=fonts.families(),
            parse_math=False,
        )
    axes.set_xlim(item.start - 0.5, item.stop - 0.5)
    axes.set_ylim(-0.5, rows - 0.5)
    below = item.columns[0][1].y - item.y - item.height if item.columns else LABEL_PAD
    beside = item.x - item.rows[0][1].x if item.rows else LABEL_PAD
    for axis, labels, pad in ((axes.xaxis, item.columns, below), (axes.yaxis, item.rows, beside)):
        axis.set_tick_params(length=0, pad=pad * 72)
        axis.set_ticks([place for place, _ in labels], [fonts.drawn(label.text) for _, label in labels])
        for tick, (_, label) in zip(axis.get_ticklabels(), labels, strict=True):
            tick.set(**font(label), ha=label.ha, va=label.va)
    return axes


def draw_cells(
    axes: Axes, values: AnyFloats, quantity: MapQuantity, spec: ViewSpec, *, start: int = 0, hatched: bool = True
) -> AxesImage:
    """Draw values of shape (columns, rows) as cells, the first column at `start`; what is missing may be hatched."""
    theme = spec.colours.themes[spec.look.theme]
    axes.set_facecolor(theme.missing if hatched else theme.paper)
    if hatched:
        axes.patch.set(hatch="//////", edgecolor=theme.missing_line, linewidth=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    shown, norm = _shown(values, quantity.colouring(spec.look).limits)
    table = ListedColormap(spec.colours.of(signed=quantity.quantity.signed), name="stratoscope")
    columns, rows = values.shape
    return axes.imshow(
        shown.T,
        norm=norm,
        cmap=table.with_extremes(bad=(0, 0, 0, 0)),
        origin="lower",
        aspect="auto",
        interpolation="nearest",  # cells become whole dots in every file: few readers keep a small image sharp
        interpolation_stage="rgba",  # colours first: cells are fewer than pixels
        extent=(start - 0.5, start + columns - 0.5, -0.5, rows - 0.5),
    )


def _shown(values: AnyFloats, limits: scale.Limits) -> tuple[AnyFloats, Normalize]:
    """Data and norm of an image; with limits for each row the data are positions between them."""
    if limits.by_row:
        return limits.unit(values).clip(0, 1), Normalize(0, 1)
    low, high = limits.low.item(), limits.high.item()  # in the place of infinity, which matplotlib takes for missing
    return np.nan_to_num(values, nan=np.nan, posinf=high, neginf=low), ScaleNorm(limits)


def _rings(figure: Picture, sheet: Sheet) -> None:
    rings = [item for item in sheet.items if isinstance(item, Ring)]
    if not rings:
        return
    places = np.array([(ring.x, sheet.height - ring.y) for ring in rings])
    for colour, line in ((rings[0].halo, 1.9), (rings[0].colour, 1.0)):
        figure.add_artist(
            EllipseCollection(
                *(np.full(len(rings), size) for size in (_RING * 72, _RING * 72, 0)),
                units="points",
                offsets=places,
                offset_transform=figure.dpi_scale_trans,
                facecolors="none",
                edgecolors=colour,
                linewidths=line,
                zorder=2,
            )
        )
