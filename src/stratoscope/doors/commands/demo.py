"""The command `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stratoscope.doors import console, options
from stratoscope.doors.progress import progress

Simulated = Annotated[bool, typer.Option("--simulated", help="Simulate the trace, in seconds, without torch.")]
DemoOut = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="DIR", help="The folder to write into; by default demo or demo-simulated."),
]


def demo(simulated: Simulated = False, out: DemoOut = None, overwrite: options.Overwrite = False) -> None:
    """Record a small real model and draw it.

    A second run keeps the trace and draws the pictures again.
    """
    from stratoscope.doors import demo as module

    folder = out or Path("demo-simulated" if simulated else "demo")
    with progress() as show:
        made = module.demo(folder, simulated=simulated, overwrite=overwrite, progress=show)
    width = max(len(str(one.path)) for one in made)
    for one in made:
        console.tell(f"{one.path!s:<{width}}  {one.what}")
    if receipt := module.receipt(made):
        console.tell_text(f"\n{receipt}")
    console.tell_text("\nTry next:")
    for command in module.next_steps(made, folder):
        console.tell_text(f"  {command}")
