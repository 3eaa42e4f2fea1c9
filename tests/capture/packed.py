"""Tiny checkpoints with quantised weights, and the floats they stand for, computed here and not by transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import quants
from safetensors.torch import load_file, save_file
from tiny import CONTEXT, VOCAB, byte_tokenizer
from torch import Tensor

Weights = dict[str, Tensor]
_FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
_FILE_TYPE = {
    Kind.F32: gguf.LlamaFileType.ALL_F32,
    Kind.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0,
    Kind.Q4_0: gguf.LlamaFileType.MOSTLY_Q4_0,
}
_LAYER_NORM = {"starcoder2": "norm_epsilon", "stablelm": "layer_norm_eps", "nemotron": "norm_eps"}
_NORMS_FROM_ONE = ("gemma2", "gemma3", "nemotron")  # their norms are stored as what they multiply by
_GPT2_TRANSPOSED = ("c_attn.weight", "c_fc.weight", "c_proj.weight")


def save(model: Any, folder: Path, config: Mapping[str, Any], weights: Weights | None = None) -> None:
    """A checkpoint whose configuration says how it is quantised."""
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    if weights is not None:
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "quantization_config": dict(config)}))


def save_fp8(model: Any, folder: Path, block: int = 8) -> Weights:
    """Linear maps of the layers as 8-bit floats with a scale for each square block; gives what they stand for."""
    model.save_pretrained(folder)
    packed, stands_for = {}, {}
    for name, weight in load_file(folder / "model.safetensors").items():
        packed[name] = stands_for[name] = weight
        if ".layers." in name and weight.ndim == 2 and not any(size % block for size in weight.shape):
            rows, columns = (size // block for size in weight.shape)
            blocks = weight.float().reshape(rows, block, columns, block)
            scale = blocks.abs().amax((1, 3)) / torch.finfo(torch.float8_e4m3fn).max
            eight = (blocks / scale[:, None, :, None]).to(torch.float8_e4m3fn)
            packed |= {name: eight.reshape(weight.shape), f"{name}_scale_inv": scale}
            stands_for[name] = (eight.float() * scale[:, None, :, None]).reshape(weight.shape)
    config = {"quant_method": "fp8", "weight_block_size": [block, block], "activation_scheme": "dynamic"}
    save(model, folder, config, packed)
    return stands_for


def save_mxfp8(model: Any, folder: Path) -> Weights:
    """Linear maps of the layers as random 8-bit floats, 32 of a row to a power of two; gives what they stand for."""
    model.save_pretrained(folder)
    packed, stands_for = {}, {}
    generator = torch.Generator().manual_seed(0)
    for name, weight in load_file(folder / "model.safetensors").items():
        packed[name] = stands_for[name] = weight
        if ".layers." in name and weight.ndim == 2:
            rows, columns = weight.shape
            eight = torch.randn(rows, columns, generator=generator).to(torch.float8_e4m3fn)
            scale = torch.randint(120, 128, (rows, columns // 32), dtype=torch.uint8, generator=generator)
            packed |= {name: eight, f"{name}_scale_inv": scale}
            stands_for[name] = eight.float() * torch.exp2(scale.float() - 127).repeat_interleave(32, 1)
    save(model, folder, {"quant_method": "mxfp8", "weight_block_size": [1, 32], "scale_fmt": "ue8m0"}, packed)
    return stands_for


def save_mxfp4(model: Any, folder: Path) -> Weights:
    """Experts of GPT-OSS as random 4-bit floats, 32 to a scale; gives what they stand for."""
    model.save_pretrained(folder)
    packed, stands_for = {}, {}
    generator = torch.Generator().manual_seed(0)
    for name, weight in load_file(folder / "model.safetensors").items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            packed[name] = stands_for[name] = weight
            continue
        experts, width, out = weight.shape
        blocks = torch.randint(0, 256, (experts, out, width // 32, 16), dtype=torch.uint8, generator=generator)
        scales = torch.randint(120, 126, (experts, out, width // 32), dtype=torch.uint8, generator=generator)
        packed |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        pairs = torch.stack([_FP4[(blocks & 15).long()], _FP4[(blocks >> 4).long()]], -1)  # low half of a byte first
        values = pairs.flatten(-2) * torch.exp2(scales.float() - 127)[..., None]
        stands_for[name] = values.reshape(experts, out, width).transpose(1, 2)
    save(model, folder, {"quant_method": "mxfp4", "modules_to_not_convert": []}, packed)
    return stands_for


def save_gguf(
    model: Any,
    file: Path,
    architecture: str,
    kind: Kind,
    *,
    settings: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
) -> Weights:
    """A GGUF file as llama.cpp's converter writes it; gives what its weights stand for.

    `settings` are added under the architecture's name, or as they are where they have a prefix of their own;
    `tensors` are added as they are.
    """
    config = model.config
    writer = gguf.GGUFWriter(file, architecture)
    _metadata(writer, config, architecture, kind)
    for key, value in (settings or {}).items():
        whole = (
            key if key.partition(".")[0] in ("general", "tokenizer", "split", "adapter") else f"{architecture}.{key}"
        )
        writer.kv_data[0].pop(whole, None)
        writer.add_key_value(whole, value, *_gguf_type(value))
    for name, tensor in (tensors or {}).items():
        writer.add_tensor(name, tensor)
    number = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    stands_for = {}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if ".mlp.experts." in name:
            stands_for[name] = weight.float()
            _add_experts(writer, name, weight.float().numpy())
            continue
        stored, back = _stored(weight.float().numpy(), name, config, architecture)
        whole = stored.ndim < 2 or stored.ndim > 2 or stored.shape[1] % 32 or kind == Kind.F32
        data = stored if whole else quants.quantize(stored, kind)
        target = names.get_name(name, (".weight", ".bias"))
        assert target is not None, name
        writer.add_tensor(target, data, raw_dtype=None if whole else kind)
        stands_for[name] = torch.from_numpy(back(data if whole else quants.dequantize(data, kind)).copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stands_for


def _add_experts(writer: gguf.GGUFWriter, name: str, weight: np.ndarray) -> None:
    """The experts of a layer, gate and up in tensors of their own."""
    layer, half = name.split(".")[2], weight.shape[1] // 2
    parts = {"down": weight} if name.endswith("down_proj") else {"gate": weight[:, :half], "up": weight[:, half:]}
    for part, values in parts.items():
        writer.add_tensor(f"blk.{layer}.ffn_{part}_exps.weight", np.ascontiguousarray(values))


def _gguf_type(value: Any) -> tuple[Any, ...]:
    if isinstance(value, list):
        return gguf.GGUFValueType.ARRAY, _gguf_type(value[0])[0]
    kinds = {bool: gguf.GGUFValueType.BOOL, int: gguf.GGUFValueType.UINT32, float: gguf.GGUFValueType.FLOAT32}
    return (kinds.get(type(value), gguf.GGUFValueType.STRING),)


def _stored(weight: np.ndarray, name: str, config: Any, architecture: str) -> tuple[np.ndarray, Any]:
    """A weight as the file has it, and what turns that back."""
    if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        split = (heads, 2, len(weight) // heads // 2, -1)  # halves of a head, for llama.cpp's rotary embedding
        interleaved = np.ascontiguousarray(weight.reshape(split).swapaxes(1, 2).reshape(weight.shape))
        turned = (split[0], split[2], 2, -1)
        return interleaved, lambda w: w.reshape(turned).swapaxes(1, 2).reshape(w.shape)
    if name.endswith("shared_expert_gate.weight"):
        return weight[0], lambda w: w[None]
    if architecture in _NORMS_FROM_ONE and name.endswith("norm.weight"):
        return weight + 1, lambda w: w - 1
    if architecture == "gpt2" and name.endswith(_GPT2_TRANSPOSED):
        return np.ascontiguousarray(weight.T), lambda w: w.T
    if architecture == "lfm2" and name.endswith("conv.conv.weight"):
        return np.ascontiguousarray(weight[:, 0]), lambda w: w[:, None]
    return np.ascontiguousarray(weight), lambda w: w


def _metadata(writer: gguf.GGUFWriter, config: Any, architecture: str, kind: Kind) -> None:
    heads = config.num_attention_heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_context_length(CONTEXT)
    writer.add_head_count(heads)
    writer.add_vocab_size(VOCAB)
    writer.add_file_type(int(_FILE_TYPE[kind]))
    if architecture == "gpt2":
        writer.add_feed_forward_length(4 * config.n_embd)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        writer.add_feed_forward_length(config.intermediate_size)
        if architecture in _LAYER_NORM:
            writer.add_layer_norm_eps(getattr(config, _LAYER_NORM[architecture]))
        else:
            writer.add_layer_norm_rms_eps(getattr(config, "rms_norm_eps", None) or config.norm_eps)
        if "rope_theta" in config.rope_parameters:
            writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        kv = config.num_key_value_heads
        types = getattr(config, "layer_types", None) if architecture == "lfm2" else None
        writer.add_head_count_kv([kv if kind == "full_attention" else 0 for kind in types] if types else kv)
    if architecture == "lfm2":
        writer.add_shortconv_l_cache(config.conv_L_cache)
    known = byte_tokenizer().get_vocab()
    tokens = sorted(known, key=lambda token: known[token])
    tokens += [f"<unused{number}>" for number in range(VOCAB - len(tokens) - 1)] + ["ab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    special = gguf.TokenType.CONTROL
    writer.add_token_types([special if token in ("<pad>", "<s>") else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(0)
