"""The `routes` page: one HTML file with the picture, its controls and all its numbers, which needs no network."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass

from stratoscope.trace.notes import INFO
from stratoscope.view.sheet.footer import by_line, source, source_tag
from stratoscope.view.spec.file import to_bytes
from stratoscope.view.spec.routes import Routes
from stratoscope.view.spec.viewspec import ViewSpec
from stratoscope.view.web import pages

FEWEST = 10  # edges that the slider goes down to
_SCRIPTS = ("words.js", "view.js", "labels.js", "routes.js", "routes_words.js", "routes_draw.js", "routes_page.js")


@dataclass(frozen=True)
class _Option:
    """A choice in a list of the page."""

    value: str
    words: str
    is_chosen: bool = False


def page(spec: ViewSpec, still: bytes) -> str:
    """The page of a spec; equal specs give equal pages.

    Parameters
    ----------
    still
        The picture as SVG, which stands there where scripts do not run.
    """
    routes = spec.content
    assert isinstance(routes, Routes)
    most = max(int(panel.of_heads.sum()) for panel in routes.panels)
    return pages.render(
        "routes.html",
        title=spec.title,
        subtitle=spec.subtitle,
        theme=spec.look.theme,
        css=pages.own(_colours_of(spec) + pages.web_file("routes.css")),
        choices=_choices(routes),
        fewest=min(FEWEST, most),
        most=most,
        explained=by_line(note for note in spec.notes if note.severity == INFO),
        warnings=[note for note in spec.notes if note.severity != INFO],
        tag=source_tag(spec.provenance),
        source=source(spec.provenance),
        still=base64.b64encode(still).decode("ascii"),
        provenance=pages.inert(spec.metadata_json()),
        view=base64.b64encode(to_bytes(spec)).decode("ascii"),
        scripts=pages.own("\n".join(map(pages.web_file, _SCRIPTS))),
    )


def _colours_of(spec: ViewSpec) -> str:
    """The colours of the page as it begins."""
    theme = asdict(spec.colours.themes[spec.look.theme])
    return ":root { " + " ".join(f"--{name}: {value};" for name, value in theme.items() if name != "name") + " }\n"


def _choices(routes: Routes) -> list[_Option]:
    """Two prompts side by side, each alone, and their difference, which is shown first; nothing without a choice."""
    if len(routes.panels) < 2:
        return []
    beside = [] if routes.panels[-1].sides is not None and len(routes.panels) < 3 else [_Option("both", "side by side")]
    panels = enumerate(routes.panels)
    return beside + [_Option(str(number), panel.title, panel.sides is not None) for number, panel in panels]
