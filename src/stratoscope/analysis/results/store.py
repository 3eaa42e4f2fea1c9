"""A Result on disk: written as a trace is, a group a table, and read by the same safe reader, which takes nothing else.

Texts are bytes and ends (docs/decisions/0002): `<name>_bytes`, and `<name>_end` in the dimensions of the texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing

from stratoscope.errors import InputError, TraceError
from stratoscope.trace.format.array_document import ArrayDocument, check_array
from stratoscope.trace.format.bounds import DAMAGED, MAX_TEXT_BYTES
from stratoscope.trace.format.document import (
    Document,
    check_digest,
    check_files,
    check_lengths,
    parse_json,
    read_checksums,
    read_root,
)
from stratoscope.trace.format.schema import COMPLETE, FORMAT_VERSION, Layout, Sizes
from stratoscope.trace.format.text import decode_texts, encode_texts
from stratoscope.trace.read.reader import StoredArray
from stratoscope.trace.read.safe_store import SafeStore
from stratoscope.trace.write.store import StagingStore

if TYPE_CHECKING:
    import xarray as xr

ATTRIBUTE = "stratoscope"  # the one attribute of a Result on disk; all others are inside it
MAX_ARRAYS, MAX_TABLES = 4000, 500
DEEPEST = 2  # <table>/<quantity>
MAX_TEXTS, MOST_BYTES_OF_TEXTS = 2**22, 2**26  # of one variable: its texts are read together

_CHUNK_BYTES = 4 * 2**20
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
_STATE = {"state": COMPLETE}  # as a trace says it: what is there will not change
_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")
_NO_RESULT = "Give the folder that `stratoscope contrast`, `diff` or `anomalies` wrote."


@dataclass(frozen=True)
class ResultLayout(Layout):
    """An array of a Result: any of its dimensions may be long, and none grows."""

    @property
    def streamed(self) -> bool:
        """Nothing of a Result is."""
        return False

    def shape(self, sizes: Sizes, length: int = 0) -> tuple[int, ...]:
        """The lengths of its dimensions."""
        return tuple(sizes[dim] for dim in self.dims)

    def chunks(self, sizes: Sizes) -> tuple[int, ...]:
        """Chunks of at most 4 MiB: the last dimensions whole, as far as they fit."""
        left, chunks = _CHUNK_BYTES // np.dtype(self.dtype).itemsize, []
        for length in reversed(self.shape(sizes)):
            chunks.append(max(1, min(length, left)))
            left //= chunks[-1]
        return tuple(reversed(chunks))


def write(result: xr.DataTree, store: Path) -> None:
    """Write a Result into a folder that is not there yet.

    Raises
    ------
    InputError
        It says more of itself than a reader takes, or an array is in no table; nothing is written then.
    """
    if result.variables:
        raise InputError("an array of this result is in no table", fix="Put it into one: result['table/name'] = array.")
    said = _said(result)
    store.mkdir()
    staging = StagingStore(store, keep_empty=True)  # what a Result says nothing of is in it all the same
    for node in sorted(result.descendants, key=lambda node: node.path):  # Zarr wants the members of a group together
        path = node.path.removeprefix("/")
        (store / path).mkdir()
        zarr.create_group(staging, path=path)
        for name, variable in node.to_dataset(inherit=False).variables.items():
            for layout, values in _arrays(path, str(name), variable):
                sizes = dict(zip(layout.dims, values.shape, strict=True))
                array = staging.create(layout, sizes, values.shape[0])
                if values.size:
                    array[...] = values
    staging.stage_documents()
    staging.publish()
    staging.write_root(
        {ATTRIBUTE: said, **_STATE}, lambda file: check_digest(read_root(store, "result", _NO_RESULT, file), store)
    )


def _said(result: xr.DataTree) -> str:
    """The attributes of a Result as the one text that they are on disk."""
    text = json.dumps(result.attrs, ensure_ascii=True, sort_keys=True)
    size = len(json.dumps(text)) - 2  # as it stands in the root document
    if size > MAX_TEXT_BYTES:
        raise InputError(
            f"what this result says of itself has {size:,} bytes; it may have {MAX_TEXT_BYTES:,}",
            fix="Compare fewer things at once.",
        )
    return text


def _arrays(table: str, name: str, variable: xr.Variable) -> list[tuple[ResultLayout, np.ndarray]]:
    """What a variable of a table is on disk."""
    dims, attrs = tuple(map(str, variable.dims)), {key: str(value) for key, value in variable.attrs.items()}
    if variable.dtype.kind in "biuf":
        return [(ResultLayout(f"{table}/{name}", dims, variable.dtype.name, attrs), variable.values)]
    data, ends = encode_texts([str(text) for text in variable.values.ravel()], name)
    about = {**attrs, "long_name": f"where each text of {name} ends in {name}_bytes, in C order"}
    of_bytes = {"long_name": f"UTF-8 bytes of {name}"}
    return [
        (ResultLayout(f"{table}/{name}_bytes", (f"{name}_byte",), "uint8", of_bytes), data),
        (ResultLayout(f"{table}/{name}_end", dims, "int64", about), ends.reshape(variable.shape)),
    ]


@dataclass(frozen=True)
class StoredResult:
    """The root document of a Result of any version: what it says of itself, and the document."""

    store: Path
    attrs: dict[str, Any]
    root: dict[str, Any]

    @classmethod
    def read(cls, store: Path) -> StoredResult:
        """Read and check what the Result in a folder says of itself; none of its numbers.

        Raises
        ------
        TraceError
            It is no Result, or the document is not what the format allows.
        """
        if store.is_symlink():
            raise TraceError("is a link", where=str(store), fix=_NO_RESULT)
        root = read_root(store, kind="result", fix=_NO_RESULT)
        held = root.get("attributes")
        text = held.get(ATTRIBUTE) if isinstance(held, dict) else None
        attrs = parse_json(text, store) if isinstance(text, str) else None
        if not isinstance(attrs, dict):
            raise TraceError("it does not say what it is", where=str(store), fix=_NO_RESULT)
        return cls(store, attrs, root)

    @cached_property
    def _tables(self) -> dict[str, dict[str, ArrayDocument]]:
        return _checked_tables(self.store, self.root)

    def document(self) -> Document:
        """What stands on disk; its arrays are checked, none of their chunks."""
        wrong = [key for key, is_sound in _ATTRIBUTES.items() if not is_sound(self.attrs.get(key))]
        if wrong:
            raise TraceError(f"its attribute '{wrong[0]}' is not what it must be", where=str(self.store), fix=DAMAGED)
        check_digest(self.root, self.store)
        arrays = {f"{path}/{name}": array for path, table in self._tables.items() for name, array in table.items()}
        found = read_checksums(self.store, self.root["attributes"], arrays, complete=True)
        return Document(self.store, _STATE, arrays, checksums=found, groups=tuple(self._tables))

    def open(self) -> xr.DataTree:
        """The Result, lazy; its arrays are checked, and chunks when they are read."""
        import xarray as xr

        document = self.document()
        check_files(document)
        root = zarr.open_group(SafeStore(document), mode="r", zarr_format=3, use_consolidated=True)
        opened = {path: xr.Dataset(_variables(root, path, table)) for path, table in self._tables.items()}
        return xr.DataTree.from_dict({"/": xr.Dataset(attrs=self.attrs), **opened})


def _is_list_of(item: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(item, value))


def _has(**kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Mapping) and all(type(value.get(key)) is kind for key, kind in kinds.items())


_ATTRIBUTES: dict[str, Callable[[Any], bool]] = {
    "sources": _is_list_of(_has(uuid=str, source=str, model=str, receipt=str, prompts=int, tokens=int)),
    "parameters": _has(),
    "notes": _is_list_of(_has(id=str, severity=str, text=str)),
    "summary": _has(),
    "software": lambda value: isinstance(value, str),
}


def _checked_tables(store: Path, root: dict[str, Any]) -> dict[str, dict[str, ArrayDocument]]:
    """The arrays of each table, by their names in it."""
    consolidated = root.get("consolidated_metadata")
    found = consolidated.get("metadata") if isinstance(consolidated, dict) else None
    if not isinstance(found, dict):
        raise TraceError("its zarr.json lacks the consolidated metadata", where=str(store), fix=DAMAGED)
    groups = sorted(path for path, raw in found.items() if isinstance(raw, dict) and raw.get("node_type") == "group")
    if len(groups) > MAX_TABLES or len(found) > MAX_ARRAYS:
        raise TraceError("it holds more tables or arrays than any result has", where=str(store), fix=DAMAGED)
    for path in groups:
        _check_group(store, path, found[path], groups)
    tables: dict[str, dict[str, ArrayDocument]] = {path: {} for path in groups}
    for place in sorted(found.keys() - set(groups)):
        path, _, name = place.rpartition("/")
        if path not in tables:
            what = f"its array {place[:80]!r} is in no table, as in results before they were trees"
            raise TraceError(what, where=str(store), fix=DAMAGED)
        tables[path][name] = _checked_array(store, path, name, found[place])
    for arrays in tables.values():
        check_lengths(store, arrays)
        for name in [array.removesuffix("_bytes") for array in arrays if array.endswith("_bytes")]:
            _check_texts(store, name, arrays)
    return tables


def _check_group(store: Path, path: str, raw: dict[str, Any], groups: list[str]) -> None:
    """Raise unless a group is a table as results have them, in a real folder."""
    *above, name = path.split("/")
    sound = raw.get("zarr_format") == 3 and raw.get("attributes") == {}
    if not sound or not _NAME.fullmatch(name) or len(above) >= DEEPEST or (above and "/".join(above) not in groups):
        raise TraceError(f"it holds a table that no result has: {path[:80]!r}", where=str(store), fix=DAMAGED)
    folder = store / path
    if folder.is_symlink() or not folder.is_dir():
        raise TraceError("is missing or no folder", where=str(folder), fix=DAMAGED)


def _checked_array(store: Path, table: str, name: str, raw: Any) -> ArrayDocument:
    dims, dtype = (raw.get("dimension_names"), raw.get("data_type")) if isinstance(raw, dict) else (None, None)
    sound = isinstance(dims, list) and all(isinstance(dim, str) and _NAME.fullmatch(dim) for dim in dims)
    if not _NAME.fullmatch(name) or not sound or not dims or len(set(dims)) != len(dims) or dtype not in _DTYPES:
        raise TraceError(f"it holds an array that no result has: {name[:80]!r}", where=str(store), fix=DAMAGED)
    try:
        return check_array(raw, ResultLayout(f"{table}/{name}", tuple(dims), dtype, {}), FORMAT_VERSION)
    except TraceError as error:
        raise TraceError(f"array '{table}/{name}' has a {error.what}", where=str(store), fix=DAMAGED) from None


def _check_texts(store: Path, name: str, arrays: Mapping[str, ArrayDocument]) -> None:
    data, ends = arrays[f"{name}_bytes"], arrays.get(f"{name}_end")
    sound = (
        name not in arrays
        and ends is not None
        and (data.layout.dtype, data.layout.dims) == ("uint8", (f"{name}_byte",))
        and ends.layout.dtype == "int64"
        and data.shape[0] <= MOST_BYTES_OF_TEXTS
        and prod(ends.shape) <= MAX_TEXTS
    )
    if not sound:
        raise TraceError(f"the texts '{name[:80]}' are not what they must be", where=str(store), fix=DAMAGED)


def _variables(root: zarr.Group, path: str, arrays: Mapping[str, ArrayDocument]) -> dict[str, xr.Variable]:
    """The variables of a table, lazy."""
    import xarray as xr

    found = {}
    for stored, array in arrays.items():
        name = stored.removesuffix("_end")
        if f"{name}_bytes" in arrays:
            data: BackendArray = ResultTexts(root, f"{path}/{name}")
            attrs = {key: text for key, text in array.attrs.items() if key != "long_name"}
        elif not stored.endswith("_bytes"):
            name, data, attrs = stored, StoredArray(root, f"{path}/{stored}"), array.attrs
        else:
            continue
        # fastpath: pandas must not look at the texts, since with pyarrow it fails on stray bytes
        found[name] = xr.Variable(array.layout.dims, indexing.LazilyIndexedArray(data), attrs, fastpath=True)
    return found


class ResultTexts(BackendArray):
    """The texts of one variable of a Result: read and decoded together, once, when the first of them is used."""

    def __init__(self, group: zarr.Group, name: str) -> None:
        self._name = name
        self._bytes, self._end = StoredArray(group, f"{name}_bytes"), StoredArray(group, f"{name}_end")
        self.shape, self.dtype = self._end.shape, np.dtype(object)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        chosen = self._texts[key]
        if isinstance(chosen, np.ndarray):
            return chosen.copy()
        single = np.empty((), dtype=object)
        single[()] = chosen
        return single

    @cached_property
    def _texts(self) -> np.ndarray:
        data, ends = (one[indexing.BasicIndexer((slice(None),) * len(one.shape))] for one in (self._bytes, self._end))
        bounds = np.concatenate([[0], ends.ravel()])
        if bounds[-1] != len(data) or (np.diff(bounds) < 0).any():
            raise TraceError(f"the texts '{self._name}' end outside their bytes or run backwards", fix=DAMAGED)
        return decode_texts(data, ends.ravel(), 0).reshape(self.shape)
