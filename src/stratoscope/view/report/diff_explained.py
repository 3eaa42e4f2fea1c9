"""What a diff shows of explained logits: by how much each row promotes the target more in B, and the final norm's own row."""  # noqa: E501

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stratoscope import names
from stratoscope.analysis.diff.explained import NO_EFFECT
from stratoscope.analysis.results.result import notes_in, table_in
from stratoscope.trace.arrays import Floats, Ints
from stratoscope.view.maps.diff import sides_in_words
from stratoscope.view.report.charts import charts
from stratoscope.view.report.report import Figure, Section
from stratoscope.view.spec.charts import Axis, ChartPanel, Intervals, Mark, Style, Vertical
from stratoscope.view.spec.tables import Cell, Table
from stratoscope.words import counted, number

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.trace.notes import Note
    from stratoscope.view.spec.viewspec import ViewSpec

_TARGETS = 3  # that have a figure each
_LISTED = 12  # rows of a table
_OFFSET = 0.16  # by which attention and MLP of a layer stand apart
_STYLES: dict[str, Style] = {"attention": "d", "MLP": "c"}
_FINAL_NORM, _EMBEDDING = "final norm", "embedding"


def contributions(result: xr.DataTree) -> Section | None:
    """Direct contributions of both models; None where they were not compared."""
    if "contributions" not in result:
        return None
    table = table_in(result, "contributions")
    figures, tables = [], []
    for place, target in enumerate(map(str, table["target_text"].values)):
        if place < _TARGETS:
            figures.append(Figure(f"contributions-{place + 1}", "", _contributions_chart(result, table, place, target)))
        tables.append(_contributions_table(table, place, target))
    words = (
        "What each part adds to the target's logit at the token from which the model answers, B − A. A part that did "
        "not change is 0: what the final norm makes of all parts is a row of its own. Median and range of the prompts."
    )
    return Section("What changed the target's logit, directly", words, figures, tables)


def _contributions_chart(result: xr.DataTree, table: xr.Dataset, place: int, target: str) -> ViewSpec:
    layer = table["part_layer"].values.astype(np.int64)
    part = np.array([str(one) for one in table["part_text"].values])
    difference = table["difference"].values[:, place]
    numbers = np.unique(layer[layer >= 0])
    marks: list[Mark] = [Vertical(0.0, "muted")]
    for block, style in _STYLES.items():
        rows = np.flatnonzero((layer >= 0) & (part == block))
        at = np.searchsorted(numbers, layer[rows]).astype(float) + (_OFFSET if block == "MLP" else -_OFFSET)
        marks.append(_spread(difference[:, rows], at, style, block))
    others = [
        row for row in np.flatnonzero(layer < 0).tolist() if part[row] == _FINAL_NORM or np.any(difference[:, row])
    ]
    below = [row for row in others if part[row] == _EMBEDDING]
    above = [row for row in others if part[row] != _EMBEDDING]
    heights = {row: -1.0 - number_ for number_, row in enumerate(below)}
    heights |= {row: len(numbers) + 0.3 + number_ for number_, row in enumerate(above)}
    for row, height in heights.items():
        own: Style = "accent" if part[row] == _FINAL_NORM else "plain"
        marks.append(_spread(difference[:, [row]], np.array([height]), own, ""))
    named = tuple((height, str(part[row])) for row, height in heights.items())
    axis = Axis("B − A (centred logit); positive promotes it more in B")
    panel = ChartPanel("", axis, _rows_axis(numbers, named), tuple(marks), width=1.6)
    notes = [note for note in notes_in(result) if note.id == "L29" or note.text == NO_EFFECT]
    return _spec(result, f"What changed the logit of {target}, directly: B − A", panel, len(numbers), notes)


def effects(result: xr.DataTree) -> Section | None:
    """Total effects of both models; None where they were not compared."""
    if "effects" not in result:
        return None
    table = table_in(result, "effects")
    figures = []
    for place, target in enumerate(map(str, table["target_text"].values[:_TARGETS])):
        figures.append(Figure(f"effects-{place + 1}", "", _effects_chart(result, table, place, target)))
    words = (
        "First-order total effect of attention and MLP on the target's logit, summed over all tokens of a prompt "
        "but its first, B − A. Median and range of the prompts."
    )
    return Section("What changed the total effects", words, figures)


def _effects_chart(result: xr.DataTree, table: xr.Dataset, place: int, target: str) -> ViewSpec:
    numbers = table[names.LAYER].values.astype(np.int64)
    marks: list[Mark] = [Vertical(0.0, "muted")]
    at = np.arange(len(numbers), dtype=float)
    for block, style in _STYLES.items():
        values = table[f"{block.lower()}_difference"].values[:, place]
        marks.append(_spread(values, at + (_OFFSET if block == "MLP" else -_OFFSET), style, block))
    axis = Axis("B − A (logit); positive promotes it more in B")
    panel = ChartPanel("", axis, _rows_axis(numbers, ()), tuple(marks), width=1.6)
    doubts = any("ot calibrated" in words for words in result.attrs["summary"]["explained"]["calibration"])
    title = f"What changed the total effects on the logit of {target}: B − A" + (", not calibrated" if doubts else "")
    notes = [note for note in notes_in(result) if note.id == "L28" and note.text != NO_EFFECT]
    return _spec(result, title, panel, len(numbers), notes)


def _spread(values: Floats, at: Floats, style: Style, label: str) -> Intervals:
    """The median of the prompts with their range, [prompt, row]."""
    known = np.isfinite(values)
    there = known.any(axis=0)
    low, middle, high = (np.full(values.shape[1], np.nan) for _ in range(3))
    some = np.where(known, values, np.nan)[:, there]
    low[there], middle[there], high[there] = np.nanmin(some, 0), np.nanmedian(some, 0), np.nanmax(some, 0)
    return Intervals(middle, np.asarray(at, float), low, high, style, label)


def _rows_axis(numbers: Ints, named: tuple[tuple[float, str], ...]) -> Axis:
    """Layers, the first at the bottom, and the parts that have none by their names."""
    last = len(numbers) - 1
    step = max(1, -(-len(numbers) // 10))
    places = sorted({*range(0, len(numbers), step), last})
    places = [place for place in places if place == last or last - place >= step]
    ticks = sorted([*((float(place), f"L{numbers[place]}") for place in places), *named])
    heights = [height for height, _ in ticks] or [0.0]
    return Axis("", min(-0.6, heights[0] - 0.6), max(last + 0.6, heights[-1] + 0.6), tuple(ticks))


def _spec(result: xr.DataTree, title: str, panel: ChartPanel, rows: int, notes: Sequence[Note]) -> ViewSpec:
    summary = result.attrs["summary"]
    a, b = sides_in_words(summary)
    subtitle = f"A: {a} · B: {b} · {counted(summary['pairs'], 'prompt')}: the median and all of them"
    return charts(result, title, subtitle, [panel], height=float(np.clip(0.16 * (rows + 3), 2.0, 5.0)), notes=notes)


def _contributions_table(table: xr.Dataset, place: int, target: str) -> Table:
    """The rows that changed most, the final norm, and what they sum to."""
    part, layer = [str(one) for one in table["part_text"].values], table["part_layer"].values.tolist()
    of = {name: table[name].values[:, place] for name in ("a", "b", "difference")}
    middle = {name: _median(values) for name, values in of.items()}
    names_of = [one if number_ < 0 else f"L{number_} {one}" for one, number_ in zip(part, layer, strict=True)]
    norm = part.index(_FINAL_NORM)
    order = [row for row in np.argsort(-np.abs(np.nan_to_num(middle["difference"])), kind="stable").tolist()
             if row != norm and middle["difference"][row]][:_LISTED]  # fmt: skip
    rows: list[tuple[Cell, ...]] = [
        (names_of[row], *(_cell(middle[name][row]) for name in of), _range(of["difference"][:, row]))
        for row in [*order, norm]
    ]
    total = table["total"].values[:, place]
    left = float(np.nanmax(np.abs(table["unexplained"].values[:, place]), initial=0.0))
    rows.append(("the logit, B − A", None, None, _cell(_median(total[:, None])[0]), _range(total)))
    unchanged = sum(not np.nan_to_num(of["difference"][:, row]).any() for row in range(len(part)) if row != norm)
    caption = (
        f"Target {target}. {unchanged} of {len(part) - 1} parts did not change at all. All rows together leave at most "
        f"{number(left)} of the logit's change."
    )
    columns = ("part", "A", "B", "B − A", "range over prompts")
    blank = {"A": "a difference has no side", "B": "a difference has no side"}
    return Table(columns, rows, caption, blank)


def _median(values: Floats) -> Floats:
    found = np.full(values.shape[1], np.nan)
    there = np.isfinite(values).any(axis=0)
    found[there] = np.nanmedian(np.where(np.isfinite(values), values, np.nan)[:, there], axis=0)
    return found


def _cell(value: float) -> Cell:
    return float(value) if np.isfinite(value) else None


def _range(values: Floats) -> Cell:
    known = values[np.isfinite(values)]
    return f"{number(known.min())} to {number(known.max())}" if known.size else None
