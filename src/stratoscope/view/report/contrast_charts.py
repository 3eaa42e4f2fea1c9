"""The charts of a contrast: its neurons, the direction between its classes, their profiles over the layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.contrast.baseline import CONTROLS, SPLITS
from stratoscope.analysis.contrast.cautions import UNITS_COUNT
from stratoscope.analysis.contrast.power import size_in_words, would_be_found
from stratoscope.analysis.results.result import table_in
from stratoscope.trace.notes import INFO, Note
from stratoscope.view.charts.parts import height_of, in_unit, joined, layer_axis
from stratoscope.view.report.charts import charts
from stratoscope.view.report.contrast_words import headline, level_text
from stratoscope.view.report.report import Facts, Figure
from stratoscope.view.spec.buffers import Numbers, indices
from stratoscope.view.spec.charts import (
    Axis,
    Band,
    ChartPanel,
    Density,
    Horizontal,
    Intervals,
    Mark,
    Points,
    Span,
    Style,
    Vertical,
    Words,
)
from stratoscope.words import capital, counted, neuron_name, number

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.view.spec.viewspec import ViewSpec

_BINS = 240
_MOST_POINTS, _MOST_OTHERS = 400, 100  # neurons drawn one by one over the density, of them no discoveries
_LABELLED = 6
_LEAST_P = 1e-300
_SIDES: tuple[tuple[Style, int], ...] = (("a", 1), ("b", -1))  # and the sign of g where it is higher


def volcano(result: xr.DataTree) -> Figure:
    """Effect against evidence, of every neuron."""
    summary, alpha = result.attrs["summary"], result.attrs["parameters"]["alpha"]
    neurons = table_in(result, "neurons")
    g, p, q = (neurons[name].values.ravel() for name in ("g", "p", "q"))
    known = np.isfinite(g) & np.isfinite(p)
    evidence = -np.log10(np.maximum(p, _LEAST_P))
    discovered = known & (q <= alpha)
    order = np.argsort(np.where(known, evidence, -1))[::-1]
    shown = order[: min(_MOST_POINTS, int(known.sum()))]
    found, others = shown[discovered[shown]], shown[~discovered[shown]][:_MOST_OTHERS]
    would = None if len(found) else summary["neurons"]["would_find"]["g"]

    counts, x_edges, y_edges = np.histogram2d(g[known], evidence[known], bins=_BINS)
    marks: list[Mark] = [Density(indices(counts), x_edges, y_edges, "muted")]
    if len(found):
        marks.append(Horizontal(float(evidence[discovered].min()), "muted"))
    marks.append(Points(g[others], evidence[others], "plain"))
    for side, sign in _SIDES:
        here = found[np.sign(g[found]) == sign]
        if len(here):
            marks.append(Points(g[here], evidence[here], side, f"higher in {summary[side]}"))
    named = _apart(found if len(found) else others, g, evidence)
    layer, neuron = np.unravel_index(named, neurons["g"].shape)
    words = (neuron_name(neurons["layer"].values[row], one) for row, one in zip(layer, neuron, strict=True))
    marks.append(Words(g[named], evidence[named], tuple(words), "plain"))
    if would is not None:
        marks += [Vertical(-would, "muted"), Vertical(would, "muted")]

    reach = 1.08 * max(float(np.abs(g[known]).max(initial=0.1)), would or 0.0)
    panel = ChartPanel(
        counted(summary["neurons"]["tested"], "neuron"),
        Axis(f"g ({summary['a']} − {summary['b']})", -reach, reach),
        Axis("−log₁₀ p", 0.0, 1.08 * max(float(evidence[known].max(initial=0.0)), 1.0)),
        tuple(marks),
        width=2.0,
    )
    said = [Note("L06", INFO, "Grey: how many neurons lie there; the outermost are points.")]
    if hidden := int(discovered.sum()) - len(found):
        said.append(Note("L06", INFO, f"{hidden:,} more of the discoveries are only in the grey."))
    if len(found):
        said.append(Note("L13", INFO, f"Dashed: the weakest discovery, q ≤ {alpha:g}."))
        if not summary["neurons"]["measured"]:
            said.append(Note("L23", INFO, f"Effects (g) are {summary['neurons']['estimates']}."))
    else:
        if would is not None:
            of_pairs = " for the middle neuron" if summary["design"] == "pairs" else ""
            said.append(Note("L31", INFO, f"Dashed: {would_be_found(f'|g| ≥ {number(would)}{of_pairs}')}."))
        said += _by_chance(summary["neurons"])
    title, units = headline(summary), _tested(result)
    drawn = _charts(result, title, [panel], 4.2, said, units=units)
    return Figure("volcano", "Each neuron's effect (g) against its evidence (p).", drawn)


def _apart(places: NDArray[np.int64], x: Numbers, y: Numbers) -> NDArray[np.int64]:
    """Those whose names can be read: none too near one before it."""
    if not len(places):
        return places
    near_x, near_y = (0.13 * np.ptp(one[np.isfinite(one)]) for one in (x, y / 4))
    kept: list[int] = []
    for place in places.tolist():
        if all(abs(x[place] - x[one]) > near_x or abs(y[place] - y[one]) > near_y for one in kept):
            kept.append(place)
        if len(kept) == _LABELLED:
            break
    return np.array(kept, np.int64)


def strongest(result: xr.DataTree) -> Figure | None:
    """The listed neurons with their intervals, and what chance would give."""
    listed = table_in(result, "listed")
    count = listed.sizes["listed"]
    if not count:
        return None
    summary = result.attrs["summary"]
    found = summary["neurons"]
    at = np.arange(count)[::-1].astype(float)
    layers, neurons, g, low, high = (listed[name].values for name in ("layer", "neuron", "g", "low", "high"))
    ticks = tuple((place, neuron_name(layer, neuron)) for place, layer, neuron in zip(at, layers, neurons, strict=True))
    marks: list[Mark] = [Vertical(0.0, "muted")]
    ranking = not found["discoveries"] and not found["measured"]
    if ranking and found["chance"]["sentence"]:
        chance = found["chance"]["largest_g"]
        marks.insert(0, Span(-chance, chance, "muted", "as large by chance"))
    for side, sign in _SIDES:
        here = np.sign(g) == sign
        if here.any():
            marks.append(Intervals(g[here], at[here], low[here], high[here], side, f"higher in {summary[side]}"))
    if found["discoveries"]:
        title = "The neurons found: how large"
    elif found["measured"]:
        title = "The neurons of largest |g| in the tested units, measured in the others"
    else:
        title = "The largest |g|: a ranking without a discovery"
    axis = Axis(f"g with {level_text(found['interval_level'])} interval ({summary['a']} − {summary['b']})")
    panel = ChartPanel("", axis, Axis("neuron", -0.7, count - 0.3, ticks), tuple(marks), width=1.8)
    units = f"{summary['units_held_out']}, held out" if found["measured"] else _tested(result)
    said = [Note("L23", INFO, f"Effects (g) are {found['estimates']}."), *(_by_chance(found) if ranking else ())]
    chosen = found["discoveries"] or not found["measured"]  # by what is shown, so that the intervals allow for it
    caption = "The intervals allow for the choice of these neurons." if chosen else "The intervals are of these units."
    drawn = _charts(result, title, [panel], max(1.2, 0.19 * count), said, units=units)
    return Figure("strongest", caption, drawn)


def baseline(result: xr.DataTree) -> Figure | None:
    """How well a direction tells the classes apart in units it has not seen."""
    direction = table_in(result, "direction")
    auc, low, high = (direction[name].values for name in ("auc", "low", "high"))
    if not np.isfinite(auc).any():
        return None
    numbers = direction["layer"].values.tolist()
    at = np.arange(len(numbers), dtype=float)
    marks = (
        Band(at, low, high, "muted", "random labels, 95 %"),
        Vertical(0.5, "muted"),
        *joined(auc, at, "accent", "the classes"),
    )
    panel = ChartPanel("", Axis("AUC in the half that did not choose it"), layer_axis(numbers), marks)
    title = "How well the difference of means tells the classes apart"
    summary = result.attrs["summary"]
    from_a, from_b = summary["direction"]["units"]
    some = ""
    if (from_a, from_b) != _sizes([table_in(result, "neurons")]):
        some = f"; a random {from_a}" + ("" if summary["design"] == "pairs" else f" and {from_b}") + " of them"
    said = Note(
        "L12",
        INFO,
        f"Direction: the difference of means in one half, tried on the other; mean of {SPLITS} splits. Band: the same "
        f"splits and mean under {CONTROLS} random labellings"
        + (", members of a pair exchanged." if summary["design"] == "pairs" else "."),
    )
    caption = "AUC: the area under the ROC curve; 0.5 is chance."
    drawn = _charts(result, title, [panel], height_of(len(numbers)), [said], units=summary["units"] + some, test="")
    return Figure("baseline", caption, drawn)


def profiles(result: xr.DataTree) -> list[Figure]:
    """The classes over the layers, a panel for each quantity."""
    quantities = result.attrs["summary"]["profiles"]["quantities"]
    drawn = [_profiles_over(result, kind, quantities) for kind in (names.LAYER, names.DEPTH)]
    return [figure for figure in drawn if figure is not None]


def _profiles_over(result: xr.DataTree, kind: str, quantities: list[str]) -> Figure | None:
    """The profiles of those quantities that have layers, or depths."""
    summary, alpha = result.attrs["summary"], result.attrs["parameters"]["alpha"]
    tables = {name: table_in(result, f"profiles/{name}") for name in quantities}
    of_kind = [name for name in quantities if names.QUANTITIES[name].row_kind == kind]
    if not of_kind:
        return None
    panels = [_profile(result, tables[name], names.QUANTITIES[name]) for name in of_kind]
    of = summary["profiles"]
    means = "Means over the tokens of the span, first tokens left out; geometric where the scale is logarithmic."
    said = [Note("L05", INFO, means)]
    if of["fewest_units"] < min(_sizes(list(tables.values()))):
        said.append(Note("L12", INFO, f"The fewest units behind a mean: {of['fewest_units']}."))
    if not (of["discoveries"] or of["family_wise"]) and (size := size_in_words(of["would_find"], "mean")):
        said.append(Note("L31", INFO, f"No mean has q ≤ {alpha:g}; {would_be_found(f'one with {size}')}."))
    title = capital(f"{summary['a']} and {summary['b']} over the {kind}s")
    drawn = _charts(result, title, panels, height_of(tables[of_kind[-1]].sizes[kind]), said, units=of["units"])
    paired = "Mean differences within pairs" if summary["design"] == "pairs" else "Means of both classes"
    caption = f"{paired}, {kind} by {kind}; bands are 95 % intervals."
    return Figure("profiles" if kind == names.LAYER else "profiles-depth", caption, drawn)


def _profile(result: xr.DataTree, table: xr.Dataset, row: names.Quantity) -> ChartPanel:
    """One quantity; of pairs the mean difference within them, since the classes themselves would look the same."""
    summary, alpha = result.attrs["summary"], result.attrs["parameters"]["alpha"]
    at = np.arange(table.sizes[row.row_kind], dtype=float)
    marks: list[Mark]
    if summary["design"] == "pairs":
        middle, band = table["difference"].values, table["band"].values
        marks = [Vertical(0.0, "muted"), Band(at, middle - band, middle + band, "plain"), *joined(middle, at, "plain")]
        axis = Axis(f"{'log₂ ratio' if row.log else 'difference'}, {summary['a']} − {summary['b']}")
    else:
        marks = []
        for side, _ in _SIDES:
            mean, band = table[f"mean_{side}"].values, table[f"band_{side}"].values
            low, centre, high = (_doubled(one) if row.log else one for one in (mean - band, mean, mean + band))
            marks += [Band(at, low, high, side), *joined(centre, at, side, summary[side])]
        middle = (table["mean_a"].values + table["mean_b"].values) / 2
        middle = _doubled(middle) if row.log else middle
        axis = Axis(f"{row.name}{in_unit(row)}", log=row.log)
    differs = table["q"].values <= alpha
    if differs.any():
        marks.append(Points(middle[differs], at[differs], "accent", f"q ≤ {alpha:g}"))
    layers = layer_axis(table[row.row_kind].values.tolist(), row.row_kind)
    label = summary.get("labels", {}).get(row.name, row.label)
    return ChartPanel(capital(label), axis, layers, tuple(marks))


def _doubled(powers: Numbers) -> Numbers:
    """Two to the power of each; what reaches farther than ticks of a chart can be numbers, 3e150, ends there."""
    doubled: Numbers = np.exp2(np.clip(powers, -500, 500))
    return doubled


def _tested(result: xr.DataTree) -> str:
    """The units that neurons were tested in; those held out are named."""
    summary = result.attrs["summary"]
    held_out = f" (tested; {summary['units_held_out']} held out)" if summary["units_held_out"] else ""
    return f"{summary['units_tested']}{held_out}"


def _by_chance(found: Facts) -> list[Note]:
    """The chance number, which is of the tested units, for figures of them."""
    sentence = found["chance"]["sentence"]
    return [Note("L23", INFO, sentence)] if sentence else []


def _sizes(tables: Sequence[xr.Dataset]) -> tuple[int, int]:
    """The most units of either class behind any value."""
    a, b = (max(int(np.nanmax(one[f"count_{side}"].values)) for one in tables) for side, _ in _SIDES)
    return a, b


def _charts(
    result: xr.DataTree, title: str, panels: list[ChartPanel], height: float, notes: list[Note], *, units: str,
    test: str | None = None,
) -> ViewSpec:  # fmt: skip
    """Charts of those units, which their subtitle names with their test."""
    how = result.attrs["summary"]["test"] if test is None else test
    subtitle = f"{units} · {how}" if how else units
    return charts(result, title, subtitle, panels, height=height, notes=[*notes, UNITS_COUNT])
