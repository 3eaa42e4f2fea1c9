"""A row of another scale altogether is marked where its median cell lies beyond the limits, and no other row is."""

from __future__ import annotations

import numpy as np
import pytest
from sheets import outside, overlapping, said
from view_traces import make_trace

from drawn_maps import high, low, maps_of, marks, sheet_of
from stratoscope.trace.arrays import AnyFloats
from stratoscope.view.maps.engagement import engagement_spec
from stratoscope.view.maps.heatmap import heatmap_spec
from stratoscope.view.sheet.items import Box
from stratoscope.view.spec import palette
from stratoscope.view.spec.look import Look
from stratoscope.view.spec.viewspec import ViewSpec


def spec_of(
    factors: dict[int, float], *, tokens: int = 24, quantity: str = "mlp_out_norm", look: Look | None = None
) -> ViewSpec:
    """A picture of 20 layers of like values, some of them multiplied."""
    values = np.random.default_rng(0).uniform(0.04, 0.08, (tokens, 20)).astype("float32")
    if quantity == "mlp_write_cos":
        values[::2] *= -1
    for row, factor in factors.items():
        values[:, row] *= factor
    values[0] = 1
    trace = make_trace(lengths=(tokens,), layers=20, quantities=(quantity,))
    return heatmap_spec(trace.assign({quantity: (("token", "layer"), values)}), look=look or Look())


def medians(spec: ViewSpec) -> AnyFloats:
    """Of each row, without first tokens."""
    (one,) = maps_of(spec).maps
    return np.median(one.cells["without_first"][1:], axis=0)


@pytest.mark.parametrize("tokens", [24, 4_000])
def test_a_row_far_above_and_one_far_below_say_how_far(tokens: int) -> None:
    spec = spec_of({19: 25, 0: 1 / 40}, tokens=tokens)
    above, below = medians(spec)[19] / high(spec), low(spec) / medians(spec)[0]
    (first, down), (last, up) = marks(spec).row_badges
    assert (first, last) == (0, 19)
    assert up == f"×{above:.0f}"
    assert down == f"÷{below:.0f}"
    assert "rows whose median cell lies beyond a limit (×n the upper, ÷n the lower)" in said(spec)


def test_a_row_is_marked_exactly_where_its_median_lies_beyond() -> None:
    spec = spec_of({0: 0.3, 1: 0.9, 18: 1.3, 19: 3})
    beyond = np.flatnonzero((medians(spec) > high(spec)) | (medians(spec) < low(spec)))
    assert 0 < len(beyond) < 6
    assert [row for row, _ in marks(spec).row_badges] == beyond.tolist()


def test_signed_rows_are_marked_by_their_size_though_their_median_is_about_zero() -> None:
    spec = spec_of({7: 12}, quantity="mlp_write_cos")
    assert [row for row, _ in marks(spec).row_badges] == [7]


@pytest.mark.parametrize("scale", ["linear", "log", "per-layer"])
def test_where_no_row_lies_beyond_none_is_marked_and_nothing_is_said(scale: str) -> None:
    for spec in (spec_of({19: 25}, look=Look(scale)), spec_of({})):  # type: ignore[arg-type]
        assert marks(spec).row_badges == ()
        assert "Bars at the right" not in said(spec)


def test_first_tokens_count_for_a_row_only_where_they_count_for_the_limits() -> None:
    values = np.full((3, 20), 2.0, "float32") + np.linspace(0, 0.1, 60, dtype="float32").reshape(3, 20)
    values[0, :2] = 500
    trace = make_trace(lengths=(3,), layers=20)
    trace = trace.isel(token=[0, 1]).assign(mlp_out_norm=(("token", "layer"), values[:2]))
    without, with_first = (heatmap_spec(trace, look=Look(first_token=first)) for first in (False, True))
    assert 0 not in dict(marks(without).row_badges) or dict(marks(without).row_badges)[0] == ""
    assert dict(marks(with_first).row_badges)[0].startswith("×")


def test_zero_has_no_ratio_and_is_still_marked() -> None:
    assert dict(marks(spec_of({3: 0.0})).row_badges)[3] == "↓"


@pytest.mark.parametrize("lengths", [(24,), (13, 9), (60, 50), (400,), (4_000,)])
def test_every_map_has_a_bar_at_the_end_of_the_row_and_its_words_beside_it(lengths: tuple[int, ...]) -> None:
    trace = make_trace(lengths=lengths, layers=30, quantities=("mlp_out_norm", "mlp_write_ratio"), sink=1.0)
    for name in ("mlp_out_norm", "mlp_write_ratio"):
        trace[name][:, [0, 29]] *= 1e4
    for spec in (heatmap_spec(trace), engagement_spec(trace)):
        sheet = sheet_of(spec)
        assert not outside(sheet)
        assert not overlapping(sheet)
        accent = palette.theme("light").accent
        bars = [item for item in sheet.items if isinstance(item, Box) and item.fill == accent]
        for one in sheet.maps():
            row, end = one.height / 30, one.x + one.width
            for place, words in marks(spec, one.index).row_badges:
                middle = one.y + one.height - (place + 0.5) * row
                assert any(abs(bar.y + bar.height / 2 - middle) < 1e-6 and 0 < bar.x - end < 0.03 for bar in bars)
                assert any(text.text == words and 0 < text.x - end < 0.1 for text in sheet.texts())
            assert {0, 29} <= dict(marks(spec, one.index).row_badges).keys()


def test_words_of_neighbouring_rows_move_apart_and_stay_at_their_map() -> None:
    sheet = sheet_of(spec_of(dict.fromkeys((0, 1), 30), tokens=300))
    for one in sheet.maps():
        words = [text for text in sheet.texts() if text.bold and 0 < text.x - one.x - one.width < 0.1]
        mine = [text for text in words if one.y - 0.05 < text.y < one.y + one.height + 0.05]
        assert len(mine) == 2
    assert not overlapping(sheet)


def test_a_row_that_hardly_lies_beyond_has_no_bar_without_words() -> None:
    for factor in np.linspace(1, 1.6, 25):
        assert all(words for _, words in marks(spec_of({7: float(factor)})).row_badges)


def test_a_map_of_zeros_has_no_rows_below_limits_that_are_made_up() -> None:
    assert marks(spec_of(dict.fromkeys(range(20), 0.0))).row_badges == ()
