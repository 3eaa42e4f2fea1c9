"""The command `anomalies`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stratoscope import defaults
from stratoscope.doors import console, options

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
    from stratoscope.analysis.anomalies.anomalies import anomalies, findings_in
    from stratoscope.analysis.results.result import rows_in
    from stratoscope.view.report import check_folder, default_folder, save_result

    folder = out or default_folder(trace[0], "anomalies", reference.name if reference else "")
    check_folder(folder, overwrite=overwrite)
    with console.progress() as show:
        result = anomalies(trace, columns=columns, reference=reference, false_findings=false_findings, progress=show)
        save_result(result, folder, overwrite=overwrite, progress=show)
    if as_json:
        result.attrs["summary"] |= {"found": findings_in(result), "usual": rows_in(result, "usual")}
    console.tell_result(result, folder, as_json=as_json)
