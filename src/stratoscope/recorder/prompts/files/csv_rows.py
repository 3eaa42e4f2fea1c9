"""A table of text: separated by commas, semicolons or tabs, which of them its own rows say."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator

from stratoscope import defaults
from stratoscope.errors import InputError
from stratoscope.recorder.prompts.files import commands
from stratoscope.recorder.prompts.files.content import FileText, refuse_too_many
from stratoscope.recorder.prompts.files.table import CONTENTS, LABELS, PROMPT_COLUMNS, Python, Row, Table
from stratoscope.trace.csv.file import cells_of
from stratoscope.words import quoted

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
_LONG = 2**17  # characters of a cell beyond which Python's `csv` must be told to go on
_HINT = re.compile(r"sep=([^\r\n])\r?\n", re.IGNORECASE)  # the first line that Excel writes and reads


def read_csv(file: FileText, column: str | None = None) -> Table:
    """Rows of a `.csv` or `.tsv` file; an empty cell is left out.

    Raises
    ------
    InputError
        It is no such table, or could be read in two ways.
    """
    hint = _HINT.match(file.text)
    if hint and hint[1] not in SEPARATORS:
        raise InputError(f"is separated by {hint[1]!r}", where=file.where(1), fix=_separate(file, hint[1]))
    separator = hint[1] if hint else _separator(file, column)
    header: list[str] | None = None
    first, rows = 0, []
    _refuse_text_quotes(file, separator)
    for line, cells in _rows(file, separator):
        if header is None:
            header, first = [cell.strip() for cell in cells], line
            _check_header(file, header, line)
            if column is None:
                _refuse_sentences(file, separator, line)
            continue
        if len(cells) != len(header):
            raise _wrong_width(file, separator, (len(cells), header), (line, first))
        rows.append(Row(file.where(line), {key: cell for key, cell in zip(header, cells, strict=True) if cell}))
    python = _python(file, separator, first, long=any(len(c) >= _LONG for row in rows for c in row.values.values()))
    return Table(file.path, rows, python, file.where(first) if header else "", tuple(header or ()))


def _refuse_text_quotes(file: FileText, separator: str) -> None:
    """Refuse a table whose every line is a row if its quotes are part of the texts, and which reads otherwise.

    Only of tabs: a quoted text over several lines may well hold commas, and nearly never tabs.
    """
    lines = [line for line in file.text.split("\n") if line.strip()]
    widths = {line.count("\t") for line in lines}
    if separator != "\t" or '"' not in file.text or len(widths) > 1 or 0 in widths:
        return
    try:
        if sum(1 for _ in _rows(file, separator)) == len(lines):
            return
    except InputError:
        pass
    write = 'csv.writer(open(sys.argv[2],"x",encoding="utf-8",newline="")).writerows({})'
    plain = f'x.rstrip("\\r\\n").split("\\t") for x in {file.opened.expression} if x.strip()'
    quoted = f'csv.reader({file.opened.expression},delimiter="\\t")'
    each, joined = (
        commands.rewrite(file.path, write.format(rows), ("csv", *file.opened.imports), ".csv")
        for rows in (plain, quoted)
    )
    raise InputError(
        "its quotes can be part of the texts, or hold several lines together",
        where=str(file.path),
        fix=f"If they hold lines together: `{joined}`; if each line is a row: `{each}`.",
    )


def names_columns(line: str) -> bool:
    """Whether a line of text is the first of such a table and names nothing but what is read."""
    cells = [[cell.strip() for cell in line.split(separator)] for separator in SEPARATORS]
    return any(len(names) > 1 and {*names} <= {*CONTENTS, *LABELS} for names in cells)


def _rows(file: FileText, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The line on which each row that is not blank begins, and its cells."""
    reader = cells_of(_keep_line_ends(file.text), separator)
    begins, hint = 1, bool(_HINT.match(file.text))
    try:
        for number, cells in enumerate(reader):
            line, begins = begins, reader.line_num + 1
            if number > defaults.MOST_PROMPTS:
                refuse_too_many(file.path, number, "rows at least", defaults.MOST_PROMPTS)
            if any(cells) and not (hint and line == 1):
                yield line, cells
    except csv.Error as error:
        raise InputError(
            f"is not valid CSV: {error}", where=file.where(begins), fix='Double every quote inside a quoted text ("").'
        ) from None


def _keep_line_ends(text: str) -> Iterator[str]:
    """Lines with their ends, as `csv` wants them, so that line ends inside quoted texts stay what they are."""
    for line in text.split("\n"):
        yield line + "\n"


def _separator(file: FileText, column: str | None) -> str:
    """The one by which the first row has several cells and all others as many; the comma where it has only one.

    Of several such the one that makes the first row name a column of prompts.
    """
    wanted = {*CONTENTS, *PROMPT_COLUMNS, column}
    fits = []
    for separator in SEPARATORS:
        rows: list[list[str]] = []
        whole = True
        try:
            rows += (cells for _, cells in _rows(file, separator))
        except InputError:  # quotes that make no sense with this separator
            whole = False
        if rows and len(rows[0]) > 1:
            same = whole and len({*map(len, rows)}) == 1
            fits.append((separator, (same, not wanted.isdisjoint(map(str.strip, rows[0])))))
    best = max((fit for _, fit in fits), default=None)
    sound = [separator for separator, fit in fits if fit == best]
    if len(sound) > 1:
        first, second = sound[:2]
        write = (
            f'open(sys.argv[2],"x",encoding="utf-8",newline="").write("sep={{}}\\n"+{file.opened.expression}.read())'
        )
        line = commands.rewrite(file.path, write.format(first.replace("\t", "\\t")), file.opened.imports, ".csv")
        raise InputError(
            f"its rows can be read as separated by {SEPARATORS[first]} or by {SEPARATORS[second]}",
            where=str(file.path),
            fix=f"Write sep={second!r} without the quotes as the first line, or for the {SEPARATORS[first]}: `{line}`.",
        )
    return sound[0] if sound else ","


def _check_header(file: FileText, header: list[str], line: int) -> None:
    where = file.where(line)
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise InputError(f"the column {twice[0]!r} stands twice", where=where, fix="Keep one of them.")
    if len(header) == 1 and "|" in header[0]:
        raise InputError("is separated by '|'", where=where, fix=_separate(file, "|"))


def _refuse_sentences(file: FileText, separator: str, line: int) -> None:
    """Refuse lines of text whose first is a sentence with a comma in it, and not the names of columns."""
    first = file.text.split("\n")[line - 1].strip()
    names = {cell.strip().lower() for cell in first.split(separator)}
    if (
        f"{separator} " not in first
        or not re.search(r"\w[.?!…]$", first)
        or '"' in file.text
        or names & {*CONTENTS, *LABELS, *PROMPT_COLUMNS}
    ):
        return
    write = commands.lines_as_texts(file.path, file.opened, skip=line - 1)
    raise InputError(
        f"begins with a sentence, not with names of columns, and its {SEPARATORS[separator]}s would part the texts",
        where=file.where(line),
        fix=f"If each line is a prompt: `{write}`.",
    )


def _wrong_width(file: FileText, separator: str, row: tuple[int, list[str]], lines: tuple[int, int]) -> InputError:
    """A row that has not as many cells as the header: their number and the header, and the lines of both."""
    cells, header = row
    fix = f"Quote texts that hold {SEPARATORS[separator]}s or line ends."
    known = {name.lower() for name in header} & {*CONTENTS, *LABELS, *PROMPT_COLUMNS}
    if len(header) == 1 and '"' not in file.text:
        line = commands.lines_as_texts(file.path, file.opened, skip=lines[1])
        fix += f" Or, if each line below the header is one prompt: `{line}`."
    if not known and '"' not in file.text:
        line = commands.lines_as_texts(file.path, file.opened, skip=lines[1] - 1)
        fix += f" Or, if each line is one prompt, the first line ({quoted(separator.join(header))}) too: `{line}`."
    return InputError(f"has {cells} cells, the header has {len(header)}", where=file.where(lines[0]), fix=fix)


def _separate(file: FileText, separator: str) -> str:
    """The line that writes the table with commas."""
    lines = f"list({file.opened.expression})[1:]" if _HINT.match(file.text) else file.opened.expression
    quoting = ",quoting=csv.QUOTE_NONE" if separator == '"' else ""
    rows = f"csv.reader({lines},delimiter={commands.literal(separator)}{quoting})"
    write = f'csv.writer(open(sys.argv[2],"x",encoding="utf-8",newline="")).writerows({rows})'
    return f"Write it with commas: `{commands.rewrite(file.path, write, ('csv', *file.opened.imports), '.csv')}`."


def _python(file: FileText, separator: str, first: int, *, long: bool) -> Python:
    """How Python reads the rows again, from the header in line `first` on."""
    lines = f"list({file.opened.expression})[{first - 1}:]" if first > 1 else file.opened.expression
    rows = f"csv.DictReader({lines}{_delimiter(separator)})"
    rows = f"[csv.field_size_limit(2**31-1),list({rows})][1]" if long else f"list({rows})"
    if re.search(r"(^|[,;\t])\s|\s([,;\t]|$)", file.text.split("\n")[first - 1].rstrip("\r")):
        rows = f"[{{k.strip():v for k,v in r.items()}} for r in {rows}]"
    return Python(("csv", *file.opened.imports), rows)


def _delimiter(separator: str) -> str:
    return "" if separator == "," else f',delimiter="{separator}"'.replace("\t", "\\t")
