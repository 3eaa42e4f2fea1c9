"""Whatever is wrong with numbers, prompts, tokenizers or the model itself: an error in words, or a missing value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_sites import hooks_of
from tiny import CONTEXT, TEXTS, byte_tokenizer, tiny, tiny_model
from torch import nn

from stratoscope import capture
from stratoscope.errors import CaptureError, InputError, ModelError, StratoscopeError
from stratoscope.names import NORMS, PEAKS, PROMPTS, QUANTITIES, SUMMARIES
from stratoscope.recorder.prompts.prompt import Prompt


def run(out: Path, texts: Any = TEXTS, *, model: Any = None, tokenizer: Any = None, **options: Any) -> Any:
    settings = {"top_k": 5, "batch_size": 2, **options}
    return capture(model or tiny("Llama"), texts, out, tokenizer=tokenizer or byte_tokenizer(), **settings)


def refused(error: type[StratoscopeError], words: str, out: Path, **options: Any) -> None:
    model = options.setdefault("model", tiny("Llama"))
    with pytest.raises(error, match=words) as caught:
        run(out, **options)
    assert caught.value.fix
    assert not out.exists()
    assert not list(out.parent.glob(".*")), "something half-written was left"
    assert hooks_of(model) == 0


def assert_same(one: Any, other: Any, tolerance: float = 0.0) -> None:
    for name in one.data_vars:
        first, second = one[name].values, other[name].values
        assert first.shape == second.shape
        assert np.array_equal(np.isnan(first), np.isnan(second)) if first.dtype.kind == "f" else True, name
        if QUANTITIES[name].dtype == "float32":
            assert np.nanmax(np.abs(first - second), initial=0.0) <= tolerance, name


# --- numbers that are not finite ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("part", ["self_attn.o_proj", "mlp.down_proj", "mlp.up_proj"])
def test_a_broken_weight_names_its_layer(tmp_path: Path, part: str, value: float) -> None:
    model = tiny("Llama")
    model.model.layers[1].get_submodule(part).weight.data[0] = value
    refused(CaptureError, r"block 1 .*not finite", tmp_path / "t", model=model)


def test_an_overflow_of_half_precision_on_one_prompt_names_prompt_layer_and_quantity(tmp_path: Path) -> None:
    model, ordinary = tiny("Llama", torch.float16), "abc"
    loud = byte_tokenizer()("~")["input_ids"][0]
    model.model.embed_tokens.weight.data[loud] = 6e4  # the sum of squares in the first norm is fine in float32 …
    model.model.layers[2].mlp.down_proj.weight.data *= 3e3  # … but what this layer writes is beyond 65,504
    model.model.layers[2].mlp.down_proj.weight.data[:, 1:] = 0
    texts = [ordinary] * 4 + ["abc~"]
    with pytest.raises(CaptureError, match=r"prompt p0005, (layer|depth) \d: .* is not finite"):
        run(tmp_path / "t", texts, model=model)
    assert not (tmp_path / "t").exists()


# --- prompts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["Llama", "GPT2", "Gemma2", "GPTNeoX"])
def test_a_prompt_of_one_token_is_recorded_with_its_undefined_quantities_missing(family: str, tmp_path: Path) -> None:
    trace = run(tmp_path / "t", ["a", "b", "c"], model=tiny(family), record=SUMMARIES)
    assert trace.sizes["token"] == 3
    assert np.isfinite(trace.resid_norm.values).all()
    for name in ("prompt_mean", "prompt_max", "prompt_min", "attn_received", "attn_entropy"):
        assert np.isnan(trace[name].values).all(), f"{name} of a single token was made up"


def test_an_empty_text_is_refused_and_a_special_token_alone_has_no_summary(tmp_path: Path) -> None:
    refused(InputError, r"prompts\[1\]: text is empty", tmp_path / "t", texts=["a", ""])
    trace = run(tmp_path / "t", ["<s>", "ab"])
    assert trace.token_id.values[0] == 1
    assert trace.sizes["token"] == 3
    assert np.isnan(trace.prompt_mean.values[0]).all()
    assert np.isfinite(trace.prompt_mean.values[1]).all()


def test_a_model_without_a_context_length_takes_prompts_of_any_length(tmp_path: Path) -> None:
    model = tiny("BLOOM")
    assert not hasattr(model.config, "max_position_embeddings")
    trace = run(tmp_path / "t", ["x" * (3 * CONTEXT)], model=model)
    assert trace.attrs["model"]["context"] is None
    assert trace.sizes["token"] == 3 * CONTEXT


@pytest.mark.parametrize("texts", [["a"], TEXTS, ["same"] * 5, ["a", "b" * 90, "cc", "d" * 40]], ids=len)
def test_the_batch_size_changes_no_value_beyond_rounding(texts: list[str], tmp_path: Path) -> None:
    alone = run(tmp_path / "1", texts, batch_size=1)
    for size in (3, 1000):
        assert_same(alone, run(tmp_path / str(size), texts, batch_size=size), 2e-5)


def test_equal_prompts_under_different_ids_stay_apart(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", [Prompt("a", text="same"), Prompt("b", text="same")])
    assert trace.prompt_id.values.tolist() == ["a", "b"]
    assert np.array_equal(trace.resid_norm.values[:4], trace.resid_norm.values[4:])


# --- tokenizers -----------------------------------------------------------------------------------------------------


def test_a_tokenizer_without_special_tokens_pads_with_an_ordinary_one(tmp_path: Path) -> None:
    bare = byte_tokenizer()
    bare.pad_token = bare.bos_token = bare.eos_token = None
    assert_same(run(tmp_path / "1"), run(tmp_path / "2", tokenizer=bare), 2e-5)


def test_a_padding_token_that_the_model_does_not_have_is_not_given_to_it(tmp_path: Path) -> None:
    padded = byte_tokenizer()
    padded.add_tokens([f"<more{number}>" for number in range(60)])
    padded.add_special_tokens({"pad_token": "<new pad>"})  # as people do without resizing the embedding
    assert padded.pad_token_id >= 300
    assert_same(run(tmp_path / "1"), run(tmp_path / "2", tokenizer=padded), 2e-5)


def test_a_token_that_the_model_does_not_have_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    larger, model = byte_tokenizer(), tiny("Llama")
    larger.add_tokens([f"<more{number}>" for number in range(60)])
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    words = r"prompt p0002: token 2 \('<more50>'\) is number 308, the model has only 300"
    with pytest.raises(InputError, match=words):
        run(tmp_path / "t", ["fine", "ab<more50>"], model=model, tokenizer=larger)
    assert not (tmp_path / "t").exists()


# --- models that are not what they seem -----------------------------------------------------------------------------


def test_a_model_of_which_a_part_trains_is_refused(tmp_path: Path) -> None:
    model = tiny("GPT2")
    model.transformer.h[1].mlp.dropout.train()
    refused(InputError, r"transformer.h.1.mlp.dropout is in training mode.*model.eval", tmp_path / "t", model=model)


def test_something_that_is_no_model_of_transformers_is_refused(tmp_path: Path) -> None:
    refused(InputError, "is not a Hugging Face model", tmp_path / "t", model=nn.Linear(3, 3).eval())


def test_layers_that_are_one_module_are_refused(tmp_path: Path) -> None:
    model = tiny("Llama")
    model.model.layers[2] = model.model.layers[0]
    refused(ModelError, "layers 0 and 2 of model.layers are one module", tmp_path / "t", model=model)


@pytest.mark.parametrize("compile_part", [False, True])
def test_a_model_compiled_in_place_is_refused(tmp_path: Path, compile_part: bool) -> None:
    model = tiny("Llama")
    (model.model.layers[1] if compile_part else model).compile()
    refused(InputError, "is compiled", tmp_path / "t", model=model)


def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    model = tiny("Llama")
    model.gradient_checkpointing_enable()
    assert_same(run(tmp_path / "1"), run(tmp_path / "2", model=model.eval()))


class Skipping(nn.Module):
    """Leaves its block out on some prompts, as LayerDrop or an early exit would."""

    def __init__(self, block: nn.Module, *, when: int) -> None:
        super().__init__()
        self.block, self.when = block, when
        self.attention_type = "full_attention"

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if hidden_states.shape[1] == self.when:
            return hidden_states
        answer: torch.Tensor = self.block(hidden_states, *args, **kwargs)
        return answer


@pytest.mark.parametrize("record", [(NORMS,), (PEAKS,), (PROMPTS,)])
def test_a_block_that_is_skipped_on_one_prompt_is_an_error_and_not_zeros(tmp_path: Path, record: Any) -> None:
    model = tiny("Llama")
    model.model.layers[1] = Skipping(model.model.layers[1], when=7).eval()
    texts = ["ab", "abc", "abcd", "abcdef", "abcdefg"]
    with pytest.raises(CaptureError, match=r"of layer 1 .*0 times in one forward instead of once"):
        run(tmp_path / "t", texts, model=model, record=record, batch_size=1)
    assert hooks_of(model) == 0


class Bypassing(nn.Module):
    """Uses a linear map's weight without calling the map, so that no hook on it fires."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mlp: Any = self.mlp
        hidden = mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x)
        return nn.functional.linear(hidden, mlp.down_proj.weight)


def test_a_map_that_is_bypassed_is_refused_and_nothing_is_made_up(tmp_path: Path) -> None:
    model = tiny("Llama")
    model.model.layers[2].mlp = Bypassing(model.model.layers[2].mlp).eval()
    refused(ModelError, r"block 2 ", tmp_path / "t", model=model)


def test_an_encoder_decoder_object_is_refused(tmp_path: Path) -> None:
    options = {"d_model": 32, "num_layers": 1, "num_heads": 4, "d_ff": 8, "d_kv": 8, "vocab_size": 300}
    refused(ModelError, "encoder-decoder", tmp_path / "t", model=tiny_model("T5Config", options))
