"""The command `diff`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import stratoscope
from stratoscope.doors import options, results
from stratoscope.errors import UsageError
from stratoscope.progress import Progress

TraceA = Annotated[
    Path, typer.Argument(metavar="TRACE_A", help="A trace or a CSV file: the base model, or from before a patch.")
]
TraceB = Annotated[
    Path, typer.Argument(metavar="TRACE_B", help="The other one, of the same prompts; differences are B − A.")
]
Kept = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt",
        metavar="ID|INDEX",
        help="Keep and draw this prompt token by token, by its id or its place in A; repeatable.",
    ),
]
Quantities = Annotated[
    list[str] | None,
    typer.Option(
        "--quantity", metavar="NAME", help="Compare only this quantity; the first one given is drawn; repeatable."
    ),
]
Claims = Annotated[
    Path | None,
    typer.Option("--claims", metavar="FILE", help="What a patch claims: a CSV of Layer,Neuron_ID,Old_Norm,New_Norm."),
]
OfModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="The model of TRACE_A, to compare the change with random patches of the claimed size, in memory only.",
    ),
]


def diff(
    trace_a: TraceA,
    trace_b: TraceB,
    out: options.ResultOut = None,
    columns: options.CsvColumns = None,
    prompt: Kept = None,
    quantity: Quantities = None,
    layers: options.Layers = None,
    claims: Claims = None,
    model: OfModel = None,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Say what differs between two traces, and whether it is noise.

    Both are of the same prompts: base and tuned, before and after a patch, one dtype and another. Prompts are aligned
    on equal tokens. It says first what is exactly equal, then what is proved to have changed; noise is what `capture
    --floor` measured. Writes a folder with a report, figures, a table and all numbers. For two prompts use `compare`.
    """
    asked = options.given(locals(), "trace_a", "trace_b", "out", "columns", "model", "as_json", "overwrite")
    if model is not None and claims is None:
        raise UsageError("it makes random patches of the size that --claims says", where="--model", fix="Give both.")
    from stratoscope.trace.opened import opened_each
    from stratoscope.view.report import default_folder

    folder = out or default_folder(trace_a, "diff", trace_b.name.removesuffix(".trace"))
    before, after = opened_each([trace_a, trace_b], columns)

    def compare(show: Progress) -> Any:
        null = None
        if model is not None and claims is not None:
            null = stratoscope.patch_null(model, before, claims, progress=show)
        return stratoscope.diff(before, after, **asked, null=null, progress=show)

    results.tell(results.saved(compare, folder, overwrite=overwrite), folder, as_json=as_json)
