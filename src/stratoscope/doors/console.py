"""What a person sees of a command: progress on stderr, and a failure as one line with the next step.

Whatever a command prints goes through here, since any word may come from a file or a model.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from stratoscope.disk import is_full
from stratoscope.errors import StratoscopeError, ascii_json, is_out_of_memory, printable, printable_line
from stratoscope.progress import Progress
from stratoscope.words import noted

DEBUG = "STRATOSCOPE_DEBUG"
INTERRUPTED = 130
_QUIET_SECONDS = 1.0  # a command that is done by then prints nothing but its result
_LINE_SECONDS = 5.0  # between two lines of progress where stderr is not a terminal

_EXTRA = {
    **dict.fromkeys(("torch", "transformers", "safetensors", "gguf", "accelerate"), "capture"),
    "pyarrow": "parquet",
}
_FIX = {
    errno.EACCES: "Choose a place that you may read and write.",
    errno.EPERM: "Choose a place that you may read and write.",
    errno.EROFS: "Choose a place that you may write to.",
    errno.ENOENT: "Check the spelling.",
    errno.ENOTDIR: "Check the path: a part of it is a file, not a folder.",
    errno.EISDIR: "Name a file, not a folder.",
    errno.ENAMETOOLONG: "Give a shorter name.",
}


class Commands(TyperGroup):
    """The commands, and the boundary at which every failure becomes one line."""

    def make_context(self, *given: Any, **more: Any) -> Any:
        """Read the words before the command."""
        try:
            return super().make_context(*given, **more)
        except typer.TyperException as error:
            raise _printable_usage(error) from None

    def invoke(self, ctx: Any) -> Any:
        """Run a command; usage errors pass, everything else that fails is told in one line."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except typer.TyperException as error:
            raise _printable_usage(error) from None
        except KeyboardInterrupt:
            interrupted(" before it was done")
        except Exception as error:
            if os.environ.get(DEBUG):
                raise
            fail(describe(error))


def _printable_usage(error: typer.TyperException) -> typer.TyperException:
    """A usage error that repeats an argument, which may be the name of a stranger's file."""
    error.message = _one_line(error.message)
    return error


def fail(message: str, *, code: int = 1) -> NoReturn:
    """Print one line on stderr and leave."""
    tell(f"error: {message}", err=True)
    raise typer.Exit(code)


def remark(message: str) -> None:
    """Print one line on stderr and go on."""
    tell(f"note: {message}", err=True)


def remark_of_layer(quantity: str | None) -> None:
    """Say that the number in another tool's name chooses no layer."""
    from stratoscope.trace.quantity_names import layer_in

    if number := layer_in(quantity or ""):
        remark(f"the {number} in {quantity} chooses no layer; --layers {number} does.")


def tell(line: str, *, err: bool = False) -> None:
    """Print a line whose words may come from a file or a model."""
    typer.echo(_one_line(line), err=err)


def tell_text(text: str) -> None:
    """Print lines that are laid out already."""
    typer.echo(printable(text))


def tell_path(path: Path) -> None:
    """Print where something was written."""
    typer.echo(printable_line(str(path)))


def tell_json(value: Any) -> None:
    """Print JSON, in ASCII, so that no character of a text reaches a terminal."""
    typer.echo(ascii_json(value, indent=2))


def _one_line(message: str) -> str:
    """Control characters from files and paths are made visible."""
    return printable(re.sub(r"\s*\n\s*", " ", message.strip()).replace("\t", " "))


def interrupted(how: str) -> NoReturn:
    """Leave after Ctrl-C; what was still being written in the background is given up without a word."""
    import logging
    import warnings

    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # "Task was destroyed but it is pending!"
    warnings.simplefilter("ignore", RuntimeWarning)  # "coroutine was never awaited"
    fail(f"interrupted{how}", code=INTERRUPTED)


def describe(error: Exception) -> str:
    """What went wrong, where, and what to do next."""
    if isinstance(error, StratoscopeError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name in _EXTRA:
        return f"{error.name} is not installed. Install it: `pip install 'stratoscope[{_EXTRA[error.name]}]'`."
    if is_out_of_memory(error):
        return "out of memory. Take fewer prompts or layers, or a smaller --batch-size."
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        full = "Free some disk space, or write somewhere else with -o."
        return f"{where}{error.strerror}. {full if is_full(error) else _FIX.get(error.errno or 0, '')}"
    return f"{type(error).__name__}: {error}. This is a fault in stratoscope; {DEBUG}=1 shows where."


def tell_result(result: Any, folder: Path, *, as_json: bool) -> None:
    """What was found, in a few lines or as JSON, and where the rest of it is."""
    from stratoscope.view.report import PAGE, contents_of

    if as_json:
        tell_json({**result.attrs, "folder": str(folder)})
        return
    contents = contents_of(result)
    for line in (contents.title, *contents.lead):
        tell(line)
    for note in result.attrs["notes"]:
        if note["severity"] == "warning":
            tell(noted(note["id"], note["text"]))
    tell_path(folder / PAGE)


def warn_of(notes: Iterable[Mapping[str, Any]]) -> None:
    """The warnings among the notes of a new trace, on stderr."""
    for note in notes:
        if note["severity"] == "warning":
            tell(noted(note["id"], note["text"]), err=True)


@contextmanager
def resumable(out: Path) -> Iterator[None]:
    """Tell how to go on after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        from stratoscope.trace.format.place import is_begun, recorded_at

        begun = recorded_at(out.absolute())
        if not is_begun(begun):
            raise
        kept = f"{out} keeps the prompts recorded so far"
        if begun != out.absolute():
            kept = f"{out} is as it was, and the prompts recorded so far are kept beside it"
        again = [argument for argument in sys.argv[1:] if argument not in ("--overwrite", "--resume")]
        command = shlex.join(["stratoscope", *again, "--resume"])
        interrupted(f"; {kept}. Resume with: {command}")


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
            stage = _one_line(stage)
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


def keep_printable() -> None:
    """Make the warnings and log lines of libraries printable: they repeat names that stand in the files of a model."""
    import logging
    import warnings

    plain = warnings.formatwarning

    def formatted(*given: Any, **more: Any) -> str:
        return printable(plain(*given, **more))

    class Printable(logging.LogRecord):
        def getMessage(self) -> str:
            return printable(super().getMessage())

    warnings.formatwarning = formatted
    logging.setLogRecordFactory(Printable)
