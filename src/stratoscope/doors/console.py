"""What a command prints: results on stdout, remarks on stderr, since any word may come from a file or a model."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import typer

from stratoscope.errors import ascii_json, printable, printable_line
from stratoscope.words import noted


def tell(line: str, *, err: bool = False) -> None:
    """Print a line whose words may come from a file or a model."""
    typer.echo(one_line(line), err=err)


def tell_text(text: str) -> None:
    """Print lines that are laid out already."""
    typer.echo(printable(text))


def tell_path(path: Path) -> None:
    """Print where something was written."""
    typer.echo(printable_line(str(path)))


def tell_json(value: Any) -> None:
    """Print JSON, in ASCII, so that no character of a text reaches a terminal; infinite is null."""
    typer.echo(ascii_json(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    """The same with None for numbers that JSON does not have: infinite ones and NaN."""
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def remark(message: str) -> None:
    """Print one line on stderr and go on."""
    tell(f"note: {message}", err=True)


def remark_of_layer(quantity: str | None) -> None:
    """Say that the number in another tool's name chooses no layer."""
    from stratoscope.trace.quantity_names import layer_in

    if number := layer_in(quantity or ""):
        remark(f"the {number} in {quantity} chooses no layer; --layers {number} does.")


def remark_of_prompts(shown: int, there: int, done: str, does: str) -> None:
    """Say that there are more prompts than were chosen for a user who named none: "prompts drawn", "draws"."""
    if shown < there:
        remark(f"{shown} of {there:,} {done}: --all or --prompt ID {does} others.")


def warn_of(notes: Iterable[Mapping[str, Any]]) -> None:
    """The warnings among the notes of a new trace, on stderr."""
    for note in notes:
        if note["severity"] == "warning":
            tell(noted(note["id"], note["text"]), err=True)


def one_line(message: str) -> str:
    """Control characters from files and paths are made visible."""
    return printable(re.sub(r"\s*\n\s*", " ", message.strip()).replace("\t", " "))


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
