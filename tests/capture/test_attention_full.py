"""The group `attention-full`: every weight of every head, at its own pair, whatever ran together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_capture import run
from tiny import TEXTS, byte_tokenizer, tiny

from stratoscope import attention_matrix
from stratoscope.errors import InputError, ModelError
from stratoscope.names import ATTENTION, ATTENTION_FULL, RESIDUAL, edges
from stratoscope.recorder.attention import rows
from stratoscope.recorder.proof.replay import eager_attention

FAMILIES = ("Llama", "Mistral", "GPT2", "GPTNeoX", "Gemma2", "BLOOM", "GPT-J", "GPT-OSS", "LFM2", "DeepSeek-V3")
WINDOWS = {"Mistral": 8}


def own_weights(model: Any, text: str) -> list[np.ndarray]:
    """What transformers itself says with eager attention, of the prompt alone: [head, query, key] of each layer."""
    with eager_attention(model), torch.no_grad():
        ids = torch.tensor([byte_tokenizer()(text)["input_ids"]])
        found = model(ids, use_cache=False, output_attentions=True).attentions
    return [weights[0].float().numpy() for weights in found]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_is_the_models_own_at_its_own_pair(tmp_path: Path, family: str, side: str) -> None:
    model = tiny(family)
    options: dict[str, Any] = {"model": model, "tokenizer": byte_tokenizer(side), "prompts": TEXTS, "batch_size": 3}
    trace = run(tmp_path / "t", record=(RESIDUAL, ATTENTION_FULL), **options)
    shown = [layer for layer in range(3) if not np.isnan(trace.attention[:, layer]).all()]
    for number, text in enumerate(TEXTS):
        wanted = own_weights(model, text)
        assert len(wanted) == len(shown) or len(shown) == 3
        for layer in shown:
            weights = wanted[layer if len(wanted) == 3 else shown.index(layer)]
            for head, expected in enumerate(weights):
                found = attention_matrix(trace, number, layer, head)
                assert np.isnan(found[np.triu_indices(len(found), 1)]).all()
                np.testing.assert_allclose(np.nan_to_num(found), expected, atol=6e-4)


def test_a_window_hides_what_lies_before_it(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", model=tiny("Mistral"), prompts=["x" * 40], record=(ATTENTION_FULL,))
    found = attention_matrix(trace, 0, 1, 2)
    distance = np.subtract.outer(np.arange(len(found)), np.arange(len(found)))
    np.testing.assert_array_equal(np.isnan(found), (distance < 0) | (distance >= WINDOWS["Mistral"]))


def test_layers_without_attention_have_no_weights(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", model=tiny("LFM2"), record=(ATTENTION_FULL,))
    assert [bool(np.isnan(trace.attention[:, layer]).all()) for layer in range(3)] == [True, False, True]
    with pytest.raises(ModelError, match="no layer showed attention"):
        run(tmp_path / "u", model=tiny("Mamba"), record=(ATTENTION_FULL,))


def test_small_chunks_give_the_same_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {
        "prompts": ["abc" * 20, "a", "hello there"],
        "batch_size": 3,
        "record": (ATTENTION_FULL,),
    }
    whole = run(tmp_path / "whole", **options)
    monkeypatch.setattr(rows, "_CHUNK_ELEMENTS", {"cpu": 1})
    monkeypatch.setattr(rows, "_FEWEST_ROWS", 3)
    small = run(tmp_path / "small", **options)
    np.testing.assert_allclose(small.attention.values, whole.attention.values, atol=5e-4)


def test_weights_of_an_answer_are_those_of_reading_it(tmp_path: Path) -> None:
    model = tiny("Llama")
    answered = run(tmp_path / "a", model=model, batch_size=2, record=(ATTENTION_FULL,), generate=5)
    for number in range(answered.sizes["prompt"]):
        ids = answered.token_id[answered.prompt == number].values
        with eager_attention(model), torch.no_grad():
            weights = model(torch.tensor(ids)[None].long(), use_cache=False, output_attentions=True).attentions
        for layer in range(3):
            found = attention_matrix(answered, number, layer, 1)
            np.testing.assert_allclose(np.nan_to_num(found), weights[layer][0, 1].numpy(), atol=1e-3)


def test_summaries_are_those_of_the_weights_beside_them(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", record=(ATTENTION, ATTENTION_FULL))
    assert trace.sizes["edge"] == sum(edges(n) for n in np.bincount(trace.prompt))
    for number in range(trace.sizes["prompt"]):
        found = attention_matrix(trace, number, 2, 3)
        first = trace.attn_first[trace.prompt == number, 2, 3]
        np.testing.assert_allclose(found[:, 0], first, atol=6e-4)


def test_a_matrix_that_is_not_there_is_named(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", record=(ATTENTION_FULL,))
    said = {
        ("nobody", 0, 0): "no prompt called 'nobody'",
        (0, 7, 0): "there is no layer 7",
        (0, 0, 9): "there is no head 9",
        (-1, 0, 0): "no prompt number -1",
    }
    for place, words in said.items():
        with pytest.raises(InputError, match=words):
            attention_matrix(trace, *place)
    with pytest.raises(InputError, match="--record attention-full"):
        attention_matrix(run(tmp_path / "u", record=(RESIDUAL,)), 0, 0, 0)
