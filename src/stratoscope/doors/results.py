"""What the commands that give a Result have in common: the folder they write, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stratoscope.doors import console
from stratoscope.doors.progress import progress
from stratoscope.progress import Progress
from stratoscope.words import noted


def saved(make: Callable[[Progress], Any], folder: Path, *, overwrite: bool) -> Any:
    """A Result, made and written into a folder; whether it may be written is asked first."""
    from stratoscope.view.report import check_folder, save_result

    check_folder(folder, overwrite=overwrite)
    with progress() as show:
        result = make(show)
        save_result(result, folder, overwrite=overwrite, progress=show)
    return result


def tell(result: Any, folder: Path, *, as_json: bool) -> None:
    """What was found, in a few lines or as JSON, and where the rest of it is."""
    from stratoscope.view.report import PAGE, contents_of

    if as_json:
        console.tell_json({**result.attrs, "folder": str(folder)})
        return
    contents = contents_of(result)
    for line in (contents.title, *contents.lead):
        console.tell(line)
    for note in result.attrs["notes"]:
        if note["severity"] == "warning":
            console.tell(noted(note["id"], note["text"]))
    console.tell_path(folder / PAGE)
