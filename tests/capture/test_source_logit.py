"""Which tokens the heads' contributions to the answer come from: by hand in float64, and as sums in every batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_contributions import answers, at, run
from tiny import TEXTS, byte_tokenizer, tiny
from tiny_any import tiny_of

from stratoscope.errors import CaptureError
from stratoscope.recorder.targets.sums import ContributionSums


def by_prompt(trace: Any) -> list[np.ndarray]:
    """`source_logit` of each prompt."""
    values, prompt = trace.source_logit.values.astype(float), trace.prompt.values
    return [values[prompt == number] for number in range(trace.sizes["prompt"])]


@torch.no_grad()
def by_hand(family: str, model: Any, text: str, token: int, against: int) -> np.ndarray:
    """What each head took from each token for the last one, [token, layer, head]: with eager attention's weights."""
    ids = torch.tensor([byte_tokenizer()(text)["input_ids"]])
    gpt, post = family == "GPT2", family == "Gemma2"
    blocks = model.transformer.h if gpt else model.model.layers
    norm = model.transformer.ln_f if gpt else model.model.norm
    kept: dict[Any, torch.Tensor] = {}
    handles = [norm.register_forward_pre_hook(lambda _, given: kept.__setitem__("x", given[0][0, -1]))]
    for number, block in enumerate(blocks):
        attention = block.attn if gpt else block.self_attn
        values, out = (attention.c_attn, attention.c_proj) if gpt else (attention.v_proj, attention.o_proj)
        for key, module in (("v", values), ("out", out)):
            handles.append(
                module.register_forward_hook(lambda _, __, y, key=key, n=number: kept.__setitem__((key, n), y[0]))
            )
    weights = model(ids, output_attentions=True, use_cache=False).attentions
    for handle in handles:
        handle.remove()
    u = model.get_output_embeddings().weight
    d, x = (norm.weight + (1 if post else 0)) * (u[token] - u[against]), kept["x"]
    if gpt:
        d, x = d - d.mean(), x - x.mean()
    d = d / (x.square().mean() + (norm.eps if not hasattr(norm, "variance_epsilon") else norm.variance_epsilon)).sqrt()
    found = torch.zeros(ids.shape[1], len(blocks), weights[0].shape[1], dtype=torch.float64)
    for number, block in enumerate(blocks):
        along = d
        if post:
            written, after = kept["out", number][-1], block.post_attention_layernorm
            along = d * (1 + after.weight) / (written.square().mean() + after.eps).sqrt()
        v = kept["v", number].chunk(3, -1)[2] if gpt else kept["v", number]
        out = block.attn.c_proj.weight if gpt else block.self_attn.o_proj.weight.T  # [head × width, residual]
        heads = found.shape[2]
        width = len(out) // heads
        v = v.view(len(v), -1, width)
        for head in range(heads):
            read = out[head * width : (head + 1) * width] @ along
            found[:, number, head] = weights[number][0, head, -1] * (v[:, head * v.shape[1] // heads] @ read)
    return found.numpy()


@pytest.mark.parametrize("family", ["Llama", "GPT2", "Gemma2"])  # grouped heads; β, biases; a post-norm and a window
def test_sources_are_what_eager_weights_and_float64_give(tmp_path: Path, family: str) -> None:
    model = tiny(family)
    trace = run(tmp_path / "t", model, targets=("N",), against="x", record=("norms", "logits", "attention"))
    exact = tiny(family).double()
    exact.set_attn_implementation("eager")
    token, against = (byte_tokenizer()(letter)["input_ids"][0] for letter in "Nx")
    for text, found in zip(TEXTS, by_prompt(trace), strict=True):
        wanted = by_hand(family, exact, text, token, against)
        np.testing.assert_allclose(found[..., 0], wanted, atol=2e-6 + 2e-5 * np.abs(wanted).sum(0).max())


@pytest.mark.parametrize("architecture", ["afmoe", "bitnet", "falcon"])  # a gate, a norm, attention in its own code
def test_they_add_up_to_the_heads_contributions(tmp_path: Path, architecture: str) -> None:
    trace = run(tmp_path / "t", tiny_of(architecture), record=("norms", "logits"))
    sums = np.stack([found.sum(0) for found in by_prompt(trace)])
    sizes = np.stack([np.abs(found).sum(0) for found in by_prompt(trace)])
    assert (np.abs(sums - at(trace, "head_logit")) <= 4e-5 * sizes).all()
    assert 0 < trace.attrs["receipt"]["contributions"]["sources_error"] <= 1e-5


def test_where_attention_cannot_be_split_it_is_missing_and_the_receipt_says_why(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", tiny("LFM2"))
    assert [bool(np.isfinite(trace.source_logit.values[:, layer]).any()) for layer in range(3)] == [False, True, False]
    why = "Lfm2ShortConv moves information between tokens by other than attention weights."
    assert f"Layers 0, 2: not split by source token: {why}" in trace.attrs["receipt"]["limits"]


def test_a_part_that_is_wrong_makes_the_sum_miss(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", tiny("Llama"))
    arrays = {name: np.array(array.values) for name, array in trace.data_vars.items()}
    check = ContributionSums(torch.float32).check
    ids = [str(one) for one in trace.prompt_id.values]
    check(arrays, answers(trace), ids)
    arrays["source_logit"][answers(trace)[1] - 1, 2, 3, 0] += 0.01
    with pytest.raises(CaptureError, match="heads of layer 2 took from all tokens does not add up"):
        check(arrays, answers(trace), ids)
