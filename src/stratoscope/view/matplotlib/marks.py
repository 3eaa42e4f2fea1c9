"""What charts are drawn of, and the sample of each that stands before its words in the key: of its shape and colour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from stratoscope.view.sheet import fonts
from stratoscope.view.spec import palette
from stratoscope.view.spec.charts import (
    Band,
    Bars,
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
from stratoscope.view.spec.palette import Theme

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.transforms import Transform

SAMPLE = 0.17  # inches across
_LINE, _REFERENCE = 1.5, 0.9  # points
_POINT, _MEANT = 11, 22  # square points: a point, and one that the key names
_BAND, _SPAN = 0.2, 0.1  # how opaque
_LIGHT = 0.45  # of a light bar's colour is that of its side, the rest that of the paper
_DASHES, _BESIDE = (0, (4, 3)), (0, (2, 1))  # of references, and of dashed lines
_WORDS = 6.4  # points


def draw_mark(axes: Axes, mark: Mark, theme: Theme) -> None:
    """Draw what belongs to a chart."""
    ink = _ink(mark.style, theme)
    match mark:
        case Line():
            axes.plot(
                mark.x,
                mark.y,
                color=ink,
                linewidth=_REFERENCE if mark.style == "muted" else _LINE,
                linestyle=_BESIDE if mark.dashed else "-",
                solid_capstyle="round",
            )
        case Band():
            axes.fill_betweenx(mark.y, mark.low, mark.high, color=ink, alpha=_BAND, linewidth=0)
        case Points():
            size = _MEANT if mark.label else _POINT
            axes.scatter(mark.x, mark.y, s=size, color=ink, linewidths=0.3, edgecolors=theme.paper, zorder=3)
        case Intervals():
            axes.hlines(mark.y, mark.low, mark.high, color=ink, linewidth=_LINE)
            axes.scatter(mark.x, mark.y, s=_MEANT, color=ink, linewidths=0, zorder=3)
        case Bars():
            _bars(axes, mark, ink, theme)
        case Density():
            _density(axes, mark, theme)
        case Vertical():
            axes.axvline(mark.x, color=ink, linewidth=_REFERENCE, linestyle=_DASHES, zorder=1)
        case Horizontal():
            axes.axhline(mark.y, color=ink, linewidth=_REFERENCE, linestyle=_DASHES, zorder=1)
        case Span():
            axes.axvspan(mark.low, mark.high, color=ink, alpha=_SPAN, linewidth=0, zorder=0)
        case Words():
            _words(axes, mark, ink)
        case _:
            assert_never(mark)


def sample(mark: Mark, x: float, y: float, theme: Theme, inches: Transform) -> Artist:
    """What stands before the words of a mark in the key, `SAMPLE` inches wide, its left middle at (x, y)."""
    ink = _ink(mark.style, theme)
    match mark:
        case Band() | Span() | Density():
            opaque = 1.0 if isinstance(mark, Density) else _SPAN if isinstance(mark, Span) else _BAND
            return Rectangle((x, y - 0.04), SAMPLE, 0.08, color=ink, alpha=opaque, linewidth=0, transform=inches)
        case Bars():
            return _both_signs(mark, x, y, theme, inches)
        case Points() | Words():
            return Line2D(
                [x + SAMPLE / 2], [y], color=ink, marker="o", markersize=_MEANT**0.5, markeredgewidth=0, linewidth=0,
                transform=inches,
            )  # fmt: skip
        case Line() | Intervals() | Vertical() | Horizontal():
            dashed = isinstance(mark, Vertical | Horizontal)
            pattern: Any = _DASHES if dashed else _BESIDE if isinstance(mark, Line) and mark.dashed else "-"
            return Line2D(
                [x, x + SAMPLE / 2, x + SAMPLE], [y] * 3, color=ink, linewidth=_REFERENCE if dashed else _LINE,
                linestyle=pattern, marker="o" if isinstance(mark, Intervals) else "", markevery=[1],
                markersize=_MEANT**0.5, markeredgewidth=0, solid_capstyle="butt", transform=inches,
            )  # fmt: skip
        case _:
            assert_never(mark)


def _ink(style: Style, theme: Theme) -> str:
    return {**theme.sides, "plain": theme.ink, "accent": theme.accent, "muted": theme.muted}[style]


def _bars(axes: Axes, mark: Bars, ink: str, theme: Theme) -> None:
    colours = [_tinted(theme.side_a if value >= 0 else theme.side_b, mark, theme) for value in mark.x]
    axes.barh(mark.y, mark.x, height=mark.thickness, color=colours, linewidth=0, zorder=2)
    axes.hlines(mark.y, mark.low, mark.high, color=ink, linewidth=_REFERENCE, zorder=3)
    for x, y, low, high, words in zip(mark.x, mark.y, mark.low, mark.high, mark.words, strict=True):
        if words:  # behind the end of the bar, or of its interval
            right = x >= 0
            end = np.fmax(x, high) if right else np.fmin(x, low)
            axes.annotate(
                fonts.drawn(words), (end, y), (3 if right else -3, 0), textcoords="offset points",
                ha="left" if right else "right", va="center_baseline", size=_WORDS, color=ink,
                family=fonts.families(), parse_math=False, zorder=4,
            )  # fmt: skip


def _tinted_sides(mark: Bars, theme: Theme) -> list[str]:
    """Both colours of bars, that of negative ones first."""
    return [_tinted(colour, mark, theme) for colour in (theme.side_b, theme.side_a)]


def _tinted(colour: str, mark: Bars, theme: Theme) -> str:
    if mark.tint == "full":
        return colour
    (mixed,) = palette.hex_colours([_LIGHT * palette.rgb_of(colour) + (1 - _LIGHT) * palette.rgb_of(theme.paper)])
    return mixed


def _both_signs(mark: Bars, x: float, y: float, theme: Theme, inches: Transform) -> Artist:
    """A sample of bars of both signs, the negative one on the left."""
    halves = [Rectangle((x + place * SAMPLE / 2, y - 0.04), SAMPLE / 2, 0.08) for place in (0, 1)]
    return PatchCollection(halves, facecolors=_tinted_sides(mark, theme), linewidth=0, transform=inches)


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
            ha="left" if left else "right", size=_WORDS, color=ink, family=fonts.families(), parse_math=False,
            zorder=4,
        )  # fmt: skip
