"""`anomalies`: what lies far outside its own distribution, ranked, with the number of false findings to expect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import defaults, names
from stratoscope.analysis.results.result import make_result, rows_in, table_of
from stratoscope.errors import InputError, UsageError
from stratoscope.progress import Progress, silent
from stratoscope.words import number, number_ranges

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.analysis.anomalies.finding import Finding, Look, Member, NamedPrompts
    from stratoscope.analysis.anomalies.usual import Class
    from stratoscope.trace.csv.columns import Columns
    from stratoscope.trace.opened import Inputs

_SHOWN = 8  # findings with a picture
_LISTED = 200
_MEMBERS = 100  # of a finding, listed one by one


def anomalies(
    trace: Inputs,
    *,
    columns: Columns = None,
    reference: Inputs | None = None,
    false_findings: float = defaults.FALSE_FINDINGS,
    progress: Progress | None = None,
) -> xr.DataTree:
    """Find tokens, heads, neurons, layers and experts far outside their own distribution.

    Each detector turns what it looks at into scores (distance from the median in robust standard deviations, on a
    scale on which values add up), extrapolates the tail from the body of its scores, and calls a finding what is
    stranger than it should be once in 1/`false_findings` traces, all detectors together. Usual massive tokens (first
    tokens, second sinks, what recurs from prompt to prompt) are set aside first and listed once. What is far out of one
    token, prompt, layer or pair of twins is one finding, with its members. docs/anomalies.md lists the detectors.

    Parameters
    ----------
    trace
        A trace, one or several CSV or Parquet files (one prompt each), or a Dataset.
    columns
        Which column of CSV files is which, as in `import_csv`.
    reference
        A trace of the same layers, heads and neurons whose distributions count instead; usual is what it shows.
    false_findings
        Expected number of false findings in a trace, shared out evenly among the detectors.
    progress
        Is told what is being done.

    Returns
    -------
    xarray.DataTree
        A Result of kind "anomalies", a node a table (docs/results.md lists all variables). `findings`, least expected
        first: `found_by`, `quantity`, the place (`prompt`, `position`, `layer`, …; −1 = does not apply), `value`,
        `typical`, `expected_false_findings`, `also` (how many more members), `of_model` (1 = holds in all prompts
        alike), `words`. `members`: the same of each value that belongs to a `finding`. `usual`: massive tokens that
        are no finding. `detectors`: what each looked at, how much of it, or why not, and `found_from`: how many times
        the median of its layer a value is found from, in nine of ten layers.

    Raises
    ------
    InputError
        The reference is of another shape, or there is nothing to look at.

    Examples
    --------
    >>> import stratoscope
    >>> result = stratoscope.anomalies(stratoscope.simulate(prompts=8, layers=4))
    >>> for words in result["findings"]["words"].values:
    ...     print(words.split(":")[0])
    Head 4 of L2 gathers its attention, most of all on '◆' (token 8 of critical-1)
    """
    from stratoscope.analysis.anomalies.duplicates import merged
    from stratoscope.analysis.values.finite import finite_trace
    from stratoscope.trace.arguments import real_number
    from stratoscope.trace.opened import opened

    seen, beside = finite_trace(opened(trace, columns)), None if reference is None else finite_trace(opened(reference))
    dataset = _of_its_layers(seen.dataset, "trace")
    other = None if beside is None else _of_its_layers(beside.dataset, "reference")
    if other is not None:
        _refuse_other_shape(dataset, other)
    false_findings = real_number(false_findings, "false_findings")
    if not 0 < false_findings <= 1:
        raise UsageError(
            f"{false_findings} is out of range", where="false_findings", fix="Give a number above 0, at most 1."
        )
    looks, usual = _looked(dataset, other, progress or silent)
    if not any(look.units for look in looks):
        raise InputError(
            "there is nothing to look at in it: no norms, attention, routes or summaries of prompts, as a CSV has none",
            where=str(dataset.encoding.get("source", "trace")),
            fix="Record them: `stratoscope capture MODEL --prompts FILE --record norms,prompts,attention -o TRACE`.",
        )
    uncertain = sum(look.units > 0 and not look.certain for look in looks)
    most_expected = false_findings / max(uncertain, 1)
    result = seen.with_note(
        _result(dataset, other, looks, merged(looks, most_expected), usual, false_findings, most_expected)
    )
    return result if beside is None else beside.with_note(result, "the reference")


def _looked(dataset: xr.Dataset, other: xr.Dataset | None, report: Progress) -> tuple[list[Look], list[Class]]:
    """What every detector looked at, and the usual massive tokens."""
    from stratoscope.analysis.anomalies import attention, depth, neurons, routes, tokens, writes
    from stratoscope.analysis.anomalies.norms import norms_of
    from stratoscope.analysis.anomalies.usual import classes, usual_of

    report("looking", 0, None)
    beside = None if other is None else norms_of(other)
    norms = norms_of(dataset, beside)
    usual = usual_of(norms, beside)
    looks = tokens.massive_tokens(dataset, norms, usual, beside)
    detectors: tuple[Callable[[], Look], ...] = (
        lambda: writes.massive_neuron(dataset, other),
        lambda: writes.massive_head(dataset, other),
        lambda: attention.moved_sink(dataset, other, usual.tokens),
        lambda: (routes if routes.has_routes(dataset, other) else attention).unusual_route(
            dataset, other, usual.tokens
        ),
        lambda: attention.broken_rows(dataset),
        lambda: neurons.dead_neuron(dataset, other),
        lambda: neurons.always_on_neuron(dataset, other),
        lambda: depth.layer_off_trend(dataset, other),
        lambda: depth.expert_takes_all(dataset, other),
    )
    for done, detector in enumerate(detectors):
        report("looking", done, len(detectors))
        looks.append(detector())
    report("looking", len(detectors), len(detectors))
    return looks, classes(norms, usual)


def _of_its_layers(dataset: xr.Dataset, where: str) -> xr.Dataset:
    """The Dataset with the depths before and behind its layers, which a layer is held against, and no others.

    Raises
    ------
    InputError
        Its layers are not neighbours, or a depth beside one of them is not there.
    """
    if names.DEPTH not in dataset.sizes:
        return dataset
    layers, depths = dataset[names.LAYER].values, dataset[names.DEPTH].values
    first, last = int(layers[0]), int(layers[-1])
    needed = (depths >= first) & (depths <= last + 1)
    if len(layers) != last + 1 - first or needed.sum() != len(layers) + 1:
        raise InputError(
            f"its layers are {number_ranges(layers.tolist())} and its depths {number_ranges(depths.tolist())}; "
            "anomalies looks at neighbouring layers and the depths between them",
            where=where,
            fix="Give all layers, or a run of them with their depths: trace.sel(layer=slice(2, 5), depth=slice(2, 6)).",
        )
    return dataset.isel({names.DEPTH: needed})


def _refuse_other_shape(dataset: xr.Dataset, reference: xr.Dataset) -> None:
    for dim in (names.LAYER, names.HEAD, names.NEURON):
        if dim in dataset.dims and dim in reference.dims and dataset.sizes[dim] != reference.sizes[dim]:
            raise InputError(
                f"the reference has {reference.sizes[dim]} {dim}s, the trace {dataset.sizes[dim]}",
                where="reference",
                fix="Give a trace of the same model.",
            )


def _result(
    dataset: xr.Dataset,
    reference: xr.Dataset | None,
    looks: Sequence[Look],
    found: Sequence[Finding],
    usual: Sequence[Class],
    false_findings: float,
    most_expected: float,
) -> xr.DataTree:
    from stratoscope.analysis.anomalies.finding import NamedPrompts
    from stratoscope.analysis.lint.lint import applicable
    from stratoscope.trace.notes import INFO, Note, notes_of

    listed = found[:_LISTED]
    prompts = NamedPrompts(dataset)
    members = [(number, member) for number, one in enumerate(listed) for member in one.members[:_MEMBERS]]
    tables: dict[str, dict[str, Any]] = {
        "findings": _columns("finding", [one.first for one in listed], prompts) | table_of("finding", {
            "also": np.array([len(one.members) - 1 for one in listed], np.int64),
            "of_model": np.array([one.of_model for one in listed], np.int8),
            "words": [one.words for one in listed],
        }),
        "members": _columns("member", [member for _, member in members], prompts) | table_of("member", {
            "finding": np.array([number for number, _ in members], np.int64),
        }),
        "usual": table_of("usual", {
            "words": [one.words for one in usual],
            "tokens": np.array([one.tokens for one in usual], np.int64),
            "prompts": np.array([one.prompts for one in usual], np.int64),
            "ratio": np.array([one.ratio for one in usual], np.float64),
        }),
        "detectors": table_of("detector", {
            "name": [look.detector for look in looks],
            "quantity": [look.quantity for look in looks],
            "looked_at": np.array([look.units for look in looks], np.int64),
            "what": [look.what for look in looks],
            "found_from": np.array([look.found_from(most_expected) for look in looks], np.float64),
            "why_not": [look.why for look in looks],
        }),
    }  # fmt: skip
    if any(one.picture for one in listed[:_SHOWN]):
        tables["pictures"] = _pictures(listed[:_SHOWN])
    chance = Note(
        "L13",
        INFO,
        f"Expected false findings where nothing is odd: {number(false_findings)} in all, "
        f"{number(most_expected)} of each detector.",
    )
    sources = [dataset] if reference is None else [dataset, reference]
    detectors = list(dict.fromkeys(look.detector for look in looks))
    return make_result(
        "anomalies",
        tables,
        sources=sources,
        parameters={"false_findings": false_findings, "reference": reference is not None},
        notes=[*notes_of(dataset), chance, *applicable(dataset)],
        summary={
            "findings": sum(not one.of_model for one in found),
            "of_model": sum(one.of_model for one in found),
            "listed": len(listed),
            "expected_false_findings": false_findings,
            "detectors": len({look.detector for look in looks if look.units}),
            "by_detector": {
                name: sum(any(member.detector == name for member in one.members) for one in found) for name in detectors
            },
        },
    )


def _columns(dim: str, members: Sequence[Member], prompts: NamedPrompts) -> dict[str, Any]:
    """Columns of findings (their first members) or of members."""
    from stratoscope.analysis.anomalies.finding import PLACES

    return table_of(dim, {
        **{name: np.array([one.place.get(name, -1) for one in members], np.int64) for name in PLACES},
        "value": np.array([one.value for one in members], np.float64),
        "typical": np.array([one.typical for one in members], np.float64),
        "expected_false_findings": np.array([one.expected for one in members], np.float64),
        "found_by": [one.detector for one in members],
        "quantity": [one.quantity for one in members],
        "prompt_id": [prompts.ids[one.place["prompt"]] if "prompt" in one.place else "" for one in members],
        "token": [_token(one, prompts) for one in members],
    })  # fmt: skip


def _token(member: Member, prompts: NamedPrompts) -> str:
    """Text of the token that a member is of."""
    if "position" not in member.place:
        return ""
    return prompts.text(prompts.at(member.place["prompt"], member.place["position"]))


def findings_in(result: xr.DataTree) -> list[dict[str, Any]]:
    """The findings of a Result with their members, for a program."""
    from stratoscope.analysis.anomalies.finding import PLACES

    found = [
        {"words": one["words"], "of_model": bool(one["of_model"]), "also": one["also"], "members": []}
        for one in rows_in(result, "findings")
    ]
    for row in rows_in(result, "members"):
        absent = {name for name in PLACES if row[name] < 0} | ({"token"} if row["position"] < 0 else set())
        if "prompt" not in absent:
            row["prompt"] = row["prompt_id"]
        number = row.pop("finding")
        found[number]["members"].append({name: row[name] for name in row if name not in {*absent, "prompt_id"}})
    return found


def _pictures(shown: Sequence[Finding]) -> dict[str, Any]:
    """Maps and series of the first findings, side by side, NaN where one is smaller than another."""
    pictures = [one.picture for one in shown]
    columns = max(len(one.labels) for one in pictures if one)
    rows = max(len(one.rows) or 1 for one in pictures if one)
    values = np.full((len(shown), columns, rows), np.nan)
    numbers, mark = np.full((len(shown), rows), -1), np.full((len(shown), 2), -1)
    labels = np.full((len(shown), columns), "", dtype=object)
    for place, one in enumerate(pictures):
        if one is not None:
            table = one.values.reshape(len(one.labels), -1)
            values[place, : table.shape[0], : table.shape[1]] = table
            numbers[place, : len(one.rows)] = one.rows
            mark[place, : len(one.mark)] = one.mark
            labels[place, : len(one.labels)] = one.labels
    return {
        **table_of("finding", {
            "quantity": [one.quantity if one else "" for one in pictures],
            "columns": np.array([len(one.labels) if one else 0 for one in pictures]),
            "first": np.array([one.first if one else -1 for one in pictures]),
        }),
        **table_of(("finding", "column", "row"), {"values": values}),
        **table_of(("finding", "column"), {"labels": labels}),
        **table_of(("finding", "row"), {"rows": numbers}),
        **table_of(("finding", "axis"), {"mark": mark}),
    }  # fmt: skip
