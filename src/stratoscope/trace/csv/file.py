"""A file of text as people have it: plain or packed, UTF-8 or UTF-16; recognised by its first bytes, never by its name.

What is packed is read as a stream and counted while it is read, so that a small file cannot fill the memory.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import hashlib
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from stratoscope import defaults
from stratoscope.errors import InputError
from stratoscope.trace.csv.file_kinds import PACKED, PACKED_SUFFIXES, encoding_by_mark, packing_by_head
from stratoscope.trace.csv.foreign import FOREIGN, as_utf8, refuse_foreign, refuse_office
from stratoscope.trace.csv.pasted import literal
from stratoscope.trace.format.bounds import LONGEST_TEXT
from stratoscope.trace.lens_file import is_lens_file

if TYPE_CHECKING:
    import _csv

PARQUET, UTF8 = b"PAR1", "utf-8"
AS_CSV, _UNPACKED = "write it as CSV and give that", "unpack it yourself and give the file that comes out"
LONGEST_LINE = 2**20  # characters of a line; a row of five columns has some dozen
_HEAD = 512  # bytes that tell what a file is
_ASCII = 40  # bytes of a header that are plain letters: every second one is zero in UTF-16 without a mark
_ZIP = b"PK\x03\x04"
_ENDINGS_PACKED = (".zip", *PACKED_SUFFIXES)
_ENDINGS = (".csv", ".tsv", ".tab", ".txt")
_DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
_CLUTTER = (".DS_Store", "Thumbs.db", "desktop.ini")  # what file managers put into archives
_ENCRYPTED = 0x1  # bit of a zip member's flags


@dataclass(frozen=True)
class TextFile:
    """A file of text, how it is packed ("" = not at all), and how its text is encoded."""

    path: Path
    packing: str
    encoding: str

    @property
    def is_plain(self) -> bool:
        """Whether the bytes on disk are UTF-8 text."""
        return not self.packing and self.encoding == UTF8

    def open_text(self) -> IO[str]:
        """Its text from the beginning, without byte order marks, line ends as they are."""
        stream = self.open_bytes()
        while stream.peek(3).startswith(codecs.BOM_UTF8):  # a file that was joined of two may begin with several
            stream.read(3)
        return io.TextIOWrapper(stream, self.encoding, newline="")

    def open_bytes(self) -> io.BufferedReader:
        """Its bytes, unpacked."""
        return open_unpacked(self.path, self.packing)


def cells_of(lines: Iterable[str], separator: str) -> _csv.Reader:
    """Python's own reader of CSV; cells may be as long as a trace can hold, whatever was read before."""
    csv.field_size_limit(LONGEST_TEXT)  # of the whole process; in characters, of which each is at least a byte
    return csv.reader(lines, delimiter=separator, strict=True)


def lines_of(file: TextFile, stream: IO[str]) -> Iterator[str]:
    """The lines of a text, each with its end, as long as no line is longer than a row can be.

    Raises
    ------
    InputError
        One is.
    """
    while line := stream.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            what = f"a line has more than {LONGEST_LINE:,} characters, so this is no CSV with a row on each line"
            raise InputError(what, where=str(file.path), fix="Give the CSV file that has one row on each line.")
        yield line


def text_file(path: Path) -> TextFile:
    """What kind of text file this is.

    Raises
    ------
    InputError
        It is no file, no text, or packed in a way that is not read.
    """
    head = first_bytes(path)
    refuse_foreign(path, head)
    packing = "zip" if head.startswith(_ZIP) else packing_by_head(head)
    if packing:
        head = _head_of_packed(path, packing)
        if any(head.startswith(magic) for magic in (_ZIP, *PACKED, *FOREIGN, PARQUET)) or head[257:262] == b"ustar":
            raise InputError(
                "what is packed in it is no CSV text", where=str(path), fix="Unpack it, and give the CSV files in it."
            )
    return TextFile(path, packing, _encoding(head))


def _head_of_packed(path: Path, packing: str) -> bytes:
    """The beginning of what is packed, where all of it can be unpacked and is not too large."""
    with open_unpacked(path, packing) as stream:
        head = stream.read(_HEAD)
        while stream.read(2**20):
            pass
    return head


def _encoding(head: bytes) -> str:
    if marked := encoding_by_mark(head):
        return marked
    for name, zeros, letters in (("utf-16-le", head[1:_ASCII:2], head[:_ASCII:2]),
                                 ("utf-16-be", head[:_ASCII:2], head[1:_ASCII:2])):  # fmt: skip
        if zeros and not any(zeros) and all(letters):
            return name
    return UTF8


def first_bytes(path: Path) -> bytes:
    """The beginning of a regular file.

    Raises
    ------
    InputError
        There is no such file, or it is a folder or a pipe.
    """
    if path.is_dir():
        raise InputError("this is a folder, not a CSV file", where=str(path), fix="Name the CSV files in it.")
    if not path.exists():
        raise InputError("there is no such file", where=str(path), fix=_instead(path))
    if not path.is_file():
        raise InputError("this is no file but a pipe or a device", where=str(path), fix=_KEEP)
    try:
        with path.open("rb") as stream:
            return stream.read(_HEAD)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path), fix="Check the file.") from None


_KEEP = "A file is read more than once: write what comes out of it to a file first, and give that."


def _instead(path: Path) -> str:
    if str(path) == "-":
        return "Standard input is not read: write it to a file first, and give that."
    return "Download it, and give the file." if "://" in str(path) or ":/" in str(path)[2:] else "Check the path."


def stem(path: Path) -> str:
    """The name of a file without what says how it is written: `critical` of `critical.csv.gz`."""
    if path.suffix.lower() not in _ENDINGS_PACKED:
        return path.stem
    inner = Path(path.stem)
    return inner.stem if inner.suffix.lower() in _ENDINGS else inner.name


def check_unpacked(path: Path, unpacked: int, instead: str = _UNPACKED) -> None:
    """Raise `InputError` where a file unpacks to so much that it could fill the memory by mistake or malice."""
    packed = path.stat().st_size
    most = max(defaults.UNPACKED_BYTES, defaults.UNPACKED_TIMES * packed)
    if unpacked > most:
        what = f"its {packed:,} bytes unpack to more than {most:,}, which could fill the memory"
        raise InputError(what, where=str(path), fix=f"If it is meant, {instead}.")


def encoding_error(file: TextFile) -> InputError:
    """Which byte is no text, and how to convert the file."""
    with file.open_bytes() as stream:
        data = stream.read()
    fix = "Save the file in the encoding UTF-8."
    if file.encoding != UTF8:
        return InputError(f"the text is not {file.encoding.upper()}", where=str(file.path), fix=fix)
    if _is_text_in(data, "cp1252"):
        converted = as_utf8(file.path, stem(file.path), *_bytes_in_python(file))
        fix += f" If it is text of an older Windows: `{converted}`."
    try:
        data.decode(UTF8)
    except UnicodeDecodeError as error:
        if is_lens_file(file.path):
            fix = "Record with it (`capture --record lens --lens FILE`), or see what it is: `stratoscope info FILE`."
            return InputError("this is a fitted lens, no CSV file", where=str(file.path), fix=fix)
        if b"\0" in data[:_HEAD]:
            fix = "Give the CSV file that it was made of."
            return InputError("this is not a text file", where=str(file.path), fix=fix)
        before = data[: error.start]
        line = before.count(b"\n") + before.count(b"\r") - before.count(b"\r\n") + 1
        where = f"{file.path}, line {line}"
        return InputError(f"the byte 0x{data[error.start]:02X} is not UTF-8 text", where=where, fix=fix)
    return InputError("the text is not UTF-8", where=str(file.path), fix=fix)


def _is_text_in(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _bytes_in_python(file: TextFile) -> tuple[str, str]:
    """A module, and an expression with it of the unpacked bytes of the file `sys.argv[1]`."""
    if file.packing == "zip":
        with zipfile.ZipFile(file.path) as archive:
            return "zipfile", f"zipfile.ZipFile(sys.argv[1]).read({literal(_member(file.path, archive).filename)})"
    return file.packing, f'{file.packing}{"." if file.packing else ""}open(sys.argv[1],"rb").read()'


# --- unpacking ------------------------------------------------------------------------------------------------------


def open_unpacked(path: Path, packing: str) -> io.BufferedReader:
    """The bytes of a file, out of what it is packed in ("" = nothing): no more than so small a file may hold.

    Raises
    ------
    InputError
        It is damaged, or unpacks to too much, also while it is read.
    """
    if not packing:
        return path.open("rb")
    with _unpacking(path):
        openers: dict[str, Callable[[Path], Any]] = {
            "gzip": gzip.GzipFile,
            "bz2": bz2.BZ2File,
            "lzma": lzma.LZMAFile,
            "zip": _only_member,
        }
        return io.BufferedReader(_Counted(path, openers[packing](path)), 2**20)


def _only_member(path: Path) -> IO[bytes]:
    archive = zipfile.ZipFile(path)  # stays open as long as the member that is read from it
    member = _member(path, archive)
    check_unpacked(path, member.file_size)
    try:
        return archive.open(member)
    except NotImplementedError as error:
        what = f"this zip is packed in a way that is not read ({error})"
        raise InputError(what, where=str(path), fix="Unpack it, and give the CSV file in it.") from None


def _member(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [one for one in archive.infolist() if not one.is_dir() and not _is_clutter(one.filename)]
    names = [one.filename for one in members]
    refuse_office(path, names)
    if len(members) != 1:
        listed = ", ".join(map(repr, names[:4])) + (", …" if len(names) > 4 else "")
        what = f"this zip holds {len(names)} files ({listed})" if names else "this zip holds no file"
        raise InputError(what, where=str(path), fix="One file is one prompt: unpack it, and give the CSV files in it.")
    (member,) = members
    if member.flag_bits & _ENCRYPTED:
        raise InputError("this zip asks for a password", where=str(path), fix="Unpack it, and give the CSV file in it.")
    return member


def _is_clutter(name: str) -> bool:
    return name.startswith("__MACOSX/") or name.rpartition("/")[2] in _CLUTTER


class _Counted(io.RawIOBase):
    """What comes out of a packed file, as long as it is no more than a CSV may hold."""

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self._path, self._stream, self._count = path, stream, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with _unpacking(self._path):
            data = self._stream.read(len(buffer))
        self._count += len(data)
        check_unpacked(self._path, self._count)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


@contextmanager
def _unpacking(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        what = f"cannot be unpacked: it is damaged or cut off ({error})"
        raise InputError(what, where=str(path), fix="Copy or download it again.") from None


def file_identity(path: Path) -> dict[str, Any]:
    """What tells a file from others wherever it lies; a trace keeps that of the files it was imported from."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
