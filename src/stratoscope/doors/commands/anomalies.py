"""The command `anomalies`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import stratoscope
from stratoscope import defaults
from stratoscope.doors import options, results

Reference = Annotated[
    Path | None,
    typer.Option("--reference", metavar="TRACE", help="Take what is usual from this trace, not from the input itself."),
]
FalseFindings = Annotated[
    float, typer.Option("--false-findings", metavar="NUMBER", help="How many false findings to expect in a trace.")
]


def anomalies(
    trace: options.Inputs,
    out: options.ResultOut = None,
    columns: options.CsvColumns = None,
    reference: Reference = None,
    false_findings: FalseFindings = defaults.FALSE_FINDINGS,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Find what is far outside its own distribution.

    It ranks tokens, heads, neurons, layers and experts, and says how many false findings to expect.
    """
    asked = options.given(locals(), "out", "as_json", "overwrite")
    from stratoscope.view.report import default_folder

    folder = out or default_folder(trace[0], "anomalies", reference.name if reference else "")
    found = results.saved(lambda show: stratoscope.anomalies(**asked, progress=show), folder, overwrite=overwrite)
    if as_json:
        from stratoscope.analysis.anomalies.anomalies import findings_in
        from stratoscope.analysis.results.result import rows_in

        found.attrs["summary"] |= {"found": findings_in(found), "usual": rows_in(found, "usual")}
    results.tell(found, folder, as_json=as_json)
