"""The command `compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import stratoscope
from stratoscope import defaults, names
from stratoscope.doors import console, options, outputs, tables
from stratoscope.doors.progress import progress
from stratoscope.words import number, readable

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.view.charts.profile import Profile

ComparedInputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="INPUT", help="A trace, of which two prompts are compared; two traces; or two CSV or Parquet files."
    ),
]
PromptPair = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt",
        metavar="ID|INDEX",
        help="A prompt, by id or place (0 = first); give it twice, A first. By default the first pair; of two traces "
        "the first prompt that both have.",
    ),
]
ClassPair = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        metavar="NAME",
        help="A class of prompts; give it twice to compare two classes of one trace layer by layer, instead of two "
        "prompts.",
    ),
]
CellTable = Annotated[
    Path | None,
    typer.Option(
        "--table",
        metavar="CSV",
        help="Also write every cell: both values, B − A, and which token is which; of classes every layer.",
    ),
]
PeaksTable = Annotated[
    Path | None,
    typer.Option(
        "--peaks-table",
        metavar="CSV",
        help="Also write every neuron that is among the peaks of one and not of the other, at the same token.",
    ),
]
_NEURONS, _LAYERS = 8, 5  # that are printed


def compare(
    inputs: ComparedInputs,
    out: options.FigureOut = None,
    columns: options.CsvColumns = None,
    quantity: options.QuantityName = None,
    target: options.Target = None,
    prompt: PromptPair = None,
    prompt_class: ClassPair = None,
    layers: options.Layers = None,
    span: options.Span = None,
    scale: options.ColourScale = defaults.SCALE,
    first_token: options.FirstToken = defaults.FIRST_TOKEN,
    theme: options.ColourTheme = defaults.THEME,
    width: options.PageWidth = None,
    font_size: options.FontSize = None,
    title: options.PageTitle = None,
    caption: options.CaptionPlace = defaults.CAPTION,
    table: CellTable = None,
    peaks_table: PeaksTable = None,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Draw what differs between two prompts: A, B and B − A.

    Tokens are aligned on equal runs. It describes and tests nothing: to test classes of prompts use `contrast`, for two
    models over the same prompts `diff`.
    """
    asked = options.given(locals(), "as_json")
    asked["out"] = outputs.picture(out, inputs, "compare", overwrite=overwrite)
    if prompt_class:
        _classes(asked, as_json=as_json)
    else:
        _prompts(asked, as_json=as_json)


_OF_NUMBERS = ("inputs", "columns", "quantity", "target", "prompt", "layers", "span")  # what `comparison` is asked


def _prompts(asked: dict[str, Any], *, as_json: bool) -> None:
    """Draw two prompts, and say what differs."""
    from stratoscope.view.maps.compare import Tables
    from stratoscope.view.matplotlib import save

    inputs, out, table, peaks_table = (asked[name] for name in ("inputs", "out", "table", "peaks_table"))
    save.check(out, overwrite=asked["overwrite"], inputs=inputs, caption=asked["caption"] == "file")
    Tables(table, peaks_table, asked["overwrite"]).check(inputs)
    with progress() as show:
        result = stratoscope.comparison(**{name: asked[name] for name in _OF_NUMBERS}, progress=show)
    stratoscope.compare(result, **{name: value for name, value in asked.items() if name not in _OF_NUMBERS})
    written = [path for path in (out, table, peaks_table) if path is not None]
    if as_json:
        from stratoscope.analysis.compare.tables import neurons_in

        attrs = result.attrs
        about = {"summary": attrs["summary"], "neurons": neurons_in(result, _NEURONS), "notes": attrs["notes"]}
        console.tell_json(about | {"written": [str(path) for path in written]})
        return
    console.remark_of_layer(asked["quantity"])
    _tell(result)
    for path in written:
        console.tell_path(path)


def _classes(asked: dict[str, Any], *, as_json: bool) -> None:
    """Draw two classes layer by layer, and say where they are farthest apart."""
    from stratoscope.trace.prompts import Prompts
    from stratoscope.view.charts.two_classes import TwoClasses, class_rows, refuse_beside_classes
    from stratoscope.view.choose.selection import Selection
    from stratoscope.view.maps.compare import Tables, draw_classes
    from stratoscope.view.spec.drawn_by import drawn_by
    from stratoscope.view.spec.look import Look
    from stratoscope.view.spec.page import page_of

    refuse_beside_classes(prompt=asked["prompt"], peaks_table=asked["peaks_table"])
    selection = Selection(prompt_class=asked["prompt_class"], layers=asked["layers"], span=asked["span"])
    look = Look(asked["scale"], asked["first_token"], asked["theme"])
    classes = TwoClasses(asked["inputs"], asked["columns"], selection, asked["quantity"], look, asked["target"])
    page = page_of(asked["width"], asked["font_size"], asked["title"], asked["caption"])
    tables_asked = Tables(asked["table"], None, asked["overwrite"])
    draw_classes(classes, asked["out"], page, tables_asked, drawn_by("compare", asked))
    found = classes.profile
    written = [path for path in (asked["out"], asked["table"]) if path is not None]
    if as_json:
        columns, rows = class_rows(found)
        layers = [dict(zip(columns, [None if cell != cell else cell for cell in row], strict=True)) for row in rows]
        console.tell_json({"layers": layers, "written": [str(path) for path in written]})
        return
    console.remark_of_layer(asked["quantity"])
    _tell_classes(found, has_classes=not Prompts(classes.dataset).are_single_files)
    for path in written:
        console.tell_path(path)


def _tell_classes(found: Profile, *, has_classes: bool) -> None:
    from stratoscope.view.charts.two_classes import strongest_layers

    a, b, apart = *found.classes, found.difference
    assert apart is not None
    kind = names.QUANTITIES[found.name].row_kind
    how = "log₂ ratio" if found.log else "difference"
    _say(f"{found.name}, {kind} by {kind}: {b.name} − {a.name}, of {a.count} and {b.count} prompts")
    _say(f"\nWhere they are farthest apart ({f'median of {apart.count} pairs' if apart.count else 'of the medians'}):")
    rows = [
        (
            f"{names.ROW_LETTERS[kind]}{found.rows[place]}",
            number(a.middle[place]),
            number(b.middle[place]),
            f"{'+' if apart.middle[place] > 0 else ''}{number(apart.middle[place])}",
            *([f"{number(apart.low[place])} to {number(apart.high[place])}"] if apart.count else []),
        )
        for place in strongest_layers(found, _LAYERS)
    ]
    spread = ["middle half" if apart.count > 3 else "of all"] if apart.count else []
    headings = (kind, f"median {a.name}", f"median {b.name}", how, *spread)
    _tell_table(headings, rows, right=headings[1:])
    can_test = has_classes and min(a.count, b.count) > 1
    test = f": `stratoscope contrast TRACE --a {a.name} --b {b.name}` tests" if can_test else ""
    _say(f"This describes two classes and tests nothing{test}.")


def _tell(result: xr.DataTree) -> None:
    """What differs, in a few lines and two tables."""
    from stratoscope.analysis.compare import cautions
    from stratoscope.analysis.compare.tables import neurons_in
    from stratoscope.trace.targets import has_targets
    from stratoscope.view.maps.compare import title_of

    summary = result.attrs["summary"]
    _say(title_of(summary))
    prompts = [
        f"{one}: {name}" for one, name in zip(summary["called"], summary["prompts"], strict=True) if name not in one
    ]
    if prompts:
        _say("; ".join(prompts))
    for line in (cautions.alignment(summary), cautions.before(summary)):
        _say(line)
    if largest := summary["difference"]["largest"]:
        _say("\nLargest differences, of each token in its strongest layer:")
        _tell_cells(summary, largest)
    for note in result.attrs["notes"]:
        if note["id"] == "L29":  # without it A, B and B − A would not seem to add up
            _say(note["text"])
    _say(cautions.yardstick(summary))
    if summary["lists"] is not None and not has_targets(summary["quantity"]):
        _say(f"\n{cautions.lists(summary)}")
        if neurons := neurons_in(result, _NEURONS):
            _tell_neurons(summary, neurons)
    _say(cautions.no_test(summary, "stratoscope contrast"))


def _say(line: str) -> None:
    """Print a sentence, in the lines of a terminal; a line feed before it stays one."""
    words = line.lstrip("\n")
    if words:
        console.tell_text(line[: -len(words)] + tables.wrapped(console.one_line(words), tables.terminal_width()))


def _tell_cells(summary: dict[str, Any], largest: list[dict[str, Any]]) -> None:
    called, letter = summary["called"], names.ROW_LETTERS[summary["rows"]["kind"]]
    headings = ("token", "position", summary["rows"]["kind"], *called, f"{called[1]} − {called[0]}")
    rows = [
        (
            readable(one["token"], spelling=summary["spelling"]),
            _positions(one),
            f"{letter}{one['layer']}",
            number(one["a"]),
            number(one["b"]),
            f"{'+' if one['difference'] > 0 else ''}{number(one['difference'])}",
        )
        for one in largest
    ]
    _tell_table(headings, rows, right=headings[2:])


def _tell_neurons(summary: dict[str, Any], neurons: list[dict[str, Any]]) -> None:
    has_writes = any(one["write"] is not None for one in neurons)
    headings = ["only in", "token", "position", "layer", "neuron", "value"]
    headings += ["writes", "more by at least"] if has_writes else []
    rows = []
    for one in neurons:
        expert = "" if one["expert"] is None or one["expert"] < 0 else f"expert {one['expert']}, "
        cells = [
            one["listed_by"],
            readable(one["token"], spelling=summary["spelling"]),
            _positions(one),
            f"L{one['layer']}",
            f"{expert}{one['neuron']}",
            number(one["value"]),
        ]
        sizes = (one["write"], one["at_least"]) if has_writes else ()
        rows.append([*cells, *("" if size is None else number(size) for size in sizes)])
    _tell_table(headings, rows, right=headings[3:])


def _tell_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str]) -> None:
    console.tell_text(f"{tables.table(headings, rows, right=right, width=tables.terminal_width())}\n")


def _positions(one: dict[str, Any]) -> str:
    """Where a token stands in either prompt."""
    a, b = one["position_a"], one["position_b"]
    return str(a) if a == b else f"{a} | {b}"
