"""A matched null as part of the Result that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stratoscope.analysis.result import texts
from stratoscope.probe.matched_null import MatchedNull

if TYPE_CHECKING:
    import xarray as xr


def with_null(result: xr.Dataset, null: MatchedNull) -> xr.Dataset:
    """The Result of a diff with what random patches would have changed."""
    found = result.assign(
        null_change=(("run", "measured"), null.null), null_claimed=("measured", null.claimed)
    ).assign_coords(measured=texts("measured", list(null.quantities)))
    p = dict(zip(null.quantities, null.p.tolist(), strict=True))
    facts = {"by": null.by, "runs": len(null.null), "prompts": null.prompts, "p": p}
    found.attrs = {**result.attrs, "summary": {**result.attrs["summary"], "null": facts}}
    return found
