"""The report of class profiles: what was published of the classes, layer by layer, and what that promises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stratoscope import names
from stratoscope.analysis.results.result import table_in
from stratoscope.view.report.profiles_charts import classes_in, grouped, means_in, profile_figure
from stratoscope.view.report.report import Report, Section
from stratoscope.view.spec.tables import Cell, Table
from stratoscope.view.spec.viewspec import public_name
from stratoscope.words import listed

if TYPE_CHECKING:
    import xarray as xr

_ROUNDED = ("class", "prompts, about", "tokens in a prompt, about")
_EXACT = ("class", "prompts", "predicted signal-to-noise, at most")
_COLUMNS = ("quantity", "layer or depth", "class", "mean", "of", "prompts, about")
_ATTACKED = ("class", "AUC", "from", "to", "found at 1 %", "from", "to")
_NOISE = ("noise from", "noise to")  # 95 % of it


def contents(result: xr.DataTree) -> Report:
    """What the report of class profiles holds."""
    summary, classes = result.attrs["summary"], classes_in(result)
    model = public_name(str(summary["model"].get("name", "")))
    of_model = f" in {model}" if model and model != names.SIMULATED else ""
    title = f"{listed([one.label for one in classes])}{of_model}: means of each class, layer by layer"
    lead = [f"Means over the prompts of {listed([one.counted for one in classes])}.", _published(result)]
    sections, number = [], 0
    for heading, figures in grouped(means_in(result)).items():
        drawn = []
        for some in figures:
            number += 1
            drawn.append(profile_figure(result, number, some))
        sections.append(Section(heading, "", drawn))
    if "neurons" in result:
        sections.append(_neurons(result))
    sections.append(Section("Classes", "", (), [_classes(result)]))
    return Report(title, lead, sections, _table(result))


def _published(result: xr.DataTree) -> str:
    """What is in it, in a sentence."""
    quantities = [names.QUANTITIES[name].label for name in result.attrs["parameters"]["quantity"]]
    neurons = ", and of each neuron" if "neurons" in result else ""
    return f"The file holds the mean of each class in each layer of {listed(quantities)}{neurons}; no prompt, no token."


def _neurons(result: xr.DataTree) -> Section:
    """What the means of neurons tell of single prompts, as it was measured on the trace itself."""
    (path,) = (f"neurons/{name}" for name in result["neurons"].children)
    table, measured = table_in(result, path), result.attrs["summary"]["membership"]
    count = table.sizes[names.LAYER] * table.sizes[names.NEURON]
    rows: list[list[Cell]] = [
        [str(one["prompt_class"]) or "all prompts", *one["auc"], *one["found_at_one_percent"]] for one in measured
    ]
    said = f"The means of {count:,} neurons of each class are in result.zarr."
    caption = (
        "What our own attack found: how well it tells prompts of such a mean from others (AUC, 0.5 is guessing), and "
        "which share of them it finds where 1 % of the others are taken for them, each with its interval of 95 %."
    )
    return Section("Neurons", said, (), [Table(_ATTACKED, rows, caption)])


def _classes(result: xr.DataTree) -> Table:
    table, classes = table_in(result, "classes"), classes_in(result)
    if "tokens" in table:
        told, heads, note = table["tokens"], _ROUNDED, "Near-duplicates count once."
    else:
        told, heads, note = table["signal_to_noise"], _EXACT, "Each prompt counts, near-duplicates too."
    rows: list[list[Cell]] = [
        [one.label, one.prompts, value] for one, value in zip(classes, told.values.tolist(), strict=True)
    ]
    return Table(heads, rows, note)


def _table(result: xr.DataTree) -> Table:
    """The rows of table.csv: every mean, in the unit of its quantity; of a noisy one where 95 % of the noise lies."""
    classes, rows, noisy = classes_in(result), list[list[Cell]](), False
    for one in means_in(result):
        of, noisy = "geometric mean" if one.log else "mean", one.is_noisy
        for place, group in enumerate(classes):
            values = one.natural[place].tolist()
            columns = [one.rows, values, *(ends.tolist() for ends in one.noise_ends(place) or ())]
            rows += [[one.quantity, row, group.name, value, of, group.prompts, *ends]
                     for row, value, *ends in zip(*columns, strict=True)]  # fmt: skip
    return Table((*_COLUMNS[:-1], "prompts", *_NOISE) if noisy else _COLUMNS, rows)
