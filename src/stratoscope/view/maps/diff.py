"""A | B | B − A | times the floor: one prompt of a Result of kind "diff", token by aligned token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import names
from stratoscope.analysis.results.result import table_in, warnings_in
from stratoscope.analysis.values.align import GAP
from stratoscope.errors import InputError, choices
from stratoscope.trace.notes import INFO, Note
from stratoscope.view.maps.build import build
from stratoscope.view.maps.differences import can_differ, written
from stratoscope.view.maps.strips import Strip, TokenAxis
from stratoscope.view.spec.maps import DrawnQuantity
from stratoscope.view.spec.tokens import ShownPrompt, unknown_tokens
from stratoscope.view.spec.viewspec import ViewSpec, provenance_of_result, public_name, selected_of_result
from stratoscope.words import capital, isolate, percent

if TYPE_CHECKING:
    import xarray as xr

_WIDTH = 12  # characters of a token's label
ONLY_A, ONLY_B = "−", "+"  # before a token that only one prompt has


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
        [_tokens(tokens, prompt)],
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


def _tokens(here: xr.Dataset, prompt: str) -> TokenAxis:
    there = [here[f"position_{side}"].values != GAP for side in ("a", "b")]
    signs = ("" if in_a and in_b else ONLY_A if in_a else ONLY_B for in_a, in_b in zip(*there, strict=True))
    texts = written(here["text_a"].values, here["text_b"].values, *there, width=_WIDTH)
    labels = [sign + text for sign, text in zip(signs, texts, strict=True)]
    first = here["first"].values
    position = np.where(there[0], here["position_a"].values, here["position_b"].values).astype(np.int32)
    unknown = unknown_tokens(len(labels), np.flatnonzero(first), labels)
    tokens = replace(unknown, prompts=(ShownPrompt(prompt),), prompt=np.zeros_like(position), position=position)
    return TokenAxis("", "", tokens, dim=np.flatnonzero(here["template"].values).astype(np.int64))


def _strips(cells: xr.Dataset, row: names.Quantity, alike: np.ndarray | None, formula: str) -> list[Strip]:
    numbers = tuple(int(number) for number in cells[row.row_kind].values)
    said = "mean over heads" if names.HEAD in row.dims else ""

    def of(
        label: str, unit: str, formula: str, *, said: str = said, signed: bool = False, log: bool = False
    ) -> DrawnQuantity:
        return DrawnQuantity(row.name, label, unit, formula, said, signed, log, row.row_kind, numbers)

    strips = [
        Strip(of(f"{side}: {row.label}", row.unit, "" if side == "B" else formula, signed=row.signed, log=row.log),
              [cells[side.lower()].values], limits="sides", rings=False)
        for side in ("A", "B")
    ]  # fmt: skip
    difference = cells["difference"].values
    counted = [can_differ(difference, alike)]
    strips.append(Strip(of("B − A", row.unit, "", signed=True), [difference], counted=counted))
    if "times_floor" in cells:
        formula = "|B − A| / noise floor of the layer; lowest colour: within it"
        times = cells["times_floor"].values
        described = of("Times the floor", "1", formula, said="", log=True)
        differs = bool(np.nan_to_num(times).any())
        shown = np.where(times == 0, np.finfo(np.float32).tiny, times) if differs else times
        strips.append(Strip(described, [shown], lowest=1.0, counted=counted))
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
