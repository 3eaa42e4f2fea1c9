"""What a file of prompts holds, before it is known which of it is the prompt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral, Real
from pathlib import Path
from typing import Any

LABELS = ("id", "class", "pair", "group")
_MANY_COLUMNS, _SOME_ROWS = 1000, 100
CONTENTS = ("text", "messages")
PROMPT_COLUMNS = (  # names under which data sets keep what is asked, the surest first
    "prompt", "question", "query", "instruction", "user_prompt", "user", "input", "request", "goal", "problem",
    "sentence", "ctx", "content", "document", "article", "body",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One object of a JSON file, or one row of a table; and its file and line or row, as an error names it."""

    where: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Python:
    """How a line of Python reads a file again: what it imports, and an expression of `sys.argv[1]`."""

    imports: tuple[str, ...]
    expression: str


@dataclass(frozen=True)
class Table:
    """The rows of a file.

    Attributes
    ----------
    path
        The file.
    rows
        In file order, without those that are blank.
    python
        How Python reads the rows again, as a list of dicts; keys as in `rows`.
    header
        Where the columns are named; "" where each row names its own.
    names
        The columns that the file names although no row of it may hold them.
    complete
        Whether these are all rows, or only the first of an unknown table.
    """

    path: Path
    rows: list[Row]
    python: Python
    header: str = ""
    names: tuple[str, ...] = ()
    complete: bool = True

    @cached_property
    def columns(self) -> list[str]:
        """Names of all columns, in the order in which they come."""
        return list(dict.fromkeys([*self.names, *(key for row in self.rows for key in row.values)]))

    def part(self) -> Table:
        """Its first rows where it has so many columns that looking at one after the other would take hours."""
        if len(self.columns) <= _MANY_COLUMNS or len(self.rows) <= _SOME_ROWS:
            return self
        return replace(self, rows=self.rows[:_SOME_ROWS], complete=False)

    def column(self, name: str) -> list[Any]:
        """What all rows hold there; None where it is missing."""
        return [None if is_missing(row.values.get(name)) else row.values[name] for row in self.rows]


def is_missing(value: Any) -> bool:
    """Whether there is nothing: null, or the NaN or NA that tables are filled up with."""
    if isinstance(value, Real):
        return bool(value != value)  # NaN is not itself
    return value is None or type(value).__name__ in ("NAType", "NaTType")  # of pandas


def without_point(value: Any) -> Any:
    """A whole number as one, also where a table has made 1.0 of it, since another is missing."""
    if not isinstance(value, Real) or isinstance(value, Integral):
        return value
    return int(float(value)) if float(value).is_integer() else value


def is_text(value: Any) -> bool:
    """Whether this is a text that is not empty."""
    return isinstance(value, str) and value != ""
