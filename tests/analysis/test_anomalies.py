"""Anomalies: found where they are planted, silent where there are none, honest about what was not looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from truth_anomalies import PLANTS, SMALL, clean, false_findings, recall

import stratoscope
from stratoscope import names
from stratoscope.analysis.anomalies.anomalies import anomalies
from stratoscope.analysis.anomalies.tails import LEAST_UNITS, expected_beyond, standardised
from stratoscope.errors import InputError
from stratoscope.view.report import contents_of, save_result


@pytest.fixture(scope="module")
def trace() -> xr.Dataset:
    return clean(0, SMALL)


def planted(trace: xr.Dataset, detector: str, seed: int = 5) -> xr.Dataset:
    changed = trace.copy(deep=True)
    PLANTS[detector][0](changed, np.random.default_rng(seed))
    return changed


def found_by(result: xr.Dataset) -> set[str]:
    return set(map(str, result["found_by"].values))


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
    mine = result.isel(finding=[place for place, by in enumerate(result["found_by"].values) if by == detector])
    assert mine.sizes["finding"] >= 1
    assert float(mine["expected_false_alarms"][0]) < 0.01
    differs = [name for name in trace.data_vars if not np.array_equal(trace[name], changed[name], equal_nan=True)]
    at = np.argwhere(trace[differs[0]].values != changed[differs[0]].values)
    assert int(mine["layer"][0]) in at[:, 1]
    for name, axis in (("head", 2), ("neuron", 2)):
        if int(mine[name][0]) >= 0:
            assert int(mine[name][0]) in at[:, axis]
    if int(mine["prompt"][0]) >= 0:
        assert int(mine["prompt"][0]) in trace["prompt"].values[at[:, 0]]


def test_few_clean_traces_have_a_finding() -> None:
    assert false_findings(20, small=True)["any"] <= 3  # 5 % of 20, and two standard errors


@pytest.mark.parametrize("detector", ["massive activation", "moved sink", "dead neuron", "layer off the trend"])
def test_nearly_every_plant_is_found(detector: str) -> None:
    assert recall(detector, 12, small=True) >= 11 / 12


def test_the_routing_anomaly_that_simulate_plants_is_found_by_default() -> None:
    trace = stratoscope.simulate(seed=2)
    (planted_one,) = (one for one in trace.attrs["planted"] if one["kind"] == "routing_anomaly")
    result = anomalies(trace)
    (place,) = np.flatnonzero([by == "unusual route" for by in result["found_by"].values])
    assert int(result["layer"][place]) == planted_one["layer"]
    assert int(result["head"][place]) == planted_one["head"]
    assert int(result["position"][place]) == planted_one["token"]
    assert str(result["prompt_id"].values[place]) == planted_one["prompt"]


def test_cells_of_one_token_are_one_finding(trace: xr.Dataset) -> None:
    changed = trace.copy(deep=True)
    changed["mlp_out_norm"].values[25, 2:8] *= 80
    result = anomalies(changed)
    assert found_by(result) == {"massive activation"}
    assert result.sizes["finding"] == 1
    assert int(result["also"][0]) == 5


def test_first_and_template_tokens_are_no_anomalies(trace: xr.Dataset) -> None:
    changed = trace.copy(deep=True)
    changed["mlp_out_norm"].values[trace["position"].values == 0] *= 1e4
    span = changed["span"].values.copy()
    span[7] = names.SPANS.index("special")
    changed["mlp_out_norm"].values[7] *= 1e4
    assert anomalies(changed.assign_coords(span=("token", span))).attrs["summary"]["findings"] == 0


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
    assert (int(broken["layer"][0]), int(broken["head"][0])) == (3, 1)


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


def test_a_reference_of_another_shape_is_refused(trace: xr.Dataset) -> None:
    with pytest.raises(InputError, match="the reference has 8 layers, the trace 16"):
        anomalies(trace, reference=clean(1, {**SMALL, "layers": 8}))


# --- what is missing --------------------------------------------------------------------------------------------------


def test_what_was_not_recorded_is_said_not_to_have_been_looked_at(trace: xr.Dataset) -> None:
    result = anomalies(trace[["mlp_out_norm"]].assign_coords(trace.coords))
    why = dict(zip(map(str, result["detector"].values), map(str, result["why_not"].values), strict=True))
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


def test_every_finding_has_its_picture_with_a_mark_on_it(trace: xr.Dataset, tmp_path: Path) -> None:
    changed = planted(planted(planted(trace, "massive residual"), "dead neuron"), "moved sink")
    result = anomalies(changed)
    contents = contents_of(result)
    assert len(contents.figures()) == result.sizes["finding"] >= 3
    for figure, words in zip(contents.figures(), result["words"].values, strict=True):
        assert figure.caption == str(words)
        if figure.spec.kind == "heatmap":
            assert len(figure.spec.content["maps"][0]["spikes"]) == 1
    folder = save_result(result, tmp_path / "anomalies")
    page = (folder / "report.html").read_text("utf-8")
    assert all(name in page for name in PLANTS)
