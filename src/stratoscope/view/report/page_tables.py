"""Tables as the page of a report has them: every cell says something, or the table says why it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stratoscope.view.spec.tables import Cell, Excerpt, Table
from stratoscope.words import listed, number, readable

BLANK = "–"
_WORDY = 45  # characters of a cell that needs some room, also on a narrow page
_LONGEST = 60  # characters of the words on either side of a token


@dataclass(frozen=True)
class PageTable:
    """A table as it is read.

    Attributes
    ----------
    columns, numeric, wordy
        Headings, which columns hold nothing but numbers, and which hold sentences.
    rows
        The cells.
    caption, blank
        What the rows are, and why columns are missing and cells are blank.
    """

    columns: list[str]
    numeric: list[bool]
    wordy: list[bool]
    rows: list[list[str | Excerpt]]
    caption: str
    blank: list[str]


def page_table(table: Table) -> PageTable:
    """The table as it is read: a column without any value is left out, and a cell without one is marked."""
    there = [[not _is_blank(row[place]) for row in table.rows] for place in range(len(table.columns))]
    kept = [place for place, known in enumerate(there) if any(known) or not table.rows]
    some = [table.columns[place] for place in kept if not all(there[place])]
    none = [name for place, name in enumerate(table.columns) if place not in kept]
    return PageTable(
        [table.columns[place] for place in kept],
        [table.numeric[place] for place in kept],
        [any(_is_long(row[place]) for row in table.rows) for place in kept],
        [[_written(row[place]) for place in kept] for row in table.rows],
        table.caption,
        [
            *(f"{BLANK} under {names}: {why}." for why, names in _by_reason(table, some)),
            *(f"Not shown, {names}: {why}." for why, names in _by_reason(table, none)),
        ],
    )


def _is_long(cell: Cell) -> bool:
    return isinstance(cell, str) and len(cell) > _WORDY


def _by_reason(table: Table, columns: Sequence[str]) -> list[tuple[str, str]]:
    """Why these columns are blank, and which of them."""
    columns_of: dict[str, list[str]] = {}
    for name in columns:
        columns_of.setdefault(table.blank.get(name, "not known"), []).append(name)
    return [(why, listed((f"“{name}”" for name in names), len(names))) for why, names in columns_of.items()]


def _is_blank(cell: Cell) -> bool:
    return cell is None or cell == "" or (isinstance(cell, float) and cell != cell)


def _written(cell: Cell) -> str | Excerpt:
    """A cell as the page has it."""
    if _is_blank(cell):
        return BLANK
    if isinstance(cell, Excerpt):
        token = readable(cell.token, width=24)
        return Excerpt(_around(cell.before, last=True), token, _around(cell.after, last=False))
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        return str(cell)
    return f"{cell:,}" if isinstance(cell, int) else number(cell)


def _around(text: str, *, last: bool) -> str:
    """Words beside a token: every invisible character made visible, blanks left as they are."""
    if not text:
        return ""
    cut = text[-_LONGEST:] if last else text[:_LONGEST]
    return " ".join(readable(word, width=_LONGEST) if word else "" for word in cut.split(" "))
