"""What every analysis returns: a labelled Dataset that says what it is, what it was made of, how, and what to beware of."""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stratoscope import names
from stratoscope.analysis import again
from stratoscope.errors import InputError, StratoscopeError, first_line
from stratoscope.replacing import refuse_absent
from stratoscope.trace.format.attributes import to_json
from stratoscope.trace.notes import WARNING, Note, read_notes
from stratoscope.version import __version__

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.analysis.result_store import StoredResult

FORMAT = "stratoscope-result"
FORMAT_VERSION = "2.0"
LONGEST_NAME = 200  # characters of a model's name that a result takes over
STORE = "result.zarr"  # in the folder of a result
STORED = "source"  # in the encoding of a Result that was opened: its folder
_VERSION = re.compile(r"\d{1,4}\.\d{1,4}", re.ASCII)


def make_result(
    kind: str,
    variables: Mapping[str, Any],
    coords: Mapping[str, Any],
    *,
    sources: Sequence[xr.Dataset],
    parameters: Mapping[str, Any],
    notes: Sequence[Note],
    summary: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """A Result.

    Parameters
    ----------
    kind
        The verb: "contrast", "diff", "anomalies", "lint".
    variables, coords
        As of `xarray.Dataset`; texts as `texts` gives them.
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
    return xr.Dataset(dict(variables), dict(coords), attrs)


def texts(dims: str | Sequence[str], values: Any) -> xr.Variable:
    """A variable of texts, stray bytes of tokens included, for `make_result`."""
    import numpy as np
    import xarray as xr

    array = np.empty(np.shape(values), dtype=object)
    array[...] = values
    # fastpath: pandas must not look at the texts, since with pyarrow it fails on stray bytes
    return xr.Variable((dims,) if isinstance(dims, str) else tuple(dims), array, fastpath=True)


def notes_in(result: xr.Dataset) -> tuple[Note, ...]:
    """The notes of a Result."""
    return read_notes(result.attrs.get("notes"))


def warnings_in(result: xr.Dataset) -> list[Note]:
    """Those notes of a Result that stand on every picture of it."""
    return [note for note in notes_in(result) if note.severity == WARNING]


def is_result(dataset: xr.Dataset, kind: str | None = None) -> bool:
    """Whether a Dataset is a Result (of that kind)."""
    return dataset.attrs.get("format") == FORMAT and kind in (None, dataset.attrs.get("kind"))


def store_result(result: xr.Dataset, folder: Path) -> None:
    """Write `result.zarr` into a folder that exists."""
    from stratoscope.analysis import result_store

    result_store.write(result, folder / STORE)


def open_result(path: str | Path) -> xr.Dataset:
    """Open the Result that a verb wrote.

    Parameters
    ----------
    path
        The folder of the result, or its `result.zarr`.

    Returns
    -------
    xarray.Dataset
        Lazy; `attrs` hold `kind`, `format_version`, `sources`, `parameters`, `notes`, `summary`.

    Raises
    ------
    InputError
        It is no result, damaged, or of another version; of an older one it says the command that makes it again.
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
        dataset = found.open()
        dataset.encoding[STORED] = str(folder)
        return dataset
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
    from stratoscope.analysis.result_store import StoredResult

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
