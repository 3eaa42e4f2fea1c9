"""One quantity of two prompts, token by aligned token: both values, their difference, and which cells count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.compare.prompts import Two
from stratoscope.analysis.diff.cells import SharedLayers
from stratoscope.analysis.diff.prompts import Columns, Pair, columns_of
from stratoscope.analysis.statistics.rescaled import rescaled_difference
from stratoscope.analysis.values.align import GAP
from stratoscope.analysis.values.final_norm import final_scales, is_at_answer, is_under_final_norm
from stratoscope.analysis.values.tables import table
from stratoscope.errors import InputError
from stratoscope.trace.arrays import AnyFloats, Floats, Ints
from stratoscope.words import capital, number_ranges

if TYPE_CHECKING:
    import xarray as xr

Mask = NDArray[np.bool_]
STRONGEST = 0.99  # quantile of |B − A| from which a cell is one of the strongest


@dataclass(frozen=True, eq=False)
class Cells:
    """Both prompts on their aligned tokens.

    Attributes
    ----------
    columns
        The aligned tokens; `pair` is 0 everywhere.
    a, b
        Values, [column, row]; NaN where a prompt has no such token.
    difference
        B − A where the tokens are equal, else NaN; [column, row].
    apart
        Tokens that must be the same in both, since they have seen the same tokens in the same model; [column].
    rarely_seen
        Tokens whose values rest on too few later ones, of a quantity that is a mean over them; [column].
    """

    columns: Columns
    a: AnyFloats
    b: AnyFloats
    difference: Floats
    apart: Mask
    rarely_seen: Mask

    @property
    def counted(self) -> NDArray[np.float64]:
        """The sizes of the differences that count: of equal tokens, not of first ones nor of those left out above."""
        sizes = self.sizes()
        known: NDArray[np.float64] = sizes[np.isfinite(sizes)]
        return known

    def sizes(self) -> Floats:
        """|B − A| where it counts, else NaN; [column, row]."""
        counts = self.columns.compared & ~self.apart & ~self.rarely_seen
        sizes = np.where(counts[:, None], np.abs(self.difference), np.nan)
        return np.where(np.isfinite(sizes), sizes, np.nan)


@dataclass(frozen=True)
class Early:
    """Tokens before the first edit.

    Attributes
    ----------
    tokens, cells
        How many tokens have a value in both, and how many of their cells.
    largest, relative
        The largest |B − A| of them, and as a share of the larger of both values there; NaN without a cell.
    column, row
        Where that is; −1 without a cell.
    """

    tokens: int
    cells: int
    largest: float
    relative: float
    column: int
    row: int

    @property
    def equal(self) -> bool:
        """Whether there are any, and all are the same to the last bit."""
        return self.cells > 0 and self.largest == 0


def aligned(two: Two, spans: Sequence[str] = ()) -> Columns:
    """The aligned tokens of two prompts; of spans, those columns in which either token is of one of them."""
    columns = columns_of([Pair("", *two.prompts, True)], *two.sides)
    if not spans:
        return columns
    kept = np.zeros(len(columns.a), bool)
    for side, places in zip(two.sides, (columns.a, columns.b), strict=True):
        kept |= (places != GAP) & side.in_spans(spans)[places]
    return Columns(*(getattr(columns, name)[kept] for name in ("pair", "a", "b", "equal", "before", "first")))


def compared(two: Two, quantity: str, rows: SharedLayers, columns: Columns) -> Cells:
    """Both prompts on their aligned tokens, and what is set apart."""
    a, b = (
        _on_columns(side.dataset, quantity, places, at)
        for side, places, at in zip(two.sides, (columns.a, columns.b), (rows.a, rows.b), strict=True)
    )
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.where(columns.equal[:, None], b.astype(np.float64) - a, np.nan)
    if is_under_final_norm(quantity):
        difference = _at_one_scale(two, quantity, columns, a, b, difference)
    none = np.zeros(len(columns.a), bool)
    rarely_seen = none
    if names.QUANTITIES[quantity].of_later_tokens:
        sides = zip(two.sides, (columns.a, columns.b), strict=True)
        rarely_seen = np.any([(places != GAP) & side.rarely_seen[places] for side, places in sides], axis=0)
    cells = Cells(columns, a, b, difference, none, rarely_seen)
    apart = columns.before if must_be_equal(two, quantity) or early(cells).equal else none
    return cells if apart.all() else replace(cells, apart=apart)


def _at_one_scale(two: Two, quantity: str, columns: Columns, a: AnyFloats, b: AnyFloats, difference: Floats) -> Floats:
    """B − A of contributions without what the final norms' factors make of it, where both factors are known (L29).

    They are known at the answer position; before the first edit they are the same. Elsewhere it is NaN.
    """
    factors = [
        final_scales(side.dataset, quantity)[prompt] for side, prompt in zip(two.sides, two.prompts, strict=True)
    ]
    split = rescaled_difference(b, a, factors[1], factors[0]).change
    answers = [
        (places != GAP) & (places == side.answer[prompt])
        for side, prompt, places in zip(two.sides, two.prompts, (columns.a, columns.b), strict=True)
    ]
    known = columns.equal if is_at_answer(quantity) else columns.equal & answers[0] & answers[1]
    same = columns.before & ~known
    found: Floats = np.where(known[:, None], split, np.where(same[:, None], difference, np.nan))
    return found


def refuse_without_common_rows(two: Two, rows: SharedLayers, cells: Cells) -> None:
    """Refuse prompts of which either has values, but in no layer both: files of other layers."""
    a, b = (np.flatnonzero(np.isfinite(values).any(axis=0)) for values in (cells.a, cells.b))
    if len(a) and len(b) and not np.isin(a, b).any():
        of = [number_ranges(rows.numbers[there].tolist()) for there in (a, b)]
        there = "; ".join(f"of {name}: {numbers}" for name, numbers in zip(two.called, of, strict=True))
        fix = f"{capital(rows.kind)}s {there}."
        raise InputError(f"the two have no {rows.kind} in common", where=f"{rows.kind}s", fix=fix)


def must_be_equal(two: Two, quantity: str) -> bool:
    """Whether tokens that have seen the same tokens must have the same values."""
    return bool(two.one_model) and not names.QUANTITIES[quantity].of_later_tokens


def early(cells: Cells) -> Early:
    """How far tokens before the first edit are apart."""
    before = cells.columns.before
    sizes = np.where(np.isfinite(cells.difference) & before[:, None], np.abs(cells.difference), np.nan)
    known = int(np.isfinite(sizes).sum())
    if not known:
        return Early(0, 0, np.nan, np.nan, -1, -1)
    column, row = np.unravel_index(int(np.nanargmax(sizes)), sizes.shape)
    largest = float(sizes[column, row])
    of = max(abs(float(cells.a[column, row])), abs(float(cells.b[column, row])))
    tokens = int(np.isfinite(sizes).any(axis=1).sum())
    return Early(tokens, known, largest, largest / of if of else 0.0, int(column), int(row))


def strongest_from(sizes: NDArray[Any]) -> float:
    """From which size on a difference is one of the strongest hundredth; NaN where nothing differs."""
    if not sizes.size or not sizes.max() > 0:
        return np.nan
    return float(max(np.quantile(sizes, STRONGEST, method="lower"), sizes[sizes > 0].min()))


def _on_columns(dataset: xr.Dataset, quantity: str, places: Ints, rows: Ints) -> AnyFloats:
    there = places != GAP
    values = table(dataset, quantity, places[there], rows)
    if there.all():
        return values
    whole: AnyFloats = np.full((len(places), len(rows)), np.nan, values.dtype)
    whole[there] = values
    return whole
