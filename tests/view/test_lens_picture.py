"""Pictures of lenses: every word is whole or said to be left out, reads on its tint, and stands in its cell."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sheets import outside, overlapping, words

from lens_traces import PARTS, VOCABULARY, make_lens_trace
from stratoscope import names
from stratoscope.errors import StratoscopeError
from stratoscope.view.lens.lens import lens, lens_spec
from stratoscope.view.sheet import fonts
from stratoscope.view.sheet.cell_words import colour_steps, fitted
from stratoscope.view.sheet.footer import explained
from stratoscope.view.sheet.items import CellMap, Text
from stratoscope.view.sheet.lens import LensSheet, arrange_lens
from stratoscope.view.spec import palette
from stratoscope.view.spec.charts import Horizontal, Line
from stratoscope.view.spec.file import from_bytes, to_bytes
from stratoscope.view.spec.lens import Lens
from stratoscope.view.spec.look import Look
from stratoscope.view.spec.page import Page, page_of
from stratoscope.view.spec.viewspec import ViewSpec
from stratoscope.words import percent


def spec_of(trace: xr.Dataset, page: Page | None = None, theme: names.Theme = "light", **asked: Any) -> ViewSpec:
    return lens_spec(trace, Look(theme=theme), page=page or page_of(), **asked)[0]


def content_of(spec: ViewSpec) -> Lens:
    assert isinstance(spec.content, Lens)
    return spec.content


def arranged(spec: ViewSpec, page: Page | None = None) -> LensSheet:
    return arrange_lens(spec, content_of(spec), page or page_of())


def cells_of(sheet: LensSheet) -> CellMap:
    (cells,) = sheet.sheet.maps()
    return cells


def check(sheet: LensSheet) -> None:
    """Nothing is cut and nothing lies on anything else; charts neither."""
    assert outside(sheet.sheet) == []
    assert overlapping(sheet.sheet) == []
    cells = cells_of(sheet)
    for one in sheet.charts:
        assert one.x + one.width <= sheet.sheet.width
        assert one.x >= cells.x + cells.width or one.y >= cells.y + cells.height
    assert all(one.x + one.width < other.x for one, other in pairwise(sheet.charts))
    for cell in cells.cells:
        assert fonts.width(cell.text, cells.cell_size) <= cells.width / (cells.stop - cells.start)
        assert fonts.height(cells.cell_size) <= cells.height


words_of_tokens = st.text(st.characters(codec=None) | st.sampled_from("\udce4\u202e$ \n<س你🦄"), max_size=20)


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(1, 60), st.integers(1, 90), st.sampled_from([None, 1, 4]), st.sampled_from([1, 2, 4]),
    st.integers(0, 3), st.lists(words_of_tokens, min_size=6, max_size=9), st.sampled_from([None, "85mm", "180mm"]),
    st.sampled_from([None, 1, 30, 60]),
)  # fmt: skip
def test_nothing_is_cut_or_overlaps_whatever_the_tokens(
    tokens: int, layers: int, recorded: int | None, lenses: int, targets: int, texts: list[str], width: str | None,
    columns: int | None,
) -> None:  # fmt: skip
    trace = make_lens_trace(
        lengths=(tokens,), layers=layers, recorded=recorded, lenses=PARTS[:lenses], targets=targets, vocabulary=texts
    )
    page = page_of(width)
    spec = spec_of(trace, page, most_tokens=columns)
    check(arranged(spec, page))
    assert to_bytes(from_bytes(to_bytes(spec))) == to_bytes(spec)


def test_ink_reads_on_every_tint_and_on_the_lines_of_hatching() -> None:
    for tint in map(palette.rgb_of, palette.COLOURS.sequential):
        ink, lines = palette.rgb_of(palette.ink_on(tint)), palette.rgb_of(palette.lines_on(tint))
        assert palette.contrast(tint, ink) >= 4.5
        assert palette.contrast(lines, ink) >= 4.5
        assert palette.contrast(lines, tint) > 1.12  # they can be seen


def test_words_have_the_ink_of_their_cell() -> None:
    spec = spec_of(make_lens_trace(lengths=(6,), layers=8, recorded=None))
    steps = colour_steps(spec, content_of(spec))
    for cell in cells_of(arranged(spec)).cells:
        tint = palette.rgb_of(spec.colours.sequential[steps[cell.column, int(cell.row)]])
        assert cell.colour == palette.ink_on(tint)


def test_every_cell_has_its_word_where_there_is_room() -> None:
    trace = make_lens_trace(lengths=(12,), layers=80, recorded=8, vocabulary=[" Paris", "\n", "\udce4", " a", "é", " "])
    spec = spec_of(trace)
    cells = cells_of(arranged(spec)).cells
    content = content_of(spec)
    assert len(cells) == content.likeliest.size
    for cell in cells:
        assert cell.text == fonts.drawn_label(content.texts[content.likeliest[cell.column, int(cell.row)]])


def test_where_rows_are_too_low_a_word_stands_for_a_run_of_its_token_and_that_is_said() -> None:
    spec = spec_of(make_lens_trace(lengths=(3,), layers=200, vocabulary=list("abcdef")))
    sheet, content = arranged(spec), content_of(spec)
    cells = cells_of(sheet).cells
    assert 0 < len(cells) < content.likeliest.size
    assert f"{len(cells)} stand once for a run of rows" in words(sheet.sheet)
    for cell in cells:
        covered = content.likeliest[cell.column, int(np.floor(cell.row)) : int(np.ceil(cell.row)) + 1]
        assert {content.texts[token] for token in covered} == {cell.text}


def test_narrow_columns_say_that_words_are_left_out() -> None:
    spec = spec_of(make_lens_trace(lengths=(300,), layers=4, recorded=None), most_tokens=300)
    sheet = arranged(spec)
    assert cells_of(sheet).cells == ()
    assert "Columns are too narrow for words." in words(sheet.sheet)


@pytest.mark.parametrize(
    ("label", "room", "shown"),
    [
        ("·internationalization", 0.4, "·int…tion"),
        ("⟨E4⟩⟨B8⟩⟨AD⟩⟨E4⟩", 0.3, "⟨E4⟩…"),
        ("·Paris", 0.05, ""),
        (".", 0.05, "."),
    ],
)
def test_a_word_that_is_too_long_keeps_its_ends_or_is_left_out(label: str, room: float, shown: str) -> None:
    assert fitted(label, 6.0, room) == shown
    assert fonts.width(shown, 6.0) <= room


def test_the_window_lies_around_the_token_and_what_is_left_out_is_said() -> None:
    trace = make_lens_trace(lengths=(3_000,), layers=2, recorded=None)
    spec = spec_of(trace, token=1_500)
    position = spec.tokens.position.tolist()
    assert position == list(range(position[0], position[0] + len(position)))
    assert position[content_of(spec).chosen] == 1_500
    assert (
        spec.selected.of_trace
        == f"{len(position)} of the 3,000 tokens at which lenses were read: {position[0]}-{position[-1]}"
    )
    assert spec_of(trace).tokens.position.tolist()[-1] == 2_999
    assert spec_of(trace, token=0).tokens.position.tolist()[0] == 0


def test_a_span_alone_is_shown_and_named() -> None:
    spec = spec_of(make_lens_trace(lengths=(24,), recorded=None), span="user")
    assert set(spec.tokens.span.tolist()) == {names.SPANS.index("user")}
    assert "(span user)" in spec.selected.of_trace


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"token": 1}, "no lens was read at token 1 — or token: .*"),
        ({"token": 99}, "no position 99"),
        ({"prompt": "nobody"}, "nobody"),
        ({"in_cells": "tuned"}, "tuned"),
        ({"target": "Nobody"}, "Nobody"),
        ({"most_tokens": 0}, "0 columns"),
        ({"span": "generated"}, "no lens was read in the span generated"),
    ],
)
def test_what_is_not_there_is_refused_with_what_there_is(asked: dict[str, Any], message: str) -> None:
    trace = make_lens_trace(lengths=(8,), recorded=4, targets=1)
    with pytest.raises(StratoscopeError, match=message.split(" — ")[0]) as caught:
        lens_spec(trace, **asked)
    if asked == {"token": 1}:
        assert "They were read at 4-7" in str(caught.value)
        assert "--positions all" in str(caught.value)


def test_the_fitted_lens_is_drawn_and_the_other_stands_beside_it() -> None:
    trace = make_lens_trace(lenses=PARTS, recorded=2)
    for kind, place in ((None, 1), ("jacobian", 1), ("logit", 0)):
        content = content_of(spec_of(trace, in_cells=kind))
        drawn = trace["lens_logprob"].values[-2:, :, place, 0]
        np.testing.assert_allclose(content.maps.maps[0].cells["with_first"], np.exp(drawn), rtol=1e-6)
        solid, dashed = (
            [one for one in content.charts[0].marks if isinstance(one, Line) and one.dashed == dash]
            for dash in (False, True)
        )
        np.testing.assert_allclose(solid[0].x, trace["lens_answer_logprob"].values[-1, :, place], rtol=1e-6)
        np.testing.assert_allclose(dashed[0].x, trace["lens_answer_logprob"].values[-1, :, 1 - place], rtol=1e-6)


def test_marks_stand_where_the_answer_first_leads_and_from_where_it_stays() -> None:
    trace = make_lens_trace(layers=4, recorded=1)
    trace["lens_answer_rank"].values[-1, :, 0] = (9, 1, 3, 1, 1)
    content = content_of(spec_of(trace))
    assert (content.first.tolist(), content.stays.tolist()) == ([1], [3])
    lines = {one.label: one.y for one in content.charts[0].marks if isinstance(one, Horizontal)}
    assert lines == {"first leads at D1": 0.5, "leads from D3 to the end": 2.5}


@pytest.mark.parametrize(("ranks", "said"), [((9, 8, 3, 2, 1), "leads"), ((9, 1, 3, 2, 1), "then again")])
def test_an_answer_that_leads_at_the_last_depth_alone_is_not_said_to_lead(ranks: tuple[int, ...], said: str) -> None:
    trace = make_lens_trace(layers=4, recorded=1, lenses=PARTS)
    trace["lens_answer_rank"].values[-1, :, 1] = ranks
    spec, found = lens_spec(trace)
    lines = [one.label for one in content_of(spec).charts[0].marks if isinstance(one, Horizontal)]
    assert lines[-1] == f"{said} only in the model's own output"
    assert not any("gives it rank" in sentence for sentence in found.sentences())


def test_colours_of_probabilities_have_nothing_below_or_above() -> None:
    spec = spec_of(make_lens_trace())
    said = [item.text for item in arrange_lens(spec, content_of(spec)).sheet.items if isinstance(item, Text)]
    assert "0" in said
    assert not any("% below" in text or "% above" in text for text in said)


def test_a_token_of_nothing_but_spaces_is_seen_in_its_cell() -> None:
    content = content_of(spec_of(make_lens_trace(vocabulary=(" ", ".", " a", "   "))))
    assert {*content.texts} <= {"␣", ".", "·a", "␣×3", "␣␣␣"}
    assert "·" not in content.texts


def test_hatching_is_where_parts_differ_and_the_share_is_in_the_caption() -> None:
    trace = make_lens_trace(layers=4, recorded=2, lenses=PARTS, changing=0.0)
    trace["lens_token"].values[-1, 2, 3, 0] = len(VOCABULARY)
    spec = spec_of(trace)
    changing = content_of(spec).changing.tolist()
    assert [1, 2] in changing
    said = explained(spec)
    share = 1 - len(changing) / 8
    assert f"instead of on all its texts, it reads the same token in {percent(share)} of the 8 cells shown" in said
    assert "Steps from depth to depth are no contributions" in said
    assert content_of(spec_of(trace, in_cells="logit")).changing.size == 0


def test_depths_that_a_lens_was_not_fitted_for_are_hatched_grey_and_have_no_words() -> None:
    spec = spec_of(make_lens_trace(layers=4, recorded=2, lenses=PARTS, fitted_from=2))
    content = content_of(spec)
    assert np.isnan(content.maps.maps[0].cells["with_first"][:, :2]).all()
    assert (content.likeliest[:, :2] == -1).all()
    assert "Grey hatching: the lens was not fitted for this depth" in explained(spec)


def test_a_figure_has_the_cells_and_then_its_charts(tmp_path: Path) -> None:
    trace = make_lens_trace(lenses=PARTS, targets=1)
    figure = lens(trace, tmp_path / "lens.svg", theme="dark")
    written = (tmp_path / "lens.svg").read_text("utf-8")
    assert written.count("·capital") > 1
    assert [axes.get_xlabel() for axes in figure.axes[1:]] == [
        "log-probability (nat)", "rank (1 = likeliest)", "logit − mean of the vocabulary",
    ]  # fmt: skip
    low, high = figure.axes[0].get_ylim()
    assert all(axes.get_ylim() == (low, high) for axes in figure.axes[1:])  # a depth is at one height in all


def test_given_axes_hold_the_cells_or_also_the_charts() -> None:
    trace = make_lens_trace()
    figure, axes = plt.subplots(1, 3)
    try:
        assert lens(trace, ax=axes) is figure
        assert axes[1].get_xlabel() == "log-probability (nat)"
        assert len(axes[0].texts) > 0
        lens(trace, ax=axes[0])
        with pytest.raises(StratoscopeError, match="there are 2 axes"):
            lens(trace, ax=axes[:2])
    finally:
        plt.close(figure)
