"""How values become colours: limits, shares, histograms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.view.spec import scale
from stratoscope.view.spec.look import Look

finite = st.floats(-1e6, 1e6, width=32)
tables = npst.arrays(
    np.float32, npst.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=finite | st.just(np.nan)
)
kinds = st.sampled_from(["linear", "log", "diverging"])
choices = st.sampled_from(names.SCALES)


@settings(deadline=None)
@given(tables, kinds, choices)
def test_any_values_have_usable_limits(table: np.ndarray, kind: str, choice: names.Scale) -> None:
    limits = scale.fit([table], kind, choice)
    assert np.isfinite(limits.low).all()
    assert (limits.high > limits.low).all()
    units = limits.unit(table)
    assert (np.isnan(units) == np.isnan(table))[np.isnan(table) | (table > 0) | (kind != "log")].all()
    edges, counts = scale.histogram([table], limits)
    assert (np.diff(edges) > 0).all()
    assert counts.sum() <= np.isfinite(table).sum()


@settings(deadline=None)
@given(tables, kinds)
def test_shares_and_histogram_agree_with_counting(table: np.ndarray, kind: str) -> None:
    table = np.abs(table) + np.float32(0.5) if kind == "log" else table
    limits = scale.fit([table], kind, "robust")
    known = table[np.isfinite(table)]
    below, above = scale.clipped([table], limits)
    assert below == pytest.approx((known < limits.low).mean() if known.size else 0)
    assert above == pytest.approx((known > limits.high).mean() if known.size else 0)
    assert scale.histogram([table], limits)[1].sum() == known.size


def test_one_huge_value_does_not_own_the_robust_scale() -> None:
    table = np.random.default_rng(0).lognormal(size=(200, 10))
    before = scale.fit([table], "log", "robust")
    table[7, 3] = 1e9
    after = scale.fit([table], "log", "robust")
    assert after.high.item() == pytest.approx(before.high.item(), rel=0.05)
    assert scale.fit([table], "log", "log").high.item() == 1e9


def test_robust_limits_are_those_of_all_panels_together() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(50, 4)), rng.normal(5, 1, size=(30, 4))
    limits = scale.fit([one, other], "linear", "robust")
    alone = scale.fit([np.concatenate([one, other])], "linear", "robust")
    assert (limits.low, limits.high) == (alone.low, alone.high)


@settings(deadline=None)
@given(npst.arrays(np.float64, st.integers(1, 200), elements=st.floats(-1e3, 1e3)))
def test_robust_limits_clip_at_most_a_tenth_at_either_end(values: np.ndarray) -> None:
    limits = scale.fit([values[:, None]], "linear", "robust")
    if limits.state == "ok" and np.ptp(np.quantile(values, [0.1, 0.9])) > 0:
        below, above = scale.clipped([values[:, None]], limits)
        assert max(below, above) <= 0.1 + 1 / len(values)


def test_one_layer_does_not_own_the_robust_scale() -> None:
    rng = np.random.default_rng(0)
    table = rng.lognormal(sigma=0.2, size=(50, 30))
    table[:, 0] *= 50  # such as the first layer's write over an embedding
    limits = scale.fit([table], "log", "robust")
    assert limits.high.item() < 3
    assert scale.clipped([table], limits)[1] < 0.1


def test_well_behaved_values_are_cut_at_1_and_99_percent() -> None:
    table = np.random.default_rng(0).normal(size=(1000, 20))
    limits = scale.fit([table], "linear", "robust")
    np.testing.assert_allclose([limits.low.item(), limits.high.item()], np.quantile(table, [0.01, 0.99]))


def test_signed_scales_are_centred_on_zero() -> None:
    table = np.array([[-1.0, 0.2], [0.1, 0.3]])
    limits = scale.fit([table], "diverging", "linear")
    assert (limits.low.item(), limits.high.item()) == (-1.0, 1.0)
    assert limits.unit(np.array([0.0]))[0] == 0.5
    np.testing.assert_allclose(limits.strength(np.array([-1.0, 0.0, 1.0])), [1, 0, 1])


def test_per_layer_limits_are_those_of_each_layer() -> None:
    table = np.random.default_rng(0).lognormal(size=(100, 3)) * [1, 10, 100]
    limits = scale.fit([table], "log", "per-layer")
    for layer in range(3):
        alone = scale.fit([table[:, layer : layer + 1]], "log", "robust")
        np.testing.assert_allclose([limits.low[layer], limits.high[layer]], [alone.low.item(), alone.high.item()])


@pytest.mark.parametrize(
    ("values", "state"), [(0.0, "zero"), (3.2, "equal"), (np.nan, "empty"), (np.inf, "infinite"), (-3.2, "equal")]
)
def test_one_value_everywhere_is_said_instead_of_inventing_a_scale(values: float, state: str) -> None:
    assert scale.fit([np.full((3, 2), values)], "linear", "robust").state == state


def test_a_zero_difference_stays_white() -> None:
    limits = scale.fit([np.zeros((4, 3))], "diverging", "robust")
    assert limits.state == "zero"
    assert (limits.unit(np.zeros((4, 3))) == 0.5).all()


def test_zeros_on_a_log_scale_are_clipped_and_not_missing() -> None:
    limits = scale.fit([np.array([[0.0, 1.0, 10.0]])], "log", "log")
    assert (limits.low.item(), limits.high.item()) == (1.0, 10.0)
    assert limits.unit(np.array([0.0]))[0] == -np.inf
    assert scale.clipped([np.array([[0.0, 1.0, 10.0]])], limits)[0] == pytest.approx(1 / 3)


def test_few_equal_quantiles_fall_back_to_the_extremes() -> None:
    table = np.zeros((1000, 1))
    table[3] = 2.0
    limits = scale.fit([table], "linear", "robust")
    assert (limits.low.item(), limits.high.item()) == (0.0, 2.0)


def test_the_quantitys_nature_decides_between_log_and_linear() -> None:
    assert scale.natural(signed=False, log=True, choice="robust") == "log"
    assert scale.natural(signed=False, log=False, choice="per-layer") == "linear"
    assert scale.natural(signed=False, log=True, choice="linear") == "linear"
    assert scale.natural(signed=True, log=False, choice="linear") == "diverging"


def test_a_log_scale_for_signed_values_is_refused() -> None:
    with pytest.raises(InputError, match="no logarithmic scale"):
        scale.natural(signed=True, log=False, choice="log")
    with pytest.raises(InputError, match="linear, log, robust, per-layer"):
        Look("sqrt")  # type: ignore[arg-type]


def test_the_badge_is_the_ratio_to_the_upper_limit() -> None:
    limits = scale.fit([np.array([[1.0, 10.0]])], "log", "log")
    assert scale.ratio_to_limit(np.array([70.0, np.nan]), limits) == 7
    assert np.isnan(scale.ratio_to_limit(np.array([np.nan]), limits))
    signed = scale.fit([np.array([[-2.0, 1.0]])], "diverging", "linear")
    assert scale.ratio_to_limit(np.array([-6.0]), signed) == 3
