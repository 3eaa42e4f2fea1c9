"""`anomalies` looks at routes where they are recorded, and at attention where they are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from truth_routes import clean, has_finding, is_found, plant_route

import stratoscope
from stratoscope.analysis.anomalies.anomalies import anomalies

SHAPE: dict[str, Any] = {"prompts": 12, "tokens": (10, 16), "layers": 6, "d_ff": 64, "heads": 4}


def looked_at(result: xr.DataTree) -> str:
    """The quantity that the detector of unusual routes looked at."""
    detectors = result["detectors"].to_dataset()
    place = [str(name) for name in detectors["name"].values].index("unusual route")
    return str(detectors["quantity"].values[place]) if int(detectors["looked_at"].values[place]) else ""


def test_the_head_that_simulate_routes_oddly_is_found_in_routes_alone() -> None:
    trace = stratoscope.simulate(seed=2, record="routes")
    (planted,) = (one for one in trace.attrs["planted"] if one["kind"] == "routing_anomaly")
    result = anomalies(trace)
    assert result.attrs["summary"]["findings"] == 1
    member = result["members"].isel(member=0)
    assert looked_at(result) == "route_weight"
    place = (planted["prompt"], planted["token"], planted["layer"], planted["head"])
    assert (str(member["prompt_id"].values), *(int(member[name]) for name in ("position", "layer", "head"))) == place
    assert "brings later tokens 37.5 % of their streams from '◆'" in str(result["findings/words"].values[0])


def test_a_route_that_is_planted_is_found_at_its_place_and_a_clean_trace_has_none() -> None:
    for seed in range(3):
        trace = clean(seed)
        assert not has_finding(trace)
        assert is_found(trace, plant_route(trace, np.random.default_rng(seed), 0.4))


@pytest.mark.parametrize(
    ("record", "quantity"),
    [
        ("norms,attention", "attn_entropy_nosink"),
        ("norms,attention,routes", "route_weight"),
        ("norms,routes", "route_weight"),
        ("norms", ""),
    ],
)
def test_routes_are_looked_at_where_they_are_recorded_else_attention(record: str, quantity: str) -> None:
    assert looked_at(anomalies(stratoscope.simulate(**SHAPE, record=record))) == quantity


def test_a_reference_without_routes_is_compared_by_attention() -> None:
    trace = stratoscope.simulate(**SHAPE, record="norms,attention,routes")
    earlier = stratoscope.simulate(**SHAPE, seed=1, record="norms,attention")
    assert looked_at(anomalies(trace, reference=earlier)) == "attn_entropy_nosink"
    other = stratoscope.simulate(**SHAPE, seed=1, anomaly=False, record="norms,attention,routes")
    assert looked_at(anomalies(trace, reference=other)) == "route_weight"


def test_routes_of_usual_massive_tokens_of_first_tokens_and_of_answers_count_for_nothing() -> None:
    trace = stratoscope.simulate(**SHAPE, anomaly=False, record="routes")
    first = trace["prompt"].values == 0
    changed = trace.copy(deep=True)
    at = np.flatnonzero(first)[1:]
    changed["route_source"].values[at, 2, 0], changed["route_head"].values[at, 2, 0] = 0, 1
    changed["route_weight"].values[at, 2, 0] = 0.6
    assert not has_finding(changed)  # first tokens are what heads look at anyway
    answered = trace.copy(deep=True)
    last = np.flatnonzero(first)[-4:]
    for name, nothing in (("route_source", -1), ("route_head", -1), ("route_weight", np.nan)):
        answered[name].values[last] = nothing
    assert not has_finding(answered)
