"""The `peaks3d` page: one HTML file with Plotly, the view and its controls in it, which asks nothing of any network."""

from __future__ import annotations

import base64
import html
import json
import os
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs

from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.replacing import write_whole
from stratoscope.view import palette, peaks3d_words, plotly3d
from stratoscope.view.footer import source, source_tag
from stratoscope.view.output import check_place
from stratoscope.view.spec import ViewSpec

CONFIG = {
    "displaylogo": False,
    "displayModeBar": True,
    "modeBarButtons": [["zoom3d", "pan3d", "orbitRotation", "tableRotation"]],
    "plotlyServerURL": "",
    "responsive": False,  # the page lays out anew itself
}
_WEB = files("stratoscope.view") / "web"
_SCALES = {"robust": "robust", "linear": "linear", "log": "log", "per-layer": "per layer"}


def check(out: str | os.PathLike[str], *, overwrite: bool, inputs: Any = ()) -> Path:
    """The path of a page that may be written, or an `InputError`; called before any work is done."""
    path = Path(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError("a page is an .html file", where=str(path), fix=f"Name it {path.stem or 'peaks'}.html.")
    check_place(path, overwrite=overwrite, inputs=inputs)
    return path


def write(spec: ViewSpec, path: Path, *, overwrite: bool) -> None:
    """Write the page of a spec; it is there whole or not at all."""
    write_whole(path, page(spec).encode(), overwrite=overwrite)


def page(spec: ViewSpec) -> str:
    """The page of a spec; equal specs give equal pages."""
    content = spec.content
    words = [f"L{number}" for number in content["layers"]]
    parts = {
        "title": html.escape(spec.title),
        "subtitle": html.escape(spec.subtitle),
        "theme": content["state"]["theme"],
        "css": _web("peaks3d.css"),
        "from": _options(content["layers"], words, chosen=content["layers"][0]),
        "to": _options(content["layers"], words, chosen=content["layers"][-1]),
        "chips": "".join(
            f'<label><input type="checkbox" value="{number}" checked>L{number}</label>' for number in content["layers"]
        ),
        "choice": _choice(content["choice"]),
        "scales": _options(names.SCALES, [_SCALES[scale] for scale in names.SCALES], chosen=content["state"]["scale"]),
        "first": " checked" if content["state"]["first_token"] else "",
        "index": html.escape(content["index"]),
        "value": "value" if spec.facts["quantity"]["name"] == "imported_norm" else "activation",
        "height": html.escape(peaks3d_words.height(spec)),
        "info": _info(spec),
        "warnings": _warnings(spec),
        "tag": source_tag(spec.provenance),
        "source": html.escape(source(spec.provenance)),
        "provenance": _inert(spec.metadata_json()),
        "page": _inert(json.dumps(_frame(spec), separators=(",", ":"), sort_keys=True)),
        "view": base64.b64encode(spec.to_bytes()).decode("ascii"),
        "plotly": get_plotlyjs(),
        "scripts": "\n".join(_web(name) for name in ("peaks3d.js", "peaks3d_layout.js", "peaks3d_page.js")),
    }
    return Template(_web("peaks3d.html")).substitute(parts)


def _web(name: str) -> str:
    return (_WEB / name).read_text("utf-8")


def _frame(spec: ViewSpec) -> dict[str, Any]:
    """What the page's script hands to Plotly."""
    return {
        "figure": json.loads(plotly3d.frame(spec).to_json()),
        "templates": {name: plotly3d.template(name) for name in palette.THEMES},
        "colours": {
            name: {key: getattr(theme, key) for key in ("paper", "ink", "muted", "line", "accent")}
            for name, theme in palette.THEMES.items()
        },
        "config": CONFIG,
    }


def _inert(text: str) -> str:
    """JSON that cannot end the script element it stands in."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _options(values: Any, words: list[str], *, chosen: Any = None) -> str:
    return "".join(
        f'<option value="{value}"{" selected" if value == chosen else ""}>{html.escape(word)}</option>'
        for value, word in zip(values, words, strict=True)
    )


def _choice(choice: dict[str, Any]) -> str:
    if len(choice["names"]) < 2:
        return ""
    options = _options([-1, *range(len(choice["names"]))], ["all", *choice["names"]], chosen=-1)
    return f'<label><span>{choice["label"]}</span><select name="choice">{options}</select></label>'


def _info(spec: ViewSpec) -> str:
    lines = []
    for note in spec.notes:
        hidden = ' class="without-first"' if note.id == "L05" else ""
        if note.severity == "info":
            lines.append(f"<span{hidden}>{html.escape(f'{note.text} [{note.id}]')}</span>")
    return " ".join(lines)


def _warnings(spec: ViewSpec) -> str:
    warnings = (note for note in spec.notes if note.severity != "info")
    return "\n".join(f'<p class="warning">{html.escape(f"{note.text} [{note.id}]")}</p>' for note in warnings)
