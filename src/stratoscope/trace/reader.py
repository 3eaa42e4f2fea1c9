"""Opens a trace as a lazy `xarray.Dataset`; safe to use on a trace from a stranger."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing

from stratoscope import names
from stratoscope.errors import TraceError
from stratoscope.names import OPENER
from stratoscope.trace import place, schema
from stratoscope.trace.bounds import LONGEST_TEXT, too_long_a_text
from stratoscope.trace.document import DAMAGED, Document, check_files, read_document
from stratoscope.trace.labels import object_array
from stratoscope.trace.outcome import opener_texts
from stratoscope.trace.safe_store import SafeStore
from stratoscope.trace.stored_rows import StoredRows
from stratoscope.trace.text import decode_texts

_COORDS = {*schema.TOKEN_COORDS, *schema.MAYBE_TOKEN_COORDS, *schema.AXIS_COORDS, *schema.TEXTS}


def open_trace(path: str | os.PathLike[str]) -> xr.Dataset:
    """Open a trace.

    Parameters
    ----------
    path
        The trace directory. A trace that is still being recorded opens too (`attrs["state"] == "recording"`) and
        shows the prompts committed so far.

    Returns
    -------
    xarray.Dataset
        Lazy: values and texts are read when they are used. Coordinates on `token`: `prompt`, `position`, `token_id`,
        `span`, `text`, and of a recorded trace `char_start`, `char_end`; on `prompt`: `prompt_id`, `prompt_class`,
        `pair`, `group`; `layer`, `depth`; `opener`, the texts of the recorded openers. Data variables: rows of
        `names.QUANTITIES`, and the rows of an import. Attributes: docs/format.md.

    Raises
    ------
    TraceError
        When it is no trace, damaged, of a future version, or holds anything the format does not allow. Chunks are
        checked when they are read.
    """
    folder = Path(path)
    place.refuse_absent(folder)
    document = read_document(folder.resolve())
    check_files(document)
    group = zarr.open_group(SafeStore(document), mode="r", zarr_format=3, use_consolidated=True)
    version = document.attrs["format_version"]
    variables = {schema.present_name(name, version): _variable(group, document, name) for name in _names(document)}
    coords = {name: variable for name, variable in variables.items() if name in _COORDS}
    data = {name: variable for name, variable in variables.items() if name not in _COORDS}
    attrs = {key: value for key, value in document.attrs.items() if key != "coordinates"}
    if document.unknown:
        attrs["unknown_arrays"] = sorted(document.unknown)
    if "opener_log_odds" in data:
        texts = opener_texts(attrs.get("plan"), data["opener_log_odds"].shape[1])
        coords[OPENER] = xr.Variable((OPENER,), object_array(texts), fastpath=True)
    dataset = xr.Dataset(data, coords, attrs)
    dataset.encoding["source"] = str(document.path)
    return dataset


def _names(document: Document) -> list[str]:
    """Names in memory: texts first under their own name, the rest as on disk."""
    ends = [name for name in document.arrays if name.endswith("_end") and schema.companion(name) is not None]
    texts = [name.removesuffix("_end") for name in ends]
    return [*texts, *(name for name in document.arrays if schema.companion(name) is None)]


def _variable(group: zarr.Group, document: Document, name: str) -> xr.Variable:
    array = document.arrays.get(name)
    if array is not None and array.shards is not None:
        rows = StoredRows(document, array)
        return xr.Variable(array.layout.dims, indexing.LazilyIndexedArray(rows), array.attrs)
    if array is None:
        ends = document.arrays[f"{name}_end"]
        attrs = {"column": ends.attrs["column"]} if "column" in ends.attrs else {}
        return xr.Variable(ends.layout.dims, indexing.LazilyIndexedArray(StoredTexts(group, name)), attrs)
    stored = StoredArray(group, name, _bounds(document, name))
    return xr.Variable(array.layout.dims, indexing.LazilyIndexedArray(stored), array.attrs)


def _bounds(document: Document, name: str) -> range | None:
    """What an array's values index, so that nobody is sent outside of it."""
    prompts, tokens = document.length("prompt_id_end"), document.length("prompt")
    return {"prompt": range(prompts), "row_token": range(tokens), "span": range(-1, len(names.SPANS))}.get(name)


class StoredArray(BackendArray):
    """An array on disk that reads what is asked for; `bounds` are the values it may have."""

    def __init__(self, group: zarr.Group, name: str, bounds: range | None = None) -> None:
        self._array = _open_array(group, name)
        self._name, self._bounds = name, bounds
        self.shape = self._array.shape
        self.dtype = self._array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        support = indexing.IndexingSupport.OUTER
        return np.asarray(indexing.explicit_indexing_adapter(key, self.shape, support, self._read))

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        with _reading(self._name):
            values = np.asarray(self._array.oindex[key])
        if self._bounds is not None and values.size:
            low, high = int(values.min()), int(values.max())
            if low < self._bounds.start or high >= self._bounds.stop:
                raise TraceError(f"'{self._name}' has values outside {self._bounds}", fix=DAMAGED)
        return values


class StoredTexts(BackendArray):
    """A text column on disk that reads and decodes what is asked for."""

    def __init__(self, group: zarr.Group, name: str) -> None:
        self._bytes, self._end = _open_array(group, f"{name}_bytes"), _open_array(group, f"{name}_end")
        self._name = name
        self.shape = self._end.shape
        self.dtype = np.dtype(object)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        with _reading(self._name):
            return self._select(key[0])

    def _select(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            chosen = range(*index.indices(self.shape[0]))
            low, high = (min(chosen), max(chosen) + 1) if chosen else (0, 0)
            return self._texts(low, high)[[place - low for place in chosen]]
        return self._texts(int(index), int(index) + 1).reshape(())  # a bare str would lose a NUL at its end

    def _texts(self, low: int, high: int) -> np.ndarray:
        """Texts low … high − 1."""
        ends = np.asarray(self._end[low:high])
        start = int(np.asarray(self._end[low - 1])) if low else 0
        bounds = np.concatenate([[start], ends])
        if bounds[0] < 0 or bounds[-1] > self._bytes.shape[0] or (np.diff(bounds) < 0).any():
            raise TraceError(f"the texts '{self._name}' end outside their bytes or run backwards", fix=DAMAGED)
        if len(ends) and (longest := int(np.diff(bounds).max())) > LONGEST_TEXT:
            raise too_long_a_text(self._name, longest)
        return decode_texts(np.asarray(self._bytes[start : int(bounds[-1])]), ends, start)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Say in one line what is wrong with a chunk that cannot be unpacked."""
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        raise TraceError(f"'{name}' cannot be read: {error}", fix=DAMAGED) from error


def _open_array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return array
