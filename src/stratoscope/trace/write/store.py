"""The store a trace is written through: files are staged, then made durable and put in place all at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import ByteRequest
from zarr.codecs import BloscCodec, Crc32cCodec, ShardingCodecIndexLocation
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from stratoscope.disk import PARTIAL, replace_path, sync_file, sync_files, write_file
from stratoscope.trace.format import checksums, strict_json
from stratoscope.trace.format.bounds import DAMAGED
from stratoscope.trace.format.checksums import CHECKSUMS, Place
from stratoscope.trace.format.schema import COMPLETE, ROOT_DOCUMENT, Layout, Sizes, fill_value

Check = Callable[[str], object]  # of the file name of a root document; raises what whoever reads it would


class StagingStore(LocalStore):
    """A Zarr store for one writer of one trace.

    Chunks that Zarr writes are staged under temporary names until `publish`. Metadata documents of arrays stay in
    memory (`documents`): a trace's only authority is its root document, written last by `write_root`. Of an array in
    which nothing is, nothing is written unless `keep_empty`.
    """

    def __init__(self, root: Path | str, *, read_only: bool = False, keep_empty: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self._keep_empty = keep_empty
        self.documents: dict[str, bytes] = {}
        self.checksums: dict[str, dict[Place, bytes]] = {}  # of all chunks of each array that is not streamed
        self._staged: dict[str, Path] = {}

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Metadata from memory, chunks from the folder."""
        if not key.endswith(ROOT_DOCUMENT):
            chunk = await super().get(key, prototype, byte_range)
            self._refuse_other(key, chunk)
            return chunk
        document = self.documents.get(key)
        return None if document is None or prototype is None else prototype.buffer.from_bytes(document)

    async def set(self, key: str, value: Buffer) -> None:
        """Keep a metadata document in memory; stage a chunk."""
        if key.endswith(ROOT_DOCUMENT):
            self.documents[key] = value.to_bytes()
        else:
            name, place = _chunk_place(key)
            self.checksums.setdefault(name, {})[place] = value[len(value) - checksums.BYTES : len(value)].to_bytes()
            self._stage(key, value.as_buffer_like())

    def _refuse_other(self, key: str, chunk: Buffer | None) -> None:
        """What a resumed recording reads must be what was written; of chunks that could still grow it is known now."""
        if chunk is None:
            return
        name, place = _chunk_place(key)
        content = chunk.to_bytes()
        wanted = self.checksums.setdefault(name, {}).setdefault(place, checksums.of_chunk(content))
        checksums.refuse_other(content, wanted, self.root / key, DAMAGED)

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
        """Stage the own metadata document of every array that is written."""
        for name in self.arrays():
            key = f"{name}/{ROOT_DOCUMENT}"
            self._stage(key, self.documents[key])

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
        """Metadata document of every array that is written, by name."""
        found = {key.removesuffix("/" + ROOT_DOCUMENT): json.loads(text) for key, text in self.documents.items()}
        return {name: document for name, document in found.items() if self._keep_empty or 0 not in document["shape"]}

    def write_root(self, attrs: Mapping[str, Any], check: Check) -> None:
        """Commit: atomically replace the root document by one that carries the arrays' present shapes."""
        partial = self._write_root(attrs, check)
        sync_file(partial)
        replace_path(partial, self.root / ROOT_DOCUMENT)
        sync_file(self.root)

    def check_root(self, attrs: Mapping[str, Any], check: Check) -> None:
        """Find out whether a root document would be refused, and leave nothing of it."""
        self._write_root(attrs, check).unlink()

    def _write_root(self, attrs: Mapping[str, Any], check: Check) -> Path:
        arrays = self.arrays()
        complete = attrs["state"] == COMPLETE
        found = {name: _packed(arrays[name], known, complete=complete) for name, known in self.checksums.items()}
        document = {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": {**attrs, CHECKSUMS: found},
            "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": arrays},
        }
        partial = self.root / (ROOT_DOCUMENT + PARTIAL)
        write_file(partial, json.dumps(strict_json.sealed(document), allow_nan=False).encode())
        check(partial.name)
        return Path(partial)


def _chunk_place(key: str) -> tuple[str, Place]:
    """Array and place in its grid of a chunk that this store named."""
    name, _, file_name = key.rpartition("/")
    return name, tuple(int(part) for part in file_name.split(".")[1:])


def _packed(array: Mapping[str, Any], found: Mapping[Place, bytes], *, complete: bool) -> str:
    chunks = array["chunk_grid"]["configuration"]["chunk_shape"]
    return checksums.to_text(found, checksums.settled_grid(array["shape"], chunks, complete=complete))
