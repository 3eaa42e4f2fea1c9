"""Engagement: five quantities, each on its own scale, and honest about what the input does not hold."""

from __future__ import annotations

import numpy as np
import pytest
from sheets import outside, overlapping, words
from view_traces import Factory

from drawn_maps import high, maps_of, sheet_of
from stratoscope.errors import InputError
from stratoscope.view.choose.selection import Selection
from stratoscope.view.maps.engagement import QUANTITIES, engagement, engagement_spec
from stratoscope.view.sheet.items import Box


@pytest.mark.parametrize("length", [1, 13, 24, 56, 200])
@pytest.mark.parametrize("prompts", [1, 2])
def test_all_five_quantities_are_there_for_every_prompt(trace_of: Factory, length: int, prompts: int) -> None:
    spec = engagement_spec(trace_of(lengths=(length,) * prompts, layers=30, quantities=QUANTITIES))
    sheet = sheet_of(spec)
    assert outside(sheet) == []
    assert overlapping(sheet) == []
    assert {maps_of(spec).maps[one.index].quantity for one in sheet.maps()} == set(range(5))
    assert {maps_of(spec).maps[one.index].panel for one in sheet.maps()} == set(range(prompts))


@pytest.mark.parametrize("lengths", [(3, 3), (13, 9), (45, 45), (120, 100), (3000, 1500)])
def test_a_token_stands_in_one_column_in_all_strips_and_in_both_prompts(
    trace_of: Factory, lengths: tuple[int, int]
) -> None:
    """The n-th token of a line of one prompt is where the n-th of the other is, or beside it at the same distance."""
    spec = engagement_spec(trace_of(lengths=lengths, layers=30, quantities=QUANTITIES))
    maps = sheet_of(spec).maps()
    assert len({(one.width / (one.stop - one.start)).__round__(9) for one in maps}) == 1
    lefts: dict[tuple[int, int], set[float]] = {}
    for one in maps:
        lefts.setdefault((maps_of(spec).maps[one.index].panel, one.start), set()).add(one.x)
    assert all(len(places) == 1 for places in lefts.values())
    if {start for _, start in lefts} != {0}:  # wrapped: at the same tokens, under each other
        assert len({start for place, start in lefts if place == 0} ^ {start for place, start in lefts if place}) <= 1
        assert len(set.union(*lefts.values())) == 1


@pytest.mark.parametrize("layers", [12, 24, 32, 80])
def test_a_pair_fits_a_slide_with_strips_that_can_be_read_and_names_at_their_left(
    trace_of: Factory, layers: int
) -> None:
    spec = engagement_spec(trace_of(lengths=(45, 40), layers=layers, quantities=QUANTITIES))
    sheet = sheet_of(spec)
    assert sheet.width <= 12.75 + 2 * 0.34 + 1e-9
    assert sheet.width / sheet.height > 1.4
    assert min(one.height for one in sheet.maps()) >= 1.6 / 2.54
    for quantity in maps_of(spec).quantities:
        name = quantity.quantity.label[1:20]
        (text,) = [text for text in sheet.texts() if name in text.text and text.bold]
        mine = [
            one for one in sheet.maps() if maps_of(spec).quantities[maps_of(spec).maps[one.index].quantity] is quantity
        ]
        assert text.extent()[2] < min(one.x for one in mine)
        assert abs(text.y - mine[0].y) < 0.1


def test_three_tokens_fill_their_page(trace_of: Factory) -> None:
    sheet = sheet_of(engagement_spec(trace_of(lengths=(3,), layers=30, quantities=QUANTITIES)))
    assert max(one.x + one.width for one in sheet.maps()) > 0.8 * sheet.width


def test_each_quantity_has_its_own_scale_and_both_prompts_share_it(trace_of: Factory) -> None:
    axes = engagement(trace_of(quantities=QUANTITIES)).axes
    limits = [(one.images[0].norm.vmin, one.images[0].norm.vmax) for one in axes]
    assert len(set(limits)) == 5
    assert len(limits) == 10


def test_one_map_gives_a_figure_like_several(trace_of: Factory) -> None:
    assert len(engagement(trace_of(quantities=QUANTITIES[:1]), prompt=0).axes) == 1


def test_the_choice_of_heads_is_said_and_drawn(trace_of: Factory) -> None:
    dataset = trace_of(quantities=QUANTITIES)
    for head, said, expected in (
        ("mean", "mean over 3 heads", dataset["attn_first"].values.mean(axis=2)),
        ("max", "maximum over 3 heads", dataset["attn_first"].values.max(axis=2)),
        (1, "head 1 of 3", dataset["attn_first"].values[:, :, 1]),
    ):
        spec = engagement_spec(dataset, Selection(prompt=0), head=head)
        assert said in words(sheet_of(spec))
        np.testing.assert_allclose(maps_of(spec).maps[4].cells["without_first"], expected[:12], rtol=1e-6)
    with pytest.raises(InputError, match="0 to 2"):
        engagement(dataset, head=3)


def test_attention_that_rests_on_few_queries_is_hatched_and_left_out_of_the_limits(trace_of: Factory) -> None:
    dataset = trace_of(lengths=(12, 9), quantities=QUANTITIES, sink=1.0)
    received = dataset["attn_received_nosink"]
    received[np.r_[8:12, 17:21]] = 1e6
    received[[11, 20]] = np.nan  # no other query sees the last token
    spec = engagement_spec(dataset)
    thin = {one.panel: one.rarely_seen for one in maps_of(spec).maps if one.quantity == 2}
    assert thin == {0: (8, 9, 10), 1: (5, 6, 7)}
    assert high(spec, 2) < 1e3
    sheet = sheet_of(spec)
    assert sum(isinstance(item, Box) and item.hatched for item in sheet.items) == 6
    assert "fewer than 4 later tokens" in words(sheet)


def test_what_is_not_recorded_is_named_with_the_command_that_records_it(trace_of: Factory) -> None:
    spec = engagement_spec(trace_of(quantities=QUANTITIES[:2]))
    text = words(sheet_of(spec))
    assert "Not in this input: attention received" in text
    assert "stratoscope capture MODEL --prompts FILE --record norms,residual,peaks,prompts,attention -o TRACE" in text
    assert [one.quantity.name for one in maps_of(spec).quantities] == list(QUANTITIES[:2])


def test_a_complete_trace_has_no_empty_panel(trace_of: Factory) -> None:
    assert "Not in this input" not in words(sheet_of(engagement_spec(trace_of(quantities=QUANTITIES))))


def test_csv_files_show_their_means_and_the_way_to_the_rest(import_of: Factory) -> None:
    spec = engagement_spec(import_of())
    text = words(sheet_of(spec))
    assert [one.quantity.name for one in maps_of(spec).quantities] == ["imported_norm"]
    assert "Not in this input: MLP write / residual" in text
    assert "--record" in text


def test_long_prompts_are_pooled_and_say_so(trace_of: Factory) -> None:
    spec = engagement_spec(trace_of(lengths=(700,), layers=4, quantities=QUANTITIES))
    assert maps_of(spec).panels[0].tokens_per_column == 2
    assert "maximum over 2 of 700 tokens" in words(sheet_of(spec))
