"""How a picture was drawn: the verb and what it was asked, so that the same can be drawn of the same trace again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope.view.spec.document import Json, Values

if TYPE_CHECKING:
    import xarray as xr

# arguments that say which files are read and written, and where else a picture is drawn
_NO_OPTIONS = ("inputs", "trace", "out", "columns", "ax", "table", "peaks_table", "overwrite")


@dataclass(frozen=True)
class DrawnBy:
    """The verb that drew a picture, and what it was asked; no path is ever part of it.

    Attributes
    ----------
    verb
        Its name in Python; "" = not known, as of a bare array.
    options
        Its arguments by name, without those that were not given; of a Result its parameters.
    figure
        Which figure, where it stands in a report; "" = in none.
    traces
        Of how many traces it was drawn; 0 = of none, as of a model.
    """

    verb: str = ""
    options: Values = field(default_factory=dict)
    figure: str = ""
    traces: int = 1


def drawn_by(verb: str, given: Mapping[str, Any]) -> DrawnBy:
    """How a verb of a trace draws.

    Parameters
    ----------
    verb
        Its name.
    given
        All its arguments, as `locals()` has them in its first line.
    """
    options = {name: value for name, value in given.items() if value is not None and name not in _NO_OPTIONS}
    try:
        return DrawnBy(verb, {name: _plain(value) for name, value in options.items()})
    except TypeError:  # the verb will refuse it, or it can be read only once
        return DrawnBy()


def drawn_by_result(result: xr.DataTree, figure: str = "", options: Mapping[str, Json] | None = None) -> DrawnBy:
    """How a picture of a Result was drawn, with further options of the picture itself."""
    parameters = {name: value for name, value in result.attrs["parameters"].items() if value not in (None, "")}
    return DrawnBy(str(result.attrs["kind"]), {**(options or {}), **parameters}, figure, len(result.attrs["sources"]))


def _plain(value: Any) -> Json:
    """An argument as JSON."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case np.generic() | np.ndarray():
            plain: Json = value.tolist()
            return plain
        case list() | tuple() | range():
            return [_plain(item) for item in value]
    raise TypeError(type(value).__name__)
