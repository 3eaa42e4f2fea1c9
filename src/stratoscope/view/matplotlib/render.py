"""ViewSpec → figure, and a file where one is asked for: the last step that all static pictures share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stratoscope.view.spec.look import Look
from stratoscope.view.spec.viewspec import ViewSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def render(
    describe: Callable[[Look], ViewSpec],
    out: str | os.PathLike[str] | None,
    look: Look,
    *,
    overwrite: bool,
    inputs: Any = (),
) -> Figure:
    """Draw what `describe` gives; an output that may not be written, or is one of the inputs, is refused before.

    Returns
    -------
    matplotlib.figure.Figure
        Its axes are the maps, in reading order.
    """
    from stratoscope.view.matplotlib import save

    path = None if out is None else save.check(out, overwrite=overwrite, inputs=inputs)
    spec = describe(look)
    from stratoscope.view.matplotlib.maps import draw

    figure = draw(spec)
    if path is not None:
        save.write(figure, path, spec.metadata_json(), overwrite=overwrite)
    return figure
