"""Every control of the peaks3d page changes the drawing as it should, alone and together with the others."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from playwright.sync_api import Page

from number_words import CASES
from stratoscope import peaks3d
from stratoscope.names import SCALES, Scale
from stratoscope.view.peaks3d.build import peaks_spec
from stratoscope.view.peaks3d.caption import peaks_in
from stratoscope.view.peaks3d.figure import figure
from stratoscope.view.spec.look import Look
from stratoscope.view.spec.viewspec import ViewSpec
from stratoscope.words import number as written_number

pytestmark = pytest.mark.browser

LAYERS = 5
TOP_K = 3
TEXTS = ["<s>", " beta", " Alpha", " beta", "<script>alert(1)</script>", "</script>", "שלום"]
DRAWN = """scene => {
  const peaks = document.getElementById("plot")._fullData[3 * scene + 1];
  return [...(peaks.x ?? [])].map((x, i) => [x, peaks.y[i], peaks.z[i], peaks.customdata[i][3]]);
}"""


MARKERS = """number => {
  const { _fullData, _fullLayout } = document.getElementById("plot");
  const [stems, { z, marker, customdata }] = _fullData.slice(3 * number);
  const { zaxis } = _fullLayout[number ? "scene2" : "scene"];
  return {
    z: [...z], colour: [...marker.color], symbol: [...marker.symbol],
    size: [...marker.size], told: customdata,
    stems: [...stems.z].map(Number), range: zaxis.range, ticks: zaxis.tickmode === "array" ? [...zaxis.ticktext] : [],
  };
}"""
COLOUR_BAR = """() => {
  const { annotations, coloraxis } = document.getElementById("plot")._fullLayout;
  return [coloraxis.cmin, coloraxis.cmax, annotations.at(-1).text];
}"""


def pair(lengths: tuple[int, int] = (7, 5), *, layers: int = LAYERS, top_k: int = TOP_K) -> xr.Dataset:
    """A critical and a neutral prompt; no two peaks have the same neuron."""
    rng = np.random.default_rng(4)
    tokens = sum(lengths)
    heights = np.sort(rng.lognormal(sigma=1, size=(tokens, layers, top_k)))[:, :, ::-1].astype("float32")
    position = np.concatenate([np.arange(length) for length in lengths]).astype("int32")
    heights[position == 0] *= 100
    texts = [TEXTS[index % len(TEXTS)] for index in position]
    names = [("prompt_id", ("one", "two")), ("prompt_class", ("critical", "neutral")), ("pair", ("a", "a"))]
    return xr.Dataset(
        {
            "peak_write": (("token", "layer", "peak"), heights),
            "peak_value": (("token", "layer", "peak"), -heights / 2),
            "peak_neuron": (("token", "layer", "peak"), np.arange(heights.size, dtype="int32").reshape(heights.shape)),
        },
        coords={
            "prompt": ("token", np.repeat(np.arange(2, dtype="int32"), lengths)),
            "position": ("token", position),
            "span": ("token", np.full(tokens, 2, "int8")),
            "text": xr.Variable(("token",), np.array(texts, dtype=object), fastpath=True),
            "layer": np.arange(layers, dtype="int32"),
            **{name: ("prompt", np.array(words, dtype=object)) for name, words in names},
        },
        attrs={"source": "simulated", "model": {"name": "tiny"}, "uuid": "1" * 8, "token_spelling": "text"},
    )


@pytest.fixture(scope="module")
def dataset() -> xr.Dataset:
    return pair()


@pytest.fixture(scope="module")
def file(dataset: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "peaks.html"
    peaks3d(dataset, path)
    return path


@pytest.fixture(scope="module")
def opened(file: Path, open_page_once: Callable[..., Page]) -> Page:
    return open_page_once(file)


@pytest.fixture
def page(opened: Page) -> Page:
    opened.get_by_role("button", name="Reset", exact=True).click()
    settle(opened)
    return opened


def drawn(page: Page, scene: int = 0) -> list[list[float]]:
    """Place, layer, height and neuron of every drawn peak of a scene."""
    rows: list[list[float]] = page.evaluate(DRAWN, scene)
    return rows


def neurons(page: Page, scene: int = 0) -> set[int]:
    return {int(row[3]) for row in drawn(page, scene)}


def settle(page: Page) -> None:
    page.wait_for_timeout(20)
    page.wait_for_function("window.stratoscopeReady === true")


def choose(page: Page, name: str, value: str) -> None:
    if name == "scale":
        page.locator(f"input[name=scale][value={value}]").check()
    else:
        page.locator(f"select[name={name}]").select_option(value)
    settle(page)


def slide(page: Page, share: int) -> float:
    """Move the threshold to so many thousandths; what it hides below."""
    page.locator("input[name=threshold]").fill(str(share))
    settle(page)
    least: float = page.evaluate("state.threshold")
    return least


def only_layers(page: Page, first: int, last: int) -> None:
    page.locator("summary", has_text="L").first.click()
    page.locator("select[name=from]").select_option(str(first))
    page.locator("select[name=to]").select_option(str(last))
    settle(page)
    page.keyboard.press("Escape")


def expected(dataset: xr.Dataset, prompt: int, *, layers: set[int], least: float) -> set[int]:
    """Neurons of the peaks that the controls leave in the scene of a prompt."""
    here = (dataset["prompt"].values == prompt)[:, None, None]
    here = here & np.isin(dataset["layer"].values, sorted(layers))[None, :, None]
    here = here & (dataset["peak_write"].values >= np.float32(least))
    return set(dataset["peak_neuron"].values[here].tolist())


def places(page: Page, scene: int = 0) -> dict[int, float]:
    """Token → where it stands."""
    return {int(row[3]) // (LAYERS * TOP_K): row[0] for row in drawn(page, scene)}


@pytest.mark.parametrize("function", CASES)
def test_the_page_writes_numbers_as_python_does(opened: Page, function: str) -> None:
    name = {"size_text": "sizeText"}.get(function, function)
    given = [[repr(one) if isinstance(one, float) else one for one in arguments] for arguments, _ in CASES[function]]
    for arguments in given:  # JSON has no NaN
        arguments[0] = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(arguments[0], arguments[0])
    written = f"all => all.map(([first, ...more]) => {name}(Number(first), ...more))"
    assert opened.evaluate(written, given) == [text for _, text in CASES[function]]


def test_the_page_starts_with_what_the_figure_of_a_notebook_shows(page: Page, dataset: xr.Dataset) -> None:
    drawing = figure(peaks_spec(dataset))
    for number, scene in enumerate(("scene", "scene2")):
        stems, peaks, _ = drawing.data[3 * number : 3 * number + 3]
        rows = np.array(drawn(page, number))
        np.testing.assert_array_equal(rows[:, 0], peaks.x)
        np.testing.assert_array_equal(rows[:, 1], peaks.y)
        np.testing.assert_allclose(rows[:, 2], peaks.z, rtol=1e-12)
        here = f"document.getElementById('plot')._fullData[{3 * number}]"
        assert page.evaluate(f"[...{here}.z].map(Number)") == pytest.approx(np.nan_to_num(stems.z).tolist())
        words = page.evaluate(f"document.getElementById('plot')._fullData[{3 * number + 1}].customdata[0]")
        assert words == list(peaks.customdata[0])
        axis = page.evaluate(f"document.getElementById('plot')._fullLayout.{scene}.xaxis")
        assert axis["ticktext"] == list(drawing.layout[scene].xaxis.ticktext)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("first_token", [False, True])
def test_every_state_shows_what_the_figure_of_that_look_has(
    page: Page, dataset: xr.Dataset, scale: Scale, first_token: bool
) -> None:
    page.get_by_label("First token in scale").set_checked(first_token)
    choose(page, "scale", scale)
    spec = replace(peaks_spec(dataset), look=Look(scale, first_token))
    drawing = figure(spec)
    for number, scene in enumerate(("scene", "scene2")):
        stems, peaks, _ = drawing.data[3 * number : 3 * number + 3]
        shown = page.evaluate(MARKERS, number)
        assert shown["z"] == peaks.z.tolist()
        assert shown["colour"] == peaks.marker.color.tolist()
        assert shown["symbol"] == peaks.marker.symbol.tolist()
        assert shown["size"] == pytest.approx(peaks.marker.size.tolist())
        assert shown["told"] == [list(told) for told in peaks.customdata]
        assert shown["stems"] == np.nan_to_num(stems.z).tolist()
        axis = drawing.layout[scene].zaxis
        assert shown["range"] == pytest.approx(list(axis.range))
        assert shown["ticks"] == list(axis.ticktext or [])
    bar = drawing.layout.coloraxis
    assert page.evaluate(COLOUR_BAR) == [bar.cmin, bar.cmax, bar.colorbar.title.text]
    said = page.locator("footer").inner_text()
    now = spec.notes_now()
    assert [note.text for note in spec.notes if (note.text in said) != (note in now)] == []
    assert peaks_in(spec).scales[scale].words in said


def test_sorting_by_text_keeps_repeated_tokens_apart(page: Page) -> None:
    choose(page, "sort", "text")
    where = places(page)
    assert sorted(where.values()) == list(range(7))
    by_text = sorted(where, key=lambda token: where[token])
    assert [TEXTS[token] for token in by_text] == sorted(TEXTS, key=lambda text: text.strip().casefold())
    assert where[1] + 1 == where[3]  # the two " beta", in reading order


def test_sorting_by_activity_goes_by_the_highest_peak_of_the_chosen_layers(page: Page, dataset: xr.Dataset) -> None:
    only_layers(page, 2, 3)
    choose(page, "sort", "activity")
    where = places(page)
    top = dataset["peak_write"].values[:7, 2:4].max(axis=(1, 2))
    assert sorted(where, key=lambda token: where[token]) == np.argsort(-top).tolist()


def test_sorting_by_position_restores_reading_order(page: Page) -> None:
    before = drawn(page)
    choose(page, "sort", "activity")
    assert drawn(page) != before
    choose(page, "sort", "position")
    assert drawn(page) == before


def test_layers_are_picked_as_a_range_and_one_by_one(page: Page, dataset: xr.Dataset) -> None:
    only_layers(page, 1, 3)
    assert neurons(page) == expected(dataset, 0, layers={1, 2, 3}, least=0)
    page.locator("details").first.locator("summary").click()
    page.get_by_label("L2", exact=True).uncheck()
    page.get_by_label("L0", exact=True).check()
    settle(page)
    assert neurons(page) == expected(dataset, 0, layers={0, 1, 3}, least=0)
    assert page.locator("#layers-words").inner_text() == "L0–L1, L3"
    page.get_by_role("button", name="None").click()
    settle(page)
    assert neurons(page) == set()
    assert page.locator("#empty").is_visible()
    page.get_by_role("button", name="All", exact=True).click()
    settle(page)
    assert neurons(page) == expected(dataset, 0, layers=set(range(LAYERS)), least=0)


def test_the_threshold_hides_exactly_what_is_lower(page: Page, dataset: xr.Dataset) -> None:
    least = slide(page, 600)
    assert least > 0
    assert neurons(page) == expected(dataset, 0, layers=set(range(LAYERS)), least=least)
    assert neurons(page, 1) == expected(dataset, 1, layers=set(range(LAYERS)), least=least)
    assert page.locator("#threshold-value").inner_text().startswith("≥ ")


def test_one_class_alone_takes_the_whole_width(page: Page, dataset: xr.Dataset) -> None:
    choose(page, "choice", "1")
    assert neurons(page) == set()
    assert neurons(page, 1) == expected(dataset, 1, layers=set(range(LAYERS)), least=0)
    domain = page.evaluate("document.getElementById('plot')._fullLayout.scene2.domain.x")
    assert domain == pytest.approx([0, 1 - 84 / 1280])


def test_all_controls_together_give_the_right_peaks(page: Page, dataset: xr.Dataset) -> None:
    only_layers(page, 1, 4)
    least = slide(page, 450)
    choose(page, "choice", "0")
    choose(page, "sort", "activity")
    choose(page, "scale", "log")
    wanted = expected(dataset, 0, layers={1, 2, 3, 4}, least=least)
    assert neurons(page) == wanted
    assert neurons(page, 1) == set()
    assert page.locator("#count").inner_text() == f"{len(wanted)} of {12 * LAYERS * TOP_K} peaks."
    assert page.locator("#filters").inner_text().startswith("Shown: critical, L1–L4, at least ")
    top = dataset["peak_write"].values[:7, 1:].max(axis=(1, 2))
    where = places(page)
    assert sorted(where, key=lambda token: where[token]) == [t for t in np.argsort(-top).tolist() if t in where]
    limits = peaks_in(peaks_spec(dataset)).scales["log"].heights["without_first"]
    for _, layer, z, neuron in drawn(page):
        height = np.log10(dataset["peak_write"].values.ravel()[int(neuron)])
        if height <= limits.ceiling:
            assert z == pytest.approx(max(height, limits.floor), abs=1e-6), layer


def test_the_share_of_a_layer_is_of_that_layers_highest_peak(page: Page, dataset: xr.Dataset) -> None:
    choose(page, "scale", "per-layer")
    others = dataset["peak_write"].values[dataset["position"].values > 0]
    for _, layer, z, neuron in drawn(page):
        share = dataset["peak_write"].values.ravel()[int(neuron)] / others[:, int(layer)].max()
        assert z == pytest.approx(share, rel=1e-5) if share <= 1 else 1.04 <= z <= 1.1


def test_the_first_token_takes_part_in_the_scale_only_when_asked(page: Page, dataset: xr.Dataset) -> None:
    first = dataset["position"].values == 0
    axis = "document.getElementById('plot')._fullLayout.coloraxis.cmax"
    assert page.evaluate(axis) <= dataset["peak_write"].values[~first].max()
    beyond = page.locator("#above").inner_text()
    assert beyond.endswith("beyond the scale (◇).")
    page.get_by_label("First token in scale").check()
    settle(page)
    choose(page, "scale", "linear")
    assert page.evaluate(axis) == pytest.approx(float(dataset["peak_write"].values.max()))
    assert page.locator("#above").inner_text() == ""
    assert "◇" not in page.locator("footer").inner_text()
    assert "First tokens are left out" not in page.locator("footer").inner_text()


def test_scenes_share_colours_heights_and_camera(page: Page) -> None:
    layout = page.evaluate(
        "(({scene, scene2}) => [scene.zaxis.range, scene2.zaxis.range])(document.getElementById('plot')._fullLayout)"
    )
    assert layout[0] == pytest.approx(layout[1])
    page.mouse.move(300, 400)
    page.mouse.down()
    page.mouse.move(360, 380, steps=4)
    page.mouse.up()
    page.wait_for_timeout(200)
    cameras = page.evaluate(
        "(({scene, scene2}) => [scene._scene.getCamera().eye, scene2._scene.getCamera().eye, "
        "page.figure.layout.scene.camera.eye])"
        "(document.getElementById('plot')._fullLayout)"
    )
    assert cameras[0] == pytest.approx(cameras[1])
    choose(page, "sort", "text")
    after = page.evaluate("document.getElementById('plot')._fullLayout.scene._scene.getCamera().eye")
    assert after == pytest.approx(cameras[2])


def test_a_click_of_the_theme_button_changes_page_and_picture(page: Page) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(paper)
    page.get_by_role("button", name="Dark").click()
    settle(page)
    assert page.evaluate(paper) != before
    assert page.evaluate("document.getElementById('plot')._fullLayout.paper_bgcolor") == "#14171b"
    page.get_by_role("button", name="Light").click()
    settle(page)
    assert page.evaluate(paper) == before


def test_a_narrow_dark_screen_gets_scenes_above_each_other_and_dark_colours(
    file: Path, page: Page, open_page: Callable[..., Page]
) -> None:
    domain = "document.getElementById('plot')._fullLayout.scene2.domain.x"
    assert page.evaluate(domain) == pytest.approx([(1 - 84 / 1280) / 2, 1 - 84 / 1280])
    narrow = open_page(file, width=700, height=900, dark=True)
    assert narrow.evaluate(domain) == pytest.approx([0, 1 - 84 / 700])
    assert narrow.evaluate("document.documentElement.scrollWidth") <= 700
    assert narrow.evaluate("document.documentElement.dataset.theme") == "dark"


HOVER = """() => {
  const plot = document.getElementById("plot");
  const scene = plot._fullLayout.scene._scene;
  const peaks = plot._fullData[1];
  const within = [...peaks.z.keys()].filter((i) => peaks.customdata[i][7] === "");
  const top = within.reduce((best, i) => (peaks.z[i] > peaks.z[best] ? i : best));
  const { model, view, projection } = scene.glplot.cameraParams;
  let at = [peaks.x[top], peaks.y[top], peaks.z[top]].map((value, axis) => value * scene.dataScale[axis]).concat(1);
  for (const matrix of [model, view, projection]) {
    at = [0, 1, 2, 3].map((row) => at.reduce((sum, value, column) => sum + matrix[4 * column + row] * value, 0));
  }
  const box = scene.container.getBoundingClientRect();
  return {
    x: box.left + box.width * (0.5 + at[0] / at[3] / 2),
    y: box.top + box.height * (0.5 - at[1] / at[3] / 2),
    told: peaks.customdata[top],
  };
}"""


def test_hovering_tells_token_position_layer_neuron_value_and_write_norm(page: Page, dataset: xr.Dataset) -> None:
    at = page.evaluate(HOVER)
    for step in range(50):  # a still pointer is not noticed while the scene is being drawn
        page.mouse.move(at["x"] + step % 2, at["y"])
        page.wait_for_timeout(100)
        if page.locator("g.hovertext").count():
            break
    said = page.locator("g.hovertext").text_content() or ""
    label, position, prompt, neuron, _, _, layer, _ = at["told"]
    wanted = [html.unescape(label), f"position {position}", prompt, f"L{layer} · neuron {neuron}"]
    assert [words for words in wanted if words not in said] == [], said
    (told,) = np.argwhere(dataset["peak_neuron"].values == neuron)
    assert f"activation {written_number(dataset['peak_value'].values[*told])}write norm" in said.replace("\n", "")
    assert said.endswith(f"write norm {written_number(dataset['peak_write'].values[*told])}")


def test_no_token_prompt_or_class_becomes_markup(open_page: Callable[..., Page], tmp_path: Path) -> None:
    evil = ['<img src=x onerror="alert(1)">', "</script><script>alert(2)</script>", "<b>b</b>", "%{x}", "&lt;i&gt;"]
    dataset = pair()
    dataset["text"] = xr.Variable(
        ("token",), np.array((evil * 3)[: dataset.sizes["token"]], dtype=object), fastpath=True
    )
    for name in ("prompt_id", "prompt_class"):
        dataset[name] = ("prompt", np.array(evil[:2], dtype=object))
    dataset.attrs["model"] = {"name": "</title><script>alert(3)</script>"}
    dataset.attrs["notes"] = [{"id": "L01", "severity": "warning", "text": "</p><script>alert(4)</script>"}]
    peaks3d(dataset, tmp_path / "evil.html")
    page = open_page(tmp_path / "evil.html")
    page.locator("summary", has_text="Highest").click()
    assert page.locator("img").count() == 0
    assert page.locator("td b").count() == 0
    assert page.locator("script").count() == 5
    assert "</script>" in page.locator("footer").inner_text()


def test_the_list_of_highest_peaks_follows_the_controls(page: Page, dataset: xr.Dataset) -> None:
    page.locator("summary", has_text="Highest").click()
    choose(page, "choice", "1")
    rows = page.locator("#highest tr")
    values = dataset["peak_write"].values[8:]
    assert rows.count() == 10
    cells = rows.first.locator("td").all_inner_texts()
    token, layer, rank = np.unravel_index(values.argmax(), values.shape)
    assert cells[2:5] == [str(token + 1), f"L{layer}", str(dataset["peak_neuron"].values[8:][token, layer, rank])]


def test_the_picture_is_saved_with_its_caption(page: Page, tmp_path: Path) -> None:
    with page.expect_download() as download:
        page.get_by_role("button", name="PNG").click()
    saved = tmp_path / "saved.png"
    download.value.save_as(saved)
    assert download.value.suggested_filename == "peaks.png"  # the name of the page
    assert saved.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = np.frombuffer(saved.read_bytes()[16:24], ">u4")
    assert width == 2560
    assert height > 2 * page.locator("#plot").bounding_box()["height"]  # type: ignore[index]


def test_every_control_has_a_name_and_can_be_reached_by_keyboard(page: Page) -> None:
    reached: list[str] = []
    page.locator("h1").click()
    for _ in range(11):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.name || document.activeElement.innerText"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    wanted = ["choice", "scale", "first", "sort", "L0–L4", "tokens", "threshold", "Highest", "Reset", "image", "theme"]
    assert reached == wanted
    named = page.evaluate("[...document.querySelectorAll('select, input')].map((e) => e.labels[0]?.textContent ?? '')")
    assert all(named)


def test_the_most_points_there_can_be_are_drawn_and_sorted(open_page: Callable[..., Page], tmp_path: Path) -> None:
    dataset = pair((500, 500), layers=12, top_k=5)
    peaks3d(dataset, tmp_path / "many.html")
    page = open_page(tmp_path / "many.html", width=900, height=600)
    assert page.locator("#count").inner_text() == "24,000 of 60,000 peaks."
    assert len(drawn(page)) + len(drawn(page, 1)) == 24_000
    slide(page, 980)
    choose(page, "sort", "activity")
    assert len(drawn(page)) + len(drawn(page, 1)) == 480


def test_what_the_page_says_about_itself_is_the_metadata_of_the_view(page: Page, dataset: xr.Dataset) -> None:
    said: dict[str, Any] = page.evaluate("JSON.parse(document.getElementById('stratoscope').textContent)")
    spec: ViewSpec = peaks_spec(dataset)
    own = json.loads(spec.metadata_json())
    assert own.pop("drawn_by")["verb"] == ""
    assert said.pop("drawn_by")["verb"] == "peaks3d"
    assert said == own
    assert said["provenance"]["source"] == "simulated"
    assert "SIMULATED" in page.locator("footer").inner_text()
