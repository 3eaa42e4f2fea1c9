"""What a report holds, whatever the analysis: sentences, figures, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from stratoscope.view.spec.tables import Table
from stratoscope.view.spec.viewspec import ViewSpec

Facts: TypeAlias = Mapping[str, Any]  # the summary of a Result, or a part of it, as JSON gives it


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
    tables: Sequence[Table] = ()


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
    table: Table = field(default_factory=lambda: Table((), ()))
    more: Mapping[str, Table] = field(default_factory=dict)

    def figures(self) -> list[Figure]:
        """All figures, in order."""
        return [figure for section in self.sections for figure in section.figures]
