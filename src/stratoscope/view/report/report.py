"""What a report holds, whatever the analysis: sentences, figures, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from stratoscope.view.spec.viewspec import ViewSpec


@dataclass(frozen=True)
class Excerpt:
    """A token in the words around it, drawn in a table."""

    before: str
    token: str
    after: str


Cell: TypeAlias = "str | float | int | Excerpt | None"


@dataclass(frozen=True)
class ReportTable:
    """Rows of cells; numbers are set right.

    Attributes
    ----------
    columns
        Headings; as many cells in each row.
    rows
        The cells. None = nothing to say.
    caption
        What the rows are.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture of a report: the name of its files, what it shows, and the picture as data."""

    name: str
    caption: str
    spec: ViewSpec


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    words: str = ""
    figures: Sequence[Figure] = ()
    tables: Sequence[ReportTable] = ()


@dataclass(frozen=True)
class Report:
    """A report.

    Attributes
    ----------
    title
        What was found, or that nothing was.
    lead
        The findings in sentences, each measured.
    sections
        Figures and tables.
    table
        What `table.csv` holds.
    more
        Further tables by the names of their files.
    """

    title: str
    lead: Sequence[str]
    sections: Sequence[Section]
    table: ReportTable = field(default_factory=lambda: ReportTable((), ()))
    more: Mapping[str, ReportTable] = field(default_factory=dict)

    def figures(self) -> list[Figure]:
        """All figures, in order."""
        return [figure for section in self.sections for figure in section.figures]
