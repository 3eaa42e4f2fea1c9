"""The CSV people have today, one row per token, layer and neuron, as a Dataset; `docs/csv.md` is its description."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

import numpy as np
import pandas as pd
import xarray as xr

from stratoscope import defaults
from stratoscope.errors import InputError, UsageError, choices, refuse_unknown
from stratoscope.names import AXES, CSV_COLUMNS, CSV_VALUE, IMPORTED, SPANS, Axis
from stratoscope.trace.csv.columns import Columns, folded, wanted_columns
from stratoscope.trace.csv.file import file_identity, stem
from stratoscope.trace.csv.table import CsvPrompt, read_table
from stratoscope.trace.format import place
from stratoscope.trace.labels import labelled, note, object_array, root_attributes, unique
from stratoscope.words import counted

_SPECIAL = re.compile(
    r"</?s>|<\|.*\|>|<｜.*｜>|<(pad|unk|bos|eos|mask|start_of_turn|end_of_turn)>|\[(CLS|SEP|PAD|MASK|UNK|/?INST)\]",
    re.DOTALL,
)


def read_csv(
    files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    columns: Columns = None,
    prompt_class: str | Sequence[str] | None = None,
    axis: Axis = defaults.AXIS,
) -> xr.Dataset:
    """Read CSV files of `Token_Pos,Token,Layer,Neuron_ID,Activation_Norm` into memory.

    Parameters
    ----------
    files
        One file per prompt: CSV (plain, .gz, .bz2, .xz or a .zip of one file) or Parquet; columns in any order, further
        columns are kept as text.
    columns
        Which column of the files is which, where they are called otherwise: {"Token_Pos": "pos", "Token": "tok"}, or
        the same as text, "Token_Pos=pos,Token=tok". Numbers count the columns from 1, also of files without a header.
    prompt_class
        One class name per file; without it the file's stem.
    axis
        What `Neuron_ID` is an index of: "neuron" (the MLP's activations), "residual" (its output) or "unknown".

    Returns
    -------
    xarray.Dataset
        `imported_norm` (row) in float64 exactly as given, with `row_token`, `row_layer`, `row_neuron`; rows in file
        order, prompts in the order of the files; `column_0`, … for further columns, their name in the attribute
        `column`.

    Raises
    ------
    InputError
        A file cannot be used (says file, line, column, value), or `columns`, `prompt_class` or `axis` do not fit.
    """
    paths = [Path(file) for file in ([files] if isinstance(files, str | os.PathLike) else files)]
    classes = _one_for_each(paths, prompt_class)
    _check_axis(axis)
    wanted = wanted_columns(columns)
    tables = [read_table(path, wanted) for path in paths]
    stems = [stem(path) for path in paths]
    ids = unique(stems)
    extra = list(dict.fromkeys(column for table in tables for column in table.extra))
    texts: dict[str, Sequence[str] | np.ndarray] = {
        "text": np.concatenate([table.text for table in tables]),
        "prompt_id": ids,
        "prompt_class": stems if classes is None else classes,
        **{f"column_{number}": _extra_column(column, tables) for number, column in enumerate(extra)},
    }
    files_read = _file_list(paths, ids, tables)
    attrs = root_attributes(
        IMPORTED,
        ("numpy", "pandas", "xarray"),
        uuid=_uuid(files_read, texts["prompt_class"], axis),
        token_spelling="tokenizer",
        axis=axis,
        plan={"files": files_read},
        notes=_notes(ids, tables),
    )
    dataset = labelled(_arrays(tables), texts, attrs)
    for number, column in enumerate(extra):
        dataset.variables[f"column_{number}"].attrs["column"] = column
    return dataset


def import_csv(
    files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    *,
    columns: Columns = None,
    prompt_class: str | Sequence[str] | None = None,
    axis: Axis = defaults.AXIS,
    overwrite: bool = False,
) -> xr.Dataset:
    """Make a trace of CSV files.

    Parameters
    ----------
    files, columns, prompt_class, axis
        As in `read_csv`.
    out
        The trace to write; without it the Dataset stays in memory.
    overwrite
        Replace a trace that is already there.

    Returns
    -------
    xarray.Dataset
        The trace, opened (`stratoscope.open_trace`).

    Raises
    ------
    InputError
        A file or an argument cannot be used.
    TraceError
        The trace cannot be written.

    Examples
    --------
    >>> import stratoscope
    >>> with open("cat.csv", "w") as file:
    ...     _ = file.write("Token_Pos,Token,Layer,Neuron_ID,Activation_Norm\\n0,The,5,17,0.5\\n1, cat,5,3,2.25\\n")
    >>> trace = stratoscope.import_csv("cat.csv", axis="neuron")
    >>> trace["imported_norm"].values.tolist(), trace["text"].values.tolist(), trace["layer"].values.tolist()
    ([0.5, 2.25], ['The', ' cat'], [5])
    """
    if out is not None:
        place.refuse_without_parent(Path(out).absolute())
        place.refuse_occupied(Path(out).resolve(), overwrite=overwrite)
    dataset = read_csv(files, columns=columns, prompt_class=prompt_class, axis=axis)
    refuse_unheard(columns, [dataset])
    if out is None:
        return dataset
    from stratoscope.trace.read.reader import open_trace
    from stratoscope.trace.write.from_dataset import write_dataset

    write_dataset(dataset, Path(out), overwrite=overwrite)
    return open_trace(Path(out))


def _one_for_each(paths: Sequence[Path], classes: str | Iterable[str] | None) -> list[str] | None:
    """The classes as a list; one text is the class of one file."""
    if not paths:
        raise InputError("no CSV file is given", fix="Name at least one; one file is one prompt.")
    if classes is None:
        return None
    given = [classes] if isinstance(classes, str) else [str(name) for name in classes]
    if len(given) != len(paths):
        number = "one text" if isinstance(classes, str) else counted(len(given), "class")
        raise UsageError(
            f"{number} for {counted(len(paths), 'file')}",
            where="prompt_class",
            fix="Give one class for each file, in the same order.",
        )
    return given


def refuse_unheard(columns: Columns, datasets: Iterable[xr.Dataset]) -> None:
    """Raise where a column was named that none of the files has which were read so.

    Each file may have it or, instead, the format's own name for it.
    """
    wanted = wanted_columns(columns)
    files = [file for dataset in datasets for file in dataset.attrs["plan"]["files"]]
    named = [{column: column for column in CSV_COLUMNS} | file.get("columns", {}) for file in files]
    for target, source in {} if wanted.are_places else wanted.sources.items():
        if not any(folded(names[target]) == folded(source) for names in named):
            theirs = [(*names.values(), *file["extra_columns"]) for names, file in zip(named, files, strict=True)]
            fix = choices(source, [*dict.fromkeys(chain(*theirs))], there="There are")
            raise InputError(f"no file has a column {source!r}", where="columns", fix=fix)


def _check_axis(axis: str) -> None:
    refuse_unknown(axis, AXES, "axis")


def _arrays(tables: Sequence[CsvPrompt]) -> dict[str, np.ndarray]:
    lengths = [len(table.text) for table in tables]
    first_token = np.cumsum([0, *lengths[:-1]])
    layer = np.concatenate([table.layer for table in tables])
    return {
        "prompt": np.repeat(np.arange(len(tables)), lengths),
        "position": np.concatenate([table.position for table in tables]),
        "token_id": np.full(sum(lengths), -1),
        "span": np.concatenate([_spans(table.text) for table in tables]),
        "layer": np.sort(pd.unique(layer)),
        "row_token": np.concatenate([table.row_token + n for table, n in zip(tables, first_token, strict=True)]),
        "row_layer": layer,
        "row_neuron": np.concatenate([table.neuron for table in tables]),
        "imported_norm": np.concatenate([table.value for table in tables]),
    }


def _spans(texts: np.ndarray) -> np.ndarray:
    special = SPANS.index("special")
    return np.array([special if _SPECIAL.fullmatch(text) else -1 for text in texts])


def _extra_column(column: str, tables: Sequence[CsvPrompt]) -> np.ndarray:
    return np.concatenate([table.extra.get(column, object_array([""] * len(table.value))) for table in tables])


def _file_list(paths: Sequence[Path], ids: Sequence[str], tables: Sequence[CsvPrompt]) -> list[dict[str, object]]:
    """What each prompt was read from: names only, since a folder may say more than a person wants to share."""
    return [
        {
            "prompt_id": identity,
            "file": path.name,
            "rows": len(table.value),
            **file_identity(path),
            "extra_columns": list(table.extra),
            **({"columns": table.called} if table.called else {}),
        }
        for path, identity, table in zip(paths, ids, tables, strict=True)
    ]


def _uuid(files: list[dict[str, object]], classes: Sequence[str] | np.ndarray, axis: str) -> str:
    """The same of the same files, asked for in the same way: their pictures then are the same to the byte."""
    return str(uuid5(NAMESPACE_OID, json.dumps([files, list(classes), axis], sort_keys=True)))


def _notes(ids: Sequence[str], tables: Sequence[CsvPrompt]) -> list[dict[str, str]]:
    selection = (
        "Imported rows list some neurons of each token and layer: an absent neuron is not zero, and how much of the "
        f"activity the rows cover is unknown. {CSV_VALUE} is shown as given."
    )
    notes = [note("L08", "info", selection)]
    for remark in dict.fromkeys(remark for table in tables for remark in table.remarks):
        of = ", ".join(identity for identity, table in zip(ids, tables, strict=True) if remark in table.remarks)
        notes.append(note("L26", "info", f"In {of}: {remark}."))
    repeated = {identity: table.repeated_rows() for identity, table in zip(ids, tables, strict=True)}
    if any(repeated.values()):
        where = ", ".join(identity for identity, count in repeated.items() if count)
        notes.append(
            note(
                "L04",
                "warning",
                f"{sum(repeated.values())} rows name a token, layer and neuron that an earlier row has named (in "
                f"{where}). All are kept.",
            )
        )
    return notes
