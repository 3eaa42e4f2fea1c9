"""What `ablate` found, in a sentence or two: no stronger than what was computed."""

from __future__ import annotations

import numpy as np
import xarray as xr

from stratoscope import names
from stratoscope.trace.arrays import Floats
from stratoscope.words import capital, number, percent

_SET_TO = {names.MEAN: "to the mean over these prompts", names.RESAMPLE: "as in other prompts", names.ZERO: "to zero"}


def sentence(found: xr.Dataset) -> str:
    """Of all that was ablated together, what that does to the first target; with curves, what these show."""
    return f"{_effect(found)} {_beside(found)}{_curves(found)}".strip()


def where(found: xr.Dataset) -> str:
    """At which tokens was ablated, in words."""
    if found.attrs["positions"] == names.ANSWER_POSITION:
        return "at the last token"
    return "at all tokens" if found.attrs["first_token"] else "at all tokens but the first"


def _effect(found: xr.Dataset) -> str:
    one = found.isel(set=-1, target=0)
    label, target, prompts = str(one["set"].values), str(one["target"].values), found.sizes["prompt"]
    mean, low, high = (float(one[f"measured_{end}"]) for end in ("mean", "low", "high"))
    mean_of = " of the named trace" if found.attrs["mean_of"] else ""
    how = _SET_TO[found.attrs["how"]] if not mean_of else f"to the mean{mean_of}"
    members = str(one["members"].values)
    subject = label if "," not in members else f"{members.count(',') + 1} {_kinds(members)}"
    what = f"Setting {subject} {how} {where(found)}"
    logit = f"the logit of {target}"
    if abs(mean) <= float(one["floor"]):
        return f"{what} changes {logit} by no more than another batch size does ({number(one['floor'])})."
    does = f"{'lowers' if mean > 0 else 'raises'} {logit} by {number(abs(mean))}"
    if prompts == 1:
        return f"{what} {does} in this prompt; one prompt says nothing of others."
    interval = f"95 % t interval {number(low)} to {number(high)}"
    over = f"on average over {prompts:,} prompts"
    if low <= 0 <= high:
        return f"{what} {does} {over}, and the {interval} of this effect holds 0: no direction is shown."
    return f"{what} {does} {over} (effect {number(mean)}, {interval})."


def _beside(found: xr.Dataset) -> str:
    """How it compares with what is random."""
    one = found.isel(set=-1, target=0)
    mean = abs(float(one["measured_mean"]))
    parts = []
    for control, what in (("matched", _like(found)), ("direction", "random directions of equal norm")):
        values = np.abs(_known(one["control"].sel(control_kind=control).mean("prompt").values))
        if len(values):
            parts.append(_more_than(mean, values, what))
    if not len(_known(one["match_ratio"].values)):
        best = number(one["best_ratio"])
        parts.insert(0, f"no match exists: no other neuron of a layer writes about as much (best ratio {best})")
    if not parts:
        return ""
    if not parts[0].startswith("no match"):
        return f"In size that is {'; '.join(parts)}."
    return f"{capital(parts[0])}." + (f" In size that is {'; '.join(parts[1:])}." if parts[1:] else "")


def _more_than(mean: float, values: Floats, what: str) -> str:
    """How many random ones did less, and how many did not."""
    less, of = int((mean > values).sum()), len(values)
    most = f"at most {number(values.max())}"
    if not less:
        return f"no more than any of {of} {what} does ({most})"
    as_much = f"; {of - less} of them do as much or more" if less < of else ""
    return f"more than {less} of {of} {what} do ({most}{as_much})"


def _like(found: xr.Dataset) -> str:
    members = str(found["members"].values[-1])
    return f"random {_kinds(members)} of {'the same layers' if ',' in members else 'its layer'}"


def _kinds(members: str) -> str:
    neurons, heads = " n" in members, "head" in members
    return "neurons and heads" if neurons and heads else "neurons" if neurons else "heads"


def _known(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def _curves(found: xr.Dataset) -> str:
    """How many of the strongest it takes to halve what ablating all does, against random orders."""
    if "completeness" not in found:
        return ""
    shares, steps = found["completeness"].isel(target=0).values, found["step"].values
    full, none = found["removed"].isel(order=0, target=0).mean("prompt").values[[0, -1]]
    if abs(full - none) <= float(found["floor"][0]):
        return " Ablating all of them changes so little that curves of it mean nothing."
    most_later = np.maximum.accumulate(shares[:, ::-1], 1)[:, ::-1]  # the curves may rise again
    needed = [int(steps[np.argmax(row <= 0.5)]) if (row <= 0.5).any() else int(steps[-1]) for row in most_later]
    kept = float(found["faithfulness"].isel(order=0, target=0).sel(step=needed[0]))
    one = needed[0] == 1
    return (
        f" Of what ablating all {steps[-1]} takes away, half is gone for good after the"
        f" {'' if one else f'{needed[0]} '}strongest{' one' * one} by first order, in random orders after"
        f" {number(np.median(needed[1:]))} (median of {len(needed) - 1});"
        f" {'the strongest one alone brings' if one else f'these {needed[0]} alone bring'} back {percent(kept)}."
    )
