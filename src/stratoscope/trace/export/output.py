"""Where a picture, a page or an export may be written, asked before any work is done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stratoscope.errors import InputError
from stratoscope.replacing import refuse_input, refuse_without_folder, refused
from stratoscope.trace.format.place import refuse_inside


def check_place(path: Path, *, overwrite: bool, inputs: Any = ()) -> None:
    """Raise `InputError` when a file may not be put at `path`, above all when it is one of the inputs."""
    with refused(path):  # a name may be too long to be looked at
        if path.is_dir():
            raise InputError("is a folder", where=str(path), fix="Give the name of a file.")
        refuse_inside(path)
        refuse_input(path, paths_in(inputs))
        if os.path.lexists(path) and not overwrite:
            raise InputError("already exists", where=str(path), fix="Give another name, or --overwrite.")
        if path.exists() and not path.is_file():
            raise InputError("is not a regular file", where=str(path), fix="Give another name.")
        refuse_without_folder(path, InputError)


def paths_in(inputs: Any) -> list[str | os.PathLike[str]]:
    """The paths among what a person gave: one, several, or a Dataset, which is none."""
    given = [inputs] if isinstance(inputs, str | os.PathLike) else inputs if isinstance(inputs, Sequence) else []
    return [one for one in given if isinstance(one, str | os.PathLike)]
