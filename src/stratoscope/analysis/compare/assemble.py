"""The parts of a comparison as one Result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.compare import cautions
from stratoscope.analysis.compare.cells import Cells, early, must_be_equal
from stratoscope.analysis.compare.others import Others
from stratoscope.analysis.compare.peaks import OneSided
from stratoscope.analysis.compare.prompts import Two
from stratoscope.analysis.diff.cells import SharedLayers
from stratoscope.analysis.diff.floor import ROUNDING, dtype_of
from stratoscope.analysis.lint.lint import applicable
from stratoscope.analysis.results.result import make_result, table_of
from stratoscope.analysis.values.align import GAP
from stratoscope.analysis.values.explained import about_explained, doubt
from stratoscope.analysis.values.final_norm import AT_ANSWER, ONE_SCALE, is_at_answer, is_under_final_norm
from stratoscope.analysis.values.quantities import label_in
from stratoscope.trace.labels import object_array
from stratoscope.trace.notes import INFO, Note, notes_of
from stratoscope.trace.prompts import GONE

if TYPE_CHECKING:
    import xarray as xr

LISTED = 5  # largest differences in the summary, one a token


@dataclass(frozen=True, eq=False)
class Parts:
    """Everything that was compared; `others` and `lists` are None where there is nothing to say."""

    two: Two
    quantity: str
    rows: SharedLayers
    cells: Cells
    strong: float
    others: Others | None
    lists: OneSided | None


def result(parts: Parts, parameters: Mapping[str, Any]) -> xr.DataTree:
    """The Result of a comparison."""
    tables: dict[str, Mapping[str, Any]] = {"tokens": _tokens(parts)}
    tables[f"tokens/{parts.quantity}"] = _values(parts)
    if parts.others is not None and parts.others.measured:
        tables["others"] = _others(parts.two, parts.others)
    if parts.lists is not None and len(parts.lists.in_b):
        tables["one_list_only"] = _lists(parts.lists)
    summary = _summary(parts, tables["tokens"])
    traces = parts.two.traces
    notes = cautions.about(summary)
    for trace in traces:
        notes += notes_of(trace)
    notes += _explained(parts)
    said = {note.id for note in notes}
    notes += [note for trace in traces for note in applicable(trace, [parts.quantity]) if note.id not in said]
    return make_result("compare", tables, sources=traces, parameters=parameters, notes=notes, summary=summary)


def _tokens(parts: Parts) -> dict[str, Any]:
    columns, two = parts.cells.columns, parts.two
    sides = list(zip(two.sides, (columns.a, columns.b), strict=True))
    texts = [np.where(at == GAP, "", object_array(side.words(np.maximum(at, 0)))).tolist() for side, at in sides]
    position = [np.where(at == GAP, GAP, side.position[at]) for side, at in sides]
    spans = [np.where(at == GAP, GONE, side.spans[at]) for side, at in sides]
    span = np.where(columns.a == GAP, spans[1], spans[0]).astype(np.int64)
    return table_of("column", {
        "position_a": position[0],
        "position_b": position[1],
        "text_a": texts[0],
        "text_b": texts[1],
        "equal": columns.equal,
        "before": columns.before,
        "first": columns.first,
        "rarely_seen": parts.cells.rarely_seen,
        "span": span,
        "predicts": _predicts(parts),
        "template": np.isin(span, [names.SPANS.index(name) for name in names.TEMPLATE_SPANS]),
    })  # fmt: skip


def _predicts(parts: Parts) -> NDArray[np.bool_]:
    """The columns from which the model answers in either prompt; [column]."""
    two, columns = parts.two, parts.cells.columns
    sides = zip(two.sides, two.prompts, (columns.a, columns.b), strict=True)
    predicts: NDArray[np.bool_] = np.any([(at != GAP) & (at == side.answer[prompt]) for side, prompt, at in sides], 0)
    return predicts


def _values(parts: Parts) -> dict[str, Any]:
    row, kind = names.QUANTITIES[parts.quantity], parts.rows.kind
    cells: dict[str, Any] = {kind: parts.rows.numbers}
    for name, values in (("a", parts.cells.a), ("b", parts.cells.b), ("difference", parts.cells.difference)):
        label = "B − A" if name == "difference" else row.label
        cells[name] = (("column", kind), values, {"units": row.unit, "long_name": label})
    return cells


def _others(two: Two, others: Others) -> dict[str, Any]:
    measured = others.measured
    return table_of("other", {
        "prompt_a": np.array([one.a for one in measured]),
        "prompt_b": np.array([one.b for one in measured]),
        "prompt_id_a": [two.sides[0].labels[one.a] for one in measured],
        "prompt_id_b": [two.sides[1].labels[one.b] for one in measured],
        "cells": np.array([one.cells for one in measured]),
        "as_strong": np.array([one.as_strong for one in measured]),
        "largest": np.array([one.largest for one in measured]),
    })  # fmt: skip


def _lists(lists: OneSided) -> dict[str, Any]:
    found: dict[str, Any] = {
        "in_b": lists.in_b,
        "column": lists.column,
        "layer": lists.layer,
        "neuron": lists.neuron,
        "value": lists.value,
    }
    if (lists.expert >= 0).any():
        found["expert"] = lists.expert
    measured = {"write": lists.write, "at_least": lists.at_least}
    return table_of("listed", found | {name: of for name, of in measured.items() if np.isfinite(of).any()})


def _summary(parts: Parts, tokens: Mapping[str, Any]) -> dict[str, Any]:
    two, columns, sizes = parts.two, parts.cells.columns, parts.cells.counted
    row = names.QUANTITIES[parts.quantity]
    gap_a, gap_b = columns.a == GAP, columns.b == GAP
    found = early(parts.cells)
    dtypes = [dtype_of(side.dataset) for side in two.sides]
    return {
        "called": list(two.called),
        "prompts": list(two.ids),
        "classes": list(two.classes),
        "one_trace": two.one_trace,
        "one_model": two.one_model,
        "has_classes": not any(side.are_single_files for side in two.sides),
        "simulated": any(trace.attrs.get("source") == names.SIMULATED for trace in two.traces),
        "quantity": parts.quantity,
        "label": _label(parts),
        "doubt": doubt(two.sides[0].dataset, parts.quantity) or doubt(two.sides[1].dataset, parts.quantity),
        "unit": row.unit,
        "formula": row.formula_in(two.sides[0].dataset),
        "spelling": str(two.sides[0].dataset.attrs.get("token_spelling", "text")),
        "rows": {"kind": parts.rows.kind, "shown": len(parts.rows.numbers), "of": _rows_of(parts)},
        "prompts_of_trace": [len(side) for side in two.sides],
        "columns": {
            "all": len(columns.a),
            "equal": int(columns.equal.sum()),
            "replaced": int((~columns.equal & ~gap_a & ~gap_b).sum()),
            "only_a": int(gap_b.sum()),
            "only_b": int(gap_a.sum()),
        },
        "lengths": [int(side.lengths[prompt]) for side, prompt in zip(two.sides, two.prompts, strict=True)],
        "before": {
            "all": int(columns.before.sum()),
            "tokens": found.tokens,
            "cells": found.cells,
            "must_be_equal": must_be_equal(two, parts.quantity),
            "of_later_tokens": row.of_later_tokens,
            "equal": found.equal,
            "largest": _number(found.largest),
            "relative": _number(found.relative),
            "rounding": max((ROUNDING.get(dtype, 0.0) for dtype in dtypes), default=0.0),
        },
        "difference": {
            "tokens": int((columns.compared & ~columns.before).sum()),
            "cells": len(sizes),
            "differ": int((sizes > 0).sum()),
            "strong_from": _number(parts.strong),
            "strong": int((sizes >= parts.strong).sum()) if np.isfinite(parts.strong) else 0,
            "largest": _largest(parts, tokens),
        },
        "others": _others_in_short(parts),
        "lists": _lists_in_short(parts.lists),
    }


def _label(parts: Parts) -> str:
    """The quantity in words, with the target of these two prompts."""
    (a, b), (first, second) = parts.two.sides, parts.two.prompts
    labels = {label_in(a.dataset, parts.quantity, [first]), label_in(b.dataset, parts.quantity, [second])}
    return labels.pop() if len(labels) == 1 else label_in(a.dataset, parts.quantity)


def _explained(parts: Parts) -> list[Note]:
    """What is said of contributions and effects, and of the final norms that contributions stand under."""
    two = parts.two
    of = [(side.dataset, [prompt]) for side, prompt in zip(two.sides, two.prompts, strict=True)]
    if two.one_trace:
        of = [(two.sides[0].dataset, [*two.prompts])]
    notes = [note for dataset, prompts in of for note in about_explained(dataset, [parts.quantity], prompts)]
    if is_under_final_norm(parts.quantity):
        where = "" if is_at_answer(parts.quantity) else AT_ANSWER
        notes.append(Note("L29", INFO, f"{ONE_SCALE}{where}"))
    return notes


def _rows_of(parts: Parts) -> int:
    """How many rows both traces have."""
    a, b = (set(side.dataset[parts.rows.kind].values.tolist()) for side in parts.two.sides)
    return len(a & b)


def _largest(parts: Parts, tokens: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The largest differences, of each token the one in its strongest layer."""
    sizes = np.nan_to_num(parts.cells.sizes())
    strongest = sizes.max(axis=1, initial=0)
    order = np.argsort(-strongest, kind="stable")[:LISTED]
    found = []
    for column in order[strongest[order] > 0].tolist():
        row = int(sizes[column].argmax())
        found.append({
            "column": column,
            "position_a": int(tokens["position_a"].values[column]),
            "position_b": int(tokens["position_b"].values[column]),
            "token": str(tokens["text_a"].values[column]),
            "layer": int(parts.rows.numbers[row]),
            "a": float(parts.cells.a[column, row]),
            "b": float(parts.cells.b[column, row]),
            "difference": float(parts.cells.difference[column, row]),
        })  # fmt: skip
    return found


def _others_in_short(parts: Parts) -> dict[str, Any] | None:
    others = parts.others
    if others is None:
        return None
    shares = np.array([one.share for one in others.measured])
    largest = np.array([one.largest for one in others.measured])
    mine = parts.cells.counted
    here = float((mine >= parts.strong).mean())
    if not len(shares):
        return {"relation": others.relation, "of": others.of, "measured": 0}
    return {
        "relation": others.relation,
        "of": others.of,
        "measured": len(shares),
        "share_here": here,
        "share_typical": float(np.median(shares)),
        "share_least": float(shares.min()),
        "share_most": float(shares.max()),
        "with_as_many": int((shares >= here).sum()),
        "largest_here": float(mine.max()),
        "largest_typical": float(np.median(largest)),
        "largest_least": float(largest.min()),
        "largest_most": float(largest.max()),
    }


def _lists_in_short(lists: OneSided | None) -> dict[str, Any] | None:
    if lists is None:
        return None
    in_b = int(lists.in_b.sum())
    return {"only_a": len(lists.in_b) - in_b, "only_b": in_b, "cells": lists.compared, "most": lists.most}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
