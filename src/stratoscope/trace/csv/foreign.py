"""Files that are no CSV but could become one: refused by name, with the line that converts them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stratoscope.errors import InputError
from stratoscope.trace.csv.file_kinds import ARCHIVES, DOCUMENTS, OLD_OFFICE, PICKLES, ZSTD
from stratoscope.trace.csv.pasted import beside, python

_CSV = 'to_csv(sys.argv[2],index=False,mode="x",encoding="utf-8")'  # "x": never over a file that is there
_EXCEL = f"import sys,pandas; pandas.read_excel(sys.argv[1],dtype=str,na_filter=False).{_CSV}"
_FEATHER = f"import sys,pandas; pandas.read_feather(sys.argv[1]).{_CSV}"
_CP1252 = 'import sys{}; t={}.decode("cp1252"); open(sys.argv[2],"x",encoding="utf-8",newline="").write(t)'
_PICKLE = ("a Python pickle, which can run code when it is opened", "Export the table as CSV where it was made.")
_UNPACK = "Unpack it, and give the CSV file in it."
_EXPORT = "Export the table as CSV."

FOREIGN = {  # first bytes -> what it is, and what to do where no line of Python is known
    OLD_OFFICE: ("an old Excel file", ""),
    b"ARROW1": ("a Feather (Arrow) file", ""),
    b"\x89HDF": ("an HDF5 file", _EXPORT),
    b"\x89PNG": ("a picture", _EXPORT),
    **{magic: (what, _EXPORT) for magic, what in DOCUMENTS.items()},
    **dict.fromkeys(PICKLES, _PICKLE),
    **{magic: (f"{what}, which is not read", _UNPACK) for magic, what in ARCHIVES.items()},
    ZSTD: ("packed with Zstandard, which is not read", "Unpack it with zstd -d, and give what comes out."),
    b"\x04\x22\x4d\x18": ("packed with LZ4, which is not read", _UNPACK),
    b"\x1f\x9d": ("packed with compress, which is not read", _UNPACK),
    b"PK\x05\x06": ("an empty zip", "Give a CSV file."),
}


def refuse_foreign(path: Path, head: bytes) -> None:
    """Raise `InputError` for what is no text and no CSV, by its first bytes."""
    magic = next((one for one in FOREIGN if head.startswith(one)), None)
    if magic is not None:
        what, fix = FOREIGN[magic]
        if what.startswith("an old Excel"):
            fix = _convert(path, _EXCEL, "xlrd")
        elif magic == b"ARROW1":
            fix = _convert(path, _FEATHER, "pyarrow")
        raise InputError(f"this is {what}", where=str(path), fix=fix)
    if head[257:262] == b"ustar":
        raise InputError("this is a tar archive, which is not read", where=str(path), fix=_UNPACK)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith((b"{", b"[{", b"[[")):
        raise InputError("this is JSON, not CSV", where=str(path), fix=_EXPORT)
    if start[:1] == b"<" and start[:15].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        fix = "Download the file itself, not the page about it."
        raise InputError("this is a web page or XML, not CSV", where=str(path), fix=fix)


def refuse_office(path: Path, members: Sequence[str]) -> None:
    """Raise `InputError` for a zip that is a spreadsheet or another office document, by what it holds."""
    kinds = {  # a member -> what the document is, and what pandas needs to read it
        "xl/workbook.xml": ("an Excel file", "openpyxl"),
        "xl/workbook.bin": ("a binary Excel file", "pyxlsb"),
        "content.xml": ("an OpenDocument file", "odfpy"),
    }
    for member, (what, package) in kinds.items():
        if member in members:
            raise InputError(f"this is {what}, not CSV", where=str(path), fix=_convert(path, _EXCEL, package))


def as_utf8(path: Path, stem: str, module: str, unpacked: str) -> str:
    """The line that converts text of Western European Windows; `unpacked` gives the bytes, with that module."""
    code = _CP1252.format(f",{module}" if module else "", unpacked)
    return python(code, path, beside(path, f"{stem}-utf8", ".csv"))


def _convert(path: Path, code: str, package: str) -> str:
    line = python(code, path, beside(path, path.stem, ".csv"))
    return f"This makes a CSV of its first table (it needs pip install pandas {package}): `{line}`."
