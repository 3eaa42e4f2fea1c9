"""Maps drawn into axes that a person already has: cells, labels and a small colour bar, and no page around them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from stratoscope import names
from stratoscope.errors import UsageError
from stratoscope.trace.notes import INFO
from stratoscope.view.matplotlib.lens import draw_charts_into, draw_words
from stratoscope.view.matplotlib.maps import draw_cells
from stratoscope.view.sheet import fonts
from stratoscope.view.sheet.footer import source_tag
from stratoscope.view.sheet.legend import round_numbers
from stratoscope.view.spec.lens import Lens
from stratoscope.view.spec.maps import PROMPT_ROWS, Map, MapPanel, MapQuantity, Maps
from stratoscope.view.spec.page import PAPER_POINTS, Page
from stratoscope.view.spec.palette import Theme
from stratoscope.view.spec.scale import Limits
from stratoscope.view.spec.viewspec import ViewSpec
from stratoscope.words import capital, counted, noted, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

GivenAxes: TypeAlias = "Axes | Iterable[Axes] | None"
_BAR = (1.02, 0.0, 0.025, 1.0)  # left, bottom, width and height of a colour bar, in parts of its axes
_CLOSE = 0.1  # of the length of a colour bar: a round number so near to a limit is left out
_SIMULATED = "L16"  # the note that says so; the tag does already


def axes_given(ax: GivenAxes, page: Page, out: object) -> list[Axes]:
    """The axes to draw into, in reading order; none = a page of its own.

    Raises
    ------
    InputError
        Something is asked for that only a page has.
    """
    if ax is None:
        return []
    if out is not None:
        fix = "Leave `out` away, and save your figure: figure.savefig(...)."
        raise UsageError("a map in your own axes is part of your figure", where="ax", fix=fix)
    if page != Page(font_size=page.font_size):
        fix = "Leave width, title and caption away: your axes have their own size and title."
        raise UsageError("a map in your own axes has no page", where="ax", fix=fix)
    given: list[Any] = list(np.asarray(ax, dtype=object).flat)
    if not given or not all(hasattr(one, "imshow") for one in given):
        raise UsageError(f"{ax!r} is no axes of matplotlib", where="ax", fix="Give what `plt.subplots()` returns.")
    return given


def draw_into(spec: ViewSpec, axes: Sequence[Axes], points: float | None) -> Figure:
    """Draw each map of a spec into one of the axes, all in one scale; the last has the colour bar.

    Raises
    ------
    InputError
        There are more or fewer maps than axes, or no maps.
    """
    content = spec.content
    if isinstance(content, Lens):
        return _draw_lens(spec, content, axes, points)
    if not isinstance(content, Maps):
        raise UsageError("a profile draws its own page", where="ax", fix="Leave `ax` away.")
    if len(content.maps) != len(axes):
        fix = "Choose as many prompts as axes: prompt=0 draws one map."
        drawn = counted(len(content.maps), "map")
        raise UsageError(f"this is {drawn}, and there are {len(axes)} axes", where="ax", fix=fix)
    theme, size = spec.colours.themes[spec.look.theme], points or PAPER_POINTS
    for note in spec.notes_now():
        if note.severity != INFO and note.id != _SIMULATED:
            warnings.warn(noted(note.id, note.text), stacklevel=4)
    for one, into in zip(content.maps, axes, strict=True):
        quantity, panel = content.quantities[one.quantity], content.panels[one.panel]
        image = draw_cells(into, one.cells[spec.look.first], quantity, spec, hatched=one.is_hatched)
        _label(into, spec, quantity, panel, size, theme)
        _mark(into, spec, one, size, theme)
    _colour_bar(axes[-1], image, quantity, quantity.colouring(spec.look).limits, size, theme)
    return cast("Figure", axes[0].get_figure(root=True))


def _draw_lens(spec: ViewSpec, content: Lens, axes: Sequence[Axes], points: float | None) -> Figure:
    """Cells into the first of the axes, trajectories into the others, if there are others."""
    charts = len(content.charts)
    if len(axes) not in (1, 1 + charts):
        fix = f"Give 1, for the cells, or {1 + charts}, with {counted(charts, 'chart')} of trajectories."
        raise UsageError(f"there are {len(axes)} axes", where="ax", fix=fix)
    figure = draw_into(replace(spec, content=content.maps), axes[:1], points)
    draw_words(spec, content, axes[0], points or PAPER_POINTS)
    if axes[1:]:
        draw_charts_into(spec, content, axes[1:], points or PAPER_POINTS)
    return figure


def _label(axes: Axes, spec: ViewSpec, quantity: MapQuantity, panel: MapPanel, size: float, theme: Theme) -> None:
    """Tokens below, as many as fit, layers at the left, the prompt above, and what is no recording."""
    font: dict[str, Any] = {"family": fonts.families(), "parse_math": False}
    box = axes.get_window_extent()
    wide, high = (length / axes.figure.dpi for length in (box.width, box.height))
    columns, rows = panel.columns, quantity.quantity.rows
    texts = [fonts.drawn_label(text) for text in spec.tokens.text[panel.start : panel.stop]]
    labelled = panel.tokens_per_column == 1 and bool(texts) and wide / columns >= 0.95 * fonts.height(size)
    if labelled:
        axes.set_xticks(range(columns), texts, rotation=90, fontsize=size, color=theme.ink, **font)
        for place in panel.dim:
            axes.get_xticklabels()[place].set_color(theme.faint)
    else:
        axes.set_xlabel("token", fontsize=size, color=theme.muted)
        axes.tick_params(axis="x", labelsize=size, labelcolor=theme.ink)
        by = panel.tokens_per_column
        axes.xaxis.set_major_formatter(lambda column, _: f"{round(column) * by:,}")
    step = max(1, int(np.ceil(1.2 * fonts.height(size) * len(rows) / high)))
    places = [*range(0, len(rows) - 1, step), len(rows) - 1] if step > 1 else list(range(len(rows)))
    if len(places) > 2 and places[-1] - places[-2] < step:
        del places[-2]
    axes.set_yticks(places, _row_labels(spec, quantity, places), fontsize=size, color=theme.ink, **font)
    axes.tick_params(length=0, pad=2)
    if not axes.get_title(loc="left"):
        axes.set_title(fonts.drawn(panel.title), loc="left", fontsize=size, color=theme.ink, pad=1.6 * size, **font)
    if spec.provenance.source != names.REAL:
        tag = source_tag(spec.provenance)
        axes.set_title(tag, loc="right", fontsize=0.9 * size, color=theme.accent, fontweight="bold", pad=1.6 * size)


def _row_labels(spec: ViewSpec, quantity: MapQuantity, places: Sequence[int]) -> list[str]:
    """L5 or D5; of rows that are prompts the prompts."""
    kind, rows = quantity.quantity.row_kind, quantity.quantity.rows
    if kind == PROMPT_ROWS:
        return [fonts.drawn_label(spec.tokens.prompts[rows[place]].id) for place in places]
    if kind == names.TARGET:
        return [""] * len(places)
    return [f"{names.ROW_LETTERS[kind]}{rows[place]}" for place in places]


def _mark(axes: Axes, spec: ViewSpec, one: Map, size: float, theme: Theme) -> None:
    """First tokens beyond the limits, spikes of pooled tokens, and columns that rest on too little."""
    marks = one.marks[spec.look.scale][spec.look.first]
    top = one.cells[spec.look.first].shape[1] - 0.5
    for column, words in marks.badges:
        axes.annotate(
            words, (column - 0.5, top), (0, 2), textcoords="offset points", fontsize=0.9 * size, color=theme.accent,
            fontweight="bold", annotation_clip=False,
        )  # fmt: skip
    for column in one.rarely_seen:
        axes.axvspan(column - 0.5, column + 0.5, fill=False, hatch="//////", edgecolor=theme.paper, linewidth=0)
    if len(marks.rings):
        axes.scatter(marks.rings[:, 0], marks.rings[:, 1], s=16, facecolors="none", edgecolors=theme.ring, linewidths=1)


def _colour_bar(axes: Axes, image: AxesImage, quantity: MapQuantity, limits: Limits, size: float, theme: Theme) -> None:
    """The colours between their limits, with the limits in figures; none where there is but one value."""
    if limits.state != "ok":
        return
    described = quantity.quantity
    unit = "" if described.unit in ("1", "as imported") else f" ({described.unit})"
    bar = axes.figure.colorbar(image, cax=axes.inset_axes(_BAR))
    if limits.by_row:
        ticks = [(0.0, "lower"), (1.0, "upper limit of its layer")]
    else:
        low, high = limits.low.item(), limits.high.item()
        between = [
            (value, number(value))
            for place, value in round_numbers(low, high, limits.kind)
            if _CLOSE < place < 1 - _CLOSE
        ]
        ticks = [(low, number(low)), *between, (high, number(high))]
    bar.set_ticks([value for value, _ in ticks], labels=[text for _, text in ticks])
    bar.outline.set_visible(False)
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=size, labelcolor=theme.ink, length=2, color=theme.line)
    bar.set_label(f"{capital(described.label)}{unit}", fontsize=size, color=theme.muted)
