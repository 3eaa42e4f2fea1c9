"""Lines to paste into a shell that make a file of prompts of another file; none replaces a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from stratoscope.recorder.prompts.files.table import Python, Table
from stratoscope.trace.csv import pasted
from stratoscope.trace.csv.pasted import beside, literal, python

__all__ = ["beside", "converting", "copy", "lines_as_texts", "literal", "python", "recode", "rewrite", "whole_as_text"]

_WRITE = 'open(sys.argv[2],"x",encoding="utf-8")'  # "x": never over a file that is there


def copy(path: Path, suffix: str, packing: str = "") -> str:
    """A copy of the file under a name that ends in `suffix`, and in that of what it is packed with."""
    ending = suffix + {"": "", "gzip": ".gz", "bz2": ".bz2", "lzma": ".xz"}[packing]
    return pasted.copy(path, beside(path, path.name, ending))


def converting(
    table: Table,
    item: str,
    *,
    each: str = "for r in rows",
    condition: str = "",
    before: str = "",
    imports: Sequence[str] = (),
    keep: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Write one JSON object a line, made of the rows of a table.

    Parameters
    ----------
    table
        Of the file that is converted.
    item
        Expression of the object, without its outer braces, of the row `r`.
    each, condition
        The loops, and which rows are converted; the line says how many.
    before
        Statements that come first.
    imports
        Modules that `item` and `before` need.
    keep
        Labels, and the columns that hold them, which are kept as they are.
    """
    kept = "".join(f",{literal(label)}:r.get({literal(name)})" for label, name in keep.items())
    code = (
        f"rows={table.python.expression}; {before}"
        f"out=[{{{item}{kept}}} {each}{f' if {condition}' if condition else ''}]; "
        f'{_WRITE}.writelines(json.dumps(o)+"\\n" for o in out); print(len(out),"prompts from",len(rows),"rows")'
    )
    return rewrite(table.path, code, [*table.python.imports, *imports], ".jsonl")


def rewrite(path: Path, code: str, imports: Sequence[str], suffix: str) -> str:
    """Run statements that write `sys.argv[2]`, a file of that suffix, from `sys.argv[1]`."""
    modules = ",".join(dict.fromkeys(["json", "sys", *imports]))
    return python(f"import {modules}; {code}", path, beside(path, f"{_stem(path)}.prompts", suffix))


def lines_as_texts(path: Path, opened: Python, *, skip: int = 0) -> str:
    """Write each line that is not blank as `{"text": …}`, without the first `skip` lines."""
    lines = f'{opened.expression}.read().split("\\n")' + (f"[{skip}:]" if skip else "")
    item = 'json.dumps({"text":t.removesuffix("\\r")})+"\\n"'
    return rewrite(path, f"{_WRITE}.writelines({item} for t in {lines} if t.strip())", opened.imports, ".jsonl")


def whole_as_text(path: Path, opened: Python) -> str:
    """Write the whole file as one prompt."""
    return rewrite(path, f"json.dump([{opened.expression}.read()],{_WRITE})", opened.imports, ".json")


def recode(path: Path, opened: Python) -> str:
    """Write a text file anew in UTF-8."""
    code = (
        f"import {','.join(['sys', *opened.imports])}; "
        f'open(sys.argv[2],"x",encoding="utf-8",newline="").write({opened.expression}.read())'
    )
    name = Path(path.stem if opened.imports else path.name)
    return python(code, path, beside(path, f"{name.stem}.utf8", name.suffix))


def _stem(path: Path) -> str:
    while path.suffix.lower() in _ENDINGS:
        path = path.with_suffix("")
    return path.name


_ENDINGS = (".gz", ".bz2", ".xz", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".parquet", ".md", ".markdown")
