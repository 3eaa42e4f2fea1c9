"""Simulated traces: labelled, reproducible, in the format's types, and consistent with themselves."""

import os
import subprocess
import sys

import numpy as np
import pytest

from stratoscope import names
from stratoscope.errors import InputError, TraceError
from stratoscope.recorder.simulate import simulate
from stratoscope.recorder.simulated.model import SimulatedModel, SimulationSize
from stratoscope.trace.read.reader import open_trace

SMALL = {"prompts": 6, "tokens": (3, 9), "layers": 5, "d_ff": 64, "heads": 3, "top_k": 4}


@pytest.fixture(scope="module")
def trace():
    return simulate(prompts=20, tokens=(4, 24), layers=9, d_ff=200, heads=4, top_k=6, seed=3)


def same_bytes(one, two):
    assert one.variables.keys() == two.variables.keys()
    for name in one.variables:
        first, second = one[name], two[name]
        assert (first.dims, first.dtype) == (second.dims, second.dtype)
        same = first.values.tolist() == second.values.tolist() if first.dtype == object else None
        assert first.values.tobytes() == second.values.tobytes() if same is None else same, name


# --- labels ---------------------------------------------------------------------------------------------------------


def test_every_quantity_of_every_group_has_the_dims_and_type_of_the_format(trace):
    expected = {quantity.name for quantity in names.quantities_of(names.SUMMARIES)} - {*names.OF_SOME_MODELS}
    assert set(trace.data_vars) == expected
    for name in expected:
        quantity = names.QUANTITIES[name]
        assert trace[name].dims == quantity.dims
        assert trace[name].dtype == np.dtype(quantity.dtype)
        assert trace[name].attrs["units"] == quantity.unit


def test_nothing_simulated_can_be_taken_for_real(trace):
    assert trace.attrs["source"] == "simulated"
    assert {trace[name].attrs["source"] for name in trace.data_vars} == {"simulated"}
    (note,) = trace.attrs["notes"]
    assert note["id"] == "L16"
    assert note["text"].startswith("Simulated data")


@pytest.mark.parametrize("group", names.SUMMARIES)
def test_one_group_alone_gives_exactly_its_quantities_with_the_same_values(group):
    everything, alone = simulate(**SMALL), simulate(**SMALL, record=(group,))
    assert set(alone.data_vars) == {q.name for q in names.quantities_of((group,))} - {*names.OF_SOME_MODELS}
    same_bytes(everything.drop_vars(everything.variables.keys() - alone.variables.keys()), alone)


def test_coordinates_are_those_of_a_trace(trace):
    assert trace["layer"].values.tolist() == list(range(9))
    assert trace["depth"].values.tolist() == list(range(10))
    prompt, position, span = (trace[name].values for name in ("prompt", "position", "span"))
    assert (np.diff(prompt) >= 0).all()
    assert np.unique(prompt).tolist() == list(range(20))
    first = np.flatnonzero(np.diff(prompt, prepend=-1))
    assert np.flatnonzero(position == 0).tolist() == first.tolist()
    assert (np.diff(position)[np.diff(prompt) == 0] == 1).all()
    assert np.flatnonzero(span == names.SPANS.index("special")).tolist() == first.tolist()
    assert set(span.tolist()) == {names.SPANS.index("special"), names.SPANS.index("user")}


def test_twins_are_equally_long_and_differ_only_in_what_they_are_about():
    trace = simulate(prompts=12, tokens=(15, 30), layers=2, d_ff=32, heads=1, record=("norms",))
    assert trace["prompt_class"].values.tolist() == ["critical", "neutral"] * 6
    assert trace["pair"].values[::2].tolist() == trace["pair"].values[1::2].tolist()
    assert trace["group"].values[::2].tolist() == trace["group"].values[1::2].tolist()
    assert len(set(trace["pair"].values)) == 6
    assert len(set(trace["prompt_id"].values)) == 12
    texts = [trace["text"].values[trace["prompt"].values == prompt] for prompt in range(12)]
    for critical, neutral in zip(texts[::2], texts[1::2], strict=True):
        assert len(critical) == len(neutral)
        assert 1 <= (critical != neutral).sum() <= len(critical) // 4


def test_the_last_of_an_odd_number_of_prompts_has_no_pair():
    assert simulate(**SMALL | {"prompts": 5})["pair"].values.tolist() == ["1", "1", "2", "2", ""]


def test_awkward_tokens_are_among_the_words():
    texts = simulate(prompts=40, tokens=40, layers=1, d_ff=16, heads=1, record=("residual",))["text"].values.tolist()
    assert {"\n", "$", "🙂", "\udce4", "<b>"} <= set(texts)
    assert (
        0.02
        < sum(text in {"\n", "$", "🙂", "\udce4", "<b>", " שלום", '"', " naïve"} for text in texts) / len(texts)
        < 0.1
    )


# --- reproducible ---------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes():
    same_bytes(simulate(**SMALL, seed=7), simulate(**SMALL, seed=7))


def test_another_seed_gives_other_values():
    one, two = simulate(**SMALL, seed=7), simulate(**SMALL, seed=8)
    assert one["resid_norm"].values[:3].tolist() != two["resid_norm"].values[:3].tolist()


def test_the_trace_on_disk_holds_what_memory_holds(tmp_path):
    stages = []
    on_disk = simulate(tmp_path / "s.trace", **SMALL, progress=lambda *stage: stages.append(stage))
    in_memory = simulate(**SMALL)
    same_bytes(open_trace(tmp_path / "s.trace").load(), in_memory)
    assert on_disk.attrs["state"] == "complete"
    for key in ("planted", "model", "plan", "notes", "source", "token_spelling"):
        assert on_disk.attrs[key] == in_memory.attrs[key]
    assert [done for _, done, _ in stages] == list(range(7))
    assert stages[-1][1] == stages[-1][2]


# --- consistent with itself -----------------------------------------------------------------------------------------


def test_norms_ratios_and_cosines_obey_the_law_of_cosines(trace):
    values = {name: trace[name].values.astype(float) for name in trace.data_vars if trace[name].dims[1] != "head"}
    start, end = values["resid_norm"][:, :-1], values["resid_norm"][:, 1:]
    attn, mlp = values["attn_write_norm"], values["mlp_write_norm"]
    middle = np.sqrt(start**2 + attn**2 + 2 * start * attn * values["attn_write_cos"])
    np.testing.assert_allclose(attn / start, values["attn_write_ratio"], rtol=1e-5)
    np.testing.assert_allclose(mlp / middle, values["mlp_write_ratio"], rtol=1e-5)
    np.testing.assert_allclose(end, np.sqrt(middle**2 + mlp**2 + 2 * middle * mlp * values["mlp_write_cos"]), rtol=1e-5)
    for name in ("attn_write_cos", "mlp_write_cos"):
        assert np.abs(values[name]).max() < 1


def test_the_residual_stream_grows_with_depth(trace):
    assert (np.diff(np.median(trace["resid_norm"].values, axis=0)) > 0).all()


def test_peaks_are_distinct_neurons_sorted_by_what_they_write(trace):
    neuron, write = trace["peak_neuron"].values, trace["peak_write"].values
    assert neuron.min() >= 0
    assert neuron.max() < 200
    assert (np.diff(np.sort(neuron, axis=-1), axis=-1) > 0).all()
    assert (np.diff(write, axis=-1) <= 0).all()
    assert (write > 0).all()


def test_peaks_keep_both_signs_and_one_column_norm_per_neuron(trace):
    neuron, value, write = (trace[name].values for name in ("peak_neuron", "peak_value", "peak_write"))
    assert 0.3 < (value < 0).mean() < 0.5
    norm = write / np.abs(value)
    for layer in range(9):
        of_layer = neuron[:, layer].ravel()
        norms = norm[:, layer].ravel()
        for one in np.unique(of_layer)[:20]:
            np.testing.assert_allclose(norms[of_layer == one], norms[of_layer == one][0], rtol=1e-5)


def test_peaks_never_carry_more_than_there_is(trace):
    share, explained = trace["peak_share"].values, trace["peak_explained"].values
    assert 0 < share.min() < share.max() < 1
    assert np.corrcoef(share.ravel(), explained.ravel())[0, 1] > 0.8
    assert (trace["neuron_norm"].values >= np.linalg.norm(trace["peak_value"].values, axis=-1) * (1 - 1e-6)).all()


def test_all_neurons_as_peaks_explain_everything():
    trace = simulate(prompts=2, tokens=5, layers=3, d_ff=6, heads=1, top_k=6)
    np.testing.assert_allclose(trace["peak_share"].values, 1, rtol=1e-6)
    np.testing.assert_allclose(trace["peak_explained"].values, 1, rtol=1e-6)
    assert (np.sort(trace["peak_neuron"].values, axis=-1) == np.arange(6)).all()
    norm = np.linalg.norm(trace["peak_value"].values, axis=-1)
    np.testing.assert_allclose(trace["neuron_norm"].values, norm, rtol=1e-5)
    values = trace["peak_value"].values[1:5]
    order = np.argsort(trace["peak_neuron"].values[1:5], axis=-1)
    activations = np.take_along_axis(values, order, axis=-1)  # every activation of the first prompt is on record
    np.testing.assert_array_equal(trace["prompt_max"].values[0], activations.max(axis=0))
    np.testing.assert_array_equal(trace["prompt_min"].values[0], activations.min(axis=0))
    np.testing.assert_allclose(trace["prompt_mean"].values[0], activations.mean(axis=0), rtol=1e-5, atol=1e-7)


def test_peak_sizes_are_order_statistics_of_a_heavy_tail():
    trace = simulate(prompts=200, tokens=8, layers=4, d_ff=500, heads=1, top_k=4, record=("peaks",))
    later = trace.isel(token=trace["position"].values > 0)
    plain = ~np.isin(np.arange(4), [entry["layer"] for entry in trace.attrs["planted"]])
    write = later["peak_write"].values[:, plain].astype(float)
    for rank in range(3):  # gaps of log Pareto order statistics are exponential with mean tail / rank
        gap = np.log(write[..., rank] / write[..., rank + 1])
        expected = 0.45 / (rank + 1)
        assert abs(gap.mean() - expected) < 4 * expected / np.sqrt(gap.size)


def test_prompt_summaries_contain_the_peaks_and_each_other(trace):
    low, mean, high = (trace[f"prompt_{kind}"].values for kind in ("min", "mean", "max"))
    assert (low <= mean).all()
    assert (mean <= high).all()
    norm = SimulatedModel(SimulationSize(20, (4, 24), 9, 256, 200, 4, 6, 3)).column_norm
    for prompt in range(20):
        mine = trace.isel(token=(trace["prompt"].values == prompt) & (trace["position"].values > 0))
        layer = np.arange(9)[:, None]
        neuron, value = mine["peak_neuron"].values, mine["peak_value"].values
        assert (high[prompt][layer, neuron] >= value).all()
        assert (low[prompt][layer, neuron] <= value).all()
        in_peaks = np.zeros((9, 200), bool)
        in_peaks[np.broadcast_to(layer, neuron.shape[1:]), neuron] = True
        write = np.maximum(np.abs(high[prompt]), np.abs(low[prompt])) * norm
        weakest = np.broadcast_to(mine["peak_write"].values[..., -1].max(axis=0)[:, None], write.shape)
        assert (write[~in_peaks] <= weakest[~in_peaks] * (1 + 1e-5)).all()


def test_a_prompt_with_one_user_token_has_one_activation_per_neuron():
    trace = simulate(**SMALL | {"tokens": 2})
    np.testing.assert_array_equal(trace["prompt_max"].values, trace["prompt_min"].values)
    np.testing.assert_allclose(trace["prompt_mean"].values, trace["prompt_max"].values)


def test_a_prompt_without_user_tokens_has_no_summary():
    trace = simulate(**SMALL | {"tokens": 1})
    for kind in ("min", "mean", "max"):
        assert np.isnan(trace[f"prompt_{kind}"].values).all()


@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_the_shortest_prompts_have_no_made_up_numbers(tokens):
    trace = simulate(**SMALL | {"tokens": tokens})
    for name in trace.data_vars:
        if names.QUANTITIES[name].group not in (names.ATTENTION, names.PROMPTS):
            assert np.isfinite(trace[name].values).all(), name
        else:
            assert not np.isinf(trace[name].values).any(), name


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"prompts": 0}, "prompts"),
        ({"layers": 0}, "layers"),
        ({"tokens": 0}, "tokens"),
        ({"tokens": (9, 3)}, "tokens"),
        ({"d_model": -1}, "d_model"),
        ({"d_ff": 0}, "d_ff"),
        ({"heads": 0}, "heads"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 65, "d_ff": 64}, "top_k"),
        ({"seed": -1}, "seed"),
        ({"record": ("norms", "paths")}, "paths"),
        ({"record": ()}, "record"),
        ({"record": "norms", "positions": "all"}, "lens"),
        ({"record": "lens,logits", "positions": "all"}, "answer position only"),
        ({"record": "lens", "positions": "none"}, "positions"),
        ({"record": "routes", "targets": ["Sorry"]}, "targets"),
    ],
)
def test_impossible_shapes_are_refused_before_anything_is_written(tmp_path, arguments, word):
    with pytest.raises(InputError, match=word):
        simulate(tmp_path / "s.trace", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_large_shape_is_refused_in_memory_with_advice():
    with pytest.raises(InputError, match="Name a trace"):
        simulate(prompts=3000, tokens=40, layers=32)


def test_an_existing_trace_is_kept_unless_overwriting_is_asked_for(tmp_path):
    simulate(tmp_path / "s.trace", **SMALL, seed=1)
    before = open_trace(tmp_path / "s.trace").attrs["uuid"]
    with pytest.raises(TraceError, match="exists"):
        simulate(tmp_path / "s.trace", **SMALL, seed=2)
    assert open_trace(tmp_path / "s.trace").attrs["uuid"] == before
    assert simulate(tmp_path / "s.trace", **SMALL, seed=2, overwrite=True).attrs["plan"]["seed"] == 2


def test_an_interrupted_simulation_leaves_no_trace(tmp_path):
    def stop(stage, done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "s.trace", **SMALL, progress=stop)
    assert not (tmp_path / "s.trace").exists()


@pytest.mark.parametrize("prompts", [500, pytest.param(2500, marks=pytest.mark.long)])
def test_tens_of_thousands_of_tokens_are_simulated_within_500_mb(tmp_path, prompts):
    code = (  # not ru_maxrss, which a child inherits from the process that started it
        "import re, sys\n"
        "from stratoscope.recorder.simulate import simulate\n"
        "simulate(sys.argv[1], prompts=int(sys.argv[2]), tokens=40, layers=32, record=('norms', 'residual', 'peaks'))\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]) // 1024)"
    )

    def megabytes(prompts):
        command = [sys.executable, "-c", code, str(tmp_path / f"{prompts}.trace"), str(prompts)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)

    peak = megabytes(prompts)
    assert peak < 500, f"{peak} MB"
