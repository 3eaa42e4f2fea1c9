"""The charts of a diff: quantities over the layers, neurons over the layers, the change among random patches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.results.result import notes_in, table_in
from stratoscope.trace.notes import INFO, Note
from stratoscope.view.charts.parts import height_of, in_unit, joined, layer_axis, on_log_axis
from stratoscope.view.maps.diff import sides_in_words
from stratoscope.view.report.charts import charts
from stratoscope.view.report.report import Figure
from stratoscope.view.spec.charts import Axis, Band, ChartPanel, Line, Mark, Vertical
from stratoscope.words import capital, counted

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.view.spec.viewspec import ViewSpec

_MAIN = ("mlp_out_norm", "mlp_write_ratio", "attn_write_ratio", "mlp_write_cos", "attn_entropy_nosink", "resid_norm",
         "imported_norm")  # fmt: skip
_AMONG_PATCHES = ("mlp_out_norm", "mlp_write_ratio", "attn_write_ratio", "mlp_write_cos", "resid_norm")
_DECADES = 4  # of a logarithmic axis, at most, below its largest value
_TIMES_FLOOR = "|B − A|, times the floor"


def profiles(result: xr.DataTree) -> list[Figure]:
    """The median and the 95 % quantile of every main quantity over the layers, in floors where there is one."""
    there = result.attrs["parameters"]["quantity"]
    chosen = [name for name in _MAIN if name in there] or there[:4]
    figures = []
    for kind in (names.LAYER, names.DEPTH):
        tables = {name: table_in(result, f"profiles/{name}") for name in _with_rows(chosen, kind)}
        panels = [panel for name, table in tables.items() if (panel := _profile(table, name)) is not None]
        panels = panels if any(map(_differs, tables.values())) else []  # exact zeros have no place on these axes
        if panels:
            note = Note("L05", INFO, "Cells that are exactly equal stand at the left edge.")
            rows = next(iter(tables.values())).sizes[kind]
            spec = _charts(result, f"How far B is from A over the {kind}s", panels, rows, [note])
            figures.append(Figure(f"{kind}s", f"Over all prompts, {kind} by {kind}.", spec))
    return figures


def _with_rows(quantities: Iterable[str], kind: str) -> list[str]:
    return [name for name in quantities if names.QUANTITIES[name].row_kind == kind]


def _profile(table: xr.Dataset, quantity: str) -> ChartPanel | None:
    with_floor = "times_median" in table
    what = ("times_median", "times_95") if with_floor else ("size_median", "size_95")
    if what[0] not in table:
        return None
    row = names.QUANTITIES[quantity]
    middle, high = (table[name].values for name in what)
    axis, zero = _log_axis(_TIMES_FLOOR if with_floor else f"|B − A|{in_unit(row)}", middle, high, floor=with_floor)
    at = np.arange(len(middle), dtype=float)
    marks: list[Mark] = [Vertical(1.0, "muted")] if with_floor else []
    marks += on_log_axis(high, at, "muted", "95 % lie below", zero=zero)
    marks += on_log_axis(middle, at, "accent", "median", zero=zero)
    return ChartPanel(capital(row.label), axis, _layers(table, row), tuple(marks))


def _differs(table: xr.Dataset) -> bool:
    return bool(
        any(str(name).startswith(("size_", "times_")) and (one.values > 0).any() for name, one in table.items())
    )


def _layers(table: xr.Dataset, row: names.Quantity) -> Axis:
    return layer_axis(table[row.row_kind].values.tolist(), row.row_kind)


def neurons(result: xr.DataTree) -> list[Figure]:
    """How many columns are proved to have changed, and how many neurons of each layer exceed the floor."""
    changes = table_in(result, "neurons")
    if "times_floor" not in changes:
        return []
    times = changes["times_floor"].values
    layers = layer_axis(changes[names.LAYER].values.tolist())
    panels, caption = [], "Neurons whose mean activation moved beyond the noise floor, and how far it moved at most."
    if "column_changed" in changes and (changed := changes["column_changed"].values).any():
        caption = "Columns proved to have another norm, and neurons whose mean activation moved beyond the noise floor."
        panels.append(_counts("Columns proved to have another norm", "columns", changed, layers))
    panels.append(_counts("Activation beyond the floor in a prompt", "neurons", times > 1, layers))
    most = np.where(np.isfinite(times), times, -1).max(axis=1, initial=-1)
    most = np.where(np.isfinite(times).any(axis=1), most, np.nan)
    axis, zero = _log_axis(_TIMES_FLOOR, most, floor=True)
    farthest = on_log_axis(most, np.arange(len(most), dtype=float), "accent", "", zero=zero)
    panels.append(ChartPanel("The activation farthest apart", axis, layers, (Vertical(1.0, "muted"), *farthest)))
    spec = _charts(result, "Neurons that changed, layer by layer", panels, len(most), [])
    return [Figure("neurons", caption, spec)]


def _counts(title: str, what: str, which: NDArray[np.bool_], layers: Axis) -> ChartPanel:
    """How many neurons of each layer; `which` [layer, neuron]."""
    count = which.sum(axis=1).astype(float)
    most = max(float(count.max(initial=0.0)), 1.0)
    axis = Axis(what, -0.04 * most, 1.06 * most)
    return ChartPanel(title, axis, layers, joined(count, np.arange(len(which), dtype=float), "accent"))


def null(result: xr.DataTree) -> list[Figure]:
    """The real change of each layer among those of random patches."""
    figures = []
    measured = result.attrs["summary"]["null"]["quantities"]
    for kind, file in ((names.LAYER, "null"), (names.DEPTH, "null-depths")):
        wanted = (name for name in _with_rows(_AMONG_PATCHES, kind) if name in measured)
        tables = {name: table_in(result, f"null/{name}") for name in wanted}
        if tables:
            title = f"The change among random patches of the same size, {kind} by {kind}"
            note = Note("L05", INFO, f"A {kind} in which nothing changed stands at the left edge.")
            panels = [_null_panel(table, names.QUANTITIES[name]) for name, table in tables.items()]
            rows = next(iter(tables.values())).sizes[kind]
            figures.append(Figure(file, "", _charts(result, title, panels, rows, [note])))
    return figures


def _null_panel(table: xr.Dataset, row: names.Quantity) -> ChartPanel:
    draws, real = table["random"].values, table["real"].values
    axis, zero = _log_axis(f"mean |change|{in_unit(row)}", draws, real)
    least, middle, most = (
        np.where(one > 0, one, np.nan) for one in (draws.min(axis=0), np.median(draws, axis=0), draws.max(axis=0))
    )
    at = np.arange(len(real), dtype=float)
    marks = (
        Band(at, least, most, "muted", f"{len(draws)} random patches"),
        Line(middle, at, "plain", "their median"),
        *on_log_axis(real, at, "accent", "B − A", zero=zero),
    )
    return ChartPanel(capital(row.label), axis, _layers(table, row), marks)


def _log_axis(label: str, *values: NDArray[np.floating], floor: bool = False) -> tuple[Axis, float]:
    """A logarithmic axis for these values, and where on it zeros stand; of multiples of the floor it shows 1."""
    known = np.concatenate([one.ravel() for one in values]).astype(np.float64)
    known = known[np.isfinite(known) & (known > 0)]
    high = max(float(known.max(initial=0.0)), 1.0 if floor else 0.0) or 1.0
    low = max(float(known.min(initial=high)), high / 10.0**_DECADES)
    low = min(low, 1.0) if floor else low
    step = (high / low) ** 0.04 * 1.1
    return Axis(label, low / step**3, high * step, log=True), low / step**2


def _charts(result: xr.DataTree, title: str, panels: list[ChartPanel], rows: int, notes: list[Note]) -> ViewSpec:
    summary = result.attrs["summary"]
    a, b = sides_in_words(summary)
    noise = [note for note in notes_in(result) if note.severity == INFO and note.id == "L14"]
    subtitle = f"A: {a} · B: {b} · {counted(summary['pairs'], 'prompt')}"
    return charts(result, title, subtitle, panels, height=height_of(rows), notes=[*notes, *noise])
