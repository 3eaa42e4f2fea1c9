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
_LONG_SECONDS = 30.0  # of a stage, after which it is said how long it will still take


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
        rich_progress.TimeRemainingColumn(),
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
    began, at_first = started, 0  # the stage, and what of it was done then

    def show(stage: str, done: int, total: int | None) -> None:
        nonlocal last_stage, last_time, began, at_first
        now = time.monotonic()
        if stage != last_stage:
            began, at_first = now, done
        due = stage != last_stage or now - last_time >= _LINE_SECONDS or done == total
        if due and now - started >= _QUIET_SECONDS:
            last_stage, last_time = stage, now
            left = _left(now - began, done - at_first, (total or 0) - done)
            tell(f"{stage} {done}/{total}{left}" if total else stage, err=True)

    return show


def _left(seconds: float, done: int, more: int) -> str:
    """How long a stage will still take, as long as it goes on as it did; "" of a short one."""
    if seconds < _LONG_SECONDS or done < 1 or more < 1:
        return ""
    from stratoscope.doors.estimate import duration_text

    return f", about {duration_text(seconds / done * more)} left"
