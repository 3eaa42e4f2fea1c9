"""Attacks on published files: what leaks is found, what does not is not, and what cannot run says why."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import stratoscope
from stratoscope.publish.attacks.attacks import attacks_on
from stratoscope.publish.attacks.class_means import class_means, prompt_rows
from stratoscope.publish.attacks.differencing import only_in_one
from stratoscope.publish.attacks.outcome import Attack
from stratoscope.publish.attacks.permutation import match, permutation_attack
from stratoscope.publish.attacks.weights import column_norms, column_products, weight_attacks
from stratoscope.publish.private.private import private_profiles
from stratoscope.publish.profiles.profiles import class_profiles
from stratoscope.trace.prompts import Prompts


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(2)


@pytest.fixture(scope="module")
def parts() -> list[xr.Dataset]:
    """Three parts of one pretended model's prompts."""
    prompts = Prompts(stratoscope.simulate(prompts=300, layers=4, d_ff=256, seed=3))
    return [prompts.part(start, start + 100) for start in (0, 100, 200)]


@pytest.fixture(scope="module")
def recordings(parts: list[xr.Dataset]) -> tuple[xr.Dataset, xr.Dataset]:
    """What is published, and the attacker's other prompts."""
    return parts[0], parts[1]


def only(attacks: list[Attack], name: str) -> Attack:
    (found,) = [one for one in attacks if one.name == name]
    return found


def gain(attack: Attack) -> float:
    assert attack.gain is not None, attack.reason
    return attack.gain.value


# --- all together -----------------------------------------------------------------------------------------------------


def test_a_trace_without_text_gives_its_tokens_members_neurons_and_columns_away(
    recordings: tuple[xr.Dataset, xr.Dataset],
) -> None:
    original, reference = recordings
    published = original.drop_vars(["text", "token_id", "span"]).assign_attrs(source="real")
    attacks = attacks_on(published, original=original, reference=reference)
    for name in (
        "look-up of peak neurons",
        "membership from rows of prompts",
        "permutation matching",
        "norms of columns",
    ):
        assert only(attacks, name).succeeds, name
    assert gain(only(attacks, "membership from rows of prompts")) == 0.5


def test_class_profiles_give_no_token_away(recordings: tuple[xr.Dataset, xr.Dataset]) -> None:
    original, reference = recordings
    attacks = attacks_on(class_profiles(original), original=original, reference=reference)
    found = only(attacks, "look-up of class profiles")
    assert gain(found) < 0.01
    assert not found.succeeds
    assert "no row" in only(attacks, "membership from rows of prompts").reason


def test_means_of_neurons_give_members_away_and_means_of_other_prompts_do_not(parts: list[xr.Dataset]) -> None:
    original, reference, others = parts
    name, given = "membership from neuron means", {"original": original, "reference": reference}
    assert gain(only(attacks_on(class_profiles(original, neurons=True), **given), name)) > 0.3
    assert not only(attacks_on(class_profiles(others, neurons=True), **given), name).succeeds


def test_noisy_means_of_bands_of_layers_are_attacked_as_those_of_layers_are(
    recordings: tuple[xr.Dataset, xr.Dataset],
) -> None:
    pytest.importorskip("opendp")
    original, reference = recordings
    published = private_profiles(original, epsilon=10, bands=2)
    attacks = attacks_on(published, original=original, reference=reference)
    assert only(attacks, "membership from class profiles").count == 150
    assert only(attacks, "look-up of class profiles").reason == ""
    assert np.allclose(prompt_rows(original, ["resid_norm"], 5), prompt_rows(original, ["resid_norm"]))


def test_attacks_that_cannot_run_say_what_they_need(recordings: tuple[xr.Dataset, xr.Dataset]) -> None:
    profiles = class_profiles(recordings[0])
    attacks = attacks_on(profiles)
    assert all(one.recovered is None and one.reason for one in attacks)
    assert "original" in only(attacks, "look-up").reason
    assert "other prompts" in only(attacks_on(profiles, original=recordings[0]), "membership").reason


def test_class_means_of_a_file_are_the_means_of_its_prompts(recordings: tuple[xr.Dataset, xr.Dataset]) -> None:
    original, _ = recordings
    rows = prompt_rows(original, ("mlp_write_ratio", "prompt_mean"))
    critical = rows[np.array(Prompts(original).classes) == "critical"].mean(axis=0)
    profiles, neurons = class_means(original), class_means(original, "neurons")
    assert profiles is not None
    assert neurons is not None
    assert np.allclose(profiles.only(["mlp_write_ratio"]).means["critical"], critical[:4])
    assert np.allclose(neurons.means["critical"], critical[4:])
    assert neurons.counts == {"critical": 50, "neutral": 50}


@pytest.mark.parametrize("record", ["peaks", "norms", "prompts", "attention", "neurons"])
def test_every_attack_runs_on_a_trace_of_one_group_or_says_why_not(record: str) -> None:
    prompts = Prompts(stratoscope.simulate(prompts=40, layers=3, d_ff=64, record=(record,)))
    original, reference = prompts.part(0, 20), prompts.part(20, 40)
    unlabelled = original.assign_coords(prompt_class=("prompt", [""] * 20))
    other = stratoscope.simulate(prompts=20, layers=5, d_ff=32, record=(record,))
    for given in ((original, reference), (unlabelled, reference), (original, other)):
        attacks = attacks_on(given[0].assign_attrs(source="real"), original=given[0], reference=given[1])
        assert all((one.recovered is None) == bool(one.reason) for one in attacks)


def test_tokens_without_ids_are_not_looked_up(recordings: tuple[xr.Dataset, xr.Dataset]) -> None:
    original, reference = recordings
    imported = original.assign_coords(token_id=("token", np.full(original.sizes["token"], -1, np.int32)))
    assert "ids" in only(attacks_on(original, original=imported, reference=reference), "look-up").reason


# --- differencing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [[7], [3, 11, 18]])
def test_what_only_one_of_two_means_has_is_named(random: np.random.Generator, gone: list[int]) -> None:
    prompts = random.normal(size=(40, 120)).astype(np.float32)
    kept = np.setdiff1d(np.arange(25), gone)
    found = only_in_one(prompts[:25].mean(axis=0), prompts[kept].mean(axis=0), prompts)
    assert found.prompts.tolist() == gone
    assert found.error < 1e-3


def test_means_with_noise_name_nobody(random: np.random.Generator) -> None:
    prompts = random.normal(size=(40, 120))
    noisy = [prompts[:count].mean(axis=0) + random.normal(0, 0.3, 120) for count in (25, 24)]
    assert only_in_one(noisy[0], noisy[1], prompts).error > 0.5


def test_a_prompt_left_out_of_a_second_publication_is_named(recordings: tuple[xr.Dataset, xr.Dataset]) -> None:
    original, reference = recordings
    less = class_profiles(Prompts(original).part(0, 99))
    given = {"original": original, "reference": reference}
    attack = only(attacks_on(less, earlier=[class_profiles(original)], **given), "differencing")
    assert attack.count == 1  # of the other class nothing has changed
    assert attack.recovered is not None
    assert attack.recovered.value == 1
    assert attack.baseline is not None
    assert attack.baseline.value == 1 / 200
    same = only(attacks_on(less, earlier=[less], **given), "differencing")
    assert same.recovered is None


# --- permutation ------------------------------------------------------------------------------------------------------


def test_neurons_that_differ_are_matched_and_neurons_that_do_not_are_not(random: np.random.Generator) -> None:
    known, key = random.normal(size=(200, 6)), random.permutation(200)
    assert (match(known[key] + random.normal(0, 0.01, (200, 6)), known) == key).mean() > 0.95
    assert (match(random.normal(size=(200, 6)), known) == key).mean() < 0.05


def test_a_trace_without_statistics_of_neurons_is_not_matched(recordings: tuple[xr.Dataset, xr.Dataset]) -> None:
    original, reference = recordings
    bare = original.drop_vars(["prompt_mean", "prompt_max", "prompt_min"])
    assert "no statistics" in permutation_attack(bare, reference).reason


# --- weights ----------------------------------------------------------------------------------------------------------


def test_norms_of_columns_that_are_planted_are_recovered(random: np.random.Generator) -> None:
    true, neuron = random.uniform(0.5, 2, 30), random.integers(0, 20, (100, 3))
    value = random.normal(size=(100, 3)).astype(np.float32)
    found = column_norms(neuron, value, np.abs(value) * true[neuron].astype(np.float32), 30)
    assert np.allclose(found[:20], true[:20], rtol=1e-5)
    assert np.isnan(found[20:]).all()
    varied = column_norms(neuron, value, random.uniform(0.5, 2, (100, 3)), 30)
    assert np.isnan(varied).all()  # no fixed number, so nothing is known of a column


def test_products_of_columns_that_are_planted_are_solved(random: np.random.Generator) -> None:
    weight, activations = random.normal(size=(5, 8)), random.normal(size=(60, 8))
    norms = np.linalg.norm(activations @ weight.T, axis=1)
    assert np.allclose(column_products(activations, norms), weight.T @ weight)
    with pytest.raises(ValueError, match="36 tokens are needed"):
        column_products(activations[:20], norms[:20])


def test_a_layer_that_cannot_be_solved_hides_no_other(random: np.random.Generator) -> None:
    weight, activations = random.normal(size=(5, 4)), random.normal(size=(60, 2, 4))
    norms = np.linalg.norm(activations @ weight.T, axis=2)
    norms[:, 0] = random.uniform(1, 2, 60)  # of no W
    arrays = {"neurons": (("token", "layer", "neuron"), activations), "mlp_out_norm": (("token", "layer"), norms)}
    products = weight_attacks(xr.Dataset(arrays))[-1]
    assert products.recovered is not None
    assert products.recovered.value == 0.5


def test_columns_are_told_from_what_a_trace_holds() -> None:
    small = {"prompts": 12, "layers": 2, "d_ff": 16, "record": ("norms", "peaks", "neurons", "logits"), "top_k": 4}
    simulated = stratoscope.simulate(**small)
    assert all("no model" in one.reason for one in weight_attacks(simulated))
    norms, directions, products = weight_attacks(simulated.assign_attrs(source="real"))
    assert norms.recovered is not None
    assert norms.recovered.value > 0.5
    assert directions.recovered is not None
    assert directions.recovered.value > 0
    assert products.recovered is not None
    assert "left out" in products.note  # a simulation's norms follow from no W: they are not told by one
    assert products.recovered.value == 0
