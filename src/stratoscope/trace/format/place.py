"""Where a trace may be written and how it takes its place: what `stratoscope.replacing` does, for traces.

A new trace is made in `.<name>.new`. Where it is to replace another one, a recording that has commits goes on in
`.<name>.recording`, so that it can be resumed, and the former trace stays until the new one is complete.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from stratoscope import replacing
from stratoscope.disk import PARTIAL, replace_path, sync_file
from stratoscope.errors import InputError, TraceError
from stratoscope.replacing import Kind, Lock, begin, is_unfinished, making, remove, take_place
from stratoscope.trace.format.array_document import chunk_index
from stratoscope.trace.format.bounds import MAX_DOCUMENT_BYTES, read_regular_file, refuse_costly_document
from stratoscope.trace.format.schema import FORMAT, RECORDING, ROOT_DOCUMENT

__all__ = [
    "TRACE",
    "Lock",
    "begin",
    "is_begun",
    "is_trace",
    "is_unfinished",
    "making",
    "recorded_at",
    "recording",
    "recover",
    "refuse_absent",
    "refuse_inside",
    "refuse_occupied",
    "refuse_without_parent",
    "remove_trace",
    "take_place",
    "wait_there",
]  # fmt: skip


def is_trace(folder: Path) -> bool:
    """Whether a folder is a trace by its own root document, so that nothing else is ever removed.

    The document may be damaged, or one that no reader takes: such a trace can be overwritten, and nothing else.
    """
    return bool(_attributes(folder).get("format") == FORMAT)


def _attributes(folder: Path) -> dict[str, Any]:
    """Attributes of the root document; none where it is missing, cannot be read or would cost too much."""
    try:
        content = read_regular_file(folder / ROOT_DOCUMENT, MAX_DOCUMENT_BYTES)
        refuse_costly_document(content, str(folder))
        attrs = json.loads(content)["attributes"]
    except (TraceError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return attrs if isinstance(attrs, dict) else {}


def _is_part(_: Path, path: Path) -> bool:
    """The root document, and in folders of arrays their documents and chunks."""
    name = path.name.removesuffix(PARTIAL)
    if name == ROOT_DOCUMENT:
        return len(path.parts) <= 2
    return len(path.parts) == 2 and chunk_index(name) is not None


TRACE = Kind("trace", ROOT_DOCUMENT, is_trace, _is_part, TraceError)


def recording(target: Path) -> Path:
    """Folder of a recording that has commits and is to replace the trace at `target` when it is complete."""
    return target.with_name(f".{target.name}.recording")


def recorded_at(target: Path) -> Path:
    """Where a recording that is resumed stands: beside the trace it is to replace, or at `target`."""
    waiting = recording(target)
    return waiting if is_unfinished(waiting) and is_trace(waiting) else target


def is_begun(folder: Path) -> bool:
    """Whether a folder is a trace that is not complete."""
    return is_trace(folder) and bool(_attributes(folder).get("state") == RECORDING)


def remove_trace(folder: Path) -> None:
    """Remove a folder that is a trace; refuse any other."""
    remove(folder, TRACE)


def recover(target: Path, *, overwrite: bool) -> None:
    """Tidy up after a writer that was stopped; a recording that waits to be gone on with is only overwritten."""
    replacing.recover(target, TRACE)
    if overwrite or recorded_at(target) == target:
        _remove_recording(target)


def wait_there(target: Path) -> Path:
    """Move a recording that has its first commit to where it can be resumed; gives that folder."""
    replace_path(making(target), recording(target))
    sync_file(target.parent)
    return recording(target)


def _remove_recording(target: Path) -> None:
    """Under the name of what is removed, so that no half of it is ever taken for a recording to go on with."""
    if os.path.lexists(recording(target)):
        replacing.refuse_others(recording(target), TRACE)
        replace_path(recording(target), replacing.former(target))
        remove_trace(replacing.former(target))


def refuse_absent(target: Path) -> None:
    """Raise when nothing is at `target`, but beside it a trace that waits to take its place there."""
    replacing.refuse_absent(target, TRACE.name, TRACE.error)
    if target.exists():
        return
    if recorded_at(target.absolute()) != target.absolute():
        raise TraceError(
            "its recording is not complete, and the trace that it was to replace is gone",
            where=str(target),
            fix=f"Go on with it by --resume; what it has so far is in {recording(target.absolute())}.",
        )
    if making(target.absolute()).exists():
        raise TraceError(
            "its recording has begun, but nothing is committed yet",
            where=str(target),
            fix="Look again in a few seconds; if nothing is recording it any more, run it again.",
        )


def refuse_without_parent(target: Path) -> None:
    """Raise when the folder that `target` is to stand in does not exist."""
    replacing.refuse_without_folder(target, TraceError)


def refuse_occupied(target: Path, *, overwrite: bool, resume: bool = False) -> None:
    """Raise when something is at `target`, or in it, that may be neither replaced nor gone on with."""
    waits = recorded_at(target) != target
    if waits and not overwrite and not resume:
        raise TraceError(
            "a recording that was to replace this trace was interrupted",
            where=str(target),
            fix="Go on with `capture --resume` and the same settings, or begin anew with --overwrite.",
        )
    if not (target.exists() or target.is_symlink()):
        return
    if target.is_symlink() or not target.is_dir() or not is_trace(target):
        raise TraceError(
            "something that is not a trace is already there",
            where=str(target),
            fix="Choose another output; only traces are overwritten.",
        )
    if not overwrite and not resume:
        raise TraceError(
            "this trace already exists",
            where=str(target),
            fix="Use --overwrite or another output, or go on with a recording by `capture --resume`.",
        )
    if overwrite or waits:
        replacing.refuse_foreign(target, TRACE)


def refuse_inside(path: Path) -> None:
    """Raise when a file or folder would be written into a trace; also where a link leads into one."""
    folder = path.parent.resolve()
    if any(is_trace(one) for one in (folder, *folder.parents)):
        raise InputError("is inside a trace", where=str(path), fix="Write it elsewhere: a trace never changes.")
