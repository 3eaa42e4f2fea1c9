"""Every text of a file is hostile in every output: one marker in all of them, every command, every byte of output."""

from __future__ import annotations

import csv
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from plotly.offline import get_plotlyjs
from typer.testing import CliRunner

import stratoscope
from stratoscope import names
from stratoscope.analysis.results.result import open_result, store_result
from stratoscope.doors.cli import app
from stratoscope.trace.read.reader import open_trace
from stratoscope.trace.write import block
from stratoscope.trace.write.store import StagingStore
from stratoscope.view.web.pages import web_file

MARKER = (
    '=HYPERLINK(1)<meta http-equiv=refresh content="0;url=http://127.0.0.1/x"><img src=x onerror=alert(1)>\'"></script>'
    "<script>alert(2)</script>]]>-->\x1b]0;title\x07\x1b[2J\x9b31m\r\u202e\u2069\x00{{7*7}}"
)
ARCHIVED = Path(__file__).parents[1] / "archive" / "v2.0"
NEEDED = {"format", "format_version", "state", "source", "axis", "token_spelling", "coordinates", "logical_dtype"}
SHAPE = {"prompts": 16, "layers": 3, "d_ff": 16, "heads": 2, "tokens": (6, 8)}
ISOLATES = "\u2068\u2069"  # what a page sets around text that runs from right to left, in pairs


def hostile(value: Any) -> Any:
    """A value of JSON with the marker in every text of it, and a further key in every object."""
    if isinstance(value, str):
        return value + MARKER
    if isinstance(value, list):
        return [hostile(one) for one in value]
    if isinstance(value, dict):
        return {**{key: hostile(one) for key, one in value.items()}, MARKER: MARKER}
    return value


def hostile_attributes(attrs: dict[str, Any]) -> dict[str, Any]:
    """Attributes whose every text is hostile, but for those without which there is no trace."""
    return {key: one if key in NEEDED else hostile(one) for key, one in attrs.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hostile traces, and files of rows and of prompts that are no better."""
    path = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        _write_hostile(patch)
        for name in ("a.trace", "b.trace"):
            stratoscope.simulate(path / name, seed=3, record=names.SUMMARIES, **SHAPE)
    token = "tok" + MARKER
    with (path / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*names.CSV_COLUMNS, MARKER])
        rows.writerows(
            [position, f"{token}{position}", layer, 3, 1.5, MARKER] for position in range(4) for layer in (0, 2)
        )
    chat = {"messages": [{"role": "user", "content": MARKER}], "id": MARKER, "class": MARKER, MARKER: MARKER}
    (path / "prompts.jsonl").write_text(json.dumps(chat) + "\n")
    (path / "wrong.jsonl").write_text(json.dumps({MARKER: MARKER, "b" + MARKER: 1}) + "\n")
    (path / "wrong.csv").write_text(f'"{MARKER.replace(chr(34), chr(34) * 2)}",Token,Layer\n1,a,2\n', "utf-8")
    return path


def _write_hostile(patch: pytest.MonkeyPatch) -> None:
    """Let the writer put the marker into every text that it writes: attributes of the trace and its arrays, columns."""
    root, arrays, encode = StagingStore.write_root, StagingStore.arrays, block.encode_texts
    known = open_trace(ARCHIVED / "trace").attrs

    def write_root(store: StagingStore, attrs: Any, *more: Any, **others: Any) -> None:
        root(store, hostile_attributes({**known, **{key: one for key, one in attrs.items() if one}}), *more, **others)

    def marked_arrays(store: StagingStore) -> dict[str, Any]:
        return {
            name: {**one, "attributes": hostile_attributes(one["attributes"])} for name, one in arrays(store).items()
        }

    patch.setattr(StagingStore, "write_root", write_root)
    patch.setattr(StagingStore, "arrays", marked_arrays)
    patch.setattr(block, "encode_texts", lambda texts, column: encode([one + MARKER for one in texts], column))


REFUSED = 1
COMMANDS: dict[str, tuple[str, int]] = {
    "info": ("info a.trace", 0),
    "info as JSON": ("info a.trace --json", 0),
    "lint": ("lint a.trace", 0),
    "lint as JSON": ("lint a.trace --json", 0),
    "heatmap": ("heatmap a.trace -o out.png", 0),
    "heatmap as SVG": ("heatmap a.trace -o out.svg", 0),
    "heatmap as PDF": ("heatmap a.trace -o out.pdf", 0),
    "heatmap of rows": ("heatmap rows.csv -o rows.svg", 0),
    "engagement": ("engagement a.trace -o eng.svg", 0),
    "peaks3d": ("peaks3d a.trace -o out.html", 0),
    "peaks3d of rows": ("peaks3d rows.csv -o rows.html", 0),
    "top": ("top a.trace --all", 0),
    "top as JSON": ("top a.trace --json", 0),
    "top as CSV": ("top a.trace --csv top.csv", 0),
    "top of rows": ("top rows.csv", 0),
    "a text that is not there": ("top a.trace --token-text nope", REFUSED),
    "anomalies": ("anomalies a.trace -o anomalies", 0),
    "contrast": ("contrast a.trace -o contrast --no-groups --permutations 99 --quantity mlp_out_norm", 0),
    "diff": ("diff a.trace b.trace -o diff --json --quantity mlp_out_norm", 0),
    "export": ("export a.trace --csv peaks.csv", 0),
    "export as Parquet": ("export a.trace --parquet peaks.parquet --prompt 0", 0),
    "import": ("import rows.csv -o rows.trace", 0),
    "info of an import": ("info rows.trace", 0),
    "export of an import": ("export rows.trace --csv again.csv", 0),
    "a prompt that is not there": ("heatmap a.trace -o x.png --prompt nope", REFUSED),
    "a class that is not there": ("contrast a.trace -o x --a nope", REFUSED),
    "a quantity that is not there": ("heatmap a.trace -o x.png --quantity nope", REFUSED),
    "parts that are none": ("merge a.trace b.trace -o m.trace", REFUSED),
    "a model that is not there": ("capture ./nothing --prompts prompts.jsonl -o x.trace --plan", REFUSED),
    "prompts that are none": ("capture ./nothing --prompts wrong.jsonl -o x.trace --plan", REFUSED),
    "columns that are not there": ("import wrong.csv -o x.trace", REFUSED),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_gives_out_a_strangers_markup_or_codes(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    command, status = COMMANDS[name]
    before = set(folder.rglob("*"))
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == status, done.output
    assert "fault in stratoscope" not in done.stderr
    for text in (done.stdout, done.stderr):
        check_text(text)
    written = [path for path in set(folder.rglob("*")) - before if path.is_file()]
    assert bool(written) == ((" -o " in command and status == 0) or "--csv" in command or "--parquet" in command)
    for path in written:
        if path.suffix in CHECKS:
            CHECKS[path.suffix](path.read_bytes())


@pytest.mark.parametrize("argument", ["info", "heatmap", ""])
def test_an_argument_that_is_repeated_is_printable(argument: str) -> None:
    done = CliRunner().invoke(app, [*argument.split(), MARKER, MARKER, f"--{MARKER}"])
    assert done.exit_code == 2
    check_text(done.output)


def check_text(text: str, allowed: str = "\n") -> None:
    assert {char for char in text if not char.isprintable()} <= set(allowed)


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the texts of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag, attrs = self.found[-1] if self.found else ("", {})
        if tag == "script" and attrs.get("id"):
            self.scripts.setdefault(str(attrs["id"]), data)


def check_html(content: bytes) -> None:
    text = content.decode("utf-8")
    for own in (get_plotlyjs(), *map(web_file, ("peaks3d.js", "peaks3d_layout.js", "peaks3d_page.js"))):
        text = text.replace(own, "")
    assert {char for char in text if char != "\n" and not char.isprintable()} <= set(ISOLATES)
    page = Elements(text)
    assert [attrs.get("content", "") for tag, attrs in page.found if tag == "meta" and "127" in str(attrs)] == []
    assert {tag for tag, attrs in page.found for key in attrs if key.startswith("on")} <= {"form"}
    pixels = ("data:image/png;base64,", "data:image/webp;base64,")  # no image that could hold markup
    assert all(str(attrs["src"]).startswith(pixels) for tag, attrs in page.found if tag == "img")
    assert all(re.fullmatch(r"#L\d\d", str(attrs["href"])) for tag, attrs in page.found if tag == "a")
    assert len([tag for tag, _ in page.found if tag == "script"]) in (1, 5)  # of a report, of peaks3d
    assert list(texts_of(json.loads(page.scripts["stratoscope"])))


def texts_of(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from texts_of(one)
    elif isinstance(value, list):
        for one in value:
            yield from texts_of(one)


def check_svg(content: bytes) -> None:
    text = content.decode("utf-8")
    check_text(text)
    root = ElementTree.fromstring(content)
    assert {one.tag.rpartition("}")[2] for one in root.iter()} & {
        "script",
        "meta",
        "img",
        "a",
        "foreignObject",
    } == set()
    description = root.findtext(".//{http://purl.org/dc/elements/1.1/}description")
    assert description is not None
    check_metadata(description.removeprefix("stratoscope: "))


def check_metadata(text: str) -> None:
    assert text.isascii()
    assert text.isprintable()
    json.loads(text)


def check_png(content: bytes) -> None:
    place = 8
    while place < len(content):
        length, kind = int.from_bytes(content[place : place + 4], "big"), content[place + 4 : place + 8]
        assert kind in (b"IHDR", b"pHYs", b"tEXt", b"IDAT", b"IEND"), kind
        if kind == b"tEXt":
            key, _, text = content[place + 8 : place + 8 + length].partition(b"\0")
            assert key == b"stratoscope"
            check_metadata(text.decode("ascii"))
        place += length + 12


def check_pdf(content: bytes) -> None:
    streams = re.findall(rb"stream\n(.*?)\nendstream", content, re.DOTALL)
    whole = [re.sub(rb"stream\n.*?\nendstream", b"", content, flags=re.DOTALL), *map(_inflated, streams)]
    for part in whole:
        for code in ("\x1b]0;", "\x1b[2J", "\u202e"):
            assert code.encode("utf-8") not in part
            assert code.encode("utf-16-be") not in part
    assert b"/URI" not in whole[0]
    assert b"/JavaScript" not in whole[0]


def _inflated(stream: bytes) -> bytes:
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return stream


def check_csv(content: bytes) -> None:
    text = content.decode("utf-8")
    check_text(text)
    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    assert [cell for cell in cells if re.match(r"\s*[=@]", cell)] == []


def check_json(content: bytes) -> None:
    json.loads(content)
    check_text(content.decode("ascii"))


CHECKS: dict[str, Callable[[bytes], None]] = {
    ".html": check_html,
    ".svg": check_svg,
    ".png": check_png,
    ".pdf": check_pdf,
    ".csv": check_csv,
    ".json": check_json,
}


def test_the_marker_stands_in_every_text_of_the_trace_that_the_commands_are_given(folder: Path) -> None:
    trace = open_trace(folder / "a.trace")
    assert all(MARKER in one for key, value in trace.attrs.items() if key not in NEEDED for one in texts_of(value))
    for name in ("text", "prompt_id", "prompt_class", "pair", "group"):
        assert all(MARKER in one for one in trace[name].values)
    assert all(MARKER in trace["mlp_out_norm"].attrs[key] for key in ("units", "long_name", "formula"))


def test_a_stored_result_gives_back_every_text_as_it_was(folder: Path) -> None:
    result = stratoscope.diff(folder / "a.trace", folder / "b.trace", quantity="mlp_out_norm")
    (folder / "kept").mkdir()
    store_result(result, folder / "kept")
    stored = open_result(folder / "kept").load()
    assert stored.attrs == result.attrs
    assert any(MARKER in one for one in stored["tokens/text"].values)
    for path, table in result.to_dict().items():
        for name in table.variables:
            np.testing.assert_array_equal(stored[path][name], table[name], err_msg=f"{path}/{name}")
