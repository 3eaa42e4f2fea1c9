"""What promotes and suppresses a target: found where it was planted, with the sums and differences that must hold."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from stratoscope.analysis.results.result import notes_in, rows_in, table_in
from stratoscope.analysis.suppression.neurons import component_name
from stratoscope.analysis.suppression.suppression import suppression
from stratoscope.errors import InputError
from stratoscope.trace.prompts import Prompts
from suppression_traces import explained


@pytest.fixture(scope="module")
def trace() -> xr.Dataset:
    return explained(prompts=24)


@pytest.fixture(scope="module")
def one(trace: xr.Dataset) -> xr.DataTree:
    return suppression(trace, prompt="critical-02")


@pytest.fixture(scope="module")
def classes(trace: xr.Dataset) -> xr.DataTree:
    return suppression(trace, groups=False, permutations=99)


def planted(trace: xr.Dataset) -> list[tuple[int, int]]:
    return [(one["layer"], one["neuron"]) for one in trace.attrs["planted"] if one["kind"] == "suppressor"]


def changed(trace: xr.Dataset, **values: np.ndarray) -> xr.Dataset:
    return trace.assign({name: trace[name].copy(data=of) for name, of in values.items()})


def test_the_planted_neurons_stand_first_with_what_set_them_off(trace: xr.Dataset, one: xr.DataTree) -> None:
    table = table_in(one, "neurons")
    suppressing = table.isel(listed=table["total"].values < 0)
    found = list(zip(suppressing["layer"].values.tolist(), suppressing["neuron"].values.tolist(), strict=True))
    assert found[:2] == planted(trace)
    assert suppressing["total"].values[:2].tolist() == [-6.0, -3.0]
    triggers = suppressing["source_token"].values[:2, 0, 0].tolist()
    assert set(triggers) <= {" medicine", " knife", " ladder", " fever", " wire"}
    assert (suppressing["source_share"].values[:2, 0, 0] > 0.9).all()
    assert suppressing["write_token"].values[:2, 5].tolist() == ["Sorry", "Sorry"]
    assert suppressing["direct"].values[1] == 0  # it acts at an earlier token


def test_the_sum_is_the_models_own_logit_and_a_row_that_is_wrong_shows(trace: xr.Dataset, one: xr.DataTree) -> None:
    (sums,) = rows_in(one, "sum")
    assert sums["sum"] == sums["model"] == sum(sums[name] for name in ("embedding", "attention", "mlp"))
    wrong = trace["mlp_logit"].values.copy()
    wrong[Prompts(trace).answer[2], 3] += 0.25
    (sums,) = rows_in(suppression(changed(trace, mlp_logit=wrong), prompt="critical-02"), "sum")
    assert sums["error"] == 0.25


def test_biases_and_what_no_scale_touches_are_terms_of_their_own(trace: xr.Dataset) -> None:
    given = trace.assign(
        mlp_bias_logit=xr.full_like(trace["mlp_logit"], 0.5),
        attn_bias_logit=xr.full_like(trace["attn_logit"], 1.0),
        norm_bias_logit=trace["norm_bias_logit"] + 2,
        head_bias_logit=trace["head_bias_logit"] - 1,
    )
    (plain,), (sums,) = (rows_in(suppression(of, prompt=0), "sum") for of in (trace, given))
    layers = trace.sizes["layer"]
    assert sums["biases"] == 1.5 * layers
    assert sums["mlp"] == plain["mlp"] - 0.5 * layers
    assert (sums["norm_bias"], sums["head_bias"], sums["sum"]) == (2, -1, plain["sum"] + 1)


def test_a_large_direct_contribution_is_no_reason_to_stand_among_total_effects(trace: xr.Dataset) -> None:
    logit = trace["strongest_logit"].values.copy()
    logit[2] = np.arange(20)[::-1] * 100.0
    table = table_in(suppression(changed(trace, strongest_logit=logit), prompt=2), "neurons")
    totals = table["total"].values
    assert (np.diff(totals[totals > 0]) <= 0).all()
    assert (np.diff(totals[totals < 0]) >= 0).all()


def test_effects_of_the_first_token_are_in_no_sum_of_a_layer(trace: xr.Dataset) -> None:
    effect = trace["mlp_effect"].values.copy()
    effect[Prompts(trace).first] = 1e6
    (a, b) = (table_in(suppression(of, prompt=0), "depth") for of in (trace, changed(trace, mlp_effect=effect)))
    np.testing.assert_array_equal(a["mlp_total"], b["mlp_total"])


def test_a_neuron_at_a_first_token_is_not_listed_though_an_older_trace_ranks_it(trace: xr.Dataset) -> None:
    position, effect = (trace[f"strongest_{name}"].values.copy() for name in ("position", "effect"))
    assert (position != 0).all()  # of the simulator, as of a recording
    position[0, 0, 0], effect[0, 0, 0] = 0, 1e6
    older = changed(trace, strongest_position=position, strongest_effect=effect)
    before, after = (table_in(suppression(of, prompt=0), "neurons") for of in (trace, older))
    assert before["total"].values[1:].tolist() == after["total"].values.tolist()


def test_answers_that_were_generated_have_no_effects_and_spoil_no_sum(trace: xr.Dataset) -> None:
    last = Prompts(trace).stops[0] - 1
    effect = trace["attn_effect"].values.copy()
    effect[last] = np.nan
    table = table_in(suppression(changed(trace, attn_effect=effect), prompt=0), "depth")
    assert np.isfinite(table["attn_total"].values).all()


# --- classes --------------------------------------------------------------------------------------------------------


def test_only_the_planted_layers_differ_between_the_classes(trace: xr.Dataset, classes: xr.DataTree) -> None:
    rows = rows_in(classes, "total_compared")
    found = {(row["part"], row["layer"]) for row in rows if row["p_family"] <= 0.05}
    assert found == {("mlp", layer) for layer, _ in planted(trace)}
    table = table_in(classes, "neurons")
    first = int(np.flatnonzero(table["total"].values < 0)[0])
    assert (int(table["layer"][first]), int(table["neuron"][first])) in planted(trace)
    critical, neutral = table["in_prompts"].values[first].tolist()
    assert critical > 6
    assert neutral == 0


def test_a_neuron_listed_in_one_prompt_of_many_keeps_its_effect(trace: xr.Dataset) -> None:
    """What was not recorded in the other prompts is no zero: neither is the mean smaller nor the rank lower."""
    neuron, effect = trace["strongest_neuron"].values.copy(), trace["strongest_effect"].values.copy()
    rare = int(neuron.max()) + 1
    neuron[2, 0, 10], effect[2, 0, 10] = rare, -50.0
    table = table_in(suppression(changed(trace, strongest_neuron=neuron, strongest_effect=effect)), "neurons")
    first = table.isel(listed=int(np.flatnonzero(table["total"].values < 0)[0]))
    assert int(first["neuron"]) == rare
    assert sorted(first["in_prompts"].values.tolist()) == [0, 1]
    np.testing.assert_array_equal(np.sort(first["mean"].values), [-50.0, np.nan])


def test_unchanged_layers_are_not_blamed_for_what_the_final_norm_did(trace: xr.Dataset) -> None:
    """Twins whose writes are equal and whose final scales differ: only the final norm differs."""
    pair = trace.isel(
        prompt=[0, 1], token=np.concatenate([np.arange(*Prompts(trace)._bounds[[n, n + 1]]) for n in (0, 1)])
    )
    rows = Prompts(pair).answer
    scale = np.array([0.5, 0.25])
    arrays = {}
    for name in ("embed_logit", "attn_logit", "mlp_logit", "head_logit"):
        values = pair[name].values.copy()
        values[rows[1]] = values[rows[0]] / 2
        arrays[name] = values
    twins = changed(pair, **arrays, final_scale=scale)
    found = {(row["part"], row["layer"]): row for row in rows_in(suppression(twins), "direct_compared")}
    norm = found.pop(("final norm", -1))
    assert max(abs(row["difference"]) for row in found.values()) < 1e-12
    first, second = (row["sum"] for row in rows_in(suppression(twins), "sum"))
    assert norm["difference"] == pytest.approx(first - second)


def test_rows_of_a_comparison_sum_to_the_difference_of_the_logits(trace: xr.Dataset, classes: xr.DataTree) -> None:
    rows = rows_in(classes, "direct_compared")
    sums = rows_in(classes, "sum")
    classes_of = [row["prompt_class"] for row in rows_in(classes, "prompts")]
    mean = {
        name: np.mean([one["sum"] for one, of in zip(sums, classes_of, strict=True) if of == name])
        for name in set(classes_of)
    }
    assert sum(row["difference"] for row in rows) == pytest.approx(mean["critical"] - mean["neutral"])


def test_one_pair_is_shown_and_not_tested(trace: xr.Dataset) -> None:
    result = suppression(trace, prompt=["critical-01", "neutral-01"])
    rows = rows_in(result, "total_compared")
    assert any(row["difference"] for row in rows)
    assert all(np.isnan(row[name]) for row in rows for name in ("p", "q", "p_family", "t"))
    assert any("smallest p-value" in note.text for note in notes_in(result))


def test_without_the_final_scale_nothing_is_subtracted(trace: xr.Dataset) -> None:
    result = suppression(trace.drop_vars("final_scale"), groups=False, permutations=99)
    assert "direct_compared" not in result
    assert any(note.id == "L29" and "final_scale" in note.text for note in notes_in(result))


def test_one_class_is_described_and_compared_with_none(trace: xr.Dataset) -> None:
    result = suppression(trace, prompt_class="neutral")
    assert {row["prompt_class"] for row in rows_in(result, "prompts")} == {"neutral"}
    assert "total_compared" not in result
    assert table_in(result, "means").sizes["class"] == 1


def test_prompts_that_do_not_share_a_target_are_warned_of(trace: xr.Dataset) -> None:
    token = trace["target_token"].values.copy()
    token[3] += 1
    given = changed(trace, target_token=token)
    given.attrs["plan"] = {**trace.attrs["plan"], "targets": "top"}
    result = suppression(given)
    assert any(note.id == "L24" and note.severity == "warning" for note in notes_in(result))
    assert result.attrs["summary"]["target"] == "each prompt's likeliest token against its second"


# --- what a trace lacks, and what is asked wrongly ------------------------------------------------------------------


def test_either_group_alone_gives_its_half(trace: xr.Dataset) -> None:
    of_effects = [
        name for name in trace.data_vars if "effect" in name or "strongest" in name or "read" in name or "write" in name
    ]
    direct = suppression(trace.drop_vars(of_effects), prompt=0)
    assert {"neurons", "calibration"}.isdisjoint(direct.children)
    assert set(table_in(direct, "depth").data_vars) == {"attn_direct", "mlp_direct"}
    of_logits = [
        name for name in trace.data_vars if name.endswith("_logit") and name not in ("strongest_logit", "write_logit")
    ]
    total = suppression(trace.drop_vars([*of_logits, "logit_neuron", "final_scale"]), prompt=0)
    assert {"sum", "direct_neurons"}.isdisjoint(total.children)
    assert set(table_in(total, "depth").data_vars) == {"attn_total", "mlp_total"}


def test_effects_of_a_model_without_mlps_are_those_of_its_mixers(trace: xr.Dataset) -> None:
    of_neurons = [str(name) for name in trace if str(name).startswith(("strongest_", "read_", "neuron_read", "write_"))]
    without = trace.drop_vars([*of_neurons, "mlp_effect", "neuron_effect", "effect_neuron"])
    found = suppression(without, prompt=0)
    assert found.attrs["summary"]["total"]
    assert np.isfinite(found["depth"]["attn_total"]).all()
    assert np.isnan(found["depth"]["mlp_total"]).all()


def test_a_trace_without_targets_names_the_command(trace: xr.Dataset) -> None:
    with pytest.raises(InputError, match="--record logits,effects --targets"):
        suppression(trace.drop_vars(["target_token"]))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"target": "Sory"}, "no target 'Sory'"),
        ({"prompt": "nobody"}, "no prompt called"),
        ({"prompt_class": "odd"}, "no prompt of class 'odd'"),
        ({"prompt_class": ["critical", "neutral", "critical2"]}, "no prompt of class 'critical2'"),
        ({"alpha": 0.9}, "out of range"),
        ({"permutations": 3}, "too few"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(trace: xr.Dataset, asked: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        suppression(trace, **asked)  # type: ignore[arg-type]


def test_nothing_that_is_strongest_and_nothing_but_zeros_is_told_as_it_is(trace: xr.Dataset) -> None:
    zeros = {name: np.zeros_like(of.values) for name, of in trace.data_vars.items() if of.dtype.kind == "f"}
    none = {
        name: np.full_like(trace[name].values, -1)
        for name in (
            "strongest_neuron",
            "strongest_position",
            "strongest_layer",
            "logit_neuron",
            "write_token",
            "read_through",
        )
    }
    result = suppression(changed(trace, **(zeros | none | {"final_scale": np.ones(24)})), prompt=0)
    assert table_in(result, "neurons").sizes["listed"] == 0
    assert table_in(result, "heads").sizes["listed"] == 0
    assert table_in(result, "direct_neurons").sizes["listed"] == 0


def test_values_that_are_missing_stay_missing(trace: xr.Dataset) -> None:
    missing = {
        name: of.values.copy()
        for name, of in trace.data_vars.items()
        if name in ("attn_logit", "attn_effect", "neuron_read")
    }
    missing["attn_logit"][:, 2] = missing["attn_effect"][:, 2] = np.nan  # a layer without attention
    missing["neuron_read"][..., 1] = np.nan  # an MLP without a gate
    result = suppression(changed(trace, **missing), prompt="critical-02")
    depth = table_in(result, "depth")
    assert np.isnan(depth["attn_direct"].values[0, 2])
    assert np.isnan(depth["attn_total"].values[0, 2])
    table = table_in(result, "neurons")
    assert (table["source_position"].values[:, 1] == -1).all()
    assert np.isnan(table["read"].values[:, 1]).all()


def test_components_are_called_by_the_numbers_of_their_layers() -> None:
    layers = np.array([22, 23])
    named = [component_name(one, layers) for one in range(-1, 6)]
    assert named == ["", "embedding", "L22 attention", "L22 MLP", "L23 attention", "L23 MLP", "biases"]
