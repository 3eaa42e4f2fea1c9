"""Which peaks a three-dimensional picture draws when there are more than a browser can hold.

The highest peak of each (run of tokens × layer) cell and the highest peaks of all are always among them. Peaks are read
block by block, so memory does not grow with the trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope import defaults, names
from stratoscope.analysis.values.finite import without_number
from stratoscope.trace.arrays import AnyFloats, Bools, Floats, Ints

if TYPE_CHECKING:
    import xarray as xr

MAX_POINTS = 24_000
ALWAYS = 1_000  # the highest peaks of all that are never left out
BLOCK = 1 << 20  # peaks read at a time
_FLOATS = ("peak_value", "peak_write")
_COLUMNS = ("peak_expert", "peak_neuron", *_FLOATS)
_NONE: NDArray[Any] = np.empty(0, np.float32)  # a column that is not there

Block = tuple[Ints, Ints, Floats, Ints]  # place of the token, place of the layer, height, id
Columns = tuple[Ints, Ints, Ints, Ints, AnyFloats, AnyFloats]  # token, layer, expert, neuron, value, write norm


@dataclass(frozen=True)
class Points:
    """The chosen peaks, in order of token, layer and height (highest first).

    Attributes
    ----------
    token, layer, neuron
        Index on the dataset's `token` dimension, block number and neuron of each peak, of shape (points,).
    expert
        The expert whose neuron it is, of shape (points,); empty where there are none.
    value, write
        Signed activation (of an import: the number as given) and write norm, as recorded, of shape (points,); empty
        where they are not known.
    height
        What is drawn upwards: the size of the chosen quantity, of shape (points,), and that array itself if it can be.
    total
        How many peaks they were chosen from.
    infinite
        How many more there are that are infinite, and have no height.
    run
        Tokens per cell; 1 = every token keeps the highest peak of every layer.
    """

    token: Ints
    layer: Ints
    expert: Ints
    neuron: Ints
    value: AnyFloats
    write: AnyFloats
    height: AnyFloats
    total: int
    infinite: int
    run: int


def choose_points(
    dataset: xr.Dataset,
    quantity: str,
    tokens: Ints,
    layers: Sequence[int],
    *,
    scene: Ints | None = None,
    first: Bools | None = None,
    threshold: float = defaults.THRESHOLD,
) -> Points:
    """Choose the peaks to draw.

    Parameters
    ----------
    dataset
        A trace or an import.
    quantity
        What is drawn upwards: `peak_write`, `peak_value` or `imported_norm`.
    tokens
        Ascending indices on `token`, of shape (selected tokens,).
    layers
        Block numbers.
    scene
        Scene each selected token is drawn in, of shape (selected tokens,): a run of tokens stays within one.
    first
        First tokens, bool of shape (selected tokens,): their runs hold no other tokens, so that no sink hides what
        stands beside it.
    threshold
        Peaks lower than this are left out, and counted in the total all the same.
    """
    wanted = np.unique(np.asarray(layers, np.int64))
    last = np.zeros(len(tokens), bool) if first is None else first
    group = last + 2 * (np.zeros(len(tokens), np.int64) if scene is None else scene)
    cell, run = token_runs(group, len(wanted))
    chooser = Chooser(cell, len(wanted), last, threshold)
    rows = names.QUANTITIES[quantity].dims == (names.ROW,)
    for block in (_row_blocks if rows else _peak_blocks)(dataset, quantity, tokens, wanted):
        chooser.add(*block)
    token, layer, expert, neuron, value, write = (_rows_at if rows else _peaks_at)(dataset, chooser.chosen())
    drawn = write if quantity == "peak_write" else value
    order = np.lexsort((-np.abs(drawn), layer, token))
    expert = expert[order] if len(expert) else expert
    value, write = (column[order] if len(column) else column for column in (value, write))
    drawn = write if quantity == "peak_write" else value
    height = np.abs(drawn) if (drawn < 0).any() else drawn
    return Points(
        token[order], layer[order], expert, neuron[order], value, write, height, chooser.total, chooser.infinite, run
    )


def recorded_points(dataset: xr.Dataset, quantity: str, tokens: Ints, layers: Sequence[int]) -> Points:
    """All peaks of some tokens that have a height, in the order in which they are recorded."""
    wanted = np.unique(np.asarray(layers, np.int64))
    rows = names.QUANTITIES[quantity].dims == (names.ROW,)
    found: list[Ints] = [np.empty(0, np.int64)]
    for _, _, height, peak in (_row_blocks if rows else _peak_blocks)(dataset, quantity, tokens, wanted):
        found.append(peak[~np.isnan(height) & ~without_number(np.asarray(height, np.float64))])
    token, layer, expert, neuron, value, write = (_rows_at if rows else _peaks_at)(dataset, np.concatenate(found))
    height = np.abs(write if quantity == "peak_write" else value)
    return Points(token, layer, expert, neuron, value, write, height, len(token), 0, 1)


def token_runs(group: Ints, layers: int) -> tuple[Ints, int]:
    """Number the runs of tokens so that all (run × layer) cells fit, and say how long a run is.

    Parameters
    ----------
    group
        Group of each token, of shape (tokens,): a run stays within one.
    layers
        Number of layers.

    Returns
    -------
    cell, run
        The run of each token, of shape (tokens,), and the tokens per run.
    """
    counts = np.bincount(group, minlength=1)
    most = max((MAX_POINTS - ALWAYS) // max(layers, 1), int(np.count_nonzero(counts)))
    run = 1
    while (needed := int(np.sum(-(-counts // run)))) > most:
        run = max(run + 1, run * needed // most)
    first = np.cumsum(-(-counts // run)) - -(-counts // run)
    cell = np.empty(len(group), np.int64)
    for index, count in enumerate(counts.tolist()):
        cell[group == index] = first[index] + np.arange(count) // run
    return cell, run


class Chooser:
    """Keeps the highest peak of each cell and the highest peaks of all; any split into blocks gives the same answer.

    Parameters
    ----------
    cell
        Run of each token, of shape (tokens,).
    layers
        Number of layers.
    last
        Tokens whose peaks fill the places that are left only after those of all others, bool of shape (tokens,).
    threshold
        Peaks lower than this are counted, never chosen.
    """

    def __init__(self, cell: Ints, layers: int, last: Bools, threshold: float = defaults.THRESHOLD) -> None:
        cells = int(cell.max(initial=-1) + 1) * layers
        self.total = self.infinite = 0
        self._cell, self._layers, self._last, self._threshold = cell, layers, last, threshold
        self._best_height = np.full(cells, -np.inf)
        self._best_id = np.full(cells, -1, np.int64)
        self._others, self._lasts = _Highest(MAX_POINTS), _Highest(MAX_POINTS)

    def add(self, token: Ints, layer: Ints, height: Floats, peak: Ints) -> None:
        """Take in one block: places of the tokens and layers, heights (NaN = no peak) and ascending ids."""
        height = np.asarray(height, np.float64)
        infinite = without_number(height)
        self.infinite += int(np.count_nonzero(infinite))
        self.total += int(np.count_nonzero(~infinite & ~np.isnan(height)))
        high = np.flatnonzero((height >= self._threshold) & ~infinite)  # False for NaN
        token, layer, height, peak = token[high], layer[high], height[high], peak[high]
        self._add_to_cells(self._cell[token] * self._layers + layer, height, peak)
        last = self._last[token]
        self._others.add(height[~last], peak[~last])
        self._lasts.add(height[last], peak[last])

    def _add_to_cells(self, cell: Ints, height: Floats, peak: Ints) -> None:
        before = self._best_height.copy()
        np.maximum.at(self._best_height, cell, height)
        new = np.flatnonzero((height == self._best_height[cell]) & (height > before[cell]))[::-1]
        self._best_id[cell[new]] = peak[new]  # written backwards: of equals, the first stays

    def chosen(self) -> Ints:
        """Ascending ids of the chosen peaks, at most `MAX_POINTS` (more only if there are more layers than that)."""
        highest = _Highest(ALWAYS)
        for some in (self._others, self._lasts):
            highest.add(some.height, some.peak)
        certain = np.union1d(self._best_id[self._best_id >= 0], highest.peak)
        ranked = np.concatenate([self._others.ranked(), self._lasts.ranked()])
        rest = ranked[~np.isin(ranked, certain)]
        return np.sort(np.concatenate([certain, rest[: max(MAX_POINTS - len(certain), 0)]]))


class _Highest:
    """The highest peaks so far; of equals, those of lowest id."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.height, self.peak = np.empty(0), np.empty(0, np.int64)

    def add(self, height: Floats, peak: Ints) -> None:
        floor = self.height.min() if len(self.height) >= self._count else -np.inf
        keep = height >= floor
        self.height = np.concatenate([self.height, height[keep]])
        self.peak = np.concatenate([self.peak, peak[keep]])
        if len(self.height) <= self._count:
            return
        limit = np.partition(self.height, -self._count)[-self._count]
        above, equal = np.flatnonzero(self.height > limit), np.flatnonzero(self.height == limit)
        kept = np.concatenate([above, equal[np.argsort(self.peak[equal])][: self._count - len(above)]])
        self.height, self.peak = self.height[kept], self.peak[kept]

    def ranked(self) -> Ints:
        """Their ids, highest first."""
        return self.peak[np.lexsort((self.peak, -self.height))]


def _peak_blocks(dataset: xr.Dataset, quantity: str, tokens: Ints, layers: Ints) -> Iterator[Block]:
    peaks = dataset[quantity]
    of_layer = np.searchsorted(dataset["layer"].values, layers)
    count, k = dataset.sizes[names.LAYER], dataset.sizes[names.PEAK]
    for begin, end in _spans(tokens, BLOCK // (count * k)):
        here = tokens[begin:end]
        block = np.abs(peaks[here[0] : here[-1] + 1].values[here - here[0]][:, of_layer].astype(np.float64))
        token, layer, rank = (index.ravel() for index in np.indices(block.shape))
        yield begin + token, layer, block.ravel(), (here[token] * count + of_layer[layer]) * k + rank


def _row_blocks(dataset: xr.Dataset, quantity: str, tokens: Ints, layers: Ints) -> Iterator[Block]:
    for begin in range(0, dataset.sizes[names.ROW], BLOCK):
        here = slice(begin, begin + BLOCK)
        token, in_tokens = _places(tokens, dataset["row_token"][here].values)
        layer, in_layers = _places(layers, dataset["row_layer"][here].values)
        keep = np.flatnonzero(in_tokens & in_layers)
        yield token[keep], layer[keep], np.abs(dataset[quantity][here].values[keep]), begin + keep


def _places(sorted_values: Ints, values: NDArray[np.integer]) -> tuple[Ints, Bools]:
    """Place of each value in an ascending array, and whether it is there at all."""
    place = np.searchsorted(sorted_values, values).clip(max=max(len(sorted_values) - 1, 0))
    return place, (sorted_values[place] == values if len(sorted_values) else np.zeros(len(values), bool))


def _spans(tokens: Ints, length: int) -> Iterator[tuple[int, int]]:
    """Cut ascending token indices into slices that each reach over at most `length` tokens of the dataset."""
    begin = 0
    while begin < len(tokens):
        end = int(np.searchsorted(tokens, tokens[begin] + max(length, 1)))
        yield begin, end
        begin = end


def _peaks_at(dataset: xr.Dataset, chosen: Ints) -> Columns:
    count, k = dataset.sizes[names.LAYER], dataset.sizes[names.PEAK]
    token, layer, rank = np.unravel_index(chosen, (dataset.sizes[names.TOKEN], count, k))
    stored = {name: dataset[name] for name in _COLUMNS if name in dataset}
    found = {  # float32 stays float32
        name: np.empty(len(chosen), np.result_type(array.dtype, np.float32) if name in _FLOATS else np.int64)
        for name, array in stored.items()
    }
    for begin, end in _spans(token, BLOCK // (count * k)):
        here, there, at = token[begin:end], layer[begin:end], rank[begin:end]
        for name, array in stored.items():
            found[name][begin:end] = array[here[0] : here[-1] + 1].values[here - here[0], there, at]
    number = dataset["layer"].values[layer].astype(np.int64)
    expert, neuron = found.get("peak_expert", _NONE), found.get("peak_neuron", np.full(len(chosen), -1))
    return token, number, expert, neuron, found.get("peak_value", _NONE), found.get("peak_write", _NONE)


def _rows_at(dataset: xr.Dataset, chosen: Ints) -> Columns:
    token, layer, neuron = (
        dataset[name].values[chosen].astype(np.int64) for name in ("row_token", "row_layer", "row_neuron")
    )
    value = dataset["imported_norm"].values[chosen].astype(np.float64)
    return token, layer, _NONE, neuron, value, _NONE
