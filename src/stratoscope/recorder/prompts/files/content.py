"""The text of a file: unpacked within bounds, and decoded as its first bytes say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stratoscope import defaults
from stratoscope.errors import InputError
from stratoscope.recorder.prompts.files import commands
from stratoscope.recorder.prompts.files.table import Python
from stratoscope.trace.csv.file import open_unpacked
from stratoscope.trace.csv.file_kinds import PACKED_SUFFIXES, encoding_by_mark, packing_by_head

HEAD = 300  # bytes that tell what a file is


@dataclass(frozen=True)
class FileText:
    """The text of a file, and how Python opens the file again, as text."""

    path: Path
    text: str
    opened: Python

    @property
    def kind(self) -> str:
        """The ending of its name, in lower case, without that of what it is packed in."""
        return inner_suffix(self.path)

    def where(self, line: int) -> str:
        """A line of it, as an error names it."""
        return f"{self.path}:{line}"


def inner_suffix(path: Path) -> str:
    """The ending of a name, in lower case, without that of what it is packed in: `.csv` of `a.csv.gz`."""
    return (path.with_suffix("") if path.suffix.lower() in PACKED_SUFFIXES else path).suffix.lower()


def first_bytes(path: Path) -> bytes:
    """The beginning of a file.

    Raises
    ------
    InputError
        It cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError("is a pipe or a device, and is read more than once", where=str(path), fix=_KEEP)
        with path.open("rb") as stream:
            return stream.read(HEAD)
    except FileNotFoundError:
        fix = "Download it, and give the file." if ":/" in str(path)[2:] else "Check the path."
        raise InputError("no such prompts file", where=str(path), fix=fix) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None


def unpacked(path: Path, head: bytes) -> bytes:
    """All bytes of a file, unpacked.

    Raises
    ------
    InputError
        It cannot be read, is damaged, or holds too much for prompts.
    """
    most = defaults.PROMPTS_BYTES
    try:
        with open_unpacked(path, packing_by_head(head)) as stream:
            data = stream.read(most + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if len(data) > most:
        refuse_too_large(path)
    return data


def refuse_too_large(path: Path) -> None:
    """Say that a file is, unpacked, larger than prompts that can be recorded."""
    raise InputError(
        f"holds more than {defaults.PROMPTS_BYTES // 2**20} MiB of prompts",
        where=str(path),
        fix="Leave out what will not be recorded, or split it into several files.",
    )


def refuse_too_many(path: Path, count: int, what: str, most: int) -> None:
    """Say that a file holds more prompts than can be recorded from one."""
    raise InputError(
        f"holds {count:,} {what}; it may hold {most:,}",
        where=str(path),
        fix="Leave out what will not be recorded, or split it into several files.",
    )


def decoded(path: Path, data: bytes) -> FileText:
    """The bytes of a file as text.

    Raises
    ------
    InputError
        They are not text in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.
    """
    packing = packing_by_head(first_bytes(path))
    encoding = encoding_by_mark(data) or "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8-sig":
            raise InputError(f"begins as {encoding.upper()} and is not", where=str(path), fix=_SAVE) from None
        number = data[: error.start].count(b"\n") + 1
        raise InputError("is not UTF-8 text", where=f"{path}:{number}", fix=_recoded(path, data, packing)) from None
    if encoding == "utf-8-sig" and (other := _utf_16_without_mark(data)):
        line = commands.recode(path, _opened(packing, other))
        raise InputError(
            "is UTF-16 text without a byte order mark", where=str(path), fix=f"Write it as UTF-8: `{line}`."
        )
    return FileText(path, text, _opened(packing, encoding))


def _utf_16_without_mark(data: bytes) -> str:
    """The encoding of text in which nearly every second byte is zero, and few of the others; "" for any other."""
    half = len(data) // 2
    even, odd = data[::2].count(0), data[1::2].count(0)
    for many, few, encoding in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        if many > 0.7 * half > 2 and few < 0.1 * half and len(data) % 2 == 0:
            return encoding
    return ""


def _opened(packing: str, encoding: str) -> Python:
    name, mode = (f"{packing}.open", ',"rt"') if packing else ("open", "")
    imports = (packing,) if packing else ()
    return Python(imports, f'{name}(sys.argv[1]{mode},encoding="{encoding}",newline="")')


_KEEP = "Write what comes out of it to a file, and give that."
_SAVE = "Save the file as UTF-8."


def _recoded(path: Path, data: bytes, packing: str) -> str:
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        return _SAVE
    line = commands.recode(path, _opened(packing, "cp1252"))
    return f"{_SAVE} If it was written on Windows, in English or another language of Western Europe: `{line}`."
