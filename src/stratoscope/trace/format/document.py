"""The root document of a trace, checked before anything else sees it.

A trace may come from a stranger. Its root `zarr.json` is the only metadata that is read; whatever is not exactly what
the format allows is refused here, with the place and the reason.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from stratoscope.disk import PARTIAL
from stratoscope.errors import TraceError
from stratoscope.names import AXES, LAYER, QUANTITIES, SOURCES, is_streamed
from stratoscope.trace.format import checksums, schema, strict_json
from stratoscope.trace.format.array_document import ArrayDocument, check_array, chunk_index
from stratoscope.trace.format.bounds import (
    DAMAGED,
    MAX_DOCUMENT_BYTES,
    MAX_NESTING,
    most_unpacked,
    read_regular_file,
    refuse_costly_document,
    refuse_inflated,
)
from stratoscope.trace.format.checksums import CHECKSUMS
from stratoscope.trace.format.schema import ROOT_DOCUMENT
from stratoscope.trace.format.shards import DTYPES, LOGICAL_DTYPE

_NO_TRACE = "Give the directory that `stratoscope capture`, `simulate` or `import` wrote."
_Check = Callable[[Any], bool]


@dataclass(frozen=True)
class Document:
    """The root document.

    Attributes
    ----------
    attrs
        Without its digest and the checksums.
    arrays
        By their name on disk. One whose length is 0 is not there.
    unknown
        Arrays that only a newer minor version knows.
    checksums
        Of all chunks of each array that is not streamed and that will not change, end to end; none in versions 1.x.
    groups
        Paths of the groups inside it, whose arrays are called `<group>/<name>`; a trace has none.
    """

    path: Path
    attrs: dict[str, Any]
    arrays: dict[str, ArrayDocument]
    unknown: tuple[str, ...] = ()
    checksums: dict[str, bytes] = field(default_factory=dict)
    groups: tuple[str, ...] = ()

    def length(self, name: str) -> int:
        """Committed length of an array's first dimension, 0 where there is none."""
        return self.arrays[name].shape[0] if name in self.arrays else 0

    def settled_grid(self, name: str) -> tuple[int, ...]:
        """The chunks of an array to which its checksums belong."""
        return _settled(self.attrs, self.arrays[name])

    def to_bytes(self) -> bytes:
        """The document for Zarr: the arrays as they were checked, nothing else."""
        inside = {name: {"zarr_format": 3, "node_type": "group", "attributes": {}} for name in self.groups}
        metadata = dict(sorted({**inside, **{name: array.raw for name, array in self.arrays.items()}}.items()))
        consolidated = {"kind": "inline", "must_understand": False, "metadata": metadata}
        document = {"zarr_format": 3, "node_type": "group", "attributes": {}, "consolidated_metadata": consolidated}
        return json.dumps(document).encode()


def read_document(path: Path, file: str = ROOT_DOCUMENT) -> Document:
    """Read and check the root document of a trace, or one that is to become it.

    Raises
    ------
    TraceError
        When the folder is no trace, a trace of a future version, or not what the format allows.
    """
    content = read_root(path, file=file)
    version = _check_version(content, path)
    try:
        return _checked(path, content, version)
    except TraceError as error:
        if error.fix == DAMAGED and _is_newer(version):  # its digest fits: so it was written
            raise TraceError(error.what, where=error.where, fix=_newer(version)) from None
        raise


def _checked(path: Path, content: dict[str, Any], version: str) -> Document:
    attrs = content["attributes"]
    if wrong := wrong_attributes(attrs):
        raise TraceError(f"its attribute '{wrong[0]}' is not what it must be", where=str(path), fix=DAMAGED)
    metadata = content.get("consolidated_metadata")
    raw_arrays = metadata.get("metadata") if isinstance(metadata, dict) else None
    if not isinstance(raw_arrays, dict):
        raise TraceError("its zarr.json lacks the consolidated metadata", where=str(path), fix=DAMAGED)
    unknown = tuple(name for name in raw_arrays if schema.known_layout(schema.present_name(name, version)) is None)
    if unknown and not _is_newer(version):
        raise TraceError(f"it holds an unknown array {unknown[0][:80]!r}", where=str(path), fix=DAMAGED)
    arrays = {
        name: _check_array(path, schema.present_name(name, version), raw, version)
        for name, raw in raw_arrays.items()
        if name not in unknown
    }
    lengths = check_lengths(path, arrays)
    if missing := _missing(arrays, lengths):
        raise TraceError(f"it lacks the array '{missing}'", where=str(path), fix=DAMAGED)
    found = {}
    if schema.is_sealed(version):
        complete = attrs["state"] == schema.COMPLETE
        found = read_checksums(path, attrs, arrays, complete=complete, may_name_others=_is_newer(version))
    kept = {key: value for key, value in attrs.items() if key not in (CHECKSUMS, strict_json.DIGEST)}
    return Document(path, kept, arrays, unknown, found)


def check_files(document: Document) -> None:
    """Check that each array's folder is a real folder of regular files that holds every chunk of its shape.

    An array can so be no larger than what its chunk files can hold, and all of them no larger than what so many bytes
    can stand for.

    Raises
    ------
    TraceError
        At the first link, device or missing chunk; or where the files stand for far more than they hold.
    """
    unpacked, packed = sum(array.unpacked_bytes for array in document.arrays.values()), 0
    for name, array in document.arrays.items():
        folder, chunks = document.path / name, 0
        if 0 in array.shape:
            continue
        for entry in _entries(folder):
            if not entry.is_file(follow_symlinks=False):
                raise TraceError("is a link or no regular file", where=entry.path, fix=DAMAGED)
            index = chunk_index(entry.name)
            if index is not None and _inside(index, array.grid):
                chunks += 1
                if most_unpacked(packed) < unpacked:  # a large trace has a million chunks, and a few are enough
                    packed += entry.stat(follow_symlinks=False).st_size
        wanted = prod(array.grid)
        if chunks != wanted:
            raise TraceError(f"has {chunks:,} of its {wanted:,} chunks", where=str(folder), fix=DAMAGED)
    refuse_inflated(unpacked, packed, str(document.path))


def remove_leftovers(document: Document) -> None:
    """Remove what a stopped writer left beside the committed chunks of a trace."""
    (document.path / (ROOT_DOCUMENT + PARTIAL)).unlink(missing_ok=True)
    for folder in [entry for entry in document.path.iterdir() if schema.known_layout(entry.name) is not None]:
        array = document.arrays.get(folder.name)
        for path in _own_files(folder):
            index = chunk_index(path.name)
            if path.name != ROOT_DOCUMENT and (index is None or array is None or not _inside(index, array.grid)):
                path.unlink()


def _own_files(folder: Path) -> list[Path]:
    return [] if folder.is_symlink() or not folder.is_dir() else list(folder.iterdir())


def _inside(index: tuple[int, ...], grid: tuple[int, ...]) -> bool:
    return len(index) == len(grid) and all(place < count for place, count in zip(index, grid, strict=True))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    if folder.is_symlink() or not folder.is_dir():
        raise TraceError("is missing or no folder", where=str(folder), fix=DAMAGED)
    with os.scandir(folder) as entries:
        return list(entries)


def read_root(path: Path, kind: str = "trace", fix: str = _NO_TRACE, file: str = ROOT_DOCUMENT) -> dict[str, Any]:
    """The root document of a folder as parsed JSON, of bounded size and depth; nothing else of it is checked.

    Raises
    ------
    TraceError
        There is none, or it is not that of a Zarr v3 group. `kind` says what was looked for, `fix` what to give.
    """
    if not path.is_dir():
        what = f"is a file, not a {kind} directory" if path.exists() else "does not exist"
        raise TraceError(what, where=str(path), fix=fix)
    try:
        content = parse_json(read_regular_file(path / file, MAX_DOCUMENT_BYTES), path)
    except FileNotFoundError:
        raise TraceError(f"is not a {kind}: it has no zarr.json", where=str(path), fix=fix) from None
    if not isinstance(content, dict) or content.get("zarr_format") != 3 or content.get("node_type") != "group":
        raise TraceError(f"is not a {kind}: it is no Zarr v3 group", where=str(path), fix=fix)
    return content


def parse_json(text: str | bytes, path: Path) -> Any:
    """JSON of a root document, of bounded size and depth.

    Raises
    ------
    TraceError
        It is none, or nested too deeply.
    """
    refuse_costly_document(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text, str(path))
    try:
        content = strict_json.load(text)
    except RecursionError:
        raise TraceError("its zarr.json is nested too deeply", where=str(path), fix=DAMAGED) from None
    except ValueError as error:
        raise TraceError(f"its zarr.json is not valid JSON ({error})", where=str(path), fix=DAMAGED) from None
    if _nesting(content) > MAX_NESTING:
        raise TraceError("its zarr.json is nested too deeply", where=str(path), fix=DAMAGED)
    return content


def _nesting(content: Any) -> int:
    """Depth of nested lists and objects, found without recursion."""
    depth, level = 0, [content]
    while level and depth <= MAX_NESTING:
        depth += 1
        inner = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list))
        level = [item for items in inner for item in items]
    return depth


def _check_version(content: dict[str, Any], path: Path) -> str:
    """The format version of a root document that is as it was written, if this program reads it."""
    attrs = content.get("attributes")
    if not isinstance(attrs, dict) or attrs.get("format") != schema.FORMAT:
        raise TraceError("is a Zarr group, but not a Stratoscope trace", where=str(path), fix=_NO_TRACE)
    version = attrs.get("format_version")
    if not isinstance(version, str) or not re.fullmatch(r"\d{1,4}\.\d{1,4}", version):
        raise TraceError(f"its format_version is {version!r}", where=str(path), fix=DAMAGED)
    if schema.major(version) not in schema.READABLE:
        raise TraceError(
            f"its format version is {version}, this program reads up to {schema.FORMAT_VERSION}",
            where=str(path),
            fix=_newer(version) if _is_newer(version) else "Open it with the Stratoscope that wrote it.",
        )
    if schema.is_sealed(version):
        check_digest(content, path)
    return version


def _newer(version: str) -> str:
    return f"Install the newer Stratoscope that wrote it, in format {version}."


def check_digest(content: dict[str, Any], path: Path) -> None:
    """Raise when a root document is not as it was written."""
    said = content["attributes"].get(strict_json.DIGEST)
    if said != strict_json.digest(content):
        why = "it has no digest" if said is None else "its digest does not fit"
        raise TraceError(f"its zarr.json is not as it was written: {why}", where=str(path), fix=DAMAGED)


def _one_of(*known: object) -> _Check:
    return lambda value: any(value is item or value == item for item in known)


def _maybe(kind: type) -> _Check:
    return lambda value: value is None or isinstance(value, kind)


def _entries_with(*keys: str) -> _Check:
    """A list, or nothing, of objects that have a text under each key."""
    return lambda value: (
        value is None
        or (
            isinstance(value, list)
            and all(isinstance(item, dict) and all(isinstance(item.get(key), str) for key in keys) for item in value)
        )
    )


_ATTRIBUTES: dict[str, _Check] = {
    "state": _one_of(schema.RECORDING, schema.COMPLETE),
    "source": _one_of(*SOURCES),
    "axis": _one_of(None, *AXES),
    "token_spelling": _one_of(None, "text", "tokenizer"),
    **dict.fromkeys(("uuid", "created", "finished"), _maybe(str)),
    **dict.fromkeys(("model", "tokenizer", "plan", "receipt", "software", schema.PUBLISHED), _maybe(dict)),
    "planted": _maybe(list),
    "notes": _entries_with("id", "severity", "text"),
    "resumed": _entries_with("at"),
    "merged": _entries_with("uuid"),
}


def wrong_attributes(attrs: Mapping[Any, Any], *, needed: bool = True) -> list[str]:
    """The attributes of a trace that are not what they must be; not `needed`: any of them may be absent."""
    asked = {key: is_sound for key, is_sound in _ATTRIBUTES.items() if needed or attrs.get(key) is not None}
    return [key for key, is_sound in asked.items() if not is_sound(attrs.get(key))]


def _is_newer(version: str) -> bool:
    return tuple(map(int, version.split("."))) > tuple(map(int, schema.FORMAT_VERSION.split(".")))


def _settled(attrs: dict[str, Any], array: ArrayDocument) -> tuple[int, ...]:
    return checksums.settled_grid(array.shape, array.chunks, complete=attrs["state"] == schema.COMPLETE)


def read_checksums(
    path: Path,
    attrs: dict[str, Any],
    arrays: dict[str, ArrayDocument],
    *,
    complete: bool,
    may_name_others: bool = False,
) -> dict[str, bytes]:
    """The checksums of every array that must have some; TraceError where they are not those of its chunks."""
    texts, found = attrs.get(CHECKSUMS), {}
    absent = sorted(texts.keys() - arrays.keys()) if isinstance(texts, dict) else []
    if absent and not may_name_others:
        what = f"its checksums name the array {absent[0][:80]!r}, which it lacks"
        raise TraceError(what, where=str(path), fix=DAMAGED)
    for name, array in arrays.items():
        if array.shards is not None or 0 in array.shape:
            continue
        grid = checksums.settled_grid(array.shape, array.chunks, complete=complete)
        packed = checksums.from_text(texts.get(name), grid) if isinstance(texts, dict) else None
        if packed is None:
            raise TraceError(f"its checksums of '{name}' are not those of its chunks", where=str(path), fix=DAMAGED)
        found[name] = packed
    return found


def _check_array(path: Path, name: str, raw: Any, version: str) -> ArrayDocument:
    try:
        layout = _streamed_layout(name, raw) if is_streamed(name) else schema.known_layout(name)
        assert layout is not None
        return check_array(raw, layout, version)
    except TraceError as error:
        raise TraceError(f"array '{name}' has a {error.what}", where=str(path), fix=DAMAGED) from None


def _streamed_layout(name: str, raw: Any) -> schema.Layout:
    """Of the dtype that the document says, if the quantity may have it."""
    attrs = raw.get("attributes") if isinstance(raw, dict) else None
    dtype = attrs.get(LOGICAL_DTYPE, raw.get("data_type")) if isinstance(attrs, dict) else None
    if not isinstance(dtype, str) or dtype not in DTYPES or QUANTITIES[name].dtype not in ("model", dtype):
        raise TraceError(f"data type that is not allowed: {str(dtype)[:80]!r}")
    return schema.quantity_layout(name, "", dtype)


def check_lengths(path: Path, arrays: Mapping[str, ArrayDocument]) -> dict[str, int]:
    """The length of every dimension; TraceError where two arrays disagree about one."""
    lengths: dict[str, int] = {}
    for name, array in arrays.items():
        for dim, length in zip(array.layout.dims, array.shape, strict=True):
            if lengths.setdefault(dim, length) != length:
                raise TraceError(f"array '{name}' has another length of '{dim}'", where=str(path), fix=DAMAGED)
    return lengths


def _missing(arrays: dict[str, ArrayDocument], lengths: dict[str, int]) -> str:
    """The first array that must be there, "" where there is none: one whose length is 0 need not.

    Of a text column the bytes need not either, where all texts are empty; the ends, when they are read, say whether.
    """
    if LAYER not in arrays:
        return LAYER
    for name in sorted(schema.REQUIRED - arrays.keys()):
        layout = schema.known_layout(name)
        if layout is not None and lengths.get(layout.dims[0], 0):
            return name
    halves = (other for name in arrays if name.endswith("_bytes") and (other := schema.companion(name)))
    return next((other for other in halves if other not in arrays), "")
