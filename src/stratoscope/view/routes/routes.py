"""The verb `routes`: the picture of which edges a token's stream came about by, or of what they bring to a target."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from stratoscope import defaults, names
from stratoscope.view.spec.look import PLAIN, Look
from stratoscope.view.spec.page import PLAIN_PAGE, Page, Width, page_of
from stratoscope.view.spec.viewspec import ViewSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stratoscope.trace.opened import Inputs
    from stratoscope.trace.targets import TargetChoice


def routes(
    inputs: Inputs,
    out: str | os.PathLike[str] | None = None,
    *,
    prompt: str | int | None = None,
    token: int | None = None,
    target: TargetChoice = None,
    edges: int = defaults.ROUTE_EDGES,
    first_token: bool = defaults.FIRST_TOKEN,
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
        The picture to write: .png, .svg or .pdf. None: only the figure is returned.
    prompt, token, target, edges, first_token
        As in `route_graph`.
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
    >>> figure.get_figwidth() > 5  # inches
    True
    """
    from stratoscope.view.matplotlib.draw import draw
    from stratoscope.view.matplotlib.render import render
    from stratoscope.view.routes import files

    page = page_of(width, font_size, title, caption)

    def describe(look: Look) -> ViewSpec:
        return routes_view(inputs, look, prompt=prompt, token=token, target=target, edges=edges,
                           first_token=first_token, page=page)  # fmt: skip

    path = None if out is None else files.check(out, overwrite=overwrite, inputs=inputs)
    if path is not None and path.suffix.lower() in files.OTHERS:
        spec = describe(Look(theme=theme))
        files.write_other(spec, path, overwrite=overwrite)
        return draw(spec, page)
    return render(describe, out, Look(theme=theme), page, overwrite=overwrite, inputs=inputs)


def routes_view(
    inputs: Inputs,
    look: Look = PLAIN,
    *,
    prompt: str | int | None = None,
    token: int | None = None,
    target: TargetChoice = None,
    edges: int = defaults.ROUTE_EDGES,
    first_token: bool = defaults.FIRST_TOKEN,
    page: Page = PLAIN_PAGE,
) -> ViewSpec:
    """The ViewSpec of `routes`."""
    from stratoscope.analysis.routes.graph import route_graph
    from stratoscope.trace.opened import opened
    from stratoscope.view.routes.build import routes_spec

    dataset = opened(inputs)
    graph = route_graph(dataset, prompt=prompt, token=token, target=target, edges=edges, first_token=first_token)
    return routes_spec(dataset, graph, look, page)
