"""ViewSpec → figure, and a file where one is asked for: the last step that all static pictures share."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stratoscope.errors import UsageError
from stratoscope.view.sheet.footer import caption
from stratoscope.view.spec.look import Look
from stratoscope.view.spec.page import PLAIN_PAGE, Page
from stratoscope.view.spec.viewspec import ViewSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stratoscope.view.matplotlib.given_axes import GivenAxes


def render(
    describe: Callable[[Look], ViewSpec],
    out: str | os.PathLike[str] | None,
    look: Look,
    page: Page = PLAIN_PAGE,
    *,
    overwrite: bool,
    inputs: Any = (),
    ax: GivenAxes = None,
) -> Figure:
    """Draw what `describe` gives; an output that may not be written, or is one of the inputs, is refused before.

    Returns
    -------
    matplotlib.figure.Figure
        Its axes are the maps, in reading order; with `ax`, that of those axes.
    """
    from stratoscope.view.matplotlib import save

    if ax is not None:
        from stratoscope.view.matplotlib.given_axes import axes_given, draw_into

        given = axes_given(ax, page, out)
        return draw_into(describe(look), given, page.font_size)
    beside = page.caption == "file"
    if beside and out is None:
        fix = 'Name a file for the picture, or take caption="none".'
        raise UsageError("a caption goes into a file beside the picture, and none is written", where="caption", fix=fix)
    path = None if out is None else save.check(out, overwrite=overwrite, inputs=inputs, caption=beside)
    spec = titled(describe(look), page)
    from stratoscope.view.matplotlib.draw import draw

    figure = draw(spec, page)
    if path is not None:
        text = caption(spec) if beside else None
        save.write(figure, path, spec.metadata_json(), overwrite=overwrite, caption=text, dots=figure.dots)
    return figure


def titled(spec: ViewSpec, page: Page) -> ViewSpec:
    """A spec with the title that its page has in the place of its own."""
    return replace(spec, title=page.title) if page.title and page.titled else spec
