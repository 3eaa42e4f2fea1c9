"""Simulated attention equals the definitions, applied to the attention matrices it stands for."""

import numpy as np
import pytest

from stratoscope.recorder.simulated.activity import norms
from stratoscope.recorder.simulated.attention import attention, first_and_weights, matrix
from stratoscope.recorder.simulated.model import SimulatedModel, SimulationSize

SHAPE = SimulationSize(prompts=4, tokens=(7, 12), layers=3, d_model=32, d_ff=40, heads=2, top_k=3, seed=1)


def summaries(rows, mask):
    """The attention quantities by their definitions, from one matrix A[query, key] and its mask."""
    length = len(rows)
    visible = mask.sum(axis=1)
    off = ~np.eye(length, dtype=bool)
    received = np.full(length, np.nan)
    others = (rows * off).sum(axis=1)
    for token in range(length):
        queries = [query for query in range(length) if query != token and mask[query, token]]
        if queries:
            uniform = sum(others[query] / (visible[query] - 1) for query in queries)
            received[token] = sum(rows[query, token] for query in queries) / uniform
    logs = np.log(rows, out=np.zeros_like(rows), where=rows > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        entropy = -(rows * logs).sum(axis=1) / np.log(visible)
    entropy[visible <= 1] = np.nan
    distance = (rows * (np.arange(length)[:, None] - np.arange(length))).sum(axis=1)
    distance[visible == 0] = np.nan
    return received, entropy, distance


@pytest.mark.parametrize("index", range(4))
def test_every_quantity_equals_its_definition_on_the_matrix(index):
    model = SimulatedModel(SHAPE)
    text = model.text(index)
    found = attention(model, text, norms(model, text)["attn_write_norm"])
    first, weight = first_and_weights(model, text)
    length = len(text.words)
    causal = np.tril(np.ones((length, length), bool))
    for layer in range(SHAPE.layers):
        for head in range(SHAPE.heads):
            rows = matrix(first[:, layer, head], weight[:, layer, head])
            np.testing.assert_allclose(rows.sum(axis=1), 1)
            assert (rows[~causal] == 0).all()
            rest = rows.copy()
            rest[:, 0] = 0
            rest[1:] /= rest[1:].sum(axis=1, keepdims=True)
            without = causal.copy()
            without[:, 0] = without[0] = False
            measures = ("attn_received", "attn_entropy", "attn_distance")
            expected = dict(zip(measures, summaries(rows, causal), strict=True))
            nosink = zip(measures, summaries(rest, without), strict=True)
            expected |= {f"{name}_nosink": values for name, values in nosink}
            expected["attn_first"] = rows[:, 0]
            for name, values in expected.items():
                np.testing.assert_allclose(
                    found[name][:, layer, head], values, rtol=2e-5, atol=2e-6, err_msg=f"{name}, layer {layer}"
                )


def test_what_the_heads_move_adds_up_to_the_attention_write():
    model = SimulatedModel(SHAPE)
    text = model.text(0)
    write = norms(model, text)["attn_write_norm"]
    found = attention(model, text, write)["attn_value_norm"]
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), write, rtol=1e-5)


def test_long_prompts_in_parts_give_what_short_ones_give_at_once(monkeypatch):
    model = SimulatedModel(SHAPE)
    text = model.text(2)
    write = norms(model, text)["attn_write_norm"]
    at_once = attention(model, text, write)
    monkeypatch.setattr("stratoscope.recorder.simulated.attention._CELLS_AT_ONCE", 1)
    for name, values in attention(model, text, write).items():
        np.testing.assert_array_equal(values, at_once[name])


def test_the_odd_head_gives_every_later_token_at_least_the_stated_mass():
    model = SimulatedModel(SHAPE)
    at = model.anomaly
    first, weight = first_and_weights(model, model.text(at.prompt))
    rows = matrix(first[:, at.layer, at.head], weight[:, at.layer, at.head])
    assert rows[at.token + 1 :, at.token].min() >= 0.8 - 1e-9
