"""A | B | B − A | times the floor: one prompt of a Result of kind "diff", token by aligned token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import names
from stratoscope.analysis.results.result import table_in, warnings_in
from stratoscope.errors import InputError, choices
from stratoscope.trace.notes import INFO, Note
from stratoscope.view.choose.quantities import reduced_in_words
from stratoscope.view.maps.build import build
from stratoscope.view.maps.differences import (
    ONLY_A,
    ONLY_B,
    aligned_tokens,
    described_cells,
    sides_and_difference,
)
from stratoscope.view.maps.strips import Strip
from stratoscope.view.spec.tokens import ShownPrompt
from stratoscope.view.spec.viewspec import ViewSpec, provenance_of_result, public_name, selected_of_result
from stratoscope.words import capital, isolate, percent

if TYPE_CHECKING:
    import xarray as xr


def diff_spec(result: xr.DataTree, prompt: str, quantity: str) -> ViewSpec:
    """The picture of one prompt.

    Parameters
    ----------
    result
        What `diff` gave.
    prompt
        The id of a prompt that it kept token by token.
    quantity
        One that it compared.

    Raises
    ------
    InputError
        It has no such prompt or quantity.
    """
    tokens = table_in(result, "tokens")
    kept = [str(one) for one in tokens["prompt_id"].values]
    if prompt not in kept or quantity not in result["tokens"]:
        raise InputError(
            f"no {quantity} of prompt {prompt!r} in this result",
            where="prompt",
            fix=choices(prompt, [*dict.fromkeys(kept)], there="It has"),
        )
    here = np.flatnonzero(np.array(kept) == prompt)
    tokens, cells = (one.isel(column=here) for one in (tokens, table_in(result, f"tokens/{quantity}")))
    summary = result.attrs["summary"]
    row = names.QUANTITIES[quantity]
    difference = cells["difference"].values
    known = difference[np.isfinite(difference)]
    title = f"{capital(row.label)}: B − A, token by aligned token"
    if known.size and not known.any():
        title = f"No difference in {row.label}, token by aligned token"
    return build(
        title,
        _sides(summary, prompt),
        [aligned_tokens(tokens, [ShownPrompt(prompt)])],
        _strips(cells, row, _alike(tokens, summary), row.formula_in(result)),
        selected=selected_of_result(result, [prompt]),
        notes=[*_notes(tokens, cells, summary, quantity), *warnings_in(result)],
        provenance=provenance_of_result(result),
    )


def sides_in_words(summary: dict[str, list[str]]) -> list[str]:
    """What A and B are: model and dtype."""
    found = []
    for model, dtype in zip(summary["models"], summary["dtypes"], strict=True):
        found.append(", ".join(part for part in (public_name(model), dtype) if part) or "an unknown model")
    return found


def _sides(summary: dict[str, list[str]], prompt: str) -> str:
    a, b = sides_in_words(summary)
    return " · ".join(isolate(part) for part in (f"Prompt {prompt}", f"A: {a}", f"B: {b}"))


def _strips(cells: xr.Dataset, row: names.Quantity, alike: np.ndarray | None, formula: str) -> list[Strip]:
    said = reduced_in_words(row)
    described = described_cells(cells, row, formula, said)
    strips = sides_and_difference(cells, described, (f"A: {row.label}", f"B: {row.label}", "B − A"), alike=alike)
    if "times_floor" in cells:
        formula = "|B − A| / noise floor of the layer; lowest colour: within it"
        times = cells["times_floor"].values
        floors = replace(described, label="Times the floor", unit="1", formula=formula, said="", signed=False, log=True)
        differs = bool(np.nan_to_num(times).any())
        shown = np.where(times == 0, np.finfo(np.float32).tiny, times) if differs else times
        strips.append(Strip(floors, [shown], lowest=1.0, counted=strips[-1].counted))
    return strips


def _alike(tokens: xr.Dataset, summary: Mapping[str, Any]) -> np.ndarray | None:
    """Tokens that one model, run twice, must treat alike; None of two models."""
    same = summary["same_weights"] and summary["dtypes"][0] == summary["dtypes"][1]
    return np.asarray(tokens["before"].values, bool) if same else None


def _notes(tokens: xr.Dataset, cells: xr.Dataset, summary: Mapping[str, Any], quantity: str) -> list[Note]:
    notes = []
    chance = None if summary["repeats"] else summary["quantities"][quantity]["share_above_by_chance"]
    if not tokens["equal"].values.all():
        text = (
            f"Hatched: tokens without an equal one on the other side ({ONLY_A} only in A, {ONLY_B} only in B, a→b "
            "replaced); they are not compared, and after the first of them equal tokens stand in another context."
        )
        notes.append(Note("L11", INFO, text))
    if "times_floor" in cells:
        times = cells["times_floor"].values
        known = times[np.isfinite(times)]
        if known.size:
            by_chance = f" ({percent(chance)} would by chance)" if chance else ""
            text = (
                f"{percent(float((known > 1).mean()))} of the cells shown exceed the noise floor{by_chance}; at "
                "first tokens none was measured."
            )
            notes.append(Note("L14", INFO, text))
    return notes
