"""The maps of a contrast: twins token by aligned token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import names
from stratoscope.analysis.contrast.power import would_be_found
from stratoscope.analysis.result import warnings_in
from stratoscope.trace.notes import INFO, Note
from stratoscope.view.maps.build import build
from stratoscope.view.maps.differences import can_differ
from stratoscope.view.maps.strips import Strip, TokenAxis
from stratoscope.view.report.report import Figure
from stratoscope.view.spec.maps import DrawnQuantity
from stratoscope.view.spec.tokens import unknown_tokens
from stratoscope.view.spec.viewspec import ViewSpec, provenance_of_result
from stratoscope.words import number, readable

if TYPE_CHECKING:
    import xarray as xr

_BEFORE = 3  # equal tokens that are shown before the first edit


def aligned(result: xr.Dataset) -> Figure | None:
    """Mean difference of twins on the k-th equal token after the first edit."""
    if "aligned_difference" not in result or not np.isfinite(result["aligned_difference"].values).any():
        return None
    summary = result.attrs["summary"]
    reached = np.isfinite(result["aligned_difference"].values).any(axis=0)
    last = int(np.flatnonzero(reached)[-1]) + 1
    values = result["aligned_difference"].values.T[:last]
    units = result["aligned_units"].values[:last]
    labels = [f"+{place + 1}" for place in range(last)]
    alpha = result.attrs["parameters"]["alpha"]
    differs = np.argwhere(result["aligned_q"].values.T[:last] <= alpha)
    note = Note("L13", INFO, f"Rings: cells with q ≤ {alpha:g}." if len(differs) else f"No cell has q ≤ {alpha:g}.")
    reach = Note(
        "L12",
        INFO,
        f"{units[0]} {summary['aligned']['noun']} reach +1, {units[-1]} reach {labels[-1]}; +k is the k-th equal token "
        "after the first edit.",
    )
    notes, of = [note, reach], summary["aligned"]
    if not of["discoveries"] and of["would_find_d_z"] is not None:  # None: too few cells vary for any to be found
        size = f"|d_z| ≥ {number(of['would_find_d_z'])} in {of['most_units']} {of['noun']}"
        notes.append(Note("L31", INFO, f"{would_be_found(f'One cell with {size}')}."))
    title = f"How far an edit reaches: {summary['a']} − {summary['b']} on the tokens after it"
    spec = _difference_map(
        result,
        title,
        values,
        labels,
        summary["aligned"]["quantity"],
        f"mean over {of['noun']}",
        notes,
        ringed=differs,
    )
    return Figure("aligned", f"{title}: mean difference by layer and aligned token.", spec)


def first_pair(result: xr.Dataset) -> Figure | None:
    """The first pair token by token."""
    if "pair_difference" not in result:
        return None
    summary = result.attrs["summary"]
    late = np.flatnonzero(result["pair_before"].values)[:-_BEFORE]  # all equal, and long where there is a template
    result = result.isel(column=np.setdiff1d(np.arange(result.sizes["column"]), late))
    from_a, from_b = result["pair_text_a"].values, result["pair_text_b"].values
    there_a, there_b = result["pair_position_a"].values >= 0, result["pair_position_b"].values >= 0
    labels = []
    for one, other, has_a, has_b in zip(from_a, from_b, there_a, there_b, strict=True):
        shown = [readable(str(text), width=9) for text, has in ((one, has_a), (other, has_b)) if has]
        labels.append("→".join(dict.fromkeys(shown)))
    title = f"One pair, {summary['aligned']['first_pair']}: {summary['a']} − {summary['b']}, token by token"
    left_out = f"; the first {len(late)} tokens are the same in both and left out" if len(late) else ""
    note = Note(
        "L11",
        INFO,
        "Hatched: tokens that are not equal in both prompts (written a→b); they are not compared" + left_out + ".",
    )
    values = result["pair_difference"].values
    quantity = summary["aligned"]["quantity"]
    spec = _difference_map(
        result, title, values, labels, quantity, "", [note], first=result["pair_first"].values,
        alike=result["pair_before"].values,
    )  # fmt: skip
    return Figure("first-pair", f"{title}. A single pair is an example and no evidence.", spec)


def _difference_map(
    result: xr.Dataset,
    title: str,
    values: Any,
    labels: list[str],
    quantity: str,
    said: str,
    notes: list[Note],
    first: Any = None,
    alike: Any = None,
    ringed: Any = None,
) -> ViewSpec:
    row = names.QUANTITIES[quantity]
    kind = names.DEPTH if names.DEPTH in row.dims else names.LAYER
    label = f"{row.label}: log₂ ratio" if row.log else f"{row.label}: difference"
    unit = "1 = doubled" if row.log else row.unit
    numbers = tuple(int(number) for number in result["row_number"].values)
    described = DrawnQuantity(
        quantity, label, unit, row.formula_in(result), said, signed=True, row_kind=kind, rows=numbers
    )
    places = np.flatnonzero(first) if first is not None else np.empty(0, np.int64)
    tokens = TokenAxis("", "", unknown_tokens(len(labels), places, labels))
    return build(
        title, "", [tokens], [Strip(described, [values], counted=[can_differ(values, alike)], ringed=ringed)],
        notes=[*notes, *warnings_in(result)], provenance=provenance_of_result(result),
    )  # fmt: skip
