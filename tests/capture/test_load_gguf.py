"""Everything that stands in a GGUF file is what the model computes with, or changes nothing, or the file is refused."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packed import Kind, save_gguf
from tiny import TEXTS, byte_tokenizer, tiny_model

from stratoscope import capture
from stratoscope.errors import ModelError
from stratoscope.model.gguf import file as gguf_file
from stratoscope.model.gguf.file import read_gguf
from stratoscope.model.load import load_model

CONTEXT = 96
SMALL = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3}
SMALL |= {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
SMALL |= {"tie_word_embeddings": False, "max_position_embeddings": CONTEXT}
GEMMA = {**SMALL, "head_dim": 16, "tie_word_embeddings": True, "sliding_window": 8, "query_pre_attn_scalar": 16}
GEMMA_FILE = {"attention.key_length": 16, "attention.value_length": 16, "attention.sliding_window": 8}
MOE = {**SMALL, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
MOE_FILE = {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 24}
LFM2 = {**SMALL, "layer_types": ["conv", "full_attention", "conv"], "block_auto_adjust_ff_dim": False}
LFM2 |= {"conv_bias": False}
BASE = 10_000.0
LLAMA3 = {"rope_type": "llama3", "rope_theta": BASE, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 32}
LINEAR = {"rope_type": "linear", "rope_theta": BASE, "factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": BASE, "factor": 3.0, "original_max_position_embeddings": 32}
YARN_FILE = {"rope.scaling.type": "yarn", "rope.scaling.factor": 3.0, "rope.scaling.original_context_length": 32}
LONG, SHORT = [1.0 + pair for pair in range(8)], [1.0 + pair / 4 for pair in range(8)]
LONGROPE = {"rope_type": "longrope", "rope_theta": BASE, "long_factor": LONG, "short_factor": SHORT}
LONGROPE_FILE = {
    "rope.dimension_count": 16,
    "rope.scaling.original_context_length": 32,
    "rope.scaling.attn_factor": math.sqrt(1 + math.log(3) / math.log(32)),
}
LONGROPE_TENSORS = {
    "rope_factors_long.weight": np.array(LONG, np.float32),
    "rope_factors_short.weight": np.array(SHORT, np.float32),
}


def default(base: float, **more: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": base, **more}}


def rope_factors() -> np.ndarray[Any, Any]:
    """What llama.cpp's converter makes of llama3's scaling, by its own formula."""
    wavelengths = 2 * math.pi * BASE ** (np.arange(0, 16, 2) / 16)
    low, high = 32 / 1.0, 32 / 4.0
    smooth = (32 / wavelengths - 1.0) / (4.0 - 1.0)
    between = 1 / ((1 - smooth) / 8 + smooth)
    return np.where(wavelengths < high, 1, np.where(wavelengths > low, 8, between)).astype(np.float32)


def refused(file: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(str(file), device="cpu")
    assert caught.value.fix
    assert "tokenizer.json" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tiny.gguf"


# --- positions ------------------------------------------------------------------------------------------------------


def test_a_llama_3_1_file_is_recorded_as_the_model_it_was_made_from(file: Path, tmp_path: Path) -> None:
    """The scaling of its positions stands in the tensor rope_freqs.weight alone, which transformers leaves out."""
    factors = rope_factors()
    assert factors == pytest.approx([1, 3.2995, 8, 8, 8, 8, 8, 8], rel=1e-4)
    model = tiny_model("LlamaConfig", {**SMALL, "rope_parameters": LLAMA3})
    save_gguf(model, file, "llama", Kind.F32, tensors={"rope_freqs.weight": factors})
    record = ("norms",)
    from_file = capture(file, TEXTS, tmp_path / "1.trace", device="cpu", record=record)
    converted = capture(model, TEXTS, tmp_path / "2.trace", tokenizer=byte_tokenizer(), record=record)
    for name in ("neuron_norm", "mlp_out_norm"):
        np.testing.assert_allclose(from_file[name], converted[name], rtol=1e-3)
    without = tiny_model("LlamaConfig", {**SMALL, **default(BASE)})
    without.load_state_dict(model.state_dict())
    ids = torch.arange(3, 60)[None]
    with torch.no_grad():
        assert not torch.allclose(without(ids).logits, model(ids).logits, rtol=0.1)  # it does matter here


@pytest.mark.parametrize(
    ("architecture", "config", "options", "settings", "tensors"),
    [
        ("llama", "LlamaConfig", {"rope_parameters": LLAMA3}, {}, {"rope_freqs.weight": rope_factors()}),
        ("llama", "LlamaConfig", {}, {}, {"rope_freqs.weight": np.ones(8, np.float32)}),
        (
            "llama",
            "LlamaConfig",
            {"rope_parameters": LINEAR},
            {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
            {},
        ),
        ("llama", "LlamaConfig", {"rope_parameters": LINEAR}, {"rope.scaling.factor": 4.0}, {}),
        ("llama", "LlamaConfig", {"rope_parameters": YARN}, YARN_FILE, {}),
        ("qwen2", "Qwen2Config", {"rope_parameters": YARN}, YARN_FILE, {}),
        ("lfm2", "Lfm2Config", {"rope_parameters": LINEAR, **LFM2}, {"rope.scaling.factor": 4.0}, {}),
        (
            "phi3",
            "Phi3Config",
            {"rope_parameters": LONGROPE, "original_max_position_embeddings": 32},
            LONGROPE_FILE,
            LONGROPE_TENSORS,
        ),
        ("starcoder2", "Starcoder2Config", {"sliding_window": None, **default(999_999.0)}, {}, {}),
        (
            "stablelm",
            "StableLmConfig",
            default(BASE, partial_rotary_factor=0.5),
            {"rope.dimension_count": 8, "use_parallel_residual": False},
            {},
        ),
        (
            "gemma3",
            "Gemma3TextConfig",
            {
                **GEMMA,
                "num_hidden_layers": 7,
                "rope_parameters": {
                    "full_attention": {**LINEAR, "rope_theta": 1e6},
                    "sliding_attention": {"rope_type": "default", "rope_theta": BASE},
                },
            },
            {**GEMMA_FILE, "rope.freq_base": 1e6, "rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
            {},
        ),
    ],
)
def test_positions_are_turned_as_in_the_model_that_was_converted(
    architecture: str, config: str, options: dict[str, Any], settings: dict[str, Any], tensors: Any, file: Path
) -> None:
    assert_same_as_converted(architecture, config, options, settings, file, tensors)


def assert_same_as_converted(
    architecture: str, config: str, options: dict[str, Any], settings: dict[str, Any], file: Path, tensors: Any = None
) -> None:
    model = tiny_model(config, {**SMALL, **options})
    save_gguf(model, file, architecture, Kind.F32, settings=settings, tensors=tensors)
    loaded = load_model(str(file), device="cpu")
    assert loaded.limits == ()
    ids = torch.arange(3, 83)[None]
    with torch.no_grad():
        now, wanted = loaded.model(ids).logits, model(ids).logits
    assert float((now - wanted).abs().max() / wanted.abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("settings", "tensors", "words"),
    [
        ({"rope.scaling.type": "su"}, {}, "rope.scaling.type (su)"),
        ({"rope.scaling.yarn_log_multiplier": 0.1, **YARN_FILE}, {}, "rope.scaling.yarn_log_multiplier"),
        ({}, {"rope_freqs.weight": np.full(5, 2, np.float32)}, "rope_freqs.weight of shape (5,)"),
        (YARN_FILE, {"rope_freqs.weight": np.full(8, 2, np.float32)}, "rope_freqs.weight beside yarn"),
        ({}, {"rope_factors_short.weight": np.full(8, 2, np.float32)}, "longrope without its tensors"),
        ({"rope.dimension_count": 8, "attention.key_length": 16}, {}, "turning of positions"),
    ],
)
def test_positions_that_transformers_cannot_turn_so_are_refused(
    settings: dict[str, Any], tensors: Any, words: str, file: Path
) -> None:
    save_gguf(tiny_model("LlamaConfig", SMALL), file, "llama", Kind.F32, settings=settings, tensors=tensors)
    assert words in refused(file)


# --- other settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "config", "options", "settings"),
    [
        (
            "gemma2",
            "Gemma2Config",
            {**GEMMA, "attn_logit_softcapping": 20.0, "final_logit_softcapping": 5.0},
            {**GEMMA_FILE, "attn_logit_softcapping": 20.0, "final_logit_softcapping": 5.0},
        ),
        ("phi3", "Phi3Config", {"sliding_window": 16}, {"attention.sliding_window": 16, "rope.dimension_count": 16}),
        (
            "llama",
            "LlamaConfig",
            {"head_dim": 32},
            {"attention.key_length": 32, "attention.value_length": 32, "rope.dimension_count": 32},
        ),
        ("qwen3", "Qwen3Config", {"head_dim": 32}, {"attention.key_length": 32, "attention.value_length": 32}),
        ("qwen3", "Qwen3Config", {"head_dim": 16}, {}),
        ("nemotron", "NemotronConfig", {"norm_eps": 1e-2}, {"rope.dimension_count": 8}),
        ("starcoder2", "Starcoder2Config", {"norm_epsilon": 1e-2, "sliding_window": None}, {}),
        ("qwen3moe", "Qwen3MoeConfig", {**MOE, "head_dim": 16, "norm_topk_prob": True}, MOE_FILE),
        (
            "qwen2moe",
            "Qwen2MoeConfig",
            {**MOE, "shared_expert_intermediate_size": 40, "norm_topk_prob": True},
            {**MOE_FILE, "expert_shared_feed_forward_length": 40, "expert_weights_norm": True},
        ),
    ],
)
def test_settings_that_transformers_does_not_read_are_those_of_the_model_that_was_converted(
    architecture: str, config: str, options: dict[str, Any], settings: dict[str, Any], file: Path
) -> None:
    assert_same_as_converted(architecture, config, options, settings, file)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("attention.clamp_kqv", 8.0),
        ("attention.causal", False),
        ("attention.sliding_window", 16),
        ("attention.scale", 0.1),
        ("attention.layer_norm_epsilon", 1e-5),
        ("attention.temperature_scale", 0.5),
        ("logit_scale", 0.5),
        ("final_logit_softcapping", 30.0),
        ("embedding_scale", 12.0),
        ("expert_count", 8),
        ("use_parallel_residual", True),
        ("feed_forward_length", [96, 96, 80]),
        ("something.new", 1),
    ],
)
def test_a_setting_without_a_place_in_the_model_is_refused_by_name(setting: str, value: Any, file: Path) -> None:
    save_gguf(tiny_model("LlamaConfig", SMALL), file, "llama", Kind.F32, settings={setting: value})
    assert f"llama.{setting} (" in refused(file)


def test_settings_that_change_nothing_are_no_reason_to_refuse(file: Path) -> None:
    nothing = {
        "attention.scale": 0.25, "attention.clamp_kqv": 0.0, "logit_scale": 1.0, "expert_count": 0, "pooling_type": 0,
        "final_logit_softcapping": 0.0, "attention.causal": True, "rope.scaling.type": "none",
        "rope.scaling.finetuned": True, "tensor_data_layout": "Meta AI original pth", "general.license": "mit",
        "tokenizer.ggml.eot_token_id": 1,
    }  # fmt: skip
    assert_same_as_converted("llama", "LlamaConfig", {}, nothing, file)


# --- tensors --------------------------------------------------------------------------------------------------------


def test_tensors_that_the_model_does_not_use_are_refused_by_name(tmp_path: Path) -> None:
    with_bias = tiny_model("LlamaConfig", {**SMALL, "attention_bias": True})
    save_gguf(with_bias, tmp_path / "bias.gguf", "llama", Kind.F32)
    assert "12 of its weights have no place" in refused(tmp_path / "bias.gguf")
    save_gguf(tiny_model("LlamaConfig", SMALL), tmp_path / "layer.gguf", "llama", Kind.F32, settings={"block_count": 2})
    assert "holds weights of layer 2" in refused(tmp_path / "layer.gguf")
    factors = {"blk.0.rope_freqs.weight": np.full(8, 2, np.float32)}
    save_gguf(tiny_model("LlamaConfig", SMALL), tmp_path / "rope.gguf", "llama", Kind.F32, tensors=factors)
    assert "such as blk.0.rope_freqs.weight" in refused(tmp_path / "rope.gguf")
    extra = {"blk.0.attn_gate.weight": np.ones((4, 4), np.float32)}
    for architecture, config, options in (("llama", "LlamaConfig", SMALL), ("lfm2", "Lfm2Config", LFM2)):
        file = tmp_path / f"{architecture}.gguf"
        save_gguf(tiny_model(config, options), file, architecture, Kind.F32, tensors=extra)
        assert "attn_gate.weight" in refused(file)


def test_a_missing_or_unlike_tensor_is_named(file: Path) -> None:
    model = tiny_model("LlamaConfig", SMALL)
    save_gguf(model, file, "llama", Kind.F32, settings={"block_count": 4})
    assert "its list of settings says 4 layers, and its files hold 3" in refused(file)
    save_gguf(model, file, "llama", Kind.F32, settings={"feed_forward_length": 80})
    assert "is stored as 64 × 96, where 64 × 80 is described" in refused(file)


# --- the file -------------------------------------------------------------------------------------------------------


def test_a_file_that_is_cut_off_says_so(file: Path) -> None:
    save_gguf(tiny_model("LlamaConfig", SMALL), file, "llama", Kind.F32)
    whole = file.read_bytes()
    for length, words in ((10, "within its head"), (3000, "within its head"), (len(whole) - 50, "it holds")):
        file.write_bytes(whole[:length])
        assert f"is cut off{'' if 'head' not in words else ' ' + words}" in refused(file)
    file.write_bytes(whole[:24] + b"\xff" * 8 + whole[32:])
    assert "damaged" in refused(file)


@pytest.mark.parametrize(
    ("content", "words", "step"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "is a Git LFS pointer", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "is a web page", "/resolve/"),
        (b"", "is empty", "Fetch it again"),
        (bytes(100), "nothing but zeros", "Fetch it again"),
        (b"tjgg" + bytes(50), "one of its forerunners", "Fetch a newer one"),
    ],
)
def test_a_file_that_is_no_gguf_file_is_called_what_it_is(content: bytes, words: str, step: str, file: Path) -> None:
    file.write_bytes(content)
    message = refused(file)
    assert words in message
    assert step in message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"general.type": "adapter", "adapter.type": "lora"}, "is an adapter, not a whole model"),
        ({"general.type": "mmproj"}, "sees or hears"),
        ({"general.type": "imatrix"}, "importance"),
        ({"split.count": 2}, "one part of a split"),
    ],
)
def test_a_file_of_another_kind_is_called_what_it_is(settings: dict[str, Any], words: str, file: Path) -> None:
    save_gguf(tiny_model("LlamaConfig", SMALL), file, "llama", Kind.F32, settings=settings)
    assert words in refused(file)


def test_an_architecture_that_transformers_cannot_read_is_named(file: Path) -> None:
    save_gguf(tiny_model("LlamaConfig", SMALL), file, "deepseek2", Kind.F32)
    assert "of the architecture deepseek2, which transformers cannot read" in refused(file)


def test_a_folder_with_one_gguf_file_is_that_file(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    save_gguf(tiny_model("LlamaConfig", SMALL), folder / "tiny.Q8_0.gguf", "llama", Kind.Q8_0)
    (folder / "mmproj-tiny.gguf").write_bytes(b"not read")
    assert load_model(str(folder), device="cpu").identity["name"] == "tiny.Q8_0.gguf"
    shutil.copy(folder / "tiny.Q8_0.gguf", folder / "tiny.F16.gguf")
    assert "holds 2 GGUF files: tiny.F16.gguf, tiny.Q8_0.gguf. Give the path of one" in refused(folder)


def test_the_head_of_a_file_is_read_as_it_was_written(file: Path) -> None:
    save_gguf(tiny_model("LlamaConfig", SMALL), file, "llama", Kind.Q8_0, tensors={"x": np.arange(3, dtype=np.float32)})
    head = read_gguf(file)
    assert head.own()["attention.head_count"] == 4
    assert head.settings["tokenizer.ggml.tokens"] == 300
    assert head.tensors["blk.1.ffn_up.weight"].shape == (96, 64)
    assert head.values("x").tolist() == [0, 1, 2]
    with pytest.raises(ModelError, match="is quantised"):
        head.values("blk.1.ffn_up.weight")


def test_the_head_of_a_file_is_read_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds where a vocabulary is large."""
    save_gguf(tiny_model("LlamaConfig", SMALL), file, "llama", Kind.F32)
    read, head = [], gguf_file._read_head
    monkeypatch.setattr(gguf_file, "_read_head", lambda stream: read.append(Path(stream.name)) or head(stream))
    assert load_model(str(file), device="cpu").identity["quantisation"] == "GGUF F32"
    assert read == [file]


# --- its tokenizer --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "digits"), [("smollm", True), ("gpt-2", False), ("viking", False)])
def test_text_is_split_by_the_rule_that_the_file_names_or_that_is_a_limit(rule: str, digits: bool, file: Path) -> None:
    settings = {"tokenizer.ggml.pre": rule}
    save_gguf(tiny_model("LlamaConfig", SMALL), file, "llama", Kind.F32, settings=settings)
    loaded = load_model(str(file), device="cpu")
    pieces = loaded.tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a  12")
    assert [piece for piece, _ in pieces] == (["a", "ĠĠ", "1", "2"] if digits else ["a", "Ġ", "Ġ12"])
    assert any("the rule 'viking'" in limit for limit in loaded.limits) == (rule == "viking")
    assert loaded.unused == ()
