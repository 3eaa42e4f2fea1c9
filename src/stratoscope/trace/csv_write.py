"""A trace as CSV or Parquet files: the rows of an import as they were, or one row for each recorded peak."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import xarray as xr

from stratoscope.errors import InputError
from stratoscope.names import CSV_COLUMNS, CSV_EXPERT, CSV_PEAK_VALUE, CSV_WRITE_NORM, PROMPT, ROW
from stratoscope.trace.csv_parquet import arrow
from stratoscope.trace.labels import unique
from stratoscope.trace.legal import opened
from stratoscope.trace.text import spelled

Block = Sequence[np.ndarray]  # one array per column, equally long

_BLOCK_ROWS = 2**17
_NEEDS_QUOTES = re.compile(r'[",\r\n]|^\s|\s$')
_UNSAFE = re.compile(r"[^\w.-]+")
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Rows:
    """The rows of one prompt: column names, and the columns block by block."""

    columns: tuple[str, ...]
    blocks: Iterator[Block]


RowsOf = Callable[[int], Rows]  # of the prompt with that index
Write = Callable[[Path, Rows], None]


def export_csv(
    trace: xr.Dataset | str | os.PathLike[str],
    file: str | os.PathLike[str],
    *,
    prompt: str | int | None = None,
    parquet: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """Write a trace as CSV, one file per prompt.

    Parameters
    ----------
    trace
        An import gives back its rows, in order and with its further columns. Any other trace gives one row for each
        peak of each token and layer, `Activation_Norm` being |a_i|, with `Peak_Value` (a_i) and `Write_Norm`
        (|a_i|·‖W_:,i‖₂) added, of a mixture of experts also `Expert` (−1: a dense or shared MLP); peaks that were not
        recorded have no row.
    file
        The file to write; of several prompts, `<stem>-<prompt id>.csv` each.
    prompt
        Only this prompt: its id, or its index.
    parquet
        Write Parquet instead (needs the `parquet` extra).
    overwrite
        Replace files that are already there.

    Returns
    -------
    list of pathlib.Path
        The files written, in the order of the prompts.

    Raises
    ------
    InputError
        No such prompt, nothing to export, a file is already there or cannot be written.
    """
    dataset = opened(trace)
    ids = [str(identity) for identity in dataset["prompt_id"].values]
    chosen = list(range(len(ids))) if prompt is None else [_find(prompt, ids)]
    _check_ending(Path(file), ".parquet" if parquet else ".csv")
    targets = _targets(Path(file), [ids[index] for index in chosen])
    _check_targets(targets, overwrite=overwrite)
    _write_all(targets, map(_contents(dataset), chosen), _parquet_writer() if parquet else _write_csv)
    return targets


def _find(prompt: str | int, ids: Sequence[str]) -> int:
    if isinstance(prompt, str) and prompt in ids:  # an int is always a place
        return ids.index(prompt)
    if re.fullmatch(r"[0-9]+", str(prompt), re.ASCII) and int(prompt) < len(ids):
        return int(prompt)
    raise InputError(
        f"there is no prompt {str(prompt)!r}", where="prompt", fix=f"Give an id, or an index from 0 to {len(ids) - 1}."
    )


def _targets(file: Path, ids: Sequence[str]) -> list[Path]:
    if len(ids) == 1:
        return [file]
    names = unique((_UNSAFE.sub("_", identity)[:_LONGEST_NAME] for identity in ids), fold=True)
    return [file.with_name(f"{file.stem}-{name}{file.suffix}") for name in names]


def _check_ending(file: Path, ending: str) -> None:
    if file.exists() and not file.is_file() and not file.is_dir():
        raise InputError("is not a regular file", where=str(file), fix="Choose another output file.")
    if file.suffix.lower() != ending:
        raise InputError(f"does not end in {ending}", where=str(file), fix=f"Name it {file.stem}{ending}.")


def _check_targets(targets: Sequence[Path], *, overwrite: bool) -> None:
    folder = targets[0].parent
    if not folder.is_dir():
        raise InputError("there is no such folder", where=str(folder), fix="Make it first, or choose another.")
    for target in targets:
        if target.is_dir():
            raise InputError("a folder is in the way", where=str(target), fix="Choose another output file.")
        if target.exists() and not overwrite:
            raise InputError("this file already exists", where=str(target), fix="Use --overwrite or another output.")


# --- what stands in the files ---------------------------------------------------------------------------------------


def _contents(dataset: xr.Dataset) -> RowsOf:
    if ROW in dataset.dims:
        return _imported(dataset)
    if {"peak_neuron", "peak_value", "peak_write"} <= set(dataset.variables):
        return _peaks(dataset)
    raise InputError(
        "this trace holds no peaks, so there are no rows to write",
        fix="Record them: stratoscope capture … --record peaks.",
    )


def _imported(dataset: xr.Dataset) -> RowsOf:
    bounds, position = _row_bounds(dataset), dataset["position"].values

    def blocks(prompt: int, extra: Iterable[str]) -> Iterator[Block]:
        for here in _slices(bounds[prompt], bounds[prompt + 1], _BLOCK_ROWS):
            token, row_token = np.unique(dataset["row_token"][here].values, return_inverse=True)
            yield (
                position[token][row_token],
                dataset["text"][token].values[row_token],
                *(dataset[name][here].values for name in ("row_layer", "row_neuron", "imported_norm", *extra)),
            )

    def rows(prompt: int) -> Rows:
        extra = _extra_columns(dataset, prompt)
        return Rows((*CSV_COLUMNS, *extra), blocks(prompt, extra.values()))

    return rows


def _extra_columns(dataset: xr.Dataset, prompt: int) -> dict[str, str]:
    """Further columns that the prompt's own file had, and the variables that hold them."""
    held: dict[str, str] = {}
    while (variable := f"column_{len(held)}") in dataset.variables:
        held[str(dataset[variable].attrs["column"])] = variable
    files = {entry["prompt_id"]: entry for entry in dataset.attrs.get("plan", {}).get("files", [])}
    own = files.get(str(dataset["prompt_id"].values[prompt]), {}).get("extra_columns", list(held))
    return {column: held[column] for column in own}


def _row_bounds(dataset: xr.Dataset) -> np.ndarray:
    """Where the rows of each prompt begin, and the last ones end; they stand in the order of the prompts."""
    prompt = dataset["prompt"].values
    counts = np.zeros(dataset.sizes[PROMPT], np.int64)
    last = 0
    for here in _slices(0, dataset.sizes[ROW], 2**20):
        of_row = prompt[dataset["row_token"][here].values]
        if of_row[0] < last or (np.diff(of_row) < 0).any():
            raise InputError("the rows of different prompts are mixed", fix="Export a trace as `import` made it.")
        last = of_row[-1]
        counts += np.bincount(of_row, minlength=len(counts))
    return np.concatenate([[0], np.cumsum(counts)])


def _peaks(dataset: xr.Dataset) -> RowsOf:
    layer, prompt_of = dataset["layer"].values, dataset["prompt"].values
    experts = "peak_expert" in dataset
    tokens_at_once = max(1, _BLOCK_ROWS // max(1, dataset["peak_value"][:1].size))

    def blocks(prompt: int) -> Iterator[Block]:
        begin, end = np.searchsorted(prompt_of, [prompt, prompt + 1])
        for here in _slices(begin, end, tokens_at_once):
            neuron, value, write = (dataset[name][here].values for name in ("peak_neuron", "peak_value", "peak_write"))
            recorded = (neuron >= 0) & ~np.isnan(value)
            token, place, _ = np.nonzero(recorded)
            value = value[recorded]
            position, text = (dataset[name][here].values[token] for name in ("position", "text"))
            expert = (dataset["peak_expert"][here].values[recorded],) if experts else ()
            yield position, text, layer[place], neuron[recorded], np.abs(value), value, write[recorded], *expert

    columns = (*CSV_COLUMNS, CSV_PEAK_VALUE, CSV_WRITE_NORM, *((CSV_EXPERT,) if experts else ()))
    return lambda prompt: Rows(columns, blocks(prompt))


def _slices(begin: int | np.integer, end: int | np.integer, length: int) -> Iterator[slice]:
    return (slice(start, min(start + length, int(end))) for start in range(int(begin), int(end), length))


# --- how they are written -------------------------------------------------------------------------------------------


def _write_all(targets: Sequence[Path], contents: Iterable[Rows], write: Write) -> None:
    """Write every file beside its target; put them in place when all are whole."""
    places = [(target.with_name(f".{target.name}.partial"), target) for target in targets]
    try:
        for (path, _), rows in zip(places, contents, strict=True):
            write(path, rows)
            _sync(path)
        for path, target in places:
            path.replace(target)
    except OSError as error:
        raise InputError(
            f"cannot be written ({error.strerror or error})",
            where=str(targets[0]),
            fix="Free some space, or choose another output.",
        ) from None
    finally:
        for path, _ in places:
            path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _write_csv(path: Path, rows: Rows) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        stream.write(",".join(map(_quoted, rows.columns)) + "\n")
        for block in rows.blocks:
            stream.writelines(f"{','.join(cells)}\n" for cells in zip(*map(_cells, block), strict=True))


def _cells(values: np.ndarray) -> Iterable[str]:
    """Values as text that reads back as the same values; float32 in the fewest digits that do."""
    if values.dtype == object:
        return map(_quoted, values)
    if values.dtype == np.float32:
        return list(values.astype(str))
    return map(repr, values.tolist())


@lru_cache(maxsize=2**16)
def _quoted(text: str) -> str:
    text = spelled(text)
    return '"' + text.replace('"', '""') + '"' if _NEEDS_QUOTES.search(text) else text


def _parquet_writer() -> Write:
    pyarrow = arrow()

    def write(path: Path, rows: Rows) -> None:
        writer = None
        for block in rows.blocks:
            arrays = [pyarrow.array(_arrow_ready(values)) for values in block]
            table = pyarrow.table(arrays, names=rows.columns)
            writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
        if writer is None:
            raise InputError("this prompt has no rows to write", where=path.name, fix="Choose another prompt.")
        writer.close()

    return write


def _arrow_ready(values: np.ndarray) -> np.ndarray:
    return np.array([spelled(text) for text in values], dtype=object) if values.dtype == object else values
