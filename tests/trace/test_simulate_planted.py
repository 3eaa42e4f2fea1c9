"""What a simulated trace says is planted is found there, with the stated size, and nowhere else."""

import numpy as np
import pytest

from stratoscope import names
from stratoscope.recorder.simulate import simulate

PROMPTS, LAYERS, NEURONS = 600, 10, 128


@pytest.fixture(scope="module")
def trace():
    return simulate(prompts=PROMPTS, tokens=(10, 16), layers=LAYERS, d_ff=NEURONS, heads=4, seed=5)


def planted(trace, kind):
    return [entry for entry in trace.attrs["planted"] if entry["kind"] == kind]


def cohens_d(mean):
    """Of every neuron, between the classes; `mean` has shape (prompt, layer, neuron), twins alternate."""
    critical, neutral = mean[::2].astype(float), mean[1::2].astype(float)
    pooled = np.sqrt((critical.var(axis=0, ddof=1) + neutral.var(axis=0, ddof=1)) / 2)
    return (critical.mean(axis=0) - neutral.mean(axis=0)) / pooled


def test_selective_neurons_have_the_stated_effect(trace):
    found = cohens_d(trace["prompt_mean"].values)
    entries = planted(trace, "selective_neuron")
    assert sorted(entry["effect"] for entry in entries) == [-2.0, 1.0, 1.5, 3.0]
    for entry in entries:
        effect, per_class = entry["effect"], PROMPTS / 2
        error = np.sqrt(2 / per_class + effect**2 / (4 * per_class))
        assert abs(found[entry["layer"], entry["neuron"]] - effect) < 4 * error, entry


def test_no_other_neuron_differs_between_the_classes(trace):
    found = cohens_d(trace["prompt_mean"].values)
    for kind in ("selective_neuron", "class_peak"):
        for entry in planted(trace, kind):
            found[entry["layer"], entry["neuron"]] = 0
    assert np.abs(found).max() < 6 * np.sqrt(2 / (PROMPTS / 2))


def test_twins_are_more_alike_than_strangers(trace):
    mean = trace["prompt_mean"].values[:, :, :40].reshape(PROMPTS, -1)
    twins = np.mean([np.corrcoef(mean[p], mean[p + 1])[0, 1] for p in range(0, PROMPTS, 2)])
    strangers = np.mean([np.corrcoef(mean[p], mean[p + 3])[0, 1] for p in range(0, PROMPTS - 3, 2)])
    assert twins > strangers + 0.02


def test_the_class_peak_leads_the_stated_share_of_critical_tokens_and_no_neutral_one(trace):
    (entry,) = planted(trace, "class_peak")
    user = trace["span"].values == names.SPANS.index("user")
    critical = (trace["prompt_class"].values == entry["class"])[trace["prompt"].values]
    neurons = trace["peak_neuron"].values[:, entry["layer"]]
    leads = neurons[:, 0] == entry["neuron"]
    share = leads[user & critical].mean()
    assert abs(share - entry["effect"]) < 4 * np.sqrt(0.25 / (user & critical).sum())
    assert (trace["peak_value"].values[leads, entry["layer"], 0] > 0).all()
    assert not (neurons[~(user & critical)] == entry["neuron"]).any()


def test_the_sink_is_the_first_token_of_every_prompt(trace):
    (entry,) = planted(trace, "sink")
    first = trace["position"].values == entry["token"]
    ratio = trace["mlp_write_ratio"].values[:, entry["layer"]]
    np.testing.assert_allclose(ratio[first], entry["effect"], rtol=1e-6)
    assert ratio[~first].max() < entry["effect"] / 4
    assert (trace["peak_neuron"].values[first, entry["layer"], 0] == entry["neuron"]).all()
    assert not (trace["peak_neuron"].values[~first, entry["layer"]] == entry["neuron"]).any()
    resid = trace["resid_norm"].values[:, entry["layer"] + 1 :]
    assert (resid[first].min(axis=0) > np.quantile(resid[~first], 0.99, axis=0)).all()


def test_most_attention_goes_to_the_first_token(trace):
    (entry,) = planted(trace, "attention_sink")
    later = trace["position"].values > 0
    assert abs(np.median(trace["attn_first"].values[later]) - entry["effect"]) < 0.1
    assert (trace["attn_first"].values[~later] == 1).all()


def test_the_routing_anomaly_is_one_head_at_one_token_of_one_prompt(trace):
    (entry,) = planted(trace, "routing_anomaly")
    index = trace["prompt_id"].values.tolist().index(entry["prompt"])
    mine = trace.isel(token=trace["prompt"].values == index)
    token, layer, head = entry["token"], entry["layer"], entry["head"]
    assert trace["text"].values.tolist().count("◆") == 1
    assert mine["text"].values[token] == "◆"
    received = mine["attn_received_nosink"].values[:-4]  # of the last tokens, few queries decide
    assert np.unravel_index(np.nanargmax(received), received.shape) == (token, layer, head)
    later = mine["position"].values > token
    assert (mine["attn_first"].values[later, layer, head] < 1 - entry["effect"]).all()
    others = np.delete(mine["attn_first"].values[later, layer], head, axis=1)
    assert np.median(others) > 0.4


def test_only_what_was_recorded_is_listed():
    alone = simulate(prompts=4, tokens=12, layers=4, d_ff=64, heads=2, record=("residual",))
    assert alone.attrs["planted"] == []
    peaks = simulate(prompts=4, tokens=12, layers=4, d_ff=64, heads=2, record=("peaks",))
    assert [entry["kind"] for entry in peaks.attrs["planted"]] == ["class_peak", "sink"]


def test_a_model_too_narrow_for_planted_neurons_claims_none():
    trace = simulate(prompts=4, tokens=8, layers=2, d_ff=12, heads=1, top_k=10)
    kinds = [entry["kind"] for entry in trace.attrs["planted"]]
    assert kinds == ["sink", "attention_sink", "routing_anomaly"]
    assert trace.attrs["planted"][0]["neuron"] == -1
