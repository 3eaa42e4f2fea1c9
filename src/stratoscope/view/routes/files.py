"""The files that routes are written to, by their endings: static pictures, and those that `OTHERS` lists."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stratoscope.disk import write_file
from stratoscope.names import PICTURES
from stratoscope.replacing import new_files, refused
from stratoscope.trace.export.output import check_place
from stratoscope.view.matplotlib import save
from stratoscope.view.spec.viewspec import ViewSpec

OTHERS: Mapping[str, Callable[[ViewSpec], bytes]] = {}  # ending → what such a file of a picture holds
ENDINGS = (*PICTURES, *OTHERS)


def check(out: str | os.PathLike[str], *, overwrite: bool, inputs: Any = ()) -> Path:
    """The path of a file that may be written, or an `InputError`; called before any work is done."""
    path = Path(out)
    if path.suffix.lower() not in OTHERS:
        return save.check(path, overwrite=overwrite, inputs=inputs)
    check_place(path, overwrite=overwrite, inputs=inputs)
    return path


def write_other(spec: ViewSpec, path: Path, *, overwrite: bool) -> None:
    """Write a file that is no static picture."""
    content = OTHERS[path.suffix.lower()](spec)
    with new_files([path], overwrite=overwrite) as (file,), refused(path):
        write_file(file, content)
