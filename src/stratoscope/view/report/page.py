"""A report as one HTML file that works offline, in light and dark, and runs no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stratoscope.analysis.results.result import notes_in
from stratoscope.errors import ascii_json
from stratoscope.trace.notes import INFO, KNOWN
from stratoscope.view.report.report import Report
from stratoscope.view.sheet.footer import source, source_tag
from stratoscope.view.sheet.items import DPI
from stratoscope.view.spec import palette
from stratoscope.view.spec.document import Json, Values
from stratoscope.view.spec.tables import Cell, Excerpt
from stratoscope.view.spec.viewspec import Provenance, public_name
from stratoscope.view.web import pages
from stratoscope.words import counted, number, readable

if TYPE_CHECKING:
    import xarray as xr

_CSS_DPI = 96  # a text of 8 points in a figure is as large as one of the page
_ALL_WHERE_EMPTY = ("layers", "prompt", "quantity")  # parameters: nothing chosen is everything
_LONGEST = 60  # characters of the words on either side of a token


@dataclass(frozen=True)
class _Image:
    """A figure in both themes, as the page holds it."""

    light: str
    dark: str
    width: int


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
    notes = dict.fromkeys(notes_in(result))
    return pages.render(
        "report.html",
        title=contents.title,
        css=pages.own(_css()),
        lead=contents.lead,
        warnings=[note for note in notes if note.severity != INFO],
        sections=contents.sections,
        images={figure.name: _image(figure.name, pictures) for figure in contents.figures()},
        written=_written,
        notes=list(notes),
        known=KNOWN,
        parameters=_parameters(result.attrs["parameters"]),
        sources=_sources(result),
        software=str(result.attrs["software"]),
        metadata=pages.inert(ascii_json(result.attrs, sort_keys=True)),
    )


def _css() -> str:
    def variables(theme: palette.Theme) -> str:
        names = ("paper", "ink", "muted", "line", "accent", "missing")
        return "".join(f"--{name}: {getattr(theme, name)};" for name in names)

    dark = f"@media (prefers-color-scheme: dark) {{ :root {{ {variables(palette.DARK)} }} }}"
    return f":root {{ {variables(palette.LIGHT)} }}\n{dark}\n{pages.web_file('report.css')}"


def _image(name: str, pictures: Mapping[tuple[str, str], bytes]) -> _Image:
    light, dark = (_data(pictures[name, theme]) for theme in ("light", "dark"))
    return _Image(light, dark, round(_pixels_across(pictures[name, "light"]) * _CSS_DPI / DPI))


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _pixels_across(png: bytes) -> int:
    return int.from_bytes(png[16:20], "big")  # of the header, the first chunk of a PNG file


def _written(cell: Cell) -> str | Excerpt:
    """A cell as the page has it."""
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


def _parameters(parameters: Values) -> list[tuple[str, str]]:
    return [(name, _words(value, "all" if name in _ALL_WHERE_EMPTY else "none")) for name, value in parameters.items()]


def _words(value: Json, empty: str) -> str:
    if value is None or value in ("", []):
        return empty
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _sources(result: xr.DataTree) -> list[_Source]:
    found = []
    for one in result.attrs["sources"]:
        provenance = Provenance(
            uuid=str(one.get("uuid", "")),
            source=str(one.get("source", "")),
            model=public_name(str(one.get("model", ""))),
            receipt=str(one.get("receipt", "")),
            software="",
        )
        counts = ", ".join(counted(one.get(f"{noun}s", 0), noun) for noun in ("prompt", "token"))
        found.append(_Source(source_tag(provenance), source(provenance), counts))
    return found
