"""The report of anomalies: what is far outside its own distribution, each with its picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from stratoscope import names
from stratoscope.analysis.anomalies.usual import SHOWN_NORMS
from stratoscope.analysis.results.result import Row, rows_in, table_in, warnings_in
from stratoscope.view.charts.parts import joined
from stratoscope.view.maps.build import build
from stratoscope.view.maps.strips import Strip, TokenAxis
from stratoscope.view.report.charts import charts
from stratoscope.view.report.report import Figure, Report, Section
from stratoscope.view.spec.buffers import Numbers
from stratoscope.view.spec.charts import Axis, ChartPanel, Points
from stratoscope.view.spec.maps import DrawnQuantity
from stratoscope.view.spec.tables import Cell, Table
from stratoscope.view.spec.tokens import ShownPrompt, unknown_tokens
from stratoscope.view.spec.viewspec import ViewSpec, provenance_of_result, selected_of_result
from stratoscope.words import counted, listed, number, readable, readable_all

if TYPE_CHECKING:
    import xarray as xr

_TICKS = 12  # labelled points of a series
_PLACES = ("prompt", "position", "token", "layer", "head", "neuron", "expert")
_FOUND_FROM = "found from, times the median"
_FINDINGS = ("number", "found by", "expected by chance", "what")
_MEMBERS = ("finding", "found by", "quantity", *_PLACES, "value", "typical", "times", "expected by chance")
_KINDS = ("in some prompts", "of the model, in all prompts", "usual")
_LEADING = 5  # findings in the first lines


def contents(result: xr.DataTree) -> Report:
    """What the report of anomalies holds."""
    summary = result.attrs["summary"]
    count = summary["findings"]
    alike = summary["of_model"]
    title = "Nothing is far outside its own distribution"
    if count or alike:
        title = counted(count, "anomaly") if count else "No prompt stands out"
        title += f"; {counted(alike, 'oddity')} in all prompts alike" if alike else ""
    findings = [(number, one) for number, one in enumerate(rows_in(result, "findings"), start=1)]
    of_some, of_all = ([(number, one) for number, one in findings if one["of_model"] == kind] for kind in (0, 1))
    lead = [
        f"{summary['detectors']} detectors looked for anomalies. In a trace without any, all of them together would "
        f"report {number(summary['expected_false_findings'])} on average.",
        *(str(one["words"]) for _, one in of_some),
    ][: _LEADING + 1]
    lead += [said for said in [_found_from(result)] if said]
    usual = _usual(result)
    lead += [f"Usual, so not a finding: {said}" for said, *_ in usual.rows]
    lead += [f"In all prompts alike: {one['words']}" for _, one in of_all[:_LEADING]]
    drawn = table_in(result, "pictures")["quantity"].values if "pictures" in result else ()
    figures = [_figure(result, place) for place, quantity in enumerate(drawn) if quantity]
    sections = []
    if of_some:
        sections.append(Section("Findings", "", (), _findings(result, of_some)))
    if of_all:
        said = "What holds in every prompt alike. Only a --reference can say whether the model is always so."
        sections.append(Section("Of the model", said, (), _findings(result, of_all)))
    if usual.rows:
        said = "Massive tokens that are no findings: a model has one large residual for its attention sinks."
        sections.append(Section("Usual", said, (), [usual]))
    if figures:
        sections.append(Section("Seen", "Where the strongest findings are; a ring or a point marks each.", figures))
    sections.append(Section("What was looked at", "", (), [_detectors(result)]))
    return Report(title, lead, sections, _everything(result))


def _findings(result: xr.DataTree, numbered: Sequence[tuple[int, Row]]) -> list[Table]:
    """Findings by number, and their members."""
    rows = [[number, one["found_by"], one["expected_false_findings"], one["words"]] for number, one in numbered]
    numbers = {number for number, _ in numbered}
    members = [row for row in map(_member, rows_in(result, "members")) if row[0] in numbers]
    said = "Every value that belongs to them; of one with very many, the strongest hundred."
    blank = dict.fromkeys(_PLACES, "what was found has none") | {"times": "the typical value is 0"}
    return [Table(_FINDINGS, rows, "Least expected first."), Table(_MEMBERS, members, said, blank)]


def _member(one: Row) -> list[Cell]:
    row: list[Cell] = [one["finding"] + 1, one["found_by"], one["quantity"], one["prompt_id"]]
    for name in _PLACES[1:]:
        if name == "token":
            row.append(readable(one["token"]) if one["position"] >= 0 else "")
        else:
            row.append(None if one[name] < 0 else one[name])
    times = one["value"] / one["typical"] if one["typical"] else None
    return [*row, one["value"], one["typical"], times, one["expected_false_findings"]]


def _usual(result: xr.DataTree) -> Table:
    rows = [[str(one["words"]), one["tokens"], one["prompts"], one["ratio"]] for one in rows_in(result, "usual")]
    return Table(("what", "tokens", "prompts", "largest, times the median"), rows)


def _everything(result: xr.DataTree) -> Table:
    """Every member of every finding, a row each, and the usual massive tokens, a row a kind."""
    columns = ("kind", *_MEMBERS, "tokens", "prompts", "what")
    findings, before = rows_in(result, "findings"), -1
    rows: list[list[Cell]] = []
    for member in rows_in(result, "members"):
        of = findings[member["finding"]]
        words = of["words"] if member["finding"] != before else ""
        rows.append([_KINDS[of["of_model"]], *_member(member), None, None, words])
        before = member["finding"]
    for said, tokens, prompts, ratio in _usual(result).rows:
        blank: list[Cell] = [None] * len(_MEMBERS)
        blank[_MEMBERS.index("times")] = ratio
        rows.append([_KINDS[2], *blank, tokens, prompts, said])
    return Table(columns, rows)


def _detectors(result: xr.DataTree) -> Table:
    columns = ("detector", "of", "looked at", "each", _FOUND_FROM)
    rows = [
        [one["name"], one["quantity"], one["looked_at"], one["what"] or f"not looked at: {one['why_not']}",
         one["found_from"]]
        for one in rows_in(result, "detectors")
    ]  # fmt: skip
    said = "Found from: in nine of ten layers a single value of that size would have been found."
    blank = {
        "of": "several quantities, or none is recorded",
        _FOUND_FROM: "it does not compare a single value with a median, or did not look",
    }
    return Table(columns, rows, said, blank)


def _found_from(result: xr.DataTree) -> str:
    """What would have been found, of the quantities that most people look at."""
    least = {one["quantity"]: one["found_from"] for one in rows_in(result, "detectors")}
    parts = [
        f"{names.QUANTITIES[name].label} from {number(least[name])} times"
        for name in SHOWN_NORMS
        if least.get(name, 0) > 0
    ]
    limits = "In nine of ten layers a single value would be found if it were large enough"
    return f"{limits}: {listed(parts)} the layer's median." if parts else ""


def _figure(result: xr.DataTree, place: int) -> Figure:
    picture, finding = (table_in(result, name).isel(finding=place) for name in ("pictures", "findings"))
    words = str(finding["words"].item())
    columns = int(picture["columns"])
    values = picture["values"].values[:columns]
    labels = [str(label) for label in picture["labels"].values[:columns]]
    rows = picture["rows"].values
    rows = rows[rows >= 0]
    name = f"finding-{place + 1}"
    quantity = str(picture["quantity"].item())
    head = int(finding["head"])
    column, row = (int(one) for one in picture["mark"].values)
    if not len(rows):
        rows_are = "expert" if finding["expert"] >= 0 else "prompt" if finding["neuron"] >= 0 else "layer"
        return Figure(name, "", _series(result, words, values[:, 0], labels, column, Axis(quantity), rows_are))
    described = names.QUANTITIES[quantity]
    said = f"head {head}" if head >= 0 else ""
    of = DrawnQuantity(
        quantity, described.label, described.unit, described.formula_in(result), said, described.signed, described.log,
        described.row_kind, tuple(rows.tolist()),
    )  # fmt: skip
    first = picture["first"].values.reshape(1)
    prompt = str(finding["prompt_id"].item())
    shown = unknown_tokens(columns, first[first >= 0], readable_all(labels))
    tokens = replace(shown, prompts=(ShownPrompt(prompt),), prompt=np.zeros(columns, np.int32))
    strip = Strip(of, [values[:, : len(rows)]], ringed=np.array([[column, row]]))
    spec = build(
        words, "", [TokenAxis(prompt, "", tokens)], [strip], notes=warnings_in(result),
        selected=selected_of_result(result),
        provenance=provenance_of_result(result),
    )  # fmt: skip
    return Figure(name, "", spec)


def _series(
    result: xr.DataTree, words: str, values: Numbers, labels: list[str], marked: int, axis: Axis, rows: str
) -> ViewSpec:
    """Values over prompts, layers or experts, with the one that is meant."""
    at = np.arange(len(values), dtype=float)
    step = max(1, len(values) // _TICKS)
    ticks = tuple((float(place), labels[place]) for place in sorted({*range(0, len(values), step), marked}))
    meant = Points(values[[marked]], at[[marked]], "accent", number(float(values[marked])))
    marks = (*joined(values, at, "muted"), meant)
    panel = ChartPanel("", axis, Axis(rows, -0.6, len(values) - 0.4, ticks), marks, width=1.6)
    return charts(result, words, "", [panel], height=float(np.clip(0.12 * len(values), 1.6, 4.0)))
