"""Tables, as a ViewSpec and a report hold them: headings, and rows of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True)
class Excerpt:
    """A token in the words around it."""

    before: str
    token: str
    after: str


Cell: TypeAlias = str | float | int | Excerpt | None


@dataclass(frozen=True)
class Table:
    """Rows of cells; numbers are set right.

    Attributes
    ----------
    columns
        Headings; as many cells in each row.
    rows
        The cells. None = nothing to say.
    caption
        What the rows are.
    blank
        Why a cell of a column may be empty, by the column's heading.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    blank: Mapping[str, str] = field(default_factory=dict)

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns hold nothing but numbers."""
        return tuple(
            all(isinstance(row[place], int | float) or row[place] is None for row in self.rows)
            for place in range(len(self.columns))
        )
