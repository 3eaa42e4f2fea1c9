"""The routes page: what is drawn is what the view holds, edges and nodes say what they are, keys and sizes work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from playwright.sync_api import Browser, Page

import stratoscope
from route_traces import large_trace, route_trace
from stratoscope.view.routes.chosen import routed
from stratoscope.view.spec.routes import RoutePanel, Routes
from stratoscope.words import percent

pytestmark = pytest.mark.browser

EDGES = 40
LINES = """() => panels.map(({ graph, lines }) => [...lines.keys()].filter(({ kind }) => kind === 0)
  .map(({ from, to, head }) => [from.column, from.depth, to.column, to.depth, head]))"""

REACHED = """() => {
  const { places, marks } = panels[0];
  const found = new Set();
  const todo = [graphs[1].end];
  while (todo.length) {
    const one = todo.pop();
    if (!one || found.has(placeKey(one))) continue;
    found.add(placeKey(one));
    for (const step of Object.values(STEPS)) todo.push(nearest(places, one, step));
  }
  return [found.size, marks.size];
}"""
TOLD = "() => graphs[2].edges.filter(({ kind }) => kind === 0).map((edge) => worthWords(graphs[2], edge).join(' '))"
RUNS = """() => runsOf(graphs[0].panel, new Set(panels[0].places.map(({ column }) => column)))
  .map(({ tokens }) => tokens)"""


def pair() -> xr.Dataset:
    """Two prompts that differ in two tokens, with neurons of which some are known to promote tokens."""
    trace = route_trace(9, 9, layers=5, heads=2, seed=4)
    trace["text"].values[9 + 3] = " hut"
    trace["text"].values[9 + 6] = "</script><b>שלום"
    size = (18, 5, 6)
    rng = np.random.default_rng(0)
    dims = ("token", "layer", "peak")
    return trace.assign(
        peak_neuron=(dims, rng.permutation(np.prod(size)).reshape(size).astype(np.int32)),
        peak_value=(dims, rng.normal(size=size).astype(np.float32)),
        peak_write=(dims, np.sort(rng.lognormal(size=size).astype(np.float32))[..., ::-1].copy()),
    )


@pytest.fixture(scope="module")
def view() -> Routes:
    content = routed(pair(), prompt=[0, 1], edges=EDGES, difference=True).spec().content
    assert isinstance(content, Routes)
    return content


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "routes.html"
    stratoscope.routes(pair(), path, prompt=[0, 1], edges=EDGES, difference=True)
    return path


@pytest.fixture(scope="module")
def opened(file: Path, open_page_once: Callable[..., Page]) -> Page:
    return open_page_once(file)


@pytest.fixture
def page(opened: Page) -> Page:
    opened.get_by_role("button", name="Reset", exact=True).click()
    opened.wait_for_timeout(20)
    return opened


def edges_in(panel: RoutePanel, most: int) -> set[tuple[int, ...]]:
    """The first so many edges of heads of a panel."""
    heads = np.flatnonzero(panel.edge_kind == 0)[:most]
    places = (panel.from_column, panel.from_depth, panel.to_column, panel.to_depth, panel.head)
    return {tuple(int(one[edge]) for one in places) for edge in heads}


def drawn(page: Page) -> list[set[tuple[int, ...]]]:
    found: list[list[list[int]]] = page.evaluate(LINES)
    return [{tuple(edge) for edge in panel} for panel in found]


def show(page: Page, choice: str) -> None:
    page.locator("select[name=choice]").select_option(choice)


def slide(page: Page, edges: int) -> None:
    page.locator("input[name=edges]").fill(str(edges))


def test_all_edges_of_the_view_are_drawn_and_the_slider_keeps_the_first(page: Page, view: Routes) -> None:
    assert drawn(page) == [edges_in(view.panels[2], 10_000)]  # the difference was asked for
    show(page, "both")
    assert drawn(page) == [edges_in(panel, EDGES) for panel in view.panels[:2]]
    show(page, "1")
    for most in (10, 23, EDGES):
        slide(page, most)
        assert drawn(page) == [edges_in(view.panels[1], most)]
        covered = percent(view.panels[1].covered_by[most - 1])
        assert page.locator("#edges-words").inner_text() == f"{most} edges, {covered} covered"
    show(page, "2")
    assert drawn(page) == [edges_in(view.panels[2], 10_000)]
    assert "covered" not in page.locator("#edges-words").inner_text()


def test_an_edge_under_the_pointer_says_head_tokens_weight_and_flow(page: Page, view: Routes) -> None:
    show(page, "0")
    panel = view.panels[0]
    page.evaluate("""() => { const [edge] = graphs[0].edges; light(0, [edge], { clientX: 300, clientY: 300 }); }""")
    tip = page.locator("#tip")
    assert tip.is_visible()
    words = tip.inner_text()
    assert f"head {panel.head[0]} of L{panel.from_depth[0]}" in words
    assert percent(panel.weight[0]) in words
    assert percent(panel.flow[0]) in words
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    box = page.locator(".grab").first.bounding_box()  # a real pointer finds one too
    assert box is not None
    page.evaluate("""() => { const grab = document.querySelector("path.grab");
      grab.dispatchEvent(new PointerEvent("pointerenter", { clientX: 50, clientY: 50 })); }""")
    assert tip.is_visible()
    page.keyboard.press("Escape")


def test_a_node_tells_its_edges_and_its_neurons_strongest_first(page: Page, view: Routes) -> None:
    show(page, "0")
    panel, depth = view.panels[0], 5
    page.evaluate("pick(0, graphs[0].end)")
    card = page.locator("#card").inner_text()
    into = [edge for edge in edges_in(panel, EDGES) if edge[2:4] == (panel.end, depth)]
    assert into
    assert all(f"head {head} ←" in card for *_, head in into)
    neurons = panel.neurons
    assert neurons is not None
    node = int(np.flatnonzero((panel.node_column == panel.end) & (panel.node_depth == depth))[0])
    names = [f"n{one}" for one in neurons.neuron[neurons.node == node]]
    assert len(names) == 5
    assert [card.index(name) for name in names] == sorted(card.index(name) for name in names)
    page.keyboard.press("Escape")
    assert "Click a node" in page.locator("#card").inner_text()


def test_the_keyboard_reaches_every_node_and_comes_back(page: Page) -> None:
    show(page, "1")
    page.evaluate("panels[0].marks.get(placeKey(graphs[1].end)).focus()")
    where = "() => document.activeElement.dataset.node"
    start = page.evaluate(where)
    page.keyboard.press("ArrowDown")
    assert page.evaluate(where) != start
    page.keyboard.press("ArrowUp")
    assert page.evaluate(where) == start
    page.keyboard.press("ArrowLeft")
    left = page.evaluate(where)
    assert int(left.split(":")[0]) < int(start.split(":")[0])
    page.keyboard.press("Enter")
    assert page.locator(".node.picked").get_attribute("data-node") == left
    page.keyboard.press("Escape")
    assert page.locator(".node.picked").count() == 0
    assert page.evaluate(where) == left
    reached = page.evaluate(REACHED)
    assert reached[0] == reached[1]


def test_a_difference_names_what_one_prompt_has_and_how_large_it_may_be_in_the_other(page: Page, view: Routes) -> None:
    show(page, "2")
    panel = view.panels[2]
    assert panel.sides is not None
    one_only = np.flatnonzero((panel.edge_kind == 0) & np.isnan(panel.weight))
    assert len(one_only) == page.locator("#panels path.edge.only").count()
    told = page.evaluate(TOLD)
    heads = np.flatnonzero(panel.edge_kind == 0)
    for place, words in zip(heads, told, strict=True):
        a, b, most = (float(one[place]) for one in (panel.sides.a, panel.sides.b, panel.sides.most))
        if np.isnan(panel.weight[place]):
            assert ("recorded in" in words and "only" in words) == np.isfinite(most)
            assert percent(b if np.isnan(a) else a) in words
            assert ("no equal token" if np.isnan(most) else f"at most {percent(most)}") in words
        else:
            assert percent(b - a) in words
    assert page.locator("#panels .gap").count() >= 2
    labels = page.locator("#panels text.token").all_text_contents()
    assert "·on | ·hut" in labels
    assert any("</scri" in label for label in labels)


def test_the_page_fits_every_window_in_both_themes(file: Path, open_page: Callable[..., Page]) -> None:
    for width, height, dark in ((390, 844, True), (1920, 1080, False)):
        page = open_page(file, width=width, height=height, dark=dark)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") != dark
        assert page.locator("#panels svg").first.is_visible()
        page.get_by_role("button", name="Light" if dark else "Dark", exact=True).click()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != paper


def test_without_scripts_the_picture_stands_there(file: Path, browser: Browser) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(file.as_uri())
    image = page.locator("img.still")
    assert image.is_visible()
    size: Any = image.bounding_box()
    assert size["width"] > 300
    assert not page.locator("form").is_visible()
    page.close()


@pytest.mark.parametrize("tokens", [2, 1500])
def test_any_length_of_a_prompt_is_drawn_with_what_no_edge_reaches_folded(
    tokens: int, tmp_path: Path, open_page: Callable[..., Page]
) -> None:
    stratoscope.routes(large_trace(tokens, 2), tmp_path / "page.html", edges=30)
    page = open_page(tmp_path / "page.html")
    folded = page.evaluate(RUNS)
    assert sum(folded) == tokens
    assert len(folded) <= min(tokens, 70)
    assert page.locator("text.token").count() >= 1
