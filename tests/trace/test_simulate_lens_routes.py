"""Simulated lenses and routes: their sums hold exactly, ranks fall with the depth, and what is planted stands where it says."""  # noqa: E501

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from stratoscope import names, open_trace
from stratoscope.recorder.simulate import simulate
from stratoscope.recorder.simulated.model import LENS_NAMES, PREVIOUS_WEIGHT, ROUTE_WEIGHT

SHAPE: dict[str, Any] = {"prompts": 6, "tokens": (1, 24), "layers": 9, "d_ff": 64, "heads": 3, "top_k": 4}
RECORD = ("logits", "effects", "lens", "routes")
FEW = 4  # tokens that are read by default


@pytest.fixture(scope="module")
def trace() -> xr.Dataset:
    return simulate(**SHAPE, record=RECORD, targets=["Sorry", "Sure"])


def places(trace: xr.Dataset, back: int) -> Any:
    """Whether a token is among the last so many of its prompt."""
    length = np.bincount(trace.prompt)[trace.prompt]
    return trace.position.values >= length - back


def planted(trace: xr.Dataset, kind: str) -> list[dict[str, Any]]:
    return [entry for entry in trace.attrs["planted"] if entry["kind"] == kind]


# --- lenses ---------------------------------------------------------------------------------------------------------


def test_a_lens_is_read_at_the_last_tokens_and_logits_of_targets_everywhere(trace: xr.Dataset) -> None:
    read = places(trace, FEW)
    for name in ("lens_logprob", "lens_answer_logprob", "lens_target_logprob"):
        assert (np.isfinite(trace[name].values).reshape(len(read), -1).all(axis=1) == read).all(), name
    for name in ("lens_token", "lens_answer_rank", "lens_target_rank"):
        assert ((trace[name].values >= 0).reshape(len(read), -1).all(axis=1) == read).all(), name
    assert np.isfinite(trace.lens_target_logit.values).all()


def test_the_last_depth_is_the_model_in_every_lens(trace: xr.Dataset) -> None:
    read = places(trace, FEW)
    last = trace.isel(token=read, depth=-1)
    assert (last.lens_answer_rank == 1).all()
    assert (last.lens_token.values == last.lens_token.values[:, :1]).all()
    for lens in range(len(LENS_NAMES)):
        np.testing.assert_array_equal(trace.lens_target_logit[:, -1, lens], trace.target_logit)
    before = trace.isel(token=read, depth=0)
    assert (before.lens_token.values[:, 2, 0] != before.lens_token.values[:, 3, 0]).any()  # halves differ in noise


def test_tokens_of_a_lens_are_sorted_and_have_texts(trace: xr.Dataset) -> None:
    read = trace.isel(token=places(trace, FEW))
    assert (np.diff(read.lens_logprob.values, axis=-1) <= 0).all()
    assert (np.exp(read.lens_logprob.values).sum(axis=-1) <= 1 + 1e-6).all()
    leads = read.lens_answer_rank.values == 1
    assert (read.lens_answer_logprob.values[leads] == read.lens_logprob.values[leads][:, 0]).all()
    assert {*map(str, np.unique(read.lens_token.values))} <= {*trace.attrs["token_texts"]}


def test_the_answer_is_first_from_the_planted_depth_on(trace: xr.Dataset) -> None:
    rank = trace.lens_answer_rank.values[places(trace, 1)]
    for lens, entry in enumerate(planted(trace, "answer_depth")):
        depth = entry["effect"]
        assert (rank[:, depth:, lens] == 1).all()
        assert (rank[:, :depth, lens] > 1).all()
    assert rank[:, 0].mean() > 3  # and far behind at first


def test_every_token_is_read_when_asked_and_the_last_ones_as_without_it(tmp_path: Any) -> None:
    few = simulate(**SHAPE, record="lens")
    every = simulate(tmp_path / "t", **SHAPE, record="lens", positions="all").load()
    assert every.attrs["plan"]["positions"] == names.ALL_POSITIONS
    assert "lens_target_logit" not in every
    assert (every.lens_token >= 0).all()
    read = places(few, FEW)
    for name in ("lens_token", "lens_logprob", "lens_answer_rank"):
        np.testing.assert_array_equal(every[name].values[read], few[name].values[read])
    assert open_trace(tmp_path / "t")["lens"].values.tolist() == [*LENS_NAMES]


# --- routes ---------------------------------------------------------------------------------------------------------


def test_shares_of_a_token_sum_to_one_exactly(trace: xr.Dataset) -> None:
    kept = trace.route_weight.sum("route")
    assert (kept + trace.route_other + trace.route_bias + trace.route_carry == 1).all()
    assert (trace.route_mid + trace.route_mlp == 1).all()
    assert (trace.route_other_size >= abs(trace.route_other)).all()


def test_edges_point_at_earlier_tokens_once_and_the_strongest_stand_first(trace: xr.Dataset) -> None:
    source, head = trace.route_source.values, trace.route_head.values
    there = source >= 0
    assert (source <= trace.position.values[:, None, None]).all()
    assert (there == np.isfinite(trace.route_weight.values)).all()
    edges = np.where(there, source * 100 + head, -1 - np.arange(16))
    assert all(len({*row}) == 16 for row in edges.reshape(-1, 16).tolist())
    size = np.where(there, abs(trace.route_weight.values), 0)
    assert (np.diff(size, axis=-1) <= 0).all()
    few = (trace.position.values + 1) * SHAPE["heads"]
    assert (there.sum(axis=-1) == np.minimum(few, 16)[:, None]).all()  # all edges, where they are few
    assert (trace.route_other_size.values[few <= 16] == 0).all()


def test_effects_of_edges_sum_to_those_of_heads(trace: xr.Dataset) -> None:
    whole = trace.route_effect.sum("route") + trace.route_effect_other
    assert (whole == trace.head_effect.sum("head")).all()
    first = trace.isel(token=trace.position.values == 0)
    by_head = first.route_effect.values[..., : SHAPE["heads"]]
    order = first.route_effect_head.values[..., : SHAPE["heads"]]
    heads = np.take_along_axis(first.head_effect.values.swapaxes(2, 3), order, axis=-1)
    np.testing.assert_array_equal(by_head, heads)  # of a token that sees only itself


def test_the_planted_head_and_route_are_the_strongest_edges(trace: xr.Dataset) -> None:
    (head,), (route,) = planted(trace, "previous_token_head"), planted(trace, "route")
    assert head["layer"] < route["layer"]
    later = trace.isel(token=trace.position.values > 0, layer=head["layer"], route=0)
    assert (later.route_source == later.position - 1).all()
    assert (later.route_head == head["head"]).all()
    assert (later.route_weight == PREVIOUS_WEIGHT).all()
    several = np.bincount(trace.prompt)[trace.prompt] > 1
    last = trace.isel(token=places(trace, 1) & several, layer=route["layer"], route=0)
    assert (last.route_source.values == (last.position.values + 1) // 2).all()
    assert (last.route_head == route["head"]).all()
    np.testing.assert_allclose(last.route_weight, ROUTE_WEIGHT, atol=1e-6)


def test_what_is_recorded_beside_changes_no_value_and_brings_only_its_own() -> None:
    alone = simulate(**SHAPE, record="routes")
    beside = simulate(**SHAPE, record=("norms", "routes", "effects"))
    assert {*alone.data_vars} == {one.name for one in names.quantities_of(["routes"])}
    assert {*beside.data_vars} >= {one.name for one in names.quantities_of(["routes", "effects"])}
    for name in alone.data_vars:
        np.testing.assert_array_equal(alone[name].values, beside[name].values)
    only_logits = simulate(**SHAPE, record=("routes", "logits"))
    assert "route_effect" not in only_logits
    assert "route_weight" in only_logits
