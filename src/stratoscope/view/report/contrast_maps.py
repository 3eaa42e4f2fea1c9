"""The maps of a contrast: twins token by aligned token."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.contrast.power import would_be_found
from stratoscope.analysis.results.result import table_in, warnings_in
from stratoscope.analysis.values.align import GAP
from stratoscope.trace.notes import INFO, Note
from stratoscope.view.maps.build import build
from stratoscope.view.maps.differences import can_differ, written
from stratoscope.view.maps.strips import Strip, TokenAxis
from stratoscope.view.report.report import Figure
from stratoscope.view.spec.maps import DrawnQuantity
from stratoscope.view.spec.tokens import ShownTokens, unknown_tokens
from stratoscope.view.spec.viewspec import ViewSpec, provenance_of_result, selected_of_result
from stratoscope.words import number

if TYPE_CHECKING:
    import xarray as xr

_WIDTH = 9  # characters of a token's label
_BEFORE = 3  # equal tokens that are shown before the first edit


def aligned(result: xr.DataTree) -> Figure | None:
    """Mean difference of twins on the k-th equal token after the first edit."""
    if "aligned" not in result:
        return None
    summary = result.attrs["summary"]
    cells = table_in(result, f"aligned/{summary['aligned']['quantity']}")
    reached = np.isfinite(cells["difference"].values).any(axis=0)
    if not reached.any():
        return None
    last = int(np.flatnonzero(reached)[-1]) + 1
    units = cells["units"].values[:last]
    labels = [f"+{place + 1}" for place in range(last)]
    alpha = result.attrs["parameters"]["alpha"]
    differs = np.argwhere(cells["q"].values.T[:last] <= alpha)
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
    nowhere = np.full(last, GAP, np.int32)  # of no single prompt
    tokens = replace(unknown_tokens(last, text=labels), position=nowhere)
    spec = _difference_map(result, title, tokens, cells, notes, said=f"mean over {of['noun']}", ringed=differs)
    return Figure("aligned", "Mean difference by layer and aligned token.", spec)


def first_pair(result: xr.DataTree) -> Figure | None:
    """The first pair token by token."""
    if "tokens" not in result:
        return None
    summary = result.attrs["summary"]
    tokens = table_in(result, "tokens")
    late = np.flatnonzero(tokens["before"].values)[:-_BEFORE]  # all equal, and long where there is a template
    shown = np.setdiff1d(np.arange(tokens.sizes["column"]), late)
    cells = table_in(result, f"tokens/{summary['aligned']['quantity']}").isel(column=shown)
    tokens = tokens.isel(column=shown)
    texts, positions = ([tokens[f"{what}_{side}"].values for side in "ab"] for what in ("text", "position"))
    there = [position != GAP for position in positions]
    of_both = (there[0], there[1] & ~np.asarray(tokens["equal"].values, bool))  # what is equal is written once
    labels = written(texts[0], texts[1], *of_both, width=_WIDTH)
    pair = summary["aligned"]["first_pair"]  # "" where it is published without names
    title = f"One pair{f', {pair}' if pair else ''}: {summary['a']} − {summary['b']}, token by token"
    left_out = f"; the first {len(late)} tokens are the same in both and left out" if len(late) else ""
    note = Note(
        "L11",
        INFO,
        "Hatched: tokens that are not equal in both prompts (written a→b); they are not compared"
        + left_out
        + f". Positions are those in {summary['a']}.",
    )
    known = unknown_tokens(len(labels), np.flatnonzero(tokens["first"].values), labels)
    named = replace(known, position=positions[0].astype(np.int32))
    spec = _difference_map(result, title, named, cells, [note], alike=tokens["before"].values)
    return Figure("first-pair", "A single pair is an example and no evidence.", spec)


def _difference_map(
    result: xr.DataTree, title: str, tokens: ShownTokens, cells: xr.Dataset, notes: list[Note], *, said: str = "",
    alike: NDArray[np.bool_] | None = None, ringed: NDArray[np.integer] | None = None,
) -> ViewSpec:  # fmt: skip
    """The differences in a table of the quantity that twins are compared by, as far as there are tokens."""
    row = names.QUANTITIES[result.attrs["summary"]["aligned"]["quantity"]]
    drawn = DrawnQuantity(
        row.name,
        f"{row.label}: log₂ ratio" if row.log else f"{row.label}: difference",
        "1 = doubled" if row.log else row.unit,
        row.formula_in(result),
        said,
        signed=True,
        row_kind=row.row_kind,
        rows=tuple(cells[row.row_kind].values.tolist()),
    )
    values = cells["difference"].transpose(..., row.row_kind).values[: len(tokens.position)]
    strip = Strip(drawn, [values], counted=[can_differ(values, alike)], ringed=ringed)
    notes = [*notes, *warnings_in(result)]
    axis = TokenAxis("", "", tokens)
    about, selected = provenance_of_result(result), selected_of_result(result)
    return build(title, "", [axis], [strip], selected=selected, notes=notes, provenance=about)
