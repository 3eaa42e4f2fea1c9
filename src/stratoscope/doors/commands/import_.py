"""The command `import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import stratoscope
from stratoscope import defaults, names
from stratoscope.doors import console, options

CsvFiles = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE", help="CSV files (also .gz, .bz2, .xz, .zip) or Parquet files; one file = one prompt."
    ),
]
PromptClass = Annotated[
    list[str] | None,
    typer.Option(
        "--class", metavar="NAME", help="Class of each file, in order, given once for each; by default the file's stem."
    ),
]
NeuronAxis = Annotated[names.Axis, typer.Option("--axis", help="What Neuron_ID is an index of.")]


def import_(
    files: CsvFiles,
    out: options.TraceOut,
    columns: options.CsvColumns = None,
    prompt_class: PromptClass = None,
    axis: NeuronAxis = defaults.AXIS,
    overwrite: options.Overwrite = False,
) -> None:
    """Make a trace from CSV files.

    Their columns are Token_Pos,Token,Layer,Neuron_ID,Activation_Norm in any order; further columns are kept. With
    --columns they may have other names.
    """
    trace = stratoscope.import_csv(**options.given(locals()))
    console.warn_of(trace.attrs["notes"])
    console.tell_path(out)
