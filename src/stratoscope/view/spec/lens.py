"""What lenses read, as a ViewSpec holds it: a map whose cells have words in them, and charts that share its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from stratoscope.view.spec.buffers import IndexTable, Indices
from stratoscope.view.spec.charts import ChartPanel
from stratoscope.view.spec.document import Json
from stratoscope.view.spec.look import Look
from stratoscope.view.spec.maps import Maps

_MOST_MARKED = 60  # columns


@dataclass(frozen=True, eq=False)
class Lens:
    """What a lens reads at tokens of one prompt, by depth.

    Attributes
    ----------
    maps
        The colours of its cells: one quantity in one panel, rows are depths.
    texts
        Readable texts of tokens.
    likeliest
        Which of `texts` stands in a cell, of shape (columns, rows); −1 = none.
    changing
        Column and row of each cell that is hatched, of shape (cells, 2): the parts of the corpus that the lens was
        fitted on do not read it alike.
    first, stays
        Of each column the row at which the token of its last row leads for the first time, and the one from which it
        leads in every row that was read; −1 = nowhere.
    chosen
        The column of the token whose trajectories are drawn.
    charts
        Beside the map, on its rows: x is a quantity, y the place of a row.
    """

    maps: Maps
    texts: tuple[str, ...]
    likeliest: IndexTable
    changing: IndexTable
    first: Indices
    stays: Indices
    chosen: int
    charts: tuple[ChartPanel, ...]
    kind: Literal["lens"] = "lens"

    @property
    def marks_first(self) -> bool:
        """Whether columns are wide enough for marks where a token first leads, and a line from each to the next."""
        return len(self.first) <= _MOST_MARKED

    def shown(self, look: Look) -> Mapping[str, Json]:
        """How the numbers became this picture."""
        return self.maps.shown(look)
