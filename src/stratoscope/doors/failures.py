"""Whatever goes wrong is one line: what, where, and what to do next; status 2 for a mistake in usage, else 1."""

from __future__ import annotations

import errno
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

from stratoscope.disk import is_full
from stratoscope.doors.console import tell
from stratoscope.errors import StratoscopeError, UsageError, choices, is_out_of_memory, nearest

DEBUG = "STRATOSCOPE_DEBUG"
INTERRUPTED = 130

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


@contextmanager
def told(running: Callable[[], Any]) -> Iterator[None]:
    """Everything that fails in here is told in one line, and the command that is running ends."""
    try:
        yield
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        interrupted(" before it was done")
    except Exception as error:
        if os.environ.get(DEBUG) and not isinstance(error, typer.TyperException):
            raise
        ours = described(error, running())
        fail(str(ours), code=ours.status)


def fail(message: str, *, code: int = 1) -> NoReturn:
    """Print one line on stderr and leave."""
    tell(f"error: {message}", err=True)
    raise typer.Exit(code)


def interrupted(how: str) -> NoReturn:
    """Leave after Ctrl-C; what was still being written in the background is given up without a word."""
    import logging
    import warnings

    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # "Task was destroyed but it is pending!"
    warnings.simplefilter("ignore", RuntimeWarning)  # "coroutine was never awaited"
    fail(f"interrupted{how}", code=INTERRUPTED)


def described(error: Exception, command: Any) -> StratoscopeError:
    """What went wrong, where, and what to do next, in the words of the command line."""
    if isinstance(error, typer.TyperException):
        return _usage(error, command)
    if isinstance(error, StratoscopeError):
        options = {str(one.name): _name(one) for one in command.params if one.param_type_name == "option"}
        several = error.where.split(", ")
        where = ", ".join(options[one] for one in several) if set(several) <= set(options) else error.where
        kind = UsageError if error.status == UsageError.status else StratoscopeError
        return kind(error.what, where=where, fix=error.fix)
    if isinstance(error, ModuleNotFoundError) and error.name in _EXTRA:
        fix = f"Install it: `pip install 'stratoscope[{_EXTRA[error.name]}]'`."
        return StratoscopeError(f"{error.name} is not installed", fix=fix)
    if is_out_of_memory(error):
        return StratoscopeError("out of memory", fix="Take fewer prompts or layers, or a smaller --batch-size.")
    if isinstance(error, OSError) and error.strerror:
        full = "Free some disk space, or write somewhere else with -o."
        fix = full if is_full(error) else _FIX.get(error.errno or 0, "")
        return StratoscopeError(error.strerror, where=str(error.filename or ""), fix=fix)
    fix = f"This is a fault in stratoscope; {DEBUG}=1 shows where."
    return StratoscopeError(f"{type(error).__name__}: {error}", fix=fix)


def _like(option: str, known: Sequence[str]) -> str:
    """The nearest option: dashes, which all have, are no likeness."""
    near = nearest(option.lstrip("-"), [flag.lstrip("-") for flag in known if flag.startswith("--")])
    return f"Did you mean --{near[0]}? " if near else ""


def _usage(error: typer.TyperException, command: Any) -> UsageError:
    """A mistake in what was typed, which typer has found."""
    path = " ".join(dict.fromkeys(["stratoscope", command.name or "stratoscope"]))
    see = f"See `{path} --help`."
    option, param = getattr(error, "option_name", ""), getattr(error, "param", None)
    if hasattr(error, "possibilities"):
        known = [flag for one in command.params for flag in (*one.opts, *one.secondary_opts) if flag.startswith("-")]
        return UsageError(f"no option called {option!r}", where=path, fix=f"{_like(option, known)}{see}")
    if option:
        return UsageError("takes no value" if "not take" in error.message else "needs a value", where=option, fix=see)
    if param is not None and hasattr(error, "param_type"):
        return UsageError("must be given", where=_name(param), fix=see)
    if param is not None:
        what, fix = _wrong_value(param, error)
        return UsageError(what, where=_name(param), fix=fix or see)
    more = re.search(r"extra argument\S* \((.*)\)", error.message, re.DOTALL)
    return UsageError(f"nothing is done with {more[1]!r}" if more else error.message.rstrip("."), where=path, fix=see)


def _name(param: Any) -> str:
    """An option or argument as the help calls it."""
    return str(max(param.opts, key=len) if param.param_type_name == "option" else param.metavar)


def _wrong_value(param: Any, error: typer.TyperException) -> tuple[str, str]:
    """What is wrong with the value of an option, and what to do; as pydantic, by which typer checks it, has found."""
    found: dict[str, Any] = getattr(error.__cause__, "errors", lambda: [{}])()[0]
    kind, given, bounds = found.get("type", ""), found.get("input"), found.get("ctx", {})
    if known := param.type_descriptor.choices:
        return f"no choice called {given!r}", choices(given, known)
    if kind.startswith("int"):
        return f"{given!r} is not a whole number", "Give a number such as 10."
    if kind.startswith("float"):
        return f"{given!r} is not a number", "Give a number such as 0.5."
    if kind == "greater_than_equal":
        return f"{given} is too small", f"Give {bounds['ge']} or more."
    if kind == "less_than_equal":
        return f"{given} is too large", f"Give {bounds['le']} or less."
    return error.message.rstrip("."), ""


@contextmanager
def resumable(kept: Callable[[], str]) -> Iterator[None]:
    """Tell how to go on after Ctrl-C, where `kept` says what of the work is kept; "" = nothing is."""
    try:
        yield
    except KeyboardInterrupt:
        words = kept()
        if not words:
            raise
        again = [argument for argument in sys.argv[1:] if argument not in ("--overwrite", "--resume")]
        command = shlex.join(["stratoscope", *again, "--resume"])
        interrupted(f"; {words}. Resume with: {command}")
