"""What a ViewSpec of maps holds, as it is looked at."""

from __future__ import annotations

from stratoscope.view.sheet.items import Sheet
from stratoscope.view.sheet.layout import arrange
from stratoscope.view.spec.maps import Colouring, MapMarks, Maps
from stratoscope.view.spec.viewspec import ViewSpec


def maps_of(spec: ViewSpec) -> Maps:
    """The content of a picture of maps."""
    assert isinstance(spec.content, Maps)
    return spec.content


def sheet_of(spec: ViewSpec) -> Sheet:
    """Where everything of a picture of maps stands."""
    return arrange(spec, maps_of(spec))


def colouring(spec: ViewSpec, quantity: int = 0) -> Colouring:
    """The colours of one of its quantities, as it is looked at."""
    return maps_of(spec).quantities[quantity].colouring(spec.look)


def marks(spec: ViewSpec, index: int = 0) -> MapMarks:
    """The marks of one of its maps, as it is looked at."""
    return maps_of(spec).maps[index].marks[spec.look.scale][spec.look.first]


def low(spec: ViewSpec, quantity: int = 0) -> float:
    """The lower limit of one of its quantities."""
    return colouring(spec, quantity).limits.low.item()


def high(spec: ViewSpec, quantity: int = 0) -> float:
    """The upper limit of one of its quantities."""
    return colouring(spec, quantity).limits.high.item()
