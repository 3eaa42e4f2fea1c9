"""The command `merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import stratoscope
from stratoscope.doors import console, options
from stratoscope.doors.progress import progress

PartTraces = Annotated[
    list[Path], typer.Argument(metavar="PART", help="Every part that `capture --part` made of one recording.")
]


def merge(parts: PartTraces, out: options.TraceOut, overwrite: options.Overwrite = False) -> None:
    """Join the parts of a recording.

    They were made by `capture --part` and may be given in any order; the trace is what one recording would have given.
    """
    asked = options.given(locals())
    with progress() as show:
        stratoscope.merge(**asked, progress=show)
    console.tell_path(out)
