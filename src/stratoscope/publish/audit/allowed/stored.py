"""Whether the folders of arrays hold the chunks that their root document names, whole, and nothing besides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c

from stratoscope.trace.format import checksums, strict_json
from stratoscope.trace.format.array_document import ArrayDocument, chunk_index
from stratoscope.trace.format.document import Document
from stratoscope.trace.format.schema import ROOT_DOCUMENT

_PACKED_AT = 12  # where the header of blosc says how many bytes it is long
_GROUP = {"zarr_format": 3, "node_type": "group", "attributes": {}}

Wrong = Iterator[tuple[str, Path]]


def beside_the_chunks(document: Document) -> Wrong:
    """What the folders of arrays hold that no reader asks for: further files, further bytes, other documents.

    Parameters
    ----------
    document
        The root document of a trace or a Result.
    """
    for name in document.groups:
        yield from _of_document(document.path / name / ROOT_DOCUMENT, _GROUP)
    for name, array in document.arrays.items():
        for path in sorted((document.path / name).iterdir()):
            if path.is_symlink() or not path.is_file():
                continue  # which is told of any folder
            if path.name == ROOT_DOCUMENT:
                yield from _of_document(path, array.raw)
                continue
            place = chunk_index(path.name)
            if place is None or len(place) != len(array.grid) or any(map(int.__ge__, place, array.grid)):
                yield "it is no part of the array", path
            elif not _is_whole(path, place, name, array, document):
                yield "it holds more, or other, than the part of the array that was written there", path


def _of_document(path: Path, written: Any) -> Wrong:
    """Whether a document beside the chunks says what the root document says of it; no reader asks for it."""
    if not path.is_file() or path.is_symlink():
        return
    try:
        same = strict_json.load(path.read_text("utf-8")) == written
    except (ValueError, RecursionError):
        same = False
    if not same:
        yield "it says something else than the root document", path


def _is_whole(path: Path, place: tuple[int, ...], name: str, array: ArrayDocument, document: Document) -> bool:
    """Whether a chunk ends where it says, and is the one that its root document names."""
    if array.shards is not None:
        rows = min(array.chunks[0], array.shape[0] - place[0] * array.chunks[0])
        return path.stat().st_size == array.shards.file_bytes(rows)
    content = path.read_bytes()
    packed = len(content) - (checksums.BYTES if array.checksummed else 0)
    says = int.from_bytes(content[_PACKED_AT : _PACKED_AT + 4], "little") if array.compressed else array.chunk_bytes
    if packed != says:
        return False
    if array.checksummed and int(google_crc32c.value(content[:packed])).to_bytes(4, "little") != content[packed:]:
        return False
    if name not in document.checksums:
        return True
    wanted = checksums.at(document.checksums[name], place, document.settled_grid(name))
    return checksums.of_chunk(content, checksummed=array.checksummed) == wanted
