"""The command `lint`."""

from __future__ import annotations

from typing import Annotated

import typer

import stratoscope
from stratoscope.doors import console, options
from stratoscope.words import noted

FOUND = 3  # exit status where something was found

Strict = Annotated[
    bool, typer.Option("--strict", help="End with status 3 for every finding, not only for those that mislead.")
]


def lint(
    trace: options.Inputs, columns: options.CsvColumns = None, strict: Strict = False, as_json: options.Json = False
) -> None:
    """Say in which known ways a trace can mislead.

    It ends with status 3 where a reader would conclude something false; docs/pitfalls.md explains every line.
    """
    result = stratoscope.lint(**options.given(locals(), "strict", "as_json"))
    from stratoscope.analysis.results.result import rows_in

    findings = rows_in(result, "findings")
    if as_json:
        console.tell_json({**result.attrs["summary"], "found": findings})
    else:
        for one in findings:
            console.tell(noted(one["id"], f"{one['severity']}: {one['text']}"))
            console.tell_text(f"     {one['why']} ({one['page']})")
        console.tell(f"{len(findings)} of {result.attrs['summary']['checks']} checks found something.")
    if result.attrs["summary"]["findings" if strict else "warnings"]:
        raise typer.Exit(FOUND)
