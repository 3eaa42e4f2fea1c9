from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CONTEXT, VOCAB, tiny, tiny_model
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from stratoscope.errors import CaptureError, ModelError
from stratoscope.names import ATTENTION, quantities_of
from stratoscope.recorder import attention_sums
from stratoscope.recorder.attention import AttentionObserver
from stratoscope.recorder.attention_sums import Mask, Scratch, reduce_scores, reduce_weights

LENGTH = 23
OUT = {
    "Llama": "model.layers.{}.self_attn.o_proj",
    "Mistral": "model.layers.{}.self_attn.o_proj",
    "Qwen2": "model.layers.{}.self_attn.o_proj",
    "Gemma2": "model.layers.{}.self_attn.o_proj",
    "GPT2": "transformer.h.{}.attn.c_proj",
    "GPTNeoX": "gpt_neox.layers.{}.attention.dense",
    "OPT": "model.decoder.layers.{}.self_attn.out_proj",
    "Phi3": "model.layers.{}.self_attn.o_proj",
}
WINDOWS = {"Mistral": (8, 8, 8), "Gemma2": (8, None, 8)}  # of each layer, as written in tiny.py
GPT_OSS = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_local_experts": 2,
    "num_experts_per_tok": 1,
    "sliding_window": 8,
    "max_position_embeddings": CONTEXT,
}
PADDINGS = {
    "none": [],
    "left": [(1, slice(0, 9)), (2, slice(0, 20))],
    "right": [(1, slice(14, None)), (2, slice(1, None))],
}


# --- the definitions, written out -----------------------------------------------------------------------------------


def expected(weights: np.ndarray, mask: np.ndarray, valid: np.ndarray, sink: bool = False) -> dict[str, np.ndarray]:
    """All summaries of one head of one prompt, [T], from weights [T, T] in float64, entry by entry."""
    length, first = len(valid), int(np.flatnonzero(valid)[0])
    null = 1 - weights.sum(-1)
    names = ["received", "entropy", "distance"]
    found = {f"attn_{n}{s}": np.full(length, np.nan) for n in names for s in ("", "_nosink")}
    found |= {"attn_first": np.full(length, np.nan), "attn_null": np.full(length, np.nan)}
    for suffix in ("", "_nosink"):
        seen = mask & valid[:, None] & valid[None, :]
        if suffix:
            seen[first] = seen[:, first] = False
        rows = np.where(seen, weights, 0.0)
        mass = rows.sum(-1) + (null if sink else 0)
        rows = rows / np.where(mass > 0, mass, 1)[:, None]
        count = seen.sum(-1)
        for q in range(length):
            if count[q] == 0:
                continue
            outcomes = [rows[q, k] for k in range(length) if seen[q, k]] + ([null[q] / mass[q]] if sink else [])
            if len(outcomes) > 1:
                nats = -sum(p * math.log(p) for p in outcomes if p > 0)
                found[f"attn_entropy{suffix}"][q] = nats / math.log(len(outcomes))
            found[f"attn_distance{suffix}"][q] = sum(rows[q, k] * (q - k) for k in range(length) if seen[q, k])
            if not suffix and seen[q, first]:
                found["attn_first"][q] = rows[q, first]
            if not suffix:
                found["attn_null"][q] = null[q]
        for t in range(length):
            others = [q for q in range(length) if q != t and seen[q, t]]
            if others:
                even = sum((rows[q].sum() - rows[q, q]) / (count[q] - 1) for q in others)
                found[f"attn_received{suffix}"][t] = sum(rows[q, t] for q in others) / even
    if not sink:
        del found["attn_null"]
    return found


def real_mask(length: int, window: int | None) -> np.ndarray:
    back = np.arange(length)[:, None] - np.arange(length)[None, :]
    return (back >= 0) & (back < (window or length))


def compare(found: np.ndarray, wanted: np.ndarray, what: str, tolerance: float = 1e-4) -> float:
    """Largest difference, relative to 1e-3 + |wanted|; NaN must be where it is wanted."""
    assert found.shape == wanted.shape
    assert np.array_equal(np.isnan(found), np.isnan(wanted)), f"{what}: NaN at {np.argwhere(np.isnan(found) != np.isnan(wanted))[:5]}"  # fmt: skip # noqa: E501
    difference = np.abs(found - wanted) / (1e-3 + np.abs(wanted))
    worst = float(np.nanmax(difference, initial=0))
    assert worst <= tolerance, f"{what}: maximum difference {worst:.1e}"
    return worst


# --- running models -------------------------------------------------------------------------------------------------


def make_batch(padding: str, length: int = LENGTH) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, VOCAB, (3, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(3, length, dtype=torch.long)
    for row, where in PADDINGS[padding]:
        mask[row, where] = 0
    return {"input_ids": ids, "attention_mask": mask}


def projections(model: Any, family: str) -> list[Any]:
    return [model.get_submodule(OUT[family].format(layer)) for layer in range(3)]


@torch.no_grad()
def observe(model: Any, batch: dict[str, torch.Tensor], outs: Any = ()) -> tuple[torch.Tensor, dict[str, Any]]:
    with AttentionObserver(model, 3, outs) as observer:
        observer.begin(batch["attention_mask"])
        logits = model(**batch, use_cache=False).logits
        return logits, observer.take()


@torch.no_grad()
def eager_attentions(model: Any, batch: dict[str, torch.Tensor]) -> list[np.ndarray]:
    """The weights [B, H, T, T] of each layer as transformers itself gives them."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        return [w.double().numpy() for w in model(**batch, use_cache=False, output_attentions=True).attentions]
    finally:
        model.set_attn_implementation(before)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("family", OUT)
def test_every_summary_equals_the_definition_on_eager_attention(family: str, padding: str) -> None:
    model, batch = tiny(family), make_batch(padding)
    _, found = observe(model, batch)
    for layer, weights in enumerate(eager_attentions(model, batch)):
        mask = real_mask(LENGTH, WINDOWS.get(family, (None,) * 3)[layer])
        for prompt, head in np.ndindex(weights.shape[:2]):
            valid = batch["attention_mask"][prompt].bool().numpy()
            for name, wanted in expected(weights[prompt, head], mask, valid).items():
                values = found[name][layer][prompt, :, head].double().numpy()
                compare(values, wanted, f"{family} {padding} layer {layer} prompt {prompt} head {head} {name}")


@pytest.mark.parametrize("padding", PADDINGS)
def test_a_learned_sink_is_an_outcome_of_its_own(padding: str) -> None:
    model, batch = tiny_model("GptOssConfig", GPT_OSS), make_batch(padding)
    _, found = observe(model, batch)
    windows = [8 if kind == "sliding_attention" else None for kind in model.config.layer_types]
    for layer, weights in enumerate(eager_attentions(model, batch)):
        for prompt, head in np.ndindex(weights.shape[:2]):
            valid = batch["attention_mask"][prompt].bool().numpy()
            wanted = expected(weights[prompt, head], real_mask(LENGTH, windows[layer]), valid, sink=True)
            for name, values in wanted.items():
                got = found[name][layer][prompt, :, head].double().numpy()
                # the sink's column is dropped by the model, so that its mass is known to 1e-7 of the row only
                left = np.where(np.isnan(wanted["attn_first"]), 1, 1 - wanted["attn_first"])
                clear = (left > 0.01) | np.isnan(values) if "received" not in name else left > -1
                compare(got[clear], values[clear], f"{padding} layer {layer} {name}", 2e-3)


@pytest.mark.model
def test_every_summary_of_a_real_model_equals_the_definition(smollm2: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()
    length = 40
    ids = torch.randint(5, 49000, (2, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, length, dtype=torch.long)
    mask[1, :11] = 0
    batch = {"input_ids": ids, "attention_mask": mask}
    outs = [block.self_attn.o_proj for block in model.model.layers]
    with torch.no_grad(), AttentionObserver(model, 30, outs) as observer:
        plain = model(**batch, use_cache=False).logits
        observer.begin(mask)
        logits = model(**batch, use_cache=False).logits
        found = observer.take()
    assert torch.equal(logits, plain)
    attentions = eager_attentions(model, batch)
    for layer in (0, 13, 29):
        for prompt, head in np.ndindex(2, 9):
            valid = mask[prompt].bool().numpy()
            for name, wanted in expected(attentions[layer][prompt, head], real_mask(length, None), valid).items():
                got = found[name][layer][prompt, :, head].double().numpy()
                # eager and sdpa differ by 7e-5 in what enters a layer; beside a strong sink that is a visible share
                compare(got, wanted, f"layer {layer} prompt {prompt} head {head} {name}", 5e-3)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("family", [*OUT, "Qwen3", "Gemma", "Gemma3", "OLMo2", "StableLM", "Cohere", "Starcoder2"])
def test_observing_leaves_the_logits_bit_identical(family: str, padding: str) -> None:
    model, batch = tiny(family), make_batch(padding)
    with torch.no_grad():
        plain = model(**batch, use_cache=False).logits
    implementation = model.config._attn_implementation
    logits, _ = observe(model, batch, projections(model, family) if family in OUT else ())
    assert torch.equal(logits, plain)
    assert model.config._attn_implementation == implementation


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_are_summed_in_float32(dtype: torch.dtype) -> None:
    model, batch = tiny("Llama", dtype), make_batch("left")
    with torch.no_grad():
        plain = model(**batch, use_cache=False).logits
    logits, found = observe(model, batch, projections(model, "Llama"))
    assert torch.equal(logits, plain)
    for layer, weights in enumerate(eager_attentions(model, batch)[:1]):  # later layers differ by the dtype itself
        wanted = expected(weights[0, 0], real_mask(LENGTH, None), np.ones(LENGTH, bool))["attn_first"]
        compare(found["attn_first"][layer][0, :, 0].double().numpy(), wanted, "attn_first", 0.05)
    assert {value.dtype for layers in found.values() for value in layers} == {torch.float32}


@pytest.mark.parametrize("family", OUT)
def test_the_value_norm_is_that_of_what_each_head_writes(family: str) -> None:
    model, batch = tiny(family), make_batch("left")
    inputs: list[torch.Tensor] = []
    outs = projections(model, family)
    handles = [out.register_forward_pre_hook(lambda _, args: inputs.append(args[0].clone())) for out in outs]
    _, found = observe(model, batch, outs)
    for handle in handles:
        handle.remove()
    for layer, out in enumerate(outs):
        weight = out.weight.double() if family == "GPT2" else out.weight.double().T  # [H·D, d_model]
        heads = 4
        for head, rows in enumerate(weight.chunk(heads)):
            flow = inputs[layer].double().reshape(3, LENGTH, heads, -1)[:, :, head]
            wanted = (flow @ rows).norm(dim=-1).masked_fill(batch["attention_mask"] == 0, torch.nan)
            got = found["attn_value_norm"][layer][..., head].double()
            compare(got.numpy(), wanted.detach().numpy(), f"{family} layer {layer} head {head} attn_value_norm")


# --- properties -----------------------------------------------------------------------------------------------------


def uniform(mask: np.ndarray) -> torch.Tensor:
    rows = mask / np.maximum(mask.sum(-1, keepdims=True), 1)
    return torch.tensor(rows, dtype=torch.float32)[None, None]


@given(length=st.integers(1, 60), window=st.none() | st.integers(1, 60), pads=st.integers(0, 59), left=st.booleans())
@settings(deadline=None)
def test_uniform_attention_receives_exactly_one_everywhere(
    length: int, window: int | None, pads: int, left: bool
) -> None:
    pads = min(pads, length - 1)
    valid = np.ones(length, bool)
    valid[: pads if left else 0] = False
    valid[length if left else length - pads :] = False
    mask = real_mask(length, window) & valid[:, None] & valid[None, :]
    given_mask = torch.tensor(mask)[None, None]
    found = reduce_weights(uniform(mask), Mask(torch.tensor(valid)[None], given_mask, causal=False), False, Scratch())
    first = int(np.flatnonzero(valid)[0])
    for name in ("attn_received", "attn_received_nosink"):
        seen = (mask & ~np.eye(length, dtype=bool)).sum(0) > 0
        if name.endswith("nosink"):
            seen[first] = False
        values = found[name][0, :, 0].numpy()
        assert np.array_equal(~np.isnan(values), seen & valid)
        assert np.allclose(values[seen], 1, atol=1e-5)
    entropy = found["attn_entropy"][0, :, 0].numpy()
    assert np.array_equal(~np.isnan(entropy), mask.sum(-1) > 1)
    assert np.allclose(entropy[mask.sum(-1) > 1], 1, atol=1e-5)


def test_one_token_has_nothing_to_receive_and_no_entropy() -> None:
    model = tiny("Llama")
    batch = {"input_ids": torch.tensor([[5]]), "attention_mask": torch.ones(1, 1, dtype=torch.long)}
    _, found = observe(model, batch)
    values = {name: float(layers[0][0, 0, 0]) for name, layers in found.items()}
    assert values.pop("attn_first") == 1
    assert values.pop("attn_distance") == 0
    assert all(math.isnan(value) for value in values.values()), values


@pytest.mark.parametrize("elements", [1, 700, 1 << 20])
def test_the_size_of_a_chunk_changes_nothing(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    length = 70
    query, key = torch.randn(2, 4, length, 8) * 3, torch.randn(2, 2, length, 8)
    weights = (query @ key.repeat_interleave(2, 1).transpose(2, 3) * 0.3).masked_fill(
        ~torch.tensor(real_mask(length, None)), -torch.inf
    )
    weights = weights.softmax(-1).double().numpy()
    monkeypatch.setattr(attention_sums, "_CHUNK_ELEMENTS", {"cpu": elements})
    mask = Mask(torch.ones(2, length, dtype=torch.bool), None, causal=True)
    assert (len(list(mask.chunks(4))) == 1) == (elements > 1000)
    found = reduce_scores(query, key, mask, 0.3, None, Scratch())
    for prompt, head in np.ndindex(2, 4):
        valid = np.ones(length, bool)
        for name, wanted in expected(weights[prompt, head], real_mask(length, None), valid).items():
            compare(found[name][prompt, :, head].double().numpy(), wanted, name)


def test_a_sink_of_nearly_all_mass_leaves_the_rest_exact() -> None:
    length = 12
    scores = torch.randn(1, 1, length, length, generator=torch.Generator().manual_seed(0))
    scores[..., 0] += 18  # e^-18 of the mass is left for the others, less than float32 can tell from 1
    mask = real_mask(length, None)
    exact = scores.double().masked_fill(~torch.tensor(mask), -torch.inf).softmax(-1)[0, 0].numpy()
    query, key = scores[0, 0][None, None], torch.eye(length)[None, None]
    found = reduce_scores(query, key, Mask(torch.ones(1, length, dtype=torch.bool), None, True), 1.0, None, Scratch())
    for name, wanted in expected(exact, mask, np.ones(length, bool)).items():
        if name.endswith("nosink"):
            compare(found[name][0, :, 0].double().numpy(), wanted, name, 1e-5)


def test_what_float32_cannot_tell_beside_a_sink_is_missing_not_made_up() -> None:
    length = 6
    scores = torch.zeros(1, 1, length, length)
    scores[..., 0] = 80
    everyone = Mask(torch.ones(1, length, dtype=torch.bool), None, True)
    found = reduce_scores(scores, torch.eye(length)[None, None], everyone, 1.0, None, Scratch())
    assert all(found[name].isnan().all() for name in found if name.endswith("nosink"))
    assert torch.equal(found["attn_first"][0, :, 0], torch.ones(length))


def test_position_bias_and_additive_masks_count() -> None:
    torch.manual_seed(5)
    length = 17
    query, key = torch.randn(1, 2, length, 8), torch.randn(1, 2, length, 8)
    bias = torch.randn(1, 2, length, length)
    allowed = torch.tensor(real_mask(length, 5))
    additive = torch.zeros(1, 1, length, length).masked_fill(~allowed, torch.finfo(torch.float32).min)
    weights = (query @ key.transpose(2, 3) * 0.5 + bias).masked_fill(~allowed, -torch.inf).softmax(-1)
    mask = Mask(torch.ones(1, length, dtype=torch.bool), additive, causal=False)
    found = reduce_scores(query, key, mask, 0.5, bias, Scratch())
    for head in range(2):
        wanted = expected(weights[0, head].double().numpy(), allowed.numpy(), np.ones(length, bool))
        for name, values in wanted.items():
            compare(found[name][0, :, head].double().numpy(), values, name)


def test_tokens_that_see_forward_are_summed_over_all_they_see() -> None:
    torch.manual_seed(6)
    length = 9
    query, key = torch.randn(1, 1, length, 8), torch.randn(1, 1, length, 8)
    weights = (query @ key.transpose(2, 3)).softmax(-1)[0, 0].double().numpy()
    found = reduce_scores(query, key, Mask(torch.ones(1, length, dtype=torch.bool), None, False), 1.0, None, Scratch())
    for name, wanted in expected(weights, np.ones((length, length), bool), np.ones(length, bool)).items():
        compare(found[name][0, :, 0].double().numpy(), wanted, name)


def test_the_whole_square_of_weights_never_exists() -> None:
    length, heads = 3000, 4
    scratch = Scratch()
    query, key = torch.randn(1, heads, length, 8), torch.randn(1, heads, length, 8)
    reduce_scores(query, key, Mask(torch.ones(1, length, dtype=torch.bool), None, True), 0.3, None, scratch)
    largest = max(buffer.numel() for buffer in scratch._buffers.values())
    assert largest < heads * length * length / 20


# --- the switch -----------------------------------------------------------------------------------------------------


def test_the_models_attention_function_is_restored_even_after_an_error() -> None:
    model = tiny("Llama")
    before = ALL_ATTENTION_FUNCTIONS["sdpa"], dict(ALL_ATTENTION_FUNCTIONS._local_mapping)
    hooks = len(model.model.layers[0].self_attn.o_proj._forward_pre_hooks)

    def fail() -> None:
        with AttentionObserver(model, 3, projections(model, "Llama")):
            assert ALL_ATTENTION_FUNCTIONS["sdpa"] is not before[0]
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert (ALL_ATTENTION_FUNCTIONS["sdpa"], dict(ALL_ATTENTION_FUNCTIONS._local_mapping)) == before
    assert len(model.model.layers[0].self_attn.o_proj._forward_pre_hooks) == hooks


def test_another_model_running_meanwhile_is_not_recorded() -> None:
    model, other, batch = tiny("Llama"), tiny("Mistral"), make_batch("none")
    with torch.no_grad():
        plain = other(**batch, use_cache=False).logits
        with AttentionObserver(model, 3) as observer:
            observer.begin(batch["attention_mask"])
            assert torch.equal(other(**batch, use_cache=False).logits, plain)
            with pytest.raises(ModelError, match="no layer used the attention interface"):
                observer.take()


def test_nothing_is_kept_between_batches() -> None:
    model = tiny("Llama")
    short, long = make_batch("none", 5), make_batch("left")
    alone = observe(model, long)[1]
    with torch.no_grad(), AttentionObserver(model, 3) as observer:
        for batch in (short, long):
            observer.begin(batch["attention_mask"])
            model(**batch, use_cache=False)
            found = observer.take()
        model(**short, use_cache=False)  # not begun: not observed
    for name, layers in alone.items():
        for one, other in zip(layers, found[name], strict=True):
            assert torch.equal(one.nan_to_num(-1), other.nan_to_num(-1)), name


def test_layers_without_attention_are_missing() -> None:
    model, batch = tiny("Llama"), make_batch("none")
    with torch.no_grad(), AttentionObserver(model, 5) as observer:
        observer.begin(batch["attention_mask"])
        model(**batch, use_cache=False)
        found = observer.take()
    assert found["attn_first"][4].shape == found["attn_first"][0].shape
    assert found["attn_first"][4].isnan().all()


@pytest.mark.parametrize("family", ["Falcon", "BLOOM", "GPT-J"])
def test_a_model_that_computes_attention_in_its_own_code_is_refused(family: str) -> None:
    with pytest.raises(ModelError, match=r"ForCausalLM: this architecture computes attention.*without the group"):
        AttentionObserver(tiny(family), 3)


def test_an_attention_function_that_hides_its_mask_is_refused() -> None:
    model = tiny("Llama")
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ModelError, match="'flash_attention_2' cannot be recorded"):
        AttentionObserver(model, 3)


def test_a_forward_with_a_cache_is_refused() -> None:
    model = tiny("Llama")
    ids = torch.arange(3, 9)[None]
    with torch.no_grad():
        cache = model(ids, use_cache=True).past_key_values
        with AttentionObserver(model, 3) as observer:
            observer.begin(torch.ones(1, 1, dtype=torch.bool))
            with pytest.raises(CaptureError, match="not one whole prompt"):
                model(ids[:, :1], past_key_values=cache)


def test_sinks_that_the_running_function_ignores_are_refused() -> None:
    model = tiny_model("GptOssConfig", GPT_OSS)
    model.config._attn_implementation_internal = "sdpa"
    with pytest.raises(ModelError, match="ignores this model's learned attention sinks"):
        observe(model, make_batch("none"))


def test_the_names_are_those_of_the_record_group() -> None:
    _, found = observe(tiny_model("GptOssConfig", GPT_OSS), make_batch("none"))
    _, more = observe(tiny("Llama"), make_batch("none"), projections(tiny("Llama"), "Llama"))
    assert set(found) | {"attn_value_norm"} == {quantity.name for quantity in quantities_of((ATTENTION,))}
    assert "attn_null" not in more
