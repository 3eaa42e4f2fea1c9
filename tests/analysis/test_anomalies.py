"""Anomalies: found where they are planted, silent where there are none, honest about what was not looked at."""

from __future__ import annotations

import csv
import html
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from truth_anomalies import PLANTS, SMALL, clean, false_findings, is_found, plant_cell, recall, some_prompts, unseen

import stratoscope
from stratoscope import names
from stratoscope.analysis.anomalies.anomalies import anomalies, findings_in
from stratoscope.analysis.anomalies.depth import expert_takes_all
from stratoscope.analysis.anomalies.norms import norms_of
from stratoscope.analysis.anomalies.tails import LEAST_UNITS, expected_beyond, standardised
from stratoscope.errors import InputError
from stratoscope.view.report import contents_of, save_result
from stratoscope.view.spec.maps import Maps


@pytest.fixture(scope="module")
def trace() -> xr.Dataset:
    return clean(0, SMALL)


def planted(trace: xr.Dataset, detector: str, seed: int = 5) -> xr.Dataset:
    changed = trace.copy(deep=True)
    PLANTS[detector][0](changed, np.random.default_rng(seed))
    return changed


def found_by(result: xr.DataTree) -> set[str]:
    """Detectors that found a member of any finding."""
    return set(map(str, result["members/found_by"].values))


def text_of(result: xr.DataTree) -> str:
    return " ".join(map(str, result["findings/words"].values))


def ordinary(trace: xr.Dataset, position: int) -> np.ndarray:
    """Tokens at a place in their prompts that are no second sinks."""
    massive = (trace["resid_norm"] > 5 * trace["resid_norm"].median("token")).any("depth").values
    return np.flatnonzero((trace["position"].values == position) & ~massive)


def cell(trace: xr.Dataset, quantity: str, seed: int = 0) -> tuple[int, ...]:
    return unseen(trace, quantity, np.random.default_rng(seed))


# --- the tail ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", ["normal", "exponential", "uniform"])
def test_as_many_lie_beyond_as_expected_or_fewer(draw: str) -> None:
    random = np.random.default_rng(0)
    alarms = [int((expected_beyond(getattr(random, draw)(size=2000)) <= 0.1).sum()) for _ in range(300)]
    assert np.mean(alarms) <= 0.1 + 3 * np.sqrt(0.1 / 300)


def test_half_of_a_tail_may_be_outliers_without_hiding_one_another() -> None:
    random = np.random.default_rng(0)
    scores = np.append(random.normal(size=2000), 40 + random.random(15))
    assert (expected_beyond(scores)[-15:] < 1e-3).all()


@given(st.lists(st.floats(-1e6, 1e6) | st.just(np.nan), max_size=200))
def test_the_stranger_a_score_the_fewer_are_expected(scores: list[float]) -> None:
    given_scores = np.array(scores, float)
    expected = expected_beyond(given_scores)
    known = np.isfinite(given_scores)
    assert np.isnan(expected[~known]).all()
    if known.sum() < LEAST_UNITS:
        assert np.isnan(expected).all()
    else:
        order = np.argsort(given_scores[known])
        assert (np.diff(expected[known][order]) <= 1e-6).all()


def test_rows_are_standardised_by_their_own_median_and_a_shared_part_of_their_spread() -> None:
    values = np.random.default_rng(0).normal(3, 2, (500, 4))
    values[0, 0] = 3 + 2 * 10
    found = standardised(values, 0)
    assert abs(found[0, 0] - 10) < 1
    assert abs(np.median(found)) < 0.01
    np.testing.assert_allclose(standardised(values[:10], 0, values)[:, 1], found[:10, 1])


# --- detectors --------------------------------------------------------------------------------------------------------


def test_a_clean_trace_has_no_findings(trace: xr.Dataset) -> None:
    result = anomalies(trace)
    assert result.attrs["summary"]["findings"] == 0
    assert contents_of(result).title == "Nothing is far outside its own distribution"


@pytest.mark.parametrize("detector", PLANTS)
def test_a_detector_finds_what_it_is_for_at_its_place(trace: xr.Dataset, detector: str) -> None:
    changed = planted(trace, detector)
    result = anomalies(changed)
    mine = result["members"].dataset.isel(
        member=[place for place, by in enumerate(result["members/found_by"].values) if by == detector]
    )
    assert mine.sizes["member"] >= 1
    assert float(mine["expected_false_findings"][0]) < 0.01
    differs = [name for name in trace.data_vars if not np.array_equal(trace[name], changed[name], equal_nan=True)]
    at = np.argwhere(trace[differs[0]].values != changed[differs[0]].values)
    assert int(mine["layer"][0]) in at[:, 1]
    for name in ("head", "neuron"):
        if name in trace[differs[0]].dims:
            assert int(mine[name][0]) in at[:, 2]
    if int(mine["prompt"][0]) >= 0:
        assert int(mine["prompt"][0]) in trace["prompt"].values[at[:, 0]]


def test_few_clean_traces_have_a_finding() -> None:
    assert false_findings(12, small=True)["any"] <= 2  # 5 % of 12, and two standard errors


@pytest.mark.parametrize("detector", ["massive residual", "moved sink", "dead neuron", "layer off the trend"])
def test_nearly_every_plant_is_found(detector: str) -> None:
    assert recall(detector, 8, small=True) >= 7 / 8


def test_the_routing_anomaly_that_simulate_plants_is_found_by_default() -> None:
    trace = stratoscope.simulate(seed=2)
    (planted_one,) = (one for one in trace.attrs["planted"] if one["kind"] == "routing_anomaly")
    result = anomalies(trace)
    assert result.attrs["summary"]["findings"] == 1
    place = [str(by) for by in result["members/found_by"].values].index("unusual route")
    assert int(result["members/layer"][place]) == planted_one["layer"]
    assert int(result["members/head"][place]) == planted_one["head"]
    assert int(result["members/position"][place]) == planted_one["token"]
    assert str(result["members/prompt_id"].values[place]) == planted_one["prompt"]
    assert "◆" in text_of(result)


# --- what is usual ----------------------------------------------------------------------------------------------------


def test_second_sinks_do_not_mask_one_cell_and_are_listed_once(trace: xr.Dataset) -> None:
    at = cell(trace, "mlp_out_norm")
    changed = trace.copy(deep=True)
    plant_cell(changed, "mlp_out_norm", at, 30)
    result = anomalies(changed)
    assert result.attrs["summary"]["findings"] == 1
    assert is_found(result, changed, "mlp_out_norm", at)
    kinds = [str(words).split(":")[0] for words in result["usual/words"].values]
    assert kinds == ["First tokens are massive", "Second sinks, which behave as first tokens do"]
    assert result["usual/tokens"].values.tolist() == [
        16,
        8,
    ]  # every first token, and what `clean` put into half of them
    assert result["usual/prompts"].values.tolist() == [16, 8]


def test_eight_cells_at_once_do_not_mask_one_another(trace: xr.Dataset) -> None:
    changed = trace.copy(deep=True)
    cells = [cell(trace, "resid_norm", seed) for seed in range(8)]
    for at in cells:
        plant_cell(changed, "resid_norm", at, 30)
    result = anomalies(changed)
    assert all(is_found(result, changed, "resid_norm", at) for at in cells)


def test_a_usual_sink_does_not_excuse_a_cell_where_sinks_are_not_massive(trace: xr.Dataset) -> None:
    residual = trace["resid_norm"].values
    massive = residual > 20 * np.median(residual, axis=0)
    sink = np.flatnonzero(massive.any(axis=1) & (trace["position"].values > 0))[0]
    changed = trace.copy(deep=True)
    plant_cell(changed, "mlp_out_norm", (int(sink), 12), 30)
    assert is_found(anomalies(changed), changed, "mlp_out_norm", (int(sink), 12))


def test_one_prompt_alone_with_a_massive_token_of_its_own_kind_is_a_finding(trace: xr.Dataset) -> None:
    changed = trace.copy(deep=True)
    token = int(ordinary(trace, 6)[0])
    for layer in range(8, 12):
        plant_cell(changed, "mlp_out_norm", (token, layer), 40)
        plant_cell(changed, "resid_norm", (token, layer + 1), 40)
    result = anomalies(changed)
    assert result.attrs["summary"]["findings"] == 1
    assert result["members"].sizes["member"] == 8


def test_what_recurs_in_enough_other_prompts_is_usual_and_in_one_other_is_not(trace: xr.Dataset) -> None:
    tokens = [token for token in ordinary(trace, 5) if trace["prompt"].values[token] % 2 == 0]  # one of each twins
    for count, odd in ((2, True), (5, False)):
        changed = trace.copy(deep=True)
        for token in tokens[:count]:
            for layer in range(8, 12):
                plant_cell(changed, "resid_norm", (int(token), layer), 40)
        result = anomalies(changed)
        assert (result.attrs["summary"]["findings"] > 0) == odd
        assert any("prompt after prompt" in str(words) for words in result["usual/words"].values) == (not odd)


def test_few_prompts_are_enough(trace: xr.Dataset) -> None:
    few = some_prompts(trace, np.arange(3))
    assert anomalies(few).attrs["summary"]["findings"] == 0
    at = cell(few, "resid_norm", 3)
    plant_cell(few, "resid_norm", at, 30)
    assert is_found(anomalies(few), few, "resid_norm", at)


# --- one thing is one finding -----------------------------------------------------------------------------------------


def test_twins_and_the_quantities_of_one_token_are_one_finding_with_members(trace: xr.Dataset) -> None:
    changed = trace.copy(deep=True)
    prompts = trace["prompt"].values
    position = next(at for at in range(2, 12) if {0, 1} <= set(prompts[ordinary(trace, at)].tolist()))
    twins = [int(token) for token in ordinary(trace, position) if prompts[token] in (0, 1)]
    assert trace["pair"].values[0] == trace["pair"].values[1]
    for token in twins:
        changed["token_id"].values[token] = changed["token_id"].values[twins[0]]
        plant_cell(changed, "mlp_out_norm", (token, 9), 60)
        plant_cell(changed, "resid_norm", (token, 10), 60)
    result = anomalies(changed)
    assert result.attrs["summary"]["findings"] == 1
    told = {
        (str(quantity), int(prompt))
        for quantity, prompt in zip(result["members/quantity"].values, result["members/prompt"].values, strict=True)
    }
    assert told == {(name, prompt) for name in ("mlp_out_norm", "resid_norm") for prompt in (0, 1)}
    assert "the same at 1 other token" in text_of(result)
    (one,) = findings_in(result)
    assert len(one["members"]) == 4
    assert [member["value"] for member in one["members"]] == result["members/value"].values.tolist()
    assert {member["prompt"] for member in one["members"]} == set(trace["prompt_id"].values[:2])
    assert all(set(member) >= {"token", "position", "layer", "value"} for member in one["members"])
    assert not any({"head", "expert", "finding", "prompt_id"} & set(member) for member in one["members"])


def test_cells_of_one_token_are_one_finding(trace: xr.Dataset) -> None:
    changed = trace.copy(deep=True)
    changed["mlp_out_norm"].values[25, 2:8] *= 80
    result = anomalies(changed)
    assert result["findings"].sizes["finding"] == 1
    assert set(zip(result["members/quantity"].values, result["members/layer"].values, strict=True)) == {
        ("mlp_out_norm", layer) for layer in range(2, 8)
    }


def test_first_tokens_and_template_tokens_of_all_prompts_are_usual_but_not_one_alone(trace: xr.Dataset) -> None:
    changed = trace.copy(deep=True)
    changed["mlp_out_norm"].values[trace["position"].values == 0] *= 1e4
    span = changed["span"].values.copy()
    template = trace["position"].values == 2
    span[template] = names.SPANS.index("template")
    changed = changed.assign_coords(span=("token", span))
    everywhere = changed.copy(deep=True)
    everywhere["mlp_out_norm"].values[template] *= 1e4
    assert anomalies(everywhere).attrs["summary"]["findings"] == 0
    at = (int(np.flatnonzero(template)[4]), 6)
    plant_cell(changed, "mlp_out_norm", at, 30)
    assert is_found(anomalies(changed), changed, "mlp_out_norm", at)


def test_weights_whose_rows_do_not_sum_to_one_are_found(trace: xr.Dataset) -> None:
    lengths = np.bincount(trace["prompt"].values)
    rows = np.concatenate([np.repeat(np.arange(1, n + 1), np.arange(1, n + 1)) for n in lengths])
    weights = (
        np.repeat((1 / rows)[:, None], trace.sizes["layer"], axis=1)[..., None].repeat(4, axis=2).astype("float16")
    )
    whole = trace.assign(attention=(("edge", "layer", "head"), weights))
    assert "broken attention rows" not in found_by(anomalies(whole))
    weights[200, 3, 1] += 0.2
    broken = anomalies(trace.assign(attention=(("edge", "layer", "head"), weights)))
    assert found_by(broken) == {"broken attention rows"}
    assert (int(broken["findings/layer"][0]), int(broken["findings/head"][0])) == (3, 1)


def test_what_is_said_to_be_found_is_found(trace: xr.Dataset) -> None:
    least = dict(
        zip(
            map(str, anomalies(trace)["detectors/quantity"].values),
            anomalies(trace)["detectors/found_from"].values,
            strict=True,
        )
    )
    assert 6 <= least["mlp_out_norm"] < 40
    found = 0
    for seed in range(10):
        changed, at = trace.copy(deep=True), cell(trace, "mlp_out_norm", seed)
        plant_cell(changed, "mlp_out_norm", at, 1.1 * least["mlp_out_norm"])
        found += is_found(anomalies(changed), changed, "mlp_out_norm", at)
    assert found >= 8
    assert "MLP output from" in " ".join(contents_of(anomalies(trace)).lead)


def test_a_residual_that_was_not_recorded_is_known_from_what_attention_adds_to_it(trace: xr.Dataset) -> None:
    ordinary_ones = np.concatenate([ordinary(trace, position) for position in range(1, 10)])
    worked_out = norms_of(trace.drop_vars("resid_norm")).values["resid_norm"]
    recorded = norms_of(trace).values["resid_norm"]
    np.testing.assert_allclose(worked_out[ordinary_ones, :-1], recorded[ordinary_ones, :-1], rtol=1e-3)


# --- references -------------------------------------------------------------------------------------------------------


def half(trace: xr.Dataset, second: bool) -> xr.Dataset:
    """The first or the second half of the prompts."""
    middle = trace.sizes["prompt"] // 2
    prompts = slice(middle, None) if second else slice(middle)
    inside = (trace["prompt"].values >= middle) == second
    part = trace.isel(prompt=prompts, token=np.flatnonzero(inside))
    return part.assign_coords(prompt=("token", part["prompt"].values - middle * second))


def test_with_a_reference_its_distributions_count() -> None:
    whole = clean(0, {**SMALL, "prompts": 24})
    here, other = half(whole, second=False), half(whole, second=True)
    assert anomalies(here, reference=other).attrs["summary"]["findings"] == 0
    louder = here.assign(mlp_out_norm=here["mlp_out_norm"] * 1000)
    assert "massive activation" not in found_by(anomalies(louder))
    assert "massive activation" in found_by(anomalies(louder, reference=other))


def test_with_a_reference_what_it_shows_is_usual_and_what_recurs_only_here_is_one_finding() -> None:
    whole = clean(0, {**SMALL, "prompts": 24})
    here, other = half(whole, second=False), half(whole, second=True)

    def massive(part: xr.Dataset) -> xr.Dataset:
        changed = part.copy(deep=True)
        for token in ordinary(part, 5):
            for layer in range(8, 12):
                plant_cell(changed, "resid_norm", (int(token), layer), 40)
        return changed

    assert anomalies(massive(here), reference=massive(other)).attrs["summary"]["findings"] == 0
    only_here = anomalies(massive(here), reference=other)
    assert only_here.attrs["summary"]["findings"] == 1
    assert int(only_here["findings/also"][0]) == len(ordinary(here, 5)) * 4 - 1


def test_what_is_dead_in_the_reference_too_is_no_news(trace: xr.Dataset) -> None:
    dead = planted(trace, "dead neuron")
    alone = anomalies(dead).attrs["summary"]
    assert (alone["findings"], alone["of_model"]) == (0, 1)
    assert anomalies(dead, reference=dead).attrs["summary"]["by_detector"]["dead neuron"] == 0
    news = anomalies(dead, reference=trace).attrs["summary"]
    assert (news["findings"], news["of_model"]) == (1, 0)


def test_a_neuron_that_is_a_peak_at_first_tokens_is_not_dead(trace: xr.Dataset) -> None:
    """SmolLM2's neuron 678 of L28: nothing at the user's tokens, 2,371 at every first one."""
    dead = planted(trace, "dead neuron")
    (place,) = np.argwhere(dead["prompt_max"].values[0] != trace["prompt_max"].values[0])
    first = np.flatnonzero(dead["position"].values == 0)
    dead["peak_neuron"].values[first, place[0], 0] = place[1]
    dead["peak_value"].values[first, place[0], 0] = 2_000
    assert anomalies(dead).attrs["summary"]["by_detector"]["dead neuron"] == 0


def test_a_reference_of_another_shape_is_refused(trace: xr.Dataset) -> None:
    with pytest.raises(InputError, match="the reference has 8 layers, the trace 16"):
        anomalies(trace, reference=clean(1, {**SMALL, "layers": 8}))


# --- what is missing --------------------------------------------------------------------------------------------------


def test_what_was_not_recorded_is_said_not_to_have_been_looked_at(trace: xr.Dataset) -> None:
    result = anomalies(trace[["mlp_out_norm"]].assign_coords(trace.coords))
    why = dict(
        zip(map(str, result["detectors/name"].values), map(str, result["detectors/why_not"].values), strict=True)
    )
    assert why["moved sink"] == "no attention recorded"
    assert why["expert that takes all"] == "no router recorded"
    assert result.attrs["summary"]["detectors"] == 1


@pytest.mark.parametrize("shape", [{"prompts": 1}, {"tokens": 1}, {"layers": 1}, {"d_ff": 1, "top_k": 1}, {"heads": 1}])
def test_hardly_anything_to_look_at_is_no_failure(shape: dict[str, Any]) -> None:
    result = anomalies(stratoscope.simulate(**{**SMALL, **shape}))
    assert result.attrs["kind"] == "anomalies"


def test_a_reference_that_lacks_a_quantity_is_passed_over_there(trace: xr.Dataset) -> None:
    bare = trace.drop_vars([name for name in trace.data_vars if name != "mlp_out_norm"])
    assert anomalies(trace, reference=bare).attrs["summary"]["findings"] == 0


def test_a_trace_with_nothing_to_look_at_names_what_to_record(trace: xr.Dataset) -> None:
    with pytest.raises(InputError, match="--record"):
        anomalies(trace.drop_vars(list(trace.data_vars)))


def test_undefined_values_are_passed_over(trace: xr.Dataset) -> None:
    holed = trace.copy(deep=True)
    for name in holed.data_vars:
        if holed[name].dtype.kind == "f":
            holed[name].values[:2] = np.nan
    holed["mlp_out_norm"].values[:, 3] = np.nan
    assert anomalies(holed).attrs["summary"]["findings"] <= 1


# --- the report -------------------------------------------------------------------------------------------------------


def test_every_finding_has_its_picture_and_every_member_a_row(trace: xr.Dataset, tmp_path: Path) -> None:
    changed = planted(planted(planted(trace, "massive residual"), "dead neuron"), "moved sink")
    result = anomalies(changed)
    contents = contents_of(result)
    assert len(contents.figures()) == result["findings"].sizes["finding"] >= 3
    for figure, words in zip(contents.figures(), result["findings/words"].values, strict=True):
        assert figure.spec.title == str(words)
        if isinstance(figure.spec.content, Maps):
            assert len(figure.spec.content.maps[0].marks["robust"]["without_first"].rings) == 1
    folder = save_result(result, tmp_path / "anomalies")
    page = (folder / "report.html").read_text("utf-8")
    assert all(name in page for name in PLANTS)
    usual = [str(words) for words in result["usual/words"].values]
    assert usual
    assert all(words in html.unescape(page) for words in usual)
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == result["members"].sizes["member"] + len(usual)
    assert [row["what"] for row in rows if row["kind"] == "usual"] == usual
    assert {row["quantity"] for row in rows} >= {"resid_norm", "attn_first", "prompt_max"}


def test_a_run_of_layers_is_looked_at_and_layers_that_are_no_neighbours_are_refused_in_words() -> None:
    trace = stratoscope.simulate(prompts=4, tokens=6, layers=5, d_ff=24, heads=2)
    whole = trace.sel(layer=slice(1, 3), depth=slice(1, 4))
    assert stratoscope.anomalies(trace.sel(layer=slice(1, 3))).equals(stratoscope.anomalies(whole))
    with pytest.raises(InputError, match=r"its layers are 1, 3 and its depths 0-5"):
        stratoscope.anomalies(trace.sel(layer=[1, 3]))


def test_an_expert_of_an_impossible_number_is_told_and_does_not_fill_the_memory(trace: xr.Dataset) -> None:
    tokens, layers = trace.sizes["token"], trace.sizes["layer"]
    chosen = np.zeros((tokens, layers, 1), np.int32)
    chosen[0] = 2**31 - 2
    odd = trace.assign(router_expert=(("token", "layer", "slot"), chosen))
    look = expert_takes_all(odd, None)
    assert "2,147,483,646, which no model has" in look.why


def test_scores_of_which_none_is_known_are_beyond_nothing() -> None:
    among = np.random.default_rng(0).normal(size=1000)
    assert np.isnan(expected_beyond(np.full(3, np.nan), among)).all()
