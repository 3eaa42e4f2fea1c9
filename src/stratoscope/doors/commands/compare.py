"""The command `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import stratoscope
from stratoscope import defaults
from stratoscope.doors import console, options, outputs

if TYPE_CHECKING:
    import xarray as xr

Two = Annotated[
    list[Path],
    typer.Argument(
        metavar="INPUT", help="A trace, of which two prompts are compared; two traces; or two CSV or Parquet files."
    ),
]
TwoPrompts = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt",
        metavar="ID|INDEX",
        help="A prompt, by id or place (0 = first); give it twice, A first. By default the first pair; of two traces "
        "the first prompt that both have.",
    ),
]
CellTable = Annotated[
    Path | None,
    typer.Option("--table", metavar="CSV", help="Also write every cell: both values, B − A, and which token is which."),
]
PeaksTable = Annotated[
    Path | None,
    typer.Option(
        "--peaks-table",
        metavar="CSV",
        help="Also write every neuron that is among the peaks of one and not of the other, at the same token.",
    ),
]
_NEURONS = 8  # that are printed


def compare(
    inputs: Two,
    out: options.FigureOut = None,
    columns: options.CsvColumns = None,
    quantity: options.QuantityName = None,
    prompt: TwoPrompts = None,
    layers: options.Layers = None,
    span: options.Span = None,
    scale: options.ColourScale = defaults.SCALE,
    first_token: options.FirstToken = defaults.FIRST_TOKEN,
    theme: options.ColourTheme = defaults.THEME,
    table: CellTable = None,
    peaks_table: PeaksTable = None,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Draw what differs between two prompts: A, B and B − A.

    Tokens are aligned on equal runs. It describes two prompts and tests nothing: for classes of prompts use `contrast`,
    for two models over the same prompts `diff`.
    """
    from stratoscope.view.maps.compare import Tables
    from stratoscope.view.matplotlib import save

    out = outputs.picture(out, inputs, "compare", overwrite=overwrite)
    asked = {"columns": columns, "quantity": quantity, "prompt": prompt, "layers": layers, "span": span}
    save.check(out, overwrite=overwrite, inputs=inputs)
    Tables(table, peaks_table, overwrite).check(inputs)
    result = stratoscope.comparison(inputs, **options.given(asked))
    stratoscope.compare(
        result,
        out,
        scale=scale,
        first_token=first_token,
        theme=theme,
        table=table,
        peaks_table=peaks_table,
        overwrite=overwrite,
    )
    written = [path for path in (out, table, peaks_table) if path is not None]
    if as_json:
        from stratoscope.analysis.compare.tables import neurons_in

        attrs = result.attrs
        about = {"summary": attrs["summary"], "neurons": neurons_in(result, _NEURONS), "notes": attrs["notes"]}
        console.tell_json(about | {"written": [str(path) for path in written]})
        return
    console.remark_of_layer(quantity)
    _tell(result)
    for path in written:
        console.tell_path(path)


def _tell(result: xr.DataTree) -> None:
    """What differs, in a few lines and two tables."""
    from stratoscope.analysis.compare import cautions
    from stratoscope.analysis.compare.tables import neurons_in
    from stratoscope.view.maps.compare import title_of

    summary = result.attrs["summary"]
    console.tell(title_of(summary))
    names = [
        f"{one}: {name}" for one, name in zip(summary["called"], summary["prompts"], strict=True) if name not in one
    ]
    if names:
        console.tell("; ".join(names))
    for line in (cautions.alignment(summary), cautions.before(summary)):
        if line:
            console.tell(line)
    if largest := summary["difference"]["largest"]:
        console.tell("\nLargest differences, of each token in its strongest layer:")
        _tell_cells(summary, largest)
    console.tell(cautions.yardstick(summary))
    if summary["lists"] is not None:
        console.tell("")
        console.tell(cautions.lists(summary))
        if neurons := neurons_in(result, _NEURONS):
            _tell_neurons(summary, neurons)
    console.tell(f"{cautions.NO_TEST}: `stratoscope contrast` tests classes.")


def _tell_cells(summary: dict[str, Any], largest: list[dict[str, Any]]) -> None:
    from stratoscope.words import number, readable

    called, letter = summary["called"], summary["rows"]["kind"][0].upper()
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
    console.tell_table(headings, rows, right=range(2, len(headings)))


def _tell_neurons(summary: dict[str, Any], neurons: list[dict[str, Any]]) -> None:
    from stratoscope.words import number, readable

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
    console.tell_table(headings, rows, right=range(3, len(headings)))


def _positions(one: dict[str, Any]) -> str:
    """Where a token stands in either prompt."""
    a, b = one["position_a"], one["position_b"]
    return str(a) if a == b else f"{a} | {b}"
