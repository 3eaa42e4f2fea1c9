"""A read-only Zarr store that hands out checked metadata, and chunks only after looking at their sizes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.buffer.core import default_buffer_prototype
from zarr.storage import LocalStore

from stratoscope.errors import TraceError
from stratoscope.trace.format import checksums
from stratoscope.trace.format.array_document import ArrayDocument, chunk_index
from stratoscope.trace.format.bounds import DAMAGED, read_regular_file
from stratoscope.trace.format.document import Document
from stratoscope.trace.format.schema import ROOT_DOCUMENT

_BLOSC_HEADER = (
    16  # version, codec version, flags, type size, then three little-endian uint32: bytes, block, compressed
)
_SLACK = 4096  # what incompressible data may grow by: headers, block offsets, checksum


class SafeStore(LocalStore):
    """Reads one trace whose root document has been checked.

    Parameters
    ----------
    document
        The checked root document; no other metadata is ever read.
    """

    def __init__(self, document: Document) -> None:
        super().__init__(document.path, read_only=True)
        self._document, self._arrays = document, document.arrays
        self._root_document = document.to_bytes()
        self._folder = self.root.stat().st_ino

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The checked root document, or a chunk.

        Raises
        ------
        TraceError
            When a chunk is missing, a link, not the one that was written there, or would unpack to more than its array
            declares.
        """
        prototype = prototype or default_buffer_prototype()
        if key == ROOT_DOCUMENT:
            return prototype.buffer.from_bytes(self._root_document)
        name, _, file_name = key.rpartition("/")
        place = chunk_index(file_name)
        if name not in self._arrays or place is None:
            return None
        array = self._arrays[name]
        content = await asyncio.to_thread(_read_chunk, self.root / key, array)
        self._refuse_replaced()
        if name in self._document.checksums:
            wanted = checksums.at(self._document.checksums[name], place, self._document.settled_grid(name))
            checksums.refuse_other(content, wanted, self.root / key, DAMAGED, checksummed=array.checksummed)
        return prototype.buffer.from_bytes(content)

    def _refuse_replaced(self) -> None:
        """A trace that was overwritten since must not lend its chunks to the one that was opened."""
        if not self.root.exists() or self.root.stat().st_ino != self._folder:
            raise TraceError("was replaced since it was opened", where=str(self.root), fix="Open it again.")


def _read_chunk(path: Path, array: ArrayDocument) -> bytes:
    try:
        content = read_regular_file(path, array.chunk_bytes + array.chunk_bytes // 64 + _SLACK)
    except FileNotFoundError:
        raise TraceError("this part is missing", where=str(path), fix=DAMAGED) from None
    if array.compressed:
        _check_header(content, array, path)
    return content


def _check_header(content: bytes, array: ArrayDocument, path: Path) -> None:
    """Compare the sizes in a blosc header with what the array declares and with the file, before unpacking."""
    packed = len(content) - (checksums.BYTES if array.checksummed else 0)
    unpacks_to, says_packed = (int.from_bytes(content[place : place + 4], "little") for place in (4, 12))
    if len(content) < _BLOSC_HEADER or says_packed != packed:
        raise TraceError("is cut off or not a compressed chunk", where=str(path), fix=DAMAGED)
    if unpacks_to != array.chunk_bytes:
        what = f"would unpack to {unpacks_to:,} bytes instead of {array.chunk_bytes:,}"
        raise TraceError(what, where=str(path), fix=DAMAGED)
