"""A page of `peaks3d` or `routes` rebuilt of the view that it holds; nothing else of the file goes on."""

from __future__ import annotations

import base64
import binascii
import re

from stratoscope.errors import InputError
from stratoscope.publish.pictures.about import NotOurs
from stratoscope.view.spec.peaks import Peaks
from stratoscope.view.spec.routes import Routes
from stratoscope.view.spec.viewspec import ViewSpec

_VIEW = re.compile(r'<script type="text/plain" id="stratoscope-view">([A-Za-z0-9+/=]*)</script>')
_REPORT = '<script type="application/json" id="stratoscope">'


def read_spec(data: bytes) -> ViewSpec:
    """The view that a page of ours holds.

    Raises
    ------
    NotOurs
        It holds none, or several, or one that is damaged or of another version.
    """
    from stratoscope.view.spec.file import from_bytes

    text = data.decode("utf-8", "replace")
    found = _VIEW.findall(text)
    if not found and _REPORT in text:
        raise NotOurs("it is the page of a report, which is published with its folder")
    if len(found) != 1:
        raise NotOurs("it holds no view")
    try:
        spec = from_bytes(base64.b64decode(found[0], validate=True))
    except (binascii.Error, InputError) as error:
        raise NotOurs("the view in it is damaged, or of another version") from error
    if not isinstance(spec.content, Peaks | Routes):
        raise NotOurs("its view is no page")
    return spec


def rewritten(spec: ViewSpec) -> bytes:
    """The page of a view."""
    if isinstance(spec.content, Peaks):
        from stratoscope.view.peaks3d import page as peaks_page

        return peaks_page.page(spec).encode()
    from stratoscope.view.matplotlib.draw import draw
    from stratoscope.view.matplotlib.save import picture_bytes
    from stratoscope.view.routes import page as routes_page
    from stratoscope.view.spec.page import page_of

    asked = {name: spec.drawn_by.options.get(name) for name in ("width", "font_size", "title")}
    still = draw(spec, page_of(**asked, caption=spec.drawn_by.options.get("caption", "below")))  # type: ignore[arg-type]
    return routes_page.page(spec, picture_bytes(still, ".svg", "{}")).encode()
