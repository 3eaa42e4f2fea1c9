"""Simulated neurons and attention matrices: what is recorded beside them follows from them."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.recorder.simulate import simulate
from stratoscope.recorder.simulated.attention import first_and_weights, matrix
from stratoscope.recorder.simulated.model import EFFECTS, SimulatedModel, SimulationSize
from stratoscope.trace.read.reader import open_trace

SIZES = {"tokens": (1, 14), "layers": 5, "d_ff": 96, "heads": 3, "top_k": 4}
DRAWN = {"neuron_norm", "peak_share", "peak_explained", "prompt_mean", "prompt_max", "prompt_min"}  # from the neurons


@pytest.fixture(scope="module")
def trace() -> xr.Dataset:
    return simulate(prompts=12, **SIZES, record=names.WITHOUT_TARGETS)


@pytest.fixture(scope="module")
def model() -> SimulatedModel:
    shape = {"d_model": 1024, "seed": 0, **SIZES}
    return SimulatedModel(SimulationSize(prompts=12, **shape))


def test_no_neuron_writes_more_than_the_peaks_and_the_peaks_are_among_them(
    trace: xr.Dataset, model: SimulatedModel
) -> None:
    writes = np.abs(trace["neurons"].values).astype(float) * model.column_norm
    order = np.argsort(-writes, axis=-1)[..., : SIZES["top_k"]]
    assert (np.sort(order, axis=-1) == np.sort(trace["peak_neuron"].values, axis=-1)).all()
    at_peaks = np.take_along_axis(trace["neurons"].values, trace["peak_neuron"].values, axis=-1)
    assert (at_peaks == trace["peak_value"].values).all()
    share = np.square(trace["peak_write"].values).sum(axis=-1) / np.square(writes).sum(axis=-1)
    np.testing.assert_allclose(trace["peak_share"].values, share, rtol=1e-5)


def test_norms_and_prompt_summaries_are_those_of_the_neurons(trace: xr.Dataset) -> None:
    neurons = trace["neurons"].values
    np.testing.assert_allclose(np.linalg.norm(neurons.astype(float), axis=-1), trace["neuron_norm"].values, rtol=1e-6)
    for prompt in range(trace.sizes["prompt"]):
        user = (trace["prompt"].values == prompt) & (trace["position"].values > 0)
        if not user.any():
            assert np.isnan(trace["prompt_mean"].values[prompt]).all(), "a prompt without a user token"
            continue
        mean = neurons[user].mean(axis=0, dtype=float)
        np.testing.assert_allclose(trace["prompt_mean"].values[prompt], mean, rtol=1e-5, atol=1e-9)
        assert (trace["prompt_max"].values[prompt] == neurons[user].max(axis=0)).all()
        assert (trace["prompt_min"].values[prompt] == neurons[user].min(axis=0)).all()


def test_pairs_are_the_attention_matrix_of_every_head(trace: xr.Dataset, model: SimulatedModel) -> None:
    row = 0
    for prompt in range(trace.sizes["prompt"]):
        text = model.text(prompt)
        first, weight = first_and_weights(model, text)
        length = len(text.words)
        found = trace["attention"].values[row : row + names.edges(length)]
        for layer, head in np.ndindex(SIZES["layers"], SIZES["heads"]):
            wanted = matrix(first[:, layer, head], weight[:, layer, head])[np.tril_indices(length)]
            np.testing.assert_allclose(found[:, layer, head], wanted, atol=5e-4)
        row += names.edges(length)
    assert row == trace.sizes["edge"]


def test_everything_else_is_the_same_without_them(trace: xr.Dataset) -> None:
    without = simulate(prompts=12, **SIZES)
    for name in without.data_vars.keys() - DRAWN:
        assert trace[name].values.tobytes() == without[name].values.tobytes(), name


@pytest.mark.parametrize("group", [names.NEURONS, names.ATTENTION_FULL])
def test_one_group_alone_is_on_disk_what_it_is_in_memory(trace: xr.Dataset, tmp_path: Path, group: str) -> None:
    simulate(tmp_path / "t", prompts=12, **SIZES, record=group)
    (quantity,) = (one.name for one in names.quantities_of((group,)) if one.name not in names.OF_SOME_MODELS)
    opened = open_trace(tmp_path / "t")
    assert set(opened.data_vars) == {quantity}
    assert opened[quantity].attrs == trace[quantity].attrs
    assert opened[quantity].values.tobytes() == trace[quantity].values.tobytes()


def test_the_planted_neurons_differ_as_much_as_is_said() -> None:
    trace = simulate(prompts=400, tokens=6, layers=5, d_ff=24, heads=1, top_k=2, record="prompts,neurons")
    critical = trace["prompt_class"].values == "critical"
    user = trace["position"].values > 0
    mean = np.stack(
        [trace["neurons"].values[user & (trace["prompt"].values == one)].mean(axis=0) for one in range(400)]
    )
    planted = [one for one in trace.attrs["planted"] if one["kind"] == "selective_neuron"]
    assert [one["effect"] for one in planted] == [*EFFECTS]
    for one in planted:
        values = mean[:, one["layer"], one["neuron"]]
        spread = np.sqrt((values[critical].var(ddof=1) + values[~critical].var(ddof=1)) / 2)
        assert (values[critical].mean() - values[~critical].mean()) / spread == pytest.approx(one["effect"], abs=0.35)


def test_a_shape_that_is_too_large_for_memory_is_refused_before_anything_is_drawn() -> None:
    with pytest.raises(InputError, match="too much to keep in memory"):
        simulate(prompts=200, tokens=1000, layers=32, d_ff=14336, record="neurons")


def test_prompts_of_one_token_have_neurons_and_no_summary() -> None:
    trace = simulate(prompts=2, tokens=1, layers=2, d_ff=24, heads=1, top_k=2, record="prompts,neurons")
    assert np.isfinite(trace["neurons"].values).all()
    assert np.isnan(trace["prompt_mean"].values).all()
