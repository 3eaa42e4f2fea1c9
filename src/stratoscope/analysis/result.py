"""What every analysis returns: a labelled Dataset that says what it is, what it was made of, how, and what to beware of."""  # noqa: E501

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stratoscope import __version__, names
from stratoscope.analysis import again
from stratoscope.errors import InputError, first_line
from stratoscope.replacing import refuse_absent
from stratoscope.trace.attributes import to_json
from stratoscope.trace.notes import Note, read_notes

if TYPE_CHECKING:
    import xarray as xr

FORMAT = "stratoscope-result"
FORMAT_VERSION = "2.0"
STORE = "result.zarr"  # in the folder of a result
_JSON = "stratoscope"  # the one attribute on disk; all others are inside it


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
        "notes": [vars(note) for note in dict.fromkeys(notes)],
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


def is_result(dataset: xr.Dataset, kind: str | None = None) -> bool:
    """Whether a Dataset is a Result (of that kind)."""
    return dataset.attrs.get("format") == FORMAT and kind in (None, dataset.attrs.get("kind"))


def store_result(result: xr.Dataset, folder: Path) -> None:
    """Write `result.zarr` into a folder that exists; a stray byte of a token is written as a question mark."""
    import xarray as xr

    variables = {name: _storable(variable) for name, variable in result.variables.items()}
    coords = {name: variable for name, variable in variables.items() if name in result.coords}
    data = {name: variable for name, variable in variables.items() if name not in coords}
    attrs = {_JSON: json.dumps(result.attrs, ensure_ascii=True, sort_keys=True)}
    with warnings.catch_warnings():  # that Zarr's own text type is not yet part of its specification
        warnings.simplefilter("ignore")
        xr.Dataset(data, coords, attrs).to_zarr(folder / STORE, mode="w-", zarr_format=3, consolidated=True)


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
    found, version = _opened(folder)
    if version[0] > _major(FORMAT_VERSION):
        raise InputError(f"version {version[1]} of a result is not known here", where=str(folder), fix="Update.")
    if version[0] < _major(FORMAT_VERSION):
        parameters = found.attrs.get("parameters")
        remake = again.command(found.attrs["kind"], parameters if isinstance(parameters, dict) else {}, str(folder))
        raise InputError(
            f"is a result of version {version[1]}, which counted otherwise than {FORMAT_VERSION}",
            where=str(folder),
            fix=f"Make it again: {remake}",
        )
    return found


def is_result_folder(path: Path) -> bool:
    """Whether a folder holds a Result of any version, so that a new one may take its place."""
    if path.is_symlink() or not path.is_dir():
        return False
    try:
        _opened(path)
    except InputError:
        return False
    return True


def _opened(folder: Path) -> tuple[xr.Dataset, tuple[int, str]]:
    """The Result in a folder, and its version: major, and whole."""
    import xarray as xr

    store = folder / STORE
    if not store.is_dir():
        raise InputError("there is no result here", where=str(folder), fix=f"Give the folder that holds {STORE}.")
    try:
        found: xr.Dataset = xr.open_zarr(store, zarr_format=3, consolidated=True, chunks=None)
        found.attrs = json.loads(found.attrs[_JSON])
        version = str(found.attrs["format_version"])
        if not (is_result(found) and found.attrs["kind"] in again.KINDS):
            raise ValueError("it does not say what it is")
        return found, (_major(version), version)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"this result cannot be read: {first_line(error)}", where=str(folder), fix="Make it again."
        ) from error


def _major(version: str) -> int:
    return int(version.split(".")[0])


def _source(trace: xr.Dataset) -> dict[str, Any]:
    """What is worth knowing of a trace; no path is part of it."""
    model = trace.attrs.get("model") or {}
    receipt = trace.attrs.get("receipt") or {}
    return {
        "uuid": str(trace.attrs.get("uuid", "")),
        "source": str(trace.attrs.get("source", "")),
        "model": "" if trace.attrs.get("source") == names.SIMULATED else str(model.get("name", "")),
        "receipt": str(receipt.get("receipt_line", "")),
        "prompts": int(trace.sizes.get(names.PROMPT, 0)),
        "tokens": int(trace.sizes.get(names.TOKEN, 0)),
    }


def _storable(variable: xr.Variable) -> xr.Variable:
    import numpy as np
    import xarray as xr

    if variable.dtype.kind != "O":
        return variable
    readable = [str(text).encode("utf-8", "replace").decode() for text in variable.values.ravel()]
    array = np.array(readable, dtype=np.dtypes.StringDType()).reshape(variable.shape)
    return xr.Variable(variable.dims, array, variable.attrs, fastpath=True)
