"""Picture files: whole or not at all, the same every time, and silent about who made them where."""

from __future__ import annotations

import base64
import getpass
import io
import json
import re
import socket
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from view_traces import Factory

import stratoscope
from drawn_maps import sheet_of
from stratoscope.errors import InputError
from stratoscope.view.maps.heatmap import heatmap, heatmap_spec
from stratoscope.view.matplotlib.draw import draw
from stratoscope.view.matplotlib.save import picture_bytes
from stratoscope.view.sheet.items import DPI

HEADER = "Token_Pos,Token,Layer,Neuron_ID,Activation_Norm\n"

SUFFIXES = [".png", ".svg", ".pdf"]
DESCRIPTION = ".//{http://purl.org/dc/elements/1.1/}description"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_input_gives_the_same_bytes(trace_of: Factory, tmp_path: Path, suffix: str) -> None:
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    heatmap(trace_of(), first)
    heatmap(trace_of(), second)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_file_says_who_made_it_where_or_when(trace_of: Factory, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"picture{suffix}"
    heatmap(trace_of(model={"name": "/home/ada/secret-folder/tiny"}), out)
    data = out.read_bytes()
    for word in ("/home", "secret-folder", str(tmp_path), "Matplotlib v", "matplotlib.org", "CreationDate", "<dc:date>",
                 f"/{getpass.getuser()}/", f"@{socket.gethostname()}"):  # fmt: skip
        assert word.encode() not in data, word


def test_a_png_carries_how_it_was_made(trace_of: Factory, tmp_path: Path) -> None:
    heatmap(trace_of(), tmp_path / "a.png")
    text = Image.open(tmp_path / "a.png").text
    assert set(text) == {"stratoscope"}
    about = json.loads(text["stratoscope"])
    drawn = {"drawn_by": about["drawn_by"]}
    assert about == json.loads(heatmap_spec(trace_of()).metadata_json()) | drawn
    assert about["provenance"]["model"] == "org/tiny-model"
    assert about["shown"]["quantities"][0]["kind"] == "log"
    assert {note["id"] for note in about["notes"]} >= {"L05", "L07", "L21"}


def test_an_svg_is_well_formed_and_carries_the_same(trace_of: Factory, tmp_path: Path) -> None:
    texts = ["<script>alert(1)</script>", "$x$", "&amp;", "]]>", "\x00", "\udce4", " مرحبا", "<!--"]
    heatmap(trace_of(lengths=(8,), texts=texts), tmp_path / "a.svg")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    description = root.find(DESCRIPTION)
    assert description is not None
    assert description.text is not None
    assert json.loads(description.text.removeprefix("stratoscope: "))["kind"] == "maps"
    assert not [element for element in root.iter() if element.tag.endswith("script")]


def test_a_pdf_carries_the_same(trace_of: Factory, tmp_path: Path) -> None:
    heatmap(trace_of(), tmp_path / "a.pdf")
    data = (tmp_path / "a.pdf").read_bytes()
    assert data.startswith(b"%PDF")
    assert b"/Keywords (stratoscope)" in data
    assert b"view_version" in data


def test_vector_files_hold_text_and_lines_as_vectors(trace_of: Factory, tmp_path: Path) -> None:
    heatmap(trace_of(), tmp_path / "a.svg")
    svg = (tmp_path / "a.svg").read_text("utf-8")
    assert svg.count("<image") == 2  # the cells of the two maps
    assert svg.count("<text") > 20
    assert "<path" in svg


def test_the_text_of_an_svg_is_text_in_a_font_that_every_reader_can_replace(trace_of: Factory) -> None:
    spec = heatmap_spec(trace_of(texts=["<b>", " $x$", "a_long_label_of_a_token", "一"] * 6))
    root = ElementTree.fromstring(picture_bytes(draw(spec), ".svg", "{}"))
    texts, sheet = list(root.iter("{http://www.w3.org/2000/svg}text")), sheet_of(spec)
    planned = [*sheet.texts(), *(cell for one in sheet.maps() for cell in one.cells)]
    assert sorted("".join(one.itertext()) for one in texts) == sorted(one.text for one in planned)
    styles = {one.get("style", "") for one in texts}
    assert all("Verdana, sans-serif" in style for style in styles)
    turned = [one for one in texts if "rotate(-90" in one.get("transform", "")]
    assert turned
    assert all("text-anchor: end" in one.get("style", "") for one in turned), "a wider font would run into the map"


def test_the_cells_of_an_svg_are_whole_dots_of_its_image_so_that_no_reader_blurs_them(trace_of: Factory) -> None:
    spec = heatmap_spec(trace_of(lengths=(7,), layers=5))
    (one,) = sheet_of(spec).maps()
    svg = picture_bytes(draw(spec), ".svg", "{}").decode()
    (coded,) = re.findall(r'xlink:href="data:image/png;base64,([^"]+)"', svg)
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(coded))).convert("RGB"))
    size = round(one.width * DPI), round(one.height * DPI)
    assert image.shape[1::-1] == size
    cells = image.reshape(5, size[1] // 5, 7, size[0] // 7, 3)
    assert (cells == cells[:, :1, :, :1]).all()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_existing_file_is_refused_before_any_work(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"a{suffix}"
    out.write_text("precious")
    with pytest.raises(InputError, match=r"already exists.*--overwrite"):
        heatmap("this input is never opened", out)
    assert out.read_text() == "precious"


def test_overwriting_replaces(trace_of: Factory, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    out.write_text("old")
    heatmap(trace_of(), out, overwrite=True)
    assert out.read_bytes().startswith(b"\x89PNG")
    (tmp_path / "usual").touch()
    assert out.stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.jpg", "a.png"), ("a", "a.png"), ("missing/a.png", "folder does not exist"), ("folder.png", "is a folder")],
)
def test_an_impossible_output_is_refused_with_advice(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match=words):
        heatmap("never opened", tmp_path / name)


@pytest.mark.parametrize("step", ["write", "replace"])
def test_a_failure_leaves_the_old_file_and_no_rest(
    trace_of: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    out = tmp_path / "a.png"
    out.write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes" if step == "write" else "replace", full)
    with pytest.raises(InputError, match="No space left on device"):
        heatmap(trace_of(), out, overwrite=True)
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        ("heatmap", "a.png"),
        ("heatmap", "a.svg"),
        ("heatmap", "a.pdf"),
        ("engagement", "a.png"),
        ("compare", "a.png"),
        ("peaks3d", "a.html"),
    ],
)
def test_a_picture_of_the_same_csv_files_is_the_same_to_the_byte(tmp_path: Path, verb: str, name: str) -> None:
    pictures = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        for file in ("x.csv", "y.csv"):
            (folder / file).write_text(
                "Token_Pos,Token,Layer,Neuron_ID,Activation_Norm\n0,The,5,17,0.5\n1, cat,5,3,2.25\n"
            )
        getattr(stratoscope, verb)([folder / "x.csv", folder / "y.csv"], folder / name)
        pictures.append((folder / name).read_bytes())
    assert pictures[0] == pictures[1]


def test_files_that_differ_or_are_read_otherwise_are_not_taken_for_the_same(tmp_path: Path) -> None:
    for name, value in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.csv").write_text(f"{HEADER}0,The,5,17,{value}\n")
    a, b, c = (tmp_path / name / "x.csv" for name in "abc")
    same, again = (stratoscope.import_csv(one).attrs["uuid"] for one in (a, b))
    others = [
        stratoscope.import_csv(c),
        stratoscope.import_csv([a, b]),
        stratoscope.import_csv(a, axis="residual"),
        stratoscope.import_csv(a, prompt_class="hot"),
        stratoscope.import_csv(a, tmp_path / "x.trace"),  # a trace of its own
    ]
    assert same == again
    assert len({same, *(one.attrs["uuid"] for one in others)}) == 6
