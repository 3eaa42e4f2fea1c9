"""The level private: no prompt moves a mean by more than the noise is made for, and the noise is as wide as it says."""

from __future__ import annotations

import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import stratoscope
from stratoscope import defaults, names
from stratoscope.errors import InputError, UsageError
from stratoscope.publish.averaged import PROFILED, of_prompts
from stratoscope.publish.private.centre import KNOWN
from stratoscope.publish.private.lower_bound import bound_of, epsilon_at_least, published_often
from stratoscope.publish.private.noise import GRID, Mechanism, calibrated, on_grid
from stratoscope.publish.private.plan import planned
from stratoscope.publish.private.private import private_profiles
from stratoscope.publish.profiles.profiles import class_profiles
from stratoscope.trace.format.schema import PUBLISHED
from stratoscope.trace.prompts import Prompts

pytest.importorskip("opendp")
ROWS = arrays.arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(1, 9)),
    elements=st.one_of(st.floats(), st.floats(-3, 3), st.sampled_from([1e308, 5e-324, -1e200])),
)


@pytest.fixture(scope="module")
def mechanism() -> Mechanism:
    return calibrated(20, 1.0, defaults.EPSILON, defaults.DELTA)


# --- the noise ------------------------------------------------------------------------------------------------------


def test_epsilon_one_needs_noise_of_4_05_sensitivities_by_opendp(mechanism: Mechanism) -> None:
    assert mechanism.sigma / mechanism.sensitivity == pytest.approx(4.045, abs=0.002)
    assert 0.999 < mechanism.epsilon <= 1.0
    assert replace(mechanism, scale=mechanism.scale * 0.92).epsilon > 1.0  # 3.73, as the analytic Gaussian would have


def test_epsilon_is_that_of_an_independent_formula(mechanism: Mechanism) -> None:
    rho = (mechanism.sensitivity / mechanism.sigma) ** 2 / 2  # zCDP of a Gaussian
    alphas = np.linspace(1.001, 60, 100_000)  # and the best conversion to (ε, δ) that is known of it
    deltas = np.exp((alphas - 1) * (alphas * rho - mechanism.epsilon) + alphas * np.log1p(-1 / alphas)) / (alphas - 1)
    assert deltas.min() == pytest.approx(mechanism.delta, rel=1e-3)


@settings(max_examples=100, deadline=None)
@given(ROWS, st.floats(1e-3, 1e3))
def test_no_prompt_counts_for_more_than_the_bound_not_even_by_a_rounding_error(rows: np.ndarray, bound: float) -> None:
    for row in on_grid(rows, bound).tolist():
        assert sum(value * value for value in row) <= GRID**2  # whole numbers of Python: exact


@settings(max_examples=100, deadline=None)
@given(ROWS, st.integers(0, 5), ROWS)
def test_replacing_a_prompt_moves_the_sums_by_at_most_the_sensitivity(
    rows: np.ndarray, which: int, others: np.ndarray
) -> None:
    neighbour = rows.copy()
    neighbour[which % len(rows)] = np.resize(others[0], rows.shape[1])
    moved = on_grid(rows, 1.0).sum(axis=0) - on_grid(neighbour, 1.0).sum(axis=0)
    assert sum(value * value for value in moved.tolist()) <= (2 * GRID) ** 2


def test_a_prompt_within_the_bound_is_not_changed_and_one_beyond_keeps_its_direction() -> None:
    rows = np.array([[0.3, -0.4], [30.0, -40.0], [np.nan, 0.5], [np.inf, 0.5]])
    found = on_grid(rows, 1.0) / GRID
    assert found == pytest.approx(np.array([[0.3, -0.4], [0.6, -0.8], [0.0, 0.5], [0.0, 0.5]]), abs=1e-8)


def test_sums_are_exact_in_whatever_order(mechanism: Mechanism) -> None:
    rows = np.random.default_rng(0).normal(size=(1000, 3))
    grid = on_grid(rows, 1.0)
    exact = [sum(map(Fraction, column)) for column in grid.T.tolist()]
    assert grid.sum(axis=0).tolist() == grid[::-1].sum(axis=0).tolist() == exact


def test_the_noise_is_as_wide_as_it_says_and_other_each_time(mechanism: Mechanism) -> None:
    rows = np.tile([0.3, -0.4], (20, 1))
    many = np.array([mechanism.means(rows) for _ in range(2000)])
    assert len(np.unique(many)) == many.size
    assert many.std(axis=0) == pytest.approx(np.full(2, mechanism.sigma), rel=0.08)  # 5 standard errors
    assert many.mean(axis=0) == pytest.approx([0.3, -0.4], abs=5 * mechanism.sigma / np.sqrt(2000))
    from scipy.stats import kstest, norm

    often = published_often(mechanism)(rows[:, :1], 2000)  # drawn together it is the same noise
    for drawn in (often - 0.3, many[:, 0] - 0.3, many[:, 1] + 0.4):
        assert kstest(drawn, norm(scale=mechanism.sigma).cdf).pvalue > 1e-6


def test_an_attack_on_the_mechanism_finds_part_of_epsilon_and_no_more(mechanism: Mechanism) -> None:
    assert 0.1 < epsilon_at_least(mechanism, runs=30_000).epsilon <= 1.0


def test_the_attack_finds_noise_that_is_half_as_wide(mechanism: Mechanism) -> None:
    broken = published_often(replace(mechanism, scale=mechanism.scale / 2))  # as with a sensitivity of C/n
    assert epsilon_at_least(mechanism, runs=120_000, release=broken).epsilon > 1.0


def test_the_attack_finds_clipping_that_was_forgotten(mechanism: Mechanism) -> None:
    def release(rows: np.ndarray, runs: int) -> np.ndarray:
        far = np.where(rows < 0, -10 * mechanism.bound, rows)
        return mechanism.released(np.repeat(np.rint(far.sum(axis=0) * GRID).astype(np.int64), runs))

    assert epsilon_at_least(mechanism, runs=2000, release=release).epsilon > 1.0


def test_a_lower_bound_is_that_of_clopper_and_pearson() -> None:
    from scipy.stats import binomtest

    right, wrong = (binomtest(hits, 1000).proportion_ci(0.95, method="exact") for hits in (300, 100))
    assert bound_of(300, 100, 1000, 1e-5) == pytest.approx(np.log((right.low - 1e-5) / wrong.high))
    assert bound_of(0, 0, 1000, 1e-5) == -np.inf


@pytest.mark.parametrize(
    ("epsilon", "delta", "where"),
    [(0.0, 1e-5, "epsilon"), (-1.0, 1e-5, "epsilon"), (11.0, 1e-5, "epsilon"), (np.nan, 1e-5, "epsilon"),
     (1.0, 0.0, "delta"), (1.0, 0.05, "delta"), (1.0, np.nan, "delta")],
)  # fmt: skip
def test_a_promise_of_nothing_is_refused(epsilon: float, delta: float, where: str) -> None:
    with pytest.raises(UsageError) as refusal:
        calibrated(20, 1.0, epsilon, delta)
    assert refusal.value.where == where


def test_without_opendp_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opendp.prelude", None)
    with pytest.raises(InputError, match=r"pip install 'stratoscope\[privacy\]'"):
        calibrated(20, 1.0, 0.97, 1e-5)  # for which no noise was looked for yet


# --- what is published ----------------------------------------------------------------------------------------------


def test_a_mean_is_that_of_the_class_but_for_noise_and_clipping(simulated: xr.Dataset) -> None:
    quantity = "mlp_write_ratio"
    result = private_profiles(simulated, epsilon=10.0, delta=1e-3, clip=20.0)
    table = result[f"profiles/{quantity}"].to_dataset()
    prompts = Prompts(simulated)
    user = prompts.in_spans(["user"]) & ~prompts.first
    for name, mean, noise in zip(
        table["prompt_class"].values, table["mean"].values, table["noise"].values, strict=True
    ):
        members = np.flatnonzero(np.array(prompts.classes) == name)
        truth = of_prompts(simulated, quantity, members, user).mean(axis=0)
        assert np.abs(mean - truth).max() < 6 * noise


def test_what_is_told_besides_the_means_depends_on_no_prompt(simulated: xr.Dataset) -> None:
    changed = simulated.copy()
    first = slice(*Prompts(simulated).bounds["token"][:2])
    values = changed["mlp_write_ratio"].values.copy()
    values[first] = np.nan
    changed["mlp_write_ratio"] = (changed["mlp_write_ratio"].dims, values, changed["mlp_write_ratio"].attrs)
    changed = changed.assign_coords(span=("token", np.where(np.arange(len(values)) < first.stop, 1, simulated["span"])))
    one, other = (private_profiles(which) for which in (simulated, changed))
    assert one.attrs == other.attrs
    assert one["classes"].to_dataset().identical(other["classes"].to_dataset())
    tables = [which["profiles/mlp_write_ratio"].to_dataset() for which in (one, other)]
    assert tables[0].drop_vars("mean").identical(tables[1].drop_vars("mean"))
    assert np.isfinite(tables[1]["mean"]).all()
    assert (tables[0]["mean"] != tables[1]["mean"]).all()  # no seed


def test_the_promise_holds_its_numbers_and_the_prediction_is_printed(simulated: xr.Dataset) -> None:
    result = private_profiles(simulated, epsilon=2.0)
    assert result.attrs["summary"]["promise"] == result.attrs[PUBLISHED]["promise"] == "(ε = 2, δ = 1e−5) per prompt."
    (line, _) = planned(simulated, epsilon=2.0).in_words()
    ratio = float(result["classes/signal_to_noise"][0])
    assert line.startswith("Class 'critical': 60 prompts, 4 numbers, predicted signal-to-noise at most ")
    assert f"{ratio:.2f}" in line
    assert "tokens" not in result["classes"].to_dataset()


def test_more_numbers_than_the_noise_allows_are_refused_with_what_would_work(simulated: xr.Dataset) -> None:
    few = Prompts(simulated).part(0, 46)  # 23 of each class: (23 / 8.09)² = 8 numbers
    usual = ["mlp_write_ratio", "attn_write_ratio", "mlp_out_norm"]
    with pytest.raises(InputError, match="23 prompts carry 8 numbers above the noise, not 12") as refusal:
        private_profiles(few, quantities=usual)
    assert "--bands 2" in refusal.value.fix
    assert "record 29 prompts" in refusal.value.fix
    result = private_profiles(few, quantities=usual, bands=2)
    assert result["profiles/mlp_out_norm/mean"].shape == (2, 2)
    assert result.attrs["summary"]["bands"]["mlp_out_norm"] == ["0-1", "2-3"]
    assert (result["classes/signal_to_noise"] >= 1).all()


def test_twenty_prompts_carry_six_numbers_and_nineteen_are_refused(simulated: xr.Dataset) -> None:
    assert calibrated(20, 1.0, 1.0, 1e-5).most_numbers == 6
    with pytest.raises(InputError, match="class 'critical' has 19 prompts and class 'neutral' has 19 prompts, 20 are"):
        private_profiles(Prompts(simulated).part(0, 38))


def test_a_centre_that_was_published_makes_the_noise_smaller_and_keeps_the_profile(simulated: xr.Dataset) -> None:
    others = class_profiles(stratoscope.simulate(prompts=120, layers=4, d_model=32, d_ff=64, heads=4, seed=1))
    result = private_profiles(simulated, centre=others, epsilon=10.0, delta=1e-3)
    unit = result.attrs["summary"]["unit"]["mlp_write_ratio"]
    assert unit == KNOWN["mlp_write_ratio"].spread < KNOWN["mlp_write_ratio"].apart / 5
    centre = others["profiles/mlp_write_ratio/mean"].values.mean(axis=0)
    assert result.attrs["summary"]["centre"]["mlp_write_ratio"] == pytest.approx(centre)
    means = result["profiles/mlp_write_ratio/mean"].values
    assert np.abs(means - centre).max() < 5 * KNOWN["mlp_write_ratio"].spread


def test_a_centre_made_of_the_prompts_themselves_is_refused_as_it_would_show_their_means(simulated: xr.Dataset) -> None:
    for own in (class_profiles(simulated), class_profiles(simulated, prompt_class="neutral")):
        with pytest.raises(InputError, match="made of the prompts that are published"):
            private_profiles(simulated, centre=own)


def test_bands_are_means_of_their_layers_and_of_the_centre(simulated: xr.Dataset) -> None:
    column = planned(simulated, bands=3, centre=class_profiles(simulated)).columns[0]
    values = np.arange(8.0).reshape(2, 4)
    assert [band.tolist() for band in column.bands] == [[0, 1], [2], [3]]
    assert column.told(column.apart(values)) == pytest.approx(np.array([[0.5, 2, 3], [4.5, 6, 7]]))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"bands": 0}, "0 is no number of bands of 4 layers"),
        ({"bands": 5}, "5 is no number of bands"),
        ({"clip": 0.0}, "out of range"),
        ({"clip": float("inf")}, "out of range"),
        ({"clip": 1e30}, "out of range"),
        ({"quantities": ["prompt_mean"]}, "prompt_mean"),
        ({"prompt_class": "nobody"}, "nobody"),
        ({"centre": xr.DataTree()}, "no class profiles"),
    ],
)
def test_what_cannot_be_published_is_refused(simulated: xr.Dataset, arguments: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        private_profiles(simulated, **arguments)  # type: ignore[arg-type]


def test_a_table_is_refused_and_of_other_records_the_first_that_something_is_known_of_is_taken(
    simulated: xr.Dataset,
) -> None:
    norms = [name for name in KNOWN if names.QUANTITIES[name].group == names.NORMS]
    (column,) = planned(simulated.drop_vars(norms)).columns
    assert column.quantity == "resid_norm"
    with pytest.raises(InputError, match="holds nothing of which private means"):
        planned(simulated.drop_vars([*simulated.data_vars]))


def test_a_centre_of_another_model_is_refused(simulated: xr.Dataset) -> None:
    fewer = simulated.isel({names.LAYER: slice(0, 3)})
    with pytest.raises(InputError, match="does not fit this trace"):
        private_profiles(simulated, centre=class_profiles(fewer, quantities=["mlp_write_ratio"]))
    with pytest.raises(InputError, match="holds no profile of mlp_write_ratio"):
        private_profiles(simulated, centre=class_profiles(fewer, quantities=["attn_write_ratio"]))


def test_of_every_quantity_that_may_be_published_something_is_known_or_it_is_left_out_on_purpose() -> None:
    assert {*PROFILED} - {*KNOWN} == {"attn_null", "imported_norm"}  # of few models; on a scale that nobody knows
    assert {*KNOWN} < {*PROFILED}
    assert all(one.apart > one.spread for one in KNOWN.values())
