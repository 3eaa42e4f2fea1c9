"""Opens a trace as a lazy `xarray.Dataset`; safe to use on a trace from a stranger."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing

from stratoscope import names
from stratoscope.errors import InputError, TraceError
from stratoscope.names import DEPTH, LAYER, LENS, OPENER, TARGET
from stratoscope.trace.format import place, schema
from stratoscope.trace.format.bounds import DAMAGED, LONGEST_TEXT, too_long_a_text
from stratoscope.trace.format.document import Document, check_files, read_document
from stratoscope.trace.format.legal import check_numbers, check_prompts
from stratoscope.trace.format.schema import quantity_layout
from stratoscope.trace.format.shards import LOGICAL_DTYPE
from stratoscope.trace.format.text import decode_texts
from stratoscope.trace.labels import note, object_array
from stratoscope.trace.lenses import lens_names
from stratoscope.trace.outcome import opener_texts, target_texts
from stratoscope.trace.read.safe_store import SafeStore
from stratoscope.trace.read.stored_rows import StoredRows

Check = Callable[[np.ndarray], None]

_IN_ORDER: dict[str, Check] = {
    "prompt": check_prompts,
    LAYER: partial(check_numbers, kind=LAYER),
    DEPTH: partial(check_numbers, kind=DEPTH),
}
_MOST_NAMED = 20  # arrays in a sentence
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
        `pair`, `group`; `layer`, `depth`; `opener` and `target`, the texts of the recorded openers and targets;
        `lens`, the names of the lenses. Data variables: rows of `names.QUANTITIES`, and the rows of an import.
        Attributes: docs/format.md.

    Raises
    ------
    TraceError
        When it is no trace, damaged, of a future version, or holds anything the format does not allow. Chunks are
        checked when they are read.

    Examples
    --------
    >>> import stratoscope
    >>> _ = stratoscope.simulate("small.trace", prompts=4, layers=3)
    >>> trace = stratoscope.open_trace("small.trace")
    >>> round(trace["mlp_out_norm"].sel(layer=2).mean().item(), 2)  # only what is used is read
    2.93
    >>> trace["prompt_class"].values.tolist()
    ['critical', 'neutral', 'critical', 'neutral']
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"a {type(path).__name__} is no path", fix="Give the path of a trace.")
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
        attrs |= _what_is_not_read(document)
    sizes = {dim: size for variable in data.values() for dim, size in variable.sizes.items()}
    for dim, texts_of in ((OPENER, opener_texts), (TARGET, target_texts), (LENS, lens_names)):
        if dim in sizes:
            texts = object_array(texts_of(attrs.get("plan"), sizes[dim]))
            coords[dim] = xr.Variable((dim,), texts, fastpath=True)
    dataset = xr.Dataset(data, coords, attrs)
    dataset.encoding["source"] = str(document.path)
    return dataset


def read_back(folder: Path) -> None:
    """Open a trace that was just written, and the first and the last of every array and text in it.

    Raises
    ------
    TraceError
        When it could not be opened, or one of them could not be read.
    """
    dataset = open_trace(folder)
    for variable in dataset.variables.values():
        for end in (0, -1) if variable.size else ():
            variable[{variable.dims[0]: [end]}].load()


def _what_is_not_read(document: Document) -> dict[str, Any]:
    """Attributes of the Dataset of a trace with arrays that only a newer Stratoscope knows: their names, and a note."""
    unknown = sorted(document.unknown)
    rest = f" and {len(unknown) - _MOST_NAMED:,} more" if len(unknown) > _MOST_NAMED else ""
    text = (
        f"Not read: {', '.join(name[:80] for name in unknown[:_MOST_NAMED])}{rest}. A newer Stratoscope wrote this "
        f"trace, in format {document.attrs['format_version']}; this one reads up to {schema.FORMAT_VERSION}."
    )
    notes = [*(document.attrs.get("notes") or []), note("L25", "warning", text)]
    return {schema.UNKNOWN_ARRAYS: unknown, "notes": notes}


def _names(document: Document) -> list[str]:
    """Names in memory: texts first under their own name, the rest as on disk."""
    ends = [name for name in document.arrays if name.endswith("_end") and schema.companion(name) is not None]
    texts = dict.fromkeys([*schema.TEXTS, *(name.removesuffix("_end") for name in ends)])
    plain = (name for name in document.arrays if schema.companion(name) is None)
    return [*texts, *dict.fromkeys([*schema.TOKEN_COORDS, *plain])]


def _variable(group: zarr.Group, document: Document, name: str) -> xr.Variable:
    array = document.arrays.get(name)
    if array is None and f"{name}_end" not in document.arrays:
        return _empty(name)
    if array is not None and array.shards is not None:
        attrs = dict(array.attrs)
        if LOGICAL_DTYPE in attrs:  # bits on disk, numbers here
            attrs |= {key: quantity_layout(name, "").attrs[key] for key in ("units", "long_name")}
        return xr.Variable(array.layout.dims, indexing.LazilyIndexedArray(StoredRows(document, array)), attrs)
    if array is None:
        ends = document.arrays[f"{name}_end"]
        attrs = {"column": ends.attrs["column"]} if "column" in ends.attrs else {}
        texts = StoredTexts(group, name, has_bytes=f"{name}_bytes" in document.arrays)
        return xr.Variable(ends.layout.dims, indexing.LazilyIndexedArray(texts), attrs)
    stored = StoredArray(group, name, _bounds(document, name), _IN_ORDER.get(name))
    return xr.Variable(array.layout.dims, indexing.LazilyIndexedArray(stored), array.attrs)


def _empty(name: str) -> xr.Variable:
    """A coordinate of a trace without prompts, in which nothing of it is stored."""
    if name in schema.TEXTS:
        return xr.Variable((schema.TEXTS[name],), np.empty(0, dtype=object), fastpath=True)
    layout = schema.known_layout(name)
    assert layout is not None
    return xr.Variable(layout.dims, np.empty(0, layout.dtype), layout.attrs)


def _bounds(document: Document, name: str) -> range | None:
    """What an array's values index, so that nobody is sent outside of it."""
    prompts, tokens = document.length("prompt_id_end"), document.length("prompt")
    return {"prompt": range(prompts), "row_token": range(tokens), "span": range(-1, len(names.SPANS))}.get(name)


class StoredArray(BackendArray):
    """An array on disk that reads what is asked for.

    Parameters
    ----------
    bounds
        The values it may have.
    check
        Raises where values that stand together are not in the order that they must have.
    """

    def __init__(self, group: zarr.Group, name: str, bounds: range | None = None, check: Check | None = None) -> None:
        self._array = _open_array(group, name)
        self._name, self._bounds, self._check = name, bounds, check
        self.shape = self._array.shape
        self.dtype = self._array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        support = indexing.IndexingSupport.OUTER
        return np.asarray(indexing.explicit_indexing_adapter(key, self.shape, support, self._read))

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        with reading(self._name):
            values = np.asarray(self._array.oindex[key])
        if self._bounds is not None and values.size:
            low, high = int(values.min()), int(values.max())
            if low < self._bounds.start or high >= self._bounds.stop:
                raise TraceError(f"'{self._name}' has values outside {self._bounds}", fix=DAMAGED)
        if values.size and self._check and isinstance(key[0], slice) and (key[0].step or 1) > 0:
            try:
                self._check(values)
            except TraceError as error:  # on disk no other order of the Dataset helps
                raise TraceError(error.what, fix=DAMAGED) from None
        return values


class StoredTexts(BackendArray):
    """A text column on disk that reads and decodes what is asked for."""

    def __init__(self, group: zarr.Group, name: str, *, has_bytes: bool) -> None:
        self._bytes = _open_array(group, f"{name}_bytes") if has_bytes else np.empty(0, np.uint8)
        self._end = _open_array(group, f"{name}_end")
        self._name = name
        self.shape = self._end.shape
        self.dtype = np.dtype(object)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        with reading(self._name):
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
def reading(name: str) -> Iterator[None]:
    """Say in one line what is wrong with a chunk of that array that cannot be unpacked."""
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        raise TraceError(f"'{name}' cannot be read: {error}", fix=DAMAGED) from error


def _open_array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return array
