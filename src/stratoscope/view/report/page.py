"""A report as one HTML file that works offline, in light and dark and on paper, and runs no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from stratoscope import names
from stratoscope.analysis.results.result import notes_in
from stratoscope.errors import ascii_json
from stratoscope.trace.format.schema import PUBLISHED
from stratoscope.trace.notes import INFO
from stratoscope.view.report.page_tables import PageTable, page_table
from stratoscope.view.report.report import Figure, Report
from stratoscope.view.sheet.footer import by_line, reading, shown, source, source_tag
from stratoscope.view.sheet.items import DPI
from stratoscope.view.spec import palette
from stratoscope.view.spec.document import Json, Values
from stratoscope.view.spec.viewspec import Provenance, public_name
from stratoscope.view.web import pages
from stratoscope.words import counted

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.view.matplotlib.webp import WebP

Pictures: TypeAlias = "Mapping[str, Mapping[names.Theme, WebP]]"
_CSS_DPI = 96  # a text of 8 points in a figure is as large as one of the page
_ALL_WHERE_EMPTY = ("layers", "prompt", "quantity")  # parameters: nothing chosen is everything


@dataclass(frozen=True)
class _PageFigure:
    """A figure with its words.

    Attributes
    ----------
    title
        What stands above it; "" where the page or the section says it.
    themes, width, height
        Addresses of the picture by theme, and its size in CSS pixels. The style sheet shows one of them: a `picture`
        element would be printed in the theme of the screen.
    words
        What it shows and what to know of it, as far as nothing before it on the page says so.
    """

    title: str
    subtitle: str
    alt: str
    themes: list[tuple[names.Theme, str]]
    width: int
    height: int
    words: list[str]


@dataclass(frozen=True)
class _PageSection:
    """A section of the page."""

    title: str
    words: str
    figures: list[_PageFigure]
    tables: list[PageTable]


@dataclass(frozen=True)
class _Source:
    """A trace that the Result was made of."""

    tag: str
    line: str
    counts: str


def page(result: xr.DataTree, contents: Report, pictures: Pictures) -> str:
    """The page.

    Parameters
    ----------
    result, contents
        The Result, and what its report holds.
    pictures
        Each figure by its name, in every theme.
    """
    every = dict.fromkeys(notes_in(result))
    notes = [note for note in every if note.severity != INFO or not any(note.text in line for line in contents.lead)]
    return pages.render(
        "report.html",
        title=contents.title,
        css=pages.own(_css()),
        lead=contents.lead,
        warnings=[note for note in notes if note.severity != INFO],
        sections=_sections(contents, pictures, {note.text for note in every}),
        notes=[note for note in notes if note.severity == INFO],
        parameters=_parameters(result.attrs["parameters"]),
        sources=_sources(result),
        software=str(result.attrs["software"]),
        metadata=pages.inert(ascii_json(result.attrs, sort_keys=True)),
    )


def _css() -> str:
    def variables(theme: palette.Theme) -> str:
        colours = ("paper", "ink", "muted", "line", "accent", "missing")
        return "".join(f"--{name}: {getattr(theme, name)};" for name in colours)

    dark = f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {variables(palette.DARK)} }} }}"
    return f":root {{ {variables(palette.LIGHT)} }}\n{dark}\n{pages.web_file('report.css')}"


def _sections(contents: Report, pictures: Pictures, said: set[str]) -> list[_PageSection]:
    """The sections; `said` grows by what the words of each figure say, so that nothing is said twice."""
    sections = []
    for section in contents.sections:
        figures = [_figure(one, pictures[one.name], said, (contents.title, section.title)) for one in section.figures]
        sections.append(
            _PageSection(section.title, section.words, figures, [page_table(one) for one in section.tables])
        )
    return sections


def _figure(figure: Figure, images: Mapping[names.Theme, WebP], said: set[str], above: tuple[str, ...]) -> _PageFigure:
    spec = figure.spec
    notes = [note for note in dict.fromkeys(spec.notes_now()) if note.text not in said]
    explained = [text for text in (reading(spec.content), shown(spec)) if text and text not in said]
    said.update(explained, (note.text for note in notes))
    image = images["light"]
    words = [figure.caption, *explained, *by_line(notes)]
    return _PageFigure(
        title="" if spec.title in above else spec.title,
        subtitle=spec.subtitle,
        alt=f"{spec.title}. {figure.caption}".strip(),
        themes=[(theme, _address(images[theme].data)) for theme in names.THEMES],
        width=round(image.width * _CSS_DPI / DPI),
        height=round(image.height * _CSS_DPI / DPI),
        words=[line for line in words if line],
    )


def _address(webp: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp).decode('ascii')}"


def _parameters(parameters: Values) -> list[tuple[str, str]]:
    found = sorted(parameters.items())  # as they stand on disk: a page is the same of a Result that was opened
    return [(name, _words(value, "all" if name in _ALL_WHERE_EMPTY else "none")) for name, value in found]


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
        level = result.attrs.get(PUBLISHED, {}).get("level")
        about = "about " if level == names.AGGREGATE else ""
        nouns = ("prompt",) if level == names.PRIVATE else ("prompt", "token")  # how many tokens is not told
        counts = ", ".join(f"{about}{counted(one.get(f'{noun}s', 0), noun)}" for noun in nouns)
        found.append(_Source(source_tag(provenance), source(provenance), counts))
    return found
