"""The verb: units, planted differences found and nothing else, refusals, and what is said on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import stratoscope
from stratoscope import names
from stratoscope.analysis.contrast import cautions, design
from stratoscope.analysis.contrast.contrast import contrast
from stratoscope.analysis.layers import by_layer
from stratoscope.analysis.result import notes_in
from stratoscope.analysis.units import CLASSES, PAIRS, choose_classes, make_units
from stratoscope.errors import InputError


def simulated(prompts: int = 60, **options: Any) -> xr.Dataset:
    given = {"layers": 10, "d_ff": 64, "heads": 4, "tokens": (14, 20), "seed": 3}
    return stratoscope.simulate(prompts=prompts, **{**given, **options})


@pytest.fixture(scope="module")
def trace() -> xr.Dataset:
    return simulated()


@pytest.fixture(scope="module")
def result(trace: xr.Dataset) -> xr.Dataset:
    return contrast(trace, groups=False)


def relabelled(trace: xr.Dataset, **columns: list[str]) -> xr.Dataset:
    """The trace with other texts on its prompts."""
    changed = {name: xr.Variable(("prompt",), np.array(texts, dtype=object)) for name, texts in columns.items()}
    return trace.assign_coords(changed)


def severities(result: xr.Dataset, line: str) -> set[str]:
    return {note.severity for note in notes_in(result) if note.id == line}


# --- units ------------------------------------------------------------------------------------------------------------


def test_twins_are_pairs_and_their_groups_are_averaged_first(trace: xr.Dataset) -> None:
    by_pair = make_units(trace, "critical", "neutral", groups=False)
    assert by_pair.design == PAIRS
    assert by_pair.sizes == (30, 30)
    by_group = make_units(trace, "critical", "neutral")
    assert by_group.sizes[0] == len(set(trace["group"].values.tolist()))
    values = np.random.default_rng(0).normal(size=(60, 3))
    a, _ = by_group.average(values)
    for number, name in enumerate(by_group.names):
        of_group = (trace["group"].values == name.removeprefix("group ")) & (trace["prompt_class"].values == "critical")
        np.testing.assert_allclose(a[number], values[of_group].mean(axis=0))


def test_without_pairs_and_groups_every_prompt_is_a_unit(trace: xr.Dataset) -> None:
    nothing = [""] * 60
    units = make_units(relabelled(trace, pair=nothing, group=nothing), "critical", "neutral")
    assert units.design == CLASSES
    assert units.sizes == (30, 30)


def test_groups_that_hold_both_classes_are_pairs(trace: xr.Dataset) -> None:
    groups = [f"g{place // 4}" for place in range(60)]
    units = make_units(relabelled(trace, pair=[""] * 60, group=groups), "critical", "neutral")
    assert units.design == PAIRS
    assert units.sizes == (15, 15)


def test_a_few_prompts_without_a_twin_are_left_out_and_named(trace: xr.Dataset) -> None:
    pairs = [str(text) for text in trace["pair"].values]
    pairs[0] = pairs[1] = ""
    units = make_units(relabelled(trace, pair=pairs), "critical", "neutral", groups=False)
    assert units.sizes == (29, 29)
    assert "2 prompts" in units.left_out[0]


def test_the_halves_share_no_unit_and_keep_the_sizes_of_the_classes(trace: xr.Dataset) -> None:
    units = make_units(relabelled(trace, pair=[""] * 60, group=[""] * 60), "critical", "neutral")
    first, second = units.halves(0.5, 7)
    assert not set(first.names) & set(second.names)
    assert first.sizes == second.sizes == (15, 15)
    assert set(first.prompts) | set(second.prompts) == set(units.prompts)


@pytest.mark.parametrize(("a", "b"), [("critical", "nobody"), ("critical", "critical")])
def test_classes_that_cannot_be_compared_are_refused_with_those_there_are(trace: xr.Dataset, a: str, b: str) -> None:
    with pytest.raises(InputError, match="There are: critical, neutral"):
        choose_classes(trace, a, b)


def test_of_three_classes_two_have_to_be_named(trace: xr.Dataset) -> None:
    three = relabelled(trace, prompt_class=[("x", "y", "z")[place % 3] for place in range(60)])
    with pytest.raises(InputError, match="which two"):
        choose_classes(three, None, None)
    assert choose_classes(three, "z", "x") == ("z", "x")


# --- findings ---------------------------------------------------------------------------------------------------------


def test_every_planted_neuron_is_discovered_and_nothing_else(trace: xr.Dataset) -> None:
    result = contrast(trace, groups=False, held_out=0.0)
    kinds = ("selective_neuron", "class_peak")
    large = [one for one in trace.attrs["planted"] if one["kind"] in kinds and abs(one["effect"]) not in (1.0, 1.5)]
    planted = {(one["layer"], one["neuron"]) for one in large}
    assert len(planted) == 3
    layers, neurons = np.nonzero(result["q"].values <= 0.05)
    found = {*zip(layers.tolist(), neurons.tolist(), strict=True)}
    assert planted <= found
    smaller = {(one["layer"], one["neuron"]) for one in trace.attrs["planted"] if one["kind"] in kinds}
    assert len(found - smaller) <= 1


def test_effects_and_p_values_are_those_of_scipy_on_the_tested_half(trace: xr.Dataset, result: xr.Dataset) -> None:
    units = make_units(trace, "critical", "neutral", groups=False)
    tested, _ = units.halves(0.5, 0)
    a, b = tested.average(trace["prompt_mean"].values[tested.prompts])
    expected = stats.ttest_rel(a.astype(float), b.astype(float))
    np.testing.assert_allclose(result["p"], expected.pvalue, rtol=1e-6)
    np.testing.assert_allclose(result["t"], expected.statistic, rtol=1e-5)


def test_the_effect_of_a_discovery_is_measured_on_units_that_did_not_choose_it(
    trace: xr.Dataset, result: xr.Dataset
) -> None:
    units = make_units(trace, "critical", "neutral", groups=False)
    _, held_out = units.halves(0.5, 0)
    row, neuron = int(result["listed_layer"][0]), int(result["listed_neuron"][0])
    a, b = held_out.average(trace["prompt_mean"].values[held_out.prompts, row, neuron].astype(float))
    average = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    expected = (a - b).mean() / average * (1 - 3 / (4 * (len(a) - 1) - 1))
    assert float(result["listed_g"][0]) == pytest.approx(expected, rel=1e-5)
    assert not result.attrs["summary"]["neurons"]["exploratory"]
    beyond = (result["listed_low"] > 0) | (result["listed_high"] < 0)
    same = np.sign(result["listed_g"]) == [
        np.sign(result["g"].sel(layer=layer)[neuron])
        for layer, neuron in zip(result["listed_layer"].values, result["listed_neuron"].values, strict=True)
    ]
    assert result.attrs["summary"]["neurons"]["confirmed"] == int((beyond & same).sum())


def test_a_ranking_without_discoveries_is_called_exploratory_and_says_what_chance_gives(trace: xr.Dataset) -> None:
    rng = np.random.default_rng(0)
    noise = trace.assign(prompt_mean=trace["prompt_mean"].copy(data=rng.normal(size=trace["prompt_mean"].shape)))
    found = contrast(noise, groups=False)
    neurons = found.attrs["summary"]["neurons"]
    assert neurons["exploratory"]
    assert "warning" in severities(found, "L23")
    largest = float(np.abs(found["listed_g"]).max())
    assert neurons["largest_g_by_chance"] * 0.7 < largest < neurons["largest_g_by_chance_95"] * 1.3


def test_the_largest_g_of_chance_is_that_of_arrangements_computed_one_by_one(trace: xr.Dataset) -> None:
    few = contrast(trace.isel(layer=slice(0, 2)), groups=False, permutations=99)
    units = make_units(trace, "critical", "neutral", groups=False)
    a, b = (side[:, :2].reshape(30, -1) for side in units.average(trace["prompt_mean"].values.astype(float)))
    from stratoscope.analysis.permutation import sign_flips

    for weights, found in zip(sign_flips(30, 99, 0).weights[1:6], few["largest_g"].values[:5], strict=True):
        one, other = (np.where(weights[:, None] > 0, *sides) for sides in ((a, b), (b, a)))
        average = np.sqrt((one.var(axis=0, ddof=1) + other.var(axis=0, ddof=1)) / 2)
        expected = np.abs((one - other).mean(axis=0) / average).max() * (1 - 3 / (4 * 29 - 1))
        assert found == pytest.approx(expected, rel=1e-4)


def test_profiles_are_means_over_the_users_tokens_without_the_first(trace: xr.Dataset, result: xr.Dataset) -> None:
    cell = int(np.flatnonzero((result["cell_quantity"] == "attn_entropy_nosink") & (result["cell_row"] == 4))[0])
    values = trace["attn_entropy_nosink"].values[:, 4].mean(axis=1)
    prompt, position = trace["prompt"].values, trace["position"].values
    means = np.array([np.nanmean(values[(prompt == index) & (position > 0)]) for index in range(60)])
    expected = means[::2].mean() - means[1::2].mean()
    assert float(result["profile_difference"][cell]) == pytest.approx(expected, rel=1e-5)


def test_a_quantity_with_a_logarithmic_scale_is_compared_by_ratios(trace: xr.Dataset) -> None:
    doubled = trace.copy(deep=True)
    critical = np.asarray(trace["prompt"].values) % 2 == 0
    doubled["mlp_write_ratio"][critical] = trace["mlp_write_ratio"].values[~critical][: critical.sum()] * 2
    doubled["mlp_write_ratio"][~critical] = trace["mlp_write_ratio"].values[~critical]
    found = contrast(doubled, groups=False, quantity="mlp_write_ratio")
    np.testing.assert_allclose(found["profile_difference"], 1.0, rtol=1e-5)
    np.testing.assert_allclose(found["pair_difference"].values[1:][found["pair_equal"].values[1:]], 1.0, rtol=1e-5)


def test_a_direction_is_tried_on_units_it_has_not_seen(trace: xr.Dataset, result: xr.Dataset) -> None:
    shifted = trace.copy(deep=True)
    spread = trace["prompt_mean"].values[:, 4].std(axis=0)
    shifted["prompt_mean"][::2, 4] = trace["prompt_mean"].values[::2, 4] + 0.5 * spread
    found = contrast(shifted, groups=False)
    assert float(found["baseline_auc"].sel(layer=4)) > 0.9
    others = result.drop_sel(layer=sorted({one["layer"] for one in trace.attrs["planted"] if "layer" in one}))
    assert abs(float(others["baseline_auc"].mean()) - 0.5) < 0.1
    assert ((others["baseline_low"] < 0.45) & (others["baseline_high"] > 0.55)).all()


def test_the_order_of_the_prompts_does_not_matter(trace: xr.Dataset) -> None:
    order = np.random.default_rng(0).permutation(30)
    prompts = np.stack([2 * order, 2 * order + 1], axis=1).ravel()
    tokens = np.concatenate([np.flatnonzero(trace["prompt"].values == prompt) for prompt in prompts])
    mixed = trace.isel(token=tokens, prompt=prompts)
    place = np.argsort(prompts)
    mixed = mixed.assign_coords(prompt=("token", place[trace["prompt"].values[tokens]].astype("int32")))
    one, other = (contrast(each, groups=False, held_out=0.0) for each in (trace, mixed))
    for name in ("p", "g", "auc", "profile_p", "aligned_p"):
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, err_msg=name)


# --- classes of unequal size ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("unequal", "test"), [("subsample", "Welch's t"), ("rank-sum", "rank sum")])
def test_very_unequal_classes_are_balanced_or_ranked_and_it_is_said(
    trace: xr.Dataset, unequal: names.Unequal, test: str
) -> None:
    classes = ["rare" if place < 10 else "common" for place in range(60)]
    alone = relabelled(trace, prompt_class=classes, pair=[""] * 60, group=[""] * 60)
    found = contrast(alone, a="rare", b="common", unequal=unequal, held_out=0.0)
    assert found.attrs["summary"]["test"] == test
    assert "L22" in {note.id for note in notes_in(found)}
    assert found.attrs["summary"]["units"] == (
        "10 of rare and 10 of common" if unequal == "subsample" else "10 of rare and 50 of common"
    )


def test_classes_within_two_to_one_are_all_compared(trace: xr.Dataset) -> None:
    classes = ["a" if place < 20 else "b" for place in range(60)]
    found = contrast(relabelled(trace, prompt_class=classes, pair=[""] * 60, group=[""] * 60), held_out=0.0)
    assert found.attrs["summary"]["units"] == "20 of a and 40 of b"
    assert found.attrs["summary"]["test"] == "Welch's t"


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompts", [2, 10])
def test_too_few_pairs_are_refused_with_the_number_that_would_do(prompts: int) -> None:
    with pytest.raises(InputError, match=r"smallest p-value they could ever give .* at least 6 pairs"):
        contrast(simulated(prompts), groups=False)


def test_six_pairs_are_tested_whole_because_a_half_could_show_nothing() -> None:
    found = contrast(simulated(12), groups=False)
    assert found.attrs["summary"]["units_held_out"] == ""
    assert found.attrs["summary"]["neurons"]["arrangements"] == 64
    assert found.attrs["summary"]["neurons"]["exploratory"]


def test_extremes_are_compared_only_between_pairs_of_equally_many_tokens(trace: xr.Dataset) -> None:
    assert contrast(trace, groups=False, summary="prompt_max").attrs["parameters"]["summary"] == "prompt_max"
    with pytest.raises(InputError, match="grows with the length"):
        contrast(relabelled(trace, pair=[""] * 60, group=[""] * 60), summary="prompt_max")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"held_out": 0.95}, "held_out"),
        ({"alpha": 0.0}, "alpha"),
        ({"permutations": 5}, "permutations"),
        ({"quantity": "peak_neuron"}, "no profile"),
        ({"span": "nowhere"}, "no span"),
        ({"layers": "99"}, "no layer 99"),
    ],
)
def test_an_impossible_option_is_refused_by_name(trace: xr.Dataset, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        contrast(trace, groups=False, **options)


def test_a_trace_without_anything_to_compare_names_what_to_record(trace: xr.Dataset) -> None:
    with pytest.raises(InputError, match="--record"):
        contrast(trace.drop_vars(list(trace.data_vars)), groups=False)


def test_a_trace_without_neurons_or_without_norms_is_compared_as_far_as_it_goes(trace: xr.Dataset) -> None:
    without = contrast(trace.drop_vars(["prompt_mean", "prompt_max", "prompt_min"]), groups=False)
    assert "g" not in without
    assert "profile_p" in without
    only = contrast(trace.drop_vars(set(trace.data_vars) - {"prompt_mean"}), groups=False)
    assert "profile_p" not in only
    assert "g" in only


def test_tokens_of_which_nothing_is_known_count_where_no_token_is_of_the_span(trace: xr.Dataset) -> None:
    spans = np.where(trace["position"].values == 0, names.SPANS.index("special"), -1)
    unknown = trace.assign_coords(span=("token", spans))
    found = contrast(unknown, groups=False)
    np.testing.assert_allclose(found["profile_p"], contrast(trace, groups=False)["profile_p"])
    assert "L17" in {note.id for note in notes_in(found)}
    with pytest.raises(InputError, match="There are: special, user"):
        contrast(trace, groups=False, span="answer")


# --- cautions ---------------------------------------------------------------------------------------------------------


def test_classes_of_different_lengths_are_warned_of_and_equal_ones_are_not(trace: xr.Dataset) -> None:
    units = make_units(trace, "critical", "neutral", groups=False)
    counts = np.where(units.in_a, 20, 20) + np.random.default_rng(0).integers(0, 4, 60)
    assert not cautions.about_lengths(units, counts)
    assert cautions.about_lengths(units, counts + np.where(units.in_a, 3, 0))[0].severity == "warning"
    assert cautions.about_lengths(units, np.where(units.in_a, 9, 8))


def test_template_tokens_that_differ_by_class_are_warned_of(trace: xr.Dataset) -> None:
    units = make_units(trace, "critical", "neutral", groups=False)
    assert not cautions.about_templates(trace, units)
    changed = trace.copy(deep=True)
    span = changed["span"].values.copy()
    second = (trace["position"].values == 1) & (trace["prompt"].values % 2 == 0)
    span[second] = names.SPANS.index("template")
    changed = changed.assign_coords(span=("token", span))
    assert cautions.about_templates(changed, units)[0].id == "L21"


def test_twins_that_differ_before_their_first_edit_are_warned_of(trace: xr.Dataset) -> None:
    """The simulated twins do, because their numbers are drawn; a recording must not."""
    real = trace.assign_attrs(source="real")
    assert "warning" in severities(contrast(real, groups=False), "L11")
    twin = real.copy(deep=True)
    critical = np.flatnonzero(np.asarray(trace["prompt"].values) % 2 == 0)
    for name in ("mlp_write_ratio",):
        twin[name][critical + 0] = twin[name].values[np.flatnonzero(np.asarray(trace["prompt"].values) % 2 == 1)]
    assert severities(contrast(twin, groups=False), "L11") == {"info"}


def test_the_expected_largest_effect_of_noise_is_that_of_measured_null_contrasts() -> None:
    assert cautions.expected_largest_g(460_000, 8, 8) == pytest.approx(3.8, abs=0.3)
    assert cautions.expected_largest_g(460_000, 20, 20) == pytest.approx(1.8, abs=0.15)
    assert cautions.expected_largest_g(460_000, 100, 100) == pytest.approx(0.7, abs=0.05)


# --- how it is read ---------------------------------------------------------------------------------------------------


def test_layers_are_read_one_by_one_whatever_is_chosen(trace: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stratoscope.analysis.layers._BYTES", 1)
    prompts = np.array([0, 3, 4, 50])
    for layer, values in by_layer(trace, "prompt_mean", prompts, [1, 2, 9]):
        np.testing.assert_array_equal(values, trace["prompt_mean"].values[prompts, layer])
    assert [layer for layer, _ in by_layer(trace, "prompt_mean", prompts, [1, 2, 9])] == [1, 2, 9]


def test_a_design_with_hopeless_halves_keeps_all_units_for_the_test(trace: xr.Dataset) -> None:
    units = make_units(trace, "critical", "neutral", groups=False)
    whole = design.make_design(units, unequal="subsample", held_out=0.1, alpha=0.05, seed=0)
    assert whole.held_out is None
    assert whole.tested is units


def test_a_contrast_of_a_trace_on_disk_is_that_of_its_dataset(tmp_path: Path) -> None:
    path = tmp_path / "t.trace"
    stratoscope.simulate(path, prompts=20, layers=3, d_ff=64, heads=2, tokens=12)
    stored = contrast(path, groups=False)
    memory = contrast(simulated(20, layers=3, heads=2, tokens=12, seed=0), groups=False)
    np.testing.assert_allclose(stored["p"], memory["p"])
    assert json.dumps(stored.attrs)
