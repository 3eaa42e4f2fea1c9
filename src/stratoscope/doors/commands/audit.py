"""The command `audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import stratoscope
from stratoscope.doors import console, options
from stratoscope.doors.progress import progress
from stratoscope.names import Level
from stratoscope.words import size_text

if TYPE_CHECKING:
    from stratoscope.publish.audit.outcome import Audit

FOUND = 3  # exit status where something was found

Files = Annotated[list[Path], typer.Argument(metavar="FILE", help="What was published: files, or folders.")]
Original = Annotated[
    Path | None,
    typer.Option(
        "--original",
        metavar="TRACE",
        help="The trace or CSV file that it was made of: its texts, ids and numbers are searched for.",
    ),
]
HeldAgainst = Annotated[
    Level | None,
    typer.Option("--level", help="Hold the files against this level; by default against what each says of itself."),
]


def audit(files: Files, original: Original = None, level: HeldAgainst = None, as_json: options.Json = False) -> None:
    """Look for what published files still tell.

    It opens them as a stranger would and searches every byte, also of what is packed in a file, for what their level
    does not allow. It ends with status 3 where something is found.
    """
    asked = options.given(locals(), "as_json")
    with progress() as show:
        done = stratoscope.audit(**asked, progress=show)
    if as_json:
        console.tell_json(done.to_json())
    else:
        _tell(done)
    if done.found:
        raise typer.Exit(FOUND)


def _tell(done: Audit) -> None:
    """Print what was opened and looked for, what was found, and what it comes to."""
    from stratoscope.doors.tables import table, terminal_width

    width = terminal_width()
    opened = [
        (one.path, one.kind or "not known", f"{one.level}{'' if one.claims else ' (not said)'}", f"{one.files:,}",
         size_text(one.stored), size_text(one.unpacked))
        for one in done.audited
    ]  # fmt: skip
    numbers = ("files", "bytes", "unpacked")
    console.tell_text(table(("opened", "is", "level", *numbers), opened, right=numbers, width=width))
    looked = [
        (one.kind, "any" if one.sought is None else f"{one.sought:,}", f"{one.too_short:,}", f"{one.allowed:,}",
         f"{one.found:,}")
        for one in done.looked
    ]  # fmt: skip
    counts = ("different", "not telling", "allowed", "found")
    console.tell_text("\n" + table(("looked for", *counts), looked, right=counts, width=width))
    if done.canaries:
        tried = [
            (one.kind, f"{one.planted}", f"{one.found}", f"{one.kept}", f"{len(one.left)}", one.refused or "published")
            for one in done.canaries
        ]
        counts = ("markers", "found left in", "kept by the level", "came through")
        console.tell_text("\n" + table(("canaries", *counts, "what publish said"), tried, right=counts, width=width))
    if done.findings:
        rows = [(one.kind, one.what, one.where, one.fix) for one in done.findings]
        console.tell_text("\n" + table(("found", "what", "where", "what to do"), rows, right=(), width=width))
    console.tell_text("")
    console.tell(done.last_line)
