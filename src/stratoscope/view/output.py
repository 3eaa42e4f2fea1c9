"""Where a picture or a page may be written, asked before any work is done."""

from __future__ import annotations

import errno
import json
from pathlib import Path

from stratoscope.errors import InputError
from stratoscope.trace.schema import FORMAT


def check_place(path: Path, *, overwrite: bool) -> None:
    """Raise `InputError` when a file may not be put at `path`."""
    if path.is_dir():
        raise InputError("is a folder", where=str(path), fix="Give the name of a file.")
    folder = path.parent.resolve()  # a link may lead into a trace
    if any(_is_trace(one) for one in (folder, *folder.parents)):
        raise InputError("is inside a trace", where=str(path), fix="Write it elsewhere: a trace never changes.")
    if path.exists() and not overwrite:
        raise InputError("already exists", where=str(path), fix="Give another name, or --overwrite.")
    if not path.parent.is_dir():
        raise InputError("its folder does not exist", where=str(path), fix=f"Make {path.parent} first.")


def _is_trace(folder: Path) -> bool:
    """Whether a folder is a trace by its root document; `trace.place.is_trace` without the library that stores it."""
    try:
        return bool(json.loads((folder / "zarr.json").read_bytes())["attributes"]["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def cannot_write(path: Path, error: OSError) -> InputError:
    """What to raise when the operating system refused."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    fix = "Free some space, or write elsewhere." if full else "Choose a folder you may write to."
    return InputError(f"cannot be written: {error.strerror or error}", where=str(path), fix=fix)
