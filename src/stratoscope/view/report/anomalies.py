"""The report of anomalies: what is far outside its own distribution, each with its picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stratoscope import names
from stratoscope.analysis.result import notes_in
from stratoscope.trace.notes import WARNING
from stratoscope.view import chart
from stratoscope.view.chart import Axis, Panel, mark
from stratoscope.view.grid import Strip, Tokens, build
from stratoscope.view.legend import number
from stratoscope.view.report.contents import Cell, Contents, Figure, Section, Table
from stratoscope.view.report.page import provenance
from stratoscope.view.report.rings import ringed
from stratoscope.view.spec import ViewSpec
from stratoscope.view.tokens import readable_all
from stratoscope.view.values import Quantity

if TYPE_CHECKING:
    import xarray as xr

_TICKS = 12  # labelled points of a series
_COLUMNS = ("found by", "expected by chance", "what", "prompt", "position", "layer", "head", "neuron", "expert")


def contents(result: xr.Dataset) -> Contents:
    """What the report of anomalies holds."""
    summary = result.attrs["summary"]
    count = summary["findings"]
    title = f"{count} anomal{'y' if count == 1 else 'ies'}" if count else "Nothing is far outside its own distribution"
    alpha = summary["expected_false_alarms"]
    lead = [
        f"Looked for by {summary['detectors']} detectors; where nothing is odd they find {alpha:g} together.",
    ]
    lead += [str(words) for words in result["words"].values[:5]]
    figures = [
        _figure(result, place) for place in range(result.sizes.get("shown", 0)) if result["picture_of"].values[place]
    ]
    sections = [Section("Findings", "", (), [_findings(result)])] if count else []
    if figures:
        sections.append(
            Section("Seen", "The strongest findings where they are; a ring or a point marks each.", figures)
        )
    sections.append(Section("What was looked at", "", (), [_detectors(result)]))
    return Contents(title, lead, sections, _findings(result))


def _findings(result: xr.Dataset) -> Table:
    rows: list[list[Cell]] = []
    for place in range(result.sizes["finding"]):
        here = result.isel(finding=place)
        also = int(here["also"])
        words = f"{here['words'].item()}{f' And {also} more cells.' if also else ''}"
        row: list[Cell] = [str(here["found_by"].item()), float(here["expected_false_alarms"]), words]
        row.append(str(here["prompt_id"].item()))
        for name in ("position", "layer", "head", "neuron", "expert"):
            value = int(here[name])
            row.append(None if value < 0 else value)
        rows.append(row)
    return Table(_COLUMNS, rows, "Least expected first.")


def _detectors(result: xr.Dataset) -> Table:
    rows: list[list[Cell]] = []
    found = result.attrs["summary"]["by_detector"]
    for place, name in enumerate(map(str, result["detector"].values)):
        looked, why = int(result["looked_at"][place]), str(result["why_not"].values[place])
        rows.append([name, looked, str(result["what"].values[place]), found.get(name, 0), why])
    return Table(("detector", "looked at", "each", "found", "not looked because"), rows)


def _figure(result: xr.Dataset, place: int) -> Figure:
    here = result.isel(shown=place)
    words = str(result["words"].values[place])
    columns = int(here["picture_columns"])
    values = here["picture_values"].values[:columns]
    labels = [str(label) for label in here["picture_labels"].values[:columns]]
    rows = here["picture_rows"].values
    rows = rows[rows >= 0]
    name = f"finding-{place + 1}"
    notes = [note for note in notes_in(result) if note.severity == WARNING]
    quantity = str(here["picture_of"].values)
    head = int(result["head"][place])
    column, row = (int(one) for one in here["picture_mark"].values)
    if not len(rows):
        return Figure(name, words, _series(result, words, values[:, 0], labels, column, quantity))
    described = names.QUANTITIES[quantity]
    kind = names.DEPTH if names.DEPTH in described.dims else names.LAYER
    said = f"head {head}" if head >= 0 else ""
    of = Quantity(
        quantity, described.label, described.unit, described.formula, said, described.signed, described.log, kind,
        tuple(rows.tolist()),
    )  # fmt: skip
    tokens = Tokens(str(result["prompt_id"].values[place]), "", readable_all(labels), columns, first=np.array([0]))
    spec = build(
        "heatmap", words, "", [tokens], [Strip(of, [values[:, : len(rows)]])], choice="robust", first_token=False,
        notes=notes, provenance=provenance(result),
    )  # fmt: skip
    return Figure(name, words, ringed(spec, np.array([[column, row]])))


def _series(result: xr.Dataset, words: str, values: np.ndarray, labels: list[str], marked: int, what: str) -> ViewSpec:
    """Values over prompts, layers or experts, with the one that is meant."""
    at = np.arange(len(values), dtype=float)
    step = max(1, len(values) // _TICKS)
    ticks = tuple((float(place), labels[place]) for place in sorted({*range(0, len(values), step), marked}))
    marks = [mark("line", chart.MUTED, x=values, y=at), mark("points", chart.MUTED, x=values, y=at)]
    marks.append(mark("points", chart.ACCENT, number(float(values[marked])), x=values[[marked]], y=at[[marked]]))
    panel = Panel("", Axis(what), Axis("", -0.6, len(values) - 0.4, ticks), marks, width=1.6)
    warnings = [note for note in notes_in(result) if note.severity == WARNING]
    height = float(np.clip(0.12 * len(values), 1.6, 4.0))
    return chart.chart(words, "", [panel], height=height, notes=warnings, provenance=provenance(result))
