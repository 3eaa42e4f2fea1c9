"""What the peaks3d page looks like: which peaks cover which, its window, its camera, its labels, two prompts on each other."""  # noqa: E501

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from PIL import Image
from playwright.sync_api import Browser, Page
from test_peaks3d_page import choose, pair, settle

from stratoscope import peaks3d
from stratoscope.view.peaks3d.build import peaks_spec
from stratoscope.view.peaks3d.figure import figure

pytestmark = pytest.mark.browser

POINTS = """() => {
  const { x, y, z, marker, customdata } = document.getElementById("plot")._fullData[1];
  return [...x].map((_, i) => ({
    x: x[i], layer: y[i], z: z[i], symbol: marker.symbol[i], colour: marker.color[i], told: String(customdata[i]),
  }));
}"""
LABELS = "document.getElementById('plot')._fullLayout.scene.xaxis.ticktext"
CAMERA = "document.getElementById('plot')._fullLayout.scene._scene.getCamera()"
EDGES = """() => {
  const box = (name) => document.querySelector(name).getBoundingClientRect();
  return [box("form").bottom, box("main").top, box("#plot .svg-container").height, box("main").height,
          box("main").bottom, box("footer").top, document.documentElement.scrollWidth, innerWidth];
}"""
TEXTS = [["<s>", " one", " two", " red", " fox", " 7"], ["<s>", " one", " blue", " hot", " red", " fox", " 7"]]


def twins() -> xr.Dataset:
    """Two prompts of which " two" became " blue", " hot"; both list the neurons 0 and 1, and each one of its own."""
    dataset = pair((6, 7))
    neuron = np.broadcast_to([0, 1, 2], (13, 5, 3)).copy()
    neuron[6:, :, 2] = 3
    dataset["peak_neuron"] = (("token", "layer", "peak"), neuron.astype("int32"))
    words = np.array([*TEXTS[0], *TEXTS[1]], dtype=object)
    return dataset.assign_coords(text=xr.Variable(("token",), words, fastpath=True))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, open_page_once: Callable[..., Page]) -> Page:
    path = tmp_path_factory.mktemp("twins") / "peaks.html"
    peaks3d(twins(), path)
    return open_page_once(path, width=1000, height=700)


@pytest.fixture
def page(both: Page) -> Page:
    both.get_by_role("button", name="Reset", exact=True).click()
    settle(both)
    return both


def points(page: Page) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.evaluate(POINTS)
    return found


def brightest(page: Page) -> int:
    """Pixels of the picture in the colour of the highest peaks."""
    shot = page.screenshot(clip={"x": 0, "y": 150, "width": 510, "height": 350})
    pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)
    top = page.evaluate("page.templates.light.layout.coloraxis.colorscale.at(-1)[1]")
    colour = [int(top[start : start + 2], 16) for start in (1, 3, 5)]
    return int((abs(pixels - colour).max(axis=2) < 12).sum())


def test_no_high_peak_is_painted_over_by_a_low_one(open_page: Callable[..., Page], tmp_path: Path) -> None:
    dataset = pair((150, 150), layers=14, top_k=2).isel(token=slice(0, 150), prompt=[0])
    rng = np.random.default_rng(1)
    heights = rng.uniform(0.6, 0.97, dataset["peak_write"].shape)
    ends = np.isin(np.arange(14), [0, 1, 12, 13])  # low peaks of the layers behind are seen where these are
    heights[1:, :, 0] = np.where((rng.random((149, 14)) < 0.3) & ends, 1.08, heights[1:, :, 0])
    for name in ("peak_write", "peak_value"):
        dataset[name] = dataset[name].dims, heights.astype("float32")
    peaks3d(dataset, tmp_path / "high.html")
    page = open_page(tmp_path / "high.html", width=510, height=560)
    for azimuth, elevation in ((-1.27, 0.48), (1.9, 1.0)):
        shown = []
        for share in (0, 965):
            page.locator("input[name=threshold]").fill(str(share))
            settle(page)
            page.evaluate(f"turnTo({{ ...turn, azimuth: {azimuth}, elevation: {elevation} }})")
            page.wait_for_timeout(150)
            settle(page)
            shown.append(brightest(page))
        assert shown[1] > 1_000
        assert shown[0] >= 0.97 * shown[1], azimuth


@pytest.mark.parametrize("down", [320, -320])
def test_no_drag_turns_the_scene_over(page: Page, down: int) -> None:
    before = page.evaluate(CAMERA)
    page.mouse.move(300, 400)
    page.mouse.down()
    page.mouse.move(310, 400 + down // 2, steps=3)
    page.mouse.move(320, 400 + down, steps=3)
    page.mouse.up()
    page.wait_for_timeout(150)
    settle(page)
    after = page.evaluate(CAMERA)
    assert after["eye"] != before["eye"]
    assert after["eye"]["z"] > after["center"]["z"]
    assert after["up"]["z"] > 0


def test_keys_turn_and_zoom_the_picture(page: Page) -> None:
    start = page.evaluate("JSON.stringify(turn)")
    page.locator("main").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("+")
    turned = page.evaluate("turn")
    assert turned["azimuth"] > -1.27
    assert turned["zoom"] > 1
    page.keyboard.press("Home")
    assert page.evaluate("JSON.stringify(turn)") == start


def test_the_picture_follows_its_window_and_its_caption(page: Page) -> None:
    for width, height in ((1000, 700), (700, 500), (390, 760), (1000, 700)):
        page.set_viewport_size({"width": width, "height": height})
        for show in ("-1", "difference"):
            choose(page, "choice", show)
            page.wait_for_timeout(200)
            settle(page)
            form, top, drawn, room, bottom, caption, wide, window = page.evaluate(EDGES)
            assert (form, bottom) == pytest.approx((top, caption), abs=1)
            assert drawn == pytest.approx(room, abs=1)
            assert room >= 330
            assert wide <= window


def test_tokens_are_found_by_text_and_by_position(page: Page) -> None:
    empty = page.locator("#empty")
    for words, expected in (("FOX", {4}), ("0, 3-4", {0, 3, 4}), ('"7"', {5}), (" o", {1}), ("nothing", set())):
        page.locator("input[name=tokens]").fill(words)
        settle(page)
        assert {point["x"] for point in points(page)} == expected, words
        assert empty.is_visible() == (not expected)
    assert empty.inner_text() == 'No token with "nothing": change or clear Tokens.'
    page.locator("input[name=tokens]").fill("77")
    settle(page)
    assert empty.inner_text() == "No token at position 77: change or clear Tokens."
    page.locator("input[name=tokens]").fill("fox")
    settle(page)
    assert 'tokens with "fox"' in page.locator("#filters").inner_text()


def test_a_printed_page_has_its_picture_on_white_whatever_the_window(page: Page) -> None:
    for size in ((390, 760), (1000, 700)):
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.wait_for_timeout(150)
        settle(page)
        page.get_by_role("button", name="Dark").click()
        settle(page)
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        drawn = page.evaluate(
            "[document.querySelector('main').clientHeight, plot._fullLayout.height, plot._fullLayout.width, "
            "plot._fullLayout.paper_bgcolor]"
        )
        assert drawn[0] == drawn[1] >= 480
        assert drawn[2:] == [700, "#ffffff"]
        page.emulate_media(media="screen")
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        settle(page)
        assert page.evaluate("plot._fullLayout.width") == page.evaluate("plot.clientWidth") <= size[0]
        page.get_by_role("button", name="Light").click()
        settle(page)


def test_the_guide_has_every_control(page: Page) -> None:
    names = page.locator("form > label > span, form > .field > span:first-child, form summary, form .end > button")
    labels = {name for name in names.all_text_contents() if name and not re.fullmatch(r"L\d+.*", name)}
    assert {"Show", "Scale", "One list only", "Tokens", "PNG"} <= labels
    guide = (Path(__file__).parents[2] / "docs/peaks3d.md").read_text()
    controls = guide.partition("| control |")[2].partition("\n\n")[0]
    assert [label for label in sorted(labels) if label not in controls] == []


def test_overlaid_prompts_stand_on_equal_tokens_in_one_colour_each(page: Page) -> None:
    choose(page, "choice", "overlay")
    found = points(page)
    assert len(found) == 13 * 5 * 3
    colours = {name: {point["colour"] for point in found if name in point["told"]} for name in ("one", "two")}
    assert [len(colours["one"]), len(colours["two"])] == [1, 1] or len({point["colour"] for point in found}) == 2
    assert {round(point["x"]) for point in found} == set(range(8))
    red = [point for point in found if point["told"].startswith("·red,")]
    assert {point["told"].split(",")[1] for point in red} == {"3", "4"}
    assert len({round(point["x"]) for point in red}) == 1


def test_a_difference_is_of_the_same_neuron_at_the_same_aligned_token(page: Page) -> None:
    choose(page, "choice", "difference")
    choose(page, "scale", "linear")
    page.get_by_label("First token in scale").check()
    settle(page)
    dataset, found = twins(), points(page)
    write = dataset["peak_write"].values
    columns = {0: (0, 6), 1: (1, 7), 5: (3, 10), 6: (4, 11), 7: (5, 12)}
    assert {point["x"] for point in found} == set(columns)
    pairs = [point for point in found if "not in that of" not in point["told"]]
    assert len(pairs) == 5 * 5 * 2
    within = [point for point in pairs if point["symbol"] == "circle"]
    assert {point["x"] for point in within} >= {5, 6, 7}  # the limits are those of what follows the first edit
    for point in within:
        a, b = columns[point["x"]]
        neuron = int(re.search(r"neuron (\d)", point["told"])[1])  # type: ignore[index]
        layer = int(point["layer"])
        assert point["z"] == pytest.approx(float(write[b, layer, neuron] - write[a, layer, neuron]), rel=1e-4, abs=1e-4)
    alone = [point for point in found if point not in pairs]
    assert {"circle-open"} <= {point["symbol"] for point in alone} <= {"circle-open", "diamond-open"}
    assert len(alone) == 5 * 5 * 2
    assert {"neuron 2" in point["told"] for point in alone if point["z"] < 0} == {True}
    assert {"neuron 3" in point["told"] for point in alone if point["z"] > 0} == {True}
    assert "absent from a list is not zero" in page.locator("footer").inner_text()
    page.get_by_label("One list only").uncheck()
    settle(page)
    assert len(points(page)) == len(pairs)
    log = page.locator("input[name=scale][value=log]")
    assert log.is_disabled()
    assert "may be negative" in str(log.get_attribute("title"))
    lines = page.evaluate("(({ color, line }) => [[...color], [...line.color]])(plot._fullData[1].marker)")
    assert lines[0] == lines[1]  # open symbols have the colour of the points, not black
    assert "are hatched" in page.locator("footer").inner_text()
    choose(page, "sort", "activity")
    assert "are left out" in page.locator("#show-words").inner_text()
    assert "hatched" not in page.locator("footer").inner_text()


def test_labels_are_those_of_the_figure_and_all_of_a_short_prompt(
    open_page: Callable[..., Page], tmp_path: Path
) -> None:
    dataset = pair((30, 30), layers=3, top_k=1)
    words = np.array([f" w{index}" for index in range(60)], dtype=object)
    words[3:5] = [" \U00017000", "\U00017000\U00017001\U00017002<b>"]  # no font has these
    dataset = dataset.assign_coords(text=xr.Variable(("token",), words, fastpath=True))
    peaks3d(dataset, tmp_path / "labels.html")
    page = open_page(tmp_path / "labels.html", width=700, height=600)
    labels = page.evaluate(LABELS)
    assert len(labels) == 30
    assert labels[3] == "·U+17000"
    assert labels == list(figure(peaks_spec(dataset)).layout.scene.xaxis.ticktext)
    title = page.evaluate("document.getElementById('plot')._fullLayout.scene.zaxis.title.text")
    assert title.startswith("peak write")


def test_a_page_without_scripts_shows_a_still_picture_and_its_caption(browser: Browser, both: Page) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 900, "height": 700})
    page = context.new_page()
    page.goto(both.url)
    box = page.locator("svg.still").bounding_box()
    assert box is not None
    assert box["width"] > 800
    assert page.locator("svg.still text.token").all_text_contents()[:6] == ["<s>", "·one", "·two", "·red", "·fox", "·7"]
    assert not page.locator("form").is_visible()
    assert "195 of 195 peaks" in page.locator("footer").inner_text()
    shot = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    yellow = (shot[..., 0] > 200) & (shot[..., 1] > 170) & (shot[..., 2] < 140)
    assert yellow.sum() > 500
    context.close()
