"""The only place for colours: two colour maps, one accent, and a light and a dark theme.

Both maps are built in OKLab (Ottosson 2020), in which equal distances look equally different, and are resampled to
equal steps. `sequential` (navy to yellow, after cividis) rises in lightness all the way, so it survives colour
blindness and grey printing. `diverging` (blue, white, orange) is symmetric in lightness about zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stratoscope.errors import refuse_unknown

SEQUENTIAL = ("#0a1a40", "#14376b", "#2f5583", "#567187", "#818a82", "#aca270", "#d6bd58", "#f5d95c", "#fff09a")
DIVERGING = ("#174d90", "#3a7aba", "#86b5de", "#cce0f0", "#f7f7f5", "#f6d9bd", "#eba565", "#c9681e", "#7d3a08")
STEPS = 256
LEAST_CONTRAST = 4.5  # of a text with its ground

_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


@dataclass(frozen=True)
class Theme:
    """The colours of a page, as `#rrggbb`.

    Attributes
    ----------
    name
        What it is called.
    paper, ink, muted, faint
        Ground, text, less important text, dimmed labels; every text reads at 4.5:1 or better.
    line, missing, missing_line
        Hairlines; the ground and the hatching of what was not recorded.
    accent
        The one colour for marks.
    side_a, side_b
        The two sides of a comparison: the ends of the diverging map.
    side_c, side_d, side_e, side_f
        What stands beside these two: more classes of prompts.
    ring, ring_halo
        Rings around spikes, on any colour of a map.
    """

    name: str
    paper: str
    ink: str
    muted: str
    faint: str
    line: str
    missing: str
    missing_line: str
    accent: str
    side_a: str
    side_b: str
    side_c: str
    side_d: str
    side_e: str
    side_f: str
    ring: str = "#c42550"
    ring_halo: str = "#ffffff"

    @property
    def sides(self) -> Mapping[str, str]:
        """The colours of what is compared, by their letters."""
        return {name.removeprefix("side_"): colour for name, colour in vars(self).items() if name.startswith("side_")}


LIGHT = Theme("light", "#ffffff", "#1b1f24", "#59616a", "#6b737c", "#c9ced4", "#eceef0", "#b4bac1", "#c42550",
              "#b95f1b", "#2a68a8", "#6d3f9c", "#12766c", "#80701a", "#474f57")  # fmt: skip
DARK = Theme("dark", "#14171b", "#eceff2", "#a9b1ba", "#868f99", "#4a525b", "#23282e", "#565e67", "#ff7f9c",
             "#eba565", "#86b5de", "#c79fe9", "#5cc9b6", "#d9c95f", "#c3cad1")  # fmt: skip
THEMES = {theme.name: theme for theme in (LIGHT, DARK)}


def theme(name: str) -> Theme:
    """The theme called `name`: "light" or "dark"."""
    refuse_unknown(name, THEMES, "theme")
    return THEMES[name]


@cache
def sequential() -> NDArray[np.float64]:
    """Sequential map of shape (256, 3), sRGB in 0..1, dark to bright."""
    return _equal_steps(SEQUENTIAL)


@cache
def diverging() -> NDArray[np.float64]:
    """Diverging map of shape (256, 3), sRGB in 0..1, zero in the middle."""
    half = len(DIVERGING) // 2 + 1
    low = _equal_steps(DIVERGING[:half], STEPS // 2 + 1)[:-1]
    return np.concatenate([low, _equal_steps(DIVERGING[half - 1 :], STEPS // 2)])


def hex_colours(rgb: ArrayLike) -> list[str]:
    """Colours of shape (n, 3) in 0..1 as `#rrggbb`, cut to whole levels as matplotlib cuts them."""
    levels = (np.clip(np.asarray(rgb, float), 0, 1) * 255).astype(int)
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in levels]


def rgb_of(colour: str) -> NDArray[np.float64]:
    """`#rrggbb` as three numbers in 0..1."""
    return np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])


def luminance(rgb: ArrayLike) -> NDArray[np.float64]:
    """Relative luminance (WCAG 2.2) of colours of shape (..., 3)."""
    result: NDArray[np.float64] = _linear(np.asarray(rgb, float)) @ np.array([0.2126, 0.7152, 0.0722])
    return result


def contrast(one: ArrayLike, other: ArrayLike) -> NDArray[np.float64]:
    """Contrast ratio (WCAG 2.2) of two colours, 1..21."""
    pair = np.stack([luminance(one), luminance(other)])
    result: NDArray[np.float64] = (pair.max(axis=0) + 0.05) / (pair.min(axis=0) + 0.05)
    return result


def ink_on(rgb: ArrayLike) -> str:
    """Black or white, whichever reads better on a tint; always at least 4.5:1."""
    on_black = float(contrast(rgb, np.zeros(3)))
    return "#000000" if on_black >= float(contrast(rgb, np.ones(3))) else "#ffffff"


def lines_on(rgb: ArrayLike) -> str:
    """The colour of lines over a tint that differ from it and on which `ink_on` the tint still reads at 4.5:1."""
    tint, ink = np.asarray(rgb, float), rgb_of(ink_on(rgb))
    shares = np.arange(0.45, 0.0, -0.05)[:, None]
    mixed = hex_colours(np.concatenate([tint + shares * (end - tint) for end in (0.0, 1.0)]))
    readable = [colour for colour in mixed if contrast(rgb_of(colour), ink) >= LEAST_CONTRAST]
    return max(readable, key=lambda colour: float(contrast(rgb_of(colour), tint)))


def oklab(rgb: ArrayLike) -> NDArray[np.float64]:
    """SRGB colours of shape (n, 3) in OKLab: lightness, green-red, blue-yellow."""
    result: NDArray[np.float64] = np.cbrt(_linear(np.asarray(rgb, float)) @ _TO_LMS.T) @ _TO_LAB.T
    return result


def _from_oklab(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = (lab @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_LMS).T
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _linear(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def _equal_steps(anchors: tuple[str, ...], steps: int = STEPS) -> NDArray[np.float64]:
    """A map through the anchors whose neighbouring colours are equally far apart in OKLab."""
    points = oklab(np.array([rgb_of(anchor) for anchor in anchors]))
    where = np.linspace(0, len(points) - 1, 4096)
    path = np.stack([np.interp(where, range(len(points)), points[:, axis]) for axis in range(3)], axis=1)
    travelled = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    targets = np.linspace(0, travelled[-1], steps)
    return _from_oklab(np.stack([np.interp(targets, travelled, path[:, axis]) for axis in range(3)], axis=1))


@dataclass(frozen=True)
class Colours:
    """The colours of a picture.

    Attributes
    ----------
    sequential, diverging
        Colour maps, 256 steps of `#rrggbb`.
    themes
        Colours of a page on each ground.
    """

    sequential: tuple[str, ...]
    diverging: tuple[str, ...]
    themes: Mapping[str, Theme]

    def of(self, *, signed: bool) -> tuple[str, ...]:
        """The map for a quantity: `diverging` where negative values have a meaning, else `sequential`."""
        return self.diverging if signed else self.sequential


COLOURS = Colours(tuple(hex_colours(sequential())), tuple(hex_colours(diverging())), THEMES)
