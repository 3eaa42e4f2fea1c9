"""The report of a diff: what differs beyond noise and where, what a patch claims, and what chance would do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stratoscope import names
from stratoscope.analysis.diff.cells import PROFILE
from stratoscope.analysis.results.result import rows_in, table_in
from stratoscope.view.maps.diff import diff_spec
from stratoscope.view.report import diff_charts as charts
from stratoscope.view.report import diff_explained as explained
from stratoscope.view.report.diff_words import factor_of, lead, title
from stratoscope.view.report.report import Figure, Report, Section
from stratoscope.view.spec.tables import Cell, Table
from stratoscope.words import capital, counted, neuron_name, number

if TYPE_CHECKING:
    import xarray as xr

_PICTURES = 3  # prompts drawn where nobody chose


def contents(result: xr.DataTree) -> Report:
    """What the report of a diff holds."""
    summary = result.attrs["summary"]
    proved = bool(summary["neurons"].get("columns_changed"))
    made = [_claims(result), _null(result), *([_neurons(result)] if proved else []), _tokens(result), _profiles(result)]
    made += [] if proved else [_neurons(result)]
    made += [explained.contributions(result), explained.effects(result)]
    return Report(
        title=title(summary),
        lead=lead(result),
        sections=[section for section in made if section is not None],
        table=_layers(result),
    )


def _claims(result: xr.DataTree) -> Section | None:
    if "claims" not in result:
        return None
    of = result.attrs["summary"]["claims"]["neurons_of_a_layer"]
    rows: list[list[Cell]] = []
    for one in rows_in(result, "claims"):
        before, after = one["column_norm_a"], one["column_norm_b"]
        rows.append([
            neuron_name(one["layer"], one["neuron"]),
            f"{number(one['old'])} → {number(one['new'])}",
            f"{number(before)} → {number(after)}" if np.isfinite(before + after) else None,
            one["difference"],
            one["times_floor"],
            f"{one['rank']:,} of {of:,}" if one["rank"] > 0 else None,
            one["verdict"],
            one["why"],
        ])  # fmt: skip
    columns = ("neuron", "claimed", "column in A → B", "activation B − A", "× floor", "rank", "verdict", "why")
    words = (
        "A patch of a column of the MLP's last linear map changes what a neuron writes, not its activation: the "
        "norm of the column is read off recorded peaks. Neurons of later layers change with everything before them."
    )
    blank = {
        "column in A → B": "the neuron is not among the recorded peaks of both traces",
        "activation B − A": "it cannot be compared",
        "× floor": "there is no noise floor for it",
        "rank": "nothing of the layer can be compared",
    }
    return Section("What the patch claims", words, (), [Table(columns, rows, "In the order of the file.", blank)])


def _null(result: xr.DataTree) -> Section | None:
    if "null" not in result:
        return None
    words = (
        "Mean |change| of each layer over all tokens except first tokens: B − A, and random patches that change as "
        "many other columns of the same layers by as much."
    )
    return Section("Among random patches", words, charts.null(result), [_null_table(result)])


def _null_table(result: xr.DataTree) -> Table:
    null = result.attrs["summary"]["null"]
    rows = (
        (name, one["real"], one["null_median"], f"{one['larger_or_equal'] + 1} of {null['draws'] + 1}", one["p"],
         one["explained_by_claims"])
        for name, one in null["quantities"].items()
    )  # fmt: skip
    columns = ("quantity", "mean |B − A|", "random, median", "rank", "p", "explained by the claims")
    caption = "Mean over layers. Explained: 1 − Σ |B − A − claimed in memory| / Σ |B − A|."
    return Table(columns, tuple(rows), caption, {"explained by the claims": "it did not change"})


def _tokens(result: xr.DataTree) -> Section | None:
    parameters = result.attrs["parameters"]
    if not parameters["quantity"]:
        return None
    quantity = parameters["quantity"][0]
    kept = list(dict.fromkeys(str(one) for one in table_in(result, "tokens")["prompt_id"].values))
    shown = kept if parameters["prompt"] else kept[:_PICTURES]
    drawn = []
    for place, prompt in enumerate(shown, start=1):
        spec = diff_spec(result, prompt, quantity)
        drawn.append(Figure(f"prompt-{place}", "", spec))
    others = len(parameters["quantity"]) - 1
    words = f"{quantity}; A and B share one scale."
    if others:
        words += f" result.zarr holds {counted(others, 'more quantity')}: --quantity chooses the one that is drawn."
    return Section("Token by token", words, drawn)


def _profiles(result: xr.DataTree) -> Section | None:
    drawn = charts.profiles(result)
    words = "Over all prompts, first tokens left out: the median cell, and the one that 95 % lie below."
    return Section("Over the depth of the model", words, drawn) if drawn else None


def _neurons(result: xr.DataTree) -> Section | None:
    if "listed" not in result or not table_in(result, "listed").sizes["listed"]:
        return None
    changes, listed = table_in(result, "neurons"), table_in(result, "listed")
    with_floor, with_norms = "times_floor" in changes, "column_changed" in changes
    wanted = ["difference", "largest"] + ["times_floor"] * with_floor
    columns = ["neuron"] + ["column in A", "column in B", "B / A"] * with_norms
    columns += ["activation, mean B − A", "largest |B − A|"] + ["× floor"] * with_floor
    rows: list[tuple[Cell, ...]] = []
    for layer, neuron in zip(listed["layer"].values, listed["neuron"].values, strict=True):
        here = changes.sel(layer=layer).isel(neuron=neuron)
        norms = _norms(here) if with_norms else []
        rows.append((neuron_name(layer, neuron), *norms, *(float(here[name]) for name in wanted)))
    proved = result.attrs["summary"]["neurons"].get("columns_changed")
    by = "the mean activation that moved most, by " + ("times the floor" if with_floor else "size")
    caption = (
        f"First the columns that are proved to have changed, by how much; then {by}." if proved else f"{capital(by)}."
    )
    words = (
        "Column: the norm of what a neuron writes per unit of activation, read off recorded peaks; no other change can "
        "move it. Activation: the mean over the user's tokens of each prompt, which moves in every layer behind a "
        "change; the largest is over prompts."
    )
    unseen = "the neuron is not among that trace's recorded peaks, so that its column's norm is not known"
    blank = {
        "column in A": unseen,
        "column in B": unseen,
        "B / A": "no other norm is proved" if proved else "no column is proved to have another norm",
        "× floor": "there is no noise floor for it",
    }
    return Section("Neurons", words, charts.neurons(result), [Table(columns, rows, caption, blank)])


def _norms(here: xr.Dataset) -> list[Cell]:
    """A neuron's column in A, in B (≤ where it is only known to be no larger), and their ratio where it is proved."""
    cells: list[Cell] = []
    for side in ("a", "b"):
        norm, most = (
            float(here[name]) if name in here else np.nan for name in (f"column_norm_{side}", f"column_most_{side}")
        )
        cells.append(number(norm) if np.isfinite(norm) else f"≤ {number(most)}" if np.isfinite(most) else None)
    return [*cells, factor_of(here) if bool(here["column_changed"]) else None]


def _layers(result: xr.DataTree) -> Table:
    """Every quantity and layer, of all prompts."""
    rows: list[tuple[Cell, ...]] = []
    for quantity in result.attrs["parameters"]["quantity"]:
        kind, profile = names.QUANTITIES[quantity].row_kind, table_in(result, f"profiles/{quantity}")
        for place, row in enumerate(profile[kind].values.tolist()):
            values = [float(profile[name].values[place]) if name in profile else None for name in PROFILE]
            rows.append((quantity, kind, row, *values))
    return Table(("quantity", "rows", "row", *PROFILE), rows)
