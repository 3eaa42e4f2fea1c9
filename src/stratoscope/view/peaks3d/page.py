"""The `peaks3d` page: one HTML file with Plotly, the view and its controls in it, which asks nothing of any network."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from plotly.offline import get_plotlyjs

from stratoscope import names
from stratoscope.errors import InputError, ascii_json
from stratoscope.replacing import write_whole
from stratoscope.trace.export.output import check_place
from stratoscope.trace.notes import INFO
from stratoscope.trace.opened import Inputs
from stratoscope.view.peaks3d import caption
from stratoscope.view.peaks3d.figure import frame, template
from stratoscope.view.peaks3d.still import still
from stratoscope.view.sheet.footer import source, source_tag
from stratoscope.view.spec.document import Json
from stratoscope.view.spec.file import to_bytes
from stratoscope.view.spec.peaks import Peaks
from stratoscope.view.spec.viewspec import ViewSpec
from stratoscope.view.web import pages

CONFIG: dict[str, Json] = {
    "displaylogo": False,
    "displayModeBar": False,
    "scrollZoom": False,  # the page turns, moves and zooms itself, so that the picture stays upright
    "plotlyServerURL": "",
    "responsive": False,  # the page lays out anew itself
}
_SCRIPTS = (
    "words.js",
    "view.js",
    "peaks3d.js",
    "labels.js",
    "peaks3d_traces.js",
    "peaks3d_camera.js",
    "peaks3d_layout.js",
    "peaks3d_page.js",
)
_SCALES = {"robust": "robust", "linear": "linear", "log": "log", "per-layer": "per layer"}


def check(out: str | os.PathLike[str], *, overwrite: bool, inputs: Inputs = ()) -> Path:
    """The path of a page that may be written, or an `InputError`; called before any work is done."""
    path = Path(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError("a page is an .html file", where=str(path), fix=f"Name it {path.stem or 'peaks'}.html.")
    check_place(path, overwrite=overwrite, inputs=inputs)
    return path


def write(spec: ViewSpec, path: Path, *, overwrite: bool) -> None:
    """Write the page of a spec; it is there whole or not at all."""
    write_whole(path, page(spec).encode(), overwrite=overwrite)


@dataclass(frozen=True)
class _Option:
    """A choice in a list of the page."""

    value: str | int
    words: str
    is_chosen: bool = False


def page(spec: ViewSpec) -> str:
    """The page of a spec; equal specs give equal pages."""
    peaks = caption.peaks_in(spec)
    notes = list(enumerate(spec.notes))
    return pages.render(
        "peaks3d.html",
        title=spec.title,
        subtitle=spec.subtitle,
        theme=spec.look.theme,
        css=pages.own(_colours_of(spec) + pages.web_file("peaks3d.css")),
        still=still(spec),
        from_layers=_layers(peaks.layers, peaks.layers[0]),
        to_layers=_layers(peaks.layers, peaks.layers[-1]),
        choices=_choices(peaks),
        scales=[_Option(one, _SCALES[one], one == spec.look.scale) for one in names.SCALES],
        first_token=spec.look.first_token,
        index=peaks.index,
        value="value" if peaks.quantity.name == "imported_norm" else "activation",
        count=caption.count(spec),
        beyond=caption.beyond(spec),
        height=caption.chosen(spec),
        scale_words=peaks.scales[spec.look.scale].words,
        info=[(place, note) for place, note in notes if note.severity == INFO],
        warnings=[(place, note) for place, note in notes if note.severity != INFO],
        tag=source_tag(spec.provenance),
        source=source(spec.provenance),
        provenance=pages.inert(spec.metadata_json()),
        page=pages.inert(ascii_json(_for_plotly(spec), separators=(",", ":"), sort_keys=True)),
        view=base64.b64encode(to_bytes(spec)).decode("ascii"),
        plotly=pages.own(get_plotlyjs()),
        scripts=pages.own("\n".join(map(pages.web_file, _SCRIPTS))),
    )


def _colours_of(spec: ViewSpec) -> str:
    """The colours of the page as it begins."""
    theme = asdict(spec.colours.themes[spec.look.theme])
    return ":root { " + " ".join(f"--{name}: {value};" for name, value in theme.items() if name != "name") + " }\n"


def _layers(numbers: Sequence[int], chosen: int) -> list[_Option]:
    return [_Option(number, f"L{number}", number == chosen) for number in numbers]


def _choices(peaks: Peaks) -> list[_Option]:
    """All, one of the names, or two prompts laid on each other; nothing where there is no choice."""
    if len(peaks.choices) < 2:
        return []
    found = [
        _Option(-1, "side by side" if len(peaks.scenes) > 1 else "all", is_chosen=True),
        *(_Option(place, name) for place, name in enumerate(peaks.choices)),
    ]
    if peaks.comparison is not None:
        a, b = peaks.comparison.a, peaks.comparison.b
        found += [_Option("overlay", "overlaid"), _Option("difference", f"{b} − {a}")]
    return found


def _for_plotly(spec: ViewSpec) -> dict[str, Json]:
    """What the page's script hands to Plotly."""
    return {
        "figure": json.loads(frame(spec).update_layout(dragmode=False).to_json()),
        "templates": {name: template(name, spec.colours).to_plotly_json() for name in spec.colours.themes},
        "config": CONFIG,
    }
