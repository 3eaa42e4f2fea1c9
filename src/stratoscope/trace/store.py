"""The store a trace is written through: files are staged, then made durable and put in place all at once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import ByteRequest
from zarr.codecs import BloscCodec, Crc32cCodec, ShardingCodecIndexLocation
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from stratoscope.trace.bounds import refuse_costly_document
from stratoscope.trace.schema import Layout, Sizes, fill_value

ROOT_DOCUMENT = "zarr.json"
_SYNC_THREADS = 8
PARTIAL = ".partial"  # what a stopped writer may leave; never read


def step(operation: str, path: Path) -> None:
    """Called before every write, fsync and replace of a trace, so that a test can stop the writer at each of them."""


def write_file(path: Path, content: bytes | bytearray | memoryview) -> None:
    """Write a file that nobody reads yet."""
    step("write", path)
    path.write_bytes(content)


def sync_file(path: Path) -> None:
    """Make a file's content, or a folder's entries, survive a power cut."""
    step("fsync", path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_files(paths: Iterable[Path]) -> None:
    """Make many files durable: side by side, so that the disk can do it in a few strokes."""
    with ThreadPoolExecutor(_SYNC_THREADS) as pool:
        list(pool.map(sync_file, paths))


def replace_path(source: Path, target: Path) -> None:
    """Atomically put a file or folder in place."""
    step("replace", target)
    source.replace(target)


class StagingStore(LocalStore):
    """A Zarr store for one writer of one trace.

    Chunks that Zarr writes are staged under temporary names until `publish`. Metadata documents of arrays stay in
    memory (`documents`): a trace's only authority is its root document, written last by `write_root`.
    """

    def __init__(self, root: Path | str, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self.documents: dict[str, bytes] = {}
        self._staged: dict[str, Path] = {}

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Metadata from memory, chunks from the folder."""
        if not key.endswith(ROOT_DOCUMENT):
            return await super().get(key, prototype, byte_range)
        document = self.documents.get(key)
        return None if document is None or prototype is None else prototype.buffer.from_bytes(document)

    async def set(self, key: str, value: Buffer) -> None:
        """Keep a metadata document in memory; stage a chunk."""
        if key.endswith(ROOT_DOCUMENT):
            self.documents[key] = value.to_bytes()
        else:
            self._stage(key, value.as_buffer_like())

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """As `set`, and never the root document: Zarr's thread may outlive an interrupted writer and its folder."""
        if key != ROOT_DOCUMENT and key not in self.documents:
            await self.set(key, value)

    def create(self, layout: Layout, sizes: Sizes, length: int) -> zarr.Array[Any]:
        """An array of which `length` is committed; its metadata stay in memory until `stage_documents`."""
        dtype = np.dtype(layout.dtype)
        if layout.streamed:
            return self._create_shards(layout, sizes, length)
        # of float32, zstd leaves about the same bytes and takes five times as long (benchmarks in docs/decisions/0014)
        compressor = BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle", typesize=dtype.itemsize)
        return zarr.create_array(
            self,
            name=layout.name,
            shape=(length, *layout.shape(sizes)[1:]),
            chunks=layout.chunks(sizes),
            dtype=dtype,
            fill_value=fill_value(layout),
            filters=None,
            compressors=[compressor, Crc32cCodec()],
            chunk_key_encoding={"name": "default", "separator": "."},
            dimension_names=layout.dims,
            attributes=layout.attrs,
            config={"write_empty_chunks": True},  # a missing chunk is damage
        )

    def _create_shards(self, layout: Layout, sizes: Sizes, length: int) -> zarr.Array[Any]:
        """A streamed array; nobody writes it through Zarr."""
        shape = layout.shape(sizes, length)
        return zarr.create_array(
            self,
            name=layout.name,
            shape=shape,
            chunks=(layout.shards(sizes).chunk_rows, 1, shape[2]),
            shards={"shape": layout.chunks(sizes), "index_location": ShardingCodecIndexLocation.start},
            dtype=np.dtype(layout.dtype),
            fill_value=fill_value(layout),
            filters=None,
            compressors=None,
            chunk_key_encoding={"name": "default", "separator": "."},
            dimension_names=layout.dims,
            attributes=layout.attrs,
        )

    def _stage(self, key: str, content: bytes | bytearray | memoryview) -> None:
        partial = self.root / (key + PARTIAL)
        partial.parent.mkdir(exist_ok=True)  # a trace that is gone is not begun again
        self._staged[key] = partial
        write_file(partial, content)

    def stage_documents(self) -> None:
        """Stage every array's own metadata document."""
        for key, document in self.documents.items():
            self._stage(key, document)

    def publish(self) -> None:
        """Make everything staged durable and put it in place."""
        sync_files(self._staged.values())
        for key, partial in self._staged.items():
            replace_path(partial, self.root / key)
        folders = {(self.root / key).parent for key in self._staged}
        sync_files(folders | ({self.root} if folders else set()))
        self._staged.clear()

    @contextmanager
    def discarding(self) -> Iterator[None]:
        """Remove what is staged when something goes wrong inside."""
        try:
            yield
        finally:
            for partial in self._staged.values():
                partial.unlink(missing_ok=True)
            self._staged.clear()

    def arrays(self) -> dict[str, Any]:
        """Metadata document of every array, by name."""
        return {key.removesuffix("/" + ROOT_DOCUMENT): json.loads(text) for key, text in self.documents.items()}

    def write_root(self, attrs: Mapping[str, Any]) -> None:
        """Commit: atomically replace the root document by one that carries the arrays' present shapes."""
        document = {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": dict(attrs),
            "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": self.arrays()},
        }
        target, partial = self.root / ROOT_DOCUMENT, self.root / (ROOT_DOCUMENT + PARTIAL)
        content = json.dumps(document, allow_nan=False).encode()
        refuse_costly_document(content, str(self.root))  # before anything is replaced by what no reader would open
        write_file(partial, content)
        sync_file(partial)
        replace_path(partial, target)
        sync_file(self.root)
