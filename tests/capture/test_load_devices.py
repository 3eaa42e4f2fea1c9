"""A model spread over several devices, or waiting on disk: the same values, and nothing that mixes devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TEXTS, byte_tokenizer, tiny

from stratoscope import capture
from stratoscope.errors import InputError, ModelError
from stratoscope.model.devices import read_device_map
from stratoscope.model.load import load_model
from stratoscope.names import ATTENTION, NORMS, PEAKS, PROMPTS, RESIDUAL
from stratoscope.recorder.reduce import peaks as reduce_peaks

PRETEND = Path(__file__).with_name("pretend_devices.py")
GROUPS = (NORMS, RESIDUAL, PEAKS, PROMPTS)
FAMILIES = ["Llama", "GPT2", "Gemma2", "GPTNeoX"]


@pytest.fixture
def saved(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path / "model"
    tiny(getattr(request, "param", "Llama")).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def run(model: Path, out: Path, **options: Any) -> Any:
    return capture(model, TEXTS, out, **{"record": GROUPS, "top_k": 5, "batch_size": 2, **options})


def assert_same(one: Any, other: Any) -> None:
    for name in one.variables:
        assert np.array_equal(one[name].values, other[name].values, equal_nan=one[name].dtype.kind == "f"), name


def blocks(model: Any) -> str:
    return next(path for path, part in model.named_modules() if isinstance(part, torch.nn.ModuleList))


def on_disk(model: Any, *layers: int) -> dict[str, str | int]:
    """A map of a tiny model with some layers on disk, each part named, as such maps are."""
    inside = blocks(model)
    places: dict[str, str | int] = {}
    for path, part in model.named_modules():
        deepest = not any(True for _ in part.children()) and not path.startswith(f"{inside}.")
        if deepest or path.rpartition(".")[0] == inside:
            number = path.rpartition(".")[2]
            places[path] = "disk" if not deepest and int(number) in layers else "cpu"
    return places


# --- what may be asked for ------------------------------------------------------------------------------------------


def test_a_map_that_is_none_is_refused_in_words(saved: Path, tmp_path: Path) -> None:
    file = tmp_path / "map.json"
    for content, words in (
        ("{", "cannot be read as JSON"),
        ("[]", "is no device map"),
        ("{}", "is no device map"),
        ('{"model": 1.5}', "no device for 'model'"),
        ('{"": "cuda:99"}', "this machine has no device 'cuda:99'"),
        ('{"": "meta"}', "holds no numbers"),
    ):
        file.write_text(content)
        with pytest.raises(InputError, match=words):
            read_device_map(file)
    with pytest.raises(InputError, match=r"no device map called 'everywhere'.*auto, balanced, sequential"):
        load_model(str(saved), device_map="everywhere")
    with pytest.raises(InputError, match="cannot be read"):
        load_model(str(saved), device_map=tmp_path / "none.json")
    with pytest.raises(InputError, match="not both"):
        load_model(str(saved), device="cpu", device_map="auto")
    with pytest.raises(InputError, match="a model object has its own device_map"):
        capture(tiny("Llama"), TEXTS, tmp_path / "t", tokenizer=byte_tokenizer(), device_map="auto")


@pytest.mark.parametrize("how", ["auto", "sequential", {"": "cpu"}, "file"])
def test_a_map_onto_one_device_changes_nothing(saved: Path, tmp_path: Path, how: Any) -> None:
    if how == "file":
        how = tmp_path / "map.json"
        how.write_text(json.dumps({"": "cpu"}))
    mapped = run(saved, tmp_path / "1", device_map=how)
    assert_same(run(saved, tmp_path / "2", device="cpu"), mapped)
    assert mapped.attrs["model"]["device"] == "cpu"


# --- weights that wait on disk --------------------------------------------------------------------------------------


@pytest.mark.parametrize("saved", FAMILIES, indirect=True)
def test_layers_that_wait_on_disk_are_recorded_like_any_others(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reduce_peaks, "WEIGHT_CACHE_BYTES", 2 * 4 * 32 * 72)  # the last layer's weights are not kept
    model = load_model(str(saved), device="cpu").model
    whole = run(saved, tmp_path / "1", device="cpu")
    places = on_disk(model, 1, 2)
    loaded = load_model(str(saved), device_map=places)
    weight = loaded.model.get_submodule(f"{blocks(model)}.2")
    assert all(parameter.is_meta for parameter in weight.parameters()), "nothing waits on disk in this test"
    assert_same(whole, run(saved, tmp_path / "2", device_map=places))
    assert all(parameter.is_meta for parameter in weight.parameters())


def test_an_object_of_which_a_part_waits_on_disk_has_the_hash_of_the_whole(saved: Path, tmp_path: Path) -> None:
    spread = load_model(str(saved), device_map=on_disk(tiny("Llama"), 1))
    options: dict[str, Any] = {"record": (NORMS, PEAKS), "tokenizer": byte_tokenizer()}
    one = capture(spread.model, TEXTS, tmp_path / "1", **options)
    other = capture(tiny("Llama"), TEXTS, tmp_path / "2", **options)
    assert one.attrs["model"]["weights_sha256"] == other.attrs["model"]["weights_sha256"]
    assert_same(one, other)


def test_attention_of_layers_that_wait_on_disk_is_refused_by_name(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="attention cannot be recorded of layers whose weights wait"):
        run(saved, tmp_path / "t", device_map=on_disk(tiny("Llama"), 1), record=(ATTENTION,))


# --- several devices ------------------------------------------------------------------------------------------------


# a layer, of norms, residual and peaks without kernels; GPT-2's last linear map has a bias
OPERATORS = {"Llama": 13, "GPT2": 14}
VIEWS = 16


def test_a_device_is_never_waited_for_in_a_forward_and_records_what_a_cpu_does_with_few_operators() -> None:
    # one process for all: torch cannot forget the devices that this one pretends to have
    environment = {**os.environ, "STRATOSCOPE_KERNELS": "0"}
    done = subprocess.run([sys.executable, PRETEND], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [name for name, seen in found["seen"].items() if not seen] == []  # or what follows could not fail
    runs = found["runs"]
    assert {name: run["waits"] for name, run in runs.items() if run["waits"]} == {}
    assert {name: run["worst"] for name, run in runs.items() if run["worst"] > 2e-5} == {}
    assert [name for name, run in runs.items() if not run["same logits"]] == []
    for family, most in OPERATORS.items():
        for dtype in ("float32", "bfloat16"):
            run = runs[f"{family} {dtype}, norms and peaks"]
            assert run["operators"] <= 3 * most, (family, dtype)  # 3 layers
            assert run["views"] <= 3 * VIEWS, (family, dtype)
