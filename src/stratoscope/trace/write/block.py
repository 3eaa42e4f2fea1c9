"""What a block must be to be let into a trace, and what it becomes on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from stratoscope.errors import TraceError
from stratoscope.names import DEPTH, EDGE, HEAD, LAYER, LENS, NEURON, OPENER, PEAK, PROMPT, ROW, TARGET, TOKEN, edges
from stratoscope.trace.format.array_document import MAX_GROWING_LENGTH, MAX_LENGTH
from stratoscope.trace.format.legal import check_numbers
from stratoscope.trace.format.schema import MAX_COLUMNS, Block, Layout, Sizes, text_columns, trace_layouts
from stratoscope.trace.format.text import encode_texts

_WORDS = {
    LAYER: "different layers",
    DEPTH: "depths",
    HEAD: "heads",
    PEAK: "peaks",
    OPENER: "openers",
    TARGET: "targets",
    LENS: "lenses",
    NEURON: "neurons",
}
_FEWER = "Take fewer; if these are not what they are called, say which column or setting is which."
_FIX = "This is a fault of the program that records, not of the input."


@dataclass(frozen=True)
class Totals:
    """How much of a trace there is: the length of each array, and the bytes taken in since the writer was opened."""

    lengths: Mapping[str, int] = field(default_factory=dict)
    bytes: int = 0

    @property
    def prompts(self) -> int:
        """Number of prompts."""
        return self.lengths.get("prompt_id_end", 0)

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return self.lengths.get("prompt", 0)

    def plus(self, arrays: Mapping[str, np.ndarray]) -> Totals:
        """Totals after `arrays` as well."""
        grown = {name: self.lengths.get(name, 0) + len(values) for name, values in arrays.items()}
        return Totals({**self.lengths, **grown}, self.bytes + sum(values.nbytes for values in arrays.values()))


@dataclass(frozen=True)
class Prepared:
    """A block as it goes to disk, and the totals after it."""

    arrays: dict[str, np.ndarray]
    after: Totals


@dataclass(frozen=True)
class BlockPlan:
    """What every block of one trace must hold, and how it is turned into arrays on disk.

    Attributes
    ----------
    layouts
        Every array of the trace.
    sizes
        Lengths of the fixed dimensions.
    axes
        Values of the arrays that do not grow: coordinates of layers, and noise floors.
    texts
        Text columns with their dimension.
    streams
        dtype of the streamed arrays, whose rows do not come in blocks.
    """

    layouts: dict[str, Layout]
    sizes: dict[str, int]
    axes: dict[str, np.ndarray]
    texts: dict[str, str]
    streams: dict[str, str]

    @classmethod
    def of(
        cls,
        layers: Sequence[int],
        sizes: Sizes,
        variables: Sequence[str],
        row_columns: Sequence[str],
        *,
        source: str,
        fixed: Mapping[str, np.ndarray],
        streams: Mapping[str, str],
    ) -> BlockPlan:
        """The plan of a trace; arguments as those of `TraceWriter`."""
        if not layers:
            raise TraceError("a trace needs at least one layer", fix=_FIX)
        layouts = trace_layouts([*variables, *fixed], row_columns, source, streams)
        check_numbers(np.asarray(layers), LAYER)
        lengths = {DEPTH: len(layers) + 1, **sizes, LAYER: len(layers)}
        values = {LAYER: np.asarray(layers, np.int32), DEPTH: np.arange(lengths[DEPTH], dtype=np.int32)}
        _refuse_large(lengths, row_columns)
        axes = {name: axis for name, axis in values.items() if name in layouts} | dict(fixed)
        for name in fixed:
            _check_array(axes[name], layouts[name], layouts[name].shape(lengths))
        return cls(layouts, lengths, axes, text_columns(row_columns), dict(streams))

    def streamed_rows(self, block: Block) -> dict[str, int]:
        """Rows that a block's prompts have in each streamed array."""
        lengths = np.bincount(block.arrays["prompt"]).tolist()
        rows = {TOKEN: sum(lengths), EDGE: sum(edges(length) for length in lengths)}
        return {name: rows[self.layouts[name].dims[0]] for name in self.streams}

    def prepare(self, block: Block, before: Totals) -> Prepared:
        """Check a block and copy it into the arrays that go to disk after `before`.

        Raises
        ------
        TraceError
            With the array concerned, when something is missing, unknown, of another shape, or does not fit.
        """
        texts = {f"{column}_{part}" for column in self.texts for part in ("bytes", "end")}
        numeric = {k: v for k, v in self.layouts.items() if v.grows and k not in texts and not v.streamed}
        self._check(block, numeric)
        shift = {"prompt": before.prompts, "row_token": before.tokens}
        arrays = {name: block.arrays[name].astype(layout.dtype) for name, layout in numeric.items()}
        for name in shift.keys() & arrays.keys():
            arrays[name] += arrays[name].dtype.type(shift[name])
        for column in self.texts:
            data, ends = encode_texts(block.texts[column], column)
            arrays[f"{column}_bytes"], arrays[f"{column}_end"] = data, ends + before.lengths.get(f"{column}_bytes", 0)
        return Prepared(arrays, before.plus(arrays))

    def _check(self, block: Block, numeric: Mapping[str, Layout]) -> None:
        _check_names("arrays", block.arrays, numeric)
        _check_names("texts", block.texts, self.texts)
        rows = len(block.arrays["row_token"]) if "row_token" in numeric else 0
        lengths = {PROMPT: len(block.texts["prompt_id"]), TOKEN: len(block.texts["text"]), ROW: rows}
        for column, dim in self.texts.items():
            if len(block.texts[column]) != lengths[dim]:
                _refuse(column, f"has {len(block.texts[column])} texts instead of {lengths[dim]}, one per {dim}")
        for name, layout in numeric.items():
            _check_array(block.arrays[name], layout, layout.shape(self.sizes, lengths[layout.dims[0]]))
        _check_prompts(block.arrays["prompt"], lengths[PROMPT])
        if rows:
            _check_range(block.arrays["row_token"], "row_token", 0, lengths[TOKEN] - 1)
            if not np.isin(block.arrays["row_layer"], self.axes[LAYER]).all():
                _refuse("row_layer", "holds a block number that is not on the trace's layer axis")


def _refuse(name: str, what: str) -> NoReturn:
    raise TraceError(f"a block's '{name}' {what}", fix=_FIX)


def _refuse_large(lengths: Mapping[str, int], row_columns: Sequence[str]) -> None:
    """Raise where an axis or the number of columns is more than a reader takes."""
    for dim, length in sorted(lengths.items(), key=lambda one: one[0] == DEPTH):  # which follows from the layers
        most = MAX_LENGTH.get(dim, MAX_GROWING_LENGTH)
        if length > most:
            raise TraceError(
                f"there are {length:,} {_WORDS.get(dim, dim)}, and a trace holds at most {most:,}", fix=_FEWER
            )
    if len(row_columns) > MAX_COLUMNS:
        what = f"there are {len(row_columns):,} further columns, and a trace holds at most {MAX_COLUMNS:,}"
        raise TraceError(what, fix="Leave out the columns that nobody needs.")


def _check_names(kind: str, given: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    missing, unknown = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing:
        raise TraceError(f"a block lacks the {kind} {', '.join(missing)}", fix=_FIX)
    if unknown:
        raise TraceError(f"a block has {kind} the trace was not opened with: {', '.join(unknown)}", fix=_FIX)


def _check_array(values: np.ndarray, layout: Layout, shape: tuple[int, ...]) -> None:
    if not isinstance(values, np.ndarray):
        _refuse(layout.name, "must be a NumPy array")
    if values.shape != shape:
        _refuse(layout.name, f"has shape {values.shape} instead of {shape} ({' × '.join(layout.dims)})")
    target = np.dtype(layout.dtype)
    if target.kind == "f" and not np.can_cast(values.dtype, target, "safe"):
        _refuse(layout.name, f"is {values.dtype}, which {target} cannot hold")
    if target.kind == "i" and values.dtype.kind not in "iu":
        _refuse(layout.name, f"is {values.dtype} instead of {target}")
    if target.kind == "i" and values.dtype != target:
        _check_range(values, layout.name, np.iinfo(target).min, np.iinfo(target).max)


def _check_range(values: np.ndarray, name: str, low: int, high: int) -> None:
    if values.size and not (low <= int(values.min()) and int(values.max()) <= high):
        _refuse(name, f"has values outside {low} … {high}")


def _check_prompts(prompt: np.ndarray, prompts: int) -> None:
    steps = np.diff(prompt.astype(np.int64), prepend=-1, append=prompts)
    within = (steps[1:-1] == 0) | (steps[1:-1] == 1)
    if not (prompts and steps[0] == 1 and steps[-1] == 1 and within.all()):
        _refuse("prompt", f"must count the block's {prompts} prompts 0, 0, …, 1, … in order, each with a token")
