"""How much a trace may ask of its reader: seen in the bytes of its root document before they are parsed, and in sizes.

A trace may come from a stranger, and a few kilobytes can stand for gigabytes. What is refused here is far from what any
recording needs; docs/format.md says what a recording does need.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from stratoscope import defaults
from stratoscope.errors import TraceError

DAMAGED = "It is damaged or was not written by Stratoscope: copy or record it again."
MAX_DOCUMENT_BYTES = 10 * 2**20
MAX_NESTING = 64
MAX_CONTAINERS = 100_000  # lists and objects of the root document
MAX_VALUES = 500_000  # everything that stands in them, names too
MAX_TEXT_BYTES = 2**20  # of one text of the root document
LONGEST_TEXT = 2**18  # bytes of one text of a column: a token, a prompt's name, a cell of a CSV
TEXTS_AT_ONCE = 2**16  # texts that are decoded together where all of them are only counted

_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)  # one without an end is a text too: no second look
_BEYOND = "It is damaged, or was made to fill the memory of whoever opens it: record it again."


def read_regular_file(path: Path, most: int) -> bytes:
    """Content of a regular file of at most `most` bytes; links, devices and pipes are refused unread.

    Raises
    ------
    TraceError
        When it is something else or larger.
    FileNotFoundError
        When there is none.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise TraceError(f"cannot be read ({error.strerror})", where=str(path), fix=DAMAGED) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise TraceError("is not a regular file", where=str(path), fix=DAMAGED)
        if status.st_size > most:
            raise TraceError(f"has {status.st_size:,} bytes, more than {most:,}", where=str(path), fix=DAMAGED)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size)
    finally:
        os.close(descriptor)


def refuse_costly_document(data: bytes, where: str) -> None:
    """Refuse a JSON document whose parsing would cost far more than its size, without parsing it.

    Raises
    ------
    TraceError
        It has more texts, values, lists or objects than a root document may have, or too long a text.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise _too_many("bytes", len(data), MAX_DOCUMENT_BYTES, where)
    if data.count(b'"') > 2 * MAX_VALUES:  # so that the texts can be looked at one by one
        raise _too_many("texts", data.count(b'"') // 2, MAX_VALUES, where)
    longest, outside = 0, bytearray()
    end = 0
    for text in _TEXT.finditer(data):
        longest = max(longest, text.end() - text.start() - 2)
        outside += data[end : text.start()]
        end = text.end()
    outside += data[end:]
    if longest > MAX_TEXT_BYTES:
        what = f"holds a text of {longest:,} bytes; it may have {MAX_TEXT_BYTES:,}"
        raise TraceError(f"its zarr.json {what}", where=where, fix=_BEYOND)
    containers = outside.count(b"{") + outside.count(b"[")
    if containers > MAX_CONTAINERS:
        raise _too_many("lists and objects", containers, MAX_CONTAINERS, where)
    values = outside.count(b",") + outside.count(b":") + containers
    if values > MAX_VALUES:
        raise _too_many("values", values, MAX_VALUES, where)


def _too_many(what: str, count: int, most: int, where: str) -> TraceError:
    return TraceError(f"its zarr.json holds {count:,} {what}; it may hold {most:,}", where=where, fix=_BEYOND)


def most_unpacked(packed: int) -> int:
    """What so many bytes on disk may stand for."""
    return max(defaults.UNPACKED_BYTES, defaults.UNPACKED_TIMES * packed)


def refuse_inflated(unpacked: int, packed: int, where: str) -> None:
    """Refuse a trace whose arrays would unpack to so much more than its files hold that nobody recorded them.

    Raises
    ------
    TraceError
        They would.
    """
    if unpacked > most_unpacked(packed):
        what = f"its {packed:,} bytes of chunks stand for {unpacked:,}; so few may stand for {most_unpacked(packed):,}"
        raise TraceError(what, where=where, fix=_BEYOND)


def too_long_a_text(column: str, length: int, where: str = "") -> TraceError:
    """A text of a column is longer than any may be."""
    return TraceError(
        f"a text of the column '{column}' has {length:,} bytes; it may have {LONGEST_TEXT:,}",
        where=where,
        fix="Shorten it: a column holds tokens and names, not documents.",
    )
