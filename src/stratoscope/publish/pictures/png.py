"""A PNG rebuilt of its pixels, their size on paper, and what is said of it; no other chunk of the file goes on."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from stratoscope.publish.pictures.about import NotOurs
from stratoscope.view.matplotlib.save import KEY

_BEGIN = b"\x89PNG\r\n\x1a\n"
_SAMPLES = {2: 3, 6: 4}  # colour type → bytes of a pixel: red, green, blue, and how opaque it is
_KEYWORD = KEY.encode() + b"\0"
_MOST = 2**30  # bytes of unpacked pixels


def said(data: bytes) -> str:
    """The text that a PNG of ours carries.

    Raises
    ------
    NotOurs
        It carries none, or several.
    """
    texts = [body for kind, body in _chunks(data) if kind == b"tEXt" and body.startswith(_KEYWORD)]
    if len(texts) != 1:
        raise NotOurs("it does not carry how it was made")
    return texts[0][len(_KEYWORD) :].decode("latin-1")


def rewritten(data: bytes, text: str) -> bytes:
    """The same pixels, with this text in place of all that the file says.

    Raises
    ------
    NotOurs
        It is no whole PNG of the kind that is written here.
    """
    chunks = list(_chunks(data))
    header = b"".join(body for kind, body in chunks if kind == b"IHDR")
    packed = b"".join(body for kind, body in chunks if kind == b"IDAT")
    again = zlib.compress(_pixels(header, packed), 6)
    size = [body for kind, body in chunks if kind == b"pHYs" and _is_square(body)][:1]
    parts = [(b"IHDR", header), (b"tEXt", _KEYWORD + text.encode("ascii"))] if text else [(b"IHDR", header)]
    parts += [*((b"pHYs", body) for body in size), (b"IDAT", again), (b"IEND", b"")]
    return _BEGIN + b"".join(chunk(kind, body) for kind, body in parts)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kinds and contents of the chunks, up to the last one; what follows it is none."""
    if not data.startswith(_BEGIN):
        raise NotOurs("it does not begin as a PNG")
    at = len(_BEGIN)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, body, end = data[at + 4 : at + 8], data[at + 8 : at + 8 + length], at + 12 + length
        if end > len(data) or zlib.crc32(kind + body) != int.from_bytes(data[end - 4 : end], "big"):
            break
        yield kind, body
        if kind == b"IEND":
            return
        at = end
    raise NotOurs("it is damaged or cut off")


def _pixels(header: bytes, packed: bytes) -> bytes:
    """The rows of pixels, each behind the number of its filter, and not a byte more."""
    if len(header) != 13 or header[8] != 8 or header[9] not in _SAMPLES or header[10:] != b"\0\0\0":
        raise NotOurs("its pixels are of another kind than is written here")
    width, height = (int.from_bytes(header[at : at + 4], "big") for at in (0, 4))
    row = 1 + width * _SAMPLES[header[9]]
    if not (width > 0 and height > 0 and height * row <= _MOST):
        raise NotOurs("it is larger than any picture that is written here")
    unpacking = zlib.decompressobj()
    try:
        rows = unpacking.decompress(packed, height * row + 1)
    except zlib.error:
        raise NotOurs("its pixels cannot be unpacked") from None
    if len(rows) != height * row or not unpacking.eof or max(rows[::row]) > 4:
        raise NotOurs("it has more or fewer pixels than it says")
    return rows


def _is_square(body: bytes) -> bool:
    """Whether a size on paper is that of square pixels, in metres."""
    return len(body) == 9 and body[:4] == body[4:8] and body[8] == 1


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk as it stands in a file."""
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
