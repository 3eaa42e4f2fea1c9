"""Charts as data: lines with bands, points, intervals and densities on plain axes, for a ViewSpec of kind "chart"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stratoscope.view.spec.viewspec import Note, Provenance, ViewSpec

Style = Literal["a", "b", "plain", "accent", "muted"]  # the two sides of a comparison, everything else, what stands out
A: Style = "a"
B: Style = "b"
PLAIN: Style = "plain"
ACCENT: Style = "accent"
MUTED: Style = "muted"


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


@dataclass(frozen=True)
class Mark:
    """Something drawn.

    Attributes
    ----------
    kind
        "line" (x, y), "band" (along y: low, high), "points" (x, y), "intervals" (x, y, low, high: horizontal),
        "density" (counts, x_edges, y_edges), "vertical" and "horizontal" (x or y: lines across the chart), "span"
        (low, high: between two verticals), "words" (x, y, and `words`).
    style
        How.
    label
        For the key above the chart; "" = none.
    arrays
        Numbers by name.
    words
        One text for each point.
    """

    kind: str
    style: Style
    label: str = ""
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChartPanel:
    """One chart: its title, its axes and its marks, in drawing order; width relative to its neighbours."""

    title: str
    x: Axis
    y: Axis
    marks: Sequence[Mark]
    width: float = 1.0


def mark(kind: str, style: Style, label: str = "", *, words: Sequence[str] = (), **arrays: ArrayLike) -> Mark:
    """A mark of plain arrays."""
    return Mark(kind, style, label, {name: np.asarray(values) for name, values in arrays.items()}, tuple(words))


def chart(
    title: str,
    subtitle: str,
    panels: Sequence[ChartPanel],
    *,
    height: float,
    notes: Sequence[Note] = (),
    provenance: Provenance | None = None,
    facts: Mapping[str, Any] | None = None,
) -> ViewSpec:
    """A ViewSpec of charts side by side.

    Parameters
    ----------
    height
        Inches of the charts.
    """
    buffers: dict[str, NDArray[Any]] = {}
    described = []
    for number, panel in enumerate(panels):
        marks = []
        for place, one in enumerate(panel.marks):
            kept = {}
            for name, values in one.arrays.items():
                kept[name] = f"{number}/{place}/{name}"
                buffers[kept[name]] = values
            given = {"kind": one.kind, "style": one.style, "label": one.label, "words": list(one.words)}
            marks.append({**given, "arrays": kept})
        axes = {"x": asdict(panel.x), "y": asdict(panel.y)}
        described.append({"title": panel.title, "width": panel.width, **axes, "marks": marks})
    return ViewSpec(
        "chart",
        title,
        subtitle,
        content={"panels": described, "height": height},
        buffers=buffers,
        notes=tuple(notes),
        provenance=provenance or Provenance(),
        facts=dict(facts or {}),
    )


def layer_axis(numbers: Sequence[int], label: str = "layer") -> Axis:
    """The vertical axis of layers, the first at the bottom; labels sampled, first and last always there."""
    letter = "D" if label == "depth" else "L"
    last = len(numbers) - 1
    step = max(1, -(-len(numbers) // 10))
    places = [place for place in range(0, len(numbers), step) if last - place >= step or place == last]
    places = sorted({*places, last}) if last >= 0 else []
    return Axis(label, -0.6, last + 0.6, tuple((float(place), f"{letter}{numbers[place]}") for place in places))
