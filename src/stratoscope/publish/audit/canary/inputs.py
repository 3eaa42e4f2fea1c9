"""Every kind of input that is published, made of a trace with markers in it, and with markers in the file itself."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stratoscope import names
from stratoscope.errors import StratoscopeError
from stratoscope.publish.audit.canary.markers import Canaries
from stratoscope.publish.pictures.png import chunk

if TYPE_CHECKING:
    import xarray as xr

_END = b"\0\0\0\0IEND"


@dataclass(frozen=True)
class Input:
    """An input with markers in it.

    Attributes
    ----------
    kind
        As a person calls it.
    path
        Where it is.
    plain
        The same without markers that were put into the file itself.
    missing
        Why it cannot be made of this trace; "" = it was.
    """

    kind: str
    path: Path
    plain: Path
    missing: str = ""


def inputs_of(planted: xr.Dataset, trace: Path, folder: Path, markers: Canaries) -> Iterator[Input]:
    """Each kind of input, made in a folder.

    Parameters
    ----------
    planted, trace
        The trace with markers in it, and where it is stored.
    markers
        What is put into each file besides.
    """
    yield Input("trace", trace, trace)
    for kind, name, make in _FILES:
        plain = folder / f"plain-{name}"
        path = folder / name
        try:
            make(planted, trace, plain)
        except StratoscopeError as error:
            yield Input(kind, path, plain, error.what)
            continue
        path.write_bytes(_PLANTED[path.suffix](plain.read_bytes(), "\n".join(markers.all)))
        yield Input(kind, path, plain)
    for kind, name, make_folder in _FOLDERS:
        made = folder / name
        try:
            make_folder(planted, made, markers)
        except StratoscopeError as error:
            yield Input(kind, made, made, error.what)
        else:
            yield Input(kind, made, made)


def _table(planted: xr.Dataset, trace: Path, path: Path) -> None:
    rows = [*zip(planted["position"].values.tolist(), planted["text"].values.tolist(), strict=True)][:200]
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file)
        writer.writerow(names.CSV_COLUMNS)
        writer.writerows([place, text, 0, place, 0.5 + place] for place, (_, text) in enumerate(rows))


def _picture(planted: xr.Dataset, trace: Path, path: Path) -> None:
    from stratoscope.view.maps.heatmap import heatmap

    heatmap(trace, path)


def _page(planted: xr.Dataset, trace: Path, path: Path) -> None:
    from stratoscope.view.peaks3d.peaks3d import peaks3d

    peaks3d(trace, path)


_FILES: tuple[tuple[str, str, Callable[[xr.Dataset, Path, Path], None]], ...] = (
    ("CSV", "table.csv", _table),
    ("PNG", "map.png", _picture),
    ("SVG", "map.svg", _picture),
    ("PDF", "map.pdf", _picture),
    ("page", "peaks.html", _page),
)


def _result(planted: xr.Dataset, folder: Path, markers: Canaries) -> None:
    """A result of the trace, with markers among what it says of itself."""
    from stratoscope.analysis.anomalies.anomalies import anomalies
    from stratoscope.view.report.save import save_result

    result = anomalies(planted)
    result.attrs["notes"] = [
        *result.attrs["notes"],
        {"id": "L01", "severity": "info", "text": " ".join(markers.all)},
    ]
    save_result(result, folder)


_FOLDERS: tuple[tuple[str, str, Callable[[xr.Dataset, Path, Canaries], None]], ...] = (("result", "result", _result),)

# --- markers put into a file itself -----------------------------------------------------------------------------------


def _in_png(data: bytes, text: str) -> bytes:
    """In text chunks before its end, packed and not, and behind its end."""
    lines = text.encode().splitlines()
    third = len(lines) // 3
    plain, packed, behind = (b" ".join(some) for some in (lines[:third], lines[third : 2 * third], lines[2 * third :]))
    at = data.rindex(_END)
    chunks = chunk(b"tEXt", b"Comment\0" + plain) + chunk(b"zTXt", b"Author\0\0" + zlib.compress(packed))
    return data[:at] + chunks + data[at:] + behind


def _in_markup(data: bytes, text: str) -> bytes:
    """In a comment before its end."""
    at = data.rindex(b"</")
    return data[:at] + b"<!-- " + text.encode().replace(b"--", b"- -") + b" -->\n" + data[at:]


def _in_pdf(data: bytes, text: str) -> bytes:
    """In an object that nothing refers to, behind the end."""
    packed = zlib.compress(text.encode())
    return (
        data + b"\n999 0 obj\n<< /Length %d /Filter /FlateDecode >>\nstream\n" % len(packed) + packed + b"\nendstream\n"
    )


def _in_table(data: bytes, text: str) -> bytes:
    """In columns of its own, and in their names."""
    first, *rows = csv.reader(io.StringIO(data.decode("utf-8"), newline=""))
    marked = text.splitlines()
    cells = [*marked, *[""] * max(0, len(rows) - len(marked))]
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow([*first, "Remark", marked[0]])
    writer.writerows([*row, cell, cell] for row, cell in zip(rows, cells, strict=False))
    return file.getvalue().encode()


_PLANTED: Mapping[str, Callable[[bytes, str], bytes]] = {
    ".png": _in_png,
    ".svg": _in_markup,
    ".html": _in_markup,
    ".pdf": _in_pdf,
    ".csv": _in_table,
}
