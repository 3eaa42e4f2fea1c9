"""More tokens than columns: each column is the maximum of a run of tokens, so that no spike is lost. Rows are never pooled."""  # noqa: E501

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stratoscope.trace.arrays import AnyFloats

MOST_UNPOOLED = 1_500  # tokens that are drawn one by one
MOST_POOLED = 1_200  # columns of a pooled picture: two pixels each
MOST_SPIKES = 200
BESIDE = (10, 2)  # columns and rows on either side of a spike that its ring stands for
STANDS_OUT = 3.0  # a spike lies at least so many times as far above the median as the upper limit does


def factor(tokens: int, most_unpooled: int = MOST_UNPOOLED, most_pooled: int = MOST_POOLED) -> int:
    """How many tokens make a column; 1 = none is pooled."""
    return 1 if tokens <= most_unpooled else max(2, -(-tokens // most_pooled))


def factors(tokens: Sequence[int], most_unpooled: int = MOST_UNPOOLED, most_pooled: int = MOST_POOLED) -> list[int]:
    """The factor of each panel: one for all that are pooled, since maxima over more tokens are larger."""
    each = [factor(count, most_unpooled, most_pooled) for count in tokens]
    return [1 if by == 1 else max(each) for by in each]


def pool(values: AnyFloats, by: int, *, signed: bool) -> AnyFloats:
    """The largest value (where signed, the value of largest size) of each run of `by` tokens.

    Parameters
    ----------
    values
        Shape (tokens, rows). NaN is ignored, unless a run holds nothing else.
    by
        Tokens per column.

    Returns
    -------
    ndarray, shape (ceil(tokens / by), rows)
    """
    if by == 1:
        return values
    high = _reduce(np.maximum, np.fmax, values, by)
    if not signed:
        return high
    low = _reduce(np.minimum, np.fmin, values, by)
    strongest: AnyFloats = np.where(-low > high, low, high)
    return strongest


def without(pooled: AnyFloats, values: AnyFloats, by: int, left_out: NDArray[np.int64], *, signed: bool) -> AnyFloats:
    """`pooled`, the columns of `values`, with some tokens taking no part, except in columns that have no other."""
    if by == 1 or not len(left_out):
        return pooled
    pooled = pooled.copy()
    for column in np.unique(left_out // by):
        tokens = np.arange(column * by, min((column + 1) * by, len(values)))
        others = tokens[~np.isin(tokens, left_out)]
        if len(others):
            pooled[column] = pool(values[others], len(others), signed=signed)[0] if len(others) > 1 else values[others]
    return pooled


def only_of(by: int, tokens: int, left_out: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Columns, of shape (columns,), that hold none but these tokens."""
    columns = -(-tokens // by)
    held = np.minimum(by, tokens - np.arange(columns) * by)
    only: NDArray[np.bool_] = np.bincount(left_out // by, minlength=columns) == held
    return only


def row_medians(table: AnyFloats, *, signed: bool) -> AnyFloats:
    """The median size of each row of a table of shape (tokens, rows); NaN is ignored."""
    table = np.abs(table) if signed else table
    if not len(table):
        return np.full(table.shape[1], np.nan)
    with np.errstate(over="ignore", invalid="ignore"):  # between infinities, or numbers near the largest, is none
        medians: AnyFloats = np.median(table, axis=0)
        for row in np.flatnonzero(np.isnan(medians)):
            known = table[~np.isnan(table[:, row]), row]
            medians[row] = np.median(known) if known.size else np.nan
    return medians


def spikes(units: AnyFloats, *, log: bool = False) -> tuple[NDArray[np.int64], int]:
    """Cells that stand out so far that a reader must not miss them.

    In a row whose median lies beyond the upper limit, which is marked as one of another scale, only those that stand
    out of that row: else its every cell would be one.

    Parameters
    ----------
    units
        `Scale.strength`, of shape (columns, rows); 1 is the upper limit.
    log
        Whether they are logarithms.

    Returns
    -------
    cells, total
        (column, row) of the strongest ones, one for those that stand beside each other, of shape (n, 2), in reading
        order; and how many there are in all.
    """
    known = np.where(np.isnan(units), -np.inf, units)
    finite = units[np.isfinite(units)]
    if not finite.size:
        return np.empty((0, 2), np.int64), 0
    median = float(np.median(finite))
    level = np.nan_to_num(np.maximum(row_medians(units, signed=False), 1), nan=1.0, posinf=1.0)
    known = known - (level - 1) if log else known / level
    found = np.flatnonzero(known >= median + STANDS_OUT * (1 - median))
    strongest = found[np.argsort(-known.ravel()[found], kind="stable")]
    ringed = _apart(np.stack(np.unravel_index(strongest, units.shape), axis=1), units.shape)
    return ringed[np.lexsort(ringed.T[::-1])], len(found)


def _apart(cells: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Of cells, the strongest first, those that are not beside a stronger one; not more than can be looked at."""
    reached = np.zeros(shape, bool)
    columns, rows = BESIDE
    kept = []
    for column, row in cells.tolist():
        if reached[column, row]:
            continue
        kept.append((column, row))
        if len(kept) == MOST_SPIKES:
            break
        reached[max(column - columns, 0) : column + columns + 1, max(row - rows, 0) : row + rows + 1] = True
    return np.array(kept, np.int64).reshape(-1, 2)


def _reduce(quick: np.ufunc, careful: np.ufunc, values: AnyFloats, by: int) -> AnyFloats:
    """Reduce runs of tokens; the careful way, which passes over NaN, only where there is one."""
    whole = len(values) // by * by
    reduced: AnyFloats = quick.reduce(values[:whole].reshape(-1, by, values.shape[1]), axis=1)
    if whole < len(values):
        reduced = np.concatenate([reduced, quick.reduce(values[whole:], axis=0)[None]])
    for column in np.flatnonzero(np.isnan(reduced).any(axis=1)):
        reduced[column] = careful.reduce(values[column * by : (column + 1) * by], axis=0)
    return reduced
