"""Writes the folder of a Result: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stratoscope import names, replacing
from stratoscope.analysis.results.result import STORE, STORED, is_result, is_result_folder, open_result, store_result
from stratoscope.disk import sync_tree
from stratoscope.errors import InputError, first_line
from stratoscope.progress import Progress, silent
from stratoscope.replacing import Kind, Lock, cannot_write
from stratoscope.trace.export.table import table_bytes
from stratoscope.trace.format.place import refuse_inside
from stratoscope.trace.format.schema import ROOT_DOCUMENT
from stratoscope.view.report.report import Report
from stratoscope.view.spec.drawn_by import drawn_by_result
from stratoscope.view.spec.page import NO_TITLE, Page
from stratoscope.view.spec.tables import Cell, Excerpt, Table
from stratoscope.view.spec.viewspec import Provenance, ViewSpec

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.view.matplotlib.webp import WebP

PAGE, TABLE, FIGURES = "report.html", "table.csv", "figures"
_MORE_TABLES = ("held_out.csv",)
_CONTENTS = {  # kind of a Result -> module that says what its report holds
    "contrast": "stratoscope.view.report.contrast",
    "diff": "stratoscope.view.report.diff",
    "anomalies": "stratoscope.view.report.anomalies",
    "suppression": "stratoscope.view.report.suppression",
    "profiles": "stratoscope.view.report.profiles",
}


def save_result(
    result: xr.DataTree, out: str | os.PathLike[str], *, overwrite: bool = False, progress: Progress | None = None
) -> Path:
    """Write the folder of a Result: `report.html`, `figures/`, `table.csv` and `result.zarr`.

    Parameters
    ----------
    result
        What `contrast`, `diff` or `anomalies` gave.
    out
        The folder to make.
    overwrite
        Whether a result that is already there may be replaced; nothing else ever is.
    progress
        Is told what is being done.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    InputError
        It is no Result, or the folder cannot be written.

    Examples
    --------
    >>> import stratoscope
    >>> result = stratoscope.anomalies(stratoscope.simulate(prompts=4, layers=4))
    >>> folder = stratoscope.save_result(result, "findings")
    >>> sorted(path.name for path in folder.iterdir())
    ['figures', 'report.html', 'result.zarr', 'table.csv']
    """
    report = progress or silent
    contents = contents_of(result)
    path = Path(out)
    check_folder(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with Lock(path, RESULT):
            replacing.recover(path, RESULT)
            check_folder(path, overwrite=overwrite)
            _make(path, result, contents, report)
    except OSError as error:
        raise cannot_write(path, error) from None
    return path


def _make(path: Path, result: xr.DataTree, contents: Report, report: Progress) -> None:
    """Make the folder beside its place, and put it there once it is durable and has been opened."""
    new = replacing.making(path)
    try:
        replacing.begin(new)
        _fill(new, result, contents, report)
        sync_tree(new)
        open_result(new).load()
        replacing.take_place(new, path, RESULT)
    finally:
        replacing.remove(new, RESULT)


def contents_of(result: xr.DataTree) -> Report:
    """What the report of a Result holds."""
    kind = str(result.attrs.get("kind"))
    if not is_result(result) or kind not in _CONTENTS:
        raise InputError("this is no result with a report", where="result", fix=f"Give one of: {', '.join(_CONTENTS)}.")
    make: Callable[[Any], Report] = import_module(_CONTENTS[kind]).contents
    if STORED not in result.encoding:
        return make(result)
    try:
        return make(result)
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # a stranger's may lack or twist anything
        what = f"this result lacks what its report is made of: {first_line(error)}"
        raise InputError(what, where=str(result.encoding[STORED]), fix="Make it again.") from error


def check_folder(path: Path, *, overwrite: bool) -> None:
    """Raise `InputError` when a result may not be put at `path`; asked before any work is done."""
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise InputError("its folder is a file", where=str(path), fix="Choose another folder.")
    refuse_inside(nearest / path.name)
    if not os.path.lexists(path):
        return
    if not is_result_folder(path):
        raise InputError(
            "something that is not a result is already there", where=str(path), fix="Choose another folder."
        )
    if not overwrite:
        raise InputError("this result already exists", where=str(path), fix="Give another folder, or --overwrite.")
    replacing.refuse_foreign(path, RESULT)


def _is_part(_: Path, path: Path) -> bool:
    if len(path.parts) == 1:
        return path.name in (PAGE, TABLE, *_MORE_TABLES)
    return path.parts[0] == STORE or (path.parts[0] == FIGURES and path.suffix in (".png", ".svg"))


RESULT = Kind("result", f"{STORE}/{ROOT_DOCUMENT}", is_result_folder, _is_part, InputError)


def _fill(folder: Path, result: xr.DataTree, contents: Report, report: Progress) -> None:
    from stratoscope.view.matplotlib.draw import draw
    from stratoscope.view.matplotlib.save import picture_bytes
    from stratoscope.view.report.page import page

    store_result(result, folder)
    for name, table in {TABLE: contents.table, **contents.more}.items():
        write_table(table, folder / name)
    (folder / FIGURES).mkdir()
    pictures: dict[str, dict[names.Theme, WebP]] = {}
    figures = contents.figures()
    for number, figure in enumerate(figures):
        report("drawing", number, len(figures))
        spec = replace(figure.spec, drawn_by=drawn_by_result(result, figure.name))
        drawn, metadata = draw(spec), spec.metadata_json()
        for suffix in (".png", ".svg"):
            (folder / FIGURES / f"{figure.name}{suffix}").write_bytes(picture_bytes(drawn, suffix, metadata))
        pictures[figure.name] = {theme: _for_the_page(figure.spec, theme) for theme in names.THEMES}
    report("drawing", len(figures), len(figures))
    (folder / PAGE).write_text(page(result, contents, pictures), "utf-8", newline="\n")


def _for_the_page(spec: ViewSpec, theme: names.Theme) -> WebP:
    """A picture without its title, its notes and its source, all of which the page says."""
    from stratoscope.view.matplotlib.draw import draw
    from stratoscope.view.matplotlib.webp import webp

    look = replace(spec.look, theme=theme)
    bare = replace(spec, notes=(), provenance=Provenance(source=names.REAL), look=look)
    return webp(draw(bare, Page(title=NO_TITLE, caption="none")))


def write_table(table: Table, path: Path) -> None:
    """A table as CSV."""
    path.write_bytes(table_bytes(table.columns, ([_plain(cell) for cell in row] for row in table.rows)))


def _plain(cell: Cell) -> str | float | int | None:
    return f"{cell.before}[{cell.token}]{cell.after}" if isinstance(cell, Excerpt) else cell


def default_folder(trace: Path, verb: str, *arguments: str) -> Path:
    """Where a result goes when nobody says: beside the trace, `<trace stem>.results/<verb>-<arguments>`."""
    words = "-".join(_safe(word) for word in (verb, *arguments) if word)
    return trace.with_name(f"{trace.name.removesuffix('.trace').removesuffix('.zarr')}.results") / words


def _safe(word: str) -> str:
    """A word as part of a file's name."""
    return "".join(char if char.isalnum() or char in "_-+." else "_" for char in word)[:60].strip(".") or "_"


__all__ = ["FIGURES", "PAGE", "STORE", "TABLE", "check_folder", "contents_of", "default_folder", "save_result"]
