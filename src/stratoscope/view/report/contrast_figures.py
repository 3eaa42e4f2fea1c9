"""The figures of a contrast, as ViewSpecs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.contrast.baseline import CONTROLS, SPLITS
from stratoscope.analysis.contrast.power import size_in_words, would_be_found
from stratoscope.analysis.results.result import notes_in, table_in
from stratoscope.trace.notes import INFO, WARNING, Note
from stratoscope.view import chart
from stratoscope.view.chart import Axis, ChartPanel, mark
from stratoscope.view.differences import can_differ
from stratoscope.view.map_spec import build
from stratoscope.view.quantities import DrawnQuantity
from stratoscope.view.report.contrast_words import headline
from stratoscope.view.report.page import provenance
from stratoscope.view.report.report import Figure
from stratoscope.view.report.rings import ringed
from stratoscope.view.strips import Strip, TokenAxis
from stratoscope.words import capital, counted, number, readable

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.view.spec import ViewSpec

_BINS = 240
_MOST_POINTS = 400  # neurons drawn one by one over the density
_LABELLED = 6
_BEFORE = 3  # equal tokens that are shown before the first edit
_LEAST_P = 1e-300


def volcano(result: xr.DataTree) -> Figure:
    """Effect against evidence, of every neuron."""
    summary, alpha = result.attrs["summary"], result.attrs["parameters"]["alpha"]
    neurons = table_in(result, "neurons")
    g, p, q = (neurons[name].values.ravel().astype(np.float64) for name in ("g", "p", "q"))
    known = np.isfinite(g) & np.isfinite(p)
    evidence = -np.log10(np.maximum(p, _LEAST_P))
    counts, x_edges, y_edges = np.histogram2d(g[known], evidence[known], bins=_BINS)
    discovered = known & (q <= alpha)
    order = np.argsort(np.where(known, evidence, -1))[::-1]
    shown = order[: min(_MOST_POINTS, int(known.sum()))]
    found, others = shown[discovered[shown]], shown[~discovered[shown]][:100]
    marks = [mark("density", chart.MUTED, x=[0], counts=counts, x_edges=x_edges, y_edges=y_edges)]
    if len(found):
        threshold = evidence[discovered].min()
        marks.append(mark("horizontal", chart.MUTED, y=[threshold]))
    marks.append(mark("points", chart.PLAIN, x=g[others], y=evidence[others]))
    for side, style, label in ((1, chart.A, summary["a"]), (-1, chart.B, summary["b"])):
        here = found[np.sign(g[found]) == side]
        if len(here):
            marks.append(mark("points", style, f"higher in {label}", x=g[here], y=evidence[here]))
    named = _apart(found if len(found) else others, g, evidence)
    layer, neuron = np.unravel_index(named, neurons["g"].shape)
    words = [f"L{neurons['layer'].values[row]} n{number}" for row, number in zip(layer, neuron, strict=True)]
    marks.append(mark("words", chart.PLAIN, words=words, x=g[named], y=evidence[named]))
    would = summary["neurons"]["would_find"]["g"]
    if not len(found) and would is not None:
        marks.append(mark("vertical", chart.MUTED, x=[-would, would]))
    hidden = int(discovered.sum()) - len(found)
    reach = 1.08 * float(np.abs(g[known]).max(initial=0.1))
    if not len(found) and would is not None:
        reach = max(reach, 1.08 * would)
    panel = ChartPanel(
        counted(summary["neurons"]["tested"], "neuron"),
        Axis(f"g ({summary['a']} − {summary['b']})", -reach, reach),
        Axis("−log₁₀ p", 0.0, 1.08 * max(float(evidence[known].max(initial=0.0)), 1.0)),
        marks,
        width=2.0,
    )
    title = _headline(result)
    said = [Note("L06", INFO, "Grey: how many neurons lie there; the outermost are points.")]
    if hidden:
        said.append(Note("L06", INFO, f"{hidden:,} more of the discoveries are only in the grey."))
    if len(found):
        said.append(Note("L13", INFO, f"Dashed: the weakest discovery, q ≤ {alpha:g}."))
        if not summary["neurons"]["measured"]:
            said.append(Note("L23", INFO, f"Effects (g) of discoveries are {summary['neurons']['estimates']}."))
    else:
        if would is not None:
            of_pairs = " for the middle neuron" if summary["design"] == "pairs" else ""
            said.append(Note("L31", INFO, f"Dashed: {would_be_found(f'|g| ≥ {number(would)}{of_pairs}')}."))
        said += _by_chance(summary)
    drawn = _chart(result, title, [panel], 4.2, said, units=_tested(summary))
    return Figure("volcano", f"{title}. Each neuron's effect against its evidence, {_tested(summary)}.", drawn)


def _apart(places: NDArray[np.int64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int64]:
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
    ticks = tuple((place, f"L{layer} n{neuron}") for place, layer, neuron in zip(at, layers, neurons, strict=True))
    marks = [mark("vertical", chart.MUTED, x=[0.0])]
    ranking = not found["discoveries"] and not found["measured"]
    if ranking and found["chance"]["sentence"]:
        chance = found["chance"]["largest_g"]
        marks.insert(0, mark("span", chart.MUTED, "as large by chance", low=[-chance], high=[chance]))
    for side, style, label in ((1, chart.A, summary["a"]), (-1, chart.B, summary["b"])):
        here = np.sign(g) == side
        if here.any():
            arrays = {"x": g[here], "y": at[here], "low": low[here], "high": high[here]}
            marks.append(mark("intervals", style, f"higher in {label}", **arrays))
    level = level_text(found["interval_level"])
    axis = Axis(f"g with {level} interval ({summary['a']} − {summary['b']})")
    if found["discoveries"]:
        title = "The neurons found: how large"
    elif found["measured"]:
        title = "The neurons of largest |g| in the tested units, measured in the others"
    else:
        title = "The largest |g|: a ranking without a discovery"
    chosen = found["discoveries"] or not found["measured"]  # by what is shown, so that the intervals allow for it
    panel = ChartPanel("", axis, Axis("", -0.7, count - 0.3, ticks), marks, width=1.8)
    units = f"{summary['units_held_out']}, held out" if found["measured"] else _tested(summary)
    said = [Note("L23", INFO, f"Effects (g) are {found['estimates']}."), *(_by_chance(summary) if ranking else ())]
    caption = f"{title}, {units}. Effects (g) are {found['estimates']}" + (
        "; intervals allow for the choice." if chosen else "."
    )
    drawn = _chart(result, title, [panel], max(1.2, 0.19 * count), said, units=units)
    return Figure("strongest", caption, drawn)


def baseline(result: xr.DataTree) -> Figure | None:
    """How well a direction tells the classes apart in units it has not seen."""
    direction = table_in(result, "direction")
    auc, low, high = (direction[name].values for name in ("auc", "low", "high"))
    if not np.isfinite(auc).any():
        return None
    numbers = direction["layer"].values.tolist()
    at = np.arange(len(numbers), dtype=float)
    marks = [
        mark("band", chart.MUTED, "random labels, 95 %", y=at, low=low, high=high),
        mark("vertical", chart.MUTED, x=[0.5]),
        mark("line", chart.ACCENT, "the classes", x=auc, y=at),
        mark("points", chart.ACCENT, x=auc, y=at),
    ]
    panel = ChartPanel("", Axis("AUC in the half that did not choose it"), chart.layer_axis(numbers), marks)
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
    caption = (
        "Area under the ROC curve of the difference of means found in one half of the units and tried on the other, "
        f"mean of {SPLITS} splits; the band is the same under {CONTROLS} random labellings."
    )
    drawn = _chart(result, title, [panel], _height(len(numbers)), [said], units=summary["units"] + some, test="")
    return Figure("baseline", caption, drawn)


def profiles(result: xr.DataTree) -> list[Figure]:
    """The classes over the layers, a panel for each quantity."""
    summary = result.attrs["summary"]
    alpha = result.attrs["parameters"]["alpha"]
    tables = {quantity: table_in(result, f"profiles/{quantity}") for quantity in summary["profiles"]["quantities"]}
    by_rows: dict[str, list[ChartPanel]] = {names.LAYER: [], names.DEPTH: []}
    heights: dict[str, int] = {}
    for quantity, here in tables.items():
        row = names.QUANTITIES[quantity]
        kind = row.row_kind
        numbers = here[kind].values.tolist()
        at = np.arange(len(numbers), dtype=float)
        draw = _profile_of_pairs if summary["design"] == "pairs" else _profile_of_classes
        marks, middle, axis = draw(here, row, summary, at)
        differs = here["q"].values <= alpha
        if differs.any():
            marks.append(mark("points", chart.ACCENT, f"q ≤ {alpha:g}", x=middle[differs], y=at[differs]))
        by_rows[kind].append(ChartPanel(capital(row.label), axis, chart.layer_axis(numbers, kind), marks))
        heights[kind] = len(numbers)
    drawn = []
    for kind, panels in by_rows.items():
        if panels:
            title = f"{summary['a']} and {summary['b']} over the {kind}s"
            note = Note(
                "L05",
                INFO,
                "Means over the tokens of the span, first tokens left out; geometric where the scale is logarithmic.",
            )
            of = summary["profiles"]
            said = [note]
            if of["fewest_units"] < min(_sizes(list(tables.values()))):
                said.append(Note("L12", INFO, f"The fewest units behind a mean: {of['fewest_units']}."))
            if not (of["discoveries"] or of["family_wise"]) and (size := size_in_words(of["would_find"], "mean")):
                text = f"No mean has q ≤ {alpha:g}; {would_be_found(f'one with {size}')}."
                said.append(Note("L31", INFO, text))
            title = capital(title)
            spec = _chart(result, title, panels, _height(heights[kind]), said, units=of["units"])
            name = "profiles" if kind == names.LAYER else "profiles-depth"
            paired = "Mean differences within pairs" if summary["design"] == "pairs" else "Means of both classes"
            drawn.append(Figure(name, f"{paired} with 95 % intervals, {kind} by {kind}; {of['units']}.", spec))
    return drawn


def _profile_of_pairs(here: xr.Dataset, row: names.Quantity, summary: dict[str, Any], at: Any) -> Any:
    """The mean difference within pairs: the classes themselves would look the same."""
    mean, band = here["difference"].values, here["band"].values
    marks = [
        mark("vertical", chart.MUTED, x=[0.0]),
        mark("band", chart.PLAIN, y=at, low=mean - band, high=mean + band),
        mark("line", chart.PLAIN, x=mean, y=at),
    ]
    what = "log₂ ratio" if row.log else "difference"
    return marks, mean, Axis(f"{what}, {summary['a']} − {summary['b']}")


def _doubled(powers: Any) -> Any:
    """Two to the power of each; what reaches farther than ticks of a chart can be numbers, 3e150, ends there."""
    return np.exp2(np.clip(powers, -500, 500))


def _profile_of_classes(here: xr.Dataset, row: names.Quantity, summary: dict[str, Any], at: Any) -> Any:
    marks = []
    scale: Callable[[Any], Any] = _doubled if row.log else np.asarray
    for side, style in (("a", chart.A), ("b", chart.B)):
        mean, band = here[f"mean_{side}"].values, here[f"band_{side}"].values
        marks.append(mark("band", style, y=at, low=scale(mean - band), high=scale(mean + band)))
        marks.append(mark("line", style, summary[side], x=scale(mean), y=at))
    middle = scale((here["mean_a"].values + here["mean_b"].values) / 2)
    unit = "" if row.unit == "1" else f" ({row.unit})"
    return marks, middle, Axis(f"{row.name}{unit}", log=row.log)


def aligned(result: xr.DataTree) -> Figure | None:
    """Mean difference of twins on the k-th equal token after the first edit."""
    if "aligned" not in result:
        return None
    summary = result.attrs["summary"]
    quantity = summary["aligned"]["quantity"]
    cells = table_in(result, f"aligned/{quantity}")
    reached = np.isfinite(cells["difference"].values).any(axis=0)
    if not reached.any():
        return None
    last = int(np.flatnonzero(reached)[-1]) + 1
    values = cells["difference"].values.T[:last]
    units = cells["units"].values[:last]
    labels = [f"+{place + 1}" for place in range(last)]
    alpha = result.attrs["parameters"]["alpha"]
    differs = np.argwhere(cells["q"].values.T[:last] <= alpha)
    note = Note("L13", INFO, f"Rings: cells with q ≤ {alpha:g}." if len(differs) else f"No cell has q ≤ {alpha:g}.")
    reach = Note(
        "L12",
        INFO,
        f"{units[0]} {summary['aligned']['noun']} reach +1, {units[-1]} reach {labels[-1]}; +k is the k-th equal token "
        "after the first edit.",
    )
    notes, of = [note, reach], summary["aligned"]
    if not of["discoveries"] and of["would_find_d_z"] is not None:  # None: too few cells vary for any to be found
        size = f"|d_z| ≥ {number(of['would_find_d_z'])} in {of['most_units']} {of['noun']}"
        notes.append(Note("L31", INFO, f"{would_be_found(f'One cell with {size}')}."))
    title = f"How far an edit reaches: {summary['a']} − {summary['b']} on the tokens after it"
    numbers = cells[names.QUANTITIES[quantity].row_kind].values
    spec = _difference_map(result, title, values, labels, quantity, numbers, f"mean over {of['noun']}", notes)
    spec = ringed(spec, differs)
    return Figure("aligned", f"{title}: mean difference by layer and aligned token.", spec)


def first_pair(result: xr.DataTree) -> Figure | None:
    """The first pair token by token."""
    if "tokens" not in result:
        return None
    summary = result.attrs["summary"]
    quantity = summary["aligned"]["quantity"]
    tokens = table_in(result, "tokens")
    late = np.flatnonzero(tokens["before"].values)[:-_BEFORE]  # all equal, and long where there is a template
    shown = np.setdiff1d(np.arange(tokens.sizes["column"]), late)
    tokens, cells = (one.isel(column=shown) for one in (tokens, table_in(result, f"tokens/{quantity}")))
    from_a, from_b = tokens["text_a"].values, tokens["text_b"].values
    there_a, there_b = tokens["position_a"].values >= 0, tokens["position_b"].values >= 0
    labels = []
    for one, other, has_a, has_b in zip(from_a, from_b, there_a, there_b, strict=True):
        words = [readable(str(text), width=9) for text, has in ((one, has_a), (other, has_b)) if has]
        labels.append("→".join(dict.fromkeys(words)))
    title = f"One pair, {summary['aligned']['first_pair']}: {summary['a']} − {summary['b']}, token by token"
    left_out = f"; the first {len(late)} tokens are the same in both and left out" if len(late) else ""
    note = Note(
        "L11",
        INFO,
        "Hatched: tokens that are not equal in both prompts (written a→b); they are not compared" + left_out + ".",
    )
    numbers = cells[names.QUANTITIES[quantity].row_kind].values
    spec = _difference_map(
        result, title, cells["difference"].values, labels, quantity, numbers, "", [note],
        first=tokens["first"].values, alike=tokens["before"].values,
    )  # fmt: skip
    return Figure("first-pair", f"{title}. A single pair is an example and no evidence.", spec)


def _difference_map(
    result: xr.DataTree,
    title: str,
    values: Any,
    labels: list[str],
    quantity: str,
    numbers: NDArray[np.int64],
    said: str,
    notes: list[Note],
    first: Any = None,
    alike: Any = None,
) -> ViewSpec:
    row = names.QUANTITIES[quantity]
    label = f"{row.label}: log₂ ratio" if row.log else f"{row.label}: difference"
    unit = "1 = doubled" if row.log else row.unit
    described = DrawnQuantity(
        quantity, label, unit, row.formula_in(result), said, signed=True, row_kind=row.row_kind,
        rows=tuple(numbers.tolist()),
    )  # fmt: skip
    places = np.flatnonzero(first) if first is not None else np.empty(0, np.int64)
    tokens = TokenAxis("", "", labels, len(labels), first=places.astype(np.int64))
    return build(
        "heatmap", title, "", [tokens], [Strip(described, [values], counted=[can_differ(values, alike)])],
        choice="robust", first_token=False, notes=[*notes, *_warnings(result)], provenance=provenance(result),
    )  # fmt: skip


def level_text(level: float) -> str:
    """A level of confidence with as many digits as tell it from certainty: 95 %, 99.998 %."""
    digits = max(0, int(np.ceil(-np.log10(max(1 - level, 1e-12)))) - 2)
    return f"{100 * level:.{digits}f} %"


def _headline(result: xr.DataTree) -> str:
    return headline(result.attrs["summary"])


def _tested(summary: dict[str, Any]) -> str:
    """The units that neurons were tested in; those held out are named."""
    held_out = f" (tested; {summary['units_held_out']} held out)" if summary["units_held_out"] else ""
    return f"{summary['units_tested']}{held_out}"


def _by_chance(summary: dict[str, Any]) -> list[Note]:
    """The chance number, which is of the tested units, for figures of them."""
    sentence = summary["neurons"]["chance"]["sentence"]
    return [Note("L23", INFO, sentence)] if sentence else []


def _sizes(tables: Sequence[xr.Dataset]) -> tuple[int, int]:
    """The most units of either class behind any value."""
    most_a, most_b = (max(int(np.nanmax(one[f"count_{side}"].values)) for one in tables) for side in ("a", "b"))
    return most_a, most_b


def _chart(
    result: xr.DataTree,
    title: str,
    panels: list[ChartPanel],
    height: float,
    notes: list[Note],
    *,
    units: str,
    test: str | None = None,
) -> ViewSpec:
    """A chart of those units, which its subtitle names with their test."""
    summary = result.attrs["summary"]
    how = summary["test"] if test is None else test
    one = Note("L12", INFO, "The tokens of a prompt are no independent samples: prompts, pairs or groups are counted.")
    return chart.chart(
        title,
        f"{units} · {how}" if how else units,
        panels,
        height=height,
        notes=[*notes, one, *_warnings(result)],
        provenance=provenance(result),
        facts={"parameters": result.attrs["parameters"], "summary": summary},
    )


def _warnings(result: xr.DataTree) -> list[Note]:
    return [note for note in notes_in(result) if note.severity == WARNING]


def _height(rows: int) -> float:
    return float(np.clip(0.11 * rows, 1.6, 3.8))
