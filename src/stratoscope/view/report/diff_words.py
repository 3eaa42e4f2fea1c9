"""The findings of a diff in sentences: what is exactly equal, what is proved to have changed, what exceeds noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stratoscope import defaults, names
from stratoscope.analysis.diff.exact import EMBEDDING
from stratoscope.analysis.diff.floor import FAR
from stratoscope.analysis.results.result import table_in
from stratoscope.view.maps.diff import sides_in_words
from stratoscope.view.report.report import Facts
from stratoscope.words import capital, counted, listed, neuron_name, number, number_ranges, percent

if TYPE_CHECKING:
    import xarray as xr

_RECORD = "To compare layer by layer, record both with `stratoscope capture --record norms`."
_NAMED = 5  # changed columns that are named in a sentence


def title(summary: Facts) -> str:
    """What was found, in one line."""
    exact, claims = summary["exact"], summary.get("claims")
    if summary["identical"]:
        return _nothing(summary)
    if claims:
        verdicts, more = claims["verdicts"], claims["elsewhere"].get("columns_changed")
        done = f"{verdicts['changed as claimed']} of {claims['claims']} claimed neurons changed as claimed"
        if verdicts["gone from the peaks"]:
            done += f", {verdicts['gone from the peaks']} gone from the peaks"
        return f"{done}; {_columns(more, ' that nobody claimed')}" if more else done
    if _first_is_known(summary):
        return _from_layer(summary)
    if summary["edited"] and exact["numbers"] and not exact["changed"]:
        return "Everything is exactly equal up to the first edit of each prompt; what differs comes after it"
    proved = summary["neurons"].get("columns_changed")
    first = f"{_columns(proved)}; " if proved else ""
    found = _beyond_noise(summary)
    return first + (found[0].lower() + found[1:] if first and found.startswith(("The ", "No ")) else found)


def lead(result: xr.DataTree) -> list[str]:
    """The findings, each measured: what is proved comes first."""
    summary = result.attrs["summary"]
    a, b = sides_in_words(summary)
    counts = f"{counted(summary['pairs'], 'prompt')}, {counted(summary['tokens'], 'equal token')}"
    unknown = not any((*summary["models"], *summary["dtypes"]))
    sides = "The models of A and B are not known." if unknown else f"A is {a}; B is {b}."
    compared = f"{sides} {counts}; first tokens are left out."
    if summary["identical"]:
        return [compared, *_power_of_equality(summary, result.attrs["parameters"])]
    lines = [*_lead_of_columns(result), *_lead_of_equality(summary), compared, *_lead_of_floor(summary)]
    return [*lines, *_lead_of_neurons(summary), *_lead_of_claims(summary), *_lead_of_null(summary)]


# --- the title --------------------------------------------------------------------------------------------------------


def _nothing(summary: Facts) -> str:
    if _nothing_compared(summary):
        explained = summary.get("explained")
        if explained and (explained["contributions"] or explained["effects"]):
            return "Only explained logits can be compared: the traces hold no other quantity in common"
        why = "the traces hold no quantity in common" if summary["tokens"] else "no token is the same in both traces"
        return f"Nothing can be compared: {why}"
    if summary["known_weights"] and not summary["same_weights"]:
        return "Nothing that was compared differs, exactly, although the models' weights do"
    return "Nothing differs, exactly: every number that was compared is the same in both traces"


def _nothing_compared(summary: Facts) -> bool:
    """Whether no number was: no token is the same, or no quantity is in both traces and no neurons are known."""
    if summary["exact"]["numbers"]:
        return False
    return not summary["tokens"] or (not summary["quantities"] and not summary["neurons"].get("compared"))


def _first_is_known(summary: Facts) -> bool:
    """Whether exact equality tells which layer changed first: before it, or in it and both were recorded alike."""
    exact = summary["exact"]
    if exact["first"] is None:
        return False
    looked_up = exact["first"] == EMBEDDING and summary["alike"] and not summary["same_weights"]
    return (
        bool(exact["equal"]) or summary["repeats"] or looked_up
    )  # noise does not reach an embedding that is looked up


def _from_layer(summary: Facts) -> str:
    exact = summary["exact"]
    equal, changed = exact["equal"], _place(exact["first"])
    words = f"{capital(changed)} is the first that changed"
    if equal:
        before = f"Layers {number_ranges(equal)} are" if len(equal) > 1 else f"Layer {equal[0]} is"
        until = " up to the first edit" if summary["edited"] else ""
        words = f"{before} exactly equal{until}; {changed} is the first that changed"
    after = exact["share_after"]
    if after:
        words += f", and after it {_all_or_percent(after)}"
    elif after is None and exact["share_there"] is not None:
        words += f": {percent(exact['share_there'])} of the cells of {exact['other_there'][0]} there differ"
    if summary["alike"] and not summary["same_weights"]:
        return words
    if not summary["floor"]:
        return f"{words}; without a noise floor it is not known whether by more than noise"
    return f"{words}, by no more than noise does" if _within_noise(summary) else words


def _place(layer: int) -> str:
    return "the embedding" if layer == EMBEDDING else f"layer {layer}"


def _all_or_percent(share: float) -> str:
    return "every number differs" if share == 1 else f"{percent(share)} of the numbers differ"


def _columns(count: int, which: str = "") -> str:
    return f"{counted(count, 'column')}{which} {'have' if count != 1 else 'has'} another norm"


def _beyond_noise(summary: Facts) -> str:
    if not summary["floor"]:
        return "The traces differ; without a noise floor it is not known whether by more than noise"
    if _within_noise(summary):
        if summary["dtypes"][0] != summary["dtypes"][1] and summary["floor_holds_dtype"]:
            a, b = summary["dtypes"]
            return (
                f"The traces differ no more than {a} and {b} do by themselves, which is what the noise floor measures"
            )
        return "No more cells exceed the noise floor than noise alone would make"
    farthest, first = _farthest(summary), summary["beyond"]
    if first is None:
        return (
            f"Few cells exceed the noise floor, but by far: in {farthest['row_kind']} {farthest['largest_at']} by "
            f"{number(farthest['largest_times_floor'])} times"
        )
    name, one = _most_above(summary)
    label, share = names.QUANTITIES[name].label, percent(one["share_above_floor"])
    return f"{capital(label)}: {share} of the cells differ beyond the noise floor, from {_place(first)} on"


def _measured(summary: Facts) -> dict[str, Facts]:
    return {name: one for name, one in summary["quantities"].items() if one["share_above_floor"] is not None}


def _most_above(summary: Facts) -> tuple[str, Facts]:
    """The quantity with the most cells above the floor; the one that is drawn where it exceeds chance too."""
    known = _measured(summary)
    usual = known.get(defaults.QUANTITY)
    if usual and usual["share_above_floor"] > usual["most_by_chance"]:
        return defaults.QUANTITY, usual
    name = max(known, key=lambda key: known[key]["share_above_floor"])
    return name, known[name]


def _farthest(summary: Facts) -> Facts:
    return max(_measured(summary).values(), key=lambda one: one["largest_times_floor"] or 0.0)


def _within_noise(summary: Facts) -> bool:
    """Whether in no layer more cells exceed the floor than chance makes, and none by far."""
    return summary["beyond"] is None and (_farthest(summary)["largest_times_floor"] or 0.0) < FAR


# --- sentences --------------------------------------------------------------------------------------------------------


def _power_of_equality(summary: Facts, parameters: Facts) -> list[str]:
    if _nothing_compared(summary):
        return [_RECORD] if summary["tokens"] else []
    numbers = summary["exact"]["numbers"]
    elsewhere = ", or in a layer that was not compared" if parameters.get("layers") is not None else ""
    many = f"any of the {numbers:,} numbers" if numbers and not summary["edited"] else "any number"
    return [
        f"A difference in the last bit of {many} would have been seen. A change that moves none of them would not: in "
        f"the final norm or the unembedding, or in what no token of these prompts uses{elsewhere}."
    ]


def _lead_of_columns(result: xr.DataTree) -> list[str]:
    """What is proved to have changed."""
    neurons = result.attrs["summary"]["neurons"]
    if neurons["refused"] or not neurons["columns_changed"]:
        return []
    changes, listed_ones = table_in(result, "neurons"), table_in(result, "listed")
    named: list[str] = []
    for layer, neuron in zip(listed_ones["layer"].values, listed_ones["neuron"].values, strict=True):
        here = changes.sel(layer=layer).isel(neuron=neuron)
        if bool(here["column_changed"]):
            named.append(f"{neuron_name(layer, neuron)} {factor_of(here)}")
    named += [""] * ((count := neurons["columns_changed"]) - len(named))  # those that are not listed are counted
    return [
        f"Proved: {_columns(count)}, in {_in_layers(neurons['columns_changed_in'])}: {listed(named, _NAMED)}; of "
        f"{neurons['columns_seen']:,} columns that could be seen."
    ]


def _in_layers(counts: dict[str, int]) -> str:
    layers = [int(layer) for layer in counts]
    return f"layer{'s'[: len(layers) > 1]} {number_ranges(layers)}"


def factor_of(here: xr.Dataset) -> str:
    """By what the norm of a neuron's column was multiplied: ×2, × at most 0.5, × at least 3."""
    norm = {name: float(here[f"column_{name}"]) if f"column_{name}" in here else np.nan for name in
            ("norm_a", "norm_b", "most_a", "most_b")}  # fmt: skip
    if np.isfinite(norm["norm_a"] + norm["norm_b"]):
        return f"×{_apart_from_one(norm['norm_b'] / norm['norm_a'])}"
    if np.isfinite(norm["norm_a"]):
        return f"× at most {number(norm['most_b'] / norm['norm_a'])}"
    return f"× at least {number(norm['norm_b'] / norm['most_a'])}" if norm["most_a"] else "from 0"


def _apart_from_one(factor: float) -> str:
    """A factor with as many digits as tell it from 1."""
    if factor == 1 or abs(factor - 1) >= 0.01:
        return number(factor)
    return f"{factor:.{int(np.ceil(-np.log10(abs(factor - 1)))) + 1}f}".rstrip("0")


def _lead_of_equality(summary: Facts) -> list[str]:
    """What differs in the first changed layer, and what does not."""
    exact = summary["exact"]
    if exact["first"] is None or not (exact["equal"] or exact["same_there"]):
        return []
    others = exact["other_there"]
    words = f"In {_place(exact['first'])}, {listed(others, 4)} {'differ' if len(others) > 1 else 'differs'}"
    if exact["same_there"]:
        words += f"; exactly equal there: {listed(exact['same_there'], 4)}"
    lines = [f"{words}."]
    own, of = (summary["neurons"].get(name, 0) for name in ("changed_themselves", "of_a_layer"))
    if own:
        lines.append(
            f"In layer {exact['first']} the mean activation of {own:,} of {of:,} neurons differs, although "
            "nothing that was recorded of the MLP's input does: its own weights changed."
        )
    return lines


def _lead_of_floor(summary: Facts) -> list[str]:
    if not summary["floor"]:
        return []
    name, one = _most_above(summary)
    if not one["share_above_floor"]:
        return ["No cell of any quantity is beyond the noise floor."]
    chance, kind = None if summary["repeats"] else one["share_above_by_chance"], one["row_kind"]
    lines = [
        f"{name} has the most cells beyond the noise floor: {percent(one['share_above_floor'])}"
        + (f", where noise alone makes {percent(chance)}" if chance else "")
        + (f" (up to {percent(one['most_by_chance'])} in a layer)" if chance else "")
        + f"; its farthest, in {kind} {one['largest_at']}, is {number(one['largest_times_floor'])} times the floor. "
        f"In its median {kind}, the median cell differs by {number(one['median_times_floor'])} times "
        "the floor."
    ]
    if one["hidden"] is not None and not summary["repeats"]:
        lines.append(
            f"Too small to be seen: a change of {name} by less than about {number(100 * one['hidden'])} % of its "
            "typical size is below the floor of the median layer."
        )
    return lines


def _lead_of_neurons(summary: Facts) -> list[str]:
    neurons = summary["neurons"]
    if neurons["refused"]:
        return []
    words = f"{neurons['compared']:,} neurons were compared over {counted(neurons['prompts'], 'prompt')}; "
    words += f"the mean activation of {neurons['moved']:,} differs"
    if neurons["above_floor"] is not None:
        words += f", that of {neurons['above_floor']:,} by more than the floor in at least one prompt"
    lines = [f"{words}."]
    if neurons["columns_seen"] and not neurons["columns_changed"]:
        unseen, least = neurons["compared"] - neurons["columns_seen"], f"{number(100 * neurons['columns_tolerance'])} %"
        lines.append(
            f"No column has another norm: a change by more than {least} would have been seen in the "
            f"{neurons['columns_seen']:,} that are among the peaks of both, not in the {unseen:,} others."
        )
    return lines


def _lead_of_claims(summary: Facts) -> list[str]:
    claims = summary.get("claims")
    if not claims:
        return []
    verdicts = [f"{count} {verdict}" for verdict, count in claims["verdicts"].items() if count]
    lines = [f"Of {counted(claims['claims'], 'claimed neuron')}: {listed(verdicts)}."]
    other, early = claims["elsewhere"], claims["causality"]
    if other:
        words = (
            f"Elsewhere: {other['columns_changed']:,} of {other['columns_seen']:,} unclaimed columns seen changed "
            "their norm"
        )
        if other["above_floor"] is not None:
            words += f", and {other['above_floor']:,} of {other['unclaimed']:,} unclaimed neurons exceed the floor"
        if other["share_of_activation_change"] is not None:
            words += (
                f"; claimed neurons hold {percent(other['share_of_activation_change'])} of the change in mean "
                "activation"
            )
        lines.append(f"{words}.")
    if early["largest"] is not None or early["numbers"]:
        much = (
            "nothing changed at all" if not early["changed"]
            else f"{early['changed']:,} of {early['numbers']:,} numbers changed"
        )  # fmt: skip
        if early["changed"] and early["largest"] is not None:
            much += f", {early['above_floor']:,} beyond the floor (largest: {number(early['largest'])} times)"
            much += "" if early["beyond_noise"] or summary["repeats"] else ", no more than noise does"
        lines.append(f"Before layer {early['first_claimed_layer']}, the first that is claimed, {much}.")
    return lines


def _lead_of_null(summary: Facts) -> list[str]:
    null = summary.get("null")
    if not null:
        return []
    chosen = next((name for name in ("mlp_write_ratio", "resid_norm") if name in null["quantities"]), None)
    lines = []
    if chosen:
        one = null["quantities"][chosen]
        lines.append(
            f"Among {null['draws']} random patches of the same size the real change of {chosen} has rank "
            f"{one['larger_or_equal'] + 1} of {null['draws'] + 1} (p = {number(one['p'])}); the claims, applied in "
            f"memory, explain {percent(one['explained_by_claims'])} of it."
            if one["explained_by_claims"] is not None
            else f"{chosen} did not change at all."
        )
    kl = null["kl"]
    lines.append(
        f"The claimed patch changes the next token by {number(kl['claimed'])} nats (KL), random ones by "
        f"{number(kl['null_median'])} at the median (p = {number(kl['p'])})."
    )
    return lines
