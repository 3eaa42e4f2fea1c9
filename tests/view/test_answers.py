"""Generated tokens in pictures: told apart from the prompt, and chosen alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from sheets import outside, overlapping
from view_traces import make_trace

from drawn_maps import maps_of, sheet_of
from stratoscope import names, peaks3d
from stratoscope.view.choose.selection import Selection
from stratoscope.view.maps.engagement import QUANTITIES, engagement_spec
from stratoscope.view.maps.heatmap import heatmap_spec
from stratoscope.view.sheet.items import Box
from stratoscope.view.spec import palette

GENERATED = names.SPANS.index("generated")


def answered(lengths: tuple[int, ...] = (12, 12), answer: int = 4, **options: object) -> xr.Dataset:
    """A trace whose prompts end with an answer of so many tokens."""
    trace = make_trace(lengths=lengths, **options)  # type: ignore[arg-type]
    ends = np.cumsum(lengths)[trace.prompt.values]
    span = np.where(np.arange(len(ends)) >= ends - answer, GENERATED, trace.span.values).astype(np.int8)
    return trace.assign_coords(span=("token", span))


@pytest.mark.parametrize("lengths", [(12, 12), (56, 48), (5000,)])
def test_the_answer_begins_behind_a_line_and_is_named(lengths: tuple[int, ...]) -> None:
    answer = min(lengths) // 3
    spec = heatmap_spec(answered(lengths, answer))
    for panel, length in zip(maps_of(spec).panels, lengths, strict=True):
        assert panel.answers == ((length - answer) // panel.tokens_per_column,)
    sheet = sheet_of(spec)
    named = [text for text in sheet.texts() if text.text == "answer"]
    assert len(named) == len(lengths)
    for one, text, length in zip(sheet.maps(), named, lengths, strict=True):
        begins, middle = one.x + one.width * (1 - answer / length), sum(text.extent()[::2]) / 2
        assert text.y > one.y + one.height
        assert middle == pytest.approx((begins + one.x + one.width) / 2, abs=0.05)
        brackets = [item for item in sheet.items if isinstance(item, Box) and item.y > one.y + one.height]
        assert any(abs(item.x - begins) < 0.04 and item.width > 0.3 for item in brackets)
    assert not outside(sheet)
    assert not overlapping(sheet)
    lines = [
        item
        for item in sheet.items
        if isinstance(item, Box) and item.fill == palette.theme("light").paper and item.width == pytest.approx(0.024)
    ]
    assert len(lines) == (0 if max(lengths) == 5000 else len(lengths))


def test_answers_of_prompts_drawn_end_to_end_stand_between_their_names() -> None:
    (panel,) = maps_of(heatmap_spec(answered((12, 9)), Selection(all_prompts=True))).panels
    assert panel.starts == ((0, "p0"), (12, "p1"))
    assert panel.answers == (8, 17)


def test_without_an_answer_there_is_no_line() -> None:
    assert all(not panel.answers for panel in maps_of(heatmap_spec(make_trace())).panels)


def test_the_answer_alone_has_no_line_before_it() -> None:
    spec = heatmap_spec(answered(), Selection(span="generated"))
    assert [(panel.tokens, panel.answers) for panel in maps_of(spec).panels] == [(4, ()), (4, ())]


def test_the_answer_is_named_once_under_the_quantities_of_a_prompt() -> None:
    sheet = sheet_of(engagement_spec(answered((40, 40), 8, quantities=QUANTITIES)))
    assert [text.text for text in sheet.texts() if text.text == "answer"] == ["answer"] * 2


def test_peaks_of_the_answer_alone_can_be_drawn(tmp_path: Path) -> None:
    trace = answered(quantities=("peak_neuron", "peak_value", "peak_write"))
    peaks3d(trace, tmp_path / "p.html", span="generated")
    assert (tmp_path / "p.html").stat().st_size > 10_000
