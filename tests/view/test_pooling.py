"""Pooling by maximum: no spike is lost, and nothing is said that the data do not hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from stratoscope.view.spec import pool

elements = st.floats(-1e6, 1e6, width=32) | st.just(np.nan)
tables = npst.arrays(np.float32, st.tuples(st.integers(1, 60), st.integers(1, 4)), elements=elements)


def one_by_one(values: np.ndarray, *, signed: bool) -> np.ndarray:
    """The definition, for one column."""
    result = np.full(values.shape[1], np.nan, values.dtype)
    for row in range(values.shape[1]):
        known = values[:, row][~np.isnan(values[:, row])]
        if known.size:
            result[row] = known.max() if not signed or known.max() >= -known.min() else known.min()
    return result


@settings(deadline=None)
@given(tables, st.integers(2, 70), st.booleans())
def test_each_column_is_the_largest_of_its_tokens(table: np.ndarray, by: int, signed: bool) -> None:
    pooled = pool.pool(table, by, signed=signed)
    expected = [one_by_one(table[start : start + by], signed=signed) for start in range(0, len(table), by)]
    np.testing.assert_array_equal(pooled, expected)


@settings(deadline=None)
@given(tables, st.integers(2, 70), st.booleans(), st.data())
def test_left_out_tokens_never_show_unless_they_are_alone(table, by: int, signed: bool, data: st.DataObject) -> None:  # type: ignore[no-untyped-def]
    out = np.array(sorted(data.draw(st.sets(st.integers(0, len(table) - 1)))), np.int64)
    pooled = pool.without(pool.pool(table, by, signed=signed), table, by, out, signed=signed)
    only = pool.only_of(by, len(table), out)
    for column, start in enumerate(range(0, len(table), by)):
        tokens = np.arange(start, min(start + by, len(table)))
        kept = tokens[~np.isin(tokens, out)]
        assert only[column] == (len(kept) == 0)
        used = tokens if only[column] else kept
        np.testing.assert_array_equal(pooled[column], one_by_one(table[used], signed=signed))


def test_pooling_does_not_change_what_it_is_given() -> None:
    table = np.arange(12.0).reshape(6, 2)
    before = table.copy()
    pooled = pool.pool(table, 2, signed=True)
    kept = pooled.copy()
    pool.without(pooled, table, 2, np.array([0, 3]), signed=True)
    np.testing.assert_array_equal(pooled, kept)
    np.testing.assert_array_equal(table, before)


@pytest.mark.parametrize(("tokens", "factor"), [(1, 1), (1500, 1), (1501, 2), (2400, 2), (2401, 3), (100_000, 84)])
def test_columns_always_fit_into_the_picture(tokens: int, factor: int) -> None:
    assert pool.factor(tokens) == factor
    assert -(-tokens // factor) <= pool.MOST_UNPOOLED


def test_every_planted_spike_is_marked_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    units = rng.normal(0.5, 0.2, size=(1000, 30))
    places = {(int(rng.integers(1000)), int(rng.integers(30))) for _ in range(20)}
    for place in places:
        units[place] = 4.0
    cells, total = pool.spikes(units)
    assert {tuple(cell) for cell in cells.tolist()} == places
    assert total == len(places)


def test_of_too_many_spikes_the_strongest_are_marked_and_all_are_counted() -> None:
    units = np.zeros((4400, 2))
    units[::11, 0] = np.linspace(5, 9, 400)
    cells, total = pool.spikes(units)
    assert total == 400
    assert cells[:, 0].tolist() == list(range(11 * (400 - pool.MOST_SPIKES), 4400, 11))


def test_spikes_beside_each_other_have_one_ring_at_the_strongest() -> None:
    units = np.zeros((100, 9))
    units[40:45, 3:5] = [[5, 6], [7, 8], [9, 6], [5, 5], [5, 5]]
    units[60, 8] = 4
    cells, total = pool.spikes(units)
    assert (cells.tolist(), total) == ([[42, 3], [60, 8]], 11)


@pytest.mark.parametrize("log", [False, True])
def test_a_row_of_another_scale_is_not_ringed_as_a_whole_but_its_own_spike_is(*, log: bool) -> None:
    units = np.random.default_rng(0).normal(0.5, 0.1, size=(1000, 30))
    units[:, 29] = units[:, 29] + 5 if log else units[:, 29] * 12
    units[17, 29] = 9 if log else 40
    units[400, 3] = 4.0
    assert pool.spikes(units, log=log)[0].tolist() == [[17, 29], [400, 3]]


def test_infinite_values_are_spikes_and_missing_ones_are_not() -> None:
    units = np.array([[0.5], [np.nan], [np.inf], [0.4], [-np.inf]])
    cells, total = pool.spikes(units)
    assert (cells.tolist(), total) == ([[2, 0]], 1)
    assert pool.spikes(np.full((3, 2), np.nan))[1] == 0
