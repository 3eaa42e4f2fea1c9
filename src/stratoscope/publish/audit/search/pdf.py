"""The texts of a PDF: what is shown with fonts of numbered glyphs, and what its objects say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

_STRING = rb"\(((?:[^\\()]|\\.|\((?:[^\\()]|\\.)*\))*)\)|<([0-9A-Fa-f\s]*)>"
_STRINGS = re.compile(_STRING, re.DOTALL)
_SHOWING = re.compile(_STRING + rb"|\b(T[jJ]|T[dDm*]|ET)\b", re.DOTALL)
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|(\r?\n|.))", re.DOTALL)
_LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b" ", b"f": b" "}
_STREAM = re.compile(rb"\bstream\r?\n.*?\bendstream", re.DOTALL)
_RANGE = re.compile(rb"<([0-9A-Fa-f]{2,4})>\s*<([0-9A-Fa-f]{2,4})>\s*(?:<([0-9A-Fa-f]+)>|\[([^\]]*)\])")
_CHARACTER = re.compile(rb"<([0-9A-Fa-f]{2,4})>\s*<([0-9A-Fa-f]+)>")
_SECTION = re.compile(rb"begin(bfrange|bfchar)(.*?)endbf", re.DOTALL)
_TARGET = re.compile(rb"<([0-9A-Fa-f]+)>")
_LONGEST_RANGE = 2**16
_WIDE = b"\xfe\xff"

Glyphs = Mapping[int, str]


def said(data: bytes) -> bytes:
    """What the objects of a PDF say, a string a line: its title, its subject, its links."""
    return b"\n".join(_said(one) for one in _literals(_STREAM.sub(b"", data)))


def shown(streams: Sequence[bytes]) -> bytes:
    """The text that is shown, a piece a line; read with each of the fonts, as none says where it is used.

    Parameters
    ----------
    streams
        What the PDF shows and its fonts, inflated.
    """
    fonts: list[Glyphs] = [{}, *(_glyphs(one) for one in streams if b"begincmap" in one)]
    pieces = [piece for one in streams if b"BT" in one for piece in _pieces(one)]
    readings = dict.fromkeys("\n".join(_read(piece, font) for piece in pieces) for font in fonts)
    return "\n".join(readings).encode("utf-8", "replace")


def _literals(data: bytes) -> Iterator[bytes]:
    """The strings of a PDF, without what escapes their bytes."""
    for match in _STRINGS.finditer(data):
        yield _bytes_of(match)


def _bytes_of(match: re.Match[bytes]) -> bytes:
    if match[2] is not None:
        digits = b"".join(match[2].split())
        return bytes.fromhex((digits + b"0" * (len(digits) % 2)).decode("ascii"))
    return _ESCAPE.sub(_unescaped, match[1])


def _unescaped(match: re.Match[bytes]) -> bytes:
    if match[1]:
        return bytes([int(match[1], 8) & 0xFF])
    return b"" if match[2].endswith(b"\n") else _LETTERS.get(match[2], match[2])


def _said(string: bytes) -> bytes:
    if string.startswith(_WIDE):
        return string[len(_WIDE) :].decode("utf-16-be", "replace").encode()
    return string


def _pieces(content: bytes) -> Iterator[bytes]:
    """The codes of each piece of text that is shown at one place, as one string; kerning cuts it into many."""
    parts: list[bytes] = []
    for match in _SHOWING.finditer(content):
        if match[3] is None:
            parts.append(_bytes_of(match))
        elif parts:
            yield b"".join(parts)
            parts = []


def _read(codes: bytes, font: Glyphs) -> str:
    """Codes as text: of two bytes each where a font numbers its glyphs, else of one."""
    if font or (len(codes) % 2 == 0 and b"\x00" in codes[::2]):
        pairs = (int.from_bytes(codes[at : at + 2], "big") for at in range(0, len(codes), 2))
        return "".join(font.get(code, chr(code) if code < 0xD800 else "") for code in pairs)
    return codes.decode("latin-1")


def _glyphs(cmap: bytes) -> Glyphs:
    """Which text each code of a font stands for, by its ToUnicode map."""
    found: dict[int, str] = {}
    for kind, section in _SECTION.findall(cmap):
        if kind == b"bfchar":
            found |= {int(code, 16): _text(target) for code, target in _CHARACTER.findall(section)}
            continue
        for first, last, target, several in _RANGE.findall(section):
            codes = range(int(first, 16), min(int(last, 16), int(first, 16) + _LONGEST_RANGE) + 1)
            if several:
                found |= dict(zip(codes, map(_text, _TARGET.findall(several)), strict=False))
            else:
                found |= {code: chr(min(int(target, 16) + step, 0x10FFFF)) for step, code in enumerate(codes)}
    return found


def _text(target: bytes) -> str:
    return bytes.fromhex((target + b"0" * (len(target) % 2)).decode("ascii")).decode("utf-16-be", "replace")
