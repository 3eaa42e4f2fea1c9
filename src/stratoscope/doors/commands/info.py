"""The command `info`."""

from __future__ import annotations

from pathlib import Path

import stratoscope
from stratoscope.doors import console, options
from stratoscope.doors.results import tell


def info(trace: options.Inputs, columns: options.CsvColumns = None, as_json: options.Json = False) -> None:
    """Say what is in a trace, in CSV files or in a result.

    It also says where the trace came from, and what was proved about it when it was recorded.
    """
    if _is_result(trace):
        tell(stratoscope.open_result(trace[0]), trace[0], as_json=as_json)
        return
    facts = stratoscope.info(**options.given(locals(), "as_json"))
    if as_json:
        console.tell_json(facts)
        return
    from stratoscope.trace.info.facts import info_text

    console.tell_text(info_text(facts))


def _is_result(inputs: list[Path]) -> bool:
    from stratoscope.analysis.results.result import is_result_folder

    return len(inputs) == 1 and is_result_folder(inputs[0])
