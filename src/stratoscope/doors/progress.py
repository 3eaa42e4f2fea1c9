"""How far a command has come, on stderr: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from stratoscope.doors.console import one_line, tell
from stratoscope.progress import Progress

_QUIET_SECONDS = 1.0  # a command that is done by then prints nothing but its result
_LINE_SECONDS = 5.0  # between two lines of progress where stderr is not a terminal


@contextmanager
def progress() -> Iterator[Progress]:
    """A function that shows how far a verb has come: a bar on a terminal, now and then a line elsewhere."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.SpinnerColumn(),
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, rich_progress.TaskID] = {}

        def show(stage: str, done: int, total: int | None) -> None:
            stage = one_line(stage)
            if stage not in tasks:
                for task in tasks.values():
                    bars.stop_task(task)
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield show


def _lines() -> Progress:
    started = time.monotonic()
    last_stage, last_time = "", started - _LINE_SECONDS

    def show(stage: str, done: int, total: int | None) -> None:
        nonlocal last_stage, last_time
        now = time.monotonic()
        due = stage != last_stage or now - last_time >= _LINE_SECONDS or done == total
        if due and now - started >= _QUIET_SECONDS:
            last_stage, last_time = stage, now
            tell(f"{stage} {done}/{total}" if total else stage, err=True)

    return show
