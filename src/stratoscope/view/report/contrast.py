"""The report of a contrast: what differs, how much, how sure that is, and what chance would have shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope.view.legend import number
from stratoscope.view.report import contrast_figures as figures
from stratoscope.view.report.contents import Cell, Contents, Excerpt, Figure, Section, Table

if TYPE_CHECKING:
    import xarray as xr

_TESTS = {
    "paired t": "a paired t test",
    "Welch's t": "Welch's t test",
    "rank sum": "a rank-sum test",
}
_SIDES = ("context_before", "context_token", "context_after")


def contents(result: xr.Dataset) -> Contents:
    """What the report of a contrast holds."""
    summary = result.attrs["summary"]
    return Contents(
        title=_title(summary),
        lead=_lead(summary, result.attrs["parameters"]["alpha"]),
        sections=[section for make in (_neurons, _profiles, _aligned) if (section := make(result)) is not None],
        table=_discoveries(result),
    )


def _title(summary: dict[str, Any]) -> str:
    pair = f"{summary['a']} and {summary['b']}"
    found = summary.get("neurons")
    if found is None:
        return f"How {pair} differ over the layers"
    if not found["discoveries"]:
        return f"Exploratory: no neuron tells {pair} apart beyond chance"
    count = f"{found['discoveries']:,} neuron{'s' if found['discoveries'] != 1 else ''}"
    verb = "differ" if found["discoveries"] != 1 else "differs"
    prefix = "Exploratory ranking: " if found["exploratory"] else ""
    title = f"{prefix}{count} of {found['tested']:,} {verb} between {pair}"
    return title[0].upper() + title[1:]


def _lead(summary: dict[str, Any], alpha: float) -> list[str]:
    lines = [f"Compared: {summary['units']}, by {_TESTS[summary['test']]}."]
    found = summary.get("neurons")
    if found is not None:
        share = 100 * found["share_p_below_alpha"]
        by_chance = f"{share:.1f} % have p < {alpha:g}, where {100 * alpha:g} % would by chance."
        where = f" in {summary['units_tested']}" if summary["units_held_out"] else ""
        lines.append(
            f"{found['discoveries']:,} of {found['tested']:,} neurons have q ≤ {alpha:g}{where}, of which a share of "
            f"{alpha:g} may be false; {found['family_wise']:,} hold against the whole family at once. {by_chance}"
            if found["discoveries"]
            else f"No neuron has q ≤ {alpha:g}{where}. {by_chance}"
        )
        if found["exploratory"]:
            lines.append(
                f"The list below is a ranking in the same data that chose it. By chance alone the largest |g| would be "
                f"about {found['largest_g_by_chance']:.2f}, and above {found['largest_g_by_chance_95']:.2f} once in "
                "twenty times."
            )
        else:
            lines.append(
                f"How large they are was measured in {summary['units_held_out']} that took no part in finding: of the "
                f"{found['listed']} listed, {found['confirmed']} keep their sign with an interval without zero."
            )
    profiles, aligned = summary.get("profiles"), summary.get("aligned")
    if profiles is not None:
        lines.append(
            f"Over the layers {profiles['discoveries']} of {profiles['tested']} profile means differ (q ≤ {alpha:g}), "
            f"{profiles['family_wise']} against the whole family."
        )
    if aligned is not None and aligned["tested"]:
        lines.append(
            f"On aligned tokens after the first edit {aligned['discoveries']} of {aligned['tested']} cells differ "
            f"(q ≤ {alpha:g})."
        )
    return lines


def _neurons(result: xr.Dataset) -> Section | None:
    if "g" not in result:
        return None
    drawn = [figures.volcano(result), figures.strongest(result), figures.baseline(result)]
    words = (
        "g is the difference of the classes' means in standard deviations (Hedges; of pairs g_av). A neuron is an "
        "index of the input of the MLP's last linear map."
    )
    return Section("Neurons", words, [one for one in drawn if one is not None], [_listed(result)])


def _listed(result: xr.Dataset) -> Table:
    summary = result.attrs["summary"]
    found = summary["neurons"]
    level = figures.percent(found["interval_level"])
    columns = ["neuron", "g", f"{level} interval", "AUC", "q", "family p"]
    with_context = "context_token" in result
    if with_context:
        columns += [f"strongest in {summary['a']}", f"strongest in {summary['b']}"]
    rows: list[list[Cell]] = []
    for place in range(result.sizes["listed"]):
        layer, neuron = int(result["listed_layer"][place]), int(result["listed_neuron"][place])
        here = result.sel(layer=layer).isel(neuron=neuron)
        g, low, high = (float(result[f"listed_{name}"][place]) for name in ("g", "low", "high"))
        row: list[Cell] = [f"L{layer} n{neuron}", g, f"{number(low)} … {number(high)}"]
        row += [float(here[name]) for name in ("auc", "q", "p_family")]
        if with_context:
            row += [_excerpt(result, place, side) for side in (0, 1)]
        rows.append(row)
    return Table(columns, rows, f"The strongest, by {found['ranked_by']}.")


def _excerpt(result: xr.Dataset, place: int, side: int) -> Cell:
    texts = [str(result[name].values[place, side, 0]) for name in _SIDES]
    return Excerpt(*texts) if np.isfinite(result["context_value"].values[place, side, 0]) else None


def _profiles(result: xr.Dataset) -> Section | None:
    if "profile_difference" not in result:
        return None
    words = "The mean over each prompt's own tokens, then over prompts. Bands: 95 % intervals."
    drawn: list[Figure] = figures.profiles(result)
    return Section("Over the depth of the model", words, drawn)


def _aligned(result: xr.Dataset) -> Section | None:
    drawn = [one for one in (figures.aligned(result), figures.first_pair(result)) if one is not None]
    if not drawn:
        return None
    words = (
        "Twins are aligned on equal tokens. Before the first edit they are the same prompt; from there on the same "
        "word stands in two contexts."
    )
    return Section("Token by aligned token", words, drawn)


def _discoveries(result: xr.Dataset) -> Table:
    """Every discovery, else the listed neurons."""
    if "g" not in result:
        return Table((), ())
    names = (
        "mean_a",
        "mean_b",
        "difference",
        "t",
        "df",
        "p",
        "q",
        "p_family",
        "g",
        "g_all",
        "g_held_out",
        "d_z",
        "auc",
    )
    alpha = result.attrs["parameters"]["alpha"]
    rows, neurons = np.nonzero(result["q"].values <= alpha)
    layers = result["layer"].values[rows]
    if not len(rows):
        layers, neurons = result["listed_layer"].values, result["listed_neuron"].values
        rows = np.searchsorted(result["layer"].values, layers)
    order = np.argsort(result["p"].values[rows, neurons], kind="stable")
    values = {name: result[name].values[rows, neurons][order] for name in names}
    cells = zip(
        layers[order].tolist(), neurons[order].tolist(), *(values[name].tolist() for name in names), strict=True
    )
    return Table(("layer", "neuron", *names), [list(row) for row in cells])
