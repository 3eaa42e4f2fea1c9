"""The files that routes are written to, by their endings: static pictures, a page, and a graph for other viewers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stratoscope import defaults
from stratoscope.errors import InputError, ascii_json
from stratoscope.names import PICTURES
from stratoscope.replacing import write_whole
from stratoscope.trace.export.output import check_place
from stratoscope.view.matplotlib import save
from stratoscope.view.routes.chosen import Routed
from stratoscope.view.routes.neuronpedia import attribution_graph, refuse_two
from stratoscope.view.routes.page import page
from stratoscope.view.spec.viewspec import ViewSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE, GRAPH = ".html", ".json"


def check(out: str | os.PathLike[str], *, overwrite: bool, inputs: Any = (), caption: bool = False) -> Path:
    """The path of a file that may be written, or an `InputError`; called before any work is done."""
    path = Path(out)
    if path.suffix.lower() in PICTURES:
        return save.check(path, overwrite=overwrite, inputs=inputs, caption=caption)
    if path.suffix.lower() not in (PAGE, GRAPH):
        fix = f"Name it {path.stem or 'routes'}.html."
        raise InputError("is no .png, .svg, .pdf, .html or .json file", where=str(path), fix=fix)
    check_place(path, overwrite=overwrite, inputs=inputs)
    return path


def usual_edges(out: str | os.PathLike[str] | None) -> int:
    """How many edges are shown where nobody asks: fewer where none can be pointed at."""
    is_still = out is None or Path(out).suffix.lower() in PICTURES
    return defaults.STILL_ROUTE_EDGES if is_still else defaults.ROUTE_EDGES


def write_page(path: Path, spec: ViewSpec, figure: Figure, *, overwrite: bool) -> None:
    """Write a page; it is there whole or not at all.

    Parameters
    ----------
    figure
        What it shows where its scripts do not run.
    """
    write_whole(path, page(spec, save.picture_bytes(figure, ".svg", "{}")).encode(), overwrite=overwrite)


def write_graph(path: Path, routes: Routed, *, overwrite: bool) -> None:
    """Write the graph of one prompt as other viewers read it; it is there whole or not at all."""
    text = ascii_json(attribution_graph(routes.dataset, refuse_two(routes.graphs)), separators=(",", ":"))
    write_whole(path, text.encode(), overwrite=overwrite)
