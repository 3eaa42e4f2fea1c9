"""The parts of a diff as one Result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import names
from stratoscope.analysis.diff import cautions, claimed, explained
from stratoscope.analysis.diff.cells import PROFILE, Compared
from stratoscope.analysis.diff.claims import may_be_residual
from stratoscope.analysis.diff.comparison import Comparison
from stratoscope.analysis.diff.floor import Noise, dtype_of, weights_of
from stratoscope.analysis.diff.matched_null import in_null
from stratoscope.analysis.diff.neurons import NeuronDifferences
from stratoscope.analysis.lint.lint import applicable
from stratoscope.analysis.results.result import LONGEST_NAME, make_result, table_of
from stratoscope.analysis.values.align import GAP
from stratoscope.trace.labels import object_array
from stratoscope.trace.notes import Note, notes_of

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

LISTED = 20  # neurons that changed most
_ATTENTION = "attn_write"  # what attention adds to what the MLP reads
_WORDS = {
    "difference": "B − A",
    "ratio": "B / A",
    "times_floor": "|B − A| / max(floor, rounding · max(|A|, |B|))",
    "size_median": "median of |B − A| over all equal tokens of all prompts but the first",
    "size_95": "95 % quantile of the same",
    "size_mean": "mean of the same",
    "size_largest": "largest of the same",
    "times_median": "median of |B − A| in floors",
    "times_95": "95 % quantile of the same",
    "times_largest": "largest of the same",
    "share_above": "share of cells above the floor",
    "share_changed": "share of cells that differ at all",
    "relative_median": "median of |B − A| / max(|A|, |B|)",
    "floor_relative": "the floor over the median of |A|: smaller changes are below it",
}
_NEURONS: dict[str, tuple[str, Callable[[NeuronDifferences], Any]]] = {
    "difference": ("mean over prompts of B − A of the mean activation", lambda one: one.difference),
    "largest": ("largest |B − A| over prompts", lambda one: one.largest),
    "times_floor": ("largest over prompts of |B − A| in floors", lambda one: one.times),
    "column_norm_a": ("norm of the neuron's column in A, read off its peaks", lambda one: one.columns.a),
    "column_norm_b": ("norm of the neuron's column in B, read off its peaks", lambda one: one.columns.b),
    "column_most_a": ("what the norm is at most in A, if a peak of B only", lambda one: one.columns.most_a),
    "column_most_b": ("what the norm is at most in B, if a peak of A only", lambda one: one.columns.most_b),
}


def result(parts: Comparison, parameters: Mapping[str, Any]) -> xr.DataTree:
    """The Result of a diff."""
    tables: dict[str, Mapping[str, Any]] = {}
    for add in (_add_prompts, _add_tokens, _add_quantities, _add_neurons, _add_listed, explained.add_tables):
        add(parts, tables)
    summary = _summary(parts)
    notes = _notes(parts)
    if parts.claims:
        notes += _add_claims(parts, tables, summary)
    if parts.null is not None:
        found, summary["null"] = in_null(parts.null, parts.a, parts.b, parts.pairs, parts.columns)
        tables |= found
        notes += cautions.about_null(summary["null"])
    return make_result("diff", tables, sources=[parts.a, parts.b], parameters=parameters, notes=notes, summary=summary)


def _add_prompts(parts: Comparison, tables: dict[str, Mapping[str, Any]]) -> None:
    tables["prompts"] = table_of("prompt", {
        "prompt_id": [pair.name for pair in parts.pairs],
        "prompt_a": np.array([pair.a for pair in parts.pairs]),
        "prompt_b": np.array([pair.b for pair in parts.pairs]),
        "by_id": np.array([pair.by_id for pair in parts.pairs]),
    })  # fmt: skip


def _add_tokens(parts: Comparison, tables: dict[str, Mapping[str, Any]]) -> None:
    columns, kept = parts.columns, parts.columns.of(parts.shown)
    sides = list(zip(parts.sides, (columns.a[kept], columns.b[kept]), strict=True))
    of_a, of_b = (np.where(at == GAP, "", object_array(side.words(np.maximum(at, 0)))).tolist() for side, at in sides)
    position = [np.where(at == GAP, GAP, side.position[at]) for side, at in sides]
    of_template = [(at != GAP) & side.in_spans(names.TEMPLATE_SPANS)[at] for side, at in sides]
    tables["tokens"] = table_of("column", {
        "prompt_id": [parts.pairs[number].name for number in columns.pair[kept]],
        "position_a": position[0],
        "position_b": position[1],
        "first": columns.first[kept],
        "equal": columns.equal[kept],
        "before": columns.before[kept],
        "template": of_template[0] | of_template[1],
        "text": [one or other for one, other in zip(of_a, of_b, strict=True)],
        "text_a": of_a,
        "text_b": of_b,
    })  # fmt: skip


def _add_quantities(parts: Comparison, tables: dict[str, Mapping[str, Any]]) -> None:
    for one in parts.compared:
        row, kind = names.QUANTITIES[one.quantity], one.rows.kind
        cells: dict[str, Any] = {kind: one.rows.numbers}
        for name, values in one.cells.items():
            unit = "1" if name in ("ratio", "times_floor") else row.unit
            cells[name] = (("column", kind), values, {"units": unit, "long_name": _WORDS.get(name, row.label)})
        tables[f"tokens/{one.quantity}"] = cells
        known = [name for name in PROFILE if np.isfinite(one.profile[name]).any()]
        profile = {name: (kind, one.profile[name], {"long_name": _WORDS[name]}) for name in known}
        tables[f"profiles/{one.quantity}"] = {kind: one.rows.numbers, **profile}


def _add_neurons(parts: Comparison, tables: dict[str, Mapping[str, Any]]) -> None:
    if parts.neurons is None:
        return
    of: dict[str, Any] = {names.LAYER: parts.rows.numbers}
    for name, (words, values_of) in _NEURONS.items():
        values = values_of(parts.neurons)
        if np.isfinite(values).any():
            of[name] = ((names.LAYER, names.NEURON), values.astype(np.float32), {"long_name": words})
    if "column_norm_a" in of or "column_norm_b" in of:
        words = "whether the norms prove that the column is another one"
        changed = parts.neurons.columns.changed
        of["column_changed"] = ((names.LAYER, names.NEURON), changed, {"long_name": words})
    of["found_again"] = (names.LAYER, parts.neurons.found)
    of["same"] = (names.LAYER, parts.neurons.same)
    tables["neurons"] = of


def _add_listed(parts: Comparison, tables: dict[str, Mapping[str, Any]]) -> None:
    """The neurons that are proved to have changed, by how much; then those that moved most, by floors, else by size."""
    neurons = parts.neurons
    if neurons is None or not np.isfinite(neurons.largest).any():
        return
    moved = neurons.times if np.isfinite(neurons.times).any() else neurons.largest
    moved, proof = np.where(np.isfinite(moved), moved, 0.0).ravel(), neurons.columns.size().ravel()
    proved = neurons.columns.changed.ravel()
    own = _changed_themselves(parts).ravel()
    order = np.lexsort((-moved, ~own, -proof, ~proved))[:LISTED]
    order = order[proved[order] | (moved[order] > 0)]
    rows, columns = np.unravel_index(order, neurons.largest.shape)
    found = {"layer": parts.rows.numbers[rows], "neuron": columns.astype(np.int64)}
    tables["listed"] = table_of("listed", found)


def _changed_themselves(parts: Comparison) -> NDArray[np.bool_]:
    """Neurons of the first layer that differs whose activation moved, although nothing recorded before the MLP did."""
    neurons, exact = parts.neurons, parts.exact
    if neurons is None:
        return np.zeros((0, 0), bool)
    mine = np.zeros(neurons.largest.shape, bool)
    before = [name for name in exact.same_there if name.startswith(_ATTENTION)]
    if parts.conditions.alike and before and not any(name.startswith(_ATTENTION) for name in exact.other_there):
        place = np.flatnonzero(parts.rows.numbers == exact.first)
        mine[place] = np.nan_to_num(neurons.largest[place]) > 0
    return mine


def _add_claims(parts: Comparison, tables: dict[str, Mapping[str, Any]], summary: dict[str, Any]) -> list[Note]:
    first = parts.exact.first if parts.conditions.alike else None
    judged = claimed.judge(parts.claims, parts.neurons, parts.rows, first)
    given = {"layer": np.int64, "neuron": np.int64, "old": np.float64, "new": np.float64, "line": np.int64}
    claimed_of = {
        name: np.array([getattr(claim, name) for claim in parts.claims], dtype=dtype) for name, dtype in given.items()
    }
    measured = (*claimed.MEASURED, "rank", "verdict", "why")
    tables["claims"] = table_of("claim", claimed_of | {name: getattr(judged, name) for name in measured})
    early = claimed.causality(parts.claims, parts.compared, parts.noise)
    summary["claims"] = {
        "claims": len(parts.claims),
        "verdicts": {one: judged.verdict.count(one) for one in claimed.VERDICTS},
        "neurons_of_a_layer": judged.neurons,
        "elsewhere": claimed.elsewhere(parts.claims, parts.neurons, parts.rows),
        "causality": early,
    }
    learned = bool(np.isfinite(judged.column_norm_a).any())
    return cautions.about_claims(early, may_be_residual(parts.claims, parts.a), learned, repeats=_repeats(parts))


def _notes(parts: Comparison) -> list[Note]:
    a, b = parts.a, parts.b
    quantities = [one.quantity for one in parts.compared]
    notes = cautions.about_prompts(parts.pairs, parts.columns, *(len(side.ids) for side in parts.sides))
    if not (_identical(parts) and parts.noise.same_dtype):  # no difference needs no floor
        notes += cautions.about_floor(parts.noise, quantities, repeats=_repeats(parts))
    notes += cautions.about_conditions(parts.noise, parts.conditions, parts.exact)
    notes += cautions.about_before(a, b, parts.noise, parts.compared)
    notes += cautions.about_models(a, b, parts.rows.numbers.tolist())
    notes += cautions.about_neurons(parts.ancestry, parts.neurons, parts.rows.numbers, parts.other_context)
    notes += explained.notes(parts)
    for one in (a, b):
        notes += notes_of(one)
    said = {note.id for note in notes}
    return [*notes, *(note for one in (a, b) for note in applicable(one, quantities) if note.id not in said)]


def _summary(parts: Comparison) -> dict[str, Any]:
    whole = parts.columns.whole(len(parts.pairs))
    layers = sum(int(np.isfinite(one.profile["share_above"]).sum()) for one in parts.compared)
    weights = [weights_of(one) for one in (parts.a, parts.b)]
    return {
        "pairs": len(parts.pairs),
        "matched_by_id": sum(pair.by_id for pair in parts.pairs),
        "edited": int((~whole).sum()),
        "only_in_a": len(parts.sides[0].ids) - len(parts.pairs),
        "only_in_b": len(parts.sides[1].ids) - len(parts.pairs),
        "tokens": int(parts.columns.compared.sum()),
        "models": [str((one.attrs.get("model") or {}).get("name") or "")[:LONGEST_NAME] for one in (parts.a, parts.b)],
        "dtypes": [dtype_of(parts.a), dtype_of(parts.b)],
        "same_weights": parts.noise.same_weights,
        "known_weights": all(weights),
        "floor": any(parts.noise.measured(one.quantity) for one in parts.compared),
        "floor_holds_dtype": bool(parts.noise.with_dtype() or parts.noise.undivided()),
        "identical": _identical(parts),
        "alike": parts.conditions.alike,
        "unlike": parts.conditions.unlike,
        "repeats": _repeats(parts),
        "exact": asdict(parts.exact),
        "quantities": {one.quantity: _of_quantity(one, parts.noise, layers) for one in parts.compared},
        "beyond": _first_beyond(parts, layers),
        "neurons": _of_neurons(parts),
        "explained": explained.summary(parts),
    }


def _repeats(parts: Comparison) -> bool:
    """Whether noise changes nothing here: both were recorded alike, and are equal to the last bit before the change."""
    return parts.conditions.alike and not parts.noise.same_weights and bool(parts.exact.equal or parts.exact.same_there)


def _first_beyond(parts: Comparison, layers: int) -> int | None:
    """The first layer of which more cells exceed the floor than chance makes; −1: it is so before the first block."""
    found = []
    for one in parts.compared:
        exceeded = parts.noise.exceeded(one.quantity, layers, one.profile["share_above"], one.counted)
        behind = one.rows.kind == names.DEPTH  # depth d is what block d − 1 made
        found += (one.rows.numbers[exceeded] - behind).tolist()
    return min(found, default=None)


def _of_quantity(one: Compared, noise: Noise, layers: int) -> dict[str, Any]:
    times, share = one.profile["times_largest"], one.profile["share_above"]
    known = np.isfinite(times).any()
    row = int(np.nanargmax(times)) if known else -1
    most = max(noise.most_by_chance(one.quantity, layers, int(count)) for count in one.counted)
    return {
        "row_kind": one.rows.kind,
        "identical": one.identical,
        "largest_difference": _number(one.profile["size_largest"]),
        "median_times_floor": float(np.nanmedian(one.profile["times_median"])) if known else None,
        "largest_times_floor": _number(times),
        "largest_at": int(one.rows.numbers[row]) if known else None,
        "share_above_floor": float(np.nanmean(share)) if known else None,
        "share_above_by_chance": noise.chance(one.quantity) if known else None,
        "most_by_chance": most if known else None,
        "hidden": _number(one.profile["floor_relative"], middle=True) if known else None,
    }


def _of_neurons(parts: Comparison) -> dict[str, Any]:
    if parts.neurons is None or not parts.neurons.same.any():
        return {"refused": parts.ancestry.refused or "they are not the same in both models"}
    neurons = parts.neurons
    known, norms = np.isfinite(neurons.largest), neurons.columns
    per_layer = zip(parts.rows.numbers.tolist(), norms.changed.sum(axis=1).tolist(), strict=True)
    with np.errstate(invalid="ignore"):
        above = int((neurons.times > 1).sum()) if np.isfinite(neurons.times).any() else None
    return {
        "refused": "",
        "prompts": parts.prompts_of_neurons,
        "layers": int(neurons.same.sum()),
        "compared": int(known.sum()),
        "above_floor": above,
        "moved": int((np.nan_to_num(neurons.largest) > 0).sum()),
        "changed_themselves": int(_changed_themselves(parts).sum()),
        "of_a_layer": neurons.largest.shape[1],
        "columns_seen": int(norms.seen.sum()),
        "columns_tolerance": norms.tolerance,
        "columns_changed": int(norms.changed.sum()),
        "columns_changed_in": {layer: count for layer, count in per_layer if count},
        "lowest_share_found": None if np.isnan(neurons.found).all() else float(np.nanmin(neurons.found)),
    }


def _identical(parts: Comparison) -> bool:
    neurons = parts.neurons
    same = neurons is None or not (np.nan_to_num(neurons.largest).any() or neurons.columns.changed.any())
    return same and all(one.identical for one in parts.compared)


def _number(values: Any, *, middle: bool = False) -> float | None:
    """The largest finite one, or the median of the finite ones; None where there is none."""
    known = values[np.isfinite(values)]
    return float(np.median(known) if middle else known.max()) if known.size else None
