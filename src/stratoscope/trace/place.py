"""Where a trace is made and how it takes its place: beside the target first, then by renaming whole folders.

`.<name>.new` holds a trace before its first commit, `.<name>.old` the one that is being replaced.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from stratoscope.errors import TraceError
from stratoscope.trace.schema import FORMAT
from stratoscope.trace.store import PARTIAL, ROOT_DOCUMENT, replace_path, sync_file


def making(target: Path) -> Path:
    """Folder where a new trace is made."""
    return target.with_name(f".{target.name}.new")


def replaced(target: Path) -> Path:
    """Folder where the former trace waits while the new one takes its place."""
    return target.with_name(f".{target.name}.old")


def is_trace(folder: Path) -> bool:
    """Whether a folder is a trace by its own root document, so that nothing else is ever removed."""
    try:
        document = json.loads((folder / ROOT_DOCUMENT).read_bytes())
        return bool(document["attributes"]["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _is_unborn(folder: Path) -> bool:
    """Whether a folder was left by a writer that stopped before its very first document was in place."""
    return all(entry.is_dir() or entry.name.endswith(PARTIAL) for entry in folder.rglob("*"))


def remove_trace(folder: Path) -> None:
    """Remove a folder that is a trace; refuse any other."""
    if not folder.exists():
        return
    if folder.is_symlink() or not folder.is_dir() or not (is_trace(folder) or _is_unborn(folder)):
        raise TraceError(
            "this is not a trace, so it is not removed", where=str(folder), fix="Move it away or choose another output."
        )
    shutil.rmtree(folder)


def recover(target: Path) -> None:
    """Tidy up after a writer that was stopped while a trace took its place."""
    former = replaced(target)
    if former.exists() and not target.exists() and is_trace(former):
        replace_path(former, target)
        sync_file(target.parent)
    remove_trace(former)
    remove_trace(making(target))


def refuse_absent(target: Path) -> None:
    """Raise when nothing is at `target`, but beside it a trace that waits to take its place there."""
    if target.exists():
        return
    if replaced(target.absolute()).exists():
        raise TraceError(
            "replacing this trace was interrupted",
            where=str(target),
            fix=f"Run it again, or rename {replaced(target.absolute())} back.",
        )
    if making(target.absolute()).exists():
        raise TraceError(
            "its recording has begun, but nothing is committed yet",
            where=str(target),
            fix="Look again in a few seconds; if nothing is recording it any more, run it again.",
        )


def refuse_homeless(target: Path) -> None:
    """Raise when the folder that `target` is to stand in does not exist: it is likelier misspelt than wanted."""
    if not target.parent.is_dir():
        raise TraceError("its folder does not exist", where=str(target), fix=f"Make {target.parent} first.")


def refuse_occupied(target: Path, *, overwrite: bool) -> None:
    """Raise when something is at `target` that may not be replaced."""
    if not (target.exists() or target.is_symlink()):
        return
    if target.is_symlink() or not target.is_dir() or not is_trace(target):
        raise TraceError(
            "something that is not a trace is already there",
            where=str(target),
            fix="Choose another output; only traces are overwritten.",
        )
    if not overwrite:
        raise TraceError(
            "this trace already exists",
            where=str(target),
            fix="Use --overwrite or another output; a recording is gone on with by --resume.",
        )


def take_place(target: Path) -> None:
    """Put the trace that was made beside `target` at `target`, replacing a former trace."""
    former = replaced(target)
    if target.exists():
        replace_path(target, former)
    replace_path(making(target), target)
    sync_file(target.parent)
    remove_trace(former)
