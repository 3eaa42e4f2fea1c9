"""The figure of a suppression: signed bars along the depth, direct and total effects in panels of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from stratoscope.analysis.results.result import table_in
from stratoscope.trace.arrays import Floats
from stratoscope.trace.notes import INFO, WARNING, Note
from stratoscope.view.charts.parts import layer_axis
from stratoscope.view.report import suppression_words as words
from stratoscope.view.report.charts import charts
from stratoscope.view.report.report import Facts, Figure
from stratoscope.view.spec.buffers import Numbers
from stratoscope.view.spec.charts import Axis, Bars, ChartPanel, Mark, Points, Vertical
from stratoscope.words import capital, counted, shortened

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.view.spec.viewspec import ViewSpec

_PLACE = {"attn": -0.2, "mlp": 0.2}  # of the bars of a layer: attention comes before the MLP, and lies below it
_TINT: dict[str, Literal["full", "light"]] = {"attn": "light", "mlp": "full"}
_THICK = 0.36
_NAMED = 2  # bars of either sign that are named
_TITLES = {
    "direct": "Direct contribution, at the answer position",
    "total": "Total effect, {}, all tokens but the first",
}
_SIGNS = ("suppresses", "promotes")
_MOST_CLASS = 24  # characters of a class' name beside an axis
_PER_LAYER, _LEAST, _MOST = 0.17, 1.9, 6.2  # inches of a chart
_ROOM, _EDGE = 0.27, 0.03  # of the axis, on a side where a bar is named, and where none is


@dataclass(frozen=True)
class _Rows:
    """Values of a panel.

    Attributes
    ----------
    blocks, bands
        Of attention and MLP one a layer, and half widths of their intervals.
    beside
        Rows that have no layer: value and half width of the interval by name.
    found, mark
        Which of the blocks are marked, and what that means.
    """

    blocks: Mapping[str, Floats]
    bands: Mapping[str, Floats]
    beside: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    found: Mapping[str, np.ndarray] = field(default_factory=dict)
    mark: str = ""


def depth(result: xr.DataTree) -> Figure:
    """What each layer does: of one prompt, or the mean of all."""
    summary = result.attrs["summary"]
    rows = {}
    for measure in _measures(summary):
        _, blocks = words.mean_blocks(result, measure)
        bands = {part: np.full(len(of), np.nan) for part, of in blocks.items()}
        beside = {}
        if measure == "direct" and "sum" in result:
            beside["embedding"] = (float(np.mean(table_in(result, "sum")["embedding"].values)), np.nan)
        rows[measure] = _Rows(blocks, bands, beside)
    caption = "Each layer's attention and MLP. The two measures have scales of their own and are no common ranking."
    return Figure("depth", caption, _spec(result, f"What promotes and suppresses {words.subject(summary)}", rows))


def classes(result: xr.DataTree) -> list[Figure]:
    """The means of each class, over its prompts."""
    summary, table = result.attrs["summary"], table_in(result, "means")
    every = [table.isel({"class": place}) for place in range(table.sizes["class"])]
    ends = {measure: _ends([_of_class(one, measure) for one in every]) for measure in _measures(summary)}
    figures = []
    for place, name in enumerate(table["prompt_class"].values.tolist()):
        one = every[place]
        rows = {measure: _of_class(one, measure) for measure in _measures(summary)}
        of = counted(int(one["prompts"]), "prompt")
        title = (
            f"What promotes and suppresses {summary['target']}" + (f" in {name}" if name else "") + f": mean of {of}"
        )
        lines = " Lines are 95 % intervals over the prompts." if int(one["prompts"]) > 1 else ""
        lines += words.belief(summary)
        figures.append(Figure(f"depth-{place + 1}", f"Means over {of}.{lines}", _spec(result, title, rows, ends)))
    return figures


def _of_class(means: xr.Dataset, measure: str) -> _Rows:
    return _Rows(
        {part: means[f"{part}_{measure}"].values for part in words.PARTS},
        {part: means[f"{part}_{measure}_band"].values for part in words.PARTS},
    )


def difference(result: xr.DataTree) -> Figure | None:
    """What differs between two classes; None where nothing is compared."""
    summary, alpha = result.attrs["summary"], result.attrs["parameters"]["alpha"]
    rows = {}
    for measure in _measures(summary):
        if (name := f"{measure}_compared") in result:
            rows[measure] = _of_comparison(table_in(result, name), alpha)
    if not rows:
        return None
    a, b = summary["a"], summary["b"]
    title = f"What promotes and suppresses {summary['target']}: {a} − {b}"
    banded = any(np.isfinite(band).any() for of in rows.values() for band in of.bands.values())
    lines = " Lines are 95 % intervals." if banded else ""
    if banded and not summary["test"]:
        lines = " Lines are 95 % intervals; nothing was tested, the units are too few."
    caption = f"Mean differences, {a} − {b}: {summary['units']}.{lines}"
    signs = (f"more in {shortened(b, _MOST_CLASS)}", f"more in {shortened(a, _MOST_CLASS)}")
    return Figure("difference", caption, _spec(result, title, rows, signs=signs))


def _measures(summary: Facts) -> list[str]:
    """What there is, the direct contributions on the left."""
    return [measure for measure in _TITLES if summary[measure]]


def _of_comparison(table: xr.Dataset, alpha: float) -> _Rows:
    part, names = table["part"].values.astype(str), {"attn": "attention", "mlp": "mlp"}
    values, bands, q = (table[name].values for name in ("difference", "band", "q"))
    alone = np.flatnonzero(table["layer"].values < 0).tolist()
    return _Rows(
        {one: values[part == name] for one, name in names.items()},
        {one: bands[part == name] for one, name in names.items()},
        {str(part[row]): (float(values[row]), float(bands[row])) for row in alone},
        {one: q[part == name] <= alpha for one, name in names.items()},
        f"q ≤ {alpha:g}",
    )


def _spec(
    result: xr.DataTree,
    title: str,
    rows: Mapping[str, _Rows],
    ends: Mapping[str, tuple[float, float]] | None = None,
    *,
    signs: tuple[str, str] = _SIGNS,
) -> ViewSpec:
    """The figure.

    Parameters
    ----------
    ends
        Those of the values of each measure, where several figures have the same axis.
    signs
        What negative and positive values mean.
    """
    summary = result.attrs["summary"]
    layers = table_in(result, "depth")["layer"].values.tolist()
    places = _beside([name for of in rows.values() for name in of.beside], len(layers))
    ends = ends or {measure: _ends([of]) for measure, of in rows.items()}
    how = "first order" if summary["steps"] == 1 else f"mean of {summary['steps']} steps"
    kinds = words.drawn_kinds(summary)
    mark = words.mark_of(summary, *kinds) if "total" in rows else ""
    marks = {"total": mark}  # contributions are exact
    panels = []
    for measure, of in rows.items():
        name = words.marked(_TITLES[measure].format(how), marks.get(measure, ""))
        panels.append(_panel(name, of, layers, places, _across(ends[measure], of, signs)))
    said = words.calibrations(summary, *kinds) if "total" in rows else []
    notes = [Note("L28", WARNING if mark else INFO, text) for text in said]
    height = float(np.clip(_PER_LAYER * (len(layers) + len(places)), _LEAST, _MOST))
    return charts(result, title, "", panels, height=height, notes=notes)


def _beside(names: Sequence[str], layers: int) -> dict[str, float]:
    """Where rows without a layer are: the embedding below L0, all others above the last layer."""
    above = [name for name in dict.fromkeys(names) if name != "embedding"]
    found = {name: layers + 0.2 + place for place, name in enumerate(above)}
    return ({"embedding": -1.2} if "embedding" in names else {}) | found


def _axis(layers: list[int], places: Mapping[str, float], named: Sequence[str]) -> Axis:
    """The axis of layers; as high as `places` take it, so that those of all panels are level."""
    of_layers = layer_axis(layers)
    ticks = (*of_layers.ticks, *((places[name], name) for name in named))
    ends = [-0.6, len(layers) - 0.4, *(place + side for place in places.values() for side in (-0.6, 0.6))]
    return Axis("", min(ends), max(ends), tuple(sorted(ticks)))


def _panel(
    title: str,
    rows: _Rows,
    layers: list[int],
    places: Mapping[str, float],
    across: Axis,
) -> ChartPanel:
    marks: list[Mark] = [Vertical(0.0, "muted")]
    named = _named(rows)
    for part, values in rows.blocks.items():
        at = np.arange(len(values), dtype=np.float64) + _PLACE[part]
        called = tuple(
            f"L{layers[row]} {words.PARTS[part]} {words.signed(float(values[row]))}" if (part, row) in named else ""
            for row in range(len(values))
        )
        marks.append(_bars(values, rows.bands[part], at, called, _TINT[part], capital(words.PARTS[part])))
    beside = [name for name in places if name in rows.beside]
    if beside:
        values, widths = (np.array([rows.beside[name][place] for name in beside]) for place in (0, 1))
        at = np.array([places[name] for name in beside], np.float64)
        marks.append(_bars(values, widths, at, ("",) * len(beside), "full", ""))
    found = [
        (rows.blocks[part][row], row + _PLACE[part]) for part, of in rows.found.items() for row in np.flatnonzero(of)
    ]
    if found:
        x, y = np.array(found, np.float64).T
        marks.append(Points(x, y, "accent", rows.mark))
    return ChartPanel(title, across, _axis(layers, places, beside), tuple(marks))


def _bars(
    values: Numbers, bands: Numbers, at: Numbers, called: tuple[str, ...], tint: Literal["full", "light"], label: str
) -> Bars:
    return Bars(np.nan_to_num(values), at, values - bands, values + bands, called, _THICK, tint, "plain", label)


def _named(rows: _Rows) -> set[tuple[str, int]]:
    """The longest bars of either sign: their part and layer."""
    some = [
        (float(value), part, row)
        for part, values in rows.blocks.items()
        for row, value in enumerate(values)
        if np.isfinite(value)
    ]
    found = set()
    for sign in (1, -1):
        right = sorted((one for one in some if sign * one[0] > 0), key=lambda one: -abs(one[0]))
        found |= {(part, row) for _, part, row in right[:_NAMED]}
    return found


def _ends(panels: Sequence[_Rows]) -> tuple[float, float]:
    """The least and the largest value of panels with one axis, intervals within; zero always is."""
    reach = [np.zeros(1)]
    for rows in panels:
        reach += [np.array([value, value - band, value + band]) for value, band in rows.beside.values()]
        for part, of in rows.blocks.items():
            reach += [of, of - rows.bands[part], of + rows.bands[part]]
    known = np.concatenate(reach)
    known = known[np.isfinite(known)]
    return float(known.min()), float(known.max())


def _across(ends: tuple[float, float], rows: _Rows, meaning: tuple[str, str]) -> Axis:
    """The axis of values, with room for the names of bars; `meaning` is that of negative and positive values."""
    low, high = ends if ends[0] < ends[1] else (-1.0, 1.0)
    signs = {float(np.sign(rows.blocks[part][row])) for part, row in _named(rows)}
    left, right = (_ROOM if sign in signs else _EDGE for sign in (-1.0, 1.0))
    whole = (high - low) / (1 - left - right)
    return Axis("logit: ← {} · {} →".format(*meaning), low - left * whole, high + right * whole)
