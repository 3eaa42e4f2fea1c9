"""The picture of routes: what stands on it, at every length and depth, and that it says how much is not on it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from sheets import outside, overlapping, words

import stratoscope
from route_traces import large_trace, route_trace
from stratoscope.errors import StratoscopeError
from stratoscope.view.routes.chosen import routed
from stratoscope.view.sheet.items import Box, Dot, Line, Sheet
from stratoscope.view.sheet.route_layout import arrange_routes
from stratoscope.view.spec.look import Look
from stratoscope.view.spec.page import Page
from stratoscope.view.spec.routes import RoutePanel, Routes
from stratoscope.view.spec.viewspec import ViewSpec
from stratoscope.words import percent


def laid_out(trace: xr.Dataset, page: Page | None = None, **asked: Any) -> tuple[ViewSpec, Routes, Sheet]:
    spec = routed(trace, **asked).spec(Look(theme="dark"))
    assert isinstance(spec.content, Routes)
    return spec, spec.content, arrange_routes(spec, spec.content, page or Page())


def only(content: Routes) -> RoutePanel:
    (panel,) = content.panels
    return panel


@pytest.mark.parametrize(("tokens", "layers"), [(1, 1), (3, 6), (45, 30), (64, 80), (300, 12), (3000, 8)])
@pytest.mark.parametrize("width", [None, 3.35])
def test_nothing_is_cut_and_no_word_lies_on_another(tokens: int, layers: int, width: float | None) -> None:
    spec, content, sheet = laid_out(large_trace(tokens, layers), Page(width=width), edges=60)
    assert outside(sheet) == []
    assert overlapping(sheet) == []
    panel = only(content)
    assert percent(panel.covered) in spec.title
    assert percent(panel.rest) in spec.title
    assert f"rest ({percent(panel.rest)})" in words(sheet)
    for label in ("D0", f"D{layers}", str(spec.tokens.text[panel.end])):
        assert label in words(sheet).split(" ")


def test_a_long_prompt_has_columns_for_the_end_and_all_tokens_that_are_reached_and_counts_the_others() -> None:
    spec, content, sheet = laid_out(large_trace(3000, 6), edges=20, token=1500)
    panel = only(content)
    shown = spec.tokens.position
    assert shown[panel.end] == 1500
    drawn = panel.edge_kind == 0
    assert drawn.sum() == 20
    assert (panel.from_column[drawn] >= 0).all()
    assert len(shown) < 30
    assert panel.left_out.sum() + len(shown) == 3000
    assert f"⋯{panel.left_out[-1]:,}" in words(sheet)
    assert f"{len(shown)} of 3,000 tokens" in words(sheet)


def test_a_short_prompt_keeps_all_its_tokens() -> None:
    spec, content, _ = laid_out(route_trace(12, layers=2), edges=1)
    assert spec.tokens.position.tolist() == list(range(12))
    assert not only(content).left_out.any()


def test_an_edge_is_as_wide_as_its_weight_is_large_and_in_the_colour_of_its_sign() -> None:
    spec, content, sheet = laid_out(route_trace(14, layers=5, seed=2), edges=150)
    panel, theme = only(content), spec.colours.themes["dark"]
    lines = [item for item in sheet.items if isinstance(item, Line) and len(item.points) == 4]
    heads = panel.edge_kind == 0
    weights = panel.weight[heads][np.argsort(panel.flow[heads], kind="stable")]
    assert len(lines) == len(weights)
    assert {line.colour for line in lines} == {theme.side_a, theme.side_b}
    adds = sum(line.colour == theme.side_a for line in lines)
    assert adds == (weights > 0).sum()
    widest = max(lines, key=lambda line: line.width)
    assert widest.width == pytest.approx(5.0)
    assert sorted(round(line.width, 6) for line in lines) == sorted(
        round(max(0.45, 5 * abs(float(one)) / content.widest), 6) for one in weights
    )


def test_the_strongest_edges_are_named_each_head_once_for_a_node() -> None:
    _, content, sheet = laid_out(route_trace(14, layers=5, seed=2), edges=80)
    named = re.findall(r"L\d+ h\d+", words(sheet))
    panel = only(content)
    heads = panel.edge_kind == 0
    best = int(np.flatnonzero(heads)[panel.flow[heads].argmax()])
    assert f"L{panel.from_depth[best]} h{panel.head[best]}" in named
    assert 3 <= len(named) <= 14


@pytest.mark.parametrize("width", [None, 3.35])
def test_no_name_of_a_head_lies_on_a_node_and_a_narrow_picture_is_not_a_tower(width: float | None) -> None:
    _, _, sheet = laid_out(large_trace(14, 30), Page(width=width), edges=50)
    nodes = [item for item in sheet.items if isinstance(item, Dot) and not item.square]
    for text in (one for one in sheet.texts() if re.fullmatch(r"L\d+ h\d+", one.text)):
        left, top, right, bottom = text.extent()
        assert not any(left < dot.x < right and top < dot.y < bottom for dot in nodes), text.text
    if width is not None:
        assert sheet.height < 2.3 * width


def test_what_is_in_view_falls_from_all_of_it_to_what_is_covered() -> None:
    _, content, _ = laid_out(route_trace(14, layers=5, seed=2), edges=30)
    panel = only(content)
    assert panel.in_view[-1] == 1.0
    assert (np.diff(panel.in_view) >= -1e-12).all()
    assert panel.in_view[0] == pytest.approx(panel.covered)
    assert (panel.there == 1.0).all()


def test_a_picture_of_a_published_trace_says_what_that_promises() -> None:
    said = {"level": "no-text", "promise": "Not readable by eye."}
    sheet = laid_out(route_trace(5).assign_attrs(published=said))[2]
    assert "Published at the level no-text: Not readable by eye." in words(sheet)


def test_the_end_of_the_ways_is_marked() -> None:
    spec, _, sheet = laid_out(route_trace(9, layers=3))
    accent = spec.colours.themes["dark"].accent
    dots = [item for item in sheet.items if isinstance(item, Dot) and item.colour == accent]
    assert len(dots) == 2  # in the legend and at the end


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_it_is_written_in_either_theme_and_says_nothing_of_the_machine(tmp_path: Path, ending: str) -> None:
    trace = route_trace(6, layers=2)
    out = tmp_path / f"routes.{ending}"
    figure = stratoscope.routes(trace, out, theme="dark", edges=5)
    assert str(tmp_path).encode() not in out.read_bytes()
    assert figure.get_facecolor()[:3] != (1.0, 1.0, 1.0)
    with pytest.raises(StratoscopeError, match="already exists"):
        stratoscope.routes(trace, out, edges=5)


def test_towards_a_target_it_says_what_is_compared_and_that_nothing_was_calibrated() -> None:
    trace = route_trace(8, layers=3, targets=2, plan={"targets": [{"text": "Sorry"}, {"text": " yes"}]})
    spec, content, sheet = laid_out(trace, target=" yes", edges=12)
    assert "“·yes”" in spec.title
    assert "not calibrated" in spec.title
    assert content.weight.name == "route_effect"
    assert "to the logit" in words(sheet)
    panel = only(content)
    assert panel.in_view.sum() == pytest.approx(panel.covered)
    assert panel.there.sum() == pytest.approx(1.0)
    assert np.isnan(panel.flow[panel.edge_kind == 1]).all()
    assert any(note.id == "L28" and "not calibrated" in note.text for note in spec.notes)


# --- two prompts ------------------------------------------------------------------------------------------------------


def two(lengths: tuple[int, int], replaced: dict[int, str] | None = None) -> xr.Dataset:
    """Two prompts; some tokens of the second have other texts."""
    trace = route_trace(*lengths, layers=3, heads=2, seed=2)
    for position, text in (replaced or {}).items():
        trace["text"].values[lengths[0] + position] = text
    return trace


@pytest.mark.parametrize("difference", [False, True])
@pytest.mark.parametrize("lengths", [(3, 3), (8, 11), (90, 80)])
def test_two_prompts_stand_in_one_set_of_columns_on_one_scale(lengths: tuple[int, int], difference: bool) -> None:
    spec, content, sheet = laid_out(two(lengths, {1: " hut"}), prompt=[0, 1], edges=30, difference=difference)
    assert overlapping(sheet) == []
    assert outside(sheet) == []
    assert len(content.panels) == 2 + difference
    a, b = content.panels[:2]
    assert (a.left_out == b.left_out).all()
    for panel, other in ((a, b), (b, a)):
        for column in range(panel.columns):
            text = spec.tokens.text[panel.start + column], spec.tokens.text[other.start + column]
            assert bool(panel.unmatched[column]) == (text[0] != text[1])
    sizes = [np.abs(panel.weight[panel.edge_kind == 0]).max() for panel in (a, b)]
    assert content.widest == max(sizes)
    assert sum(isinstance(item, Box) and item.hatched for item in sheet.items) > 1


def test_two_prompts_fit_a_narrow_page() -> None:
    page = Page(width=3.35)
    spec = routed(two((40, 44), {1: " hut"}), prompt=[0, 1], edges=12).spec(page=page)
    assert isinstance(spec.content, Routes)
    sheet = arrange_routes(spec, spec.content, page)
    assert outside(sheet) == []
    assert overlapping(sheet) == []
    assert spec.content.panels[0].columns < 40


def test_a_difference_is_dashed_where_only_one_prompt_has_the_edge_and_never_drawn_as_its_weight_from_zero() -> None:
    _, content, sheet = laid_out(two((9, 9), {4: " hut"}), prompt=[0, 1], edges=40, difference=True)
    panel = content.panels[2]
    assert panel.sides is not None
    heads = panel.edge_kind == 0
    one_only = heads & np.isnan(panel.weight)
    assert 0 < one_only.sum() < heads.sum()
    assert (np.isnan(panel.sides.a[one_only]) ^ np.isnan(panel.sides.b[one_only])).all()
    curves = [item for item in sheet.items if isinstance(item, Line) and len(item.points) == 4]
    assert sum(item.dashed for item in curves) == one_only.sum()
    assert panel.covered is None
    assert "rest (not known)" not in words(sheet)


def test_an_edge_without_a_counterpart_is_not_said_to_be_recorded_in_one_prompt_only() -> None:
    spec, content, sheet = laid_out(two((9, 9), {4: " hut"}), prompt=[0, 1], edges=40, difference=True)
    panel = content.panels[2]
    assert panel.sides is not None
    heads = panel.edge_kind == 0
    at_hatched = (panel.unmatched[panel.to_column] | panel.unmatched[panel.from_column]).astype(bool)
    apart = heads & at_hatched
    only_a, only_b = (int((heads & ~at_hatched & np.isnan(one)).sum()) for one in (panel.sides.b, panel.sides.a))
    assert apart.sum() > 0
    counts = f"{only_a} only in p0, {only_b} only in p1, {apart.sum()} at tokens without an equal one"
    assert panel.detail.endswith(counts)
    assert counts in words(sheet)  # whole, not cut
    assert any("hatched tokens have no counterpart" in note.text for note in spec.notes)
    assert any("no larger than" in note.text for note in spec.notes) == np.isfinite(panel.sides.most).any()


def test_the_way_of_the_second_prompt_ends_beside_that_of_the_first() -> None:
    trace = two((9, 11))
    trace["text"].values[9:] = ["<s>", " now", ",", *trace["text"].values[1:9]]
    content = laid_out(trace, prompt=[0, 1], edges=10, token=6)[1]
    assert [panel.end for panel in content.panels] == [8, 8]
    with pytest.raises(StratoscopeError, match="no token of p0 stands beside token 1 of p1"):
        routed(trace, prompt=[1, 0], edges=10, token=1)


@pytest.mark.parametrize(("asked", "why"), [
    ({"prompt": [0, 1, 1]}, "at most two"),
    ({"prompt": [1, 1]}, "differs from itself"),
    ({"prompt": 0, "difference": True}, "of two prompts"),
])  # fmt: skip
def test_what_is_no_pair_is_refused(asked: dict[str, Any], why: str) -> None:
    with pytest.raises(StratoscopeError, match=why):
        routed(two((3, 3)), edges=10, **asked)


def test_a_graph_of_other_viewers_is_of_one_prompt(tmp_path: Path) -> None:
    with pytest.raises(StratoscopeError, match="of one prompt"):
        stratoscope.routes(two((3, 3)), tmp_path / "both.json", prompt=[0, 1], edges=10)
    assert not (tmp_path / "both.json").exists()


@pytest.mark.parametrize(("lengths", "beside"), [((9, 8), True), ((60, 58), False)])
def test_two_prompts_stand_side_by_side_where_their_tokens_have_room(lengths: tuple[int, int], beside: bool) -> None:
    _, content, sheet = laid_out(route_trace(*lengths, layers=3, heads=1), prompt=[0, 1], edges=20)
    assert outside(sheet) == []
    assert overlapping(sheet) == []
    highest = [text for text in sheet.texts() if text.text == "D3"]
    assert len(highest) == len(content.panels) == 2
    assert (highest[0].y == highest[1].y, highest[0].x == highest[1].x) == (beside, not beside)
