"""What a file is, by its first bytes: packed, in which encoding its text is, or of a kind that holds no text."""

from __future__ import annotations

import codecs

PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\x00": "lzma"}  # -> module of Python that unpacks
PACKED_SUFFIXES = (".gz", ".bz2", ".xz")
ENCODINGS = {  # by byte order mark; the longer ones first
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
ZSTD, OLD_OFFICE = b"(\xb5/\xfd", b"\xd0\xcf\x11\xe0"
PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
DOCUMENTS = {b"SQLite format 3": "an SQLite database", b"%PDF": "a PDF", b"\x93NUMPY": "a NumPy array"}
ARCHIVES = {b"7z\xbc\xaf": "a 7z archive", b"Rar!": "a RAR archive"}


def encoding_by_mark(data: bytes) -> str:
    """The encoding that a byte order mark names, "" where there is none but perhaps that of UTF-8."""
    return next((name for mark, name in ENCODINGS.items() if data.startswith(mark)), "")


def packing_by_head(head: bytes) -> str:
    """The module of Python that unpacks a file which begins so, "" where it is not packed."""
    return next((module for magic, module in PACKED.items() if head.startswith(magic)), "")
