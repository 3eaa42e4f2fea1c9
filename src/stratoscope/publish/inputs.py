"""What a file is that somebody wants to publish, by what is in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.trace.csv.file_kinds import packing_by_head
from stratoscope.trace.format.place import is_trace, refuse_absent

Kind = Literal["trace", "result", "csv", "picture", "page", "folder"]
TRACE: Kind = "trace"
RESULT: Kind = "result"
CSV: Kind = "csv"
PICTURE: Kind = "picture"
PAGE: Kind = "page"
FOLDER: Kind = "folder"

_PICTURES = (b"\x89PNG\r\n\x1a\n", b"%PDF-")
_HEAD = 4096  # bytes that are looked at
_SVG = re.compile(rb"<svg\b", re.IGNORECASE)
_PAGE = re.compile(rb"\s*(<!doctype html|<html\b)", re.IGNORECASE)
_PARQUET = b"PAR1"
_NOT_OURS = "Give a trace, a result, a CSV file, a picture or a page that Stratoscope made, or a folder of them."


def kind_of(path: Path) -> Kind:
    """What a file or folder is.

    Raises
    ------
    InputError
        It does not exist, or is nothing that is published.
    """
    refuse_absent(path)
    if not path.exists():
        raise InputError("does not exist", where=str(path), fix="Check the spelling.")
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise InputError("is no regular file", where=str(path), fix=_NOT_OURS)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), fix="Make it readable.") from None
    if head.startswith(_PICTURES) or (head.lstrip().startswith(b"<") and _SVG.search(head) and not _PAGE.match(head)):
        return PICTURE
    if _PAGE.match(head):
        return PAGE
    if head.startswith(_PARQUET) or packing_by_head(head) or _is_table(head):
        return CSV
    raise InputError("is nothing that Stratoscope made", where=str(path), fix=_NOT_OURS)


def _folder(path: Path) -> Kind:
    if is_trace(path):
        return TRACE
    if path.name == names.RESULT_STORE or (path / names.RESULT_STORE).is_dir():
        return RESULT
    if any(one.is_file() for one in path.iterdir()):
        return FOLDER
    raise InputError("is nothing that Stratoscope made", where=str(path), fix=_NOT_OURS)


def _is_table(head: bytes) -> bool:
    """Whether text begins so that has a line with several columns; what is wrong with it, its reader says."""
    line = head.partition(b"\n")[0]
    is_text = b"\0" not in head and not head.lstrip().startswith((b"{", b"["))
    return is_text and any(separator in line for separator in (b",", b";", b"\t"))
