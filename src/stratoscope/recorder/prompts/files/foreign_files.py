"""Files that hold prompts in a way that is not read: what each is, and the line that converts it."""

from __future__ import annotations

import shlex
import tarfile
import zipfile
from itertools import islice
from pathlib import Path
from typing import NoReturn

from stratoscope.errors import InputError
from stratoscope.recorder.prompts.files import commands
from stratoscope.recorder.prompts.files.content import inner_suffix
from stratoscope.recorder.prompts.files.table import Python
from stratoscope.trace.csv.file_kinds import ARCHIVES, DOCUMENTS, OLD_OFFICE, PICKLES, ZSTD, packing_by_head
from stratoscope.trace.csv.pasted import can_be_pasted

_UNPACK = 'open(sys.argv[2],"xb").write({}.read())'
_XLSX = (
    "pandas.read_excel(sys.argv[1],dtype=str,keep_default_na=False)"
    '.to_csv(sys.argv[2],index=False,mode="x",encoding="utf-8")'
)
_DOCX = (
    'w="{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"; '
    't=xml.etree.ElementTree.parse(zipfile.ZipFile(sys.argv[1]).open("word/document.xml")); '
    'open(sys.argv[2],"x",encoding="utf-8").write("\\n".join("".join(x.text or "" for x in p.iter(w+"t")) '
    'for p in t.iter(w+"p")))'
)
_YAML = (
    'd=list(yaml.safe_load_all(open(sys.argv[1],encoding="utf-8-sig"))); '
    'json.dump(d if len(d)>1 else d[0],open(sys.argv[2],"x",encoding="utf-8"),default=str)'
)
_ARROW = (
    "t=pyarrow.concat_tables([pyarrow.ipc.open_{}(f).read_all() for f in sys.argv[1:-1]]); "
    'pyarrow.parquet.write_table(t,open(sys.argv[-1],"xb"))'
)
_TABLES = (
    "t=pyarrow.concat_tables([pyarrow.parquet.read_table(f) for f in sys.argv[1:-1]]); "
    'pyarrow.parquet.write_table(t,open(sys.argv[-1],"xb"))'
)
_MARKUP = {
    ".md": "Markdown", ".markdown": "Markdown", ".rst": "reStructuredText", ".tex": "TeX", ".html": "HTML",
    ".htm": "HTML", ".xml": "XML",
}  # fmt: skip
_BINARY = {  # first bytes -> what it is, where no line can convert it
    **DOCUMENTS,
    **ARCHIVES,
    b"{\\rtf": "rich text (RTF)",
    OLD_OFFICE: "an old Office file (.xls, .doc)",
    **dict.fromkeys(PICKLES, "a pickle, which can run any program when it is opened, and is therefore never read"),
}
_DATA = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".parquet", ".gz", ".bz2", ".xz")
_MOST_SEEN = 10_000  # files and folders that are looked at in a folder
_ABOUT = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "metadata.json")


def refuse_foreign(path: Path, head: bytes, packing: str = "") -> None:
    """Raise `InputError` where a file that begins with `head`, when `packing` is undone, is none that is read."""
    if head[257:262] == b"ustar":
        _refuse_tar(path)
    for magic, what in _BINARY.items():
        if head.startswith(magic):
            fix = "Save its prompts as .txt, one a line, or .csv, from the program that it belongs to."
            raise InputError(f"is {what}", where=str(path), fix=fix)
    if packing:
        if packing_by_head(head) or head[:4] in (b"PK\x03\x04", b"PAR1", ZSTD):
            write = _UNPACK.format(f"{packing}.open(sys.argv[1])")
            _refuse(path, "holds another packed file", _line(path, write, packing, Path(path.stem).suffix))
        return
    if head.startswith(b"PK\x03\x04"):
        _refuse_zip(path)
    if head.startswith(ZSTD):
        write = _UNPACK.format('pyarrow.input_stream(sys.argv[1],compression="zstd")')
        _refuse(path, "is packed with zstd", _line(path, write, "pyarrow", Path(path.stem).suffix))
    if head.startswith(b"ARROW1") or head[:4] == b"\xff\xff\xff\xff":
        how = "file" if head.startswith(b"ARROW1") else "stream"
        _refuse(path, "is an Arrow file", _line(path, _ARROW.format(how), "pyarrow,pyarrow.parquet", ".parquet"))
    suffix = inner_suffix(path)
    if suffix in (".yaml", ".yml"):
        _refuse(path, "is YAML", _line(path, _YAML, "yaml", ".json"), "Convert it (needs pyyaml)")
    if suffix in _MARKUP:
        whole = commands.whole_as_text(path, _PLAIN)
        each = commands.copy(path, ".txt")
        _refuse(path, f"is {_MARKUP[suffix]}", whole, f"If each line is a prompt: `{each}`; if the whole file is one")


_PLAIN = Python((), 'open(sys.argv[1],encoding="utf-8-sig",newline="")')


def refuse_folder(path: Path) -> NoReturn:
    """Raise `InputError` for a folder: which file of it to name, or how to make one file of it."""
    seen = list(islice(path.rglob("*"), _MOST_SEEN + 1))
    found = (file for file in seen if file.is_file() and not file.name.startswith("."))
    files = sorted(found, key=lambda file: ("train" not in str(file), file))
    arrow = [file for file in files if file.suffix == ".arrow" and not file.name.startswith("cache-")]
    tables = [file for file in files if file.suffix == ".parquet"]
    whole = len(seen) <= _MOST_SEEN  # else a part of the data set may be among what was not seen
    for chosen, write in ((arrow, _ARROW.format("stream")), (tables, _TABLES)) if whole else ():
        split = [file for file in chosen if _split(file, path) == _split(chosen[0], path)]
        if len(split) > (0 if chosen is arrow else 1):
            out = commands.beside(path, f"{path.resolve().name}.prompts", ".parquet")
            line = commands.python(f"import sys,pyarrow,pyarrow.parquet; {write}", *split, out)
            others = sorted({_split(file, path) for file in chosen} - {_split(chosen[0], path)})
            other = (
                f" (this line takes {_split(chosen[0], path)}; there are also {', '.join(others)})" if others else ""
            )
            _refuse(path, "is a folder with a data set", line, f"Make one file of it{other}")
    data = [file for file in files if file.suffix.lower() in _DATA and file.name not in _ABOUT]
    shown = [shlex.quote(str(file)) for file in data if can_be_pasted(str(file))]
    named = ", ".join(shown[:5]) + (" …" if len(data) > 5 or not whole else "")
    raise InputError(
        "cannot be read: it is a folder, not a file",
        where=str(path),
        fix=f"Name one of its files: {named}." if shown else "Name a file of prompts.",
    )


def _split(file: Path, folder: Path) -> str:
    """What a file of a data set is part of: its folder, and its name before the number of the shard."""
    return str(file.relative_to(folder).with_name(file.stem.split("-")[0]))


def _refuse_zip(path: Path) -> NoReturn:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        raise InputError("is a damaged zip archive", where=str(path), fix="Copy or download it again.") from None
    if "word/document.xml" in names:
        line = _line(path, _DOCX, "zipfile,xml.etree.ElementTree", ".txt")
        _refuse(path, "is a Word document", line, "To make each paragraph a prompt")
    if any(name.startswith("xl/") for name in names):
        line = _line(path, _XLSX, "pandas", ".csv")
        _refuse(path, "is a spreadsheet", line, "Save it as CSV, or, for its first sheet (needs openpyxl)")
    if "mimetype" in names:
        raise InputError(
            "is an OpenDocument file",
            where=str(path),
            fix="Save it as CSV or plain text from the program that it belongs to.",
        )
    members = [name for name in names if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if not members:
        raise InputError("is an empty zip archive", where=str(path), fix="Name a file of prompts.")
    code = f"zipfile.ZipFile(sys.argv[1]).open({commands.literal(members[0])})"
    words = f"Unpack {members[0]!r}" + (f", one of its {len(members)} files" if len(members) > 1 else "")
    _refuse(path, "is a zip archive", _line(path, _UNPACK.format(code), "zipfile", Path(members[0]).suffix), words)


def _refuse_tar(path: Path) -> NoReturn:
    try:
        with tarfile.open(path) as archive:
            name = next((member.name for member in archive if member.isfile()), "")
    except (tarfile.TarError, OSError, EOFError):
        name = ""
    if not name:
        raise InputError("is a tar archive without a file, or a damaged one", where=str(path), fix="Name another file.")
    code = f"tarfile.open(sys.argv[1]).extractfile({commands.literal(name)})"
    line = _line(path, _UNPACK.format(code), "tarfile", Path(name).suffix)
    _refuse(path, "is a tar archive", line, f"Unpack {name!r}, its first file")


def _line(path: Path, code: str, imports: str, suffix: str) -> str:
    return commands.rewrite(path, code, imports.split(","), suffix)


def _refuse(path: Path, what: str, line: str, words: str = "Convert it") -> NoReturn:
    raise InputError(f"{what}, which is not read as prompts", where=str(path), fix=f"{words}: `{line}`.")
