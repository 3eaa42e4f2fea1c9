"""Kernels of statistics against independent implementations, and the properties that make them accumulators."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from statsmodels.stats.multitest import multipletests

from stratoscope import kernels
from stratoscope.analysis.contrast.power import smallest_effect
from stratoscope.analysis.statistics import effects, ranks
from stratoscope.analysis.statistics.moments import Moments, paired, welch
from stratoscope.analysis.statistics.multiplicity import q_values
from stratoscope.analysis.statistics.permutation import (
    LargestStatistic,
    label_permutations,
    p_alone,
    sign_flips,
    smallest_p,
)
from stratoscope.analysis.statistics.rescaled import rescaled_difference


def values(rows: int, width: int = 40, *, seed: int = 0, decimals: int | None = None) -> np.ndarray:
    """Skewed float32 numbers of very different sizes, some columns far from zero."""
    random = np.random.default_rng(seed)
    found = random.lognormal(size=(rows, width)) * random.lognormal(sigma=3, size=width) + random.normal(size=width) * 9
    return (found if decimals is None else np.round(found, decimals)).astype(np.float32)


@pytest.fixture(params=["compiled", "numpy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the compiled loops where they are installed, and without."""
    if request.param == "numpy":
        for module in ("stratoscope.analysis.statistics.moments", "stratoscope.analysis.statistics.ranks"):
            monkeypatch.setattr(f"{module}.kernel", lambda _: None)
    elif kernels.kernel("ranks_f32") is None:
        pytest.skip("kernels are not compiled here")
    return str(request.param)


# --- moments and t tests ----------------------------------------------------------------------------------------------


def test_welch_is_scipys(way: str) -> None:
    a, b = values(23), values(31, seed=1)
    found = welch(Moments(40).add(a), Moments(40).add(b))
    expected = stats.ttest_ind(a.astype(float), b.astype(float), equal_var=False)
    np.testing.assert_allclose(found.t, expected.statistic, rtol=1e-9)
    np.testing.assert_allclose(found.p, expected.pvalue, rtol=1e-9)
    np.testing.assert_allclose(found.df, expected.df, rtol=1e-9)


def test_paired_t_is_scipys(way: str) -> None:
    a, b = values(17).astype(float), values(17, seed=1).astype(float)
    found = paired(Moments(40).add(a - b))
    expected = stats.ttest_rel(a, b)
    np.testing.assert_allclose(found.t, expected.statistic, rtol=1e-9)
    np.testing.assert_allclose(found.p, expected.pvalue, rtol=1e-9)


@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, 30), max_size=6), order=st.randoms(use_true_random=False))
def test_any_split_and_order_of_the_prompts_gives_the_same_answer(cuts: list[int], order: object) -> None:
    rows = values(30)
    rows[3, 5] = np.nan
    edges = sorted({0, 30, *cuts})
    parts = [rows[start:stop] for start, stop in pairwise(edges)]
    order.shuffle(parts)  # type: ignore[attr-defined]
    whole = Moments(40).add(rows)
    added, merged = Moments(40), Moments(40)
    for part in parts:
        added.add(part)
        merged.merge(Moments(40).add(part))
    for split in (added, merged):
        np.testing.assert_array_equal(split.count, whole.count)
        np.testing.assert_allclose(split.mean, whole.mean, rtol=1e-12)
        np.testing.assert_allclose(split.variance(), whole.variance(), rtol=1e-9)


def test_a_missing_value_counts_in_its_own_column_only(way: str) -> None:
    rows = values(12)
    rows[:4, 7] = np.nan
    rows[:, 8] = np.nan
    moments = Moments(40).add(rows)
    assert moments.count[7] == 8
    assert moments.count[8] == 0
    np.testing.assert_allclose(moments.variance()[7], rows[4:, 7].astype(float).var(ddof=1), rtol=1e-9)
    assert np.isnan(moments.variance()[8])
    np.testing.assert_allclose(moments.mean[:7], rows.astype(float).mean(axis=0)[:7], rtol=1e-12)


def test_rows_that_are_no_whole_table_are_read_where_they_lie(way: str) -> None:
    rows = values(20)
    for view in (rows[::3], rows[:, 5:21], rows[3:9, ::2]):
        np.testing.assert_allclose(Moments(view.shape[1]).add(view).mean, view.astype(float).mean(axis=0), rtol=1e-12)


def test_a_constant_column_has_no_t_rather_than_an_infinite_one() -> None:
    rows = np.ones((8, 2), np.float32)
    found = welch(Moments(2).add(rows), Moments(2).add(rows * 2))
    assert np.isnan(found.p).all()


# --- effects ----------------------------------------------------------------------------------------------------------


def test_hedges_g_is_the_pooled_difference_with_its_correction() -> None:
    a, b = values(9).astype(float), values(14, seed=1).astype(float)
    pooled = np.sqrt((8 * a.var(axis=0, ddof=1) + 13 * b.var(axis=0, ddof=1)) / 21)
    expected = (a.mean(axis=0) - b.mean(axis=0)) / pooled * (1 - 3 / (4 * (9 + 14) - 9))
    np.testing.assert_allclose(effects.hedges_g(Moments(40).add(a), Moments(40).add(b)), expected, rtol=1e-9)


def test_g_av_of_pairs_uses_both_standard_deviations() -> None:
    a, b = values(9).astype(float), values(9, seed=1).astype(float)
    average = np.sqrt((a.var(axis=0, ddof=1) + b.var(axis=0, ddof=1)) / 2)
    expected = (a - b).mean(axis=0) / average * (1 - 3 / (4 * 8 - 1))
    np.testing.assert_allclose(effects.hedges_g_av(Moments(40).add(a), Moments(40).add(b)), expected, rtol=1e-9)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
def test_an_interval_covers_the_true_effect_as_often_as_it_says(level: float) -> None:
    random, true, of_a, of_b = np.random.default_rng(0), 0.8, 8, 12
    a, b = random.normal(true, 1, (of_a, 20_000)), random.normal(0, 1, (of_b, 20_000))
    g = effects.hedges_g(Moments(20_000).add(a), Moments(20_000).add(b))
    low, high = effects.interval_of_g(g, of_a, of_b, level)
    covered = ((low <= true * effects.correction(18)) & (true * effects.correction(18) <= high)).mean()
    assert abs(covered - level) <= 4 * np.sqrt(level * (1 - level) / 20_000)


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_an_interval_of_pairs_covers_the_true_effect_about_as_often_as_it_says(correlation: float) -> None:
    random, true, pairs, columns = np.random.default_rng(0), 0.6, 16, 20_000
    shared = random.normal(size=(pairs, columns)) * np.sqrt(correlation)
    a, b = (shared + random.normal(size=(pairs, columns)) * np.sqrt(1 - correlation) for _ in range(2))
    sides = [Moments(columns).add(a + true), Moments(columns).add(b)]
    t = paired(Moments(columns).add(a + true - b)).t
    low, high = effects.interval_of_g_av(effects.hedges_g_av(*sides), t, pairs, 0.95)
    covered = ((low <= true) & (true <= high)).mean()
    assert 0.935 <= covered <= 0.965  # Algina and Keselman report 0.94 to 0.96


def test_noncentrality_inverts_the_noncentral_t() -> None:
    t, df = np.array([-12.0, -3, 0.5, 2, 30]), 14.0
    low, high = effects.noncentrality(t, df, 0.99)
    np.testing.assert_allclose(stats.nct.cdf(t, df, low), 0.995, atol=1e-6)
    np.testing.assert_allclose(stats.nct.cdf(t, df, high), 0.005, atol=1e-6)


@pytest.mark.parametrize(
    ("pairs", "t", "level"),
    [
        (16, 25.0, 1 - 0.1 / 46_080),
        (16, -11.0, 1 - 0.1 / 46_080),
        (100, 30.0, 1 - 0.05 / 46_080),
        (6, 60.0, 1 - 1e-6),
        (6, 1e4, 0.95),
    ],
)
def test_intervals_of_what_was_selected_end_where_t_is_that_improbable(pairs: int, t: float, level: float) -> None:
    """Probabilities by integrating over the chi distribution of the standard error: P(T ≤ t) = E Φ(t s − δ)."""
    df, tail = pairs - 1, (1 - level) / 2
    root = np.sqrt(df)
    ends = np.array(effects.noncentrality(t, df, level))
    for towards, end in zip((-1, 1), ends, strict=True):

        def density(s: float, towards: int = towards, end: float = end) -> float:
            return float(stats.chi.pdf(s * root, df) * root * stats.norm.cdf(towards * (t * s - end)))

        beyond = integrate.quad(density, 0, 5, points=np.linspace(0.1, 3, 30), epsabs=0, epsrel=1e-8, limit=500)[0]
        assert beyond == pytest.approx(tail, rel=1e-4)


def test_an_interval_without_a_value_has_no_ends() -> None:
    low, high = effects.noncentrality([np.nan, 2.0, np.inf], [15.0, np.nan, 15.0], 0.95)
    assert np.isnan(low).all()
    assert np.isnan(high).all()


# --- what would have been found ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("test", "of_a", "of_b", "tests"),
    [
        ("paired t", 16, 16, 46_080),
        ("paired t", 6, 6, 150),
        ("Welch's t", 8, 8, 46_080),
        ("Welch's t", 10, 20, 2_000),
        ("Welch's t", 20, 20, 46_080),
        ("rank sum", 8, 40, 2_000),
    ],
)
def test_the_smallest_effect_is_found_by_scipys_test_in_8_of_10_studies(
    test: str, of_a: int, of_b: int, tests: int
) -> None:
    effect, studies, random = smallest_effect(test, of_a, of_b, tests, 0.05), 8_000, np.random.default_rng(1)
    a, b = random.normal(effect, 1, (of_a, studies)), random.normal(0, 1, (of_b, studies))
    if test == "paired t":
        p = stats.ttest_1samp(a, 0).pvalue
    elif test == "rank sum":
        p = stats.mannwhitneyu(a, b, method="exact").pvalue
    else:
        p = stats.ttest_ind(a, b, equal_var=False).pvalue
    assert (p <= 0.05 / tests).mean() == pytest.approx(0.8, abs=0.025)


def test_no_effect_is_found_where_ranks_of_so_few_cannot_be_that_rare() -> None:
    assert smallest_effect("rank sum", 4, 9, 640, 0.05) == np.inf


# --- ranks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("of_a", "of_b", "decimals"), [(9, 14, None), (8, 80, 0), (3, 3, None), (200, 130, 1)])
def test_auc_and_its_p_value_are_scipys(way: str, of_a: int, of_b: int, decimals: int | None) -> None:
    table = values(of_a + of_b, decimals=decimals)
    table[0, 0], table[1, 0] = 0.0, -0.0  # equal numbers
    in_a = np.random.default_rng(0).permutation(of_a + of_b) < of_a
    found = ranks.ranks(table, in_a)
    for column in range(table.shape[1]):
        one, other = table[in_a, column].astype(float), table[~in_a, column].astype(float)
        tied = len(np.unique(table[:, column])) < len(table)
        approximate = tied or of_a * of_b > 10_000
        expected = stats.mannwhitneyu(one, other, method="asymptotic" if approximate else "exact")
        assert found.auc[column] == expected.statistic / (of_a * of_b)
        np.testing.assert_allclose(found.p[column], expected.pvalue, rtol=1e-7)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([-1.5, -0.0, 0.0, 2.0, np.nan, np.inf]), st.booleans()), min_size=1))
def test_ties_and_missing_values_count_as_every_pair_compared(rows: list[tuple[float, bool]]) -> None:
    column = np.array([value for value, _ in rows], np.float32)
    in_a = np.array([side for _, side in rows])
    one, other = (column[side & ~np.isnan(column)] for side in (in_a, ~in_a))
    wins = (one[:, None] > other).sum() + 0.5 * (one[:, None] == other).sum()
    expected = wins / (len(one) * len(other)) if len(one) and len(other) else np.nan
    for find in (ranks.ranks, ranks._with_numpy):
        np.testing.assert_equal(find(np.stack([column, column], axis=1), in_a).auc, [expected, expected])


# --- arrangements -----------------------------------------------------------------------------------------------------


def test_all_sign_flips_of_few_pairs_give_scipys_exact_p() -> None:
    differences = values(7, 6) - values(7, 6, seed=1)
    arrangements = sign_flips(7, 1000, 0)
    expected = stats.permutation_test(
        (differences.astype(float),), lambda x, axis: x.mean(axis=axis), permutation_type="samples", n_resamples=np.inf
    )
    assert arrangements.exact
    assert len(arrangements) == 2**7
    np.testing.assert_allclose(p_alone(arrangements, differences), expected.pvalue, rtol=1e-12)


def test_all_exchanges_of_few_labels_give_scipys_exact_p() -> None:
    a, b = values(5, 6), values(5, 6, seed=1)
    arrangements = label_permutations(np.arange(10) < 5, 1000, 0)
    difference: Callable[..., np.ndarray] = lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis)  # noqa: E731
    expected = stats.permutation_test(
        (a.astype(float), b.astype(float)), difference, permutation_type="independent", n_resamples=np.inf
    )
    assert arrangements.exact
    np.testing.assert_allclose(p_alone(arrangements, np.concatenate([a, b])), expected.pvalue, rtol=1e-12)


def as_t(statistic: Any, arrangements: Any) -> Any:
    """Student's t (paired, or of two classes with pooled variance) of what the arrangements give."""
    df = arrangements.weights.shape[1] - (1 if arrangements.pairs else 2)
    r = np.clip(np.asarray(statistic, np.float64), -1, 1)
    return r * np.sqrt(df / (1 - r**2))


@pytest.mark.parametrize("pairs", [True, False])
def test_the_statistic_of_the_observed_arrangement_is_students_t(pairs: bool) -> None:
    a, b = values(20).astype(float), values(20, seed=1).astype(float)
    if pairs:
        arrangements, given_values = sign_flips(20, 200, 0), a - b
        expected = stats.ttest_rel(a, b).statistic
    else:
        arrangements, given_values = label_permutations(np.arange(40) < 20, 200, 0), np.concatenate([a, b])
        expected = stats.ttest_ind(a, b).statistic
    observed = LargestStatistic(arrangements).add(given_values)
    np.testing.assert_allclose(as_t(observed, arrangements), expected, rtol=1e-4, atol=1e-4)


def test_the_largest_statistic_over_blocks_is_that_over_the_whole() -> None:
    table = values(16, 50)
    whole, parts = (LargestStatistic(label_permutations(np.arange(16) < 8, 300, 1)) for _ in range(2))
    observed = whole.add(table)
    pieces = np.concatenate([parts.add(table[:, start : start + 7]) for start in range(0, 50, 7)])
    np.testing.assert_allclose(parts.largest, whole.largest, rtol=1e-5)
    np.testing.assert_array_equal(whole.p(observed), parts.p(pieces))


def test_family_wise_p_values_are_those_of_a_plain_loop() -> None:
    table, in_a = values(12, 9), np.arange(12) < 6
    arrangements = label_permutations(in_a, 1000, 0)
    largest = LargestStatistic(arrangements)
    observed = largest.add(table)
    every = [np.abs(stats.ttest_ind(table[w == 1], table[w == 0]).statistic) for w in arrangements.weights]
    expected = [(np.max(every, axis=1) >= t * (1 - 1e-4)).mean() for t in every[0]]
    np.testing.assert_allclose(largest.p(observed), expected, atol=2.1 / len(arrangements))


@pytest.mark.parametrize(
    ("of_a", "of_b", "least"), [(5, None, 0.0625), (6, None, 0.03125), (3, 3, 0.1), (2, 5, 1 / 21)]
)
def test_the_smallest_p_value_is_that_of_the_rarest_arrangement(of_a: int, of_b: int | None, least: float) -> None:
    assert smallest_p(of_a, of_b) == pytest.approx(least)


# --- many tests -------------------------------------------------------------------------------------------------------


def test_q_values_are_statsmodels_and_leave_out_what_was_not_tested() -> None:
    p = np.random.default_rng(0).uniform(size=(30, 40)) ** 3
    p[2, 5] = np.nan
    q = q_values(p)
    expected = multipletests(p[np.isfinite(p)], method="fdr_bh")[1]
    np.testing.assert_allclose(q[np.isfinite(p)], expected, rtol=1e-12)
    assert np.isnan(q[2, 5])


@pytest.mark.parametrize("g", [0.0, 0.5, np.inf, np.nan])
def test_two_prompts_have_no_interval_and_no_warning(g: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low, high = effects.interval_of_g([g], [1], [1], 0.95)
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_what_the_final_norm_does_to_all_rows_is_blamed_on_none_of_them() -> None:
    """One large new write shrinks the factor of every other row: subtracted as they stand, unchanged rows differ."""
    random = np.random.default_rng(0)
    before, after = random.normal(size=(2, 9))
    after[:8] = before[:8]
    factor_a, factor_b = 0.25, 0.75
    raw = after * factor_a - before * factor_b
    found = rescaled_difference(after * factor_a, before * factor_b, factor_a, factor_b)
    assert np.abs(raw[:8]).max() > 0.1
    assert np.abs(found.change[:8]).max() < 1e-15
    assert found.change[8] == pytest.approx((after[8] - before[8]) / 2)
    np.testing.assert_allclose(found.change + found.rescaling, raw, atol=1e-15)
    assert found.change.sum() + found.rescaling.sum() == pytest.approx(raw.sum())
