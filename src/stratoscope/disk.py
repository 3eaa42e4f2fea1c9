"""What a program does to a disk whose work must survive a kill and a power cut: write, make durable, put in place."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PARTIAL = ".partial"  # ends the name of a file that a stopped writer may leave; never read
_SYNC_THREADS = 8
_FROM_HERE, _EXCHANGE = -100, 2  # AT_FDCWD, RENAME_EXCHANGE


def step(operation: str, path: Path) -> None:
    """Called before every write, fsync and replace, so that a test can stop the program at each of them."""


def is_full(error: OSError) -> bool:
    """Whether the operating system says that a disk, a quota or a file can hold no more."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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


def sync_tree(folder: Path) -> None:
    """Make a folder durable, with everything in it."""
    sync_files([folder, *folder.rglob("*")])


def replace_path(source: Path, target: Path) -> None:
    """Atomically put a file or folder in place."""
    step("replace", target)
    source.replace(target)


def exchange_paths(one: Path, other: Path) -> bool:
    """Atomically give each of two paths what is at the other; False, and nothing done, where the system cannot."""
    if _renameat2 is None:
        return False
    step("replace", other)
    return _renameat2(_FROM_HERE, os.fsencode(one), _FROM_HERE, os.fsencode(other), _EXCHANGE) == 0


def _find_renameat2() -> Callable[..., int] | None:
    try:
        function = ctypes.CDLL(None).renameat2  # Linux
    except (OSError, AttributeError, TypeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    function.restype = ctypes.c_int
    found: Callable[..., int] = function
    return found


_renameat2 = _find_renameat2()
