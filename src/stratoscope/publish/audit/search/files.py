"""Every file of what is audited: links and leftovers are told, and only what is a file is opened."""

from __future__ import annotations

import mmap
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stratoscope.errors import InputError, StratoscopeError
from stratoscope.publish import inputs
from stratoscope.publish.audit.outcome import Finding
from stratoscope.publish.audit.search.texts import Bytes

LINKS, HIDDEN, LEFT_OVER, NO_FILES = "links", "hidden files", "leftovers", "what is no file"
ATTRIBUTES, UNREADABLE = "attributes of files", "what cannot be read"
_LEFT_OVER = re.compile(
    r".*(?:\.lock|\.partial|\.old|\.new|\.bak|\.tmp|\.sw[op]|\.orig|\.recording|~|\.published\.jsonl)"
)
_COPY = "Publish again, and copy only what that writes."
_MAPPED = 64 * 2**20  # bytes of a file above which it is not read into memory


def kind_of(root: Path) -> str:
    """What a file or folder is, by what is in it; "" = nothing that Stratoscope writes."""
    try:
        return inputs.kind_of(root)
    except StratoscopeError:
        return ""


@dataclass(frozen=True)
class Found:
    """A regular file, by its name in what is audited, and how many bytes it has."""

    path: Path
    name: str
    size: int


def files_in(root: Path) -> Iterator[Found | Finding]:
    """The files of a folder, or the one file, and what should not be among them.

    Raises
    ------
    InputError
        It does not exist, or is neither a file nor a folder.
    """
    if not root.exists():
        raise InputError("does not exist", where=str(root), fix="Check the spelling.")
    if not root.is_dir():
        if not root.is_file():
            raise InputError("is neither a file nor a folder", where=str(root), fix="Give what was published.")
        yield Found(root, root.name, root.stat().st_size)
        return
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda one: one.name)
        except OSError as error:
            yield Finding(UNREADABLE, f"{error.strerror or error}", str(folder), "Make it readable, and audit again.")
            continue
        for entry in entries:
            path = Path(entry.path)
            yield from _told(path, entry)
            if entry.is_symlink():
                continue
            if entry.is_dir():
                waiting.append(path)
            elif entry.is_file():
                yield Found(path, str(path.relative_to(root.parent)), entry.stat(follow_symlinks=False).st_size)


def _told(path: Path, entry: os.DirEntry[str]) -> Iterator[Finding]:
    """What is wrong with a file or folder before it is opened."""
    if entry.is_symlink():
        with suppress(OSError):
            yield Finding(LINKS, f"a link to {path.readlink()}", str(path), _COPY)
    elif not entry.is_dir() and not entry.is_file():
        kind = stat.filemode(entry.stat(follow_symlinks=False).st_mode)[0]
        yield Finding(NO_FILES, f"a pipe, socket or device ({kind})", str(path), _COPY)
    if entry.name.startswith("."):
        yield Finding(HIDDEN, "its name begins with a dot, so it is easily overlooked", str(path), _COPY)
    elif _LEFT_OVER.fullmatch(entry.name):
        yield Finding(LEFT_OVER, "by its name it was left over, or is a program's own", str(path), _COPY)
    with suppress(OSError, AttributeError):  # no such thing on this system
        for name in os.listxattr(path, follow_symlinks=False):
            if name.startswith("user."):
                yield Finding(
                    ATTRIBUTES, f"the file carries the attribute {name}", str(path), f"setfattr -x {name} FILE"
                )


@contextmanager
def opened(found: Found) -> Iterator[list[tuple[int, Bytes]]]:
    """Where each stretch of a file begins that is stored, and its bytes; what was never written is left out.

    Raises
    ------
    OSError
        The system refuses it, or it is no regular file any more.
    """
    descriptor = os.open(found.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "is no regular file", str(found.path))
        if not status.st_size:
            yield []
        elif status.st_size <= _MAPPED:
            yield [(0, os.read(descriptor, status.st_size))]
        else:
            with mmap.mmap(descriptor, status.st_size, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
                parts = [(start, view[start:end]) for start, end in _stored(descriptor, status.st_size)]
                try:
                    yield [*parts]
                finally:
                    for _, part in parts:
                        part.release()
    finally:
        os.close(descriptor)


def _stored(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """The stretches of a file that are on the disk: a file of 5 GB may hold nothing."""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
        except (OSError, AttributeError):  # nothing but a hole is left; or a system that knows none
            if not hasattr(os, "SEEK_DATA"):
                yield end, size
            return
        yield start, end
