"""Comparisons and rankings of what explains logits: one target, one final norm, either effects or contributions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from contribution_traces import PLAN, model

import stratoscope
from stratoscope.analysis.contrast.profiles import prompt_profiles
from stratoscope.analysis.results.result import notes_in, table_in
from stratoscope.analysis.values.effect_sums import sums_of_prompts
from stratoscope.errors import InputError
from stratoscope.trace.prompts import Prompts
from stratoscope.trace.targets import Targets, one_target

FACTORS = np.array([0.5, 1.0, 0.7, 0.3], "float32")


@pytest.fixture(scope="module")
def scaled() -> xr.Dataset:
    """Prompts whose parts are the same before the final norm, which multiplies them by another factor in each."""
    trace = model(tuned=False)
    answers = Prompts(trace).answer
    values = {name: trace[name].values.copy() for name in ("mlp_logit", "attn_logit")}
    for of in values.values():
        of[answers] = of[answers[0]] * FACTORS[:, None, None]
    return trace.assign(
        final_scale=("prompt", FACTORS), **{name: (trace[name].dims, of) for name, of in values.items()}
    )


def test_two_prompts_are_compared_where_the_factors_of_their_final_norms_are_known(scaled: xr.Dataset) -> None:
    result = stratoscope.comparison(scaled, quantity="mlp_logit", prompt=[0, 1])
    tokens, cells = table_in(result, "tokens"), table_in(result, "tokens/mlp_logit")
    (last,) = np.flatnonzero(tokens["predicts"].values & tokens["equal"].values)
    assert np.abs(cells["b"].values[last] - cells["a"].values[last]).max() > 0.01
    np.testing.assert_allclose(cells["difference"].values[last], 0, atol=1e-6)
    assert {"L24", "L28", "L29"} <= {note.id for note in notes_in(result)}
    assert result.attrs["summary"]["label"].endswith("“Sorry” against “Sure”")
    with pytest.raises(InputError, match="final_scale"):
        stratoscope.comparison(scaled.drop_vars("final_scale"), quantity="mlp_logit", prompt=[0, 1])


def test_two_traces_that_explain_other_tokens_are_not_compared(scaled: xr.Dataset) -> None:
    other = scaled.assign_attrs(plan={"targets": [{**PLAN["targets"][0], "text": "No"}]})  # type: ignore[index]
    with pytest.raises(InputError, match="“No” against “Sure”"):
        stratoscope.comparison([scaled, other], quantity="mlp_logit")


def test_classes_are_tested_at_one_factor_of_the_final_norm(scaled: xr.Dataset) -> None:
    result = stratoscope.contrast(
        scaled, quantity=["mlp_logit", "mlp_effect"], alpha=0.5, permutations=99, groups=False
    )
    difference = table_in(result, "profiles/mlp_logit")["difference"].values
    np.testing.assert_allclose(difference, 0, atol=1e-6)
    plain = scaled["mlp_logit"].values[Prompts(scaled).answer, :, 0]
    assert np.abs(plain[::2].mean(axis=0) - plain[1::2].mean(axis=0)).max() > 0.01
    assert any(note.id == "L29" for note in notes_in(result))
    assert "aligned" not in result  # at aligned tokens no answer is due
    assert result.attrs["summary"]["labels"]["mlp_effect"].endswith("on the logit of “Sorry” against “Sure”")


def test_effects_add_up_over_tokens_and_contributions_stand_where_the_model_answers(scaled: xr.Dataset) -> None:
    one, prompts = one_target(scaled, ["mlp_effect"]), np.arange(4)
    every = np.ones(scaled.sizes["token"], bool)
    lengths = Prompts(scaled).lengths
    np.testing.assert_array_equal(prompt_profiles(one, "mlp_effect", prompts, every)[:, 0], 2.0 * lengths)
    found = prompt_profiles(one, "mlp_logit", prompts, ~every)
    np.testing.assert_allclose(found, scaled["mlp_logit"].values[Prompts(scaled).answer, :, 0])


def test_classes_are_compared_by_effects_summed_over_all_tokens_but_the_first(scaled: xr.Dataset) -> None:
    asked = {"quantity": ["mlp_effect"], "alpha": 0.5, "permutations": 99, "groups": False}
    effect = scaled["mlp_effect"].values.copy()
    effect[Prompts(scaled).first] = 1e6
    changed = scaled.assign(mlp_effect=scaled["mlp_effect"].copy(data=effect))
    a, b = (table_in(stratoscope.contrast(of, **asked), "profiles/mlp_effect") for of in (scaled, changed))
    lengths = Prompts(scaled).lengths
    np.testing.assert_allclose(a["mean_a"].values, 2.0 * (lengths[::2] - 1).mean())
    xr.testing.assert_equal(a, b)


def test_a_prompt_of_one_token_keeps_its_effects() -> None:
    trace = model(tuned=False)
    one = trace.isel(token=np.concatenate([[0], np.arange(Prompts(trace).starts[1], trace.sizes["token"])]))
    sums = sums_of_prompts(one, one["mlp_effect"], np.arange(2))
    np.testing.assert_array_equal(sums[0, 0], one["mlp_effect"].values[0, 0])


def ranked(*, targets: int = 2) -> xr.Dataset:
    """Neuron 7 of layer 2 promotes the first target most at token 5, neuron 3 of layer 1 suppresses it most at 4."""
    trace = model(tuned=False)
    shape = (trace.sizes["token"], trace.sizes["layer"], targets, 4)
    dims = {"effect": ("token", "layer", "target", "effect_rank"), "logit": ("token", "layer", "target", "logit_rank")}
    effects, neurons = np.full(shape, 0.1, "float32"), np.zeros(shape, "int32")
    effects[5, 2, 0, 0], neurons[5, 2, 0, 0] = 3.0, 7
    effects[4, 1, 0, 0], neurons[4, 1, 0, 0] = -2.0, 3
    effects[:, :, 1:] = 0.5
    trace = trace.drop_dims("target")
    plan = {"targets": [*PLAN["targets"], {"text": "No"}][:targets]}  # type: ignore[misc]
    return trace.assign(
        neuron_effect=(dims["effect"], effects), effect_neuron=(dims["effect"], neurons),
        neuron_logit=(dims["logit"], -effects), logit_neuron=(dims["logit"], neurons),
    ).assign_attrs(plan=plan)  # fmt: skip


def test_top_ranks_by_effect_or_by_contribution_and_never_by_both() -> None:
    found = stratoscope.top(ranked(), by="effect", n=2)
    assert found[["layer", "neuron", "effect"]].values.tolist() == [[2, 7, 3.0], [1, 3, -2.0]]
    assert not {"direct", "value", "write_norm"} & set(found.columns)
    assert found.attrs["target"] == "“Sorry” against “Sure”"
    said = {note["text"] for note in found.attrs["notes"] if note["id"] == "L28"}
    assert any("not calibrated" in text for text in said)
    assert not any("no effect" in text for text in said)
    direct = stratoscope.top(ranked(), by="direct", n=1)
    assert direct["direct"].tolist() == [-3.0]
    assert any("no effect" in note["text"] for note in direct.attrs["notes"])
    assert set(stratoscope.top(ranked(), by="effect", target="No")["effect"]) == {0.5}


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"by": "effect", "target": "Yes"}, "no target 'Yes'"),
        ({"by": "size"}, "no ranking"),
        ({"by": "direct"}, "neuron_logit"),
    ],
)
def test_top_refuses_what_it_cannot_rank_by(asked: dict[str, str], why: str) -> None:
    trace = ranked() if asked["by"] != "direct" else model(tuned=False)
    with pytest.raises(InputError, match=why):
        stratoscope.top(trace, **asked)


@pytest.mark.parametrize("odd", [None, "x", [], [1], [{"text": 3}], {"targets": 1}, [{"against": "only"}]])
def test_a_plan_that_names_no_targets_gives_them_numbers(odd: object) -> None:
    trace = model(tuned=False, plan={"targets": odd})
    assert Targets(trace).label(0) in ("“target 0”", "“target 0” against “only”")
    assert stratoscope.heatmap(trace, quantity="mlp_logit", prompt=0).axes
    assert stratoscope.info(trace)["explained"]["targets"][0].startswith("“target 0”")


def test_one_prompt_a_table_and_a_netcdf_file_keep_the_targets(tmp_path: Path) -> None:
    trace = ranked()
    one = stratoscope.prompt(trace, 1)
    assert one["neuron_effect"].shape[1:] == trace["neuron_effect"].shape[1:]
    frame = stratoscope.to_frame(one, "neuron_effect")
    assert {"target", "effect_rank", "layer", "position"} <= set(frame.columns)
    stratoscope.portable(trace).to_netcdf(tmp_path / "x.nc")
    with xr.open_dataset(tmp_path / "x.nc") as found:
        np.testing.assert_array_equal(found["neuron_effect"].values, trace["neuron_effect"].values)


def test_a_trace_without_any_target_is_refused_and_none_crashes() -> None:
    trace = model(tuned=False).isel(target=[])
    with pytest.raises(InputError, match="mlp_logit is not in this input"):
        stratoscope.heatmap(trace, quantity="mlp_logit")
    assert stratoscope.info(trace)["explained"] is None
    assert stratoscope.heatmap(trace, prompt=0).axes
