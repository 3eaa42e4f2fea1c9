"""What every analysis returns: a tree of tables that says what it is, what it was made of, how, and what to beware of."""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from stratoscope import names
from stratoscope.analysis.results import again
from stratoscope.errors import InputError, StratoscopeError, first_line
from stratoscope.replacing import refuse_absent
from stratoscope.trace.format.attributes import to_json
from stratoscope.trace.notes import WARNING, Note, read_notes
from stratoscope.version import __version__

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from stratoscope.analysis.results.store import StoredResult

Row: TypeAlias = "dict[str, Any]"  # of a table: each variable's value, text or number
FORMAT = "stratoscope-result"
FORMAT_VERSION = "2.0"
LONGEST_NAME = 200  # characters of a model's name that a result takes over
STORE = names.RESULT_STORE
STORED = "source"  # in the encoding of a Result that was opened: its folder
_VERSION = re.compile(r"\d{1,4}\.\d{1,4}", re.ASCII)


def make_result(
    kind: str,
    tables: Mapping[str, Mapping[str, Any]],
    *,
    sources: Sequence[xr.Dataset],
    parameters: Mapping[str, Any],
    notes: Sequence[Note],
    summary: Mapping[str, Any] | None = None,
) -> xr.DataTree:
    """A Result.

    Parameters
    ----------
    kind
        The verb: "contrast", "diff", "anomalies", "lint".
    tables
        The variables of each by its path, as of `xarray.Dataset`; texts as `table_of` gives them. What depends on a
        quantity is `<table>/<quantity>`.
    sources
        The traces it was made of.
    parameters
        Everything that decides the values, JSON-able.
    notes
        What a reader must know; each line only once is kept.
    summary
        Facts of the whole, JSON-able: counts, families, the expected null maximum.
    """
    import xarray as xr

    attrs = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "sources": [_source(one) for one in sources],
        "parameters": to_json(parameters),
        "notes": [note.stored() for note in dict.fromkeys(notes)],
        "summary": to_json(summary or {}),
        "software": f"stratoscope {__version__}",
    }
    return xr.DataTree.from_dict(
        {"/": xr.Dataset(attrs=attrs), **{path: xr.Dataset(of) for path, of in tables.items()}}
    )


def table_of(dims: str | Sequence[str], columns: Mapping[str, NDArray[Any] | Sequence[str]]) -> dict[str, xr.Variable]:
    """Variables of the same dimensions: an array holds numbers, a list or an array of objects texts."""
    import numpy as np
    import xarray as xr

    found = {}
    for name, values in columns.items():
        if not isinstance(values, np.ndarray):
            texts, values = values, np.empty(len(values), dtype=object)
            values[...] = texts
        # fastpath: pandas must not look at texts, since with pyarrow it fails on stray bytes of tokens
        found[name] = xr.Variable((dims,) if isinstance(dims, str) else tuple(dims), values, fastpath=True)
    return found


def table_in(result: xr.DataTree, path: str) -> xr.Dataset:
    """A table of a Result; KeyError where it has none."""
    import xarray as xr

    node = result[path]
    if not isinstance(node, xr.DataTree):
        raise KeyError(path)
    return node.to_dataset()


def rows_in(result: xr.DataTree, path: str) -> list[Row]:
    """The rows of a table whose variables have one dimension."""
    columns = {str(name): of.values.tolist() for name, of in table_in(result, path).variables.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def notes_in(result: xr.DataTree) -> tuple[Note, ...]:
    """The notes of a Result."""
    return read_notes(result.attrs.get("notes"))


def warnings_in(result: xr.DataTree) -> list[Note]:
    """Those notes of a Result that stand on every picture of it."""
    return [note for note in notes_in(result) if note.severity == WARNING]


def is_result(given: xr.Dataset | xr.DataTree, kind: str | None = None) -> bool:
    """Whether something is a Result (of that kind)."""
    return given.attrs.get("format") == FORMAT and kind in (None, given.attrs.get("kind"))


def store_result(result: xr.DataTree, folder: Path) -> None:
    """Write `result.zarr` into a folder that exists."""
    from stratoscope.analysis.results import store as result_store

    result_store.write(result, folder / STORE)


def open_result(path: str | Path) -> xr.DataTree:
    """Open the Result that a verb wrote.

    Parameters
    ----------
    path
        The folder of the result, or its `result.zarr`.

    Returns
    -------
    xarray.DataTree
        Lazy, a node a table; `attrs` hold `kind`, `format_version`, `sources`, `parameters`, `notes`, `summary`.

    Raises
    ------
    InputError
        It is no result, damaged, or of another version; of an older one it says the command that makes it again.

    Examples
    --------
    >>> import stratoscope
    >>> trace = stratoscope.simulate(prompts=4, layers=4)
    >>> folder = stratoscope.save_result(stratoscope.anomalies(trace), "findings")
    >>> result = stratoscope.open_result(folder)
    >>> result.attrs["kind"], list(result.children)
    ('anomalies', ['detectors', 'findings', 'members', 'usual'])
    """
    folder = Path(path)
    folder = folder.parent if folder.name == STORE else folder
    refuse_absent(folder, "result", InputError)
    found = _read(folder)
    version = str(found.attrs["format_version"])
    if _major(version) > _major(FORMAT_VERSION):
        raise InputError(f"version {version} of a result is not known here", where=str(folder), fix="Update.")
    if _major(version) < _major(FORMAT_VERSION):
        parameters = found.attrs.get("parameters")
        remake = again.command(found.attrs["kind"], parameters if isinstance(parameters, dict) else {}, str(folder))
        raise InputError(
            f"is a result of version {version}, which counted otherwise than {FORMAT_VERSION}",
            where=str(folder),
            fix=f"Make it again: `{remake}`.",
        )
    try:
        result = found.open()
        result.encoding[STORED] = str(folder)
        return result
    except (StratoscopeError, OSError, ValueError) as error:
        raise _unreadable(folder, error) from error


def is_result_folder(path: Path) -> bool:
    """Whether a folder holds a Result of any version, so that a new one may take its place."""
    if path.is_symlink() or not path.is_dir():
        return False
    try:
        _read(path)
    except InputError:
        return False
    return True


def _read(folder: Path) -> StoredResult:
    """What the Result in a folder says of itself, whatever its version."""
    from stratoscope.analysis.results.store import StoredResult

    store = folder / STORE
    if not store.is_dir():
        raise InputError("there is no result here", where=str(folder), fix=f"Give the folder that holds {STORE}.")
    try:
        found = StoredResult.read(store)
    except (StratoscopeError, OSError) as error:
        raise _unreadable(folder, error) from error
    attrs = found.attrs
    if (
        attrs.get("format") != FORMAT
        or attrs.get("kind") not in again.KINDS
        or not _VERSION.fullmatch(str(attrs.get("format_version")))
    ):
        raise _unreadable(folder, ValueError("it does not say what it is"))
    return found


def _unreadable(folder: Path, error: Exception) -> InputError:
    why = error.what if isinstance(error, StratoscopeError) else first_line(error)
    return InputError(f"this result cannot be read: {why}", where=str(folder), fix="Make it again.")


def _major(version: str) -> int:
    return int(version.split(".")[0])


def _source(trace: xr.Dataset) -> dict[str, Any]:
    """What is worth knowing of a trace; no path is part of it."""
    model = trace.attrs.get("model") or {}
    receipt = trace.attrs.get("receipt") or {}
    return {
        "uuid": str(trace.attrs.get("uuid", "")),
        "source": str(trace.attrs.get("source", "")),
        "model": "" if trace.attrs.get("source") == names.SIMULATED else str(model.get("name", ""))[:LONGEST_NAME],
        "receipt": str(receipt.get("receipt_line", "")),
        "prompts": int(trace.sizes.get(names.PROMPT, 0)),
        "tokens": int(trace.sizes.get(names.TOKEN, 0)),
    }
