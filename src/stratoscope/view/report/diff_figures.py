"""The charts of a diff: quantities over the layers, neurons over the layers, the change among random patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.results.result import notes_in, table_in
from stratoscope.trace.notes import INFO, WARNING, Note
from stratoscope.view import chart
from stratoscope.view.chart import Axis, ChartPanel, Mark, mark
from stratoscope.view.diff import sides_in_words
from stratoscope.view.report.page import provenance
from stratoscope.view.report.report import Figure
from stratoscope.words import capital, counted

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.view.spec import ViewSpec

_MAIN = ("mlp_out_norm", "mlp_write_ratio", "attn_write_ratio", "mlp_write_cos", "attn_entropy_nosink", "resid_norm",
         "imported_norm")  # fmt: skip
_DECADES = 4  # of a logarithmic axis, at most, below its largest value


def profiles(result: xr.DataTree) -> list[Figure]:
    """The median and the 95 % quantile of every main quantity over the layers, in floors where there is one."""
    there = result.attrs["parameters"]["quantity"]
    chosen = [name for name in _MAIN if name in there] or there[:4]
    figures = []
    for kind in (names.LAYER, names.DEPTH):
        of_kind = [name for name in chosen if names.QUANTITIES[name].row_kind == kind]
        panels = [
            panel for name in of_kind if (panel := _profile(table_in(result, f"profiles/{name}"), name)) is not None
        ]
        if panels:
            note = Note("L05", INFO, "Cells that are exactly equal stand at the left edge.")
            rows = table_in(result, f"profiles/{of_kind[0]}").sizes[kind]
            spec = _chart(result, f"How far B is from A over the {kind}s", panels, rows, [note])
            name = "layers" if kind == names.LAYER else "depths"
            figures.append(Figure(name, f"Differences of all prompts, {kind} by {kind}.", spec))
    return figures


def _profile(profile: xr.Dataset, quantity: str) -> ChartPanel | None:
    with_floor = "times_median" in profile
    what = ("times_median", "times_95") if with_floor else ("size_median", "size_95")
    if what[0] not in profile:
        return None
    row = names.QUANTITIES[quantity]
    middle, high = (profile[name].values.astype(np.float64) for name in what)
    low, top = _ends(np.concatenate([middle, high]), around=1.0 if with_floor else None)
    at = np.arange(len(middle), dtype=float)
    middle, high = np.maximum(middle, low), np.maximum(high, low)
    marks: list[Mark] = [mark("vertical", chart.MUTED, x=[1.0])] if with_floor else []
    marks += [
        mark("line", chart.MUTED, "95 % lie below", x=high, y=at),
        mark("line", chart.ACCENT, "median", x=middle, y=at),
        mark("points", chart.ACCENT, x=middle, y=at),
    ]
    label = "|B − A|, times the floor" if with_floor else f"|B − A| ({row.unit})"
    title = capital(row.label)
    numbers = profile[row.row_kind].values.tolist()
    return ChartPanel(title, Axis(label, low, top, log=True), chart.layer_axis(numbers, row.row_kind), marks)


def neurons(result: xr.DataTree) -> list[Figure]:
    """How many columns are proved to have changed, and how many neurons of each layer exceed the floor."""
    changes = table_in(result, "neurons")
    if "times_floor" not in changes:
        return []
    at = np.arange(changes.sizes[names.LAYER], dtype=float)
    axis = chart.layer_axis(changes[names.LAYER].values.tolist())
    panels = []
    if "column_changed" in changes and changes["column_changed"].values.any():
        panels.append(_counts("Columns proved to have another norm", "columns", changes["column_changed"].values, axis))
    above = changes["times_floor"].values > 1
    panels.append(_counts("Activation beyond the floor in a prompt", "neurons", above, axis))
    largest = changes["times_floor"].values.astype(np.float64)
    most = np.where(
        np.isfinite(largest).any(axis=1), np.nanmax(np.where(np.isfinite(largest), largest, -1), axis=1), np.nan
    )
    low, high = _ends(most, around=1.0)
    marks = [
        mark("vertical", chart.MUTED, x=[1.0]),
        mark("line", chart.ACCENT, x=np.maximum(most, low), y=at),
        mark("points", chart.ACCENT, x=np.maximum(most, low), y=at),
    ]
    panels.append(
        ChartPanel("The activation farthest apart", Axis("|B − A|, times the floor", low, high, log=True), axis, marks)
    )
    spec = _chart(result, "Neurons that changed, layer by layer", panels, len(at), [])
    return [
        Figure(
            "neurons",
            "Neurons proved to have changed, and those whose mean activation moved beyond the noise floor.",
            spec,
        )
    ]


def _counts(title: str, what: str, which: NDArray[np.bool_], axis: Axis) -> ChartPanel:
    """How many neurons of each layer; `which` [layer, neuron]."""
    count, at = which.sum(axis=1).astype(float), np.arange(len(which), dtype=float)
    marks = [mark("line", chart.ACCENT, x=count, y=at), mark("points", chart.ACCENT, x=count, y=at)]
    return ChartPanel(title, Axis(what, 0.0, 1.08 * max(float(count.max(initial=0.0)), 1.0)), axis, marks)


def null(result: xr.DataTree) -> list[Figure]:
    """The real change of each layer among those of random patches."""
    figures = []
    measured = result.attrs["summary"]["null"]["quantities"]
    for kind, wanted in ((names.LAYER, ("mlp_out_norm", "mlp_write_ratio", "attn_write_ratio", "mlp_write_cos")),
                         (names.DEPTH, ("resid_norm",))):  # fmt: skip
        tables = {name: table_in(result, f"null/{name}") for name in wanted if name in measured}
        panels = [_null_panel(of, name) for name, of in tables.items()]
        if panels:
            title = f"The change among random patches of the same size, {kind} by {kind}"
            note = Note("L05", INFO, f"A {kind} in which nothing changed stands at the left edge.")
            rows = next(iter(tables.values())).sizes[kind]
            spec = _chart(result, title, panels, rows, [note])
            name = "null" if kind == names.LAYER else "null-depths"
            figures.append(Figure(name, f"{title}.", spec))
    return figures


def _null_panel(of: xr.Dataset, quantity: str) -> ChartPanel:
    draws, real = of["random"].values, of["real"].values
    at = np.arange(len(real), dtype=float)
    low, high = _ends(np.concatenate([draws.ravel(), real]), around=None)
    marks = [
        mark("band", chart.MUTED, f"{len(draws)} random patches", y=at, low=np.maximum(draws.min(axis=0), low),
             high=np.maximum(draws.max(axis=0), low)),
        mark("line", chart.PLAIN, "their median", x=np.maximum(np.median(draws, axis=0), low), y=at),
        mark("line", chart.ACCENT, "B − A", x=np.maximum(real, low), y=at),
        mark("points", chart.ACCENT, x=np.maximum(real, low), y=at),
    ]  # fmt: skip
    row = names.QUANTITIES[quantity]
    unit = "" if row.unit == "1" else f" ({row.unit})"
    title, axis = capital(row.label), chart.layer_axis(of[row.row_kind].values.tolist(), row.row_kind)
    return ChartPanel(title, Axis(f"mean |change|{unit}", low, high, log=True), axis, marks)


def _ends(values: NDArray[np.float64], around: float | None) -> tuple[float, float]:
    """Ends of a logarithmic axis; `around`: a value that it must show."""
    known = values[np.isfinite(values) & (values > 0)]
    high = max(float(known.max(initial=0.0)), around or 0.0) or 1.0
    low = max(float(known.min(initial=high)), high / 10.0**_DECADES)
    return min(low, around or low) / 1.3, high * 1.3


def _chart(result: xr.DataTree, title: str, panels: list[ChartPanel], rows: int, notes: list[Note]) -> ViewSpec:
    summary = result.attrs["summary"]
    a, b = sides_in_words(summary)
    about = [note for note in notes_in(result) if note.severity == WARNING or note.id == "L14"]
    return chart.chart(
        title,
        f"A: {a} · B: {b} · {counted(summary['pairs'], 'prompt')}",
        panels,
        height=float(np.clip(0.11 * rows, 1.6, 3.8)),
        notes=[*notes, *about],
        provenance=provenance(result),
        facts={"parameters": result.attrs["parameters"]},
    )
