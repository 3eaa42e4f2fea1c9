"""A report as one HTML file that works offline, in light and dark, and runs no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stratoscope.analysis.results.result import notes_in
from stratoscope.errors import ascii_json
from stratoscope.trace.notes import INFO, KNOWN, Note
from stratoscope.view import pages, palette
from stratoscope.view.footer import source, source_tag
from stratoscope.view.report.report import Cell, Excerpt, Figure, Report, ReportTable, Section
from stratoscope.view.sheet import DPI
from stratoscope.view.spec import Provenance, public_name
from stratoscope.words import counted, listed, number, readable

if TYPE_CHECKING:
    import xarray as xr

_CSS_DPI = 96  # a text of 8 points in a figure is as large as one of the page
_ALL_WHERE_EMPTY = ("layers", "prompt", "quantity")  # parameters: nothing chosen is everything
_LONGEST = 60  # characters of the words on either side of a token


@dataclass(frozen=True)
class _Note:
    """A note on the page; only one whose line of the list of pitfalls is known is linked to."""

    id: str
    text: str
    is_known: bool


@dataclass(frozen=True)
class _Section:
    """A part of the page."""

    title: str
    words: str
    figures: Sequence[_Figure]
    tables: Sequence[_Table]


@dataclass(frozen=True)
class _Figure:
    """A picture in both themes, as the page holds it."""

    caption: str
    light: str
    dark: str
    width: int


@dataclass(frozen=True)
class _Table:
    """Columns and cells, each with whether the column holds numbers."""

    caption: str
    columns: Sequence[tuple[str, bool]]
    rows: Sequence[Sequence[tuple[str | Excerpt, bool]]]


@dataclass(frozen=True)
class _Source:
    """A trace that the Result was made of."""

    tag: str
    line: str
    counts: str


def page(result: xr.DataTree, contents: Report, pictures: Mapping[tuple[str, str], bytes]) -> str:
    """The page.

    Parameters
    ----------
    result, contents
        The Result, and what its report holds.
    pictures
        PNG bytes by name of the figure and theme.
    """
    notes = notes_in(result)
    return pages.render(
        "report.html",
        title=contents.title,
        css=pages.own(_css()),
        lead=contents.lead,
        warnings=[_note(note) for note in notes if note.severity != INFO],
        sections=[_section(section, pictures) for section in contents.sections],
        notes=[_note(note) for note in dict.fromkeys(notes)],
        parameters=_parameters(result.attrs["parameters"]),
        sources=[_source(one) for one in result.attrs["sources"]],
        software=str(result.attrs["software"]),
        metadata=pages.inert(ascii_json(result.attrs, sort_keys=True)),
    )


def provenance(result: xr.DataTree) -> Provenance:
    """Provenance of a figure of a Result: of its first trace, and the others named."""
    sources = result.attrs["sources"]
    first = sources[0] if sources else {}
    return Provenance(
        uuid=str(first.get("uuid", "")),
        source=str(first.get("source", "")),
        model=listed(dict.fromkeys(public_name(str(one["model"])) for one in sources if one.get("model"))),
        receipt=str(first.get("receipt", ""))[:400] if len(sources) == 1 else "",
    )


def _css() -> str:
    def variables(theme: palette.Theme) -> str:
        names = ("paper", "ink", "muted", "line", "accent", "missing")
        return "".join(f"--{name}: {getattr(theme, name)};" for name in names)

    dark = f"@media (prefers-color-scheme: dark) {{ :root {{ {variables(palette.DARK)} }} }}"
    return f":root {{ {variables(palette.LIGHT)} }}\n{dark}\n{pages.web_file('report.css')}"


def _note(note: Note) -> _Note:
    return _Note(note.id, note.text, note.id in KNOWN)


def _section(section: Section, pictures: Mapping[tuple[str, str], bytes]) -> _Section:
    figures = [_figure(figure, pictures) for figure in section.figures]
    return _Section(section.title, section.words, figures, [_table(table) for table in section.tables])


def _figure(figure: Figure, pictures: Mapping[tuple[str, str], bytes]) -> _Figure:
    light, dark = (_data(pictures[figure.name, theme]) for theme in ("light", "dark"))
    width = round(_pixels_across(pictures[figure.name, "light"]) * _CSS_DPI / DPI)
    return _Figure(figure.caption, light, dark, width)


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _pixels_across(png: bytes) -> int:
    return int.from_bytes(png[16:20], "big")  # of the header, the first chunk of a PNG file


def _table(table: ReportTable) -> _Table:
    numeric = [
        all(isinstance(row[place], int | float) or row[place] is None for row in table.rows)
        for place in range(len(table.columns))
    ]
    rows = [list(zip(map(_cell, row), numeric, strict=True)) for row in table.rows]
    return _Table(table.caption, list(zip(table.columns, numeric, strict=True)), rows)


def _cell(cell: Cell) -> str | Excerpt:
    if cell is None or (isinstance(cell, float) and cell != cell):
        return ""
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


def _parameters(parameters: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, _words(value, "all" if name in _ALL_WHERE_EMPTY else "none")) for name, value in parameters.items()]


def _words(value: Any, empty: str) -> str:
    if value is None or value in ("", []):
        return empty
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _source(one: Mapping[str, Any]) -> _Source:
    found = Provenance(
        uuid=str(one.get("uuid", "")),
        source=str(one.get("source", "")),
        model=public_name(str(one.get("model", ""))),
        receipt=str(one.get("receipt", "")),
        software="",
    )
    counts = ", ".join(counted(one.get(f"{noun}s", 0), noun) for noun in ("prompt", "token"))
    return _Source(source_tag(found), source(found), counts)
