"""Whatever the peaks are, the ones that must be drawn are drawn, and never too many."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stratoscope.view.peaks3d import points as choosing
from stratoscope.view.peaks3d.points import Chooser, Points, choose_points, token_runs

LAYERS, TOP_K = 3, 4
PEAKS = ("peak_write", "peak_value", "peak_neuron")
SMALL = {"MAX_POINTS": 40, "ALWAYS": 6, "BLOCK": 24}  # the same rules with numbers that make small cases hard


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(choosing, name, value)


@st.composite
def traces(draw: st.DrawFn) -> xr.Dataset:
    """Heights with many equal ones and gaps, in prompts of unequal length."""
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    shape = (sum(lengths), LAYERS, TOP_K)
    levels = st.sampled_from([np.nan, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 1e6])
    heights = draw(hnp.arrays("float32", shape, elements=levels))
    return xr.Dataset(
        {
            "peak_write": (("token", "layer", "peak"), heights),
            "peak_value": (("token", "layer", "peak"), -heights),
            "peak_neuron": (("token", "layer", "peak"), np.arange(heights.size, dtype="int32").reshape(shape)),
        },
        coords={
            "prompt": ("token", np.repeat(np.arange(len(lengths), dtype="int32"), lengths)),
            "layer": np.array([2, 5, 9], "int32"),
        },
    )


def as_rows(dataset: xr.Dataset, order: np.ndarray) -> xr.Dataset:
    """The same peaks as rows of an import, in any order."""
    token, layer, _ = (index.ravel()[order] for index in np.indices(dataset["peak_write"].shape))
    height = dataset["peak_write"].values.ravel()[order].astype("float64")
    rows = xr.Dataset({"imported_norm": ("row", height)}, coords={"layer": dataset["layer"].values})
    return rows.assign_coords(
        row_token=("row", token.astype("int64")),
        row_layer=("row", dataset["layer"].values[layer]),
        row_neuron=("row", dataset["peak_neuron"].values.ravel()[order]),
    )


def choose(dataset: xr.Dataset, **options: object) -> Points:
    tokens = np.arange(dataset.sizes["token"])
    return choose_points(dataset, "peak_write", tokens, [2, 5, 9], **options)  # type: ignore[arg-type]


@given(traces(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_the_highest_of_each_cell_and_the_highest_of_all_are_never_lost(dataset: xr.Dataset, by_prompt: bool) -> None:
    prompt = dataset["prompt"].values.astype(np.int64)
    first = np.diff(prompt, prepend=-1) > 0
    scene = np.minimum(prompt, 1) if by_prompt else None
    points = choose(dataset, scene=scene, first=first)
    heights = dataset["peak_write"].values
    known = np.sort(heights[np.isfinite(heights)])[::-1]
    assert points.total == len(known)
    assert len(points.token) == min(len(known), SMALL["MAX_POINTS"])
    assert len(set(points.neuron.tolist())) == len(points.neuron)
    np.testing.assert_array_equal(np.sort(points.height)[::-1][: SMALL["ALWAYS"]], known[: SMALL["ALWAYS"]])
    cell, run = token_runs(first + 2 * (scene if by_prompt else 0 * prompt), LAYERS)
    assert run == points.run
    for one in range(cell.max() + 1):
        for place, layer in enumerate((2, 5, 9)):
            highest = heights[cell == one, place]
            drawn = points.height[(cell[points.token] == one) & (points.layer == layer)]
            if np.isfinite(highest).any():
                assert drawn.max() == np.nanmax(highest)


@given(traces())
@settings(max_examples=60, deadline=None)
def test_each_drawn_peak_is_one_of_the_trace_with_its_own_numbers(dataset: xr.Dataset) -> None:
    points = choose(dataset)
    heights, layers = dataset["peak_write"].values, dataset["layer"].values
    token, place, rank = np.unravel_index(points.neuron, heights.shape)  # a neuron here is the peak's own number
    np.testing.assert_array_equal(points.token, token)
    np.testing.assert_array_equal(points.layer, layers[place])
    np.testing.assert_array_equal(points.height, heights[token, place, rank])
    np.testing.assert_array_equal(points.write, points.height)
    np.testing.assert_array_equal(points.value, -points.height)


@given(traces(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_an_import_in_any_order_of_rows_draws_the_same_heights(dataset: xr.Dataset, random: object) -> None:
    order = np.arange(dataset["peak_write"].size)
    random.shuffle(order)  # type: ignore[attr-defined]
    tokens = np.arange(dataset.sizes["token"])
    rows = choose_points(as_rows(dataset, order), "imported_norm", tokens, [2, 5, 9])
    points = choose(dataset)
    assert rows.total == points.total
    np.testing.assert_array_equal(np.sort(rows.height), np.sort(points.height))
    assert not len(rows.write)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_split_into_blocks_gives_the_same_peaks(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 120))
    heights = data.draw(hnp.arrays("float64", count, elements=st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])))
    token = np.sort(data.draw(hnp.arrays("int64", count, elements=st.integers(0, 9))))
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=4)))
    last = np.arange(10) % 5 == 0

    def chosen(edges: list[int]) -> list[int]:
        chooser = Chooser(np.arange(10) // 3, 1, last)
        for begin, end in itertools.pairwise(edges):
            block = slice(begin, end)
            chooser.add(token[block], np.zeros(end - begin, np.int64), heights[block], np.arange(begin, end))
        return chooser.chosen().tolist()

    assert chosen([0, *cuts, count]) == chosen([0, count])


def test_a_threshold_hides_lower_peaks_and_counts_them_all_the_same() -> None:
    heights = np.arange(24, dtype="float32").reshape(2, LAYERS, TOP_K)
    dataset = xr.Dataset(
        dict.fromkeys(PEAKS, (("token", "layer", "peak"), heights)),
        coords={"layer": [2, 5, 9]},
    )
    points = choose(dataset, threshold=20)
    assert sorted(points.height.tolist()) == [20, 21, 22, 23]
    assert points.total == 24


def test_only_the_asked_for_tokens_and_layers_are_drawn_and_counted() -> None:
    heights = np.arange(10 * 12, dtype="float32").reshape(10, LAYERS, TOP_K)
    dataset = xr.Dataset(
        dict.fromkeys(PEAKS, (("token", "layer", "peak"), heights)),
        coords={"layer": [2, 5, 9]},
    )
    points = choose_points(dataset, "peak_write", np.array([1, 4, 8]), [9, 2])
    assert points.total == 3 * 2 * TOP_K
    assert set(points.token.tolist()) == {1, 4, 8}
    assert set(points.layer.tolist()) == {2, 9}
    np.testing.assert_array_equal(points.height, heights.ravel()[points.neuron])


@pytest.mark.parametrize(("tokens", "layers"), [(1, 1), (11, 3), (12, 3), (500, 3), (40, 30), (7, 100)])
def test_cells_fit_however_many_tokens_and_layers_there_are(tokens: int, layers: int) -> None:
    cell, run = token_runs(np.arange(tokens) % 2, layers)
    cells = len(np.unique(cell)) * layers
    assert cells <= max(SMALL["MAX_POINTS"] - SMALL["ALWAYS"], 2 * layers)
    assert run == 1 or cells > (SMALL["MAX_POINTS"] - SMALL["ALWAYS"]) / 4  # no more pooling than there must be
    for group in (0, 1):
        assert not set(cell[np.arange(tokens) % 2 == group]) & set(cell[np.arange(tokens) % 2 == 1 - group])
