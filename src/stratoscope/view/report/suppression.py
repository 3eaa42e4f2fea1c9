"""The report of a suppression: what promotes and what suppresses a target, picture first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stratoscope.analysis.results.result import Row, rows_in, table_in
from stratoscope.trace.calibration import STATISTICS, TABLE_COLUMNS, Agreement, Bounded, table_row
from stratoscope.view.report import suppression_charts as charts
from stratoscope.view.report import suppression_words as words
from stratoscope.view.report.report import Facts, Figure, Report, Section
from stratoscope.view.spec.tables import Cell, Excerpt, Table
from stratoscope.words import capital, neuron_name

if TYPE_CHECKING:
    import xarray as xr

_WRITTEN = 5  # tokens promoted, and as many demoted
_GATE, _UP = "gate read from", "up read from"
_NEURON_COLUMNS = ("neuron", "at", "total effect", "direct", "activation", _GATE, _UP, "writes: promotes",
                   "writes: demotes")  # fmt: skip
_COMPARED = ("part", "mean a", "mean b", "difference", "g", "p", "q", "family-wise p")


def contents(result: xr.DataTree) -> Report:
    """What the report of a suppression holds."""
    summary = result.attrs["summary"]
    sections = [Section("Along the depth", "", _figures(result))]
    for make in (_neurons, _direct_neurons, _heads, _compared, _sum, _calibration):
        section = make(result)
        if section is not None:
            sections.append(section)
    return Report(capital(words.headline(result)), words.lead(result), sections, _table(result, summary))


def _figures(result: xr.DataTree) -> list[Figure]:
    if "means" not in result:
        return [charts.depth(result)]
    difference = charts.difference(result)
    return [*([difference] if difference else []), *charts.classes(result)]


def _neurons(result: xr.DataTree) -> Section | None:
    """The strongest neurons by total effect; where the trace has them, but none is, that is said."""
    summary = result.attrs["summary"]
    if "neurons" not in result:
        return None
    table = table_in(result, "neurons")
    title = words.marked("Neurons, by total effect", words.mark_of(summary, "neuron"))
    said = " ".join(words.calibrations(summary, "neuron"))
    if not table.sizes["listed"]:
        return Section(title, f"No neuron is recorded whose effect is known and not zero. {said}")
    tables = []
    for verb, sign in (("promote", 1), ("suppress", -1)):
        some = np.flatnonzero(np.sign(table["total"].values) == sign)
        rows = [_neuron(table.isel(listed=int(place)), summary) for place in some]
        if rows:
            tables.append(_neuron_table(rows, summary, f"Those that {verb} most.", reads="source_token" in table))
        else:
            tables.append(Table(("neuron",), [], f"None was recorded that would {verb} it."))
    what = (
        "The direct contribution is exactly 0 at earlier tokens. Percentages are shares of all that was read, by size: "
        "+ raised what it adds to, − lowered it; a number behind a token is its position."
    )
    if not summary["prompt"]:
        what += (
            " Ranked by the largest effect in any prompt, among those recorded. Means are over the prompts in which a "
            "neuron is among the strongest recorded; where it is not, its effect is not known."
        )
    return Section(title, f"{what} {said}", (), tables)


def _neuron_table(rows: list[list[Cell]], summary: Facts, caption: str, *, reads: bool) -> Table:
    columns, means = list(_NEURON_COLUMNS), list[str]()
    if not summary["prompt"]:
        of = [f" of {name}" if name else "" for name in summary["classes"]]
        means = [f"mean where listed{name}" for name in of]
        columns += [*means, *(f"in prompts{name}" for name in of), "strongest in"]
    why = "nothing was read" if reads else "this trace does not hold what neurons read"
    blank = {_GATE: why, _UP: f"{why}, or the MLP has no gate", "direct": "direct contributions were not recorded"}
    blank |= dict.fromkeys(means, "in none of these prompts among the strongest recorded")
    return Table(columns, rows, caption, blank)


def _neuron(one: xr.Dataset, summary: Facts) -> list[Cell]:
    written = one["write_token"].values.tolist() if "write_token" in one else []
    token = str(one["token"].item())
    before, after = (str(one[name].item()) for name in ("before", "after"))
    cells: list[Cell] = [
        neuron_name(int(one["layer"]), int(one["neuron"])),
        Excerpt(before, token, after),
        float(one["total"]),
        float(one["direct"]),
        float(one["value"]),
        "; ".join(words.sources(one, 0)),
        "; ".join(words.sources(one, 1)),
        words.texts(written[:_WRITTEN]),
        words.texts(written[_WRITTEN:]),
    ]
    if not summary["prompt"]:
        cells += [float(mean) for mean in one["mean"].values]
        cells += [int(count) for count in one["in_prompts"].values]
        cells += [str(one["prompt_id"].item())]
    return cells


def _direct_neurons(result: xr.DataTree) -> Section | None:
    if "direct_neurons" not in result:
        return None
    rows = [[neuron_name(one["layer"], one["neuron"]), one["direct"]] for one in rows_in(result, "direct_neurons")]
    said = "At the answer position, the final norm frozen. This is another ranking than that by total effect."
    if not rows:
        return Section("Neurons, by direct contribution", f"None is recorded that is known and not zero. {said}")
    return Section("Neurons, by direct contribution", said, (), [Table(("neuron", "direct contribution"), rows)])


def _heads(result: xr.DataTree) -> Section | None:
    if "heads" not in result:
        return None
    summary, table = result.attrs["summary"], table_in(result, "heads")
    by_total = "total" in table
    mark = words.mark_of(summary, "head") if by_total else ""
    title = words.marked(f"Heads, by {words.MEASURES['total' if by_total else 'direct']}", mark)
    columns = ["head", *(words.MEASURES[name] for name in words.MEASURES if name in table)]
    columns += ["direct contribution comes from"] if "source_token" in table else []
    rows = []
    for place in range(table.sizes["listed"]):
        one = table.isel(listed=place)
        cells: list[Cell] = [f"L{int(one['layer'])} h{int(one['head'])}"]
        cells += [float(one[name]) for name in words.MEASURES if name in table]
        cells += ["; ".join(words.head_sources(one))] if "source_token" in table else []
        rows.append(cells)
    said = " ".join(words.calibrations(summary, "head")) if by_total else ""
    if not rows:
        return Section(title, f"No head has a value that is known and not zero. {said}")
    return Section(title, said, (), [Table(columns, rows)])


def _compared(result: xr.DataTree) -> Section | None:
    """Both families, each by itself, the clearest differences first."""
    summary = result.attrs["summary"]
    tables = []
    for name, what in (
        ("total_compared", "Total effects"),
        ("direct_compared", "Direct contributions, at one factor of the final norm"),
        ("heads_compared", "Heads, total effects"),
    ):
        if name in result:
            rows = rows_in(result, name)
            order = sorted(rows, key=lambda one: (_last(one["p"]), -abs(_last(one["difference"], 0.0))))
            tables.append(_comparison(order[:10], summary, f"{what}: the clearest of {len(rows)}."))
    return Section(f"{summary['a']} − {summary['b']}", "", (), tables) if tables else None


def _comparison(rows: list[Row], summary: Facts, caption: str) -> Table:
    columns = [column.replace("mean a", f"mean of {summary['a']}").replace("mean b", f"mean of {summary['b']}")
               for column in _COMPARED]  # fmt: skip
    cells = [
        [words.row_name(one), *(one[name] for name in ("mean_a", "mean_b", "difference", "g", "p", "q", "p_family"))]
        for one in rows
    ]
    why = "too few prompts for a test, or no spread"
    return Table(columns, cells, caption, dict.fromkeys(_COMPARED[4:], why))


def _last(value: float, otherwise: float = 2.0) -> float:
    return value if np.isfinite(value) else otherwise


def _sum(result: xr.DataTree) -> Section | None:
    if "sum" not in result:
        return None
    prompts, sums = rows_in(result, "prompts"), rows_in(result, "sum")
    columns = (
        "prompt",
        "embedding",
        "attention",
        "MLP",
        "biases",
        "norm bias",
        "head bias",
        "Σ",
        "model's logit",
        "error",
    )
    names = ("embedding", "attention", "mlp", "biases", "norm_bias", "head_bias", "sum", "model", "error")
    rows = [[one["prompt_id"], *(of[name] for name in names)] for one, of in zip(prompts, sums, strict=True)]
    most = 40
    caption = f"The first {most} of {len(rows)} prompts; result.zarr has all." if len(rows) > most else ""
    said = (
        "Every term is computed by itself, none as the remainder: the error says how far the sum is from the model's."
    )
    return Section("The sum", said, (), [Table(columns, rows[:most], caption)])


def _calibration(result: xr.DataTree) -> Section | None:
    summary = result.attrs["summary"]
    if not summary["total"]:
        return None
    if "calibration" not in result:
        return Section("Calibration", " ".join(words.calibrations(summary, "neuron", "mlp", "attn", "head")))
    rows = [table_row(one["kind"], one["baseline"], _agreement(one)) for one in rows_in(result, "calibration")]
    columns = ("ablated", *TABLE_COLUMNS, "calibrated")
    said = (
        "Effects to first order against really ablating a sample of n: rank correlation ρ, equal signs of those that "
        "are larger than the floor, slope of the measured on the first-order effect, each with its interval of 95 %."
    )
    return Section("Calibration", said, (), [Table(columns, rows)])


def _agreement(one: Row) -> Agreement:
    bounded = (Bounded(*(one[f"{name}{end}"] for end in ("", "_low", "_high"))) for name in STATISTICS)
    return Agreement(one["count"], one["decided"], *bounded)


def _table(result: xr.DataTree, summary: Facts) -> Table:
    """The rows of table.csv: every block of every prompt, by both measures."""
    table, prompts = table_in(result, "depth"), rows_in(result, "prompts")
    layers = table["layer"].values.tolist()
    measures = [measure for measure in words.MEASURES if summary[measure]]
    rows: list[list[Cell]] = []
    for place, prompt in enumerate(prompts):
        for row, layer in enumerate(layers):
            for part, called in words.PARTS.items():
                values = [float(table[f"{part}_{measure}"].values[place, row]) for measure in measures]
                rows.append([prompt["prompt_id"], prompt["target"], layer, called, *values])
    return Table(("prompt", "target", "layer", "part", *(words.MEASURES[one] for one in measures)), rows)
