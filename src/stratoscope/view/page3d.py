"""The `peaks3d` page: one HTML file with Plotly, the view and its controls in it, which asks nothing of any network."""

from __future__ import annotations

import base64
import html
import json
import os
import tempfile
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs

from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.view import palette, plotly3d
from stratoscope.view.spec import ViewSpec

CONFIG = {
    "displaylogo": False,
    "displayModeBar": True,
    "modeBarButtons": [["zoom3d", "pan3d", "orbitRotation", "tableRotation", "resetCameraDefault3d"]],
    "plotlyServerURL": "",
    "responsive": False,  # the page lays out anew itself
}
_WEB = files("stratoscope.view") / "web"
_SCALES = {"robust": "robust", "linear": "linear", "log": "log", "per-layer": "per layer"}


def check_target(path: Path, *, overwrite: bool) -> Path:
    """The path, if a page may be written there.

    Raises
    ------
    InputError
        It is no .html file, exists already, or its folder does not.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError("is no .html file", where=str(path), fix="Give a name that ends in .html.")
    if path.exists() and not overwrite:
        raise InputError("exists already", where=str(path), fix="Choose another name, or pass overwrite (--overwrite).")
    if not path.absolute().parent.is_dir():
        raise InputError("its folder does not exist", where=str(path), fix="Make the folder first.")
    return path


def write_page(spec: ViewSpec, path: Path) -> None:
    """Write the page of a spec; the file is there whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(page(spec))
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def page(spec: ViewSpec) -> str:
    """The page of a spec; equal specs give equal pages."""
    content = spec.content
    parts = {
        "title": html.escape(spec.title),
        "subtitle": html.escape(spec.subtitle),
        "theme": content["state"]["theme"],
        "css": _web("peaks3d.css"),
        "from": _options(content["layers"], [f"L{number}" for number in content["layers"]]),
        "to": _options(content["layers"], [f"L{number}" for number in content["layers"]], chosen=content["layers"][-1]),
        "chips": "".join(
            f'<label><input type="checkbox" value="{number}" checked>L{number}</label>' for number in content["layers"]
        ),
        "choice": _choice(content["choice"]),
        "scales": _options(names.SCALES, [_SCALES[scale] for scale in names.SCALES], chosen=content["state"]["scale"]),
        "first": " checked" if content["state"]["first_token"] else "",
        "index": html.escape(content["index"]),
        "value": "value" if spec.facts["quantity"]["name"] == "imported_norm" else "activation",
        "origin": html.escape(plotly3d.origin(spec)),
        "caption": html.escape(_caption(spec.facts)),
        "notes": _notes(spec),
        "provenance": _inert(spec.metadata_json()),
        "page": _inert(json.dumps(_frame(spec), separators=(",", ":"), sort_keys=True)),
        "view": base64.b64encode(spec.to_bytes()).decode("ascii"),
        "plotly": get_plotlyjs(),
        "picture": _web("peaks3d.js"),
        "controls": _web("peaks3d_page.js"),
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
        f'<option value="{html.escape(str(value))}"{" selected" if value == chosen else ""}>{html.escape(word)}</option>'
        for value, word in zip(values, words, strict=True)
    )


def _choice(choice: dict[str, Any]) -> str:
    if len(choice["names"]) < 2:
        return ""
    options = _options([-1, *range(len(choice["names"]))], ["all", *choice["names"]])
    return f'<label><span>{choice["label"]}</span><select name="choice">{options}</select></label>'


def _caption(facts: dict[str, Any]) -> str:
    quantity = facts["quantity"]
    words = f"Height: {quantity['label']}, {quantity['formula']}. Tokens stand in reading order, L0 in front."
    if facts["tokens_per_cell"] > 1:
        words += f" Of each {facts['tokens_per_cell']} tokens and layer the highest peak is kept, and the 1,000 highest of all."
    elif facts["shown"] < facts["total"]:
        words += " Of each token and layer the highest peak is kept, and the next highest of all."
    if facts["threshold"] > 0:
        words += f" Peaks below {facts['threshold']:g} are left out."
    return words


def _notes(spec: ViewSpec) -> str:
    lines = []
    for note in spec.notes:
        identity = ' id="first-note"' if note.id == "L05" else ""
        lines.append(f'<p class="{html.escape(note.severity)}"{identity}>{html.escape(f"{note.id} {note.text}")}</p>')
    return "\n".join(lines)
