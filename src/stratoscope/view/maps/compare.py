"""A | B | B − A: two prompts, token by aligned token, on one scale."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import defaults, names
from stratoscope.analysis.results.result import is_result, notes_in, table_in
from stratoscope.analysis.values.explained import marks_answers
from stratoscope.errors import InputError, UsageError
from stratoscope.view.choose.quantities import reduced_in_words
from stratoscope.view.choose.selection import Selection
from stratoscope.view.maps.build import build
from stratoscope.view.maps.differences import aligned_tokens, described_cells, sides_and_difference
from stratoscope.view.spec.drawn_by import DrawnBy, drawn_by, drawn_by_result
from stratoscope.view.spec.look import PLAIN, Look
from stratoscope.view.spec.maps import DrawnQuantity
from stratoscope.view.spec.page import PLAIN_PAGE, Page, Width, page_of
from stratoscope.view.spec.selected import Selected
from stratoscope.view.spec.tokens import ShownPrompt
from stratoscope.view.spec.viewspec import ViewSpec, provenance_of_result, public_name
from stratoscope.words import capital, counted, isolate, listed, number_ranges, shortened, visible

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from stratoscope.analysis.compare.cautions import Facts
    from stratoscope.analysis.compare.prompts import TwoInputs
    from stratoscope.analysis.compare.tables import Rows
    from stratoscope.trace.csv.columns import Columns
    from stratoscope.trace.targets import TargetChoice
    from stratoscope.view.charts.two_classes import TwoClasses
    from stratoscope.view.choose.selection import LayerChoice, PromptChoice, TextChoice

_LONGEST_NAME = 40  # characters of what A or B is called in a legend


def compare(
    inputs: TwoInputs | xr.DataTree,
    out: str | os.PathLike[str] | None = None,
    *,
    columns: Columns = None,
    quantity: str | None = None,
    target: TargetChoice = None,
    prompt: PromptChoice = None,
    prompt_class: TextChoice = None,
    layers: LayerChoice = None,
    span: TextChoice = None,
    scale: names.Scale = defaults.SCALE,
    first_token: bool = defaults.FIRST_TOKEN,
    theme: names.Theme = defaults.THEME,
    width: Width = None,
    font_size: float | None = None,
    title: str | None = None,
    caption: names.Caption = defaults.CAPTION,
    table: str | os.PathLike[str] | None = None,
    peaks_table: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> Figure:
    """Draw what differs between two prompts: A, B and B − A, token by aligned token.

    Tokens are aligned on runs of equal ones; a token without an equal one on the other side is hatched. A and B have
    one scale; the limits of B − A are those of the cells that can differ. `comparison` gives the same as numbers,
    `diff` compares two models over the same prompts, `contrast` tests classes of prompts.

    Parameters
    ----------
    inputs
        A trace or a Dataset, of which two prompts are compared; two traces in a list, of which one prompt each; two CSV
        or Parquet files in a list; or what `comparison` gave.
    out
        A .png, .svg or .pdf file to write. None writes nothing.
    prompt
        Two prompts by id or index, A first. By default the first minimal pair, else the first prompt of each of two
        classes. Of two traces one that both have (by default the first such), or one of each.
    prompt_class
        Two classes of one trace instead of two prompts: the median prompt of either layer by layer with the middle half
        of the prompts, and the second − the first. No token is compared with another.
    table
        A .csv file to write: every cell with both values, B − A and the alignment; of two classes every layer.
    peaks_table
        A .csv file to write: every neuron that is among the peaks of one prompt and not of the other, at the same token
        and layer. Not among the peaks is not zero: `larger_by_at_least` says what is certain.
    columns, quantity, target, layers, span, scale, first_token, theme, width, font_size, title, caption
        As in `heatmap`.
    overwrite
        Whether what is there may be replaced.

    Returns
    -------
    matplotlib.figure.Figure
        Its axes are A, B and B − A; of a long pair line by line. Of two classes both together, and B − A.

    Raises
    ------
    InputError
        These are not two prompts, something asked for is not there, or a file cannot be written.

    Examples
    --------
    >>> import stratoscope
    >>> trace = stratoscope.simulate(prompts=6, layers=3)
    >>> figure = stratoscope.compare(trace, prompt=["critical-1", "neutral-1"], table="cells.csv")
    >>> len(figure.axes)  # A, B and B − A
    3
    """
    drawn = drawn_by("compare", locals())
    from stratoscope.analysis.compare.tables import cell_rows, neuron_rows
    from stratoscope.view.charts.two_classes import TwoClasses, refuse_beside_classes
    from stratoscope.view.matplotlib.render import render

    look, page = Look(scale, first_token, theme), page_of(width, font_size, title, caption)
    tables = Tables(table, peaks_table, overwrite)
    if prompt_class is not None:
        refuse_beside_classes(prompt=prompt, peaks_table=peaks_table)
        selection = Selection(prompt_class=prompt_class, layers=layers, span=span)
        classes = TwoClasses(inputs, columns, selection, quantity, look, target)
        return draw_classes(classes, out, page, tables, drawn)
    tables.check(inputs)
    asked: dict[str, Any] = {"columns": columns, "quantity": quantity, "target": target, "prompt": prompt}
    asked |= {"layers": layers, "span": span}

    @cache
    def result() -> xr.DataTree:
        return _compared(inputs, asked)

    def described(now: Look) -> ViewSpec:
        spec = compare_spec(result(), now, page)
        return replace(spec, drawn_by=drawn_by_result(result(), options=drawn.options))

    figure = render(described, out, look, page, overwrite=overwrite, inputs=inputs)
    tables.write(cells=lambda: cell_rows(result()), neurons=lambda: neuron_rows(result()))
    return figure


def draw_classes(
    classes: TwoClasses, out: str | os.PathLike[str] | None, page: Page, tables: Tables, drawn: DrawnBy
) -> Figure:
    """Draw two classes layer by layer, and write the table that is asked for."""
    from stratoscope.view.charts.two_classes import class_rows
    from stratoscope.view.matplotlib.render import render

    tables.check(classes.inputs)

    def describe(look: Look) -> ViewSpec:
        return replace(classes.spec(look), drawn_by=drawn)

    figure = render(describe, out, classes.look, page, overwrite=tables.overwrite, inputs=classes.inputs)
    tables.write(cells=lambda: class_rows(classes.profile))
    return figure


def _compared(inputs: TwoInputs | xr.DataTree, asked: dict[str, Any]) -> xr.DataTree:
    """The comparison that is to be drawn: made here, unless it is given."""
    from xarray import DataTree

    from stratoscope.analysis.compare.comparison import comparison

    if not isinstance(inputs, DataTree):
        return comparison(inputs, **asked)
    if given := [name for name, value in asked.items() if value is not None]:
        fix = "Give it to `comparison`, or give the trace."
        raise UsageError("this comparison is made already", where=given[0], fix=fix)
    if not is_result(inputs, "compare"):
        raise InputError("this is no comparison", where="inputs", fix="Give what `comparison` gave, or a trace.")
    return inputs


@dataclass(frozen=True)
class Tables:
    """The tables that are written of a comparison; None = not asked for."""

    cells: str | os.PathLike[str] | None
    neurons: str | os.PathLike[str] | None
    overwrite: bool

    def check(self, inputs: Any = ()) -> None:
        """Refuse, before any work is done, what may not be written or is one of the inputs."""
        from stratoscope.trace.export.table import check_table

        given = [Path(one) for one in (self.cells, self.neurons) if one is not None]
        for one in given:
            check_table(one, overwrite=self.overwrite, inputs=inputs)
        if len({*given}) < len(given):
            raise UsageError("two tables in one file", where=str(given[0]), fix="Give each its own name.")

    def write(self, cells: Callable[[], Rows], neurons: Callable[[], Rows] | None = None) -> None:
        """Write what is asked for; of classes there is no table of neurons."""
        from stratoscope.trace.export.table import write_table

        for out, rows in ((self.cells, cells), (self.neurons, neurons)):
            if out is not None and rows is not None:
                write_table(*rows(), Path(out), overwrite=self.overwrite)


def compare_spec(result: xr.DataTree, look: Look = PLAIN, page: Page = PLAIN_PAGE) -> ViewSpec:
    """The picture of a Result of kind "compare"."""
    if look.scale == "log":
        fix = "Use robust (A and B are drawn on a logarithmic scale where the quantity has one) or linear."
        raise UsageError("B − A has negative values, which have no logarithm", where="scale", fix=fix)
    summary = result.attrs["summary"]
    quantity, prompts, classes = (summary[name] for name in ("quantity", "prompts", "classes"))
    row = names.QUANTITIES[quantity]
    tokens, cells = table_in(result, "tokens"), table_in(result, f"tokens/{quantity}")
    called = _called(summary)
    known = cells["difference"].values[np.isfinite(cells["difference"].values)]
    label = _label(summary)
    title = title_of(summary)
    if known.size and not known.any():
        title = f"No difference in {label} between {called[0]} and {called[1]}"
    alike = tokens["before"].values if summary["before"]["must_be_equal"] else None
    shown = [ShownPrompt(visible(name), visible(of)) for name, of in zip(prompts, classes, strict=True)]
    labels = (f"{label}: {called[0]}", f"{label}: {called[1]}", f"Difference: {called[1]} − {called[0]}")
    return build(
        title,
        _subtitle(result, called),
        [aligned_tokens(tokens, shown, spelling=summary["spelling"], mark_answers=marks_answers([quantity]))],
        sides_and_difference(cells, _described(cells, row, summary), labels, alike=alike),
        look=look,
        selected=_selected(result),
        notes=notes_in(result),
        provenance=provenance_of_result(result),
        page=page,
    )


def title_of(summary: Facts) -> str:
    """What is compared."""
    called = _called(summary)
    doubts = f" ({summary['doubt']})" if summary.get("doubt") else ""
    return f"{capital(_label(summary))}{doubts}: {called[1]} − {called[0]}, token by aligned token"


def _label(summary: Facts) -> str:
    """The quantity in words."""
    quantity = summary["quantity"]
    return _LABELS.get(quantity) or str(summary.get("label") or names.QUANTITIES[quantity].label)


_LABELS = {"imported_norm": "mean imported Activation_Norm"}
_SAID = {"imported_norm": "mean over the rows of each token and layer"}


def _described(cells: xr.Dataset, row: names.Quantity, summary: Facts) -> DrawnQuantity:
    said = _SAID.get(row.name, reduced_in_words(row))
    return replace(described_cells(cells, row, summary["formula"], said), label=_label(summary))


def _called(summary: Facts) -> tuple[str, str]:
    """What A and B are called in a picture."""
    a, b = (isolate(shortened(visible(name), _LONGEST_NAME)) for name in summary["called"])
    return a, b


def _subtitle(result: xr.DataTree, called: tuple[str, str]) -> str:
    """Both prompts, where their names do not say it already, and where the numbers come from."""
    summary, sources = result.attrs["summary"], result.attrs["sources"]
    sides = [
        f"{side}: {visible(name)}" for side, name in zip(called, summary["prompts"], strict=True) if name not in side
    ]
    models = listed(dict.fromkeys(public_name(str(one["model"])) for one in sources if one.get("model")))
    kinds = {one["source"] for one in sources}
    origin = [
        "Simulated data" if names.SIMULATED in kinds else "",
        "imported from CSV" if names.IMPORTED in kinds else "",
    ]
    return " · ".join(isolate(part) for part in (*sides, *origin, models) if part)


def _selected(result: xr.DataTree) -> Selected:
    """What was asked for, and what is left out."""
    summary, parameters = result.attrs["summary"], result.attrs["parameters"]
    rows, spans = summary["rows"], parameters["span"]
    numbers = table_in(result, f"tokens/{summary['quantity']}")[rows["kind"]].values.tolist()
    of = summary["prompts_of_trace"][0]
    whole = summary["columns"]
    tokens = [whole["equal"] + whole["replaced"] + whole[f"only_{side}"] for side in "ab"]
    some = summary["one_trace"] and of > 2
    their = "their " if some else ""
    parts = [
        f"2 of {counted(of, 'prompt')}" if some else "",
        f"{rows['shown']} of {counted(rows['of'], rows['kind'])} ({number_ranges(numbers)})"
        if rows["shown"] < rows["of"]
        else "",
        f"{sum(tokens):,} of {their}{counted(sum(summary['lengths']), 'token')} ({'spans' if spans[1:] else 'span'} "
        f"{listed(spans)})"
        if spans
        else "",
    ]
    prompts = tuple(dict.fromkeys(map(visible, summary["prompts"])))
    return Selected(prompts, (), tuple(numbers), tuple(spans), "; ".join(part for part in parts if part))
