"""`anomalies`: what lies far outside its own distribution, ranked, with the number of false alarms to expect."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import defaults, names
from stratoscope.errors import InputError
from stratoscope.progress import Progress, silent

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.analysis.anomalies.finding import Finding, Look

_SHOWN = 8  # findings with a picture
_LISTED = 200


def anomalies(
    trace: str | os.PathLike[str] | xr.Dataset,
    *,
    reference: str | os.PathLike[str] | xr.Dataset | None = None,
    alpha: float = defaults.ALPHA,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Find tokens, heads, neurons, layers and experts far outside their own distribution.

    Each detector turns what it looks at into scores (distance from the median in robust standard deviations, on a scale
    on which values add up), fits the tail of all its scores, and calls a finding what is stranger than it should be
    once in 1/`alpha` traces, all detectors together. docs/anomalies.md lists them.

    Parameters
    ----------
    trace
        A trace, or its Dataset.
    reference
        A trace of the same layers, heads and neurons whose distributions count instead.
    alpha
        Expected number of false findings in a trace, shared out evenly among the detectors.
    progress
        Is told what is being done.

    Returns
    -------
    xarray.Dataset
        A Result of kind "anomalies". On `finding`, least expected first: `found_by`, `prompt_id`, `prompt`, `position`,
        `layer`, `head`, `neuron`, `expert` (−1 = does not apply), `value`, `typical`, `expected_false_alarms`, `also`
        (how many more cells of the same thing), `words`. On `detector`: what each looked at, how much of it, or why
        not.

    Raises
    ------
    InputError
        The reference is of another shape, or there is nothing to look at.
    """
    from stratoscope.analysis.anomalies import attention, depth, neurons, tokens
    from stratoscope.trace.reader import open_trace

    detectors = (
        tokens.massive_activation,
        tokens.massive_residual,
        attention.moved_sink,
        attention.unusual_route,
        attention.broken_rows,
        neurons.dead_neuron,
        neurons.always_on_neuron,
        depth.layer_off_trend,
        depth.expert_takes_all,
    )
    dataset, other = (
        open_trace(os.fspath(one)) if isinstance(one, str | os.PathLike) else one for one in (trace, reference)
    )
    assert dataset is not None
    if other is not None:
        _refuse_other_shape(dataset, other)
    if not 0 < alpha <= 1:
        raise InputError(f"{alpha} is out of range", where="alpha", fix="Give a number above 0, at most 1.")
    told = progress or silent
    looks: list[Look] = []
    for number, detector in enumerate(detectors):
        told("looking", number, len(detectors))
        looks.append(detector(dataset, other))
    told("looking", len(detectors), len(detectors))
    if not any(look.units for look in looks):
        raise InputError(
            "there is nothing to look at in it",
            where="trace",
            fix="Record it: stratoscope capture MODEL --prompts FILE --record norms,prompts,attention -o TRACE",
        )
    uncertain = sum(look.units > 0 and not look.certain for look in looks)
    most_expected = alpha / max(uncertain, 1)
    found = sorted((one for look in looks for one in look.found(most_expected)), key=lambda one: one.expected)
    return _result(dataset, other, looks, found, alpha, most_expected)


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
    alpha: float,
    most_expected: float,
) -> xr.Dataset:
    from stratoscope.analysis.anomalies.finding import PLACES, Prompts
    from stratoscope.analysis.lint.lint import applicable
    from stratoscope.analysis.result import make_result, texts
    from stratoscope.trace.notes import INFO, Note, notes_of

    listed = found[:_LISTED]
    ids = Prompts(dataset).ids
    variables: dict[str, Any] = {
        name: ("finding", np.array([one.place.get(name, -1) for one in listed], np.int64)) for name in PLACES
    }
    variables["value"] = ("finding", np.array([one.value for one in listed], np.float64))
    variables["typical"] = ("finding", np.array([one.typical for one in listed], np.float64))
    variables["expected_false_alarms"] = ("finding", np.array([one.expected for one in listed], np.float64))
    variables["also"] = ("finding", np.array([one.also for one in listed], np.int64))
    variables["found_by"] = texts("finding", [one.detector for one in listed])
    variables["prompt_id"] = texts(
        "finding", [ids[one.place["prompt"]] if "prompt" in one.place else "" for one in listed]
    )
    variables["words"] = texts("finding", [one.words for one in listed])
    variables["looked_at"] = ("detector", np.array([look.units for look in looks], np.int64))
    variables["what"] = texts("detector", [look.what for look in looks])
    variables["why_not"] = texts("detector", [look.why for look in looks])
    variables |= _pictures(listed[:_SHOWN])
    chance = Note(
        "L13",
        INFO,
        f"Expected false findings where nothing is odd: {alpha:g} in all, {most_expected:.2g} of each detector.",
    )
    sources = [dataset] if reference is None else [dataset, reference]
    return make_result(
        "anomalies",
        variables,
        {"detector": texts("detector", [look.detector for look in looks])},
        sources=sources,
        parameters={"alpha": alpha, "reference": reference is not None},
        notes=[*notes_of(dataset), chance, *applicable(dataset)],
        summary={
            "findings": len(found),
            "listed": len(listed),
            "expected_false_alarms": alpha,
            "detectors": sum(look.units > 0 for look in looks),
            "by_detector": {look.detector: sum(one.detector == look.detector for one in found) for look in looks},
        },
    )


def _pictures(shown: Sequence[Finding]) -> dict[str, Any]:
    """Maps and series of the first findings, side by side, NaN where one is smaller than another."""
    from stratoscope.analysis.result import texts

    pictures = [one.picture for one in shown]
    if not any(pictures):
        return {}
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
        "picture_values": (("shown", "column", "row"), values),
        "picture_rows": (("shown", "row"), numbers),
        "picture_mark": (("shown", "axis"), mark),
        "picture_columns": ("shown", np.array([len(one.labels) if one else 0 for one in pictures])),
        "picture_labels": texts(("shown", "column"), labels),
        "picture_of": texts("shown", [one.quantity if one else "" for one in pictures]),
    }
