"""The report of anomalies: what is far outside its own distribution, each with its picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from stratoscope import names
from stratoscope.analysis.anomalies.usual import SHOWN_NORMS
from stratoscope.analysis.results.result import table_in, warnings_in
from stratoscope.view.maps.build import build
from stratoscope.view.maps.strips import Strip, TokenAxis
from stratoscope.view.report.charts import charts, joined
from stratoscope.view.report.report import Figure, Report, Section
from stratoscope.view.spec.buffers import Numbers
from stratoscope.view.spec.charts import Axis, ChartPanel, Points
from stratoscope.view.spec.maps import DrawnQuantity
from stratoscope.view.spec.tables import Cell, Table
from stratoscope.view.spec.tokens import ShownPrompt, unknown_tokens
from stratoscope.view.spec.viewspec import ViewSpec, provenance_of_result
from stratoscope.words import counted, listed, number, readable, readable_all

if TYPE_CHECKING:
    import xarray as xr

_TICKS = 12  # labelled points of a series
_PLACES = ("prompt", "position", "token", "layer", "head", "neuron", "expert")
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
    findings, usual = table_in(result, "findings"), table_in(result, "usual")
    of_model = findings["of_model"].values.astype(bool)
    words = [str(one) for one in findings["words"].values]
    lead = [
        f"{summary['detectors']} detectors looked for anomalies. In a trace without any, all of them together would "
        f"report {number(summary['expected_false_findings'])} on average.",
        *(said for said, model in zip(words, of_model, strict=True) if not model),
    ][: _LEADING + 1]
    lead += [said for said in [_found_from(result)] if said]
    lead += [f"Usual, so not a finding: {said}" for said in map(str, usual["words"].values)]
    lead += [f"In all prompts alike: {said}" for said, model in zip(words, of_model, strict=True) if model][:_LEADING]
    drawn = table_in(result, "pictures")["quantity"].values if "pictures" in result else ()
    figures = [_figure(result, place) for place, quantity in enumerate(drawn) if quantity]
    found, of_all = np.flatnonzero(~of_model).tolist(), np.flatnonzero(of_model).tolist()
    sections = []
    if found:
        sections.append(Section("Findings", "", (), [_findings(result, found), _members(result, found)]))
    if of_all:
        said = "What holds in every prompt alike. Only a --reference can say whether the model is always so."
        sections.append(Section("Of the model", said, (), [_findings(result, of_all), _members(result, of_all)]))
    if usual.sizes["usual"]:
        said = "Massive tokens that are no findings: a model has one large residual for its attention sinks."
        sections.append(Section("Usual", said, (), [_usual(usual)]))
    if figures:
        sections.append(Section("Seen", "Where the strongest findings are; a ring or a point marks each.", figures))
    sections.append(Section("What was looked at", "", (), [_detectors(table_in(result, "detectors"))]))
    return Report(title, lead, sections, _everything(result))


def _findings(result: xr.DataTree, which: Sequence[int]) -> Table:
    table = table_in(result, "findings")
    rows = (
        (
            place + 1,
            str(table["found_by"].values[place]),
            float(table["expected_false_findings"][place]),
            str(table["words"].values[place]),
        )
        for place in which
    )
    return Table(_FINDINGS, tuple(rows), "Least expected first.")


def _members(result: xr.DataTree, which: Sequence[int]) -> Table:
    table = table_in(result, "members")
    rows = (_member(table, place) for place in np.flatnonzero(np.isin(table["finding"].values, which)).tolist())
    caption = "Every value that belongs to them; of one with very many, the strongest hundred."
    return Table(_MEMBERS, tuple(rows), caption)


def _member(members: xr.Dataset, place: int) -> tuple[Cell, ...]:
    value, typical = float(members["value"][place]), float(members["typical"][place])
    row: list[Cell] = [int(members["finding"][place]) + 1]
    row += [str(members[name].values[place]) for name in ("found_by", "quantity", "prompt_id")]
    for name in _PLACES[1:]:
        found = members[name].values[place]
        if name == "token":
            row.append(readable(str(found)) if int(members["position"][place]) >= 0 else "")
        else:
            row.append(None if found < 0 else int(found))
    times = value / typical if typical else None
    return (*row, value, typical, times, float(members["expected_false_findings"][place]))


def _usual(usual: xr.Dataset) -> Table:
    rows = (
        (
            str(usual["words"].values[place]),
            int(usual["tokens"][place]),
            int(usual["prompts"][place]),
            float(usual["ratio"][place]),
        )
        for place in range(usual.sizes["usual"])
    )
    return Table(("what", "tokens", "prompts", "largest, times the median"), tuple(rows))


def _everything(result: xr.DataTree) -> Table:
    """Every member of every finding, a row each, and the usual massive tokens, a row a kind."""
    members, findings = table_in(result, "members"), table_in(result, "findings")
    of, of_model = members["finding"].values, findings["of_model"].values
    rows: list[tuple[Cell, ...]] = []
    for place in range(members.sizes["member"]):
        kind, words = _KINDS[int(of_model[of[place]])], str(findings["words"].values[of[place]])
        said = words if place == 0 or of[place] != of[place - 1] else ""
        rows.append((kind, *_member(members, place), None, None, said))
    for what, tokens, prompts, ratio in _usual(table_in(result, "usual")).rows:
        blank = (ratio if name == "times" else None for name in _MEMBERS)
        rows.append((_KINDS[2], *blank, tokens, prompts, what))
    return Table(("kind", *_MEMBERS, "tokens", "prompts", "what"), tuple(rows))


def _detectors(detectors: xr.Dataset) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for place, name in enumerate(map(str, detectors["name"].values)):
        of, what = str(detectors["quantity"].values[place]), str(detectors["what"].values[place])
        least = float(detectors["found_from"][place])
        looked, why = int(detectors["looked_at"][place]), str(detectors["why_not"].values[place])
        rows.append((name, of, looked, what, least if np.isfinite(least) else None, why))
    columns = ("detector", "of", "looked at", "each", "found from, times the median", "not looked because")
    caption = "Found from: in nine of ten layers a single value of that size would have been found."
    return Table(columns, tuple(rows), caption)


def _found_from(result: xr.DataTree) -> str:
    """What would have been found, of the quantities that most people look at."""
    of = table_in(result, "detectors")
    least = dict(zip(map(str, of["quantity"].values), of["found_from"].values.tolist(), strict=True))
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
        return Figure(name, words, _series(result, words, values[:, 0], labels, column, quantity))
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
        provenance=provenance_of_result(result),
    )  # fmt: skip
    return Figure(name, words, spec)


def _series(result: xr.DataTree, words: str, values: Numbers, labels: list[str], marked: int, what: str) -> ViewSpec:
    """Values over prompts, layers or experts, with the one that is meant."""
    at = np.arange(len(values), dtype=float)
    step = max(1, len(values) // _TICKS)
    ticks = tuple((float(place), labels[place]) for place in sorted({*range(0, len(values), step), marked}))
    meant = Points(values[[marked]], at[[marked]], "accent", number(float(values[marked])))
    marks = (*joined(values, at, "muted"), meant)
    panel = ChartPanel("", Axis(what), Axis("", -0.6, len(values) - 0.4, ticks), marks, width=1.6)
    return charts(result, words, "", [panel], height=float(np.clip(0.12 * len(values), 1.6, 4.0)))
