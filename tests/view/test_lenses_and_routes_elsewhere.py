"""Verbs that are not made for lenses and routes: they draw what has a value for each token and layer, and name the command for the rest."""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import xarray as xr

import stratoscope
from stratoscope import names
from stratoscope.analysis.values.quantities import drawable_quantities
from stratoscope.errors import InputError
from stratoscope.recorder.simulate import simulate
from stratoscope.trace.info.facts import info, info_text
from stratoscope.view.maps.heatmap import heatmap_spec

SHAPE: dict[str, Any] = {"prompts": 4, "tokens": (3, 8), "layers": 3, "d_ff": 32, "heads": 2, "top_k": 2}
DRAWN = ("route_weight", "route_other", "route_other_size", "route_bias", "route_carry", "route_mid", "route_mlp",
         "route_effect", "route_effect_other", "route_effect_other_size")  # fmt: skip


@pytest.fixture(scope="module")
def trace() -> xr.Dataset:
    return simulate(**SHAPE, record=("effects", "lens", "routes"))


def test_everything_of_routes_with_a_size_is_drawn_and_nothing_of_lenses(trace: xr.Dataset) -> None:
    drawn = [name for name in drawable_quantities(trace) if names.QUANTITIES[name].group in ("lens", "routes")]
    assert drawn == [*DRAWN]


@pytest.mark.parametrize("name", ["route_weight", "route_effect"])
def test_of_edges_the_strongest_is_drawn_and_told(trace: xr.Dataset, name: str) -> None:
    spec = heatmap_spec(trace, quantity=name)
    assert "the strongest of 16 recorded edges" in str(spec)


REFUSED: dict[str, Callable[[xr.Dataset, str], Any]] = {
    "heatmap": lambda trace, name: heatmap_spec(trace, quantity=name),
    "compare": lambda trace, name: stratoscope.compare(trace, prompt=[0, 1], quantity=name),
    "contrast": lambda trace, name: stratoscope.contrast(trace, quantity=name),
    "diff": lambda trace, name: stratoscope.diff(trace, trace, quantity=name),
}


@pytest.mark.parametrize("verb", REFUSED)
@pytest.mark.parametrize(("name", "command"), [("lens_logprob", "lens"), ("route_source", "routes")])
def test_what_is_not_drawn_here_is_refused_with_the_command_that_draws_it(
    trace: xr.Dataset, verb: str, name: str, command: str
) -> None:
    with pytest.raises(InputError, match=f"`stratoscope {command} TRACE.*draws it"):
        REFUSED[verb](trace, name)


def test_a_trace_of_lenses_alone_names_their_command() -> None:
    with pytest.raises(InputError, match="`stratoscope lens TRACE` draws what is in it"):
        heatmap_spec(simulate(**SHAPE, record="lens"))
    alone = simulate(**SHAPE, record="lens")
    with pytest.raises(InputError, match="`stratoscope lens TRACE` draws what is in it"):
        stratoscope.diff(alone, alone)


def test_info_says_what_lenses_and_routes_hold_and_how_far_they_were_off(trace: xr.Dataset) -> None:
    receipt = {"lens": {"error": 2e-6, "limit": 1e-4}, "routes": {"error": 3e-7, "limit": 1e-5}}
    text = " ".join(info_text(info(trace.assign_attrs(receipt=receipt))).split())
    assert "logit; jacobian; jacobian, half 1; jacobian, half 2" in text
    assert "misses the model's own logits by at most 2.0e-06, allowed are 1e-04" in text
    assert "the 16 edges of attention of largest size" in text
    assert "miss 1 by at most 3.0e-07, allowed are 1e-05" in text
    assert info(trace)["routes"]["not_split"] == []
    nothing = trace.assign(route_source=trace.route_source.where(trace.layer != 1, -1))
    nothing["route_other_size"] = trace.route_other_size.where(trace.layer != 1, 0.0)
    assert info(nothing)["routes"]["not_split"] == []  # a block without attention
    whole = nothing.assign(route_other_size=nothing.route_other_size.where(trace.layer != 1, 0.25))
    assert "L1: the mixer is not split by token" in info_text(info(whole))


def test_long_prompts_do_not_make_lenses_look_empty() -> None:
    long = simulate(prompts=1, tokens=300, layers=2, d_ff=16, heads=1, top_k=1, record="lens,logits")
    result = stratoscope.lint(long)
    assert "has no value at all" not in str(result.attrs)
    assert not [text for text in result["findings"]["text"].values.tolist() if "no value at all" in str(text)]
