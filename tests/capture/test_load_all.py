"""All that a checkpoint holds is used, or named, or the model is refused; and a refusal says what the files are."""

from __future__ import annotations

import argparse
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_hub import COMMIT
from safetensors.torch import load_file, save_file
from tiny import byte_tokenizer, tiny, tiny_model

from stratoscope import capture
from stratoscope.errors import ModelError, printable
from stratoscope.model import load_errors
from stratoscope.model.files.checkpoint import identifying_name
from stratoscope.model.load import load_model

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 269060552\n"
PAGE = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
WEIGHTS, TORCH = "model.safetensors", "pytorch_model.bin"


def save(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))


def edit_weights(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, {"format": "pt"})


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(str(folder), device="cpu", **options)
    message = str(caught.value)
    assert caught.value.fix
    assert message.isprintable()
    assert "memory" not in message
    return message


def limits(folder: Path) -> tuple[str, ...]:
    return load_model(str(folder), device="cpu").limits


# --- weights that the model does not use ----------------------------------------------------------------------------


def test_biases_that_the_config_denies_are_refused_by_name(tmp_path: Path) -> None:
    options = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 72, "num_hidden_layers": 3}
    model = tiny_model("LlamaConfig", {**options, "num_attention_heads": 4, "mlp_bias": True})
    folder = save(model, tmp_path / "biased")
    assert load_model(str(folder), device="cpu").limits == ()
    edit_config(folder, mlp_bias=False)
    message = refused(folder)
    assert "9 of its weights have no place in the model that its config.json describes" in message
    assert "model.layers.0.mlp.down_proj.bias" in message


def test_layers_beyond_the_config_are_refused(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=2)
    assert "holds weights of layer 2" in refused(folder)
    assert "its config.json says 2 layers. Use the config.json that belongs to these weights" in refused(folder)


def test_fewer_layers_than_the_config_says_are_counted(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=4)
    assert "its config.json says 4 layers, and its files hold 3. Use the config.json that belongs" in refused(folder)


def test_buffers_that_are_computed_anew_go_on_loading(folder: Path, tmp_path: Path) -> None:
    turned = 10_000.0 ** (-torch.arange(4) / 4)
    table = torch.cos(torch.outer(torch.arange(5), turned)).repeat(1, 2)[None, None]
    old = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": turned,
        "model.layers.1.self_attn.rotary_emb.inv_freq": turned.bfloat16(),
        "model.layers.1.self_attn.rotary_emb.cos_cached": table,
        "model.position_ids": torch.arange(9),
    }
    edit_weights(folder, lambda weights: {**weights, **old})
    assert limits(folder) == ()
    gpt2 = save(tiny("GPT2"), tmp_path / "gpt2")
    masks = {
        "transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8),
        "transformer.h.1.attn.masked_bias": torch.tensor(-1e4),
    }
    edit_weights(gpt2, lambda weights: {**weights, **masks})
    assert limits(gpt2) == ()
    edit_weights(gpt2, lambda weights: {name.removeprefix("transformer."): weights[name] for name in weights})
    assert limits(gpt2) == ()  # as OpenAI's own files have it


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.bias", "model.layers.0.attn.bias", "model.layers.0.attention.masked_bias"]
)
def test_a_bias_that_is_called_as_a_mask_is_refused(name: str, folder: Path) -> None:
    edit_weights(folder, lambda weights: {**weights, name: torch.ones(32)})
    assert f"have no place in the model that its config.json describes, such as {name}" in refused(folder)


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        ("inv_freq", 500_000.0 ** (-torch.arange(4) / 4)),
        ("inv_freq", torch.ones(2)),
        ("cos_cached", torch.cos(torch.outer(torch.arange(5), 500_000.0 ** (-torch.arange(4) / 4))).repeat(1, 2)),
    ],
    ids=["base", "shape", "table"],
)
def test_stored_positions_that_the_config_contradicts_are_refused(kind: str, stored: Any, folder: Path) -> None:
    name = f"model.layers.0.self_attn.rotary_emb.{kind}"
    edit_weights(folder, lambda weights: {**weights, name: stored})
    words = f"the positions that the file stores ({name}) are not those of config.json"
    assert words in refused(folder)
    as_torch(folder)
    assert words in refused(folder)


def test_positions_that_were_stored_before_their_scaling_go_on_loading(folder: Path) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    edit_weights(folder, lambda weights: {**weights, name: 10_000.0 ** (-torch.arange(4) / 4)})
    edit_config(folder, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0})
    assert limits(folder) == ()


@pytest.mark.parametrize(
    ("dtype", "word"),
    [(torch.int8, "I8"), (torch.int32, "I32"), (torch.int64, "I64"), (torch.float8_e4m3fn, "F8_E4M3")],
)
def test_packed_numbers_without_a_scale_are_refused(dtype: torch.dtype, word: str, folder: Path) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    edit_weights(folder, lambda weights: {**weights, name: (weights[name] * 50).to(dtype)})
    assert f"weights stored as {word} without a scale, such as {name}" in refused(folder)
    as_torch(folder)
    assert f"weights stored as {word} without a scale, such as {name}" in refused(folder)


def test_an_empty_quantisation_is_none(folder: Path) -> None:
    edit_config(folder, quantization_config={})
    assert limits(folder) == ()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mtp.layers.0.mlp.up_proj.weight", "One weight for predicting several tokens ahead is not used: mtp.layers.0"),
        ("v_head.summary.weight", "One weight of a value head is not used: v_head"),
        ("model.visual.patch_embed.weight", "One weight for pictures is not used"),
        ("model.audio_tower.conv.weight", "One weight for sound is not used"),
    ],
)
def test_parts_that_the_language_model_does_not_need_are_named_as_a_limit(name: str, words: str, folder: Path) -> None:
    edit_weights(folder, lambda weights: {**weights, name: torch.ones(4)})
    (limit,) = limits(folder)
    assert words in limit


def test_layers_for_several_tokens_ahead_are_named_where_the_config_says_that_there_are_some(tmp_path: Path) -> None:
    """transformers hides such layers of DeepSeek from its own report."""
    folder = save(tiny("DeepSeek-V3"), tmp_path / "deepseek")
    edit_weights(folder, lambda weights: {**weights, "model.layers.3.eh_proj.weight": torch.ones(3)})
    edit_config(folder, num_nextn_predict_layers=1)
    assert limits(folder) == (
        "One weight for predicting several tokens ahead is not used: model.layers.3.eh_proj.weight.",
    )
    edit_config(folder, num_nextn_predict_layers=0)
    assert "holds weights of layer 3" in refused(folder)


@pytest.mark.parametrize("name", ["score.weight", "classifier.bias", "model.layers.1.mlp.extra.weight"])
def test_any_other_weight_without_a_place_is_refused(name: str, folder: Path) -> None:
    edit_weights(folder, lambda weights: {**weights, name: torch.ones(4)})
    assert name in refused(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: {f"module.{name}": w[name] for name in w}, "all of its weights are stored under 'module.'"),
        (lambda w: {f"_orig_mod.{name}": w[name] for name in w}, "all of its weights are stored under '_orig_mod.'"),
        (lambda w: {**w, "model.layers.0.mlp.up_proj.lora_A.weight": torch.ones(2)}, "adapter that is not merged"),
        (lambda w: {name: w[name] for name in w if "lm_head" not in name}, "holds only the body of a model"),
    ],
)
def test_the_way_in_which_weights_were_saved_wrongly_is_named(change: Any, words: str, folder: Path) -> None:
    edit_weights(folder, change)
    assert words in refused(folder)


def test_a_weight_under_two_names_is_refused(folder: Path) -> None:
    edit_weights(folder, lambda weights: {**weights, "norm.weight": weights["model.norm.weight"] * 2})
    assert "holds a weight twice, as norm.weight and as model.norm.weight" in refused(folder)


def test_a_head_of_its_own_is_used_where_the_config_says_that_it_is_shared(folder: Path) -> None:
    edit_config(folder, tie_word_embeddings=True)
    assert torch.equal(load_model(str(folder), device="cpu").model.lm_head.weight, tiny("Llama").lm_head.weight)


def test_weights_that_the_config_rounds_are_named(folder: Path) -> None:
    edit_config(folder, dtype="bfloat16")
    assert limits(folder) == (
        "Weights stored as float32 were rounded to bfloat16, as config.json says: --dtype float32 keeps them.",
    )
    assert load_model(str(folder), device="cpu", dtype="float32").limits == ()


def as_torch(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]] = dict) -> None:
    """Store the weights as a torch file instead."""
    torch.save(change(load_file(folder / WEIGHTS)), folder / TORCH)
    (folder / WEIGHTS).unlink()


def test_a_torch_file_is_looked_into_as_a_safetensors_file_is(folder: Path) -> None:
    edit_config(folder, dtype="bfloat16")
    as_torch(folder)
    assert limits(folder) == (
        "Weights stored as float32 were rounded to bfloat16, as config.json says: --dtype float32 keeps them.",
    )
    state = torch.load(folder / TORCH)
    body = {name: state[name] for name in state if name.startswith("model.")}
    torch.save({**state, **{name.removeprefix("model."): body[name] + 1 for name in body}}, folder / TORCH)
    assert "holds a weight twice, as embed_tokens.weight and as model.embed_tokens.weight" in refused(folder)


def test_torch_files_are_held_against_each_other_and_their_index(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(state)
    parts = {"pytorch_model-00001-of-00002.bin": names[:5], "pytorch_model-00002-of-00002.bin": names[5:]}
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}, "metadata": {}}
    for file, part in parts.items():
        torch.save({name: state[name] for name in part}, folder / file)
    (folder / f"{TORCH}.index.json").write_text(json.dumps(index))
    assert limits(folder) == ()
    last = "pytorch_model-00002-of-00002.bin"
    torch.save({name: state[name] for name in names[4:]}, folder / last)
    assert f"the weight {names[4]} stands in pytorch_model-00001-of-00002.bin and in {last}" in refused(folder)
    torch.save({name: state[name] for name in names[6:]}, folder / last)
    assert f"names the weight {names[5]}, which none of its files holds" in refused(folder)


# --- files beside the weights ---------------------------------------------------------------------------------------


def test_other_weights_in_the_folder_are_named(folder: Path) -> None:
    (folder / TORCH).write_bytes(b"not read")
    assert limits(folder) == ("The weights in pytorch_model.bin were not read: those in model.safetensors were.",)
    (folder / TORCH).rename(folder / "model-00001-of-00002.safetensors")
    assert limits(folder) == (
        "The weights in model-00001-of-00002.safetensors were not read: those in model.safetensors were.",
    )


def test_a_recording_warns_of_what_was_not_used_where_values_may_differ_by_it(folder: Path, tmp_path: Path) -> None:
    more = {"mtp.layers.0.mlp.up_proj.weight": torch.ones(4), "v_head.summary.weight": torch.ones(4)}
    edit_weights(folder, lambda weights: {**weights, **more})
    (folder / TORCH).write_bytes(b"not read")
    edit_config(folder, dtype="bfloat16")
    trace = capture(folder, [{"text": "The river was low."}], tmp_path / "t.trace", device="cpu", record=("norms",))
    notes = [note for note in trace.attrs["notes"] if note["id"] == "L25"]
    assert {(note["severity"], note["text"].split(":")[0]) for note in notes} == {
        ("info", "The weights in pytorch_model.bin were not read"),
        ("warning", "Weights stored as float32 were rounded to bfloat16, as config.json says"),
        ("info", "One weight for predicting several tokens ahead is not used"),
        ("info", "One weight of a value head is not used"),
    }
    for note in notes:
        assert note["text"][1:].removesuffix(".") in str(trace.attrs["receipt"]["limits"])


def test_any_file_that_may_hold_weights_is_named_but_not_the_state_of_training(folder: Path) -> None:
    for name in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin", "scaler.pt"):
        (folder / name).write_bytes(b"x")
    assert limits(folder) == ()
    for name in ("value_head.safetensors", "consolidated.00.pth", "steering.npz"):
        (folder / name).write_bytes(b"x")
    assert limits(folder) == (
        "The weights in consolidated.00.pth, steering.npz and value_head.safetensors were not read: those in "
        "model.safetensors were.",
    )


@pytest.mark.parametrize(
    "name",
    [
        *(
            "adapters.safetensors",
            "adapter.safetensors",
            "adapter_model.pt",
            "lora.safetensors",
            "my-LoRA-v2.safetensors",
        ),
        *("pytorch_lora_weights.safetensors", "non_lora_trainables.bin", "adapter_model-00001-of-00002.safetensors"),
    ],
)
def test_an_adapter_by_another_name_is_refused(name: str, folder: Path) -> None:
    (folder / name).write_bytes(b"x")
    assert f"has an adapter that is not merged ({name}) beside its weights" in refused(folder)
    (folder / WEIGHTS).unlink()
    assert "is an adapter, not a whole model" in refused(folder)


def test_a_config_that_names_other_weights_is_refused(folder: Path) -> None:
    shutil.copy(folder / WEIGHTS, folder / "other.safetensors")
    edit_config(folder, transformers_weights="other.safetensors")
    assert "its config.json names other weights (other.safetensors)" in refused(folder)


@pytest.fixture
def shards(folder: Path) -> list[Path]:
    (folder / WEIGHTS).unlink()
    tiny("Llama").save_pretrained(folder, max_shard_size="40KB")
    return sorted(folder.glob("model-*.safetensors"))


def test_shards_of_two_versions_are_refused(shards: list[Path]) -> None:
    folder = shards[0].parent
    first = load_file(shards[0])
    again = {name: first[name] * 0 for name in list(first)[:1]}
    save_file({**load_file(shards[1]), **again}, shards[1], {"format": "pt"})
    assert f"{next(iter(again))} stands in {shards[0].name} and in {shards[1].name}" in refused(folder)


def test_an_index_that_names_what_no_shard_holds_is_refused(shards: list[Path]) -> None:
    folder = shards[0].parent
    index = folder / f"{WEIGHTS}.index.json"
    told = json.loads(index.read_text())
    told["weight_map"]["model.layers.7.mlp.up_proj.weight"] = shards[0].name
    index.write_text(json.dumps(told))
    assert "names the weight model.layers.7.mlp.up_proj.weight, which none of its files holds" in refused(folder)
    del told["metadata"]
    index.write_text(json.dumps(told))
    assert f'{WEIGHTS}.index.json holds no metadata, which transformers asks for. Add "metadata": {{}}' in refused(
        folder
    )
    told["metadata"] = {}
    told["weight_map"] = {name: f"../{file}" for name, file in told["weight_map"].items()}
    index.write_text(json.dumps(told))
    assert "names files outside of its folder" in refused(folder)


@pytest.mark.parametrize("peft", [True, False])
def test_an_adapter_beside_the_weights_is_refused_with_or_without_peft(
    peft: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.integrations import peft as integration

    monkeypatch.setattr(integration, "is_peft_available", lambda: peft)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "some/base"}')
    (folder / "adapter_model.safetensors").write_bytes(b"x")
    message = refused(folder)
    assert "has an adapter that is not merged (adapter_config.json) beside its weights" in message
    assert "merge_and_unload" in message
    (folder / WEIGHTS).unlink()
    (folder / "config.json").unlink()
    assert "is an adapter, not a whole model: it changes some/base" in refused(folder)


# --- files that are not what their names say ------------------------------------------------------------------------


@pytest.mark.parametrize("file", [WEIGHTS, "tokenizer.json", "config.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    ("content", "words", "step"),
    [
        (POINTER, "is a Git LFS pointer", "git lfs pull"),
        (PAGE, "is a web page", "/resolve/"),
        ("", "is empty", "Fetch it again"),
        ("\0" * 600, "begins with nothing but zeros", "Fetch it again"),
    ],
    ids=["pointer", "page", "empty", "zeros"],
)
def test_a_file_that_is_not_itself_is_called_what_it_is(
    file: str, content: str, words: str, step: str, folder: Path
) -> None:
    (folder / file).write_text(content)
    message = refused(folder)
    assert f"tiny-llama, {file}: {words}" in message
    assert step in message


def test_a_damaged_head_of_safetensors_is_called_that(folder: Path) -> None:
    file = folder / WEIGHTS
    whole = file.read_bytes()
    for damaged, words in (
        (b"\xff" * 8 + whole[8:], "has a damaged head: it announces 18,446"),
        (whole[:8] + b"x" + whole[9:], "has a damaged head: Expecting value"),
        (whole[:100], "has a damaged head: it announces"),
        (whole[:-1000], f"is cut off: it holds {len(whole) - 1000:,} of {len(whole):,} bytes"),
        (b"GGUF" + whole[4:], "is a GGUF file, not safetensors"),
        (b"PK\x03\x04" + whole[4:], "is a zip archive, as torch.save writes one, not safetensors"),
    ):
        file.write_bytes(damaged)
        assert f"{WEIGHTS}: {words}" in refused(folder)


def test_safetensors_under_the_name_of_a_torch_file_are_called_that(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / TORCH)
    message = refused(folder)
    assert "pytorch_model.bin: is safetensors, not what torch.save writes. Rename it to model.safetensors" in message


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "tokenizer.json"])
def test_a_byte_order_mark_is_named(file: str, folder: Path) -> None:
    (folder / file).write_bytes(b"\xef\xbb\xbf" + (folder / file).read_bytes())
    assert f"{file}: begins with a byte-order mark, which transformers cannot read. Save it again" in refused(folder)
    (folder / file).write_text("{}", "utf-16")
    assert f"{file}: is not UTF-8 text" in refused(folder)


def test_an_activation_that_transformers_lacks_is_named(folder: Path) -> None:
    edit_config(folder, hidden_act="nosuch")
    assert "its config.json names the activation nosuch, which transformers does not know" in refused(folder)
    edit_config(folder, hidden_act=5)
    assert "its config.json says hidden_act: 5 is no text" in refused(folder)


def test_a_sentencepiece_tokenizer_asks_for_its_own_packages(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"\n\x0b\n\x04<unk>")
    monkeypatch.setattr(load_errors, "_is_installed", lambda module: module == "tiktoken")
    words = "its tokenizer needs sentencepiece and protobuf. Install it: `pip install sentencepiece protobuf`."
    assert words in refused(folder)


class RunsCode:
    def __reduce__(self) -> Any:
        return print, ("code was run",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model.embed_tokens.weight": RunsCode()}, "hold more than numbers (print), which could run code"),
        ({"args": argparse.Namespace(a=1)}, "hold more than numbers (argparse.Namespace)"),
        ({"model": {"x": torch.ones(2)}, "step": 3}, "holds model, step instead of named weights"),
        ([torch.ones(2)], "holds a list, not named weights"),
    ],
)
def test_a_torch_file_of_something_else_is_called_what_it_is(content: Any, words: str, folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save(content, folder / TORCH)
    assert words in refused(folder)


def test_a_damaged_torch_file_is_called_that(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    file = folder / TORCH
    state = tiny("Llama").state_dict()
    torch.save(state, file)
    file.write_bytes(file.read_bytes()[:-5000])
    assert "is cut off: it is a zip archive without its end" in refused(folder)
    torch.save(state, file, _use_new_zipfile_serialization=False)
    assert limits(folder) == ()
    file.write_bytes(file.read_bytes()[:3000])
    assert "damaged" in refused(folder)
    file.write_bytes(b"not torch")
    assert "is nothing that torch.save wrote" in refused(folder)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.safetensors", "x")
    assert "is a zip archive, but not one that torch.save wrote" in refused(folder)
    file.write_bytes(pickle.dumps({"a": 1}, 2)[:5])
    assert "damaged" in refused(folder)


def test_a_broken_tokenizer_or_config_is_called_that(folder: Path) -> None:
    whole = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(whole[: len(whole) // 2])
    assert "tokenizer.json: is not valid JSON" in refused(folder)
    (folder / "tokenizer.json").write_text("{}")
    assert "tokenizer.json: holds no tokenizer" in refused(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert "has no tokenizer. Add its tokenizer.json" in refused(folder)
    (folder / "config.json").write_text('{"x": \x1b[31m')
    assert "config.json: is not valid JSON" in refused(folder)


# --- models of another kind -----------------------------------------------------------------------------------------


def test_an_encoder_is_refused_for_being_one(tmp_path: Path) -> None:
    from transformers import BertConfig, BertLMHeadModel, BertModel, DistilBertConfig, DistilBertModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 8}
    bert = BertConfig(**sizes, vocab_size=300)
    folder = save(BertModel(bert), tmp_path / "bert")
    assert "is an encoder (BertModel), not a causal language model" in refused(folder)
    (folder / "modules.json").write_text("[]")
    assert "is a sentence-transformers model, which gives one vector for a text" in refused(folder)
    small = DistilBertConfig(dim=32, n_layers=1, n_heads=4, hidden_dim=8, vocab_size=300)
    assert "is an encoder (DistilBertModel)" in refused(save(DistilBertModel(small), tmp_path / "distilbert"))
    bert.is_decoder = True
    assert limits(save(BertLMHeadModel(bert), tmp_path / "decoder")) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architectures": ["LlamaForSequenceClassification"]}, "is a LlamaForSequenceClassification, not a causal"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "is an encoder-decoder model"),
        (
            {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "vision_config": {}},
            "is a model of text and pictures (LlavaForConditionalGeneration), which is not recorded. Give its language",
        ),
        ({"model_type": "qwen2_audio", "audio_config": {}}, "is a model of text and sound"),
        ({"model_type": "notyet"}, "is of the type notyet, which transformers"),
        ({"model_type": None}, "its config.json names no model_type"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "its weights are packed for MLX (4 bits)"),
    ],
)
def test_a_model_of_another_kind_is_called_what_it_is(changes: dict[str, Any], words: str, folder: Path) -> None:
    edit_config(folder, **changes)
    if changes.get("model_type", "") is None:
        told = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({key: told[key] for key in told if key != "model_type"}))
    assert words in refused(folder)


OWN_CONFIG = """
from transformers import PretrainedConfig
class C(PretrainedConfig):
    model_type = "own"
"""
OWN_MODEL = """
from transformers import LlamaForCausalLM
class M(LlamaForCausalLM):
    config_class = C
    def __init__(self, config):
        config.absent.x
"""


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("from transformers import NoSuchThing\n", "its own Python code (own.py) does not run with transformers"),
        ("import nosuchpackage\n", "its own Python code needs nosuchpackage. Install it: `pip install nosuchpackage`."),
        (OWN_CONFIG + "    def __init__(self, **more):\n        self.absent.x\n", "its own Python code (own.py)"),
        (OWN_CONFIG + OWN_MODEL, "its own Python code (own.py) does not run with transformers"),
    ],
    ids=["import", "package", "config", "model"],
)
def test_code_of_another_version_is_blamed_for_what_it_does(code: str, words: str, folder: Path) -> None:
    (folder / "own.py").write_text(code)
    edit_config(folder, model_type="own", auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"})
    assert "needs Python code that comes with it" in refused(folder)
    assert words in refused(folder, trust_remote_code=True)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["tf_model.h5"], "only TensorFlow weights"),
        (["flax_model.msgpack"], "only Flax weights"),
        (["optimizer.pt", "trainer_state.json", "training_args.bin"], "only what training goes on from"),
        (["zero_to_fp32.py"], "only a DeepSpeed checkpoint. Run `python zero_to_fp32.py . .`"),
        (["model.fp16.safetensors"], "Rename model.fp16.safetensors to model.safetensors"),
        (["consolidated.00.pth"], "in their maker's own format"),
        (["weights.safetensors"], "only weights.safetensors, which is not the usual name"),
        (["onnx.txt"], "holds no weights (no model.safetensors"),
    ],
)
def test_a_folder_without_weights_says_what_it_holds_instead(files: list[str], words: str, folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    for name in files:
        (folder / name).write_text("x")
    assert words in refused(folder)


def test_a_folder_without_a_config_says_what_it_is(saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved, run / "checkpoint-500")
    assert "holds no model itself, its folders do: checkpoint-500. Give one of these" in refused(run)
    diffusers = tmp_path / "pictures"
    diffusers.mkdir()
    assert "has no config.json" in refused(diffusers)
    (diffusers / "model_index.json").write_text("{}")
    assert "makes pictures" in refused(diffusers)


# --- what it is called ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("my-run/checkpoint-500", "my-run/checkpoint-500"),
        ("my-run/output/checkpoint-500", "my-run/output/checkpoint-500"),
        ("my-run/final_model", "my-run/final_model"),
        ("my-run/ggml-model-q4_0.gguf", "my-run/ggml-model-q4_0.gguf"),
        ("tiny-llama", "tiny-llama"),
        ("models/tiny-llama", "tiny-llama"),
        ("tiny.Q4_1.gguf", "tiny.Q4_1.gguf"),
    ],
)
def test_a_model_is_called_by_what_identifies_it(path: str, name: str, tmp_path: Path) -> None:
    assert identifying_name(tmp_path / path) == (name, "")


def test_a_name_never_holds_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert identifying_name(tmp_path / "checkpoint-500") == ("checkpoint-500", "")
    assert identifying_name(Path("/home/somebody/checkpoint-500")) == ("checkpoint-500", "")
    assert identifying_name(Path("/Users/somebody/models/final")) == ("models/final", "")


def test_a_folder_of_the_hubs_cache_is_called_by_its_hub_name(tmp_path: Path) -> None:
    path = tmp_path / "models--some--tiny" / "snapshots" / COMMIT
    assert identifying_name(path) == ("some/tiny", COMMIT)


def test_a_folder_of_a_training_run_is_recorded_under_its_name(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "my-run" / "checkpoint-500"))
    assert load_model(str(folder), device="cpu").identity["name"] == "my-run/checkpoint-500"


def test_a_terminals_codes_never_reach_a_message() -> None:
    error = ModelError("has \x1b[1mbold\x1b[0m \x1b]0;title\x07words\x07 \u202e", where="a\x1b[2J", fix="Look\r.")
    assert str(error) == "a: has bold words\\x07 \\u202e. Look\\r."
    assert printable("é→中 שלום\n") == "é→中 שלום\n"
