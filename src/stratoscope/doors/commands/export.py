"""The command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import stratoscope
from stratoscope.doors import console, options
from stratoscope.errors import UsageError

CsvOut = Annotated[
    Path | None,
    typer.Option(
        "--csv", metavar="FILE", help="The CSV file to write; for several prompts, one <stem>-<prompt id>.csv each."
    ),
]
ParquetOut = Annotated[
    Path | None, typer.Option("--parquet", metavar="FILE", help="The Parquet file to write (needs the parquet extra).")
]
OneFile = Annotated[
    bool,
    typer.Option("--one-file", help="Write all prompts to one file, with the id of each in a last column, Prompt."),
]


def export(
    trace: options.Inputs,
    csv: CsvOut = None,
    parquet: ParquetOut = None,
    columns: options.CsvColumns = None,
    prompt: options.PromptChoice = None,
    one_file: OneFile = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Write a trace as CSV or Parquet.

    A captured or simulated trace gives one row for each of its peaks; an imported one gives back its rows.
    """
    asked = options.given(locals(), "csv", "parquet")
    out = csv or parquet
    if out is None or (csv and parquet):
        raise UsageError("give one of both", where="--csv, --parquet", fix="Write --csv FILE or --parquet FILE.")
    for written in stratoscope.export_csv(**asked, out=out, parquet=parquet is not None):
        console.tell_path(written)
