"""What attacks find where something was planted, and that they find nothing where nothing was."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import stratoscope
from stratoscope.publish.attacks.look_up import guess_by_numbers, guess_by_sets, look_up
from stratoscope.publish.attacks.membership import (
    Population,
    auc,
    found_at,
    membership,
    membership_within,
    scores,
)
from stratoscope.publish.attacks.outcome import exact, guessed
from stratoscope.trace.prompts import Prompts


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(1)


# --- outcome ----------------------------------------------------------------------------------------------------------


def test_guesses_as_good_as_blind_ones_gain_nothing(random: np.random.Generator) -> None:
    hits = random.random(400) < 0.3
    attack = guessed("a", "b", "tokens", hits, {"none": np.zeros(400, bool), "same": hits}, np.arange(400) // 10)
    assert attack.gain is not None
    assert attack.gain.value == 0
    assert attack.gain.high == -attack.gain.low == exact(0, 40).high, (
        "40 prompts cannot show that there is no gain at all"
    )
    assert not attack.succeeds
    assert "same" in attack.note


def test_no_hit_at_all_is_not_told_as_certainly_none() -> None:
    nothing = np.zeros(20, bool)
    attack = guessed("a", "b", "tokens", nothing, {"none": nothing}, np.arange(20))
    assert attack.recovered is not None
    assert 0.1 < attack.recovered.high < 0.2


def test_an_interval_over_prompts_holds_the_true_share(random: np.random.Generator) -> None:
    held = 0
    for _ in range(60):
        of_prompt = random.beta(2, 2, 40)  # tokens of one prompt are alike: over tokens it would hold every second time
        hits = random.random((40, 30)) < of_prompt[:, None]
        none = np.zeros(1200, bool)
        share = guessed("a", "b", "tokens", hits.ravel(), {"none": none}, np.repeat(np.arange(40), 30)).recovered
        assert share is not None
        held += share.low <= 0.5 <= share.high
    assert held >= 51


# --- membership -------------------------------------------------------------------------------------------------------


def test_members_of_a_wide_mean_are_told_from_others(random: np.random.Generator) -> None:
    prompts = random.normal(size=(150, 3000))
    attack = membership(prompts[:20].mean(axis=0), prompts[:20], prompts[20:90], prompts[90:])
    assert attack.recovered is not None
    assert attack.recovered.value > 0.98
    assert attack.succeeds
    assert attack.at_one_percent is not None
    assert attack.at_one_percent.value > 0.8


def test_the_likelihood_ratio_sees_through_values_that_move_together(random: np.random.Generator) -> None:
    prompts = random.normal(size=(160, 8)) @ random.normal(size=(8, 400)) * 3 + random.normal(size=(160, 400))
    tests = scores(prompts[:20].mean(axis=0), prompts[:20], prompts[20:90], prompts[90:])
    areas = {name: auc(*sides).value for name, sides in tests.items()}
    assert areas["likelihood ratio"] > areas["inner product"] + 0.1


def test_a_neuron_that_fires_for_one_prompt_only_hides_no_member(random: np.random.Generator) -> None:
    prompts = random.normal(size=(150, 3000))
    prompts[:, 0] = random.normal(size=150) * 1e-6
    prompts[[5, 30], 0] = 1.0  # a member, and a prompt that is none
    tests = scores(prompts[:20].mean(axis=0), prompts[:20], prompts[20:90], prompts[90:])
    assert all(auc(*sides).value > 0.95 for sides in tests.values())


def test_a_mean_of_others_tells_nothing_of_membership(random: np.random.Generator) -> None:
    held, values = 0, []
    for _ in range(40):
        prompts = random.normal(size=(130, 30))
        attack = membership(prompts[110:].mean(axis=0), prompts[:20], prompts[20:70], prompts[70:110])
        assert attack.recovered is not None
        held += attack.recovered.low <= 0.5 <= attack.recovered.high
        values.append(attack.recovered.value)
    assert held >= 34
    assert abs(np.mean(values) - 0.5) < 0.04


def test_products_through_prompts_are_those_of_the_inverse_covariance(random: np.random.Generator) -> None:
    people = Population.of(random.normal(size=(30, 12)) @ random.normal(size=(12, 12)))
    alone, (a, b) = people.shrinkage, random.normal(size=(2, 12))
    covariance = alone * np.eye(12) + (1 - alone) * people.rows.T @ people.rows / 30
    assert 0 < alone < 1
    assert np.isclose(people.products(a[None], b)[0], a @ np.linalg.solve(covariance, b))
    assert np.isclose(people.lengths(a[None])[0], a @ np.linalg.solve(covariance, a))
    noise = random.random(12)
    noisy = covariance + np.diag(noise)
    assert np.isclose(people.products(a[None], b, noise)[0], a @ np.linalg.solve(noisy, b))
    assert np.isclose(people.lengths(a[None], noise)[0], a @ np.linalg.solve(noisy, a))


def test_an_attacker_who_knows_the_noise_is_stronger(random: np.random.Generator) -> None:
    areas = []
    spread = np.geomspace(0.01, 1, 100)  # noise of one size drowns the small values, and they would be listened to
    for _ in range(12):
        prompts = random.normal(size=(160, 100)) * spread
        told, noise = prompts[:20].mean(axis=0) + random.normal(0, 0.05, 100), np.full(100, 0.05)
        given = (told, prompts[:20], prompts[20:90], prompts[90:])
        both = (scores(*given), scores(*given, noise=noise))
        areas.append([auc(*one["likelihood ratio"]).value for one in both])
    blind, knowing = np.mean(areas, axis=0)
    assert knowing > blind + 0.05


def test_a_maximum_gives_its_members_away(random: np.random.Generator) -> None:
    """Which is why extremes are never published: a member touches them somewhere, and no member is above."""
    prompts = random.normal(size=(100, 2000))
    largest = prompts[:20].max(axis=0)
    score = (prompts >= largest).sum(axis=1) - 2.0 * (prompts > largest).sum(axis=1)
    assert auc(score[:20], score[20:]).value > 0.99


def test_larger_classes_hide_their_prompts_better(random: np.random.Generator) -> None:
    prompts = random.normal(size=(240, 400))
    few, many = (membership_within(prompts, count=count, repeats=6) for count in (20, 100))
    assert few.recovered is not None
    assert many.recovered is not None
    assert few.recovered.value > many.recovered.value > 0.5


def test_membership_of_too_few_prompts_says_why_it_did_not_run(random: np.random.Generator) -> None:
    prompts = random.normal(size=(12, 30))
    attack = membership(prompts[:4].mean(axis=0), prompts[:4], prompts[4:8], prompts[8:])
    assert attack.recovered is None
    assert "there are 4" in attack.reason
    assert membership_within(prompts, count=4).recovered is None


def test_the_area_is_that_of_all_pairs_and_its_interval_holds_the_true_one(random: np.random.Generator) -> None:
    a, b = np.array([1.0, 2, 2, 5]), np.array([0.0, 2, 3])
    pairs = (a[:, None] > b).mean() + (a[:, None] == b).mean() / 2
    assert np.isclose(auc(a, b).value, pairs)
    held = 0
    for _ in range(100):
        area = auc(random.normal(1, 1, 30), random.normal(0, 1, 60))
        held += area.low <= 0.7602 <= area.high  # Φ(1/√2)
    assert held >= 88
    assert auc(a + 10, b).low < 1


def test_members_found_at_one_false_alarm_in_a_hundred(random: np.random.Generator) -> None:
    share = found_at(random.normal(3, 1, 500), random.normal(0, 1, 2000))
    assert share.low < 0.75 < share.high  # Φ(3 − 2.326)


# --- look-up ----------------------------------------------------------------------------------------------------------


def test_sets_and_numbers_that_are_of_a_token_give_it_away(random: np.random.Generator) -> None:
    ids = np.repeat(np.arange(40), 5)
    sets, centres = random.integers(0, 3000, (40, 12)), random.normal(size=(40, 20))
    own = random.integers(0, 40, 100)
    noisy = centres[ids] + random.normal(size=(200, 20)) * 0.1
    assert (guess_by_sets(sets[own], sets[ids], ids) == own).all()
    assert (guess_by_numbers(centres[own], noisy, ids) == own).mean() > 0.99


def test_numbers_are_measured_in_units_of_how_much_they_vary_within_a_token(random: np.random.Generator) -> None:
    ids = np.repeat(np.arange(30), 6)
    rows = np.column_stack([ids * 1e-3, random.normal(size=180) * 50])  # what tells tokens apart is the small one
    own = np.column_stack([np.arange(30) * 1e-3, random.normal(size=30) * 50])
    assert (guess_by_numbers(own, rows, ids) == np.arange(30)).mean() > 0.95


def test_random_rows_are_guessed_no_better_than_the_commonest_token(random: np.random.Generator) -> None:
    ids, own = random.zipf(1.5, 800) % 50, random.zipf(1.5, 800) % 50
    found = guess_by_numbers(random.normal(size=(800, 10)), random.normal(size=(800, 10)), ids)
    assert (found == own).mean() < (own == 1).mean() + 0.03


@pytest.fixture(scope="module")
def two_recordings() -> tuple[xr.Dataset, xr.Dataset]:
    """Two halves of one pretended model's prompts."""
    whole = stratoscope.simulate(prompts=48, layers=6, record=("norms", "residual", "peaks"), seed=4)
    prompts = Prompts(whole)
    return prompts.part(0, 24), prompts.part(24, 48)


def test_a_trace_without_text_is_read_from_other_prompts(two_recordings: tuple[xr.Dataset, xr.Dataset]) -> None:
    original, reference = two_recordings
    published = original.drop_vars(["text", "token_id", "span"])
    peaks, layers, heads = look_up(published, original, reference)
    assert peaks.recovered is not None
    assert peaks.gain is not None
    assert peaks.gain.low > 0.2
    assert layers.gain is not None
    assert layers.gain.high < 0.2
    assert heads.recovered is None
    assert "no such numbers" in heads.reason


def test_rows_of_another_text_give_no_more_than_a_blind_guess(two_recordings: tuple[xr.Dataset, xr.Dataset]) -> None:
    original, reference = two_recordings
    other = stratoscope.simulate(prompts=12, layers=6, record=("norms", "peaks"), seed=9).drop_vars(
        ["text", "token_id"]
    )
    for attack in look_up(other, original, reference)[:2]:
        assert attack.gain is not None
        assert attack.gain.value < 0.02
        assert not attack.succeeds
