"""Maps of tokens × layers, as a ViewSpec holds them: quantities with all their scales, panels of tokens, cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from stratoscope import names
from stratoscope.view.spec import scale
from stratoscope.view.spec.buffers import IndexTable, Indices, Numbers, NumberTable, indices
from stratoscope.view.spec.document import Json
from stratoscope.view.spec.figures import Figures
from stratoscope.view.spec.look import FirstTokens, Look
from stratoscope.view.spec.scale import Limits

_CAN_DIFFER = "of cells that can differ: not exactly equal, nor, in one model, of tokens before the first edit"
PROMPT_ROWS = "prompt"  # the `row_kind` of a picture with one row per prompt


@dataclass(frozen=True)
class DrawnQuantity:
    """What is drawn, in words, and how it behaves.

    Attributes
    ----------
    name, label, unit, formula
        As the table of quantities has them.
    said
        What was done to the stored array, such as "mean over 9 heads"; "" = nothing.
    signed, log
        Whether negative values have a meaning; whether its natural scale is logarithmic.
    row_kind, rows
        "layer" or "depth", and the numbers of the rows, ascending; or "prompt", and the places of the rows among the
        prompts of the picture's tokens.
    """

    name: str
    label: str
    unit: str
    formula: str
    said: str = ""
    signed: bool = False
    log: bool = False
    row_kind: str = names.LAYER
    rows: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Colouring:
    """The colours of a quantity on one scale, and the histogram of its legend.

    Attributes
    ----------
    limits
        Between which values the colours run.
    clipped
        Share of the cells below and above them.
    edges, counts
        The histogram: unit values of shape (bins + 1,), 0 and 1 being the limits, and counts of shape (bins,).
    exceptions
        Whether all that sets the limits is one value, and something else is not.
    """

    limits: Limits
    clipped: tuple[float, float]
    edges: Numbers
    counts: Indices
    exceptions: bool


@dataclass(frozen=True)
class MapQuantity:
    """A quantity of a picture of maps.

    Attributes
    ----------
    quantity
        What it is.
    difference
        Whether it is a difference, whose zeros mean that nothing differs.
    negative
        Whether it has negative values, though its scale is not a signed one.
    figures
        How its values are written into cells, where there is room.
    scales
        Its colours on each scale that it can have, with first tokens in the limits and without.
    """

    quantity: DrawnQuantity
    difference: bool
    negative: bool
    figures: Figures
    scales: Mapping[names.Scale, Mapping[FirstTokens, Colouring]]

    def colouring(self, look: Look) -> Colouring:
        """Its colours as they are to be looked at."""
        return self.scales[look.scale][look.first]


@dataclass(frozen=True, eq=False)
class MapMarks:
    """What stands on a map besides its cells, which depends on the limits.

    Attributes
    ----------
    badges
        Column and words ("×7") of each first token beyond the upper limit.
    row_badges
        Row and words of each row whose median cell lies beyond a limit: "×9" = nine times the upper limit, "÷20" = a
        twentieth of the lower one; "" = hardly beyond. First tokens count as they do for the limits.
    rings
        Column and row of each cell to be ringed, of shape (rings, 2).
    outliers
        How many cells there are to be ringed, with those that are not.
    without_logarithm
        Cells of zero or less on a logarithmic scale.
    """

    badges: tuple[tuple[int, str], ...]
    row_badges: tuple[tuple[int, str], ...]
    rings: IndexTable
    outliers: int
    without_logarithm: int


@dataclass(frozen=True, eq=False)
class Map:
    """The cells of one quantity in one panel.

    Attributes
    ----------
    quantity, panel
        Places in `Maps.quantities` and `Maps.panels`.
    cells
        Values of shape (columns, rows), NaN = not known. Where tokens are pooled they differ with the tokens that take
        part.
    marks
        Of each scale, with first tokens and without.
    rarely_seen
        Columns whose values rest on too little, drawn hatched.
    missing
        Whether a cell that could have a value is NaN.
    infinite
        How many are infinite.
    absent
        Where a row has no token, so that nothing is drawn: row, first column and the one behind the last of each run,
        of shape (runs, 3).
    """

    quantity: int
    panel: int
    cells: Mapping[FirstTokens, NumberTable]
    marks: Mapping[names.Scale, Mapping[FirstTokens, MapMarks]]
    rarely_seen: tuple[int, ...]
    missing: bool
    infinite: int
    absent: IndexTable = field(default_factory=lambda: indices(np.empty((0, 3))))

    @property
    def is_hatched(self) -> bool:
        """Whether cells without a value are hatched: not where no row has a token there."""
        return not len(self.absent) or self.missing


@dataclass(frozen=True)
class MapPanel:
    """Tokens side by side: one prompt, or several end to end.

    Attributes
    ----------
    title, detail
        What stands above it.
    start, stop
        Its tokens: rows of the picture's table of tokens.
    tokens_per_column
        1 = each token has a column of its own.
    first
        Columns that hold the first token of a prompt.
    dim
        Columns of template and special tokens; none where tokens are pooled.
    starts
        Columns where a prompt begins, and what it is called, where there are several.
    answers
        Columns where what the model generated begins.
    predicting
        Columns of the tokens from which the model answers, where only these predict what is drawn.
    """

    title: str
    detail: str
    start: int
    stop: int
    tokens_per_column: int
    first: tuple[int, ...] = ()
    dim: tuple[int, ...] = ()
    starts: tuple[tuple[int, str], ...] = ()
    answers: tuple[int, ...] = ()
    predicting: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """How many tokens it has."""
        return self.stop - self.start

    @property
    def columns(self) -> int:
        """How many columns they take."""
        return -(-self.tokens // self.tokens_per_column)


@dataclass(frozen=True)
class Maps:
    """Maps of tokens × layers: every quantity in every panel.

    Attributes
    ----------
    quantities
        What is drawn.
    panels
        Where it is drawn.
    maps
        Each quantity in each panel.
    missing, advice
        Labels of what the input does not have, and how to get it.
    """

    quantities: tuple[MapQuantity, ...]
    panels: tuple[MapPanel, ...]
    maps: tuple[Map, ...]
    missing: tuple[str, ...] = ()
    advice: str = ""
    kind: Literal["maps"] = "maps"

    def shown(self, look: Look) -> Mapping[str, Json]:
        """How the numbers became this picture."""
        found: list[Json] = []
        for one in self.quantities:
            colouring = one.colouring(look)
            limits = colouring.limits
            found.append(
                {
                    "name": one.quantity.name,
                    "unit": one.quantity.unit,
                    "formula": one.quantity.formula,
                    "said": one.quantity.said,
                    "kind": limits.kind,
                    "low": limits.low.tolist(),
                    "high": limits.high.tolist(),
                    "state": limits.state,
                    "limits": scale.rule(limits.kind, look.scale) + (f", {_CAN_DIFFER}" if one.difference else ""),
                    "clipped": colouring.clipped,
                }
            )
        return {"quantities": found, "tokens_per_column": [panel.tokens_per_column for panel in self.panels]}
