"""Model files whose settings cannot be what they say end in one sentence with the true cause, and quickly."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from packed import Kind, save_gguf
from tiny import tiny_model

from stratoscope.errors import ModelError
from stratoscope.model.load import load_model

SMALL = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3}
SMALL |= {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
DEEP = "[" * 100_000
SECONDS = 5  # a bound for a busy machine: what is refused here takes a few hundredths, or else many minutes


def refused(path: Path) -> str:
    start = time.perf_counter()
    with pytest.raises(ModelError) as caught:
        load_model(str(path), device="cpu")
    assert time.perf_counter() - start < SECONDS
    assert caught.value.fix
    return str(caught.value)


# --- GGUF files -----------------------------------------------------------------------------------------------------

_TEXT, _LIST, _WHOLE, _SIGNED, _FLOAT, _LONG = 8, 9, 4, 5, 6, 10


def text(words: str) -> bytes:
    return struct.pack("<Q", len(words)) + words.encode()


def a_text(words: str) -> bytes:
    return struct.pack("<I", _TEXT) + text(words)


def a_list(of: int, count: int, content: bytes = b"") -> bytes:
    return struct.pack("<IIQ", _LIST, of, count) + content


def number(value: float, kind: int = _WHOLE) -> bytes:
    return struct.pack(f"<I{ {_WHOLE: 'I', _SIGNED: 'i', _FLOAT: 'f', _LONG: 'Q'}[kind] }", kind, value)


def lists_in_lists(depth: int) -> bytes:
    return struct.pack("<I", _LIST) + struct.pack("<IQ", _LIST, 1) * depth + struct.pack("<IQ", _WHOLE, 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    save_gguf(tiny_model("LlamaConfig", SMALL), file, "llama", Kind.F32)
    return file


def with_setting(whole: Path, file: Path, key: str, value: bytes) -> Path:
    """A copy of a GGUF file with a setting more; 32 bytes at its end make up for what that moves."""
    content = whole.read_bytes()
    (count,) = struct.unpack("<Q", content[16:24])
    file.write_bytes(content[:16] + struct.pack("<Q", count + 1) + text(key) + value + content[24:] + bytes(32))
    return file


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("general.alignment", number(0), "its general.alignment is 0, not a power of two"),
        ("general.alignment", a_text("x"), "its general.alignment is 'x', not a power of two"),
        ("general.alignment", number(-32, _SIGNED), "its general.alignment is -32, not a power of two"),
        ("split.count", a_text("x"), "its setting split.count is the text 'x', not a whole number"),
        ("split.count", a_list(_WHOLE, 1, bytes(4)), "its setting split.count is a list, not a whole number"),
        ("llama.block_count", number(3), "it holds 'llama.block_count' twice"),
        ("tokenizer.ggml.scores", number(3), "its setting tokenizer.ggml.scores is 3, not a list"),
        ("llama.attention.sliding_window_pattern", a_list(_WHOLE, 1, bytes(4)), "holds 1 numbers for 3 layers"),
        ("general.type", number(3), "its setting general.type is 3, not a text"),
        ("x", lists_in_lists(3000), "a setting holds lists in lists"),
        ("x", a_list(_TEXT, 1, struct.pack("<Q", 1 << 63)), "a text or list of 9,223,372,036,854,775,808 bytes"),
        ("x", a_list(_TEXT, 1 << 63), "is cut off within its head|bytes is announced"),
        ("llama.attention.scale", number(float("nan"), _FLOAT), "llama.attention.scale is nan, not a finite number"),
        ("llama.logit_scale", number(float("inf"), _FLOAT), "llama.logit_scale is inf, not a finite number"),
        ("llama.expert_count", number(10**9), "llama.expert_count is 1000000000, more than anything that the file"),
        ("llama.nextn_predict_layers", a_list(_TEXT, 2, text("a") * 2), "nextn_predict_layers is a list, not a num"),
        ("llama.attention.sliding_window", number(1 << 40, _LONG), "is 1099511627776, more than 32 bits hold"),
        ("llama.rope.scaling.type", number(3), "llama.rope.scaling.type is 3, not a text"),
        ("llama.rope.scaling.factor", a_text("x"), "llama.rope.scaling.factor is the text 'x', not a number"),
        ("llama.rope.scaling.original_context_length", number(-3, _SIGNED), "is -3, which is negative"),
        ("llama.rope.freq_base_swa", number(0), "llama.rope.freq_base_swa is 0"),
    ],
)
def test_a_setting_of_a_gguf_file_that_cannot_be_is_named(
    key: str, value: bytes, words: str, whole: Path, tmp_path: Path
) -> None:
    message = refused(with_setting(whole, tmp_path / "tiny.gguf", key, value))
    assert any(one in message for one in words.split("|")), message


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("block_count", "3", "llama.block_count is the text '3', not a number"),
        ("block_count", 10**9, "llama.block_count is 1000000000, more than anything that the file holds"),
        ("block_count", 2.5, "llama.block_count is 2.5, not a whole number"),
        ("embedding_length", [64, 64], "llama.embedding_length is a list, not a number"),
        ("embedding_length", 0, "llama.embedding_length is 0"),
        ("context_length", "many", "llama.context_length is the text 'many', not a number"),
        ("attention.head_count", "4", "llama.attention.head_count is the text '4', not a number"),
        ("rope.dimension_count", 10**9, "llama.rope.dimension_count is 1000000000, more than anything"),
        ("tokenizer.ggml.pre", ["a", "b"], "tokenizer.ggml.pre is a list, not a text"),
        ("tokenizer.ggml.merges", [" ", "b"], "its tokenizer cannot be loaded"),
    ],
)
def test_a_number_of_a_gguf_file_that_cannot_be_is_named(name: str, value: Any, words: str, tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    save_gguf(tiny_model("LlamaConfig", SMALL), file, "llama", Kind.F32, settings={name: value})
    assert words in refused(file)


def test_a_setting_that_the_configuration_refuses_is_named(tmp_path: Path) -> None:
    model = tiny_model("Qwen3MoeConfig", {**SMALL, "num_experts": 4, "moe_intermediate_size": 24})
    settings = {"expert_count": 4, "expert_feed_forward_length": 24, "expert_weights_norm": 3}
    save_gguf(model, tmp_path / "tiny.gguf", "qwen3moe", Kind.F32, settings=settings)
    assert "its list of settings cannot be right (norm_topk_prob): " in refused(tmp_path / "tiny.gguf")


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("transformers_weights", ["a"], "transformers_weights: ['a'] is no text"),
        ("num_hidden_layers", "3", "num_hidden_layers: '3' is no size"),
        ("num_hidden_layers", 10**9, "num_hidden_layers: 1,000,000,000 is more than its weights fill"),
        ("num_hidden_layers", 129, "num_hidden_layers: 129 is more than its weights fill"),
        ("num_local_experts", 10**9, "num_local_experts: 1,000,000,000 is more than its weights fill"),
        ("num_hidden_layers", 1e400, "num_hidden_layers: inf is no size"),
        ("num_labels", 10**9, "num_labels: 1,000,000,000 is more than any model has"),
        ("hidden_size", -1, "hidden_size: -1 is no size"),
        ("architectures", 5, "architectures: 5 is no list of texts"),
        ("architectures", "LlamaForCausalLM", "architectures: 'LlamaForCausalLM' is no list of texts"),
        ("model_type", ["llama"], "model_type: ['llama'] is no text"),
        ("quantization_config", [1], "quantization_config: [1] is no object"),
        ("text_config", "x", "text_config: 'x' is no object"),
        ("dtype", 5, "dtype: 5 is no text"),
        ("rope_parameters", {"rope_type": "default", "rope_theta": float("nan")}, "rope_theta: NaN is no number"),
        ("rms_norm_eps", "x", "its config.json cannot be right (rms_norm_eps): "),
        ("num_key_value_heads", 0, "its config.json has a number where only a size can stand"),
    ],
)
def test_a_value_of_config_json_that_cannot_be_is_named(name: str, value: Any, words: str, folder: Path) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), name: value}))
    assert words in refused(folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (json.dumps({f"k{number}": 1 for number in range(200_000)}), "holds about 399,999 values; it may hold 300,000"),
        ('{"a": ' + " " * (8 * 2**20) + "1}", "has 8,388,616 bytes; it may have 8,388,608"),
        ('{"vocab_size": 1' + "0" * 5000 + "}", "a number has 5,001 digits"),
    ],
)
def test_a_config_json_that_no_model_has_is_refused_before_it_is_parsed(content: str, words: str, folder: Path) -> None:
    (folder / "config.json").write_text(content)
    assert words in refused(folder)


def test_a_head_of_more_tensors_than_any_file_has_is_refused_before_it_is_parsed(folder: Path) -> None:
    head = b"{" + b'"t":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},' * 200_001 + b'"u":{}}'
    (folder / WEIGHTS).write_bytes(len(head).to_bytes(8, "little") + head)
    assert "a head of 200,001 tensors that no model has" in refused(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "generation_config.json", WEIGHTS, INDEX])
def test_a_file_that_is_nested_too_deeply_is_called_that(file: str, folder: Path) -> None:
    if file == INDEX:
        (folder / WEIGHTS).unlink()
    content = DEEP.encode()
    (folder / file).write_bytes(len(content).to_bytes(8, "little") * (file == WEIGHTS) + content)
    assert "it is nested too deeply" in refused(folder)


def _entry(**changes: Any) -> dict[str, Any]:
    return {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


@pytest.mark.parametrize(
    "head", [[1], {"x": 5}, _entry(shape=[-2], data_offsets=[8, 0]), _entry(shape=[2.0]), _entry(data_offsets=["a", 8])]
)
def test_a_head_of_safetensors_that_describes_no_tensors_is_called_damaged(head: Any, folder: Path) -> None:
    content = json.dumps(head).encode()
    (folder / WEIGHTS).write_bytes(len(content).to_bytes(8, "little") + content + bytes(8))
    assert "has a damaged head" in refused(folder)


def test_an_index_whose_weights_are_no_mapping_is_called_damaged(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "model-1.safetensors")
    for content in ([1], "x", {"x": ["y"]}, {"x": 5}):
        (folder / INDEX).write_text(json.dumps({"weight_map": content}))
        assert f"{INDEX} is damaged" in refused(folder)
