"""What the charts of all reports share: the warnings and the sources of their Result."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from stratoscope.analysis.results.result import warnings_in
from stratoscope.trace.notes import Note
from stratoscope.view.spec.charts import ChartPanel, Charts
from stratoscope.view.spec.viewspec import ViewSpec, provenance_of_result, selected_of_result

if TYPE_CHECKING:
    import xarray as xr


def charts(
    result: xr.DataTree,
    title: str,
    subtitle: str,
    panels: Iterable[ChartPanel],
    *,
    height: float,
    notes: Iterable[Note] = (),
) -> ViewSpec:
    """Charts of a Result side by side, `height` inches high, with its warnings after `notes`."""
    return ViewSpec(
        title,
        subtitle,
        Charts(tuple(panels), height),
        notes=(*notes, *warnings_in(result)),
        selected=selected_of_result(result),
        provenance=provenance_of_result(result),
        parameters={part: result.attrs[part] for part in ("parameters", "summary")},
    )
