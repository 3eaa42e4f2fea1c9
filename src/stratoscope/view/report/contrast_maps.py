"""The maps of a contrast: twins token by aligned token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.align import GAP
from stratoscope.analysis.contrast.power import would_be_found
from stratoscope.analysis.result import warnings_in
from stratoscope.trace.arrays import AnyFloats
from stratoscope.trace.notes import INFO, Note
from stratoscope.view.maps.build import build
from stratoscope.view.maps.differences import can_differ, written
from stratoscope.view.maps.strips import Strip, TokenAxis
from stratoscope.view.report.report import Figure
from stratoscope.view.spec.maps import DrawnQuantity
from stratoscope.view.spec.tokens import ShownTokens, unknown_tokens
from stratoscope.view.spec.viewspec import ViewSpec, provenance_of_result
from stratoscope.words import number

if TYPE_CHECKING:
    import xarray as xr

_WIDTH = 9  # characters of a token's label
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
        result, title, unknown_tokens(last, text=labels), values, notes, said=f"mean over {of['noun']}", ringed=differs
    )
    return Figure("aligned", f"{title}: mean difference by layer and aligned token.", spec)


def first_pair(result: xr.Dataset) -> Figure | None:
    """The first pair token by token."""
    if "pair_difference" not in result:
        return None
    summary = result.attrs["summary"]
    late = np.flatnonzero(result["pair_before"].values)[:-_BEFORE]  # all equal, and long where there is a template
    result = result.isel(column=np.setdiff1d(np.arange(result.sizes["column"]), late))
    texts, positions = ([result[f"pair_{what}_{side}"].values for side in "ab"] for what in ("text", "position"))
    labels = written(*texts, *(position != GAP for position in positions), width=_WIDTH)
    title = f"One pair, {summary['aligned']['first_pair']}: {summary['a']} − {summary['b']}, token by token"
    left_out = f"; the first {len(late)} tokens are the same in both and left out" if len(late) else ""
    note = Note(
        "L11",
        INFO,
        "Hatched: tokens that are not equal in both prompts (written a→b); they are not compared" + left_out + ".",
    )
    tokens = unknown_tokens(len(labels), np.flatnonzero(result["pair_first"].values), labels)
    values, alike = result["pair_difference"].values, result["pair_before"].values
    spec = _difference_map(result, title, tokens, values, [note], alike=alike)
    return Figure("first-pair", f"{title}. A single pair is an example and no evidence.", spec)


def _difference_map(
    result: xr.Dataset, title: str, tokens: ShownTokens, values: AnyFloats, notes: list[Note], *, said: str = "",
    alike: NDArray[np.bool_] | None = None, ringed: NDArray[np.integer] | None = None,
) -> ViewSpec:  # fmt: skip
    """Differences of the quantity that twins are compared by, of shape (tokens, rows)."""
    row = names.QUANTITIES[result.attrs["summary"]["aligned"]["quantity"]]
    drawn = DrawnQuantity(
        row.name,
        f"{row.label}: log₂ ratio" if row.log else f"{row.label}: difference",
        "1 = doubled" if row.log else row.unit,
        row.formula_in(result),
        said,
        signed=True,
        row_kind=names.DEPTH if names.DEPTH in row.dims else names.LAYER,
        rows=tuple(result["row_number"].values.tolist()),
    )
    strip = Strip(drawn, [values], counted=[can_differ(values, alike)], ringed=ringed)
    notes = [*notes, *warnings_in(result)]
    axis = TokenAxis("", "", tokens)
    return build(title, "", [axis], [strip], notes=notes, provenance=provenance_of_result(result))
