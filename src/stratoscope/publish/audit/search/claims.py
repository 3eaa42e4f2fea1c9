"""What a written file says that it is: the level that it keeps to, and its own identifier."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import cast

from stratoscope.names import LEVELS, Level

_LEVEL = re.compile(rb'"published":\s*(?:\{[^{}]*"level":\s*)?"([a-z-]{1,20})"')
_IDENTITY = re.compile(rb'"uuid":\s*"([0-9a-fA-F-]{36})"')


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
