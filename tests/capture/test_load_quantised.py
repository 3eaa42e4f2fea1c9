"""Quantised weights: either the floats that the file stands for are what the model runs on, or the model is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from packed import Kind, Weights, save, save_fp8, save_gguf, save_mxfp4, save_mxfp8
from safetensors.torch import load_file, save_file
from tiny import TEXTS, byte_tokenizer, tiny, tiny_model
from torch import nn

from stratoscope import capture
from stratoscope.errors import InputError, ModelError
from stratoscope.model.from_object import given_model
from stratoscope.model.load import load_model

SMALL = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
SMALL |= {"tie_word_embeddings": False}
GPT2 = {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 1}
LFM2 = {**SMALL, "layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False, "conv_bias": False}
MOE = {**SMALL, "head_dim": 8, "moe_intermediate_size": 48, "num_experts": 4, "num_experts_per_tok": 2}
GPT_OSS = {**SMALL, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8}


def assert_runs_on(model: nn.Module, weights: Weights, dtype: torch.dtype = torch.float32) -> None:
    """Every weight is a plain float parameter with exactly these numbers."""
    state = model.state_dict()
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    for name, weight in weights.items():
        assert torch.equal(state[name], weight.to(dtype)), f"{name} is not what the file stands for"
    assert {type(part) for part in model.modules() if "inear" in type(part).__name__} <= {nn.Linear}


def refused(folder: Path, *words: str, **options: Any) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(str(folder), device="cpu", **options)
    for word in words:
        assert word in str(caught.value)
    assert caught.value.fix


# --- GGUF -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind.F32, Kind.Q8_0, Kind.Q4_0], ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    ("architecture", "config", "options"),
    [
        ("llama", "LlamaConfig", SMALL),
        ("qwen2", "Qwen2Config", SMALL),
        ("gpt2", "GPT2Config", GPT2),
        ("lfm2", "Lfm2Config", LFM2),
    ],
)
def test_a_gguf_file_gives_exactly_the_floats_it_stands_for(
    architecture: str, config: str, options: dict[str, Any], kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.quantizers import quantizer_gguf

    # where the package `kernels` is installed, transformers would leave the blocks of some architectures packed
    monkeypatch.setattr(quantizer_gguf, "get_gguf_kernel", lambda: pytest.fail("kernels for packed weights wanted"))
    file = tmp_path / "tiny.gguf"
    weights = save_gguf(tiny_model(config, options), file, architecture, kind)
    loaded = load_model(str(file), device="cpu")
    assert_runs_on(loaded.model, weights)
    assert loaded.identity["quantisation"] == ("GGUF F32" if kind == Kind.F32 else f"GGUF {kind.name}, dequantised")
    assert loaded.tokenizer("hé")["input_ids"] == byte_tokenizer()("hé")["input_ids"]


def test_a_gguf_file_is_recorded_like_the_same_weights_from_a_folder(tmp_path: Path) -> None:
    model = tiny_model("LlamaConfig", SMALL)
    weights = save_gguf(model, tmp_path / "tiny.gguf", "llama", Kind.Q8_0)
    model.load_state_dict(weights)
    from_file = capture(tmp_path / "tiny.gguf", TEXTS, tmp_path / "1.trace", device="cpu")
    from_object = capture(model, TEXTS, tmp_path / "2.trace", tokenizer=byte_tokenizer())
    for name in from_object.data_vars:
        assert from_file[name].equals(from_object[name]), name


# --- quantised folders ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_fp8_weights_become_the_floats_they_stand_for(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = save_fp8(tiny("Llama"), tmp_path)
    loaded = load_model(str(tmp_path), device="cpu", dtype=str(dtype).removeprefix("torch."))
    assert_runs_on(loaded.model, weights, dtype)
    assert loaded.identity["quantisation"] == "fp8, dequantised"
    assert loaded.limits == (
        "Weights are stored as fp8, dequantised: the model's own 8-bit kernels would also round what goes into "
        "each layer, which was not done here.",
    )


def test_fp8_experts_become_the_floats_they_stand_for(tmp_path: Path) -> None:
    weights = save_fp8(tiny_model("Qwen3MoeConfig", MOE), tmp_path)
    state = load_model(str(tmp_path), device="cpu").model.state_dict()
    for expert in range(4):
        one = f"model.layers.1.mlp.experts.{expert}."
        assert torch.equal(state["model.layers.1.mlp.experts.down_proj"][expert], weights[f"{one}down_proj.weight"])
        both = torch.cat([weights[f"{one}{name}.weight"] for name in ("gate_proj", "up_proj")])
        assert torch.equal(state["model.layers.1.mlp.experts.gate_up_proj"][expert], both)


def test_the_limit_of_a_dequantised_model_stands_in_the_receipt(tmp_path: Path) -> None:
    save_fp8(tiny("Llama"), tmp_path / "model")
    trace = capture(tmp_path / "model", TEXTS, tmp_path / "t.trace", device="cpu")
    assert any("8-bit kernels" in limit for limit in trace.attrs["receipt"]["limits"])
    assert not any(note["id"] == "L25" for note in trace.attrs["notes"])  # all that its files hold was used
    assert trace.attrs["model"]["quantisation"] == "fp8, dequantised"


@pytest.fixture
def cut_blocks(tmp_path: Path) -> tuple[Path, str, torch.Tensor]:
    """An fp8 model with a weight of 32 × 72 in blocks of 24 × 48: its last row and column of blocks are cut off."""
    folder, name = tmp_path / "model", "model.layers.1.mlp.down_proj.weight"
    save_fp8(tiny("Llama"), folder, block=1000)  # no weight is packed yet
    file = folder / "model.safetensors"
    weights = load_file(file)
    eight, scale = weights[name].to(torch.float8_e4m3fn), torch.tensor([[1.0, 2.0], [4.0, 8.0]])
    save_file({**weights, name: eight, f"{name}_scale_inv": scale}, file, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["weight_block_size"] = [24, 48]
    (folder / "config.json").write_text(json.dumps(config))
    spread = scale.repeat_interleave(24, 0).repeat_interleave(48, 1)[:32, :72]
    return folder, name, eight.float() * spread


def test_blocks_that_are_cut_off_keep_their_own_scales(cut_blocks: tuple[Path, str, torch.Tensor]) -> None:
    folder, name, stands_for = cut_blocks
    assert_runs_on(load_model(str(folder), device="cpu").model, {name: stands_for})


def test_blocks_that_this_transformers_would_unpack_wrongly_are_refused(
    cut_blocks: tuple[Path, str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.quantizers import quantizer_finegrained_fp8 as fp8

    wrong = fp8.FineGrainedFP8HfQuantizer.get_load_operations

    class Deaf(fp8.FineGrainedFP8HfQuantizer):
        """Does not let itself be told how to unpack."""

        def update_weight_conversions(self, *arguments: Any) -> Any:
            told, fp8.FineGrainedFP8HfQuantizer.get_load_operations = type(self).get_load_operations, wrong
            try:
                return super().update_weight_conversions(*arguments)
            finally:
                fp8.FineGrainedFP8HfQuantizer.get_load_operations = told

    from transformers.quantizers import auto

    monkeypatch.setitem(auto.AUTO_QUANTIZER_MAPPING, "fp8", Deaf)
    folder, name, _ = cut_blocks
    refused(folder, name, "not made of whole blocks of 24 × 48")


def test_mxfp8_weights_become_the_floats_they_stand_for(tmp_path: Path) -> None:
    weights = save_mxfp8(tiny_model("LlamaConfig", SMALL), tmp_path)
    loaded = load_model(str(tmp_path), device="cpu")
    assert_runs_on(loaded.model, weights)
    assert loaded.identity["quantisation"] == "mxfp8, dequantised"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_mxfp4_experts_become_the_floats_they_stand_for(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = save_mxfp4(tiny_model("GptOssConfig", GPT_OSS), tmp_path)
    loaded = load_model(str(tmp_path), device="cpu", dtype=str(dtype).removeprefix("torch."))
    assert_runs_on(loaded.model, weights, dtype)
    assert loaded.identity["quantisation"] == "mxfp4, dequantised"
    assert loaded.limits == ()


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"load_in_8bit": True}, "bitsandbytes"),
        ({"quant_method": "torchao"}, "torchao"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ({"quant_method": "quark"}, "quark"),
        ({"bits": 4}, "unknown method"),
    ],
)
def test_weights_that_only_run_packed_are_refused_by_name(config: dict[str, Any], name: str, tmp_path: Path) -> None:
    save(tiny("Llama"), tmp_path, config)
    refused(tmp_path, f"its weights are quantised ({name})", "packed weights", "unquantised model, or a GGUF file")


# --- model objects --------------------------------------------------------------------------------------------------


class PackedLinear(nn.Module):
    """As bitsandbytes, HQQ or GPTQ have it: integers stand where the weight would be."""

    def __init__(self, *, buffer: bool, dtype: torch.dtype) -> None:
        super().__init__()
        packed = torch.zeros(32, 36, dtype=dtype)
        if buffer:
            self.register_buffer("qweight", packed)
        else:
            self.weight = nn.Parameter(packed, requires_grad=False)


@pytest.mark.parametrize("buffer", [True, False])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.float8_e4m3fn], ids=str)
def test_an_object_with_packed_weights_is_refused_by_name(buffer: bool, dtype: torch.dtype) -> None:
    model = tiny("Llama")
    model.model.layers[1].mlp.down_proj = PackedLinear(buffer=buffer, dtype=dtype).eval()
    name = "model.layers.1.mlp.down_proj." + ("qweight" if buffer else "weight")
    with pytest.raises(ModelError, match=f"{name} of a PackedLinear is packed .{str(dtype).removeprefix('torch.')}"):
        given_model(model, byte_tokenizer())


def test_a_tensor_subclass_that_stands_for_packed_weights_is_refused() -> None:
    from torch.testing._internal.two_tensor import TwoTensor  # like torchao's: float to the eye, other tensors inside

    model = tiny("Llama")
    weight = model.model.layers[0].mlp.up_proj.weight.data
    model.model.layers[0].mlp.up_proj.weight = nn.Parameter(TwoTensor(weight, weight), requires_grad=False)
    with pytest.raises(ModelError, match=r"up_proj.weight of a Linear is packed .TwoTensor"):
        given_model(model, byte_tokenizer())


def test_an_adapter_that_is_not_merged_is_refused() -> None:
    lora = type("LoraLinear", (nn.Linear,), {"__module__": "peft.tuners.lora.layer"})
    model = tiny("Llama")
    model.model.layers[2].self_attn.q_proj = lora(32, 32).eval()
    with pytest.raises(ModelError, match=r"adapter that is not merged .LoraLinear, model.layers.2.*merge_and_unload"):
        given_model(model, byte_tokenizer())


def test_masks_and_positions_are_not_mistaken_for_packed_weights() -> None:
    model = tiny("GPT2")
    model.register_buffer("position_ids", torch.arange(9)[None])
    model.register_buffer("causal", torch.ones(1, 1, 9, 9, dtype=torch.uint8).tril())
    model.register_buffer("seen", torch.ones(9, 9, dtype=torch.bool))
    given_model(model, byte_tokenizer())


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile], ids=["DataParallel", "compile"])
def test_a_wrapped_model_is_refused_with_what_to_give_instead(wrap: Any) -> None:
    with pytest.raises(InputError, match=r"wraps a LlamaForCausalLM.*model.module|is compiled.*uncompiled"):
        given_model(wrap(tiny("Llama")).eval(), byte_tokenizer())
