"""A batch that does not fit into memory is run in halves, says so, and leaves nothing behind in what follows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_sites import hooks_of
from tiny import TEXTS, byte_tokenizer, tiny

from stratoscope import capture, open_trace
from stratoscope.errors import CaptureError
from stratoscope.names import SUMMARIES
from stratoscope.recorder import recording

MANY = [f"{text} {number}" for number in range(6) for text in TEXTS]
ERRORS = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
    "mps": lambda: RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    "python": MemoryError,
}


def run(out: Path, model: Any, **options: Any) -> Any:
    settings = {"record": SUMMARIES, "top_k": 5, "batch_size": 4, **options}
    return capture(model, settings.pop("prompts", MANY), out, tokenizer=byte_tokenizer(), **settings)


@contextmanager
def little_memory(model: Any, prompts: int, kind: str = "cuda", layer: int = 1) -> Iterator[list[int]]:
    """The model fails inside a layer when more than so many prompts come at once; gives the sizes it was given."""
    sizes: list[int] = []

    def fail(_: Any, inputs: Any) -> None:
        sizes.append(len(inputs[0]))
        if len(inputs[0]) > prompts:
            raise ERRORS[kind]()

    hook = model.model.layers[layer].mlp.register_forward_pre_hook(fail)
    try:
        yield sizes
    finally:
        hook.remove()


def assert_close(one: Any, other: Any) -> None:
    for name in one.data_vars:
        first, second = one[name].values, other[name].values
        if first.dtype.kind == "f":
            assert np.array_equal(np.isnan(first), np.isnan(second)), name
            assert np.nanmax(np.abs(first - second) / (1 + np.abs(second)), initial=0) <= 1e-4, name


@pytest.mark.parametrize("kind", ERRORS)
def test_a_batch_that_does_not_fit_is_run_in_halves_and_the_receipt_says_so(tmp_path: Path, kind: str) -> None:
    model = tiny("Llama")
    whole = run(tmp_path / "whole", model)
    with little_memory(model, 2, kind) as sizes:
        trace = run(tmp_path / "t", model)
    assert max(sizes) == 4
    assert_close(whole, trace)
    assert trace.attrs["state"] == "complete"
    assert trace.attrs["receipt"]["smallest_batch"] == 2
    limits = [limit for limit in trace.attrs["receipt"]["limits"] if "did not fit into memory" in limit]
    assert len(limits) == 1
    assert "Some batches of 4 prompts" in limits[0]
    assert "down to 2" in limits[0]
    assert "smallest_batch" not in whole.attrs["receipt"]
    assert hooks_of(model) == 0


def test_only_what_is_as_large_as_what_failed_is_halved_again(tmp_path: Path) -> None:
    model = tiny("Llama")
    with little_memory(model, 2) as sizes:
        run(tmp_path / "t", model, prompts=["x" * 20] * 16)
    recorded = sizes[sizes.index(4) :]  # what comes before is the probe
    assert recorded == [4] + [2] * 8, "a batch known not to fit was tried again"


def test_halves_are_cut_down_to_single_prompts(tmp_path: Path) -> None:
    model = tiny("Llama")
    with little_memory(model, 2):
        whole = run(tmp_path / "2", model, batch_size=1)

    def one_at_a_time(_: Any, inputs: Any) -> None:
        if len(inputs[0]) > 1 and probed:
            raise ERRORS["cuda"]()

    probed: list[bool] = []
    hook = model.model.layers[2].mlp.register_forward_pre_hook(one_at_a_time)
    trace = run(tmp_path / "1", model, progress=lambda stage, *_: stage == "recording" and probed.append(True))
    hook.remove()
    assert trace.attrs["receipt"]["smallest_batch"] == 1
    assert_close(whole, trace)


def test_a_single_prompt_that_does_not_fit_is_named(tmp_path: Path) -> None:
    model = tiny("Llama")

    def short_only(_: Any, inputs: Any) -> None:
        if inputs[0].shape[1] > 70:
            raise ERRORS["cuda"]()

    hook = model.model.layers[1].mlp.register_forward_pre_hook(short_only)
    with pytest.raises(CaptureError, match=r"prompt p0003: its 80 tokens do not fit into memory, not even") as caught:
        run(tmp_path / "t", model, prompts=["a", "bb", "c" * 80, "ddd"])
    hook.remove()
    assert "--dtype bfloat16" in caught.value.fix
    assert hooks_of(model) == 0
    assert not (tmp_path / "t").exists()


def test_what_was_recorded_before_the_last_failure_is_kept_and_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, window, left = tiny("Llama"), recording.Recording._window, [1]

    def stop(recorder: Any, part: range) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return window(recorder, part)

    with monkeypatch.context() as patch, little_memory(model, 2):
        patch.setattr(recording.Recording, "_window", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "t", model)
    assert open_trace(tmp_path / "t").attrs["receipt"]["smallest_batch"] == 2
    trace = run(tmp_path / "t", model, resume=True)  # now there is memory enough: the limit is not forgotten
    assert trace.attrs["receipt"]["smallest_batch"] == 2
    assert any("did not fit into memory" in limit for limit in trace.attrs["receipt"]["limits"])


def test_running_out_of_memory_while_the_sites_are_proved_is_said_in_words(tmp_path: Path) -> None:
    model = tiny("Llama")
    with little_memory(model, 0), pytest.raises(CaptureError, match="does not fit into memory"):
        run(tmp_path / "t", model)
    assert hooks_of(model) == 0
