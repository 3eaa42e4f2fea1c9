"""A trace as CSV or Parquet files: the rows of an import as they were, or one row for each recorded peak."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from stratoscope.disk import step
from stratoscope.errors import InputError
from stratoscope.names import CSV_COLUMNS, CSV_EXPERT, CSV_PEAK_VALUE, CSV_PROMPT, CSV_WRITE_NORM, ROW
from stratoscope.replacing import new_files, refused
from stratoscope.trace.csv.columns import Columns
from stratoscope.trace.csv.escapes import COLUMN, MARK, are_harmless, escaped, escaped_name
from stratoscope.trace.csv.file import file_identity, text_file
from stratoscope.trace.csv.header import read_header
from stratoscope.trace.csv.parquet import arrow
from stratoscope.trace.csv.table import ANY_COLUMNS
from stratoscope.trace.export.output import check_place
from stratoscope.trace.format.attributes import objects_in
from stratoscope.trace.format.text import spelled
from stratoscope.trace.labels import object_array, unique
from stratoscope.trace.opened import Inputs, opened
from stratoscope.trace.prompts import PromptChoice, Prompts

Block = Sequence[np.ndarray]  # one array per column, equally long

_BLOCK_ROWS = 2**17
_NEEDS_QUOTES = re.compile(r'[",\r\n]|^\s|\s$')
_UNSAFE = re.compile(r"[^\w.-]+")
_LONGEST_NAME = 80


@dataclass(frozen=True)
class PromptRows:
    """The rows of one prompt: column names, the columns block by block, and every text that stands in them."""

    columns: tuple[str, ...]
    blocks: Iterator[Block]
    texts: Iterator[str]


RowsOf = Callable[[int], PromptRows]  # of the prompt with that index
Write = Callable[[Path, PromptRows], None]


def export_csv(
    trace: Inputs,
    out: str | os.PathLike[str],
    *,
    columns: Columns = None,
    prompt: PromptChoice = None,
    one_file: bool = False,
    parquet: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """Write a trace as CSV, one file per prompt or all in one.

    Parameters
    ----------
    trace
        A trace, CSV or Parquet files (one prompt each), or a Dataset. An import gives back its rows, in order and with
        its further columns. Any other trace gives one row for each peak of each token and layer, `Activation_Norm`
        being |a_i|, with `Peak_Value` (a_i) and `Write_Norm` (|a_i|·‖W_:,i‖₂) added, of a mixture of experts also
        `Expert` (−1: a dense or shared MLP); peaks that were not recorded have no row.
    columns
        Which column of CSV files is which, as in `import_csv`.
    out
        The file to write; of several prompts, `<stem>-<prompt id>.csv` each.
    prompt
        Only this prompt, or these: ids or indices; of a Dataset that was cut, among the prompts that are left.
    one_file
        All prompts in one file, with the id of each in a last column, `Prompt`; columns that only some of the files of
        an import had are empty elsewhere. `import_csv` takes one prompt a file, so this one is for other tools.
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

    Examples
    --------
    >>> import stratoscope
    >>> trace = stratoscope.simulate(prompts=4, layers=3)
    >>> files = stratoscope.export_csv(trace, "fire.csv", prompt="critical-1")
    >>> with open("fire.csv") as file:
    ...     print(file.readline() + file.readline(), end="")
    Token_Pos,Token,Layer,Neuron_ID,Activation_Norm,Peak_Value,Write_Norm
    0,<s>,0,147,0.22649476,-0.22649476,0.22041081
    """
    dataset = opened(trace, columns)
    prompts = Prompts(dataset)
    ids, chosen = prompts.ids, prompts.find_all(prompt)
    _check_ending(Path(out), ".parquet" if parquet else ".csv")
    rows_of = _contents(prompts, together=one_file)
    if one_file:
        targets, contents = [Path(out)], iter([_together(rows_of, {index: ids[index] for index in chosen})])
    else:
        targets, contents = _targets(Path(out), [ids[index] for index in chosen]), map(rows_of, chosen)
    _check_targets(targets, dataset, overwrite=overwrite)
    _write_all(targets, contents, _parquet_writer() if parquet else _write_csv, overwrite)
    return targets


def _targets(file: Path, ids: Sequence[str]) -> list[Path]:
    if len(ids) == 1:
        return [file]
    names = unique((_UNSAFE.sub("_", identity)[:_LONGEST_NAME] for identity in ids), fold=True)
    return [file.with_name(f"{file.stem}-{name}{file.suffix}") for name in names]


def _check_ending(file: Path, ending: str) -> None:
    with refused(file):
        if file.exists() and not file.is_file() and not file.is_dir():
            raise InputError("is not a regular file", where=str(file), fix="Give another name.")
    if file.suffix.lower() != ending:
        raise InputError(f"does not end in {ending}", where=str(file), fix=f"Name it {file.stem}{ending}.")


def _check_targets(targets: Sequence[Path], dataset: xr.Dataset, *, overwrite: bool) -> None:
    imported = _imported_files(dataset)
    for target in targets:
        check_place(target, overwrite=overwrite)
        if target.exists() and file_identity(target) in imported:
            raise InputError(
                "is the file that this trace was imported from", where=str(target), fix="Give another name."
            )


def _imported_files(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """The identity of each file that a trace was imported from."""
    plan = dataset.attrs.get("plan")
    files = plan.get("files") if isinstance(plan, Mapping) else None
    known = [one for one in files if isinstance(one, Mapping)] if isinstance(files, list) else []
    return [{key: one.get(key) for key in ("bytes", "sha256")} for one in known]


# --- what stands in the files ---------------------------------------------------------------------------------------


def _contents(prompts: Prompts, *, together: bool) -> RowsOf:
    if ROW in prompts.dataset.dims:
        return _imported(prompts, all_columns=together)
    if {"peak_neuron", "peak_value", "peak_write"} <= set(prompts.dataset.variables):
        return _peaks(prompts)
    raise InputError(
        "this trace holds no peaks, so there are no rows to write",
        fix="Record them: stratoscope capture … --record peaks.",
    )


def _together(rows_of: RowsOf, ids: Mapping[int, str]) -> PromptRows:
    """The rows of several prompts, by index, one after the other, each with the id of its prompt at the end."""
    parts = {index: rows_of(index) for index in ids}
    columns = next(iter(parts.values())).columns
    if CSV_PROMPT in columns:
        fix = "Export the prompts to a file each: leave --one-file out."
        raise InputError(f"the trace has a column {CSV_PROMPT} of its own", fix=fix)
    blocks = (
        (*block, object_array([ids[index]] * len(block[0]))) for index, part in parts.items() for block in part.blocks
    )
    texts = chain(ids.values(), *(part.texts for part in parts.values()))
    return PromptRows((*columns, CSV_PROMPT), blocks, texts)


def _imported(prompts: Prompts, *, all_columns: bool) -> RowsOf:
    """The rows of each prompt's file, with its own further columns or those of all files."""
    dataset, position = prompts.dataset, prompts.dataset["position"].values
    if ROW not in prompts.bounds:
        raise InputError("the rows of different prompts are mixed", fix="Export a trace as `import` made it.")

    def rows_of(prompt: int) -> Iterator[slice]:
        return _slices(prompts.run(prompt, prompt + 1)[ROW], _BLOCK_ROWS)

    def blocks(prompt: int, extra: Iterable[str]) -> Iterator[Block]:
        for here in rows_of(prompt):
            token, row_token = np.unique(dataset["row_token"][here].values, return_inverse=True)
            yield (
                position[token][row_token],
                dataset["text"][token].values[row_token],
                *(dataset[name][here].values for name in ("row_layer", "row_neuron", "imported_norm", *extra)),
            )

    def texts(prompt: int, extra: Iterable[str]) -> Iterator[str]:
        yield from _texts(prompts, prompt)
        for here in rows_of(prompt):
            for name in extra:
                yield from dataset[name][here].values

    def rows(prompt: int) -> PromptRows:
        extra = _extra_columns(prompts, None if all_columns else prompt)
        return PromptRows((*CSV_COLUMNS, *extra), blocks(prompt, extra.values()), texts(prompt, extra.values()))

    return rows


def _extra_columns(prompts: Prompts, prompt: int | None) -> dict[str, str]:
    """Further columns that the prompt's own file had, or any (None), and the variables that hold them."""
    dataset, held = prompts.dataset, dict[str, str]()
    while (variable := f"column_{len(held)}") in dataset.variables:
        held[str(dataset[variable].attrs["column"])] = variable
    if prompt is None:
        return held
    identity = prompts.ids[prompt]
    files = objects_in((dataset.attrs.get("plan") or {}).get("files"))
    own = next((entry.get("extra_columns") for entry in files if entry.get("prompt_id") == identity), None)
    named = own if isinstance(own, list) else list(held)
    return {column: held[column] for column in named if isinstance(column, str) and column in held}


def _peaks(prompts: Prompts) -> RowsOf:
    dataset, layer = prompts.dataset, prompts.dataset["layer"].values
    experts = "peak_expert" in dataset
    tokens_at_once = max(1, _BLOCK_ROWS // max(1, dataset["peak_value"][:1].size))

    def blocks(prompt: int) -> Iterator[Block]:
        for here in _slices(prompts.tokens(prompt), tokens_at_once):
            neuron, value, write = (dataset[name][here].values for name in ("peak_neuron", "peak_value", "peak_write"))
            recorded = (neuron >= 0) & ~np.isnan(value)
            token, place, _ = np.nonzero(recorded)
            value = value[recorded]
            position, text = (dataset[name][here].values[token] for name in ("position", "text"))
            expert = (dataset["peak_expert"][here].values[recorded],) if experts else ()
            yield position, text, layer[place], neuron[recorded], np.abs(value), value, write[recorded], *expert

    columns = (*CSV_COLUMNS, CSV_PEAK_VALUE, CSV_WRITE_NORM, *((CSV_EXPERT,) if experts else ()))
    return lambda prompt: PromptRows(columns, blocks(prompt), _texts(prompts, prompt))


def _texts(prompts: Prompts, prompt: int) -> Iterator[str]:
    yield from prompts.words(prompts.tokens(prompt))


def _slices(whole: slice, length: int) -> Iterator[slice]:
    return (slice(start, min(start + length, whole.stop)) for start in range(whole.start, whole.stop, length))


# --- how they are written -------------------------------------------------------------------------------------------


def _write_all(targets: Sequence[Path], contents: Iterable[PromptRows], write: Write, overwrite: bool) -> None:
    """Write every file beside its target; put them in place when all are whole."""
    with new_files(targets, overwrite=overwrite) as paths:
        for path, rows in zip(paths, contents, strict=True):
            step("write", path)
            write(path, rows)


def _write_csv(path: Path, rows: PromptRows) -> None:
    harmless = are_harmless(rows.columns) and are_harmless(rows.texts) and COLUMN not in rows.columns
    cell = _quoted if harmless else _quoted_escaped
    columns, end = (rows.columns, "\n") if harmless else ((*map(escaped_name, rows.columns), COLUMN), f",{MARK}\n")
    with path.open("w", encoding="utf-8", newline="") as stream:
        header = stream.write(",".join(map(_quoted, columns)) + "\n")
        for block in rows.blocks:
            stream.writelines(
                f"{','.join(cells)}{end}" for cells in zip(*(_cells(one, cell) for one in block), strict=True)
            )
        written = stream.tell()
    if path.stat().st_size != written:
        raise InputError("was not written as a whole", where=str(path), fix="Free some space, or write elsewhere.")
    if written > header:  # there are rows
        read_header(text_file(path), ANY_COLUMNS)  # as whoever imports it will


def _cells(values: np.ndarray, cell: Callable[[str], str]) -> Iterable[str]:
    """Values as text that reads back as the same values; float32 in the fewest digits that do."""
    if values.dtype == object:
        return map(cell, values)
    if values.dtype == np.float32:
        return list(values.astype(str))
    return map(repr, values.tolist())


@lru_cache(maxsize=2**16)
def _quoted(text: str) -> str:
    text = spelled(text)
    return '"' + text.replace('"', '""') + '"' if _NEEDS_QUOTES.search(text) else text


def _quoted_escaped(text: str) -> str:
    return _quoted(escaped(text))


def _parquet_writer() -> Write:
    pyarrow = arrow()

    def write(path: Path, rows: PromptRows) -> None:
        writer = None
        for block in rows.blocks:
            arrays = [pyarrow.array(_arrow_ready(values)) for values in block]
            table = pyarrow.table(arrays, names=rows.columns)
            writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
        if writer is None:
            raise InputError("this prompt has no rows to write", where=path.name, fix="Choose another prompt.")
        writer.close()
        pyarrow.parquet.ParquetFile(path).close()  # reads what stands at its end

    return write


def _arrow_ready(values: np.ndarray) -> np.ndarray:
    return np.array([spelled(text) for text in values], dtype=object) if values.dtype == object else values
