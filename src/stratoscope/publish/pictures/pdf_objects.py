"""The objects of a PDF as matplotlib writes one: one list of places, no revisions, streams packed by zlib."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from stratoscope.publish.pictures.about import NotOurs

Value: TypeAlias = "bytes | list[Value] | dict[bytes, Value]"  # bytes: a number, name, text or reference, as written

_HEAD = b"%PDF-1.4\n%\xac\xdc \xab\xba\n"
_END = re.compile(rb"trailer\n(<<.*>>)\nstartxref\n(\d{1,12})\n%%EOF\n?\Z", re.DOTALL)
_LIST = re.compile(rb"xref\n0 (\d{1,6})\n")
_TOKEN = re.compile(
    rb"\s*(<<|>>|\[|\]|/[^\s/<>\[\]()%]*|\((?:[^()\\]|\\.)*\)|\d{1,6} 0 R\b|-?\d*\.?\d+|true|false|null)", re.DOTALL
)
_REFERENCE = re.compile(rb"(\d+) 0 R")
_TEXT_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_MOST, _DEEPEST = 2**28, 20  # bytes of all unpacked streams; values inside each other


@dataclass(frozen=True)
class Object:
    """An object: its value, and what its stream unpacks to; None = it has none."""

    value: Value
    stream: bytes | None = None


@dataclass(frozen=True)
class Pdf:
    """The objects of a file by their numbers, and its trailer."""

    objects: Mapping[int, Object]
    trailer: dict[bytes, Value]

    def at(self, reference: Value | None) -> Object:
        """The object that a reference names."""
        number = referred(reference)
        if number not in self.objects:
            raise NotOurs("it refers to what is not in it")
        return self.objects[number]


def referred(value: Value | None) -> int:
    """The number of the object that a value refers to; 0 = it is no reference."""
    found = _REFERENCE.fullmatch(value) if isinstance(value, bytes) else None
    return int(found[1]) if found else 0


def plain_text(value: Value | None) -> str:
    """A text in parentheses as it is meant; "" where there is none."""
    if not isinstance(value, bytes) or not value.startswith(b"("):
        return ""
    return _TEXT_ESCAPE.sub(rb"\1", value[1:-1]).decode("latin-1")


def read(data: bytes) -> Pdf:
    """The objects of a PDF.

    Raises
    ------
    NotOurs
        It is none, or written in another way.
    """
    end = _END.search(data, max(0, data.rfind(b"trailer\n")))
    listed = _LIST.match(data, int(end[2])) if end and data.startswith(_HEAD) else None
    if end is None or listed is None:
        raise NotOurs("it is no PDF as it is written here, or was changed since")
    first, count = listed.end(), int(listed[1])
    if first + 20 * count != end.start():
        raise NotOurs("the list of its objects is damaged")
    entries = (data[first + 20 * number : first + 20 * number + 20] for number in range(count))
    places = {number: int(entry[:10]) for number, entry in enumerate(entries) if entry[10:18] == b" 00000 n"}
    trailer, _ = _value(end[1], 0)
    if not isinstance(trailer, dict):
        raise NotOurs("it does not end as a PDF")
    objects, left = {}, _MOST
    for number, place in places.items():
        objects[number] = one = _object(data, number, place, places, left)
        left -= len(one.stream or b"")
    return Pdf(objects, trailer)


def _object(data: bytes, number: int, place: int, places: Mapping[int, int], most: int) -> Object:
    value, at = _value_of(data, number, place)
    if data.startswith(b"\nendobj\n", at):
        return Object(value)
    if not data.startswith(b"\nstream\n", at) or not isinstance(value, dict) or value.get(b"Filter") != b"/FlateDecode":
        raise NotOurs("a part of it is written otherwise than here")
    length: Value | None = value.get(b"Length")
    if other := referred(length):
        length, _ = _value_of(data, other, places.get(other, len(data)))
    if not isinstance(length, bytes) or not length.isdigit():
        raise NotOurs("a part of it does not say how long it is")
    start = at + len(b"\nstream\n")
    stop = start + int(length)
    if not data.startswith(b"\nendstream\nendobj\n", stop):
        raise NotOurs("a part of it is cut off")
    return Object(value, _unpacked(data[start:stop], most))


def _value_of(data: bytes, number: int, place: int) -> tuple[Value, int]:
    """The value of an object, and where it ends."""
    head = b"%d 0 obj\n" % number
    if not data.startswith(head, place):
        raise NotOurs("an object is not where it should be")
    return _value(data, place + len(head))


def _value(data: bytes, at: int, depth: int = 0) -> tuple[Value, int]:
    """The value that begins there, and where it ends."""
    token, at = _token(data, at)
    if depth > _DEEPEST:
        raise NotOurs("it nests too deep")
    if token == b"[":
        items: list[Value] = []
        while _token(data, at)[0] != b"]":
            item, at = _value(data, at, depth + 1)
            items.append(item)
        return items, _token(data, at)[1]
    if token == b"<<":
        pairs: dict[bytes, Value] = {}
        while (name := _token(data, at))[0] != b">>":
            if not name[0].startswith(b"/"):
                raise NotOurs("it is damaged")
            pairs[name[0][1:]], at = _value(data, name[1], depth + 1)
        return pairs, _token(data, at)[1]
    if token in (b"]", b">>"):
        raise NotOurs("it is damaged")
    return token, at


def _token(data: bytes, at: int) -> tuple[bytes, int]:
    found = _TOKEN.match(data, at)
    if found is None:
        raise NotOurs("something in it is written otherwise than here")
    return found[1], found.end()


def _unpacked(packed: bytes, most: int) -> bytes:
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(packed, most + 1)
    except zlib.error:
        raise NotOurs("a part of it cannot be unpacked") from None
    if not unpacking.eof or len(data) > most:
        raise NotOurs("a part of it is cut off or too long")
    return data


def written(objects: Mapping[int, Object], root: int, info: int) -> bytes:
    """A PDF of these objects.

    Parameters
    ----------
    objects
        By number: 1, 2, … without a gap.
    root, info
        The numbers of its catalogue and of what is said of it.
    """
    data, places = bytearray(_HEAD), []
    for number in sorted(objects):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, _object_bytes(objects[number]))
    start, count = len(data), len(places) + 1
    data += b"xref\n0 %d\n0000000000 65535 f \n" % count
    data += b"".join(b"%010d 00000 n \n" % place for place in places)
    data += b"trailer\n<< /Size %d /Root %d 0 R /Info %d 0 R >>\n" % (count, root, info)
    return bytes(data + b"startxref\n%d\n%%%%EOF\n" % start)


def text(plain: str) -> bytes:
    """An ASCII text in parentheses."""
    return b"(" + re.sub(rb"([\\()])", rb"\\\1", plain.encode("ascii")) + b")"


def _object_bytes(one: Object) -> bytes:
    if one.stream is None or not isinstance(one.value, dict):
        return _bytes(one.value)
    packed = zlib.compress(one.stream, 6)
    value = one.value | {b"Filter": b"/FlateDecode", b"Length": b"%d" % len(packed)}
    return _bytes(value) + b"\nstream\n" + packed + b"\nendstream"


def _bytes(value: Value) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, list):
        return b"[ " + b" ".join(map(_bytes, value)) + b" ]"
    return b"<< " + b" ".join(b"/" + name + b" " + _bytes(one) for name, one in value.items()) + b" >>"
