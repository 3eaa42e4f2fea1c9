"""Rings around cells of a map that a report points at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stratoscope.view.spec.viewspec import ViewSpec


def ringed(spec: ViewSpec, cells: NDArray[np.integer]) -> ViewSpec:
    """The same map with rings around some cells, (column, row) each."""
    maps = [{**one, "spikes": cells.tolist(), "spikes_in_all": len(cells)} for one in spec.content["maps"]]
    return replace(spec, content={**spec.content, "maps": maps})
