"""ViewSpec → axes, and a file where one is asked for: the last step that all static pictures share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from stratoscope.view.spec.look import Look
from stratoscope.view.spec.viewspec import ViewSpec


def render(
    describe: Callable[[Look], ViewSpec],
    out: str | os.PathLike[str] | None,
    look: Look,
    *,
    overwrite: bool,
    inputs: Any = (),
    always_array: bool = False,
) -> Any:
    """Draw what `describe` gives; an output that may not be written, or is one of the inputs, is refused before.

    Returns
    -------
    matplotlib.axes.Axes or ndarray of them
        One for each map, in reading order.
    """
    from stratoscope.view.matplotlib import save

    path = None if out is None else save.check(out, overwrite=overwrite, inputs=inputs)
    spec = describe(look)
    from stratoscope.view.matplotlib.maps import draw

    figure = draw(spec)
    if path is not None:
        save.write(figure, path, spec.metadata_json(), overwrite=overwrite)
    if len(figure.axes) == 1 and not always_array:
        return figure.axes[0]
    import numpy as np

    axes = np.empty(len(figure.axes), dtype=object)
    axes[:] = figure.axes
    return axes
