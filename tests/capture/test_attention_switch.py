"""What observing leaves behind, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from attention_reference import make, make_batch, observe, projections
from tiny import tiny
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from stratoscope.errors import ModelError
from stratoscope.recorder.attention.observer import AttentionObserver


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
            with pytest.raises(ModelError, match="no layer showed attention"):
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


def test_an_attention_function_that_hides_its_mask_is_refused() -> None:
    model = tiny("Llama")
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ModelError, match="'flash_attention_2' cannot be recorded"):
        AttentionObserver(model, 3)


def test_sinks_that_the_running_function_ignores_are_refused() -> None:
    model = make("GPT-OSS")
    model.config._attn_implementation_internal = "sdpa"
    with pytest.raises(ModelError, match="ignores this model's learned attention sinks"):
        observe(model, make_batch("none"))
