"""The command `info`."""

from __future__ import annotations

import stratoscope
from stratoscope.doors import console, options


def info(trace: options.Inputs, columns: options.CsvColumns = None, as_json: options.Json = False) -> None:
    """Say what is in a trace, or in CSV files.

    It also says where the trace came from, and what was proved about it when it was recorded.
    """
    facts = stratoscope.info(**options.given(locals(), "as_json"))
    if as_json:
        console.tell_json(facts)
        return
    from stratoscope.trace.info.facts import info_text

    console.tell_text(info_text(facts))
