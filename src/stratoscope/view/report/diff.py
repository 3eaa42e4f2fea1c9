"""The report of a diff: what changed, what of it exceeds the noise floor, and what became of a patch's claims."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import names
from stratoscope.analysis.diff.claims import VERDICTS
from stratoscope.analysis.result import notes_in
from stratoscope.trace.notes import INFO, WARNING, Note
from stratoscope.view import chart
from stratoscope.view.chart import Axis, Panel, mark
from stratoscope.view.grid import Strip, Tokens, build
from stratoscope.view.legend import number
from stratoscope.view.report.contents import Cell, Contents, Figure, Section, Table
from stratoscope.view.report.page import provenance
from stratoscope.view.spec import public_name
from stratoscope.view.tokens import readable
from stratoscope.view.values import Quantity

if TYPE_CHECKING:
    import xarray as xr

_PANELS = 5
_LISTED = 20


def contents(result: xr.Dataset) -> Contents:
    """What the report of a diff holds."""
    made = (_over_layers(result), _cells(result), _claims(result), _null(result), _neurons(result))
    return Contents(_title(result), _lead(result), [one for one in made if one is not None], _table(result))


def _title(result: xr.Dataset) -> str:
    summary = result.attrs["summary"]
    if summary["no_difference"]:
        return "No difference"
    if not summary["floor"]:
        return "Differences, with no noise floor to hold them against"
    times = {name: one["most_times"] for name, one in summary["changes"].items() if one["most_times"] is not None}
    if max(times.values()) <= 1:
        return "Nothing exceeds the noise floor"
    shown = [name for name in result.attrs["parameters"]["quantity"] if name in times] or [*times]
    label = names.QUANTITIES[shown[0]].label
    return f"{label[0].upper() + label[1:]} changes by up to {number(times[shown[0]])} times the noise floor"


def _lead(result: xr.Dataset) -> list[str]:
    summary = result.attrs["summary"]
    lines = [
        f"a: {_model(summary['a'])}. b: {_model(summary['b'])}. "
        f"{'The same weights. ' if summary['same_weights'] else ''}"
        f"{summary['prompts']:,} prompts, matched by {summary['matched_by']}; every difference is b − a."
    ]
    for name in result.attrs["parameters"]["quantity"]:
        change = summary["changes"][name]
        label = names.QUANTITIES[name].label
        if change["most_times"] is None:
            lines.append(f"{label[0].upper() + label[1:]} changes by up to {number(change['largest'])}.")
        else:
            lines.append(
                f"{label[0].upper() + label[1:]}: {change['share_above']:.1%} of the cells change by more than their "
                f"floor, the most by {number(change['most_times'])} times."
            )
    claims = summary.get("claims")
    if claims is not None:
        verdicts = [f"{claims[word]} {word}" for word in VERDICTS if word in claims]
        lines.append(f"Of {claims['count']} claimed neurons {', '.join(verdicts)}.")
        lines.append(
            f"Elsewhere {claims['columns_changed_elsewhere']:,} of {claims['columns_seen_elsewhere']:,} columns that "
            f"are seen have another norm; {claims['share_of_change_claimed']:.1%} of all change of mean activations is "
            "in claimed neurons."
        )
    null = summary.get("null")
    if null is not None:
        words = [f"{name} p = {number(p)}" for name, p in null["p"].items()]
        lines.append(
            f"Against {null['runs']} random patches of equal count, layers and size ({null['by']}): "
            f"{', '.join(words)}; the smallest that so many can give is {number(1 / (1 + null['runs']))}."
        )
    return lines


def _model(words: str) -> str:
    name, _, dtype = words.rpartition(" ")
    return f"{public_name(name)} {dtype}".strip() if name else words


def _over_layers(result: xr.Dataset) -> Section | None:
    summary = result.attrs["summary"]
    kept = list(result.attrs["parameters"]["quantity"])
    others = [name for name in summary["changes"] if name not in kept and name in _USUAL]
    chosen = (kept + others)[:_PANELS]
    panels = []
    every = [str(name) for name in result["quantity"].values]
    for name in chosen:
        here = result.isel(quantity=every.index(name))
        dim = names.QUANTITIES[name].dims[1]
        numbers = result[dim].values.tolist()
        at = np.arange(len(numbers), dtype=float)
        label = names.QUANTITIES[name].label
        if name in summary["floor"]:
            values = here["change_most_times"].values[: len(numbers)]
            shown = np.where(values > 0, values, np.nan)
            marks = [mark("vertical", chart.MUTED, x=[1.0]), mark("line", chart.ACCENT, x=shown, y=at)]
            marks.append(mark("points", chart.ACCENT, x=shown, y=at))
            axis = Axis("largest change, times the floor", log=bool(np.isfinite(shown).any()))
        else:
            values = here["change_mean"].values[: len(numbers)]
            marks = [mark("line", chart.PLAIN, x=values, y=at), mark("points", chart.PLAIN, x=values, y=at)]
            axis = Axis("mean |change|")
        panels.append(Panel(label[0].upper() + label[1:], axis, chart.layer_axis(numbers, dim), marks))
    height = float(np.clip(0.11 * max(len(result[names.LAYER]), 1), 1.6, 3.8))
    spec = chart.chart(
        "Where the traces differ", "All aligned tokens of all prompts, first tokens left out", panels, height=height,
        notes=_carried(result), provenance=provenance(result),
    )  # fmt: skip
    words = "Dashed: the noise floor. What lies left of it batch size, padding or dtype change by themselves."
    return Section(
        "Over the depth of the model", words if summary["floor"] else "", [Figure("layers", spec.title, spec)]
    )


_USUAL = ("mlp_out_norm", "resid_norm", "mlp_write_ratio", "attn_write_ratio", "attn_entropy_nosink")


def _cells(result: xr.Dataset) -> Section | None:
    figures = []
    prompts = list(dict.fromkeys(map(str, result["column_prompt"].values)))
    for place, prompt in enumerate(prompts):
        here = result.isel(column=np.flatnonzero([str(one) == prompt for one in result["column_prompt"].values]))
        for name in result.attrs["parameters"]["quantity"]:
            figures += _of_prompt(result, here, prompt, name, f"{place + 1}-{name}")
    words = "Columns are aligned tokens; hatched columns have no equal token in the other trace."
    return Section("Token by token", words, figures)


def _of_prompt(result: xr.Dataset, here: xr.Dataset, prompt: str, name: str, stem: str) -> list[Figure]:
    row = names.QUANTITIES[name]
    kind = row.dims[1]
    rows = tuple(int(one) for one in result[kind].values)
    labels = _labels(here)
    first = np.flatnonzero((here["position_a"].values == 0) | (here["position_b"].values == 0))
    said = "mean over heads" if names.HEAD in row.dims else ""

    def tokens(title: str) -> Tokens:
        return Tokens(title, prompt, labels, len(labels), first=first)

    def quantity(label: str, unit: str, *, signed: bool, log: bool, formula: str = row.formula) -> Quantity:
        return Quantity(name, label, unit, formula, said, signed=signed, log=log, row_kind=kind, rows=rows)

    label = row.label[0].upper() + row.label[1:]
    of_values = quantity(row.label, row.unit, signed=row.signed, log=row.log)
    values = build(
        "heatmap", f"{label} in a and in b", "", [tokens("a"), tokens("b")],
        [Strip(of_values, [here[f"{name}_a"].values, here[f"{name}_b"].values])],
        choice="robust", first_token=False, notes=_carried(result), provenance=provenance(result),
    )  # fmt: skip
    strips = [
        Strip(quantity(f"{row.label}: b − a", row.unit, signed=True, log=False), [here[f"{name}_difference"].values])
    ]
    times = here[f"{name}_times"].values
    if np.isfinite(times).any():
        described = quantity("times the noise floor", "1", signed=False, log=True, formula="|b − a| / floor; 1 = noise")
        strips.append(Strip(described, [times]))
    changed = build(
        "heatmap", f"{label}: what changed from a to b", "", [tokens(prompt)], strips,
        choice="robust", first_token=False, notes=_carried(result), provenance=provenance(result),
    )  # fmt: skip
    return [
        Figure(f"{stem}-values", f"{values.title}, on one scale: {prompt}.", values),
        Figure(f"{stem}-change", f"{changed.title}: {prompt}.", changed),
    ]


def _labels(here: xr.Dataset) -> list[str]:
    """Tokens of both traces: one word where they are equal, "a→b" where one was replaced."""
    labels = []
    for one, other, place, placed in zip(
        here["text_a"].values, here["text_b"].values, here["position_a"].values, here["position_b"].values, strict=True
    ):
        shown = [readable(str(text), width=9) for text, at in ((one, place), (other, placed)) if at >= 0]
        labels.append("→".join(dict.fromkeys(shown)))
    return labels


def _claims(result: xr.Dataset) -> Section | None:
    if "claim_layer" not in result:
        return None
    return Section("What the patch claims", _CLAIM_WORDS, (), [_table(result)])


_CLAIM_WORDS = (
    "Norms of a neuron's column as the recorded peaks show them (peak write / |peak value|), and the largest change of "
    "its mean activation over the prompts. A patched column changes what its neuron writes, not its own activation; "
    "activations change in later layers."
)


def _table(result: xr.Dataset) -> Table:
    """Every claim; without claims, the change of each quantity."""
    if "claim_layer" in result:
        columns = (
            "neuron",
            "claimed old",
            "claimed new",
            "seen in a",
            "seen in b",
            "activation, times the floor",
            "rank",
            "verdict",
        )
        rows: list[list[Cell]] = []
        for place in range(result.sizes["claim"]):
            here = result.isel(claim=place)
            row: list[Cell] = [f"L{int(here['claim_layer'])} n{int(here['claim_neuron'])}"]
            row += [float(here[f"claim_{name}"]) for name in ("old", "new", "norm_a", "norm_b", "times")]
            rows.append([*row, int(here["claim_rank"]), str(here["claim_verdict"].item())])
        return Table(columns, rows, "Rank 1 is the neuron of that layer whose mean activation changed most.")
    changes = result.attrs["summary"]["changes"]
    listed = [[name, *(one[key] for key in ("largest", "most_times", "share_above"))] for name, one in changes.items()]
    return Table(("quantity", "largest change", "most times the floor", "share above the floor"), listed)


def _null(result: xr.Dataset) -> Section | None:
    if "null_change" not in result:
        return None
    measured = [str(name) for name in result["measured"].values]
    panels = []
    for place, name in enumerate(measured):
        null = np.sort(result["null_change"].values[:, place])
        at = np.arange(len(null), dtype=float)
        marks = [mark("points", chart.MUTED, "random patches", x=null, y=at)]
        marks.append(mark("vertical", chart.ACCENT, "the claimed patch", x=[float(result["null_claimed"][place])]))
        label = names.QUANTITIES[name].label if name in names.QUANTITIES else "logits of the last token"
        panels.append(
            Panel(label[0].upper() + label[1:], Axis("mean |change|"), Axis("", -1, len(null), ((0.0, ""),)), marks)
        )
    spec = chart.chart(
        "The claimed patch among random ones", f"{result.sizes['run']} random patches, in memory", panels, height=2.2,
        notes=_carried(result), provenance=provenance(result),
    )  # fmt: skip
    words = (
        "Random other neurons of the same layers, changed as much: a patch that changes no more than they do is no "
        "finding."
    )
    return Section("Against a matched null", words, [Figure("null", spec.title, spec)])


def _neurons(result: xr.Dataset) -> Section | None:
    if "neuron_largest" not in result:
        return None
    largest = result["neuron_largest"].values
    times = result["neuron_times"].values
    by = times if np.isfinite(times).any() else largest
    order = np.argsort(np.nan_to_num(by, nan=-1.0), axis=None)[::-1][:_LISTED]
    rows: list[list[Any]] = []
    for layer, neuron in zip(*np.unravel_index(order, by.shape), strict=True):
        values = (result["neuron_mean_difference"].values, largest, times)
        name = f"L{int(result['layer'].values[layer])} n{neuron}"
        rows.append([name, *(float(one[layer, neuron]) for one in values)])
    columns = ("neuron", "mean change", "largest change", "times the floor")
    words = f"Mean activation over a prompt's user tokens. Same neurons: {result.attrs['summary']['ancestry']}."
    return Section("Neurons that changed most", words, (), [Table(columns, rows, "The strongest of all layers.")])


def _carried(result: xr.Dataset) -> list[Note]:
    """The notes that every figure of a diff carries."""
    notes = notes_in(result)
    warned = [note for note in notes if note.severity == WARNING]
    return [*[note for note in notes if note.id == "L14" and note.severity == INFO], *warned]
