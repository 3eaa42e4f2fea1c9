"""Pages for a paper: exactly as wide as asked, text of the size asked for, and nothing that must be said left out."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sheets import outside, overlapping, words
from view_traces import Factory, make_trace

from drawn_maps import maps_of
from stratoscope.errors import InputError, UsageError
from stratoscope.recorder.simulate import simulate
from stratoscope.view.maps.compare import compare
from stratoscope.view.maps.engagement import QUANTITIES, engagement_spec
from stratoscope.view.maps.heatmap import heatmap, heatmap_of_array, heatmap_spec
from stratoscope.view.matplotlib.draw import draw
from stratoscope.view.matplotlib.save import picture_bytes
from stratoscope.view.sheet.footer import footer
from stratoscope.view.sheet.items import Sheet, Text
from stratoscope.view.sheet.layout import arrange
from stratoscope.view.sheet.measures import SLIDE
from stratoscope.view.spec import palette
from stratoscope.view.spec.page import Page, page_of
from stratoscope.view.spec.viewspec import ViewSpec
from stratoscope.words import number

LABELS = ["How", " do", " I", "一二三四五六", "a_very_long_identifier_of_a_program", "\n", " straße", "<0xE4>", "🙂"]


def on_page(spec: ViewSpec, page: Page) -> Sheet:
    return arrange(spec, maps_of(spec), page)


def whole_dots(length: float, dots: int) -> bool:
    return abs(length * dots - round(length * dots)) < 1e-6


@pytest.mark.parametrize("width", ["85mm", "180mm"])
@pytest.mark.parametrize("tokens", [3, 45, 300, 3_000])
@pytest.mark.parametrize("engaged", [False, True])
def test_a_page_of_a_paper_is_as_wide_as_asked_and_nothing_is_cut_or_overlaps(
    width: str, tokens: int, engaged: bool
) -> None:
    quantities = QUANTITIES if engaged else ("mlp_out_norm",)
    texts = [LABELS[place % len(LABELS)] for place in range(2 * tokens)]
    trace = make_trace(lengths=(tokens, tokens), layers=30, quantities=quantities, texts=texts)
    page = page_of(width)
    spec = engagement_spec(trace, page=page) if engaged else heatmap_spec(trace, page=page)
    sheet = on_page(spec, page)
    assert sheet.width * 25.4 == pytest.approx(float(width.removesuffix("mm")), abs=1e-9)
    assert outside(sheet) == []
    assert overlapping(sheet) == []
    assert {(one.index) for one in sheet.maps()} == set(range(2 * len(quantities)))
    assert min(text.size for text in sheet.texts()) >= 6.3 - 1e-9, "smaller than nine tenths of 7 points"
    for one in sheet.maps():
        assert whole_dots(one.width / (one.stop - one.start), sheet.dots)
        assert whole_dots(one.height / 30, sheet.dots)
        assert one.x + one.width <= sheet.width
        if one.columns and not engaged and (tokens == 3 or (tokens == 45 and width == "180mm")):
            assert [label.size for _, label in one.columns] == [7.0] * (one.stop - one.start), "a label is missing"


def test_one_prompt_is_wrapped_under_its_labels_in_a_column_of_a_journal(trace_of: Factory) -> None:
    sheet = on_page(heatmap_spec(trace_of(lengths=(60,), layers=30)), Page(85 / 25.4))
    bands = [(one.start, one.stop, len(one.columns)) for one in sheet.maps()]
    assert bands == [(0, 20, 20), (20, 40, 20), (40, 60, 20)]
    assert sheet.height <= 9.3


def test_the_font_size_is_that_of_the_labels_and_bounds_all_other_text(trace_of: Factory) -> None:
    spec = heatmap_spec(trace_of(lengths=(20, 20), layers=12))
    for points in (6.0, 10.0):
        for width in (None, 3.4):
            sheet = on_page(spec, Page(width, points))
            assert outside(sheet) == overlapping(sheet) == []
            assert {label.size for one in sheet.maps() for _, label in (*one.columns, *one.rows)} == {points}
            sizes = [text.size for text in sheet.texts()]
            assert (min(sizes), max(sizes)) == pytest.approx((0.9 * points, 1.2 * points))


@pytest.mark.parametrize(("given", "inches"), [("3.3in", 3.3), ("85mm", 85 / 25.4), ("8.5 cm", 85 / 25.4), (3, 3.0)])
def test_a_width_is_read_with_its_unit(given: Any, inches: float) -> None:
    assert page_of(given).width == pytest.approx(inches)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"width": "85"}, "3.3in, 85mm"),
        ({"width": "wide"}, "is no length"),
        ({"width": -1}, "no width of a picture"),
        ({"width": "0in"}, "Give more than 0, such as 85mm."),
        ({"width": "9m"}, "is no length"),
        ({"font_size": 0.5}, "no size of text"),
        ({"font_size": "7"}, "not a number"),
        ({"title": " "}, "`none`"),
        ({"caption": "above"}, "below, file, none"),
        ({"caption": "file"}, "none is written"),
        ({"width": "30mm"}, "Give at least"),
    ],
)
def test_a_page_that_cannot_be_is_refused_with_what_can(trace_of: Factory, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        heatmap(trace_of(), **wrong)


def test_the_width_that_is_said_to_work_does(trace_of: Factory) -> None:
    with pytest.raises(InputError) as caught:
        heatmap(trace_of(), width="30mm", font_size=9)
    least = re.search(r"at least ([\d.]+in) \((\d+mm)\)", str(caught.value))
    assert least is not None
    for width in least.groups():
        sheet = on_page(heatmap_spec(trace_of(lengths=(30,))), page_of(width, 9))
        assert outside(sheet) == overlapping(sheet) == []


def test_a_bitmap_is_as_wide_as_asked_to_a_hundredth_of_a_millimetre(trace_of: Factory) -> None:
    figure = draw(heatmap_spec(trace_of()), page_of("85mm"))
    picture = Image.open(io.BytesIO(picture_bytes(figure, ".png", "{}", dots=figure.dots)))
    assert picture.width / picture.info["dpi"][0] * 25.4 == pytest.approx(85, abs=0.01)
    assert picture.width == 2007  # 600 dots an inch


def test_a_title_is_replaced_or_its_facts_move_into_the_caption(trace_of: Factory, tmp_path: Path) -> None:
    trace = trace_of(model={"name": "tiny"})
    spec = heatmap_spec(trace)
    without = on_page(spec, Page(title="none"))
    assert spec.title not in words(without)
    assert "Columns: tokens in reading order" in words(without)
    assert "tiny" in words(without)
    heatmap(trace, tmp_path / "a.png", title="Mine: $x_1$", width=4)
    metadata = json.loads(Image.open(tmp_path / "a.png").text["stratoscope"])  # type: ignore[attr-defined]
    assert metadata["title"] == "Mine: $x_1$"


def test_a_caption_in_a_file_says_all_that_the_footer_says(trace_of: Factory, tmp_path: Path) -> None:
    trace = trace_of(model={"name": "tiny"}, notes=[{"id": "L16", "severity": "warning", "text": "Take care."}])
    heatmap(trace, tmp_path / "a.png", caption="file")
    written = (tmp_path / "a.txt").read_text("utf-8")
    below, _ = footer(heatmap_spec(trace), 0, 0, 1e3, palette.LIGHT, SLIDE, Page())
    assert {text.text for text in below if isinstance(text, Text) and text.size == SLIDE.note} <= {*written.split("\n")}
    for said in ("[L05]", "[L07]", "[L16] Take care.", "tiny", "Columns: tokens", "MLP output by token and layer"):
        assert said in written
    metadata = json.loads(Image.open(tmp_path / "a.png").text["stratoscope"])  # type: ignore[attr-defined]
    assert {note["id"] for note in metadata["notes"]} >= {"L05", "L07", "L16"}


@pytest.mark.parametrize("caption", ["file", "none"])
def test_what_is_not_recorded_and_what_is_warned_of_stays_on_the_picture(trace_of: Factory, caption: Any) -> None:
    notes = [{"id": "L16", "severity": "warning", "text": "Take care."}]
    page = Page(3.4, caption=caption, title="none")
    for source, tag in (("simulated", "SIMULATED"), ("imported", "IMPORTED"), ("", "SOURCE UNKNOWN")):
        assert tag in words(on_page(heatmap_spec(trace_of(source=source)), page))
    plain = words(on_page(heatmap_spec(trace_of(source="real")), page))
    assert "[L05]" not in plain
    assert "RECORDED" not in plain
    assert "Take care." in words(on_page(heatmap_spec(trace_of(source="real", notes=notes)), page))


def test_a_caption_never_replaces_a_text_of_somebodys_own(trace_of: Factory, tmp_path: Path) -> None:
    trace, text = trace_of(), tmp_path / "a.txt"
    heatmap(trace, tmp_path / "a.png", caption="file")
    first = text.read_text("utf-8")
    with pytest.raises(InputError, match="already exists"):
        heatmap(trace, tmp_path / "a.png", caption="file")
    heatmap(trace, tmp_path / "a.png", caption="file", overwrite=True)
    assert text.read_text("utf-8") == first
    text.write_text("my prompts\n")
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(InputError, match="no caption of a picture"):
        heatmap(trace, tmp_path / "a.png", caption="file", overwrite=True, quantity="mlp_out_norm", theme="dark")
    assert text.read_text() == "my prompts\n"
    assert (tmp_path / "a.png").read_bytes() == before


def test_an_array_takes_the_same_page() -> None:
    figure = heatmap_of_array(np.ones((30, 4)), width="85mm", title="none", caption="none", log=True)
    assert figure.get_size_inches()[0] * 25.4 == pytest.approx(85)


def test_maps_are_drawn_into_axes_that_a_person_has(trace_of: Factory) -> None:
    figure = Figure(figsize=(7, 4))
    pair = figure.subplots(2, 1)
    places = [one.get_position().bounds for one in pair]
    trace = trace_of(lengths=(12, 9), texts=["How"] * 21, source="simulated")
    assert heatmap(trace, ax=pair) is figure
    assert [one.get_position().bounds for one in pair] == places, "the axes were moved"
    alone = heatmap(trace).axes
    for one, page in zip(pair, alone, strict=True):
        np.testing.assert_array_equal(one.images[0].get_array(), page.images[0].get_array())
        assert one.images[0].norm.vmax == alone[0].images[0].norm.vmax, "the two do not share their limits"
        assert [label.get_text() for label in one.get_xticklabels()] == ["How"] * len(one.get_xticks())
        assert one.get_title(loc="right") == "SIMULATED"
    (bar,) = pair[1].child_axes
    ticks = [label.get_text() for label in bar.get_yticklabels()]
    assert (ticks[0], ticks[-1]) == tuple(number(getattr(alone[0].images[0].norm, end)) for end in ("vmin", "vmax"))


def test_a_narrow_axes_numbers_its_tokens_and_warnings_are_raised(trace_of: Factory) -> None:
    axes = Figure(figsize=(2, 2)).subplots()
    notes = [{"id": "L08", "severity": "warning", "text": "Take care."}]
    with pytest.warns(UserWarning, match="Take care"):
        heatmap(trace_of(lengths=(60,), notes=notes), ax=axes)
    assert axes.get_xlabel() == "token"
    heatmap_of_array(np.ones((5, 3)), ax=axes, font_size=6)  # nothing to put into a colour bar
    with pytest.raises(UsageError, match="a profile draws its own page"):
        heatmap(trace_of(lengths=(6,)), profile=True, ax=axes)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "2 maps, and there are 1 axes"),
        ({"prompt": 0, "width": 3}, "no page"),
        ({"prompt": 0, "out": "a.png"}, "part of your figure"),
        ({"prompt": 0, "ax": "here"}, "no axes of matplotlib"),
    ],
)
def test_what_axes_cannot_take_is_refused(trace_of: Factory, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        heatmap(trace_of(), **{"ax": Figure().subplots(), **wrong})


def test_charts_are_as_wide_as_asked_side_by_side_or_below_each_other() -> None:
    trace = simulate(prompts=4, tokens=12, layers=6)
    for width, below in (("85mm", True), ("180mm", False)):
        figure = compare(trace, prompt_class=["critical", "neutral"], width=width)
        assert figure.get_size_inches()[0] * 25.4 == pytest.approx(float(width.removesuffix("mm")))
        one, other = (axes.get_position() for axes in figure.axes)
        assert (one.y0 > other.y1) == below
        assert (one.x1 < other.x0) != below
