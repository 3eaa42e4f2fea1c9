"""Where a picture goes when nobody says: beside its first input, named after it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from stratoscope.errors import InputError


def picture(out: Path | None, inputs: Sequence[Path], verb: str, ending: str = ".png", *, overwrite: bool) -> Path:
    """Where a picture is to be written; without `out` it is `NAME-<verb>.png` beside the first input.

    Parameters
    ----------
    out
        What the user asked for, given back as it is.
    inputs
        A trace, or CSV files. NAME is that of one without its ending (`fire` of `fire.trace` and `fire.csv.gz`), of two
        files both (`fire-water`), of more the first and how many there are besides (`fire-and-3-more`).
    verb
        The command.
    ending
        What the file's name ends in.
    overwrite
        Whether a picture that is there may be replaced.

    Raises
    ------
    InputError
        An input does not exist, or nobody gave `out` and the place beside the first input cannot be written.
    """
    if out is not None:
        return out
    from stratoscope.trace.export.output import check_place
    from stratoscope.trace.opened import existing_paths

    given = [_named(path) for path in existing_paths(inputs)]
    beside = given[0].with_name(f"{_name(given)}-{verb}{ending}")
    try:
        check_place(beside, overwrite=overwrite, inputs=inputs)
    except InputError as error:
        replaced = "Replace it with --overwrite, or name" if "--overwrite" in error.fix else "Name"
        raise InputError(error.what, where=error.where, fix=f"{replaced} another with -o.") from None
    if not os.access(beside.parent, os.W_OK) and (given[0].is_file() or given[0].is_dir()):
        fix = "Name the picture with -o, in a folder that you may write to."
        raise InputError("cannot be written: its folder is read-only", where=str(beside), fix=fix)
    return beside


def _named(path: Path) -> Path:
    """A path that ends in a name: the folder itself for `.` and `..`."""
    return path.resolve() if path.name in ("", "..") else path


def _name(inputs: Sequence[Path]) -> str:
    from stratoscope.trace.opened import input_name

    first, *others = map(input_name, inputs)
    if len(others) > 1:
        return f"{first}-and-{len(others)}-more"
    return "-".join([first, *others])
