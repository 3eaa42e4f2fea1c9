"""The folder of a Result: whole or not there, its page without scripts or strangers' markup, its figures and table."""

from __future__ import annotations

import csv
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

import stratoscope
from stratoscope import names
from stratoscope.analysis.contrast.contrast import contrast
from stratoscope.analysis.results.result import make_result, open_result, table_in, table_of
from stratoscope.errors import InputError
from stratoscope.view.matplotlib.marks import draw_mark, sample
from stratoscope.view.matplotlib.webp import WebP
from stratoscope.view.report import check_folder, contents_of, default_folder, save_result
from stratoscope.view.report.page import page
from stratoscope.view.report.page_tables import page_table
from stratoscope.view.report.report import Report
from stratoscope.view.report.save import write_table
from stratoscope.view.spec import palette
from stratoscope.view.spec.charts import Band, Charts, Density, Line, Points
from stratoscope.view.spec.file import from_bytes, to_bytes
from stratoscope.view.spec.tables import Excerpt, Table
from stratoscope.words import number

EVIL = '<script>alert(1)</script>"&$\u202e'


_NO_PICTURE = dict.fromkeys(names.THEMES, WebP(b"", 1, 1))


def simulated(prompts: int = 40, **options: Any) -> xr.Dataset:
    shape = {"layers": 6, "d_ff": 64, "heads": 2, "tokens": (12, 16), "seed": 3}
    return stratoscope.simulate(prompts=prompts, **{**shape, **options})


@pytest.fixture(scope="module")
def result() -> xr.DataTree:
    return contrast(simulated(), groups=False)


@pytest.fixture(scope="module")
def folder(result: xr.DataTree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_result(result, tmp_path_factory.mktemp("report") / "contrast")


class Elements(HTMLParser):
    """Every element of a page with its attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []  # the metadata included
        self.shown: list[str] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.lasttag != "script":
            self.shown.append(data)
        if self.cells:
            self.cells[-1] += data


def test_a_folder_holds_the_page_the_figures_the_table_and_every_number(folder: Path, result: xr.DataTree) -> None:
    assert {path.name for path in folder.iterdir()} == {"report.html", "figures", "table.csv", "result.zarr"}
    figures = contents_of(result).figures()
    assert {path.name for path in (folder / "figures").iterdir()} == {
        f"{figure.name}.{suffix}" for figure in figures for suffix in ("png", "svg")
    }
    stored = open_result(folder)
    assert stored.attrs == result.attrs
    xr.testing.assert_equal(stored, result)


def test_the_page_asks_nothing_of_any_network_and_runs_nothing(folder: Path) -> None:
    elements = Elements((folder / "report.html").read_text("utf-8"))
    for tag, attributes in elements.found:
        assert tag not in ("iframe", "object", "link", "base", "form"), tag
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "srcset", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith("data:image/webp;base64,"), value[:60]
        assert tag != "script" or attributes.get("type") == "application/json"
    assert ("meta", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in [
        (tag, attributes.get("content")) for tag, attributes in elements.found
    ]


def test_every_warning_is_on_the_page_and_on_the_figures_it_concerns(folder: Path, result: xr.DataTree) -> None:
    words = " ".join(Elements((folder / "report.html").read_text("utf-8")).words)
    for note in result.attrs["notes"]:
        assert note["text"] in words
    for figure in contents_of(result).figures():
        assert "Simulated data" in figure.spec.metadata_json()


@pytest.fixture(scope="module")
def pages(result: xr.DataTree) -> dict[str, tuple[Report, Elements]]:
    """The page of a result of each kind, without its pictures."""
    trace = simulated(16)
    changed = trace.copy(deep=True)
    changed["mlp_out_norm"].values[:, 2:] *= 1.1
    found = {"contrast": result, "diff": stratoscope.diff(trace, changed), "anomalies": stratoscope.anomalies(trace)}
    made = {}
    for kind, one in found.items():
        contents = contents_of(one)
        made[kind] = (contents, Elements(page(one, contents, dict.fromkeys(_named(contents), _NO_PICTURE))))
    return made


def _named(contents: Report) -> list[str]:
    return [figure.name for figure in contents.figures()]


@pytest.mark.parametrize("kind", ["contrast", "diff", "anomalies"])
def test_a_page_says_nothing_twice_that_must_be_known(pages: dict[str, tuple[Report, Elements]], kind: str) -> None:
    contents, elements = pages[kind]
    words = " ".join(" ".join(elements.shown).split())
    notes = {note.text for figure in contents.figures() for note in figure.spec.notes_now()}
    assert any("Simulated data" in note for note in notes)
    for note in notes:
        assert words.count(" ".join(note.replace("`", "").split())) == 1, note


@pytest.mark.parametrize("kind", ["contrast", "diff", "anomalies"])
def test_a_page_has_no_blank_cell_and_says_why_a_value_is_not_there(
    pages: dict[str, tuple[Report, Elements]], kind: str
) -> None:
    contents, elements = pages[kind]
    assert elements.cells
    assert all(cell.strip() for cell in elements.cells)
    for table in (table for section in contents.sections for table in section.tables):
        shown = page_table(table)
        assert "not known" not in " ".join(shown.blank), shown.blank
        assert bool(shown.blank) == any(cell in (None, "") or cell != cell for row in table.rows for cell in row)


@pytest.mark.parametrize("kind", ["contrast", "diff", "anomalies"])
def test_every_axis_of_a_chart_is_named(pages: dict[str, tuple[Report, Elements]], kind: str) -> None:
    charts = [figure.spec.content for figure in pages[kind][0].figures()]
    panels = [panel for chart in charts if isinstance(chart, Charts) for panel in chart.panels]
    assert panels or kind == "anomalies"
    assert all(panel.x.label and panel.y.label for panel in panels)


def test_a_key_shows_each_mark_in_the_colour_and_shape_it_is_drawn_in() -> None:
    at = np.arange(3.0)
    marks = (Band(at, at, at + 1, "muted", "band"), Line(at, at, "a", "line"), Points(at, at, "accent", "points"))
    figure, axes = Figure(), Figure().add_subplot()
    for mark in marks:
        draw_mark(axes, mark, palette.LIGHT)
    band, line, points = (sample(mark, 0, 0, palette.LIGHT, figure.dpi_scale_trans) for mark in marks)
    assert isinstance(band, Rectangle)
    assert isinstance(line, Line2D)
    assert isinstance(points, Line2D)
    drawn_band, drawn_points = axes.collections
    assert band.get_facecolor() == tuple(drawn_band.get_facecolor()[0])
    assert to_rgba(line.get_color()) == to_rgba(axes.lines[0].get_color())
    assert (to_rgba(points.get_color()), points.get_marker()) == (tuple(drawn_points.get_facecolor()[0]), "o")


def test_what_a_stranger_wrote_is_text_and_never_markup(result: xr.DataTree) -> None:
    evil = result.copy(deep=True)
    evil.attrs = json.loads(json.dumps(result.attrs).replace("critical", "EVIL"))
    evil.attrs = json.loads(json.dumps(evil.attrs).replace("EVIL", json.dumps(EVIL)[1:-1]))
    contexts = evil["contexts"].to_dataset()
    words = np.full(contexts["token"].shape, EVIL, dtype=object)
    contexts.update(table_of(contexts["token"].dims, dict.fromkeys(("before", "token", "after", "prompt_id"), words)))
    contexts["value"][:] = 1.0
    evil["contexts"] = xr.DataTree(contexts)
    contents = contents_of(evil)
    text = page(evil, contents, {figure.name: _NO_PICTURE for figure in contents.figures()})
    elements = Elements(text)
    assert [attributes for tag, attributes in elements.found if tag == "script"] == [
        {"type": "application/json", "id": "stratoscope"}
    ]
    assert "alert(1)" in " ".join(elements.words)
    assert "\u202e" not in re.sub(r"<script.*?</script>", "", text, flags=re.S).split("<mark>")[1]


def test_the_title_says_whether_there_is_a_finding(result: xr.DataTree) -> None:
    found = result.attrs["summary"]["neurons"]
    assert (
        contents_of(result).title
        == f"{found['discoveries']} neurons of {found['tested']:,} differ between critical and neutral"
    )
    nothing = result.copy()
    nothing.attrs = json.loads(json.dumps(result.attrs))
    nothing.attrs["summary"]["neurons"] |= {"discoveries": 0, "family_wise": 0}
    would = found["would_find"]
    size = f"|d_z| ≥ {number(would['d_z'])} (in the middle neuron |g| ≥ {number(would['g'])})"
    assert contents_of(nothing).title == (
        f"None of {found['tested']:,} neurons is found to differ between critical and neutral; one with {size} "
        "would have been found in 8 of 10 such studies"
    )


def test_the_table_lists_every_discovery_with_its_numbers(folder: Path, result: xr.DataTree) -> None:
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == result.attrs["summary"]["neurons"]["discoveries"]
    for row in rows:
        here = result["neurons"].dataset.sel(layer=int(row["layer"])).isel(neuron=int(row["neuron"]))
        assert float(row["q"]) == pytest.approx(float(here["q"]))
        assert float(row["g"]) == pytest.approx(float(here["g"]))


def test_a_table_cell_keeps_tokens_that_look_like_nothing(tmp_path: Path) -> None:
    write_table(
        Table(("a", "b", "c"), (("null", None, float("nan")), (Excerpt("x", "\udce4", "y"), 1, 0.5))),
        tmp_path / "t",
    )
    assert (tmp_path / "t").read_text("utf-8") == "a,b,c\nnull,,\nx[⟨E4⟩]y,1,0.5\n"


def test_no_table_cell_commands_a_terminal_or_a_spreadsheet(tmp_path: Path) -> None:
    cells = [
        "=1+1",
        "-ing",
        "@x",
        "＝A1",
        " +x",
        "-1.5",
        "\x1b[2J",
        "\r",
        "\0",
        "\u202eabc",
        "\x9b",
        Excerpt("=", "a", ""),
    ]
    write_table(Table(("x",), tuple((cell,) for cell in cells)), tmp_path / "t")
    with (tmp_path / "t").open(encoding="utf-8", newline="") as file:
        found = [row[0] for row in csv.reader(file)][1:]
    assert found == ["'=1+1", "'-ing", "'@x", "'＝A1", "' +x", "-1.5", "␛[2J", "␍", "␀", "U+202Eabc", "U+009B", "'=[a]"]


def test_a_result_that_is_there_is_replaced_only_when_asked(result: xr.DataTree, tmp_path: Path) -> None:
    out = tmp_path / "r"
    save_result(result, out)
    (out / "table.csv").write_text("the former one")
    with pytest.raises(InputError, match="--overwrite"):
        save_result(result, out)
    assert (out / "table.csv").read_text() == "the former one"
    save_result(result, out, overwrite=True)
    assert (out / "table.csv").read_text() != "the former one"
    (out / "mine.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"not part of it: mine\.txt"):
        save_result(result, out, overwrite=True)
    assert (out / "mine.txt").read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


@pytest.mark.parametrize("what", ["file", "folder", "trace"])
def test_nothing_but_a_result_is_ever_replaced(result: xr.DataTree, tmp_path: Path, what: str) -> None:
    out = tmp_path / "r"
    if what == "file":
        out.write_text("x")
    elif what == "folder":
        (out / "inner").mkdir(parents=True)
    else:
        stratoscope.simulate(out, prompts=2, layers=2, d_ff=16, tokens=6, heads=1)
    with pytest.raises(InputError, match="not a result"):
        save_result(result, out, overwrite=True)
    assert out.exists()


def test_a_result_is_never_written_into_a_trace(result: xr.DataTree, tmp_path: Path) -> None:
    trace = tmp_path / "t.trace"
    stratoscope.simulate(trace, prompts=2, layers=2, d_ff=16, tokens=6, heads=1)
    with pytest.raises(InputError, match="inside a trace"):
        save_result(result, trace / "results" / "r")


def test_a_drawing_that_fails_leaves_no_folder(
    result: xr.DataTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stratoscope.view.matplotlib.save.picture_bytes", fail)
    with pytest.raises(InputError, match="No space left"):
        save_result(result, tmp_path / "r")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no result"):
        save_result(simulated(4), tmp_path / "r")
    with pytest.raises(InputError, match="no result here"):
        open_result(tmp_path)
    newer = make_result("contrast", {}, sources=[], parameters={}, notes=[])
    newer.attrs["format_version"] = "3.0"
    from stratoscope.analysis.results.result import store_result

    store_result(newer, tmp_path)
    with pytest.raises(InputError, match="version"):
        open_result(tmp_path)


def test_a_result_of_an_older_version_is_refused_with_the_command_that_makes_it_again(
    tmp_path: Path, result: xr.DataTree
) -> None:
    from stratoscope.analysis.results.result import store_result

    older = result.copy()
    given = {**result.attrs["parameters"], "a": "it's; $(x)", "layers": [3, 0], "groups": False, "held_out": 0.25}
    older.attrs = {**result.attrs, "format_version": "1.0", "parameters": given}
    folder = tmp_path / "my results"
    folder.mkdir()
    store_result(older, folder)
    with pytest.raises(InputError) as error:
        open_result(folder)
    words = shlex.split(error.value.fix.removeprefix("Make it again: `").removesuffix("`."))
    assert words[:3] == ["stratoscope", "contrast", "TRACE"]
    wanted = {"--a": "it's; $(x)", "--layers": "3,0", "--held-out": "0.25", "-o": str(folder)}
    assert {option: words[words.index(option) + 1] for option in wanted} == wanted
    assert {"--no-groups", "--overwrite"} <= set(words)
    assert "--alpha" not in words  # a default
    check_folder(folder, overwrite=True)  # the command may replace it


def test_a_result_goes_beside_its_trace_under_its_arguments(tmp_path: Path) -> None:
    folder = default_folder(tmp_path / "run.trace", "contrast", "critical", "a/../b c")
    assert folder == tmp_path / "run.results" / "contrast-critical-a_.._b_c"
    check_folder(folder, overwrite=False)


def test_classes_without_pairs_are_drawn_as_two_profiles(tmp_path: Path) -> None:
    trace = simulated()
    alone = trace.assign_coords(
        {name: xr.Variable(("prompt",), np.array([""] * 40, dtype=object)) for name in ("pair", "group")}
    )
    found = contrast(alone)
    names = {figure.name for figure in contents_of(found).figures()}
    assert names == {"volcano", "strongest", "baseline", "profiles"}
    (profiles,) = (figure for figure in contents_of(found).figures() if figure.name == "profiles")
    assert isinstance(profiles.spec.content, Charts)
    labels = {mark.label for panel in profiles.spec.content.panels for mark in panel.marks}
    assert {"critical", "neutral"} <= labels


def test_equal_results_give_equal_pages(result: xr.DataTree, folder: Path, tmp_path: Path) -> None:
    again = save_result(result, tmp_path / "contrast")
    assert (again / "report.html").read_bytes() == (folder / "report.html").read_bytes()


def test_a_chart_is_whole_as_bytes_and_keeps_the_precision_of_its_numbers(result: xr.Dataset) -> None:
    for figure in contents_of(result).figures():
        assert to_bytes(from_bytes(to_bytes(figure.spec))) == to_bytes(figure.spec)
    volcano = contents_of(result).figures()[0].spec.content
    assert isinstance(volcano, Charts)
    density, points = (
        next(mark for mark in volcano.panels[0].marks if isinstance(mark, one)) for one in (Density, Points)
    )
    assert isinstance(density, Density)
    assert density.counts.sum() == result.attrs["summary"]["neurons"]["tested"]
    assert isinstance(points, Points)
    assert (density.counts.dtype, points.x.dtype) == (np.int32, table_in(result, "neurons")["g"].dtype)
