"""Which kind of file it is, by its name and by what it begins with; and its rows."""

from __future__ import annotations

from pathlib import Path

from stratoscope import defaults
from stratoscope.errors import InputError
from stratoscope.recorder.prompts.files import commands, csv_rows, json_rows
from stratoscope.recorder.prompts.files.content import HEAD, FileText, decoded, first_bytes, refuse_too_many, unpacked
from stratoscope.recorder.prompts.files.foreign_files import refuse_folder, refuse_foreign
from stratoscope.recorder.prompts.files.json_rows import lines_of, read_json
from stratoscope.recorder.prompts.files.parquet_rows import read_parquet
from stratoscope.recorder.prompts.files.table import Python, Row, Table
from stratoscope.trace.csv.file_kinds import packing_by_head

_JSON = (".jsonl", ".ndjson", ".json")
_CSV = (".csv", ".tsv")
_TXT = ".txt"
_PARQUET = ".parquet"
SUFFIXES = (*_JSON, *_CSV, _TXT, _PARQUET)


def read_table(path: Path, column: str | None = None) -> Table:
    """The rows of a file of prompts.

    Parameters
    ----------
    path
        Its name ends in one of `SUFFIXES`, with `.gz`, `.bz2` or `.xz` behind it where it is packed.
    column
        The only column, besides the labels, that will be used.

    Raises
    ------
    InputError
        It cannot be read, or is of another kind: says of which, and how to convert it.
    """
    if path.is_dir():
        refuse_folder(path)
    head = first_bytes(path)
    if head.startswith(b"PAR1"):
        return read_parquet(path, column)
    if not packing_by_head(head):
        refuse_foreign(path, head)
    data = unpacked(path, head)
    if packing_by_head(head):
        refuse_foreign(path, data[:HEAD], packing_by_head(head))
    file = decoded(path, data)
    _refuse_old_line_ends(file)
    _refuse_too_many(file)
    if file.kind in _JSON:
        return read_json(file)
    if file.kind in _CSV:
        _refuse_json(file)
        return csv_rows.read_csv(file, column)
    if file.kind == _TXT:
        _refuse_tables(file)
        return _read_txt(file)
    raise _unknown(file)


def _refuse_too_many(file: FileText) -> None:
    """Refuse more than any file of prompts holds, before it is taken apart."""
    if file.kind in _JSON and (objects := file.text.count("{")) > defaults.MOST_OBJECTS:
        refuse_too_many(file.path, objects, "objects", defaults.MOST_OBJECTS)
    if file.kind == _TXT and (lines := file.text.count("\n")) > defaults.MOST_PROMPTS:
        refuse_too_many(file.path, lines, "lines", defaults.MOST_PROMPTS)


def _refuse_old_line_ends(file: FileText) -> None:
    if "\r" in file.text.strip() and "\n" not in file.text and file.kind not in _JSON:
        text = f'{file.opened.expression}.read().replace("\\r","\\n")'
        code = f'open(sys.argv[2],"x",encoding="utf-8",newline="").write({text})'
        line = commands.rewrite(file.path, code, file.opened.imports, file.kind)
        raise InputError(
            "has lines that end in CR alone", where=str(file.path), fix=f"Write them as others do: `{line}`."
        )


def _read_txt(file: FileText) -> Table:
    rows = [Row(file.where(number), {"text": line}) for number, line in lines_of(file.text)]
    lines = f'{file.opened.expression}.read().split("\\n")'
    return Table(file.path, rows, Python(file.opened.imports, f'[{{"text":t}} for t in {lines} if t.strip()]'))


def _looks_like(file: FileText) -> str:
    """The suffix that fits what is in the file."""
    if json_rows.looks_like_json(file.text):
        return _JSON[0]
    first = next((line for _, line in lines_of(file.text)), "")
    return _CSV[0] if csv_rows.names_columns(first) else _TXT


_KINDS = {_JSON[0]: "JSON", _CSV[0]: "a table of named columns", _TXT: "plain text"}


def _refuse_json(file: FileText) -> None:
    if json_rows.looks_like_json(file.text):
        raise InputError("is JSON, not a table", where=str(file.path), fix=_copied(file, _JSON[0]))


def _refuse_tables(file: FileText) -> None:
    """A `.txt` file of which each line would be a prompt, and which is not lines of text."""
    suffix = _looks_like(file)
    if suffix != _TXT:
        lines = commands.lines_as_texts(file.path, file.opened)
        raise InputError(
            f"looks like {_KINDS[suffix]}, and each line of a .txt file is a prompt",
            where=str(file.path),
            fix=f"If each line is a prompt: `{lines}`; to read it as {_KINDS[suffix]}: `{_copy(file, suffix)}`.",
        )


def _unknown(file: FileText) -> InputError:
    suffix = _looks_like(file)
    known = f"ends in {file.kind!r}" if file.kind else "has no ending that says what it holds"
    what = "is no Parquet file" if file.kind == _PARQUET else f"{known} (known are {', '.join(SUFFIXES)})"
    return InputError(
        f"{what}; it looks like {_KINDS[suffix]}",
        where=str(file.path),
        fix=_copied(file, suffix) if suffix != _TXT else f"If each line is a prompt: `{_copy(file, suffix)}`.",
    )


def _copied(file: FileText, suffix: str) -> str:
    return f"Read it as {_KINDS[suffix]}: `{_copy(file, suffix)}`."


def _copy(file: FileText, suffix: str) -> str:
    return commands.copy(file.path, suffix, packing_by_head(first_bytes(file.path)))
