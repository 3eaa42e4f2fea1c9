"""The report of a diff: what differs beyond noise and where, what a patch claims, and what chance would do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import names
from stratoscope.analysis.diff.cells import PROFILE
from stratoscope.view.diff import diff_spec, percent, sides_in_words
from stratoscope.view.legend import number
from stratoscope.view.report import diff_figures as figures
from stratoscope.view.report.contents import Cell, Contents, Figure, Section, Table

if TYPE_CHECKING:
    import xarray as xr

_PICTURES = 3  # prompts drawn where nobody chose


def contents(result: xr.Dataset) -> Contents:
    """What the report of a diff holds."""
    made = [_claims(result), _null(result), _tokens(result), _profiles(result), _neurons(result)]
    summary = result.attrs["summary"]
    return Contents(
        title=_title(summary),
        lead=_lead(result),
        sections=[section for section in made if section is not None],
        table=_layers(result),
    )


def _title(summary: dict[str, Any]) -> str:
    if summary["identical"]:
        return "No difference: both traces hold the same numbers"
    claims = summary.get("claims")
    if claims:
        done, count = claims["verdicts"]["changed as claimed"], claims["claims"]
        return f"{done} of {count} claimed neurons changed as claimed"
    if not summary["floor"]:
        return "The traces differ; no floor, no claim"
    name, one = _most_above(summary)
    label = names.QUANTITIES[name].label
    if one["share_above_floor"] <= (one["share_above_by_chance"] or 0.0):
        return "No more cells exceed the noise floor than noise alone would"
    return (
        f"{label[0].upper()}{label[1:]}: {percent(one['share_above_floor'])} of the cells differ beyond the noise floor"
    )


def _most_above(summary: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The quantity with the most cells above the floor."""
    known = {name: one for name, one in summary["quantities"].items() if one["share_above_floor"] is not None}
    name = max(known, key=lambda key: known[key]["share_above_floor"])
    return name, known[name]


def _lead(result: xr.Dataset) -> list[str]:
    summary = result.attrs["summary"]
    a, b = sides_in_words(summary)
    lines = [f"A is {a}; B is {b}. {summary['pairs']:,} prompts, {summary['tokens']:,} equal tokens but first ones."]
    if summary["identical"]:
        return lines
    if summary["floor"]:
        measured = [one for one in summary["quantities"].values() if one["median_times_floor"] is not None]
        middle = float(np.median([one["median_times_floor"] for one in measured]))
        name, one = _most_above(summary)
        chance, farthest = one["share_above_by_chance"], f"{one['row_kind']} {one['largest_at']}"
        lines.append(
            f"A typical cell differs by {number(middle)} times the noise floor. Most cells beyond it has {name}: "
            f"{percent(one['share_above_floor'])}"
            + (f", where noise alone makes about {percent(chance)}" if chance else "")
            + f"; the farthest, in {farthest}, is {number(one['largest_times_floor'])} times the floor."
        )
    neurons = summary["neurons"]
    if not neurons["refused"]:
        words = f"{neurons['compared']:,} neurons were compared over {neurons['prompts']} prompts"
        if neurons["above_floor"] is not None:
            words += f"; {neurons['above_floor']:,} exceed the floor in at least one"
        if neurons["columns_seen"]:
            words += (
                f". Of the {neurons['columns_seen']:,} that are among the peaks of both, "
                f"{neurons['columns_changed']:,} have a column of another norm"
            )
        lines.append(f"{words}.")
    return lines + _lead_of_claims(summary) + _lead_of_null(summary)


def _lead_of_claims(summary: dict[str, Any]) -> list[str]:
    claims = summary.get("claims")
    if not claims:
        return []
    told = [f"{count} {verdict}" for verdict, count in claims["verdicts"].items() if count]
    lines = [f"Of {claims['claims']} claimed neurons: {', '.join(told)}."]
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
    if early["largest"] is not None:
        much = (
            "nothing changed at all" if early["largest"] == 0
            else (
                f"{early['above_floor']:,} of {early['cells']:,} cells exceed the floor (largest: "
                f"{number(early['largest'])} times)"
            )
        )  # fmt: skip
        lines.append(f"Before layer {early['first_claimed_layer']}, the first that is claimed, {much}.")
    return lines


def _lead_of_null(summary: dict[str, Any]) -> list[str]:
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


def _claims(result: xr.Dataset) -> Section | None:
    if "claim_layer" not in result:
        return None
    of = result.attrs["summary"]["claims"]["neurons_of_a_layer"]
    rows: list[list[Cell]] = []
    for place in range(result.sizes["claim"]):
        here = result.isel(claim=place)
        value = {
            name: float(here[f"claim_{name}"])
            for name in ("old", "new", "norm_a", "norm_b", "difference", "times_floor")
        }
        rank, known = int(here["claim_rank"]), np.isfinite(value["norm_a"] + value["norm_b"])
        rows.append([
            f"L{int(here['claim_layer'])} n{int(here['claim_neuron'])}",
            f"{number(value['old'])} → {number(value['new'])}",
            f"{number(value['norm_a'])} → {number(value['norm_b'])}" if known else None,
            value["difference"],
            value["times_floor"],
            f"{rank:,} of {of:,}" if rank > 0 else None,
            str(here["claim_verdict"].item()),
            str(here["claim_why"].item()),
        ])  # fmt: skip
    columns = ("neuron", "claimed", "column in A → B", "activation B − A", "× floor", "rank", "verdict", "why")
    words = (
        "A patch of a column of the MLP's last linear map changes what a neuron writes, not its activation: the "
        "norm of the column is read off recorded peaks. Neurons of later layers change with everything before them."
    )
    return Section("What the patch claims", words, (), [Table(columns, rows, "In the order of the file.")])


def _null(result: xr.Dataset) -> Section | None:
    if "null_kl" not in result:
        return None
    words = (
        "Mean |change| of each layer over all tokens but first ones: B − A, and random patches that change as many "
        "other columns of the same layers by as much."
    )
    return Section("Among random patches", words, figures.null(result), [_null_table(result)])


def _null_table(result: xr.Dataset) -> Table:
    null = result.attrs["summary"]["null"]
    rows: list[list[Cell]] = [
        [name, one["real"], one["null_median"], f"{one['larger_or_equal'] + 1} of {null['draws'] + 1}", one["p"],
         one["explained_by_claims"]]
        for name, one in null["quantities"].items()
    ]  # fmt: skip
    columns = ("quantity", "mean |B − A|", "random, median", "rank", "p", "explained by the claims")
    caption = "Mean over layers. Explained: 1 − Σ |B − A − claimed in memory| / Σ |B − A|."
    return Table(columns, rows, caption)


def _tokens(result: xr.Dataset) -> Section | None:
    parameters = result.attrs["parameters"]
    if not parameters["quantity"]:
        return None
    quantity = parameters["quantity"][0]
    kept = list(dict.fromkeys(str(one) for one in result["prompt"].values))
    shown = kept if parameters["prompt"] else kept[:_PICTURES]
    drawn = []
    for place, prompt in enumerate(shown, start=1):
        spec = diff_spec(result, prompt, quantity)
        drawn.append(Figure(f"prompt-{place}", f"{spec.title}. Prompt {prompt}.", spec))
    others = len(parameters["quantity"]) - 1
    words = f"{quantity}; A and B share one scale."
    if others:
        words += f" {others} more quantities are in result.zarr: --quantity chooses the one that is drawn."
    return Section("Token by token", words, drawn)


def _profiles(result: xr.Dataset) -> Section | None:
    drawn = figures.profiles(result)
    words = "Over all prompts, first tokens left out: the median cell, and the one that 95 % lie below."
    return Section("Over the depth of the model", words, drawn) if drawn else None


def _neurons(result: xr.Dataset) -> Section | None:
    if "neuron_largest" not in result or not result.sizes.get("listed", 0):
        return None
    columns = ["neuron", "mean B − A", "largest |B − A|"]
    with_floor, with_norms = "neuron_times_floor" in result, "column_norm_a" in result and "column_norm_b" in result
    columns += ["× floor"] * with_floor + ["column in A", "column in B"] * with_norms
    wanted = ["neuron_difference", "neuron_largest"] + ["neuron_times_floor"] * with_floor
    wanted += ["column_norm_a", "column_norm_b"] * with_norms
    rows: list[list[Cell]] = []
    for layer, neuron in zip(result["listed_layer"].values, result["listed_neuron"].values, strict=True):
        here = result.sel(layer=layer).isel(neuron=neuron)
        rows.append([f"L{layer} n{neuron}", *(float(here[name]) for name in wanted)])
    by = "times the floor" if with_floor else "size"
    words = "Mean activation over the user's tokens of each prompt; the largest is over prompts."
    return Section("Neurons", words, figures.neurons(result), [Table(columns, rows, f"The farthest apart, by {by}.")])


def _layers(result: xr.Dataset) -> Table:
    """Every quantity and layer, of all prompts."""
    rows: list[list[Cell]] = []
    for quantity in result.attrs["parameters"]["quantity"]:
        kind = names.DEPTH if names.DEPTH in names.QUANTITIES[quantity].dims else names.LAYER
        for place, row in enumerate(result[kind].values.tolist()):
            values = [
                float(result[f"{quantity}_{name}"].values[place]) if f"{quantity}_{name}" in result else None
                for name in PROFILE
            ]
            rows.append([quantity, kind, row, *values])
    return Table(("quantity", "rows", "row", *PROFILE), rows)
