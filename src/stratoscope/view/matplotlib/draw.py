"""ViewSpec → figure, whatever its content."""

from __future__ import annotations

from stratoscope.view.matplotlib.charts import draw_charts
from stratoscope.view.matplotlib.figure import Picture
from stratoscope.view.matplotlib.lens import draw_lens
from stratoscope.view.matplotlib.maps import draw_maps
from stratoscope.view.matplotlib.routes import draw_routes
from stratoscope.view.spec.charts import Charts
from stratoscope.view.spec.lens import Lens
from stratoscope.view.spec.maps import Maps
from stratoscope.view.spec.page import PLAIN_PAGE, Page
from stratoscope.view.spec.routes import Routes
from stratoscope.view.spec.viewspec import ViewSpec


def draw(spec: ViewSpec, page: Page = PLAIN_PAGE) -> Picture:
    """The figure of a spec on a page; its axes are its maps and charts, in reading order."""
    match spec.content:
        case Maps() as maps:
            return draw_maps(spec, maps, page)
        case Charts() as charts:
            return draw_charts(spec, charts, page)
        case Lens() as lens:
            return draw_lens(spec, lens, page)
        case Routes() as routes:
            return draw_routes(spec, routes, page)
        case other:
            raise TypeError(f"a picture of {other.kind} is not drawn here")
