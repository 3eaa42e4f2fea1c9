"""What is packed in a file's bytes: every compressed or encoded stream, wherever it stands, within bounds."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from stratoscope import defaults
from stratoscope.publish.audit.search import pdf
from stratoscope.publish.audit.search.texts import Bytes, readable

_DEEPEST = 6  # packed in packed in packed …
_TOO_SMALL = 8  # unpacked bytes in which nothing can be found
_FEED = 2**16  # packed bytes that are handed over at a time
_ATTEMPT = 64  # bytes of the budget that opening costs, even in vain
_LARGEST = 2 * defaults.UNPACKED_BYTES  # of one stream
_APART = 1024  # characters of a run of base64 that is searched by itself
_ZIP, _ZSTD = b"PK\x03\x04", b"\x28\xb5\x2f\xfd"
_WINDOWS = {b"\x1f\x8b": ("gzip", zlib.MAX_WBITS | 16), b"PK": ("zip", -zlib.MAX_WBITS)}
_ZLIB = ("zlib", zlib.MAX_WBITS)
_STREAMS = re.compile(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08|PK\x03\x04|\x28\xb5\x2f\xfd")
_ZIP_HEADER = 30  # bytes before the name of a member
_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/_-]{24,}+(?:\\n|\r?\n)?)++")
_HEX = re.compile(rb"(?<![0-9A-Fa-f])(?:[0-9A-Fa-f]{2}){12,}+")
_PNG = b"\x89PNG\r\n\x1a\n"
_PDF = b"%PDF-"
_BLOSC_HEADER = 16


@dataclass(frozen=True)
class Piece:
    """Bytes to be searched.

    Attributes
    ----------
    where
        The file, and what of it was opened, as a person reads it.
    data
        The bytes.
    has_text
        Whether there may be text among them: pixels have none.
    """

    where: str
    data: Bytes
    has_text: bool = True


@dataclass
class Budget:
    """How much may still be unpacked, so that a small file cannot fill the memory or take for ever.

    Attributes
    ----------
    left
        Bytes of all that is still to be unpacked.
    unpacked
        Bytes that were.
    unopened
        What was not opened, or not to its end, and why.
    """

    left: int
    unpacked: int = 0
    unopened: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def of_files(cls, size: int) -> Budget:
        """What files of that many bytes may unpack to in all."""
        return cls(_LARGEST + defaults.UNPACKED_TIMES * size)

    def take(self, size: int) -> None:
        """Count bytes that were unpacked."""
        self.left -= size + _ATTEMPT
        self.unpacked += size

    @property
    def most(self) -> int:
        """The most that the next stream may unpack to."""
        return max(0, min(self.left, _LARGEST))


def pieces(where: str, data: Bytes, budget: Budget, depth: int = 0) -> Iterator[Piece]:
    """The bytes themselves, then all that is packed in them."""
    yield Piece(where, data)
    if depth == _DEEPEST:
        if _STREAMS.search(data):
            budget.unopened.append((where, f"it is packed more than {_DEEPEST} times over"))
        return
    for inside in _inside(where, data, budget):
        if inside.has_text:
            yield from pieces(inside.where, inside.data, budget, depth + 1)
        else:
            yield inside


def _inside(where: str, data: Bytes, budget: Budget) -> Iterator[Piece]:
    yield from _chunk(where, data, budget)
    if bytes(data[: len(_PNG)]) == _PNG:
        pixels, data = _pixels_and_rest(data)
        content, _ = _inflated(f"{where}, its pixels", pixels, 0, zlib.MAX_WBITS, budget)
        yield Piece(f"{where}, its pixels", content, has_text=False)
    if bytes(data[: len(_PDF)]) == _PDF:
        streams = [*_streams(where, data, budget)]
        yield from streams
        yield Piece(f"{where}, what its objects say", pdf.said(bytes(data)))
        yield Piece(f"{where}, the text that it shows", pdf.shown([*(bytes(one.data) for one in streams), bytes(data)]))
    else:
        yield from _streams(where, data, budget)
    yield from _encoded(where, data)


# --- compressed -------------------------------------------------------------------------------------------------------


def _streams(where: str, data: Bytes, budget: Budget) -> Iterator[Piece]:
    """Every zlib, gzip, zip or zstd stream, wherever it begins."""
    end = 0
    for match in _STREAMS.finditer(data):
        start, magic = match.start(), bytes(match[0])
        if start < end:
            continue
        if budget.left <= 0:
            budget.unopened.append((where, "so much is packed in what is audited that the rest was not opened"))
            return
        if magic == _ZSTD:
            yield from _zstd(where, data, start, budget)
            continue
        kind, window = _WINDOWS.get(magic[:2], _ZLIB)
        label = f"{where}, {kind} stream at byte {start:,}"
        begin = _zip_content(data, start) if magic == _ZIP else start
        content, used = _inflated(label, data, begin, window, budget)
        if used:
            end = begin + used
        if len(content) >= _TOO_SMALL:
            yield Piece(label, content)


def _zip_content(data: Bytes, start: int) -> int:
    """Where the bytes of a member of a zip archive begin."""
    name, extra = (int.from_bytes(data[start + at : start + at + 2], "little") for at in (26, 28))
    return start + _ZIP_HEADER + name + extra


def _inflated(label: str, data: Bytes, start: int, window: int, budget: Budget) -> tuple[bytes, int]:
    """What a deflated stream holds, as far as it is one, and the packed bytes of a whole one (else 0)."""
    opener, parts, size, at = zlib.decompressobj(window), [], 0, start
    most = budget.most
    try:
        while not opener.eof and size < most and (at < len(data) or opener.unconsumed_tail):
            packed = opener.unconsumed_tail or bytes(data[at : (at := min(at + _FEED, len(data)))])
            parts.append(opener.decompress(packed, most - size))
            size += len(parts[-1])
    except zlib.error:
        pass  # what looked like one was none, or is damaged: what came out of it is searched
    budget.take(size)
    if size >= most and not opener.eof:
        budget.unopened.append((label, f"it unpacks to more than {most:,} bytes"))
    return b"".join(parts), at - start - len(opener.unused_data) if opener.eof else 0


def _zstd(where: str, data: Bytes, start: int, budget: Budget) -> Iterator[Piece]:
    from numcodecs import zstd

    label = f"{where}, zstd stream at byte {start:,}"
    size = _zstd_size(data, start)
    if size is None or size > budget.most:
        why = "it does not say to how much it unpacks" if size is None else f"it says that it unpacks to {size:,} bytes"
        budget.unopened.append((label, why))
        return
    try:
        content = zstd.decompress(bytes(data[start:]))
    except (RuntimeError, ValueError):
        return  # four bytes that only look like the beginning of one
    budget.take(len(content))
    yield Piece(label, content)


def _zstd_size(data: Bytes, start: int) -> int | None:
    """To how many bytes a zstd frame says that it unpacks."""
    flags = data[start + 4] if start + 4 < len(data) else 0
    single, code = bool(flags & 0x20), flags >> 6
    width = (1 if single else 0, 2, 4, 8)[code]
    at = start + 5 + (not single) + (0, 1, 2, 4)[flags & 3]
    if not width or at + width > len(data):
        return None
    return int.from_bytes(data[at : at + width], "little") + (256 if width == 2 else 0)


def _chunk(where: str, data: Bytes, budget: Budget) -> Iterator[Piece]:
    """A chunk of an array, packed by blosc: its header says how long it is, packed and unpacked."""
    from numcodecs import blosc

    if len(data) < _BLOSC_HEADER or data[0] not in (1, 2):
        return
    unpacked, packed = (int.from_bytes(data[at : at + 4], "little") for at in (4, 12))
    if not _BLOSC_HEADER <= packed <= len(data):
        return
    if unpacked > budget.most:
        budget.unopened.append((where, f"it says that it unpacks to {unpacked:,} bytes"))
        return
    try:
        content = blosc.decompress(bytes(data[:packed]))
    except (RuntimeError, ValueError):
        return
    budget.take(len(content))
    yield Piece(f"{where}, unpacked", content)


def _pixels_and_rest(data: Bytes) -> tuple[bytes, bytes]:
    """The packed pixels of a PNG, which are one stream in several chunks, and the file with zeros in their place."""
    pixels, rest, at = [], bytearray(data), len(_PNG)
    while at + 12 <= len(data) and bytes(data[at + 4 : at + 8]) != b"IEND":
        begin, end = at + 8, at + 8 + int.from_bytes(data[at : at + 4], "big")
        if bytes(data[at + 4 : begin]) == b"IDAT" and end <= len(data):
            pixels.append(bytes(data[begin:end]))
            rest[begin:end] = bytes(end - begin)
        at = end + 4
    return b"".join(pixels), bytes(rest)


# --- encoded ----------------------------------------------------------------------------------------------------------


def _encoded(where: str, data: Bytes) -> Iterator[Piece]:
    """What is written as base64, at each of the four places where it may begin in a run, and what as hexadecimal."""
    short: list[list[bytes]] = [[], [], [], [], []]
    for text in readable(data):
        for match in _BASE64.finditer(text):
            run = _BREAKS.sub(b"", match[0]).translate(_STANDARD)
            for shift in range(4):
                content = _from_base64(run[shift:])
                if len(run) < _APART:
                    short[shift].append(content)
                else:
                    yield Piece(f"{where}, base64", content)
        short[-1] += [bytes.fromhex(match[0].decode("ascii")) for match in _HEX.finditer(text)]
    for parts in short:
        if parts:
            yield Piece(f"{where}, short runs of base64 or hexadecimal", b"\n".join(parts))


_BREAKS = re.compile(rb"\\n|[\r\n]")
_STANDARD = bytes.maketrans(b"-_", b"+/")


def _from_base64(run: bytes) -> bytes:
    return base64.b64decode(run[: len(run) - (len(run) % 4 == 1)] + b"==")  # a lone letter holds no byte
