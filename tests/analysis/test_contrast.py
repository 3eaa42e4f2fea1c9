"""The verb: units, planted differences found and nothing else, refusals, and what is said on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from statsmodels.stats.multitest import multipletests

import stratoscope
from stratoscope import defaults, names
from stratoscope.analysis.classes import design
from stratoscope.analysis.classes.chance import LargestByChance
from stratoscope.analysis.classes.units import CLASSES, PAIRS, Units, choose_classes, make_units
from stratoscope.analysis.contrast import cautions
from stratoscope.analysis.contrast.baseline import _wins, linear_baseline
from stratoscope.analysis.contrast.contrast import contrast
from stratoscope.analysis.lint.lint import lint
from stratoscope.analysis.results.result import notes_in
from stratoscope.analysis.values.layers import by_layer
from stratoscope.errors import InputError
from stratoscope.view.report import contents_of
from stratoscope.words import number


def simulated(prompts: int = 60, **options: Any) -> xr.Dataset:
    given = {"layers": 10, "d_ff": 64, "heads": 4, "tokens": (14, 20), "seed": 3}
    return stratoscope.simulate(prompts=prompts, **{**given, **options})


@pytest.fixture(scope="module")
def trace() -> xr.Dataset:
    return simulated()


@pytest.fixture(scope="module")
def result(trace: xr.Dataset) -> xr.DataTree:
    return contrast(trace, groups=False)


@pytest.fixture(scope="module")
def halved(trace: xr.Dataset) -> xr.DataTree:
    return contrast(trace, groups=False, held_out=0.5)


def relabelled(trace: xr.Dataset, **columns: list[str]) -> xr.Dataset:
    """The trace with other texts on its prompts."""
    changed = {name: xr.Variable(("prompt",), np.array(texts, dtype=object)) for name, texts in columns.items()}
    return trace.assign_coords(changed)


def severities(result: xr.DataTree, line: str) -> set[str]:
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
    for place, name in enumerate(by_group.names):
        of_group = (trace["group"].values == name.removeprefix("group ")) & (trace["prompt_class"].values == "critical")
        np.testing.assert_allclose(a[place], values[of_group].mean(axis=0))


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
    layers, neurons = np.nonzero(result["neurons/q"].values <= 0.05)
    found = {*zip(layers.tolist(), neurons.tolist(), strict=True)}
    assert planted <= found
    smaller = {(one["layer"], one["neuron"]) for one in trace.attrs["planted"] if one["kind"] in kinds}
    assert len(found - smaller) <= 1


def halves_of(trace: xr.Dataset) -> tuple[Units, Units]:
    return make_units(trace, "critical", "neutral", groups=False).halves(0.5, 0)


def test_all_units_are_tested_unless_some_are_held_out_and_p_is_scipys(
    trace: xr.Dataset, result: xr.DataTree, halved: xr.DataTree
) -> None:
    everything = make_units(trace, "critical", "neutral", groups=False)
    assert defaults.HELD_OUT == 0
    for found, tested in ((result, everything), (halved, halves_of(trace)[0])):
        a, b = tested.average(trace["prompt_mean"].values[tested.prompts])
        expected = stats.ttest_rel(a.astype(float), b.astype(float))
        np.testing.assert_allclose(found["neurons/p"], expected.pvalue, rtol=1e-6)
        np.testing.assert_allclose(found["neurons/t"], expected.statistic, rtol=1e-5)
        q = multipletests(expected.pvalue.ravel(), method="fdr_bh")[1]
        assert found.attrs["summary"]["neurons"]["discoveries"] == (q <= 0.05).sum()


def test_what_is_selected_and_measured_in_the_same_units_is_labelled_so(
    result: xr.DataTree, halved: xr.DataTree
) -> None:
    label = "selected, so likely too large; `--held-out 0.5` measures those that half of the units find"
    neurons = result.attrs["summary"]["neurons"]
    assert neurons["discoveries"] > 0
    assert neurons["estimates"] == label
    contents = contents_of(result)
    figures = {figure.name: figure for figure in contents.figures()}
    assert "xploratory" not in " ".join([contents.title, *contents.lead])
    assert any(label in line for line in contents.lead)
    assert "g, selected" in contents.sections[0].tables[0].columns
    assert all(row[-1] == label for row in contents.table.rows)
    for name in ("volcano", "strongest"):
        assert any(label in note.text for note in figures[name].spec.notes)
    assert halved.attrs["summary"]["neurons"]["estimates"] != label


def test_the_effect_of_a_discovery_is_measured_on_units_that_did_not_choose_it(
    trace: xr.Dataset, halved: xr.DataTree
) -> None:
    _, held_out = halves_of(trace)
    row, neuron = int(halved["listed/layer"][0]), int(halved["listed/neuron"][0])
    a, b = held_out.average(trace["prompt_mean"].values[held_out.prompts, row, neuron].astype(float))
    average = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    expected = (a - b).mean() / average * (1 - 3 / (4 * (len(a) - 1) - 1))
    assert float(halved["listed/g"][0]) == pytest.approx(expected, rel=1e-5)
    assert halved.attrs["summary"]["neurons"]["measured"]
    beyond = (halved["listed/low"] > 0) | (halved["listed/high"] < 0)
    same = np.sign(halved["listed/g"]) == [
        np.sign(halved["neurons/g"].sel(layer=layer)[neuron])
        for layer, neuron in zip(halved["listed/layer"].values, halved["listed/neuron"].values, strict=True)
    ]
    assert halved.attrs["summary"]["neurons"]["confirmed"] == int((beyond & same).sum())


def noise(trace: xr.Dataset) -> xr.Dataset:
    values = np.random.default_rng(0).normal(size=trace["prompt_mean"].shape)
    return trace.assign(prompt_mean=trace["prompt_mean"].copy(data=values))


def test_a_ranking_without_discoveries_says_what_chance_gives(trace: xr.Dataset) -> None:
    found = contrast(noise(trace), groups=False)
    neurons = found.attrs["summary"]["neurons"]
    assert not neurons["discoveries"]
    assert severities(found, "L23") == {"info"}
    largest = float(np.abs(found["listed/g"]).max())
    assert neurons["chance"]["largest_g"] * 0.7 < largest < neurons["chance"]["largest_g_95"] * 1.3
    assert any(neurons["chance"]["sentence"] in line for line in contents_of(found).lead)


def test_a_null_result_says_the_effect_that_8_of_10_such_studies_find(trace: xr.Dataset) -> None:
    """Of 30 pairs, from the noncentral t of scipy: in the title, the sentences, the summary and on the volcano."""
    found = contrast(noise(trace), groups=False)
    would = found.attrs["summary"]["neurons"]["would_find"]
    critical = stats.t.isf(0.05 / 640 / 2, 29)
    assert stats.nct.sf(critical, 29, would["d_z"] * np.sqrt(30)) == pytest.approx(0.8, abs=1e-6)
    assert would["g"] == pytest.approx(would["d_z"] * np.sqrt(2), rel=0.05)  # twins of noise do not go together
    size = f"|d_z| ≥ {number(would['d_z'])} (in the middle neuron |g| ≥ {number(would['g'])})"
    contents = contents_of(found)
    assert size in contents.title
    assert any(size in line for line in contents.lead)
    (volcano,) = (figure for figure in contents.figures() if figure.name == "volcano")
    assert any(note.id == "L31" and "for the middle neuron" in note.text for note in volcano.spec.notes)
    assert any(size in note.text for note in notes_in(found) if note.id == "L31")
    profiles, aligned = found.attrs["summary"]["profiles"], found.attrs["summary"]["aligned"]
    for part, line in ((profiles, contents.lead[-2]), (aligned, contents.lead[-1])):
        assert ("would have been found" in line) == (part["discoveries"] == 0)


def test_so_few_that_nothing_could_be_found_is_said(trace: xr.Dataset) -> None:
    """By ranks of 4 and 9 prompts the smallest p-value is 2 / 715: no effect reaches 0.05 / 640."""
    few = noise(trace).isel(prompt=slice(0, 13), token=np.flatnonzero(trace["prompt"].values < 13))
    alone = relabelled(few, prompt_class=["rare"] * 4 + ["common"] * 9, pair=[""] * 13, group=[""] * 13)
    found = contrast(alone, a="rare", b="common", unequal="rank-sum")
    assert found.attrs["summary"]["neurons"]["would_find"]["g"] is None
    assert contents_of(found).title.endswith("one alone could not have been found, however large")
    assert any("one alone could not have been found, however large" in note.text for note in notes_in(found))


def test_the_largest_g_of_chance_is_that_of_arrangements_computed_one_by_one(trace: xr.Dataset) -> None:
    few = contrast(trace.isel(layer=slice(0, 2)), groups=False, permutations=99)
    units = make_units(trace, "critical", "neutral", groups=False)
    a, b = (side[:, :2].reshape(30, -1) for side in units.average(trace["prompt_mean"].values.astype(float)))
    from stratoscope.analysis.statistics.permutation import sign_flips

    for weights, found in zip(sign_flips(30, 200, 0).weights[1:6], few["chance/largest_g"].values[:5], strict=True):
        one, other = (np.where(weights[:, None] > 0, *sides) for sides in ((a, b), (b, a)))
        average = np.sqrt((one.var(axis=0, ddof=1) + other.var(axis=0, ddof=1)) / 2)
        expected = np.abs((one - other).mean(axis=0) / average).max() * (1 - 3 / (4 * 29 - 1))
        assert found == pytest.approx(expected, rel=1e-4)


def test_profiles_are_means_over_the_users_tokens_without_the_first(trace: xr.Dataset, result: xr.DataTree) -> None:
    values = trace["attn_entropy_nosink"].values[:, 4].mean(axis=1)
    prompt, position = trace["prompt"].values, trace["position"].values
    means = np.array([np.nanmean(values[(prompt == index) & (position > 0)]) for index in range(60)])
    expected = means[::2].mean() - means[1::2].mean()
    assert float(result["profiles/attn_entropy_nosink/difference"].sel(layer=4)) == pytest.approx(expected, rel=1e-5)


def test_a_quantity_with_a_logarithmic_scale_is_compared_by_ratios(trace: xr.Dataset) -> None:
    doubled = trace.copy(deep=True)
    critical = np.asarray(trace["prompt"].values) % 2 == 0
    doubled["mlp_write_ratio"][critical] = trace["mlp_write_ratio"].values[~critical][: critical.sum()] * 2
    doubled["mlp_write_ratio"][~critical] = trace["mlp_write_ratio"].values[~critical]
    found = contrast(doubled, groups=False, quantity="mlp_write_ratio")
    np.testing.assert_allclose(found["profiles/mlp_write_ratio/difference"], 1.0, rtol=1e-5)
    of_pair, equal = found["tokens/mlp_write_ratio/difference"].values, found["tokens/equal"].values
    np.testing.assert_allclose(of_pair[1:][equal[1:]], 1.0, rtol=1e-5)


def test_a_direction_is_tried_on_units_it_has_not_seen(trace: xr.Dataset, result: xr.DataTree) -> None:
    shifted = trace.copy(deep=True)
    spread = trace["prompt_mean"].values[:, 4].std(axis=0)
    shifted["prompt_mean"][::2, 4] = trace["prompt_mean"].values[::2, 4] + 0.5 * spread
    found = contrast(shifted, groups=False)
    assert float(found["direction/auc"].sel(layer=4)) > 0.9
    planted = sorted({one["layer"] for one in trace.attrs["planted"] if "layer" in one})
    others = result["direction"].dataset.drop_sel(layer=planted)
    assert abs(float(others["auc"].mean()) - 0.5) < 0.1
    assert ((others["low"] < 0.45) & (others["high"] > 0.55)).all()


def test_the_order_of_the_prompts_does_not_matter(trace: xr.Dataset) -> None:
    order = np.random.default_rng(0).permutation(30)
    prompts = np.stack([2 * order, 2 * order + 1], axis=1).ravel()
    tokens = np.concatenate([np.flatnonzero(trace["prompt"].values == prompt) for prompt in prompts])
    mixed = trace.isel(token=tokens, prompt=prompts)
    place = np.argsort(prompts)
    mixed = mixed.assign_coords(prompt=("token", place[trace["prompt"].values[tokens]].astype("int32")))
    one, other = (contrast(each, groups=False, held_out=0.0) for each in (trace, mixed))
    profiles = [f"profiles/{quantity}/p" for quantity in one["profiles"]]
    (aligned,) = (f"aligned/{quantity}/p" for quantity in one["aligned"])
    for name in ("neurons/p", "neurons/g", "neurons/auc", *profiles, aligned):
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
        f"10 prompts of rare and {10 if unequal == 'subsample' else 50} prompts of common"
    )


@pytest.mark.parametrize("paired", [True, False])
def test_ranks_that_were_asked_for_and_not_used_are_said(trace: xr.Dataset, paired: bool) -> None:
    few = trace.isel(layer=slice(0, 2))
    few = few if paired else relabelled(few, pair=[""] * 60, group=[""] * 60)
    found = contrast(few, groups=False, unequal="rank-sum")
    assert any("`--unequal rank-sum` was not used" in note.text for note in notes_in(found))
    assert found.attrs["summary"]["unequal"] == ""
    assert not any("rank-sum" in note.text for note in notes_in(contrast(few, groups=False)))


def test_neurons_ranked_in_one_half_and_measured_in_the_other_are_said_so(trace: xr.Dataset) -> None:
    found = contrast(noise(trace), groups=False, held_out=0.5)
    contents = contents_of(found)
    (listed,) = (figure for figure in contents.figures() if figure.name == "strongest")
    assert listed.spec.title == "The neurons of largest |g| in the tested units, measured in the others"
    assert "allow for the choice" not in listed.caption
    assert any("0.5 would by chance" in line for line in contents.lead)  # 20 listed, 2.5 % on either side


def test_the_chance_number_does_not_depend_on_the_permutations_or_seed_asked_for(trace: xr.Dataset) -> None:
    few = trace.isel(layer=slice(0, 2))
    assert chance_said(contrast(few, groups=False, permutations=99, seed=5)) == chance_said(contrast(few, groups=False))


def test_classes_within_two_to_one_are_all_compared(trace: xr.Dataset) -> None:
    classes = ["a" if place < 20 else "b" for place in range(60)]
    found = contrast(relabelled(trace, prompt_class=classes, pair=[""] * 60, group=[""] * 60), held_out=0.0)
    assert found.attrs["summary"]["units"] == "20 prompts of a and 40 prompts of b"
    assert found.attrs["summary"]["test"] == "Welch's t"


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompts", [2, 10])
def test_too_few_pairs_are_refused_with_the_number_that_would_do(prompts: int) -> None:
    with pytest.raises(InputError, match=r"smallest p-value they could ever give .* at least 6 pairs"):
        contrast(simulated(prompts), groups=False)


def test_six_pairs_are_tested_whole_because_a_half_could_show_nothing() -> None:
    found = contrast(simulated(12), groups=False, held_out=0.5)
    assert found.attrs["summary"]["units_held_out"] == ""
    assert found.attrs["summary"]["neurons"]["arrangements"] == 64
    assert not found.attrs["summary"]["neurons"]["measured"]
    assert any("Nothing is held out" in note.text for note in notes_in(found))
    assert found["chance"].sizes["arrangement"] == 31  # half of the others: in its mirror an exchange is the same
    estimates = found.attrs["summary"]["neurons"]["estimates"]
    assert estimates == "selected, so likely too large; more prompts would measure them"


def test_extremes_are_compared_only_between_pairs_of_equally_many_tokens(trace: xr.Dataset) -> None:
    assert contrast(trace, groups=False, statistic="prompt_max").attrs["parameters"]["statistic"] == "prompt_max"
    with pytest.raises(InputError, match="grows with the length"):
        contrast(relabelled(trace, pair=[""] * 60, group=[""] * 60), statistic="prompt_max")


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
    assert "neurons" not in without
    assert "profiles" in without
    only = contrast(trace.drop_vars(set(trace.data_vars) - {"prompt_mean"}), groups=False)
    assert "profiles" not in only
    assert "neurons" in only


def test_tokens_of_which_nothing_is_known_count_where_no_token_is_of_the_span(trace: xr.Dataset) -> None:
    spans = np.where(trace["position"].values == 0, names.SPANS.index("special"), -1)
    unknown = trace.assign_coords(span=("token", spans))
    found = contrast(unknown, groups=False)
    known = contrast(trace, groups=False)
    for quantity, table in known["profiles"].children.items():
        np.testing.assert_allclose(found[f"profiles/{quantity}/p"], table["p"])
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


# --- what a number stands on ------------------------------------------------------------------------------------------


def chance_said(result: xr.DataTree) -> str:
    return str(result.attrs["summary"]["neurons"]["chance"]["sentence"])


@pytest.mark.parametrize("units", ["8 pairs", "6 groups of pairs", "8 prompts"])
def test_lint_and_contrast_say_one_chance_number_of_the_same_units(units: str) -> None:
    few = simulated(16, layers=4, d_ff=300)
    few = few.assign(prompt_mean=few["prompt_mean"].copy(data=noise(few)["prompt_mean"].values))
    labels = {
        "8 pairs": {"group": [""] * 16},
        "6 groups of pairs": {"group": [f"g{min(place // 2, 5)}" for place in range(16)]},
        "8 prompts": {"group": [""] * 16, "pair": [""] * 16},
    }[units]
    trace = relabelled(few, **labels)
    found = contrast(trace)
    findings = lint(trace)
    (said,) = (str(text) for text in findings["findings/text"].values[findings["findings/id"].values == "L23"])
    assert said == chance_said(found)
    assert f"1,200 neurons in {units} of critical" in said
    figures = {figure.name: figure.spec for figure in contents_of(found).figures()}
    standing = {name for name, spec in figures.items() if any(said == note.text for note in spec.notes)}
    assert standing == {"volcano", "strongest"}


@pytest.mark.parametrize(("of_a", "of_b"), [(8, 8), (20, 20), (12, 20)])
def test_the_chance_number_of_independent_noise_is_that_of_theory(of_a: int, of_b: int) -> None:
    """Half of all studies exceed J t √(1/n_a + 1/n_b) at Student's quantile of 1 − (1 − ½^(1/m)) / 2."""
    neurons, df = 20_000, of_a + of_b - 2
    values = np.random.default_rng(1).normal(size=(of_a + of_b, neurons)).astype("float32")
    prompts = np.arange(of_a + of_b)
    named = tuple(map(str, prompts))
    units = Units("a", "b", CLASSES, prompts, prompts, prompts < of_a, named, np.full(len(prompts), -1))
    how = design.make_design(units, unequal="subsample", held_out=0, alpha=0.05, seed=0)
    largest = LargestByChance(how, units)
    largest.add(values[:of_a], values[of_a:])
    t = stats.t.isf((1 - 0.5 ** (1 / neurons)) / 2, df)
    expected = (1 - 3 / (4 * df - 1)) * t * np.sqrt(1 / of_a + 1 / of_b)
    assert largest.chance().middle == pytest.approx(expected, rel=0.05)


def scipys(what: str, a: np.ndarray, b: np.ndarray) -> float:
    """P-value of scipy's test of pairs, by ranks, or Welch's."""
    if what == "pairs":
        return float(stats.ttest_rel(a, b).pvalue)
    if what == "rank-sum":
        return float(stats.mannwhitneyu(a, b, method="exact").pvalue)
    return float(stats.ttest_ind(a, b, equal_var=False).pvalue)


@pytest.mark.parametrize("held_out", [0.0, 0.5])
@pytest.mark.parametrize("what", ["pairs", "classes", "rank-sum", "subsample"])
def test_all_columns_of_the_table_speak_of_the_same_units(trace: xr.Dataset, what: str, held_out: float) -> None:
    """Recomputed with scipy from the prompts that are said to be tested; what was held out has a table of its own."""
    if what != "pairs":
        classes = ["a" if place % 2 or (place > 16 and what != "classes") else "b" for place in range(60)]
        trace = relabelled(trace, prompt_class=classes, pair=[""] * 60, group=[""] * 60)
    unequal: names.Unequal = "rank-sum" if what == "rank-sum" else "subsample"
    found = contrast(trace, groups=False, held_out=held_out, unequal=unequal)
    units = make_units(trace, found.attrs["summary"]["a"], found.attrs["summary"]["b"], groups=False)
    how = design.make_design(units, unequal=unequal, held_out=held_out, alpha=0.05, seed=0)
    contents = contents_of(found)
    tables = [(how.tested, contents.table)]
    if how.held_out is not None:
        tables.append((how.held_out, contents.more["held_out.csv"]))
    assert (how.held_out is not None) == bool(held_out) == bool(contents.more)
    for part, table in tables:
        a, b = part.average(trace["prompt_mean"].values[part.prompts].astype(float))
        for row in table.rows[:3]:
            told = dict(zip(table.columns, row, strict=True))
            one, other = (side[:, told["layer"], told["neuron"]] for side in (a, b))
            assert (told["count_a"], told["count_b"]) == (len(one), len(other)) == part.sizes
            assert told["mean_a"] == pytest.approx(one.mean(), rel=1e-5)
            assert told["mean_b"] == pytest.approx(other.mean(), rel=1e-5)
            assert told["difference"] == pytest.approx(one.mean() - other.mean(), rel=1e-4)
            assert told["auc"] == pytest.approx(stats.mannwhitneyu(one, other).statistic / len(one) / len(other))
            if part is how.tested:
                assert told["p"] == pytest.approx(scipys(what, one, other), rel=1e-4)
    figures = {figure.name: figure.spec for figure in contents.figures()}
    assert figures["volcano"].subtitle.startswith(how.tested.in_words())
    assert figures["strongest"].subtitle.startswith((how.held_out or how.tested).in_words())
    assert figures["profiles"].subtitle.startswith(how.units.in_words())
    assert figures["baseline"].subtitle.startswith(how.units.in_words())


def test_groups_of_pairs_are_not_called_pairs(trace: xr.Dataset) -> None:
    found = contrast(trace.isel(layer=slice(0, 2)))
    groups = len(set(trace["group"].values.tolist()))
    said = f"{groups} groups of pairs of critical and neutral (30 pairs)"
    assert found.attrs["summary"]["units"] == said
    contents = contents_of(found)
    assert any(said in line for line in contents.lead)
    assert f" {groups} pairs" not in " ".join([*contents.lead, *(note.text for note in notes_in(found))])
    (aligned,) = (figure.spec for figure in contents.figures() if figure.name == "aligned")
    assert any("groups of pairs reach +1" in note.text for note in aligned.notes)


def test_prompts_without_a_value_are_left_out_with_their_twin_and_named(trace: xr.Dataset) -> None:
    holes = trace.copy(deep=True)
    holes["prompt_mean"][5] = np.nan
    found = contrast(holes, groups=False)
    others = np.setdiff1d(np.arange(60), [4, 5])
    tokens = np.flatnonzero(np.isin(trace["prompt"].values, others))
    place = np.searchsorted(others, trace["prompt"].values[tokens]).astype("int32")
    without = trace.isel(prompt=others, token=tokens).assign_coords(prompt=("token", place))
    expected = contrast(without, groups=False)
    for name in ("neurons/p", "neurons/mean_a", "neurons/p_family", "neurons/g", "chance/largest_g"):
        np.testing.assert_allclose(found[name], expected[name], err_msg=name)
    assert found.attrs["summary"]["units"] == "29 pairs of critical and neutral"
    assert any("Left out: 1 prompt without prompt_mean" in note.text for note in notes_in(found))


def test_warnings_are_about_the_prompts_that_are_compared(trace: xr.Dataset) -> None:
    """A third class of longer prompts is no reason to doubt a contrast of the two others."""
    classes = [str(name) for name in trace["prompt_class"].values]
    counts = np.bincount(trace["prompt"].values)
    for place in np.flatnonzero(counts >= np.quantile(counts, 0.9)):
        classes[place] = "long"
    three = relabelled(trace, prompt_class=classes, pair=[""] * 60, group=[""] * 60)
    found = contrast(three, a="critical", b="neutral")
    assert not [note for note in notes_in(found) if "long" in note.text]


def test_the_area_under_the_curve_of_a_direction_counts_ties_half_as_scipy_does() -> None:
    random = np.random.default_rng(0)
    a, b = (random.integers(0, 5, (2, 3, count)).astype(np.float32) for count in (9, 7))
    expected = [[stats.mannwhitneyu(*both).statistic / 63 for both in zip(*sides)] for sides in zip(a, b)]  # noqa: B905
    np.testing.assert_allclose(_wins(a, b), expected, rtol=1e-6)


@pytest.mark.parametrize("paired", [True, False])
def test_the_band_of_random_labels_is_made_as_its_line_is(paired: bool) -> None:
    """Where nothing is true, the line leaves its band as often as the band says: in 1 of 20 cases."""
    random = np.random.default_rng(0)
    outside = []
    for seed in range(160):
        shared = random.normal(size=(8, 30)) if paired else 0
        a, b = shared + random.normal(size=(8, 30)), shared + random.normal(size=(8, 30))
        auc, controls = linear_baseline(a, b, paired=paired, seed=seed)
        low, high = np.quantile(controls, (0.1, 0.9))
        outside.append(not low <= auc <= high)
    assert 0.1 < np.mean(outside) < 0.3  # at 80 %, so that so few cases tell


# --- how it is read ---------------------------------------------------------------------------------------------------


def test_layers_are_read_one_by_one_whatever_is_chosen(trace: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stratoscope.analysis.values.layers._BYTES", 1)
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
    np.testing.assert_allclose(stored["neurons/p"], memory["neurons/p"])
    assert json.dumps(stored.attrs)
