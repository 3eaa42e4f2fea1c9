"""What a reader of a diff must know: how prompts were matched, what the floor is, what contradicts itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope.analysis.diff.ancestry import LEAST_FOUND, Ancestry
from stratoscope.analysis.diff.before import before_edits
from stratoscope.analysis.diff.cells import Compared
from stratoscope.analysis.diff.conditions import Conditions
from stratoscope.analysis.diff.exact import Exact
from stratoscope.analysis.diff.floor import Noise, count_in, dtype_of, facts_of, floors_of, weights_of
from stratoscope.analysis.diff.neurons import NeuronDifferences
from stratoscope.analysis.diff.prompts import Columns, Pair
from stratoscope.trace.notes import INFO, WARNING, Note
from stratoscope.trace.prompts import Prompts
from stratoscope.words import counted, listed, number, number_ranges, percent

if TYPE_CHECKING:
    import xarray as xr

_UNDER = {"batch": "batch size", "padding": "padding", "dtype": "dtype"}
_MOST_RELATIVE = 0.5  # of the digits of the dtype: how far equal tokens may differ before any edit, without a floor


def about_prompts(pairs: Sequence[Pair], columns: Columns, a: int, b: int) -> list[Note]:
    """How prompts were matched, and what is not compared; `a`, `b`: prompts of either trace."""
    by_id = sum(pair.by_id for pair in pairs)
    counts = ((by_id, "by their id"), (len(pairs) - by_id, "by equal tokens"))
    how = " and ".join(f"{count} {words}" for count, words in counts if count)
    alone = [f"{count} of {side}" for side, count in (("A", a - len(pairs)), ("B", b - len(pairs))) if count]
    left = f"; without a counterpart: {' and '.join(alone)}" if alone else ""
    notes = [Note("L11", INFO, f"{counted(len(pairs), 'prompt')} matched, {how}{left}.")]
    edited = int((~columns.whole(len(pairs))).sum())
    if edited:
        text = (
            f"In {edited} of {counted(len(pairs), 'prompt')} the tokens differ between the two traces. Only equal "
            "tokens are aligned and compared. After the first edit even these stand in another context, so a "
            "difference there does not come from the models alone."
        )
        notes.append(Note("L11", WARNING, text))
    length = np.bincount(columns.pair, minlength=len(pairs))
    shared = np.bincount(columns.pair, columns.equal, minlength=len(pairs))
    strange = [pair.name for pair, of, all_ in zip(pairs, shared, length, strict=True) if pair.by_id and 2 * of < all_]
    if strange:
        more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
        text = (
            f"Prompt {strange[0]}{more}: the id is the same, but fewer than half of the tokens. Is it the same prompt?"
        )
        notes.append(Note("L11", WARNING, text))
    notes.append(Note("L05", INFO, "First tokens are left out of all summaries; no floor was measured at them."))
    return notes


def about_floor(noise: Noise, quantities: Sequence[str], *, repeats: bool) -> list[Note]:
    """What differences are measured against, and whether that is what noise was between these two.

    `repeats`: noise changes nothing here, so that none of it is above the floor.
    """
    measured = [quantity for quantity in quantities if noise.measured(quantity)]
    if not measured:
        return [Note("L14", WARNING, _why_no_floor(noise))]
    measured_under = {one: "" for side in noise.sides.values() for one in noise.counted(side) if one in floors_of(side)}
    of = {called: side for called, side in noise.sides.items() if floors_of(side) or called in noise.undivided()}
    under = " or ".join(_UNDER[nuisance] for nuisance in measured_under) or "batch size, padding or dtype"
    text = (
        f"The noise floor is the largest change of a layer under another {under}, measured on a few prompts of "
        f"{' and '.join(of)}, or rounding where that is larger. "
        + (
            "It limits nothing here: the two are equal to the last bit where nothing changed."
            if repeats
            else f"It is a maximum over a sample, and {_often(noise, measured)} lies above it by chance."
        )
    )
    notes = [Note("L14", INFO, text)]
    without = [quantity for quantity in quantities if quantity not in measured]
    if without:
        notes.append(
            Note(
                "L14",
                WARNING,
                f"No noise floor was measured for {listed(without)}: differences there may be nothing but noise.",
            )
        )
    return [*notes, *_about_dtype(noise), *_about_sample(noise, of)]


def _why_no_floor(noise: Noise) -> str:
    others = {called: floors_of(side) for called, side in noise.sides.items() if floors_of(side)}
    left_out = [
        f"that of {called} is for another {' or '.join(_UNDER[one] for one in of)}" for called, of in others.items()
    ]
    if left_out:
        return (
            f"No noise floor fits: {' and '.join(left_out)}, which does not differ here or could not be measured. "
            "Where each prompt ran alone, neither its batch nor its padding makes noise."
        )
    return "Neither trace has a noise floor, so a difference may be nothing but noise. Record with --floor."


def _about_dtype(noise: Noise) -> list[Note]:
    """Whether the floor has in it what another dtype changes, and whether that belongs there."""
    a, b = (dtype_of(side) or "an unknown dtype" for side in noise.sides.values())
    old = noise.undivided()
    if noise.same_dtype:
        if not old:
            return []
        text = (
            f"The floor of {' and '.join(old)} was stored by an older version: it has a change of dtype in it, which "
            f"two recordings in {a} do not have. It is too high, and hides differences. Record again with --floor."
        )
        return [Note("L32", WARNING, text)]
    if not all(dtype_of(side) for side in noise.sides.values()):
        text = "The dtype of the traces is not known, so the floor has another dtype in it, and may be too high."
        return [Note("L32", WARNING, text)] if noise.with_dtype() or old else []
    if noise.with_dtype() or old:
        same = bool(weights_of(noise.a)) and weights_of(noise.a) == weights_of(noise.b)
        who = "The weights are the same, so the floor is" if same else "If only the dtype was changed, the floor is"
        text = (
            f"{who} made of the very change that is compared, {a} against {b}: that nothing exceeds it is no evidence, "
            "and a small change of weights would be hidden behind it. Record both in one dtype "
            "to see a small change."
        )
        return [Note("L32", WARNING, text)]
    text = f"No floor holds what {a} against {b} changes by itself: differences beyond it may be the dtype's."
    return [Note("L32", WARNING, text)]


def _about_sample(noise: Noise, of: dict[str, xr.Dataset]) -> list[Note]:
    """What the floor was measured on, where that is less than what it is used for."""
    notes = []
    if len(of) == 1 and not (weights_of(noise.a) and weights_of(noise.a) == weights_of(noise.b)):
        (called,) = of
        other = "B" if called == "A" else "A"
        text = f"Only {called} has a floor: the noise of {other}, another model as far as is known, was not measured."
        notes.append(Note("L32", INFO, text))
    longest = max((count_in(facts_of(side), "longest") for side in of.values()), default=0)
    most = max(int(Prompts(side).lengths.max(initial=0)) for side in noise.sides.values())
    if 0 < longest < most // 2:
        text = f"The floor was measured on at most {longest:,} tokens of a prompt; the longest compared has {most:,}."
        notes.append(Note("L32", INFO, text))
    return notes


def about_conditions(noise: Noise, conditions: Conditions, exact: Exact) -> list[Note]:
    """Whether both were recorded alike; what was not is noise, and the floor has only some of it."""
    if not conditions.known:
        return []
    if conditions.alike and not exact.changed:
        return []
    alike = "recorded alike (dtype, batches, padding, device, threads, software), as far as the traces say"
    if conditions.alike and weights_of(noise.a) == weights_of(noise.b):
        text = (
            f"Both have the same weights and were {alike}, and yet they differ: recordings here do not repeat exactly."
        )
        return [Note("L32", WARNING, text)]
    if conditions.alike:
        text = f"Both were {alike}: a difference of any size comes from the weights."
        return [Note("L32", INFO, text)] if exact.equal or exact.same_there else []
    beyond = conditions.beyond_floor()
    listed = "; ".join(f"{what} {one} and {other}" for what, (one, other) in (beyond or conditions.unlike).items())
    if beyond:
        text = (
            f"The two were not recorded alike: {listed}. No floor is measured under that, so a small difference, even "
            "beyond the floor, may come from it."
        )
        return [Note("L32", WARNING, text)] if exact.changed else []
    return [Note("L32", INFO, f"The two were not recorded alike: {listed}.")]


def about_before(a: xr.Dataset, b: xr.Dataset, noise: Noise, compared: Sequence[Compared]) -> list[Note]:
    """Of the same weights in the same dtype: tokens before any edit must be alike."""
    if not weights_of(a) or weights_of(a) != weights_of(b) or dtype_of(a) != dtype_of(b):
        return []
    found = before_edits(compared, noise)
    bare = {one.quantity: one.before[1] for one in compared if not np.isfinite(one.before[0])} if noise.rounding else {}
    relative = {name: size / noise.rounding**_MOST_RELATIVE for name, size in bare.items() if np.isfinite(size)}
    loosest = max(relative, key=lambda name: relative[name], default="")
    if found.beyond_noise:
        beyond = f"{found.above:,} of {found.cells:,} cells beyond it"
        how = f"{number(found.largest)} times the floor ({found.where}), {beyond}"
        return [Note("L14", WARNING, _not_alike(how))]
    if loosest and relative[loosest] > 1:
        times = number(relative[loosest])
        how = f"{times} times the square root of the rounding error, relative to the value ({loosest})"
        return [Note("L14", WARNING, _not_alike(how))]
    sizes = {found.where: found.largest, loosest: relative.get(loosest, np.nan)}
    worst = max((size for size in sizes.values() if np.isfinite(size)), default=np.nan)
    if np.isnan(worst) or (worst and noise.alike):  # recorded alike, they must be equal: `about_conditions`
        return []
    how = "are exactly equal"
    if worst > 1:
        how = (
            f"differ by no more than noise does ({found.above:,} of {found.cells:,} cells beyond the floor, the "
            f"farthest by {number(found.largest)} times: {found.where})"
        )
    elif worst:
        where = next(name for name, size in sizes.items() if size == worst)
        how = f"differ by at most {number(worst)} of what noise allows ({where})"
    return [Note("L14", INFO, f"Same weights and dtype: tokens that have seen the same tokens {how}, as they must.")]


def _not_alike(how: str) -> str:
    return (
        "The two traces have the same weights and dtype, and yet tokens that have seen the same tokens differ by up to "
        f"{how}: something else was not the same."
    )


def about_models(a: xr.Dataset, b: xr.Dataset, layers: Sequence[int]) -> list[Note]:
    """Whether models of other shape are compared by the number of their layers."""
    counts = [one.sizes.get("layer", 0) for one in (a, b)]
    if counts[0] == counts[1]:
        return []
    text = (
        f"The models have {counts[0]} and {counts[1]} layers. Those of the same number "
        f"({number_ranges(list(layers))}) are compared, but need not do the same."
    )
    return [Note("L15", WARNING, text)]


def about_neurons(known: Ancestry, neurons: NeuronDifferences | None, layers: Any, other_context: int) -> list[Note]:
    """Whether neurons are the same in both models, and why."""
    if known.refused:
        return [Note("L15", WARNING, f"Neurons are not compared: {known.refused}.")]
    notes = []
    if other_context:
        text = (
            f"In {counted(other_context, 'prompt')} the user's tokens stand in another context, which is part of what "
            "neurons differ by."
        )
        notes.append(Note("L11", WARNING, text))
    if neurons is None or known.same_weights:
        return [*notes, Note("L15", INFO, "Neurons are compared: both models have the same weights.")]
    if neurons.same.any():
        text = (
            f"Neurons are compared where they are the same: at least {percent(LEAST_FOUND)} of a layer's neurons "
            "must correlate best, over prompts, with their namesakes; the layer with the fewest of those compared has "
            f"{percent(float(neurons.found[neurons.same].min()))}."
        )
        notes.append(Note("L15", INFO, text))
    refused = np.asarray(layers)[~neurons.same].tolist()
    if refused:
        shares = neurons.found[~neurons.same]
        found = (
            f"at most {percent(np.nanmax(shares))} of them are found again"
            if np.isfinite(shares).any()
            else "too few of them vary"
        )
        text = (
            f"Neurons are not compared in layers {number_ranges(refused)}: they are not the same in both models "
            f"({found})."
        )
        notes.append(Note("L15", WARNING, text))
    return notes


def about_claims(early: dict[str, Any], residual: bool, learned: bool, *, repeats: bool) -> list[Note]:
    """Whether anything changed before the first claimed layer.

    Parameters
    ----------
    residual
        Indices might be residual coordinates.
    learned
        Norms of columns are known.
    repeats
        Noise changes nothing, so that any other number is a change.
    """
    notes = []
    first = early["first_claimed_layer"]
    numbers = f"{early['changed']:,} of {early['numbers']:,} numbers"
    beyond = f"{early['above_floor']:,} of {early['cells']:,} cells"
    others = "the patch is not all that differs"
    if early["numbers"] and not early["changed"]:
        text = f"Before layer {first}, the first that is claimed, nothing changed at all, as it must be."
        notes.append(Note("L14", INFO, text))
    elif early["beyond_noise"]:
        text = (
            f"Before layer {first}, the first that is claimed, {beyond} changed beyond the floor, by up to "
            f"{number(early['largest'])} times ({early['where']}): {others}."
        )
        notes.append(Note("L14", WARNING, text))
    elif repeats and early["changed"]:
        text = (
            f"Before layer {first}, the first that is claimed, {numbers} changed, although both were recorded alike: "
            f"{others}."
        )
        notes.append(Note("L14", WARNING, text))
    elif early["largest"] is not None:
        how = (
            f"{beyond} beyond the floor, no more than noise leaves there"
            if early["above_floor"]
            else "none beyond the floor"
        )
        text = f"Before layer {first}, the first that is claimed, {numbers} changed, {how}."
        notes.append(Note("L14", INFO, text))
    if residual:
        text = "Claimed Neuron_IDs are read as neurons; all are small enough to be residual coordinates instead."
        notes.append(Note("L15", INFO, text))
    if learned:
        text = (
            "Norms of columns are read off the recorded peaks. A neuron that is not among them may have changed as "
            "well."
        )
        notes.append(Note("L08", INFO, text))
    return notes


def about_null(facts: dict[str, Any]) -> list[Note]:
    """What the null is."""
    text = (
        f"The claims are compared with {facts['draws']} random patches of as many columns, in the same layers, of the "
        f"same size, applied in memory and undone: p = (r + 1) / {facts['draws'] + 1}, where r of them "
        f"change at least as much, over {counted(facts['prompts'], 'prompt')}."
    )
    return [Note("L14", INFO, text)]


def _often(noise: Noise, measured: Sequence[str]) -> str:
    chances = [chance for quantity in measured if (chance := noise.chance(quantity))]
    return f"about one cell of noise in {round(1 / max(chances)):,}" if chances else "now and then a cell of noise"
