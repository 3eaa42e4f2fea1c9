"""Agreement of predicted with measured numbers, against scipy and against what is known of it. No torch."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats

from stratoscope.analysis.statistics.agreement import agreement, equal_signs, resampled, slopes, spearman, wilson

ITEMS = 60
CLUSTER = np.arange(ITEMS) % 12


def numbers(*, decimals: int | None = None, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of very different sizes, and measurements near them; rounded, many are tied."""
    random = np.random.default_rng(1)
    x = random.choice([-1, 1], ITEMS) * 10 ** random.uniform(-3, 1, ITEMS)
    y = x * (1 + noise * random.normal(size=ITEMS))
    return (x, y) if decimals is None else (x.round(decimals), y.round(decimals))


@pytest.mark.parametrize("decimals", [None, 1, 0])
def test_ranks_and_slopes_of_every_draw_are_scipys(decimals: int | None) -> None:
    x, y = numbers(decimals=decimals)
    draws = resampled(CLUSTER, 12, seed=3)
    for counts, rho, slope in zip(draws, spearman(x, y, draws), slopes(x, y, draws), strict=True):
        of = np.repeat(np.arange(ITEMS), counts.astype(int))
        assert rho == pytest.approx(stats.spearmanr(x[of], y[of]).statistic, abs=1e-12)
        assert slope == pytest.approx(stats.theilslopes(y[of], x[of]).slope, abs=1e-12)


def test_the_statistics_themselves_are_scipys() -> None:
    x, y = numbers()
    found = agreement(x, y, CLUSTER, floor=0.01, seed=0)
    assert found.spearman.value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert found.slope.value == pytest.approx(stats.theilslopes(y, x).slope, abs=1e-12)
    decided = abs(y) > 0.01
    assert found.decided == decided.sum() < ITEMS
    assert found.sign.value == (np.sign(x) == np.sign(y))[decided].mean()


def test_a_measurement_within_the_floor_has_no_sign() -> None:
    x, y = np.array([1.0, 1.0, 1.0, -1.0]), np.array([2.0, -1e-6, 0.0, 3.0])
    once = np.ones((1, 4))
    assert equal_signs(x, y, np.abs(y) > 1e-5, once).tolist() == [0.5]
    assert np.isnan(equal_signs(x, y, np.zeros(4, bool), once)).all()


def test_equal_numbers_agree_wholly_and_an_interval_of_equal_signs_has_a_width() -> None:
    x, _ = numbers()
    found = agreement(x, x, CLUSTER, floor=0.0, seed=0)
    assert (found.spearman.low, found.spearman.value) == (1, 1)
    assert (found.slope.low, found.slope.value, found.slope.high) == (1, 1, 1)
    assert found.sign.value == found.sign.high == 1
    assert found.sign.low == pytest.approx(stats.binomtest(ITEMS, ITEMS).proportion_ci(method="wilson").low)
    assert found.calibrated


def test_wilsons_interval_is_scipys() -> None:
    expected = stats.binomtest(13, 20).proportion_ci(method="wilson")
    assert wilson(13 / 20, 20) == pytest.approx((expected.low, expected.high))


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Of items that do not resemble each other within their prompts; a bootstrap in two stages is rather too wide."""
    random = np.random.default_rng(0)
    truth = 6 / np.pi * np.arcsin(0.8 / 2)  # Spearman's of normal numbers whose correlation is 0.8
    held = 0
    for seed in range(24):
        x = random.normal(size=ITEMS)
        y = 0.8 * x + 0.6 * random.normal(size=ITEMS)
        bounds = agreement(x, y, CLUSTER, floor=0.0, seed=seed).spearman
        held += bounds.low <= truth <= bounds.high
    assert held >= 21


def test_prompts_that_differ_widen_the_interval() -> None:
    """If half of the prompts agree wholly and half not at all, items alone would say too much."""
    random = np.random.default_rng(0)
    x = random.normal(size=ITEMS)
    y = np.where(CLUSTER % 2 == 0, x, -x)
    together = agreement(x, y, CLUSTER, floor=0.0, seed=0).spearman
    apart = agreement(x, y, np.arange(ITEMS), floor=0.0, seed=0).spearman
    assert together.high - together.low > 1.2 * (apart.high - apart.low)


def test_a_draw_holds_as_many_items_as_there_are_where_prompts_have_equally_many() -> None:
    draws = resampled(CLUSTER, 50, seed=0)
    assert (draws.sum(axis=1) == ITEMS).all()
    np.testing.assert_array_equal(draws, resampled(CLUSTER, 50, seed=0))
    of_prompts = np.stack([draws[:, number == CLUSTER].sum(axis=1) for number in range(12)])
    assert (of_prompts == 0).any()


def test_where_nothing_can_be_told_nothing_is() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x, y in ((np.zeros(9), np.arange(9.0)), (np.arange(9.0), np.zeros(9)), (np.zeros(0), np.zeros(0))):
            found = agreement(x, y, np.arange(len(x)), floor=0.0, seed=0)
            assert np.isnan(found.spearman.value)
            assert not found.calibrated
