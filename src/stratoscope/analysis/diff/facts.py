"""What is said of a comparison: notes on how far it carries, and the facts of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import names
from stratoscope.analysis.diff.cells import Change, Floor
from stratoscope.analysis.diff.claims import Claim, Effects
from stratoscope.analysis.diff.neurons import Ancestry
from stratoscope.analysis.diff.prompts import Matches
from stratoscope.analysis.lint.lint import applicable
from stratoscope.trace.notes import INFO, WARNING, Note, notes_of

if TYPE_CHECKING:
    import xarray as xr

_CAUSAL = 1.0  # times the floor that an earlier token or layer may differ by


def _same_model(a: xr.Dataset, b: xr.Dataset) -> bool:
    one, other = ((trace.attrs.get("model") or {}) for trace in (a, b))
    return bool(one.get("weights_sha256")) and all(
        one.get(key) == other.get(key) for key in ("weights_sha256", "dtype")
    )


def notes(
    a: xr.Dataset,
    b: xr.Dataset,
    matches: Matches,
    floors: dict[str, Floor],
    changes: dict[str, Change],
    same: Ancestry,
    effects: Effects | None,
) -> list[Note]:
    """What a reader of the comparison must know."""
    found = [*notes_of(a), *notes_of(b)]
    without = [name for name, floor in floors.items() if floor.measured is None]
    if without:
        which = "any quantity" if len(without) == len(floors) else ", ".join(without)
        text = f"No noise floor was measured for {which} (capture --floor): no difference is called more than noise."
        found.append(Note("L14", WARNING, text))
    if len(without) < len(floors):
        text = "Times the floor: 1 is the largest change that batch size, padding or dtype made by themselves."
        found.append(Note("L14", INFO, text))
    gaps = sum(not match.same for match in matches.found)
    if gaps:
        text = (
            f"{gaps} of {len(matches.found)} prompts have other tokens in b: only equal ones are compared, and those "
            "after an edit in another context."
        )
        found.append(Note("L11", INFO, text))
    if matches.only_a or matches.only_b:
        text = f"{matches.only_a} prompts are only in a, {matches.only_b} only in b: not compared."
        found.append(Note("L11", INFO, text))
    if _same_model(a, b):
        worst = max(changes.items(), key=lambda item: np.nan_to_num(item[1].before, nan=-1.0))
        if worst[1].before > _CAUSAL:
            text = (
                f"Both traces are of the same weights, and before the first edit {worst[0]} of {worst[1].before_in!r} "
                f"differs by {worst[1].before:.1f} times its floor: it should not."
            )
            found.append(Note("L11", WARNING, text))
        else:
            found.append(
                Note("L11", INFO, "The same weights: before the first edit nothing exceeds its floor, as must be.")
            )
    if not same.shared:
        found.append(Note("L15", WARNING, f"Neurons are not compared: {same.words}."))
    else:
        found.append(Note("L15", INFO, f"Neuron i is the same neuron in both: {same.words}."))
    if effects is not None:
        found += _about_claims(effects, a, changes, floors)
    found.append(Note("L05", INFO, "First tokens are left out of every mean."))
    found.append(Note("L09", INFO, "A change of activity is not yet a change of what the model does."))
    said = {note.id for note in found}
    carried = [*applicable(a, changes), *applicable(b, changes)]
    return [*found, *(note for note in carried if note.id not in said)]


def _about_claims(effects: Effects, a: xr.Dataset, changes: dict[str, Change], floors: dict[str, Floor]) -> list[Note]:
    early = np.asarray(a[names.LAYER].values) < effects.first_layer
    found: list[Note] = []
    measured = [
        name
        for name in changes
        if floors[name].measured is not None and names.QUANTITIES[name].dims[1] == names.LAYER and early.any()
    ]
    if measured:
        most = max(measured, key=lambda name: changes[name].most_times[early].max())
        times = float(changes[most].most_times[early].max())
        if times > _CAUSAL:
            first = f"L{effects.first_layer}, the first that is claimed,"
            text = f"Layers before {first} changed: {most} by {times:.1f} times its floor."
            found.append(Note("L14", WARNING, text))
        else:
            text = f"Before L{effects.first_layer}, the first layer that is claimed, nothing exceeds its floor."
            found.append(Note("L14", INFO, text))
    if effects.norms_are_columns is False:
        text = "Most old norms are not those of the neurons' columns in a: it is not known what they are norms of."
        found.append(Note("L09", WARNING, text))
    return found


def summary(
    a: xr.Dataset,
    b: xr.Dataset,
    matches: Matches,
    floors: dict[str, Floor],
    changes: dict[str, Change],
    same: Ancestry,
    effects: Effects | None,
    claims: Sequence[Claim],
) -> dict[str, Any]:
    """Facts of the whole, JSON-able."""
    models = [trace.attrs.get("model") or {} for trace in (a, b)]
    facts: dict[str, Any] = {
        "a": f"{models[0].get('name', '')} {models[0].get('dtype', '')}".strip(),
        "b": f"{models[1].get('name', '')} {models[1].get('dtype', '')}".strip(),
        "same_weights": bool(models[0].get("weights_sha256"))
        and models[0].get("weights_sha256") == models[1].get("weights_sha256"),
        "prompts": len(matches.found),
        "matched_by": matches.by,
        "with_other_tokens": sum(not match.same for match in matches.found),
        "floor": [name for name, floor in floors.items() if floor.measured is not None],
        "no_difference": all(not change.largest.any() for change in changes.values()),
        "neurons_compared": same.shared,
        "ancestry": same.words,
        "changes": {
            name: {
                "largest": float(change.largest.max(initial=0.0)),
                "most_times": float(change.most_times.max(initial=0.0)) if floors[name].measured is not None else None,
                "share_above": float(change.above.sum() / max(change.count.sum(), 1))
                if floors[name].measured is not None
                else None,
            }
            for name, change in changes.items()
        },
    }
    if effects is not None:
        verdicts = list(effects.verdict)
        facts["claims"] = {
            "count": len(claims),
            **{verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)},
            "norms_are_columns": effects.norms_are_columns,
            "columns_changed_elsewhere": effects.columns_changed_elsewhere,
            "columns_seen_elsewhere": effects.columns_seen_elsewhere,
            "neurons_changed_elsewhere": effects.neurons_changed_elsewhere,
            "share_of_change_claimed": effects.share_claimed,
            "first_layer": effects.first_layer,
        }
    return facts
