"""The group `neurons`: every activation, as the model computed it, at its own token, whatever ran together."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_capture import run
from tiny import ALL_FAMILIES, TEXTS, byte_tokenizer, tiny

from stratoscope import open_trace
from stratoscope.errors import CaptureError, InputError, TraceError
from stratoscope.names import NEURONS, NORMS, PEAKS, RESIDUAL
from stratoscope.recorder.reduce import streams
from stratoscope.recorder.reduce.neurons import stored
from stratoscope.recorder.reduce.streams import Shape, Spool

MANY = [f"{text} {'and more ' * number}" for number in range(4) for text in TEXTS]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def inputs_of_the_last_map(model: Any, texts: Sequence[str]) -> np.ndarray:
    """What `down_proj` is given, prompt by prompt alone, [token, layer, neuron]."""
    found: list[torch.Tensor] = []
    hooks = [
        block.mlp.down_proj.register_forward_pre_hook(lambda _, args: found.append(args[0][0].float()))
        for block in model.model.layers
    ]
    prompts = []
    for text in texts:
        found.clear()
        with torch.no_grad():
            model(torch.tensor([byte_tokenizer()(text)["input_ids"]]), use_cache=False)
        prompts.append(torch.stack(found, 1))
    for hook in hooks:
        hook.remove()
    return torch.cat(prompts).numpy()


@pytest.mark.parametrize("dtype", DTYPES)
def test_neurons_are_the_very_bits_that_the_model_computed(tmp_path: Path, dtype: torch.dtype) -> None:
    model = tiny("Llama").to(dtype)
    trace = run(tmp_path / "t", model=model, prompts=MANY, batch_size=1, record=(NEURONS,))
    np.testing.assert_array_equal(trace.neurons.values, inputs_of_the_last_map(model, MANY))
    assert trace.attrs["receipt"]["replays"][0]["largest_differences"]["neurons"] == 0.0


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("batch_size", [2, 3, 32])
def test_neurons_of_a_batch_are_put_back_to_their_own_tokens(tmp_path: Path, side: str, batch_size: int) -> None:
    model = tiny("Llama")
    options: dict[str, Any] = {"model": model, "tokenizer": byte_tokenizer(side), "prompts": MANY}
    trace = run(tmp_path / "t", batch_size=batch_size, record=(NEURONS,), **options)
    np.testing.assert_allclose(trace.neurons.values, inputs_of_the_last_map(model, MANY), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", [name for name, family in ALL_FAMILIES.items() if family.last or family.experts])
def test_the_norm_of_the_neurons_is_the_recorded_norm(record: Callable[..., Any], family: str) -> None:
    _, trace = record(family, (NORMS, NEURONS), batch_size=2)
    values = trace["active_neurons" if "active_neurons" in trace else "neurons"].values.astype(np.float64)
    norms = np.sqrt(np.nansum(np.square(values), axis=2))
    absent = np.isnan(values).all(axis=2)
    np.testing.assert_array_equal(absent, np.isnan(trace.neuron_norm.values))
    np.testing.assert_allclose(norms[~absent], trace.neuron_norm.values[~absent], rtol=1e-5)


def test_active_neurons_stand_at_the_experts_that_the_router_chose(record: Callable[..., Any]) -> None:
    _, trace = record("Qwen2-MoE", (NORMS, PEAKS, NEURONS), top_k=4)
    active, peak = trace.active_neurons.values, trace.peak_neuron.values
    for run_of_layers in trace.attrs["model"]["mlps"]:
        width = run_of_layers["expert_width"]
        for layer in run_of_layers["layers"] if run_of_layers["experts"] else []:
            for token in range(trace.sizes["token"]):
                chosen = trace.router_expert.values[token, layer].tolist()
                for rank in range(4):
                    expert = int(trace.peak_expert.values[token, layer, rank])
                    slot = len(chosen) if expert < 0 else chosen.index(expert)
                    value = active[token, layer, slot * width + peak[token, layer, rank]]
                    assert value == trace.peak_value.values[token, layer, rank]


@pytest.mark.parametrize("family", ["Llama", "Mixtral"])
def test_neurons_of_answers_follow_those_of_their_prompts(record: Callable[..., Any], family: str) -> None:
    _, trace = record(family, (NORMS, NEURONS), batch_size=3, generate=7)
    values = trace["active_neurons" if family == "Mixtral" else "neurons"].values.astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(values, axis=2), trace.neuron_norm.values, rtol=1e-5)


def test_a_recording_of_neurons_that_is_killed_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", prompts=MANY, record=(RESIDUAL, NEURONS))
    child = os.fork()
    if child == 0:
        windows = []

        def die(stage: str, done: int, total: int | None) -> None:
            windows.append(done)
            if stage == "recording" and done >= len(MANY) // 2:
                os.kill(os.getpid(), signal.SIGKILL)

        run(tmp_path / "t", prompts=MANY, record=(RESIDUAL, NEURONS), progress=die)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    again = run(tmp_path / "t", prompts=MANY, record=(RESIDUAL, NEURONS), resume=True)
    np.testing.assert_array_equal(again.neurons.values, whole.neurons.values)


def test_a_full_replay_reads_the_neurons_from_disk(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", record=(NEURONS,), verify="full")
    last = trace.attrs["receipt"]["replays"][-1]
    assert last["replay"].startswith("the trace on disk")
    assert last["largest_differences"]["neurons"] < 1e-4


def test_a_full_replay_finds_one_wrong_neuron_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = streams.Streams.write

    def wrong(self: Any, name: str, layer: int, values: np.ndarray) -> None:
        if layer == 1 and not isinstance(self._to[name], streams.Kept):
            values = values.copy()
            values[0, 3] += 10
        original(self, name, layer, values)

    monkeypatch.setattr(streams.Streams, "write", wrong)
    with pytest.raises(CaptureError, match=r"differs from a replay"):
        run(tmp_path / "t", record=(NEURONS,), verify="full")
    assert open_trace(tmp_path / "t").attrs["state"] == "recording"


def test_the_neurons_of_experts_are_not_recorded_without_saying_whose_they_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="norms"):
        run(tmp_path / "t", model=tiny("Mixtral"), record=(NEURONS,))


def test_neurons_in_float64_are_refused_rather_than_rounded() -> None:
    with pytest.raises(CaptureError, match="float64"):
        stored(torch.zeros(2, 3, dtype=torch.float64))


def test_rows_that_wait_in_a_file_come_back_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = Shape(layers=2, width=5, dtype="bfloat16")
    monkeypatch.setattr(streams, "_PIECE_BYTES", 3 * shape.row_bytes)
    spool = Spool(tmp_path, shape, rows=20)
    values = np.arange(50, dtype=np.uint16).reshape(10, 5)
    spool.write(1, 4, values)
    spool.fill(0, 0, 2)
    np.testing.assert_array_equal(np.concatenate(list(spool.read(1, 4, 10))), values)
    assert (next(iter(spool.read(0, 0, 2))) == 0x7FC0).all()
    with pytest.raises(CaptureError, match="missing"):
        list(spool.read(1, 4, 12))
    assert list(tmp_path.iterdir()) == []
    spool.close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot be kept"):
        Spool(tmp_path / "nowhere", Shape(1, 1, "float32"), 1)
