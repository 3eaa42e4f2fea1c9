"""A report as one HTML file that works offline, in light and dark, and runs no script."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

from stratoscope.analysis.result import notes_in
from stratoscope.trace.notes import INFO
from stratoscope.view import palette
from stratoscope.view.footer import source, source_tag
from stratoscope.view.legend import number
from stratoscope.view.report.contents import Cell, Contents, Excerpt, Figure, Section, Table
from stratoscope.view.sheet import DPI
from stratoscope.view.spec import Provenance, public_name
from stratoscope.view.tokens import isolate, readable

if TYPE_CHECKING:
    import xarray as xr

_CSS_DPI = 96  # a text of 8 points in a figure is as large as one of the page
_LONGEST = 60  # characters of the words on either side of a token
_WEB = files("stratoscope.view") / "web"


def page(result: xr.Dataset, contents: Contents, pictures: Mapping[tuple[str, str], bytes]) -> str:
    """The page.

    Parameters
    ----------
    result, contents
        The Result, and what its report holds.
    pictures
        PNG bytes by name of the figure and theme.
    """
    notes = notes_in(result)
    parts = {
        "title": html.escape(contents.title),
        "css": _css(),
        "lead": "\n".join(f"<p>{html.escape(line)}</p>" for line in contents.lead),
        "warnings": "\n".join(
            f'<p class="warning">{html.escape(note.text)} <a href="#{note.id}">[{note.id}]</a></p>'
            for note in notes
            if note.severity != INFO
        ),
        "sections": "\n".join(_section(section, pictures) for section in contents.sections),
        "notes": "\n".join(
            f'<li id="{note.id}">{html.escape(note.text)} <b>[{note.id}]</b></li>' for note in dict.fromkeys(notes)
        ),
        "parameters": _parameters(result.attrs["parameters"]),
        "sources": "\n".join(f"<p>{_source(one)}</p>" for one in result.attrs["sources"]),
        "software": html.escape(str(result.attrs["software"])),
        "metadata": _inert(json.dumps(result.attrs, sort_keys=True, ensure_ascii=True)),
    }
    return Template((_WEB / "report.html").read_text("utf-8")).substitute(parts)


def provenance(result: xr.Dataset) -> Provenance:
    """Provenance of a figure of a Result: of its first trace, and the others named."""
    sources = result.attrs["sources"]
    first = sources[0] if sources else {}
    return Provenance(
        uuid=str(first.get("uuid", "")),
        source=str(first.get("source", "")),
        model=" and ".join(dict.fromkeys(public_name(str(one["model"])) for one in sources if one.get("model"))),
        receipt=str(first.get("receipt", ""))[:400] if len(sources) == 1 else "",
    )


def _css() -> str:
    def variables(theme: palette.Theme) -> str:
        names = ("paper", "ink", "muted", "line", "accent", "missing")
        return "".join(f"--{name}: {getattr(theme, name)};" for name in names)

    dark = f"@media (prefers-color-scheme: dark) {{ :root {{ {variables(palette.DARK)} }} }}"
    return f":root {{ {variables(palette.LIGHT)} }}\n{dark}\n{(_WEB / 'report.css').read_text('utf-8')}"


def _section(section: Section, pictures: Mapping[tuple[str, str], bytes]) -> str:
    words = f"<p>{html.escape(section.words)}</p>" if section.words else ""
    figures = "\n".join(_figure(figure, pictures) for figure in section.figures)
    tables = "\n".join(_table(table) for table in section.tables)
    return f"<section><h2>{html.escape(section.title)}</h2>{words}{figures}{tables}</section>"


def _figure(figure: Figure, pictures: Mapping[tuple[str, str], bytes]) -> str:
    light, dark = (_data(pictures[figure.name, theme]) for theme in ("light", "dark"))
    width = round(_pixels_across(pictures[figure.name, "light"]) * _CSS_DPI / DPI)
    caption = html.escape(figure.caption)
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" width="{width}" alt="{caption}"></picture><figcaption>{caption}</figcaption></figure>'
    )


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _pixels_across(png: bytes) -> int:
    return int.from_bytes(png[16:20], "big")  # of the header, the first chunk of a PNG file


def _table(table: Table) -> str:
    numeric = [
        all(isinstance(row[place], int | float) or row[place] is None for row in table.rows)
        for place in range(len(table.columns))
    ]
    head = "".join(
        f"<th{_right(right)}>{html.escape(name)}</th>" for name, right in zip(table.columns, numeric, strict=True)
    )
    rows = "\n".join(
        "<tr>"
        + "".join(f"<td{_right(right)}>{_cell(cell)}</td>" for cell, right in zip(row, numeric, strict=True))
        + "</tr>"
        for row in table.rows
    )
    caption = f"<caption>{html.escape(table.caption)}</caption>" if table.caption else ""
    return f'<div class="wide"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _right(numeric: bool) -> str:
    return ' class="number"' if numeric else ""


def _cell(cell: Cell) -> str:
    if cell is None or (isinstance(cell, float) and cell != cell):
        return ""
    if isinstance(cell, Excerpt):
        before, after = _around(cell.before, last=True), _around(cell.after, last=False)
        token = html.escape(readable(cell.token, width=24))
        return f'<span class="excerpt">{before}<mark>{token}</mark>{after}</span>'
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        return html.escape(isolate(str(cell)))
    return f"{cell:,}" if isinstance(cell, int) else number(cell)


def _around(text: str, *, last: bool) -> str:
    """Words beside a token: every invisible character made visible, blanks left as they are."""
    if not text:
        return ""
    cut = text[-_LONGEST:] if last else text[:_LONGEST]
    shown = " ".join(readable(word, width=_LONGEST) if word else "" for word in cut.split(" "))
    return html.escape(shown)


def _parameters(parameters: Mapping[str, Any]) -> str:
    rows = []
    for name, value in parameters.items():
        words = ", ".join(map(str, value)) if isinstance(value, list) else value
        rows.append(f"<tr><th>{html.escape(name)}</th><td>{html.escape('' if words is None else str(words))}</td></tr>")
    return "\n".join(rows)


def _source(one: Mapping[str, Any]) -> str:
    found = Provenance(
        uuid=str(one.get("uuid", "")),
        source=str(one.get("source", "")),
        model=public_name(str(one.get("model", ""))),
        receipt=str(one.get("receipt", "")),
        software="",
    )
    counts = f"{one.get('prompts', 0):,} prompts, {one.get('tokens', 0):,} tokens"
    return f"<b>{source_tag(found)}</b> {html.escape(source(found))} · {counts}"


def _inert(text: str) -> str:
    """JSON that cannot end the script element it stands in."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
