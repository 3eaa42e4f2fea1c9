"""What a written file says that it is: its kind, the level that it keeps to, and its own identifier."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from stratoscope import names
from stratoscope.names import LEVELS, Level

_LEVEL = re.compile(rb'"published":\s*\{[^{}]*"level":\s*"([a-z-]{1,20})"')
_IDENTITY = re.compile(rb'"uuid":\s*"([0-9a-fA-F-]{36})"')
_HEADS = (
    ("picture", re.compile(rb"\x89PNG\r\n\x1a\n|%PDF-|(?:<\?xml[^>]*>\s*)?(?:<!DOCTYPE svg[^>]*>\s*)?<svg\b")),
    ("page", re.compile(rb"\s*<(?:!doctype html|html)\b", re.IGNORECASE)),
    ("table", re.compile(rb"PAR1|[^\n\0<{]*[,;\t][^\n\0]*\n")),
)
_HEAD = 4096


@dataclass
class Claims:
    """What the parts of a file or folder say of it, as they are read.

    Attributes
    ----------
    levels
        The levels that are named.
    identities
        The identifiers that it gives itself.
    """

    levels: set[Level] = field(default_factory=set)
    identities: set[str] = field(default_factory=set)

    def read(self, text: bytes) -> None:
        """Take what a text says of the file that it stands in."""
        found = {match.decode("ascii") for match in _LEVEL.findall(text)}
        self.levels |= cast("set[Level]", found & {*LEVELS})
        self.identities |= {match.decode("ascii") for match in _IDENTITY.findall(text)}

    @property
    def level(self) -> Level | None:
        """The strictest level that is named."""
        return max(self.levels, key=LEVELS.index, default=None)


def kind_of(root: Path) -> str:
    """What a file or folder is, by what is in it; "" = nothing that Stratoscope writes."""
    if root.is_dir():
        if root.name == names.RESULT_STORE or (root / names.RESULT_STORE).is_dir():
            return "result"
        return "trace" if (root / "zarr.json").is_file() else "folder"
    with root.open("rb") as file:
        head = file.read(_HEAD)
    return next((kind for kind, begins in _HEADS if begins.match(head)), "")


def names_no_level(kind: str) -> bool:
    """Whether such a file has no place for its level."""
    return kind == "table"
