"""What stands in the place of a picture of single tokens where none may be shown: the class profile of its quantity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from stratoscope.errors import InputError
from stratoscope.publish.averaged import PROFILED
from stratoscope.publish.pictures.about import About
from stratoscope.publish.pictures.redraw import Redrawn, refuse_other_trace, taken
from stratoscope.view.spec.look import Look
from stratoscope.view.spec.viewspec import ViewSpec

if TYPE_CHECKING:
    import xarray as xr

_OF_THE_PAGE = ("width", "font_size", "caption")
_MOST = 2  # quantities of one figure


def profiled_in(said: About | ViewSpec, trace: xr.Dataset, where: Path) -> tuple[str, ...]:
    """The quantities of a picture of which class profiles are drawn in its place.

    Raises
    ------
    InputError
        It was drawn of another trace, or shows only what is of single tokens.
    """
    from stratoscope.trace.quantity_names import quantity_named
    from stratoscope.view.choose.quantities import default_quantity
    from stratoscope.view.maps import engagement

    refuse_other_trace(said, trace, where)
    how = said.drawn_by
    found: Sequence[str] = ()
    if how.verb in ("heatmap", "compare"):
        name = how.options.get("quantity")
        found = [
            quantity_named(name, map(str, trace)) if isinstance(name, str) else default_quantity(trace, by_layer=True)
        ]
    elif how.verb == "contrast":
        found = [str(name) for name in _listed(how.options.get("quantity")) if name in PROFILED][:_MOST]
    elif how.verb == "engagement":
        found = [name for name in engagement.QUANTITIES if name in trace][:_MOST]
    found = [name for name in found if name in PROFILED]
    if not found:
        fix = "Publish the trace at this level, and show its class profiles."
        raise InputError("shows what has no class profile, only single tokens", where=str(where), fix=fix)
    return tuple(found)


def drawn_profiles(said: About | ViewSpec, suffix: str, result: xr.DataTree) -> Redrawn:
    """The figure of class profiles, as wide as the picture was and with its caption where that had it.

    Parameters
    ----------
    said
        What the original says of itself.
    suffix
        The ending of its file.
    result
        The class profiles of its quantities.
    """
    from stratoscope.view.matplotlib.render import render
    from stratoscope.view.report import contents_of
    from stratoscope.view.spec.drawn_by import drawn_by_result
    from stratoscope.view.spec.page import page_of

    figure = contents_of(result).figures()[0]
    asked: dict[str, Any] = {
        name: said.drawn_by.options[name] for name in _OF_THE_PAGE if name in said.drawn_by.options
    }
    spec = replace(figure.spec, drawn_by=drawn_by_result(result, figure.name))
    look = Look(theme=said.look.theme)
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"picture{suffix}"
        render(lambda now: replace(spec, look=now), file, look, page_of(**asked), overwrite=False)
        return taken(file)


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else []
