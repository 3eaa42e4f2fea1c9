"""`diff`: what changed between two traces of the same prompts, and what of it is more than noise."""

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

    from stratoscope.analysis.diff.cells import Change, Floor
    from stratoscope.analysis.diff.claims import Claim, Effects
    from stratoscope.analysis.diff.prompts import Match, Matches

_SHOWN = 2  # prompts whose cells are kept, unless others are asked for
_MOST_SHOWN = 12


def diff(
    trace_a: str | os.PathLike[str] | xr.Dataset,
    trace_b: str | os.PathLike[str] | xr.Dataset,
    *,
    prompt: str | Sequence[str] | None = None,
    quantity: str | Sequence[str] | None = None,
    claims: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Compare two traces of the same prompts: base and tuned, before and after a patch, two dtypes.

    Tokens are aligned on equal runs; what has no counterpart stays a gap. Every difference is b − a, and is held
    against the noise floor that `capture --floor` measured: without one nothing is claimed.

    Parameters
    ----------
    trace_a, trace_b
        Traces, or their Datasets.
    prompt
        Prompts whose cells are kept, by id; without it the first two. Changes are those of all prompts.
    quantity
        Quantities whose cells are kept; without it `mlp_out_norm`, else the first that both traces hold.
    claims
        A CSV file with the columns Layer, Neuron_ID, Old_Norm, New_Norm: what a patch claims to have touched.
    progress
        Is told what is being done.

    Returns
    -------
    xarray.Dataset
        A Result of kind "diff". On (quantity, row): `change_mean`, `change_largest`, `change_share_above` and
        `change_most_times` over all aligned tokens of all prompts, first tokens left out. On (column, layer or depth),
        for each quantity kept: `<quantity>_a`, `_b`, `_difference`, `_ratio`, `_times`. On (layer, neuron), where the
        neurons are the same: `neuron_mean_difference`, `neuron_largest`, `neuron_times`, `column_norm_a`,
        `column_norm_b`. On `claim`: each claim, and what became of it.

    Raises
    ------
    InputError
        The traces have no prompt or no quantity in common, or the claims cannot be read.
    """
    from stratoscope.analysis.diff import facts
    from stratoscope.analysis.diff.cells import Change, common_quantities, floor_of
    from stratoscope.analysis.diff.claims import check_claims, compare_claims, read_claims
    from stratoscope.analysis.diff.neurons import ancestry, column_norms, neuron_change
    from stratoscope.analysis.diff.prompts import match_prompts
    from stratoscope.trace.reader import open_trace

    a, b = (open_trace(os.fspath(one)) if isinstance(one, str | os.PathLike) else one for one in (trace_a, trace_b))
    told = progress or silent
    given = read_claims(claims) if claims is not None else []
    matches = match_prompts(a, b)
    common = common_quantities(a, b)
    if not common:
        raise InputError(
            "the traces have no quantity in common over the same layers",
            where="diff",
            fix="Record both with the same --record.",
        )
    kept = _kept(common, quantity)
    shown = _shown(matches, prompt)
    floors = {name: floor_of(a, b, name) for name in common}
    changes: dict[str, Change] = {}
    for number, name in enumerate(common):
        told("comparing", number, len(common))
        changes[name] = Change.over(a, b, name, matches.found, floors[name])
    told("comparing neurons", len(common), len(common))
    same = ancestry(a, b, list(matches.found))
    variables, coords = _overall(a, changes, floors)
    _add_cells(a, b, kept, shown, floors, variables, coords)
    effects: Effects | None = None
    if same.shared:
        change = neuron_change(a, b, list(matches.found))
        norms = column_norms(a), column_norms(b)
        dims = (names.LAYER, names.NEURON)
        variables["neuron_mean_difference"] = (dims, change.mean.astype(np.float32))
        variables["neuron_largest"] = (dims, change.largest.astype(np.float32))
        variables["neuron_times"] = (dims, change.times.astype(np.float32))
        for name, norm in zip(("column_norm_a", "column_norm_b"), norms, strict=True):
            if norm is not None:
                variables[name] = (dims, norm.astype(np.float32))
        if given:
            layers = np.asarray(a[names.LAYER].values, np.int64)
            check_claims(given, layers, change.mean.shape[1])
            both = (norms[0], norms[1]) if norms[0] is not None and norms[1] is not None else None
            effects = compare_claims(given, layers, change.largest, change.times, both)
            _add_claims(given, effects, variables)
    elif given:
        raise InputError(
            f"the claims cannot be checked: {same.words}",
            where="claims",
            fix="Compare traces of the patched model itself.",
        )
    from stratoscope.analysis.result import make_result

    return make_result(
        "diff",
        variables,
        coords,
        sources=[a, b],
        parameters={
            "prompt": [match.name for match in shown],
            "quantity": list(kept),
            "claims": len(given),
        },
        notes=facts.notes(a, b, matches, floors, changes, same, effects),
        summary=facts.summary(a, b, matches, floors, changes, same, effects, given),
    )


def _kept(common: Sequence[str], quantity: str | Sequence[str] | None) -> tuple[str, ...]:
    if quantity is None:
        return (defaults.QUANTITY if defaults.QUANTITY in common else common[0],)
    wanted = (quantity,) if isinstance(quantity, str) else tuple(dict.fromkeys(quantity))
    for name in wanted:
        if name not in common:
            raise InputError(f"{name!r} is not in both", where="quantity", fix=f"In both: {', '.join(common)}.")
    return wanted


def _shown(matches: Matches, prompt: str | Sequence[str] | None) -> list[Match]:
    if prompt is None:
        return list(matches.found[:_SHOWN])
    wanted = [prompt] if isinstance(prompt, str) else list(prompt)
    by_name = {match.name: match for match in matches.found}
    for name in wanted:
        if name not in by_name:
            raise InputError(
                f"no prompt {name!r} in both traces", where="prompt", fix=f"There are: {', '.join([*by_name][:8])}, …"
            )
    if len(wanted) > _MOST_SHOWN:
        raise InputError(f"{len(wanted)} prompts are too many", where="prompt", fix=f"Choose at most {_MOST_SHOWN}.")
    return [by_name[name] for name in wanted]


def _overall(
    a: xr.Dataset, changes: dict[str, Change], floors: dict[str, Floor]
) -> tuple[dict[str, Any], dict[str, Any]]:
    from stratoscope.analysis.result import texts

    rows = max(len(change.count) for change in changes.values())

    def padded(values: Sequence[Any]) -> Any:
        return np.array([np.append(one, np.full(rows - len(one), np.nan)) for one in values], np.float64)

    known = {name: floors[name].measured is not None for name in changes}
    nothing = np.full(rows, np.nan)
    variables = {
        "change_mean": (("quantity", "row"), padded([one.mean for one in changes.values()])),
        "change_largest": (("quantity", "row"), padded([one.largest for one in changes.values()])),
        "change_share_above": (
            ("quantity", "row"),
            padded([one.share_above if known[name] else nothing for name, one in changes.items()]),
        ),
        "change_most_times": (
            ("quantity", "row"),
            padded([one.most_times if known[name] else nothing for name, one in changes.items()]),
        ),
    }
    coords = {"quantity": texts("quantity", list(changes)), names.LAYER: np.asarray(a[names.LAYER].values)}
    if names.DEPTH in a.coords:
        coords[names.DEPTH] = np.asarray(a[names.DEPTH].values)
    return variables, coords


def _add_cells(
    a: xr.Dataset,
    b: xr.Dataset,
    kept: Sequence[str],
    shown: Sequence[Match],
    floors: dict[str, Floor],
    variables: dict[str, Any],
    coords: dict[str, Any],
) -> None:
    from stratoscope.analysis.diff.cells import columns_of
    from stratoscope.analysis.result import texts

    for name in kept:
        one = np.concatenate([columns_of(a, name, match.start_a, match.columns.a) for match in shown])
        other = np.concatenate([columns_of(b, name, match.start_b, match.columns.b) for match in shown])
        dims = ("column", names.QUANTITIES[name].dims[1])
        equal = np.concatenate([match.columns.equal for match in shown])[:, None]
        difference = np.where(equal, other - one, np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(equal & (one != 0), other / one, np.nan)
        variables[f"{name}_a"], variables[f"{name}_b"] = (dims, one), (dims, other)
        variables[f"{name}_difference"], variables[f"{name}_ratio"] = (dims, difference), (dims, ratio)
        variables[f"{name}_times"] = (dims, np.where(equal, floors[name].times(one, other), np.nan))
    coords["column_prompt"] = texts("column", [match.name for match in shown for _ in range(len(match.columns))])
    for side, trace in (("a", a), ("b", b)):
        places = np.concatenate([getattr(match.columns, side) for match in shown])
        coords[f"position_{side}"] = ("column", places)
        starts = np.repeat(
            [getattr(match, f"start_{side}") for match in shown], [len(match.columns) for match in shown]
        )
        words = np.full(len(places), "", dtype=object)
        there = places >= 0
        words[there] = np.asarray(trace["text"].values)[(starts + places)[there]]
        coords[f"text_{side}"] = texts("column", words)
    coords["column_equal"] = ("column", np.concatenate([match.columns.equal for match in shown]))


def _add_claims(claims: Sequence[Claim], effects: Effects, variables: dict[str, Any]) -> None:
    from stratoscope.analysis.result import texts

    variables |= {
        "claim_layer": ("claim", np.array([claim.layer for claim in claims])),
        "claim_neuron": ("claim", np.array([claim.neuron for claim in claims])),
        "claim_old": ("claim", np.array([claim.old for claim in claims])),
        "claim_new": ("claim", np.array([claim.new for claim in claims])),
        "claim_norm_a": ("claim", effects.norm_a),
        "claim_norm_b": ("claim", effects.norm_b),
        "claim_times": ("claim", effects.times),
        "claim_rank": ("claim", effects.rank),
        "claim_verdict": texts("claim", list(effects.verdict)),
    }
