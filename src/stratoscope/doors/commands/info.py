"""The command `info`."""

from __future__ import annotations

import stratoscope
from stratoscope.doors import console, options
from stratoscope.doors.results import tell


def info(trace: options.Inputs, columns: options.CsvColumns = None, as_json: options.Json = False) -> None:
    """Say what is in a trace, in CSV files, or in the folder of a result.

    It also says where the trace came from, and what was proved about it when it was recorded.
    """
    from stratoscope.analysis.results.result import is_result_folder

    if len(trace) == 1 and is_result_folder(trace[0]):
        tell(stratoscope.open_result(trace[0]), trace[0], as_json=as_json)
        return
    facts = stratoscope.info(**options.given(locals(), "as_json"))
    if as_json:
        console.tell_json(facts)
        return
    from stratoscope.trace.info.facts import info_text

    console.tell_text(info_text(facts))
