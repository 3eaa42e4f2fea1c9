"""Bytes as text: whatever is readable in them, however it is spelt, and its letters alone."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

import numpy as np

Bytes = bytes | memoryview

WORD = re.compile(rb"[A-Za-z0-9\x80-\xff]{3,}")
_SLICE = 8 * 2**20  # bytes that are read together
_OVERLAP = 4096  # of two slices, so that nothing is cut in two
_MOST_ROUNDS = 3  # of undoing escapes: JSON in JSON in HTML
_RUNS = re.compile(rb"[\t\n\r\x20-\x7e]{6,}")
_WIDE = (re.compile(rb"(?:[\t\n\r\x20-\x7e]\x00){6,}"), re.compile(rb"(?:\x00[\t\n\r\x20-\x7e]){6,}"))
_READABLE = np.array([byte in b"\t\n\r" or 0x20 <= byte < 0x7F for byte in range(256)])
_ESCAPED = re.compile(rb"((?:\\u[0-9a-fA-F]{4})+)|\\(?:([0-3][0-7]{2})|x([0-9a-fA-F]{2})|([\"\\/'()bfnrt]))")
_LETTERS_OF = dict(zip(b"bfnrt", (b" ", b" ", b"\n", b"\r", b"\t"), strict=True))
_PERCENT, _ENTITY = re.compile(rb"%[0-9A-Fa-f]{2}"), re.compile(rb"&#?\w{2,8};")
_TAG = re.compile(rb"<[!/A-Za-z?][^<>]{0,10000}>")
_ENCODED = re.compile(rb"(?:[A-Za-z0-9+/_-]{76,}+(?:\\n|\r?\n)?)++={0,2}")
_MARKS = re.compile("|".join("·␣↵⇥▁ĠĊ⟨⟩…\u2068\u2069").encode())  # how blanks and ends of lines of tokens are shown
_LOWER = bytes(ord(chr(byte).lower()) if byte < 0x80 else byte for byte in range(256))
_NO_LETTERS = bytes(byte for byte in range(0x80) if not chr(byte).isalpha())


def readable(data: Bytes) -> Iterator[bytes]:
    """The readable text of some bytes, a few megabytes at a time: text as it is, of anything else the runs of it."""
    for begin in range(0, len(data), _SLICE):
        part = bytes(data[begin : begin + _SLICE + _OVERLAP])
        if _is_text(part):
            yield part
            continue
        yield b"\n".join(_RUNS.findall(part))
        for first in (0, 1):  # two bytes a letter, one of them zero
            if _has_wide_run(part, first):
                yield b"\n".join(run[first::2] for run in _WIDE[first].findall(part))


def _has_wide_run(part: bytes, first: int) -> bool:
    """Whether zeros and readable bytes alternate somewhere: much faster than the search for where."""
    values = np.frombuffer(part, np.uint8)
    letters, zeros = values[first::2], values[1 - first :: 2]
    both = min(len(letters), len(zeros))
    wide = _READABLE[letters[:both]] & (zeros[:both] == 0)
    for step in (1, 2, 2):  # runs of 2, of 4, of 6
        wide = wide[:-step] & wide[step:] if len(wide) > step else wide[:0]
    return bool(wide.any())


def spellings(text: bytes) -> Iterator[bytes]:
    """A text without runs of base64, and once more without its escapes."""
    yield (plain := _ENCODED.sub(b" ", text))
    if (bare := unescaped(plain)) != plain:
        yield bare


def _is_text(part: bytes) -> bool:
    if b"\x00" in part:
        return False
    try:
        part[3:-3].strip(bytes(range(0x80, 0xC0))).decode("utf-8")  # a letter may be cut in two at either end
    except UnicodeDecodeError:
        return False
    return True


def unescaped(text: bytes) -> bytes:
    """A text as it was before it was put into JSON, a page, an address or a PDF."""
    for _ in range(_MOST_ROUNDS):
        before = text
        if b"\\" in text:
            text = _ESCAPED.sub(_character, text)
        if _ENTITY.search(text):
            text = html.unescape(text.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
        if _PERCENT.search(text):
            text = unquote_to_bytes(text)
        if text == before:
            break
    return text


def _character(match: re.Match[bytes]) -> bytes:
    if match[1]:
        return bytes.fromhex(match[1].replace(b"\\u", b"").decode()).decode("utf-16-be", "replace").encode()
    if match[2] or match[3]:
        return bytes([int(match[2], 8) if match[2] else int(match[3], 16)])
    return _LETTERS_OF.get(match[4][0], match[4])


def letters_in(text: bytes) -> Iterator[bytes]:
    """The letters of a text alone, small; of markup once more without what stands in tags.

    Tokens that stand in cells, labels or lines of their own are next to each other again.
    """
    yield letters(text)
    if _TAG.search(text):
        yield letters(_TAG.sub(b"", text))


def letters(text: bytes) -> bytes:
    """The letters of a text, small."""
    return _MARKS.sub(b"", text).translate(_LOWER, _NO_LETTERS)
