"""Charts, as a ViewSpec holds them: lines, bands, points, intervals, bars and densities on plain axes, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from stratoscope.view.spec.buffers import IndexTable, Numbers
from stratoscope.view.spec.document import Json
from stratoscope.view.spec.look import Look

Side = Literal["a", "b", "c", "d", "e", "f"]  # the two sides of a comparison, and more classes beside them
Style = Literal["a", "b", "c", "d", "e", "f", "plain", "accent", "muted"]  # … everything else, what stands out


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes
    ----------
    label
        What it shows, with the unit.
    low, high
        Its ends; None = where the marks end, with a little room.
    ticks
        (place, label) of each; none = round numbers.
    log
        Whether it is logarithmic.
    """

    label: str = ""
    low: float | None = None
    high: float | None = None
    ticks: tuple[tuple[float, str], ...] = ()
    log: bool = False


@dataclass(frozen=True, eq=False)
class Line:
    """A line through the points (x, y).

    Attributes
    ----------
    x, y
        Places, one of each for every point; NaN = a gap.
    style, label
        Its colour, and its words in the legend; "" = none.
    dashed
        Whether it is dashed: the same thing, otherwise measured.
    """

    x: Numbers
    y: Numbers
    style: Style
    label: str = ""
    dashed: bool = False
    kind: Literal["line"] = "line"


@dataclass(frozen=True, eq=False)
class Band:
    """A band from `low` to `high` along y.

    Attributes
    ----------
    y
        Places along the axis, one for every point.
    low, high
        Its ends there, on the axis of x.
    style, label
        Its colour, and its words in the legend; "" = none.
    """

    y: Numbers
    low: Numbers
    high: Numbers
    style: Style
    label: str = ""
    kind: Literal["band"] = "band"


@dataclass(frozen=True, eq=False)
class Points:
    """Points (x, y).

    Attributes
    ----------
    x, y
        Places, one of each for every point.
    style, label
        Its colour, and its words in the legend; "" = none.
    """

    x: Numbers
    y: Numbers
    style: Style
    label: str = ""
    kind: Literal["points"] = "points"


@dataclass(frozen=True, eq=False)
class Intervals:
    """Points (x, y) with horizontal intervals from `low` to `high`.

    Attributes
    ----------
    x, y
        Places, one of each for every point.
    low, high
        Ends of the intervals, on the axis of x.
    style, label
        Its colour, and its words in the legend; "" = none.
    """

    x: Numbers
    y: Numbers
    low: Numbers
    high: Numbers
    style: Style
    label: str = ""
    kind: Literal["intervals"] = "intervals"


@dataclass(frozen=True, eq=False)
class Bars:
    """Horizontal bars from zero to x; those above it have the colour of side a, those below that of side b.

    Attributes
    ----------
    x, y
        Ends and places, one of each for every bar.
    low, high
        Ends of an interval around x; NaN = none.
    words
        What stands at the end of each; "" = nothing.
    thickness
        Of a bar, on the axis of y.
    tint
        How strong the colours are.
    style, label
        The colour of the intervals, and its words in the legend; "" = none.
    """

    x: Numbers
    y: Numbers
    low: Numbers
    high: Numbers
    words: tuple[str, ...]
    thickness: float
    tint: Literal["full", "light"]
    style: Style
    label: str = ""
    kind: Literal["bars"] = "bars"


@dataclass(frozen=True, eq=False)
class Density:
    """Counts of shape (x, y) between edges, one more of each.

    Attributes
    ----------
    counts
        How many lie in each field, of shape (x, y).
    x_edges, y_edges
        Edges of the fields, one more than there are fields.
    style, label
        Its colour, and its words in the legend; "" = none.
    """

    counts: IndexTable
    x_edges: Numbers
    y_edges: Numbers
    style: Style
    label: str = ""
    kind: Literal["density"] = "density"


@dataclass(frozen=True)
class Vertical:
    """A line across the chart at x.

    Attributes
    ----------
    x
        Its place.
    style, label
        Its colour, and its words in the legend; "" = none.
    """

    x: float
    style: Style
    label: str = ""
    kind: Literal["vertical"] = "vertical"


@dataclass(frozen=True)
class Horizontal:
    """A line across the chart at y.

    Attributes
    ----------
    y
        Its place.
    style, label
        Its colour, and its words in the legend; "" = none.
    """

    y: float
    style: Style
    label: str = ""
    kind: Literal["horizontal"] = "horizontal"


@dataclass(frozen=True)
class Span:
    """The ground between the verticals `low` and `high`.

    Attributes
    ----------
    low, high
        Its ends on the axis of x.
    style, label
        Its colour, and its words in the legend; "" = none.
    """

    low: float
    high: float
    style: Style
    label: str = ""
    kind: Literal["span"] = "span"


@dataclass(frozen=True, eq=False)
class Words:
    """A text at each point (x, y).

    Attributes
    ----------
    x, y
        Places, one of each for every point.
    words
        The texts.
    style, label
        Its colour, and its words in the legend; "" = none.
    """

    x: Numbers
    y: Numbers
    words: tuple[str, ...]
    style: Style
    label: str = ""
    kind: Literal["words"] = "words"


Mark: TypeAlias = Line | Band | Points | Intervals | Bars | Density | Vertical | Horizontal | Span | Words


@dataclass(frozen=True)
class ChartPanel:
    """One chart.

    Attributes
    ----------
    title
        What stands above it.
    x, y
        Its axes.
    marks
        What is drawn, in this order.
    width
        Relative to its neighbours.
    """

    title: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    width: float = 1.0


@dataclass(frozen=True)
class Charts:
    """Charts side by side, `height` inches high.

    Attributes
    ----------
    panels
        The charts, from left to right.
    height
        Inches.
    """

    panels: tuple[ChartPanel, ...]
    height: float
    kind: Literal["charts"] = "charts"

    def shown(self, look: Look) -> Mapping[str, Json]:
        """How the numbers became this picture: charts have one look."""
        return {}
