"""How a picture is drawn: its scale, whether first tokens take part in the limits, its theme."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stratoscope import defaults, names
from stratoscope.errors import refuse_unknown

FirstTokens = Literal["with_first", "without_first"]  # whether they take part in the limits: keys of a ViewSpec


@dataclass(frozen=True)
class Look:
    """How a picture is drawn.

    Attributes
    ----------
    scale
        How values become colours or heights.
    first_token
        Whether first tokens of a prompt take part in the limits.
    theme
        Its colours.

    Raises
    ------
    InputError
        There is no such scale or theme.
    """

    scale: names.Scale = defaults.SCALE
    first_token: bool = defaults.FIRST_TOKEN
    theme: names.Theme = defaults.THEME

    def __post_init__(self) -> None:
        refuse_unknown(self.scale, names.SCALES, "scale")
        refuse_unknown(self.theme, names.THEMES, "theme")

    @property
    def first(self) -> FirstTokens:
        """The key of limits that are fitted so."""
        return "with_first" if self.first_token else "without_first"


PLAIN = Look()
