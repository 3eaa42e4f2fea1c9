"""A small part of `make truth`: discoveries are false no more often than is said, and what is there is found."""

from __future__ import annotations

import numpy as np
import pytest
from truth import CLASSES, PAIRS, false_discoveries, null_splits, simulated
from truth_power import PLANTED, planted


@pytest.mark.parametrize("kind", ["independent", "block-correlated", "unequal variance"])
def test_false_discoveries_stay_below_q_between_equal_classes(kind: str) -> None:
    rates = false_discoveries(kind, (20, 20), "subsample", 20)
    assert rates.holds, rates
    assert rates.power > 0.4, rates
    assert rates.oracle > rates.power


@pytest.mark.parametrize("kind", ["skewed", "unequal variance"])
def test_false_discoveries_stay_below_q_between_very_unequal_classes(kind: str) -> None:
    rates = false_discoveries(kind, (8, 80), "subsample", 20)
    assert rates.holds, rates


def test_without_balancing_very_unequal_classes_do_discover_what_is_not_there() -> None:
    """The failure that balancing is there for: the same code, Welch's test on all prompts."""
    from stratoscope.analysis.statistics.moments import Moments, welch
    from stratoscope.analysis.statistics.multiplicity import q_values

    found = 0
    for seed in range(10):
        values, true, _ = simulated("skewed", 8, 80, np.random.default_rng(seed))
        values = values[:, ~true]
        width = values.shape[1]
        p = welch(Moments(width).add(values[:8]), Moments(width).add(values[8:])).p
        found += bool((q_values(p) <= 0.05).any())
    assert found >= 5


@pytest.mark.parametrize(("kind", "of_a", "of_b"), [(CLASSES, 20, 20), (CLASSES, 8, 80), (PAIRS, 12, 12)])
def test_of_a_class_divided_at_random_five_percent_have_p_below_five_percent(kind: str, of_a: int, of_b: int) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(88, 3000)) + random.normal(size=(88, 1)) * 0.5  # neurons that vary together
    null = null_splits(values, kind, of_a, of_b, "rank-sum" if of_b > 2 * of_a else "subsample", 30)
    assert null.holds, null


def test_thirty_pairs_find_neurons_two_deviations_apart_that_half_of_them_miss() -> None:
    half, every = (planted(PAIRS, 30, 2.0, held_out, 1) for held_out in (0.5, 0.0))
    assert half.planted <= PLANTED / 2 < 0.85 * PLANTED <= every.planted
    assert every.others <= 4
    assert every.covered >= every.found - 1  # intervals of what was selected hold the truth
