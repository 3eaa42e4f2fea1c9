"""Models that compute attention in their own code: seen without changing a bit, and only what really happened."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from attention_reference import (
    LENGTH,
    PADDINGS,
    compare,
    expected,
    make,
    make_batch,
    observe,
    projections,
    real_mask,
)
from tiny import MORE_FAMILIES, tiny, tiny_model
from torch import nn

from stratoscope.errors import CaptureError, ModelError
from stratoscope.recorder.attention.observer import AttentionObserver

FALCON_EAGER = {**MORE_FAMILIES["Falcon"].options, "attn_implementation": "eager"}
OWN = ("Falcon", "Falcon sequential", "Falcon eager", "Falcon alibi eager", "BLOOM", "GPT-J", "MPT", "CodeGen")
OWN += ("GPT-Neo", "XGLM", "RoFormer")


def falcon_weights(attention: Any, states: torch.Tensor, valid: torch.Tensor, alibi: bool) -> torch.Tensor:
    """Softmax of Falcon's scores over what is really visible, [B, H, T, T], in float64."""
    from transformers.models.falcon.modeling_falcon import build_alibi_tensor

    heads, width = attention.num_heads, attention.head_dim
    fused = states @ attention.query_key_value.weight.double().T
    if attention.multi_query:
        query, key = fused[..., : heads * width], fused[..., heads * width : heads * width + width]
        query, key = query.unflatten(-1, (heads, width)), key.unflatten(-1, (1, width))
    else:
        query, key, _ = fused.unflatten(-1, (heads, 3, width)).unbind(-2)
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key.expand_as(query))
    if alibi:
        bias = build_alibi_tensor(valid.long(), heads, torch.float64)
        scores = scores + bias.view(len(valid), heads, 1, -1)
    allowed = torch.tensor(real_mask(LENGTH, None)) & valid[:, None, None, :]
    return (scores / math.sqrt(width)).masked_fill(~allowed, -torch.inf).softmax(-1)


@pytest.mark.parametrize("padding", ["none", "left"])
def test_alibi_that_is_part_of_the_mask_counts(padding: str) -> None:
    model, batch = make("Falcon sequential"), make_batch(padding)
    states: list[torch.Tensor] = []
    blocks = model.transformer.h
    handles = [
        b.self_attention.register_forward_pre_hook(lambda _, args: states.append(args[0].double())) for b in blocks
    ]
    _, found = observe(model, batch, projections(model, "Falcon sequential"))
    for handle in handles:
        handle.remove()
    valid = batch["attention_mask"].bool()
    for layer, block in enumerate(blocks):
        weights = falcon_weights(block.self_attention, states[layer], valid, alibi=True).detach()
        for prompt in range(3):
            for head in range(4):
                rows = weights[prompt, head].nan_to_num(0).numpy()
                wanted = expected(rows, real_mask(LENGTH, None), valid[prompt].numpy())
                for name, values in wanted.items():
                    got = found[name][layer][prompt, :, head].double().numpy()
                    compare(got, values, f"{padding} layer {layer} head {head} {name}", 2e-3)


@pytest.mark.parametrize("padding", PADDINGS)
def test_torchs_fused_attention_gives_what_softmax_gives(padding: str) -> None:
    batch = make_batch(padding)
    fused, written_out = tiny("Falcon"), tiny_model("FalconConfig", FALCON_EAGER)
    _, found = observe(fused, batch, projections(fused, "Falcon"))
    _, wanted = observe(written_out, batch, projections(written_out, "Falcon"))
    for name in wanted:
        for layer in range(3):
            compare(found[name][layer].numpy(), wanted[name][layer].numpy(), f"{padding} layer {layer} {name}", 5e-3)


def test_what_transformers_returns_for_falcon_is_not_what_it_computed() -> None:
    """Asked for attentions under sdpa, Falcon adds its bool mask as 0 and 1, so that tokens see the future."""
    model, batch = tiny("Falcon"), make_batch("none")
    with torch.no_grad():
        returned = model(**batch, use_cache=False, output_attentions=True).attentions[0]
    _, found = observe(model, batch, projections(model, "Falcon"))
    assert returned[0, 0, 0, 1:].sum() > 0.1
    assert found["attn_first"][0][0, 0].eq(1).all()


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("family", OWN)
def test_observing_own_code_leaves_the_logits_bit_identical(family: str, padding: str) -> None:
    model, batch = make(family), make_batch(padding)
    with torch.no_grad():
        plain = model(**batch, use_cache=False).logits
        observer = AttentionObserver(model, 3, projections(model, family))
        with observer:
            observer.begin(batch["attention_mask"])
            logits = model(**batch, use_cache=False).logits
            found = observer.take()
    assert torch.equal(logits, plain)
    assert observer.changes_implementation is None
    assert observer.source == "its own code"
    assert not found["attn_first"][0][batch["attention_mask"].bool()].isnan().any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["Falcon sequential", "BLOOM", "GPT-J", "MPT"])
def test_hidden_keys_are_found_in_half_precision_too(family: str, dtype: torch.dtype) -> None:
    model, batch = make(family, dtype), make_batch("left")
    _, found = observe(model, batch, projections(model, family))
    wide = make(family)
    _, exact = observe(wide, batch, projections(wide, family))
    for name in ("attn_entropy", "attn_received_nosink"):
        assert torch.equal(found[name][0].isnan(), exact[name][0].isnan()), name
    valid = batch["attention_mask"].bool()
    assert (found["attn_entropy"][0] - exact["attn_entropy"][0])[valid].nan_to_num(0).abs().max() < 0.05


def test_another_model_running_meanwhile_is_not_taken_for_the_observed_one() -> None:
    model, other, batch = make("BLOOM"), make("GPT-J"), make_batch("none")
    outs = projections(model, "BLOOM")
    _, alone = observe(model, batch, outs)
    with torch.no_grad(), AttentionObserver(model, 3, outs) as observer:
        observer.begin(batch["attention_mask"])
        other(**batch, use_cache=False)
        model(**batch, use_cache=False)
        other(**batch, use_cache=False)
        found = observer.take()
    assert torch.equal(found["attn_received"][2].nan_to_num(-1), alone["attn_received"][2].nan_to_num(-1))


def test_without_the_output_projections_own_code_is_refused() -> None:
    with pytest.raises(ModelError, match=r"ForCausalLM: this architecture computes attention in its own code.*without"):
        AttentionObserver(tiny("BLOOM"), 3)


class Changed(nn.Module):
    """Attention that changes its weights between softmax and product."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.change = change

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        query, key, value = self.qkv(states).unflatten(-1, (2, 12)).transpose(1, 2).chunk(3, -1)
        hidden = torch.ones(states.shape[1], states.shape[1], dtype=torch.bool).triu(1)
        scores = (query @ key.mT).masked_fill(hidden, self.hidden_score)
        weights = self.change(scores.softmax(-1))
        return self.out((weights @ value).transpose(1, 2).flatten(2))

    hidden_score = -1e30 * 10


class Small(nn.Module):
    """A model of one such layer."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = Changed(change)

    class config:
        _attn_implementation = "eager"

        @classmethod
        def get_text_config(cls) -> Any:
            return cls

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.attention(states)


def run(model: Small) -> dict[str, list[torch.Tensor]]:
    states = torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad(), AttentionObserver(model, 1, [model.attention.out]) as observer:
        observer.begin(torch.ones(2, 7, dtype=torch.bool))
        model(states)
        return observer.take()


def test_what_multiplies_the_values_is_recorded_not_what_softmax_gave() -> None:
    sharper = lambda weights: weights**2 / (weights**2).sum(-1, keepdim=True)  # noqa: E731
    plain, changed = run(Small(lambda weights: weights)), run(Small(sharper))
    assert (changed["attn_entropy"][0] < plain["attn_entropy"][0])[:, 2:].all()


def test_weights_that_no_longer_sum_to_one_are_an_error() -> None:
    with pytest.raises(CaptureError, match="layer 0, prompt 0 of the batch: rows of attention weights that do not sum"):
        run(Small(lambda weights: weights * 0.9))


def test_a_mask_that_cannot_be_told_from_scores_is_an_error() -> None:
    model = Small(lambda weights: weights)
    model.attention.hidden_score = -1e4  # hides keys as well as -inf, but might be a score
    with pytest.raises(
        CaptureError, match="layer 0: the mask that was seen shows later tokens, which are given nothing"
    ):
        run(model)


def test_two_attentions_before_one_projection_are_refused() -> None:
    model = Small(lambda weights: weights)
    twice = model.attention.forward
    model.attention.forward = lambda states: twice(states) + model.attention.out(states)  # type: ignore[method-assign]
    model.attention.qkv.register_forward_pre_hook(
        lambda *_: (torch.zeros(2, 2, 7, 7).softmax(-1) @ torch.ones(2, 2, 7, 6), None)[1]
    )
    with pytest.raises(ModelError, match="2 attentions in layer 0"):
        run(model)
