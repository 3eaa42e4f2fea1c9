"""Layers without attention: missing and named, never zero; and a model that has none is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attention_reference import MORE, compare, eager_attentions, expected, make_batch, real_mask
from tiny import tiny_model

from stratoscope.errors import ModelError
from stratoscope.recorder.attention.observer import AttentionObserver

COMMON = {
    key: value for key, value in MORE["DeepSeek-V3"][1].items() if key.split("_")[0] not in ("q", "kv", "qk", "v")
}
COMMON = {key: COMMON[key] for key in COMMON if key != "first_k_dense_replace"} | {"num_key_value_heads": 2}
HYBRIDS: dict[str, tuple[str, dict[str, Any], list[str], list[int]]] = {
    "Jamba": (
        "JambaConfig",
        {
            "attn_layer_period": 3,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "num_experts": 2,
            "mamba_d_state": 4,
            "use_mamba_kernels": False,
        },
        ["mamba.out_proj", "self_attn.o_proj", "mamba.out_proj"],
        [0, 2],
    ),
    "LFM2": (
        "Lfm2Config",
        {"layer_types": ["conv", "full_attention", "conv"]},
        ["conv.out_proj", "self_attn.out_proj", "conv.out_proj"],
        [0, 2],
    ),
}


def build(name: str) -> tuple[Any, list[Any], list[int]]:
    config, options, outs, without = HYBRIDS[name]
    model = tiny_model(config, {**COMMON, **options})
    return model, [model.get_submodule(f"model.layers.{layer}.{out}") for layer, out in enumerate(outs)], without


@pytest.mark.parametrize("padding", ["none", "left"])
@pytest.mark.parametrize("known", ["mixers given", "mixers left out"])
@pytest.mark.parametrize("name", HYBRIDS)
def test_layers_without_attention_are_missing_and_named(name: str, known: str, padding: str) -> None:
    model, outs, without = build(name)
    if known == "mixers left out":
        outs = [None if layer in without else out for layer, out in enumerate(outs)]
    batch = make_batch(padding)
    with torch.no_grad():
        plain = model(**batch, use_cache=False).logits
        with AttentionObserver(model, 3, outs) as observer:
            observer.begin(batch["attention_mask"].bool())
            assert torch.equal(model(**batch, use_cache=False).logits, plain)
            found = observer.take()
    assert observer.without == without
    valid = batch["attention_mask"].bool()
    for values in found.values():
        assert all(values[layer].isnan().all() for layer in without)
        assert values[0].shape == values[1].shape
    assert not found["attn_value_norm"][1][valid].isnan().any()
    weights = [w for w in eager_attentions(model, batch) if w.ndim == 4][-1]
    for prompt in range(3):
        wanted = expected(weights[prompt, 0], real_mask(23, None), valid[prompt].numpy())
        for quantity in ("attn_distance", "attn_received"):
            got = found[quantity][1][prompt, :, 0].double().numpy()
            compare(got, wanted[quantity], f"{name} {quantity}", 2e-3)


def test_a_model_without_any_attention_is_refused() -> None:
    options = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 4}
    model, batch = tiny_model("MambaConfig", options), make_batch("none")
    outs = [block.mixer.out_proj for block in model.backbone.layers]
    with torch.no_grad(), AttentionObserver(model, 3, outs) as observer:
        observer.begin(batch["attention_mask"].bool())
        model(**batch, use_cache=False)
        with pytest.raises(
            ModelError, match=r"MambaForCausalLM: no layer showed attention.*without the group attention"
        ):
            observer.take()


def test_an_attention_layer_that_was_missed_is_not_taken_for_one_without() -> None:
    model = tiny_model("LlamaConfig", COMMON)
    outs = [block.self_attn.o_proj for block in model.model.layers]
    batch = make_batch("none")
    model.model.layers[1].self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    with torch.no_grad(), AttentionObserver(model, 3, outs) as observer:
        observer.begin(batch["attention_mask"].bool())
        model(**batch, use_cache=False)
        with pytest.raises(ModelError, match="attention of layer 1 was not seen, unlike that of the other layers"):
            observer.take()


def test_layers_with_fewer_heads_have_nothing_in_the_others() -> None:
    model = tiny_model("LlamaConfig", COMMON)
    narrow = tiny_model("LlamaConfig", {**COMMON, "num_attention_heads": 2, "head_dim": 8}).model.layers[1].self_attn
    narrow.layer_idx = 1
    model.model.layers[1].self_attn = narrow
    outs = [block.self_attn.o_proj for block in model.model.layers]
    batch = make_batch("none")
    with torch.no_grad(), AttentionObserver(model, 3, outs) as observer:
        observer.begin(batch["attention_mask"].bool())
        model(**batch, use_cache=False)
        found = observer.take()
    assert [layer.shape[-1] for layer in found["attn_first"]] == [4, 4, 4]
    assert found["attn_first"][1][..., 2:].isnan().all()
    assert not found["attn_first"][1][..., :2].isnan().any()
