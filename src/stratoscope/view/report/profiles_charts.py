"""The figures of class profiles: a line a class, two quantities side by side, and of two classes their difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np

from stratoscope import names
from stratoscope.analysis.results.result import table_in
from stratoscope.trace.arrays import Floats
from stratoscope.view.charts.parts import height_of, in_unit, layer_axis
from stratoscope.view.report.charts import charts
from stratoscope.view.report.report import Figure
from stratoscope.view.spec.cautions import RAW_NORM
from stratoscope.view.spec.charts import Axis, ChartPanel, Intervals, Line, Mark, Points, Side, Style, Vertical
from stratoscope.words import capital, listed

if TYPE_CHECKING:
    import xarray as xr

SIDES: tuple[Side, ...] = get_args(Side)  # as many classes as a figure has colours for
GROUPS = {  # title of a section -> its quantities, all by layer or all by depth; a figure shows two
    "Write ratios": ("mlp_write_ratio", "attn_write_ratio"),
    "Norms": ("mlp_out_norm", "neuron_norm", "mlp_write_norm", "attn_write_norm"),
    "Residual stream": ("resid_norm",),
    "Cosines": ("mlp_write_cos", "attn_write_cos", "resid_cos"),
}
OTHERS = "Other quantities"
_DIFFERENCES: tuple[Style, Style] = ("plain", "accent")
_NEARLY_ALL = 1.96  # standard deviations to either side hold 95 %
_MOST_POINTS = 40  # layers of which each has a point of its own


@dataclass(frozen=True, eq=False)
class Profiles:
    """The profiles of one quantity.

    Attributes
    ----------
    quantity, label, unit
        Its name, and how an axis calls it.
    rows
        Numbers of its layers or depths.
    log
        Whether the means are of logarithms to base 2.
    means
        A row a class, as stored; [class, row].
    noise
        Of each class the standard deviation of the noise that was added to each of its means; zeros where none was.
    """

    quantity: str
    label: str
    unit: str
    rows: tuple[int, ...]
    log: bool
    means: Floats
    noise: Floats

    @property
    def is_noisy(self) -> bool:
        """Whether noise was added, which is drawn as intervals."""
        return bool((self.noise > 0).any())

    @property
    def kind(self) -> str:
        """Whether rows are layers or depths."""
        return names.QUANTITIES[self.quantity].row_kind

    @property
    def natural(self) -> Floats:
        """The means in the unit of the quantity: of logarithms the geometric mean."""
        return self.in_unit(self.means)

    def in_unit(self, values: Floats) -> Floats:
        """Values of the scale of the means in the unit of the quantity."""
        return np.exp2(values) if self.log else values

    def noise_ends(self, place: int) -> tuple[Floats, Floats] | None:
        """Between which values 95 % of the noise on the means of a class lies; None where none was added."""
        if not self.is_noisy:
            return None
        means, reach = self.means[place], _NEARLY_ALL * self.noise[place]
        return self.in_unit(means - reach), self.in_unit(means + reach)


@dataclass(frozen=True)
class ClassName:
    """A class: its name, and how many prompts it has, as it was published, which may be a rounded number."""

    name: str
    prompts: int
    rounded: bool

    @property
    def label(self) -> str:
        """What a key and a table call it."""
        return self.name or "all prompts"

    @property
    def counted(self) -> str:
        """The same with the number of prompts."""
        return f"{self.label} ({'about ' * self.rounded}{self.prompts:,} prompts)"


def classes_in(result: xr.DataTree) -> list[ClassName]:
    """The classes of a Result."""
    table = table_in(result, "classes")
    columns = (table[name].values.tolist() for name in ("prompt_class", "prompts"))
    rounded = result.attrs["summary"]["level"] != names.PRIVATE
    return [ClassName(str(name), int(prompts), rounded) for name, prompts in zip(*columns, strict=True)]


def means_in(result: xr.DataTree) -> list[Profiles]:
    """The profiles of a Result, in the order in which they were published."""
    found = []
    for quantity in result.attrs["parameters"]["quantity"]:
        row, table = names.QUANTITIES[quantity], table_in(result, f"profiles/{quantity}")
        rows = tuple(int(number) for number in table[row.row_kind].values)
        log, means = table["mean"].attrs.get("scale") == "log2", np.asarray(table["mean"].values, np.float64)
        noise = np.asarray(table["noise"].values, np.float64) if "noise" in table else np.zeros(len(means))
        found.append(Profiles(quantity, row.label, in_unit(row), rows, log, means, noise))
    return found


def grouped(profiles: Sequence[Profiles]) -> dict[str, list[list[Profiles]]]:
    """The profiles by the titles of their sections, at most two to a figure."""
    found = {}
    rest = {one.quantity: one for one in profiles}
    for title, quantities in {**GROUPS, OTHERS: tuple(rest)}.items():
        some = [rest.pop(name) for name in quantities if name in rest]
        if some:
            found[title] = [some[start : start + 2] for start in range(0, len(some), 2)]
    return found


def profile_figure(result: xr.DataTree, number: int, profiles: Sequence[Profiles]) -> Figure:
    """The figure of one or two quantities.

    Parameters
    ----------
    number
        Its place among those of the Result, from 1.
    """
    classes = classes_in(result)
    shown = classes[: len(SIDES)]
    panels = [_panel(one, shown, named=place == 0) for place, one in enumerate(profiles)]
    if len(classes) == 2:
        panels.append(_differences(profiles, classes))
    title = f"{capital(listed([one.label for one in profiles]))}, {profiles[0].kind} by {profiles[0].kind}"
    in_runs = any("-" in band for band in result.attrs["summary"].get("bands", {}).get(profiles[0].quantity, []))
    said, height = _drawn(profiles, classes, in_runs=in_runs), max(2.2, height_of(len(profiles[0].rows)))
    norms = any(names.QUANTITIES[one.quantity].unit == "L2 norm" for one in profiles)
    spec = charts(result, title, said, panels, height=height, notes=[RAW_NORM] if norms else [])
    return Figure(f"profiles-{number}", "", spec)


def _panel(one: Profiles, classes: Sequence[ClassName], *, named: bool) -> ChartPanel:
    log = one.log and bool((one.natural > 0).any())
    marks = list[Mark]()
    for place, (side, of) in enumerate(zip(SIDES, classes, strict=False)):
        label = of.counted if named else ""
        marks += _line(one.natural[place], one.rows, side, label, one.noise_ends(place))
    axis = Axis(f"{one.label}{one.unit}", log=log)
    return ChartPanel(capital(one.label), axis, layer_axis(one.rows, one.kind), tuple(marks))


def _differences(profiles: Sequence[Profiles], classes: Sequence[ClassName]) -> ChartPanel:
    """First class − second of each quantity, on the scale of its mean."""
    marks: list[Mark] = [Vertical(0.0, "muted")]
    for style, one in zip(_DIFFERENCES, profiles, strict=False):
        difference, noise = one.means[0] - one.means[1], float(np.hypot(*one.noise))
        ends = (difference - _NEARLY_ALL * noise, difference + _NEARLY_ALL * noise) if one.is_noisy else None
        marks += _line(difference, one.rows, style, one.label, ends)
    of = "log₂ ratio" if all(one.log for one in profiles) else "difference"
    found = np.abs([value for one in profiles for value in one.means[0] - one.means[1] if np.isfinite(value)])
    noise = _NEARLY_ALL * max(float(np.hypot(*one.noise)) for one in profiles)
    reach = 1.15 * (float(found.max(initial=0.0)) + noise) or None
    title = f"{classes[0].label} − {classes[1].label}"
    axis = Axis(of, None if reach is None else -reach, reach)
    return ChartPanel(title, axis, layer_axis(profiles[0].rows, profiles[0].kind), tuple(marks))


def _line(
    values: Floats, rows: Sequence[int], style: Style, label: str, ends: tuple[Floats, Floats] | None = None
) -> list[Mark]:
    """A line over the rows, broken where they are no neighbours; with the ends of intervals, these at each row."""
    at = np.arange(len(rows), dtype=float)
    if ends is not None:
        return [Line(values, at, style, label), Intervals(values, at, *ends, style)]
    breaks = np.flatnonzero(np.diff(rows) > 1) + 1
    marks: list[Mark] = [Line(np.insert(values, breaks, np.nan), np.insert(at, breaks, breaks - 0.5), style, label)]
    if len(rows) <= _MOST_POINTS:
        marks.append(Points(values, at, style))
    return marks


def _drawn(profiles: Sequence[Profiles], classes: Sequence[ClassName], *, in_runs: bool) -> str:
    """What the lines are."""
    logs = [one.label for one in profiles if one.log]
    mean = "lines: means over the prompts of each class" if len(classes) > 1 else "line: mean over the prompts"
    of = f" of {listed(logs)}" if len(logs) < len(profiles) else ""
    geometric = f", geometric{of}" if logs else ""
    more = f"; drawn are the first {len(SIDES)} of {len(classes)} classes" if len(classes) > len(SIDES) else ""
    noise = "; intervals: 95 % of the noise that was added" if profiles[0].is_noisy else ""
    runs = f"; each a run of neighbouring {profiles[0].kind}s, named after its middle" if in_runs else ""
    return f"{mean}{geometric}{noise}{runs}; first tokens left out{more}"
