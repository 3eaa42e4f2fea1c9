"""Small files that want to cost much: each is a few bytes, or megabytes, of what a reader could take for sound."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs.blosc import Blosc
from numcodecs.checksum32 import CRC32C

Change = Callable[[dict[str, Any]], object]
MiB = 2**20


def change_root(trace: Path, change: Change) -> None:
    """Change the root document of a trace."""
    content = json.loads((trace / "zarr.json").read_bytes())
    change(content)
    (trace / "zarr.json").write_text(json.dumps(content))


def write_array(trace: Path, name: str, values: np.ndarray, length: int, chunk: int) -> None:
    """Make an array of a trace one that holds `length` rows of equal `values`, in chunks that pack to nothing."""
    folder = trace / name
    for path in folder.glob("c.*"):
        path.unlink()
    block = np.broadcast_to(values, (chunk, *values.shape)).copy()
    packed = Blosc(cname="zstd", clevel=5, shuffle=1).encode(block)
    content = CRC32C(location="end").encode(packed)
    grid = -(-length // chunk)
    after = ".0" * values.ndim
    for place in range(grid):
        (folder / f"c.{place}{after}").write_bytes(bytes(content))

    def change(root: dict[str, Any]) -> None:
        document = root["consolidated_metadata"]["metadata"][name]
        document["shape"][0] = length
        document["chunk_grid"]["configuration"]["chunk_shape"] = [chunk, *(max(1, n) for n in document["shape"][1:])]
        (blosc,) = [codec for codec in document["codecs"] if codec["name"] == "blosc"]
        blosc["configuration"].update(cname="zstd", shuffle="shuffle", clevel=5, typesize=block.dtype.itemsize)

    change_root(trace, change)


def long_text(trace: Path, column: str, length: int, letter: bytes = b"c") -> None:
    """Make the first text of a column that many bytes long."""
    root = json.loads((trace / "zarr.json").read_bytes())
    count = root["consolidated_metadata"]["metadata"][f"{column}_end"]["shape"][0]
    write_array(trace, f"{column}_bytes", np.frombuffer(letter, np.uint8)[0], length, min(length, 64 * MiB))
    write_array(trace, f"{column}_end", np.int64(length), count, count)


def copy_of(good: Path, out: Path) -> Path:
    """A trace to spoil."""
    return Path(shutil.copytree(good, out))


def fifo(path: Path) -> Path:
    """A pipe that nobody writes to."""
    os.mkfifo(path)
    return path
