"""A ViewSpec of maps is complete: every scale with first tokens and without, and what is known of every token shown."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from typing import get_args

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sheets import said
from view_traces import make_trace

from drawn_maps import colouring, maps_of, sheet_of
from stratoscope import names
from stratoscope.trace.arrays import AnyFloats
from stratoscope.view.choose.selection import EVERYTHING, Selection
from stratoscope.view.maps.engagement import QUANTITIES, engagement_spec
from stratoscope.view.maps.heatmap import heatmap_spec
from stratoscope.view.spec import pool, scale
from stratoscope.view.spec.look import FirstTokens, Look
from stratoscope.view.spec.tokens import ShownTokens
from stratoscope.view.spec.viewspec import ViewSpec
from stratoscope.words import readable

LOOKS = [Look(choice, first) for choice, first in product(names.SCALES, (False, True))]
few = settings(deadline=None, max_examples=4, suppress_health_check=[HealthCheck.too_slow])


def in_state(spec: ViewSpec, look: Look) -> ViewSpec:
    """What a page shows when a reader goes on to another state of the same ViewSpec."""
    return replace(spec, look=look)


def looks_of(spec: ViewSpec) -> list[Look]:
    return [look for look in LOOKS if all(look.scale in one.scales for one in maps_of(spec).quantities)]


@st.composite
def some_traces(draw: st.DrawFn, quantities: tuple[str, ...]) -> xr.Dataset:
    trace = make_trace(
        lengths=tuple(draw(st.lists(st.integers(1, 20), min_size=1, max_size=3))),
        layers=draw(st.integers(1, 5)),
        quantities=quantities,
        sink=draw(st.sampled_from([0.0, 1.0, 1e4])),
        seed=draw(st.integers(0, 9)),
    )
    name, holes = quantities[0], draw(st.sampled_from([0.0, 0.3, 1.0]))
    random = np.random.default_rng(draw(st.integers(0, 9)))
    return trace.assign({name: trace[name].where(random.random(trace[name].shape) >= holes)})


@few
@given(some_traces(QUANTITIES), st.sampled_from([4, 600]))
def test_another_state_of_a_spec_is_what_a_spec_made_for_it_shows(trace: xr.Dataset, most_unpooled: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stratoscope.view.maps.engagement.MOST_UNPOOLED", most_unpooled)
        spec = engagement_spec(trace)
        assert looks_of(spec) == LOOKS
        for look in LOOKS:
            made, turned = engagement_spec(trace, look=look), in_state(spec, look)
            assert sheet_of(turned) == sheet_of(made)
            assert turned.notes_now() == made.notes_now()
            assert turned.metadata_json() == made.metadata_json()


@few
@given(some_traces(("mlp_write_cos",)))
def test_a_signed_quantity_has_every_scale_but_the_logarithmic(trace: xr.Dataset) -> None:
    spec = heatmap_spec(trace)
    assert {look.scale for look in looks_of(spec)} == set(names.SCALES) - {"log"}
    for look in looks_of(spec):
        assert sheet_of(in_state(spec, look)) == sheet_of(heatmap_spec(trace, look=look))


def pooled(values: AnyFloats, by: int, aside: np.ndarray) -> tuple[AnyFloats, np.ndarray]:
    """Each column's largest value, of tokens that are not aside as far as it has any; and which columns have one."""
    columns = [np.arange(start, min(start + by, len(values))) for start in range(0, len(values), by)]
    kept = [column[~aside[column]] for column in columns]
    used = [few if len(few) else column for few, column in zip(kept, columns, strict=True)]
    return np.array([values[one].max(axis=0) for one in used]), np.array([len(one) > 0 for one in kept])


@pytest.mark.parametrize("length", [30, 3_010])
def test_limits_histogram_and_shares_of_every_state_are_those_of_the_values_themselves(length: int) -> None:
    trace = make_trace(lengths=(length, 7), layers=3)
    values, first = trace["mlp_out_norm"].values.astype(float), trace["position"].values == 0
    spec = heatmap_spec(trace, Selection(all_prompts=True))
    (one,), by = maps_of(spec).maps, maps_of(spec).panels[0].tokens_per_column
    assert (by > 1) == (length > pool.MOST_UNPOOLED)
    for look in LOOKS:
        cells, counts = pooled(values, by, np.zeros_like(first) if look.first_token else first)
        np.testing.assert_allclose(one.cells[look.first], cells)
        kind = scale.natural(signed=False, log=True, choice=look.scale)
        limits = scale.Distribution([cells[counts]]).fit(kind, look.scale)
        found = colouring(in_state(spec, look))
        np.testing.assert_allclose(found.limits.low, limits.low)
        np.testing.assert_allclose(found.limits.high, limits.high)
        np.testing.assert_allclose(found.clipped, scale.Distribution([cells[counts]]).clipped(limits), atol=1e-6)
        np.testing.assert_array_equal(found.counts, scale.Distribution([cells[counts]]).histogram(limits)[1])
        beyond = cells[first].max(axis=1) / limits.high.max() if by == 1 else np.array([])
        badged = [column for column, _ in one.marks[look.scale][look.first].badges]
        if look.scale != "per-layer":
            assert badged == np.flatnonzero(first)[beyond >= 1.05].tolist() if by == 1 else badged == []


def test_a_note_of_one_state_is_not_told_of_another() -> None:
    spec = heatmap_spec(make_trace(sink=1e4))
    told = {look: " ".join(note.text for note in in_state(spec, look).notes_now()) for look in LOOKS}
    for look, text in told.items():
        assert ("of each prompt takes part" in text) == look.first_token
        assert ("(marked) is left out" in text) == (not look.first_token)
        assert ("Robust" in text) == (look.scale in ("robust", "per-layer"))
        assert ("smallest and largest" in text) == (look.scale in ("linear", "log"))
        assert ("layers are not comparable" in text) == (look.scale == "per-layer")
        assert text.lower().count("colour limits") == 1


# --- tokens -----------------------------------------------------------------------------------------------------------


def check_tokens(tokens: ShownTokens, trace: xr.Dataset, shown: list[int]) -> None:
    """The rows of the table are these tokens of a trace, in this order."""
    prompts = [str(one) for one in trace["prompt_id"].values]
    assert [tokens.prompts[index].id for index in tokens.prompt] == [
        prompts[trace["prompt"].values[one]] for one in shown
    ]
    np.testing.assert_array_equal(tokens.position, trace["position"].values[shown])
    np.testing.assert_array_equal(tokens.span, trace["span"].values[shown])
    np.testing.assert_array_equal(tokens.first, trace["position"].values[shown] == 0)
    assert list(tokens.text) == [readable(str(trace["text"].values[one])) for one in shown]


def of_prompts(trace: xr.Dataset, *prompts: int) -> list[int]:
    return [token for prompt in prompts for token in np.flatnonzero(trace["prompt"].values == prompt).tolist()]


def test_the_table_of_tokens_is_that_of_the_dataset_in_the_order_shown() -> None:
    trace = make_trace(lengths=(12, 9, 5))
    user = names.SPANS.index("user")
    for selection, shown in (
        (EVERYTHING, of_prompts(trace, 0, 1)),
        (Selection(prompt=[2, 0]), of_prompts(trace, 2, 0)),
        (Selection(all_prompts=True), of_prompts(trace, 0, 1, 2)),
        (Selection(prompt=1, span="user"), [one for one in of_prompts(trace, 1) if trace["span"].values[one] == user]),
    ):
        spec = heatmap_spec(trace, selection)
        check_tokens(spec.tokens, trace, shown)
        spans = [(panel.start, panel.stop) for panel in maps_of(spec).panels]
        assert [start for start, _ in spans] == [0, *(stop for _, stop in spans[:-1])]
        assert spans[-1][1] == len(shown)


def test_a_cut_dataset_keeps_the_positions_that_its_tokens_had() -> None:
    trace = make_trace(lengths=(12, 9)).isel(token=[*range(4, 12), *range(12, 21)])
    spec = heatmap_spec(trace)
    check_tokens(spec.tokens, trace, list(range(17)))
    assert spec.tokens.position[0] == 4
    assert [panel.first for panel in maps_of(spec).panels] == [(), (0,)]


def test_every_token_of_a_pooled_panel_can_be_found_and_read() -> None:
    trace = make_trace(lengths=(1_600, 900))
    spec = heatmap_spec(trace, Selection(all_prompts=True))
    (panel,), (one,) = maps_of(spec).panels, maps_of(spec).maps
    check_tokens(spec.tokens, trace, list(range(2_500)))
    assert panel.tokens == 2_500
    assert panel.columns == len(one.cells["with_first"]) == -(-2_500 // panel.tokens_per_column)
    assert set(one.cells) == set(get_args(FirstTokens))


# --- what is left out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        (Selection(prompt=0), ["1 of 3 prompts"]),
        (Selection(all_prompts=True, layers="1-2,5"), ["3 of 6 layers (1-2, 5)"]),
        (Selection(all_prompts=True, span="user"), ["15 of 26 tokens (span user)"]),
        (Selection(prompt=1, layers=3, span=["user", "special"]),
         ["1 of 3 prompts", "1 of 6 layers (3)", "7 of their 9 tokens (spans user and special)"]),
        (Selection(all_prompts=True, prompt_class="critical"), ["2 of 3 prompts (class critical)"]),
        (Selection(all_prompts=True, span=list(names.SPANS)), []),
        (Selection(all_prompts=True), []),
    ],
)  # fmt: skip
def test_what_a_picture_leaves_out_stands_in_its_footer_and_in_its_metadata(
    selection: Selection, words: list[str]
) -> None:
    trace = make_trace(lengths=(12, 9, 5))
    for spec in (heatmap_spec(trace, selection), engagement_spec(trace, selection)):
        left_out = json.loads(spec.metadata_json())["selected"]["of_trace"]
        assert bool(left_out) == bool(words)
        assert ("Shown: " in said(spec)) == bool(words)
        for part in words:
            assert part in left_out
            assert part in said(spec)
