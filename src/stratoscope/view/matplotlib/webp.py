"""A figure as the page of a report holds it: WebP without loss, cut to what is drawn."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from PIL import Image

from stratoscope.view.matplotlib.save import style
from stratoscope.view.sheet.items import DPI

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_EDGE = 4  # pixels of ground that are kept on each side
_FAST = {"method": 1, "quality": 0}  # more effort takes twice as long and saves a quarter


@dataclass(frozen=True)
class WebP:
    """A picture: its bytes, and its pixels across and down."""

    data: bytes
    width: int
    height: int


def webp(figure: Figure) -> WebP:
    """A figure as WebP, cut to what is drawn on its ground; the same bytes every time."""
    raw, (across, down) = io.BytesIO(), (round(inches * DPI) for inches in figure.get_size_inches())
    with mpl.rc_context(style()):
        figure.savefig(raw, format="rgba", dpi=DPI, facecolor=figure.get_facecolor())
    pixels = np.frombuffer(raw.getvalue(), np.uint8).reshape(down, across, 4)[..., :3]
    drawn = (pixels != pixels[0, 0]).any(axis=2)
    rows, columns = (_with_edge(np.flatnonzero(drawn.any(axis=axis)), drawn.shape[1 - axis]) for axis in (1, 0))
    cut = np.ascontiguousarray(pixels[rows, columns])
    buffer = io.BytesIO()
    Image.fromarray(cut).save(buffer, "WEBP", lossless=True, **_FAST)
    return WebP(buffer.getvalue(), cut.shape[1], cut.shape[0])


def _with_edge(places: np.ndarray[tuple[int], np.dtype[np.intp]], size: int) -> slice:
    """From the first to the last of these places, and a little ground."""
    if not len(places):
        return slice(0, size)
    return slice(max(0, int(places[0]) - _EDGE), min(size, int(places[-1]) + 1 + _EDGE))
