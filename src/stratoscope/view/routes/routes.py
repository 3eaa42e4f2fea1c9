"""The verb `routes`: the picture of which edges a token's stream came about by, or of what they bring to a target."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from stratoscope import defaults, names
from stratoscope.view.spec.drawn_by import drawn_by
from stratoscope.view.spec.look import Look
from stratoscope.view.spec.page import Width, page_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stratoscope.trace.opened import Inputs
    from stratoscope.trace.prompts import PromptChoice
    from stratoscope.trace.targets import TargetChoice
    from stratoscope.view.spec.viewspec import ViewSpec


def routes(
    inputs: Inputs,
    out: str | os.PathLike[str] | None = None,
    *,
    prompt: PromptChoice = None,
    token: int | None = None,
    target: TargetChoice = None,
    edges: int | None = None,
    first_token: bool = defaults.FIRST_TOKEN,
    difference: bool = False,
    theme: names.Theme = defaults.THEME,
    width: Width = None,
    font_size: float | None = None,
    title: str | None = None,
    caption: names.Caption = defaults.CAPTION,
    overwrite: bool = False,
) -> Figure:
    """Draw along which edges a token's stream came about: which head brought what from which token, layer by layer.

    Tokens stand side by side, depths one above the other. An edge is as wide as its weight is large, orange where it
    adds and blue where it takes away, and fainter the less of the whole runs through it. A token's own stream is grey.
    The title says how much of the whole the edges that are shown cover; the rest is dashed (docs/routes.md).

    Parameters
    ----------
    inputs
        A trace with the group "routes", or a Dataset of it.
    out
        The picture to write: .png, .svg or .pdf; or .html, one page that works offline, on which edges and nodes say
        what they are; or .json, the graph of one prompt as Neuronpedia's attribution graphs are. None: only the figure
        is returned.
    prompt
        One, by id or index; or two, which are drawn side by side, long ones one above the other; the columns of
        both are the same, aligned where tokens are equal.
    edges
        At most so many edges of heads, 1 to 150; by default 50 on a still picture, 150 on a page or in a graph.
    token, target, first_token
        As in `route_graph`. Of two prompts `token` is a position in the first; in the second the way ends in the token
        that stands in the same column.
    difference
        Of two prompts also the second minus the first, edge by matched edge. What only one has among its recorded edges
        is drawn as such, never as a difference from zero.
    theme, width, font_size, title, caption, overwrite
        As in `heatmap`.

    Returns
    -------
    matplotlib.figure.Figure
        The picture.

    Raises
    ------
    InputError
        There are no routes in the input, something asked for is not there, or `out` cannot be written.

    Examples
    --------
    >>> import stratoscope
    >>> trace = stratoscope.simulate(prompts=2, layers=4, record="routes")
    >>> figure = stratoscope.routes(trace, "routes.png", prompt="critical-1", edges=40)
    >>> bool(figure.get_figwidth() > 5)  # inches
    True
    """
    drawn = drawn_by("routes", locals())
    from stratoscope.view.matplotlib.draw import draw
    from stratoscope.view.matplotlib.render import render, titled
    from stratoscope.view.routes import files
    from stratoscope.view.routes.chosen import routed

    page = page_of(width, font_size, title, caption)
    path = None if out is None else files.check(out, overwrite=overwrite, inputs=inputs, caption=caption == "file")
    look = Look(theme=theme)
    most = files.usual_edges(path) if edges is None else edges
    found = routed(inputs, prompt=prompt, token=token, target=target, edges=most, first_token=first_token,
                   difference=difference)  # fmt: skip

    def describe(shown: Look) -> ViewSpec:
        return replace(found.spec(shown, page), drawn_by=drawn)

    if path is None or path.suffix.lower() in names.PICTURES:
        return render(describe, out, look, page, overwrite=overwrite, inputs=inputs)
    is_page = path.suffix.lower() == files.PAGE
    if not is_page:
        files.write_graph(path, found, overwrite=overwrite)
    spec = titled(describe(look), page)
    figure = draw(spec, page)
    if is_page:
        files.write_page(path, spec, figure, overwrite=overwrite)
    return figure
