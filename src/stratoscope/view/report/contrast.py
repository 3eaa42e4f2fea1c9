"""The report of a contrast: what differs, how much, how sure that is, and what chance would have shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope.analysis.contrast.power import size_in_words, would_be_found
from stratoscope.analysis.results.result import rows_in, table_in
from stratoscope.view.report import contrast_charts as charts
from stratoscope.view.report import contrast_maps as maps
from stratoscope.view.report.contrast_words import headline, level_text
from stratoscope.view.report.report import Facts, Report, Section
from stratoscope.view.spec.tables import Cell, Excerpt, Table
from stratoscope.words import agreeing, capital, counted, neuron_name, number, percent

if TYPE_CHECKING:
    import xarray as xr

_NO_CONTEXT = {  # why there is no token at which a neuron is strongest, by what says so
    "peak_value": "at no token of that class is the neuron among the strongest, which is all that was recorded",
    "neurons": "the neuron is zero at every token of that class",
}
_TESTS = {"paired t": "a paired t test", "Welch's t": "Welch's t test", "rank sum": "a rank-sum test"}


def contents(result: xr.DataTree) -> Report:
    """What the report of a contrast holds."""
    summary = result.attrs["summary"]
    return Report(
        title=capital(headline(summary)),
        lead=_lead(summary, result.attrs["parameters"]["alpha"]),
        sections=[section for make in (_neurons, _profiles, _aligned) if (section := make(result)) is not None],
        table=_discoveries(result),
        more=_held_out(result),
    )


def _lead(summary: Facts, alpha: float) -> list[str]:
    lines = [f"Compared: {summary['units']}, by {_TESTS[summary['test']]}."]
    found = summary.get("neurons")
    if found is not None:
        lines += _lead_of_neurons(summary, found, alpha)
    direction, profiles, aligned = (summary.get(part) for part in ("direction", "profiles", "aligned"))
    if direction:
        lines.append(_lead_of_direction(direction, alpha))
    if profiles is not None:
        lines.append(_lead_of_profiles(summary, profiles, alpha))
    if aligned is not None and aligned["tested"]:
        lines.append(_lead_of_aligned(aligned, alpha))
    return lines


def _lead_of_profiles(summary: Facts, found: Facts, alpha: float) -> str:
    if not found["tested"]:
        return "Over the layers nothing was tested: no layer varies between the prompts of a class."
    where = "" if found["units"] == summary["units"] else f" in {found['units']}"
    line = (
        f"Over the layers {found['discoveries']} of {counted(found['tested'], 'profile mean')} "
        f"{agreeing(found['discoveries'], 'differs', 'differ')}{where} (q ≤ {alpha:g}); {_of_family(found, alpha)}."
    )
    something = found["discoveries"] or found["family_wise"]
    return line if something else f"{line} {_would_find(found['would_find'], 'mean')}"


def _of_family(found: Facts, alpha: float) -> str:
    """How many are discoveries by the stricter measure."""
    count = found["family_wise"]
    return f"{count:,} {agreeing(count, 'has', 'have')} a family-wise p ≤ {alpha:g}"


def _lead_of_neurons(summary: Facts, found: Facts, alpha: float) -> list[str]:
    if not found["tested"]:
        return ["No neuron was tested: none varies between the prompts of a class."]
    share = percent(found["share_p_below_alpha"])
    by_chance = f"{share} have p < {alpha:g}, where chance alone gives {100 * alpha:g} %."
    where = f" in {summary['units_tested']}" if summary["units_held_out"] else ""
    if found["discoveries"]:
        lines = [
            f"{found['discoveries']:,} of {counted(found['tested'], 'neuron')} "
            f"{agreeing(found['discoveries'], 'has', 'have')} q ≤ {alpha:g}{where}, of which a share of "
            f"{alpha:g} may be false; {_of_family(found, alpha)}. {by_chance}"
        ]
    else:
        family = f", but {_of_family(found, alpha)}" if found["family_wise"] else ""
        line = f"No neuron has q ≤ {alpha:g}{where}{family}. {by_chance}"
        lines = [f"{line} {_would_find(found['would_find'], 'neuron')}"]
        if found["chance"]["sentence"]:
            lines.append(f"The list below is a ranking without a discovery. {found['chance']['sentence']}")
    if found["measured"]:
        lines.append(
            f"How large they are was measured in {summary['units_held_out']} that took no part in finding: of the "
            f"{found['listed']} listed, {found['confirmed']} {agreeing(found['confirmed'], 'keeps its', 'keep their')} "
            f"sign with an interval without zero; "
            f"{number(found['listed'] * (1 - found['interval_level']) / 2)} would by chance."
        )
    elif found["listed"]:
        lines.append(f"Effects (g) are {found['estimates']}. Their intervals allow for the choice.")
    return lines


def _lead_of_direction(direction: Facts, alpha: float) -> str:
    line = (
        f"The difference of means, found in half of the units and tried on the other half, tells the classes apart "
        f"beyond chance in {direction['beyond_chance']} of {counted(direction['layers'], 'layer')} "
        f"(family-wise p ≤ {alpha:g})"
    )
    largest = f"the largest AUC is {number(direction['largest_auc'])}"
    needed = f"from {number(direction['needed_auc'])} on it would be called more than chance"
    return f"{line}; {largest}." if direction["beyond_chance"] else f"{line}; {largest}, {needed}."


def _lead_of_aligned(aligned: Facts, alpha: float) -> str:
    line = (
        f"On aligned tokens after the first edit {aligned['discoveries']} of {counted(aligned['tested'], 'cell')} "
        f"{agreeing(aligned['discoveries'], 'differs', 'differ')} (q ≤ {alpha:g})."
    )
    if aligned["discoveries"] or None in (aligned["would_find_d_z"], aligned["would_find_d_z_fewest"]):
        return line
    most, fewest = (
        f"|d_z| ≥ {number(aligned[size])} where {aligned[units]} {aligned['noun']} reach"
        for size, units in (("would_find_d_z", "most_units"), ("would_find_d_z_fewest", "fewest_units"))
    )
    both = most if most == fewest else f"{most}, or {fewest},"
    return f"{line} {would_be_found(f'One cell with {both}')}."


def _would_find(would: Facts, what: str) -> str:
    """The smallest effect that would have been found, and what that is for pairs."""
    size = size_in_words(would, what)
    if not size:
        return f"No effect on one {what}, however large, could reach p ≤ {number(would['p'], 1)} with so few."
    of_pairs = ""
    if "d_z" in would and would["g"] is not None:
        of_pairs = f"; twins correlate by {number(round(would['correlation'], 2))} there"
    whole = " and a value in every unit" if would["units_vary"] else ""
    return f"{would_be_found(f'One {what} with {size}{whole}')}, at p ≤ {number(would['p'])}{of_pairs}."


def _neurons(result: xr.DataTree) -> Section | None:
    if "neurons" not in result:
        return None
    drawn = [charts.volcano(result), charts.strongest(result), charts.baseline(result)]
    words = (
        "g is the difference of the classes' means in standard deviations (Hedges; of pairs g_av). A neuron is an "
        "index of the input of the MLP's last linear map. table.csv and the columns AUC, q and family p are of "
        f"{result.attrs['summary']['units_tested']}."
    )
    return Section("Neurons", words, [one for one in drawn if one is not None], [_listed(result)])


def _listed(result: xr.DataTree) -> Table:
    summary = result.attrs["summary"]
    found = summary["neurons"]
    level = level_text(found["interval_level"])
    effect = "g, held out" if found["measured"] else "g, selected"
    columns = ["neuron", effect, f"{level} interval", "AUC", "q", "family p"]
    neurons = table_in(result, "neurons")
    with_context = "contexts" in result
    if with_context:
        columns += [f"strongest in {summary['a']}", f"strongest in {summary['b']}"]
    rows: list[list[Cell]] = []
    for place, one in enumerate(rows_in(result, "listed")):
        layer, neuron, g, low, high = (one[name] for name in ("layer", "neuron", "g", "low", "high"))
        here = neurons.sel(layer=layer).isel(neuron=neuron)
        row: list[Cell] = [
            neuron_name(layer, neuron),
            g,
            f"{number(low)} … {number(high)}" if low <= high else "not known",
        ]
        row += [float(here[name]) for name in ("auc", "q", "p_family")]
        if with_context:
            contexts = table_in(result, "contexts").isel(listed=place, rank=0)
            row += [_excerpt(contexts.isel(side=side)) for side in (0, 1)]
        rows.append(row)
    what = "The strongest discoveries" if found["discoveries"] else "A ranking without a discovery"
    if with_context and any(row[-1] or row[-2] for row in rows):
        what += ". Strongest: the token at which |activation| is largest, in the words around it"
    return Table(columns, rows, f"{what}.", dict.fromkeys(columns[-2:], _NO_CONTEXT.get(found["context"], "")))


def _excerpt(context: xr.Dataset) -> Cell:
    words = (str(context[name].item()) for name in ("before", "token", "after"))
    return Excerpt(*words) if np.isfinite(context["value"].item()) else None


def _profiles(result: xr.DataTree) -> Section | None:
    if "profiles" not in result:
        return None
    units = result.attrs["summary"]["profiles"]["units"]
    words = f"The mean over each prompt's own tokens, then over {units}."
    return Section("Over the depth of the model", words, charts.profiles(result))


def _aligned(result: xr.DataTree) -> Section | None:
    drawn = [one for one in (maps.aligned(result), maps.first_pair(result)) if one is not None]
    if not drawn:
        return None
    words = (
        "Twins are aligned on equal tokens. Before the first edit they are the same prompt; from there on the same "
        "word stands in two contexts."
    )
    return Section("Token by aligned token", words, drawn)


def _discoveries(result: xr.DataTree) -> Table:
    """Every discovery, else the listed neurons; all columns are of the tested units."""
    if "neurons" not in result:
        return Table((), ())
    rows, neurons = _found(result)
    measured = result.attrs["summary"]["neurons"]["measured"]
    estimates = "see held_out.csv" if measured else result.attrs["summary"]["neurons"]["estimates"]
    names = ("count_a", "count_b", "mean_a", "mean_b", "difference", "t", "df", "p", "q", "p_family", "g", "d_z", "auc")
    table = _of_neurons(table_in(result, "neurons"), rows, neurons, names)
    return Table((*table.columns, "estimate"), tuple((*row, estimates) for row in table.rows))


def _held_out(result: xr.DataTree) -> dict[str, Table]:
    """The same neurons in the held-out units; no table where nothing was held out."""
    if "held_out" not in result:
        return {}
    names = ("count_a", "count_b", "mean_a", "mean_b", "difference", "g", "d_z", "auc")
    return {"held_out.csv": _of_neurons(table_in(result, "held_out"), *_found(result), names)}


def _found(result: xr.DataTree) -> tuple[Any, Any]:
    """Rows and neurons of every discovery, else of the listed ones, by p."""
    table, listed = table_in(result, "neurons"), table_in(result, "listed")
    rows, neurons = np.nonzero(table["q"].values <= result.attrs["parameters"]["alpha"])
    if not len(rows):
        rows = np.searchsorted(table["layer"].values, listed["layer"].values)
        neurons = listed["neuron"].values
    order = np.argsort(table["p"].values[rows, neurons], kind="stable")
    return rows[order], neurons[order]


def _of_neurons(table: xr.Dataset, rows: Any, neurons: Any, names: Sequence[str]) -> Table:
    columns = [table["layer"].values[rows], neurons]
    for name in names:
        values = table[name].values[rows, neurons]
        columns.append(values.astype(np.int64) if name.startswith("count") else values)
    cells = zip(*(column.tolist() for column in columns), strict=True)
    return Table(("layer", "neuron", *names), tuple(cells))
