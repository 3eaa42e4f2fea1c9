"""`capture --plan` against what then happens, and recordings that do not start because they would fill the disk."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_capture import run
from tiny import FAMILIES, RECORDED, byte_tokenizer, tiny, tiny_model

from stratoscope import capture, names, open_trace, plan_capture
from stratoscope.doors.estimate import duration_text
from stratoscope.errors import TraceError
from stratoscope.recorder import disk_needed as disk
from stratoscope.recorder.estimate.estimate import Cost, Estimate

PROMPTS = [f"prompt {number}: " + "the fox. " * (1 + number % 7) for number in range(40)]
Usage = namedtuple("Usage", "total used free")


def bytes_of(trace: Path) -> int:
    return sum(path.stat().st_size for path in trace.rglob("*") if path.is_file())


def plan_and_run(tmp_path: Path, model: Any, **options: Any) -> tuple[Estimate, Path]:
    settings = {"tokenizer": byte_tokenizer(), "batch_size": 4, "top_k": 5, **options}
    estimate = plan_capture(model, PROMPTS, tmp_path / "t", **settings)
    assert list(tmp_path.iterdir()) == [], "planning left something"
    capture(model, PROMPTS, tmp_path / "t", **settings)
    return estimate, tmp_path / "t"


# --- estimates against what happened --------------------------------------------------------------------------------


@pytest.mark.parametrize("record", [names.SUMMARIES, RECORDED, (names.NORMS,), (names.ATTENTION_FULL,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_disk_that_is_planned_is_taken(tmp_path: Path, record: tuple[str, ...], dtype: torch.dtype) -> None:
    estimate, trace = plan_and_run(tmp_path, tiny("Llama").to(dtype), record=record)
    assert estimate.total.disk_bytes == pytest.approx(bytes_of(trace), rel=0.15)
    assert list(estimate.groups) == list(record)


@pytest.mark.parametrize("name", ["neurons", "attention"])
def test_what_a_group_is_planned_to_take_is_what_its_arrays_take(tmp_path: Path, name: str) -> None:
    estimate, trace = plan_and_run(tmp_path, tiny("Gemma2"), record=RECORDED)
    group = names.QUANTITIES[name].group
    taken = sum(path.stat().st_size for path in (trace / name).iterdir() if path.name != "zarr.json")
    assert estimate.groups[group].disk_bytes == taken, "streamed rows are not compressed, so their bytes are known"


def test_answers_are_planned_at_their_longest(tmp_path: Path) -> None:
    options: dict[str, Any] = {"record": (names.NORMS, names.NEURONS), "generate": 6, "openers": ()}
    options["generation"] = {"min_new_tokens": 6}
    estimate, trace = plan_and_run(tmp_path, tiny("Llama"), **options)
    assert estimate.answers_at_most == 6
    assert estimate.total.disk_bytes == pytest.approx(bytes_of(trace), rel=0.15)


def test_a_mixture_of_experts_is_planned(tmp_path: Path) -> None:
    estimate, trace = plan_and_run(tmp_path, tiny("Mixtral"), record=RECORDED)
    assert estimate.total.disk_bytes == pytest.approx(bytes_of(trace), rel=0.15)


@pytest.mark.parametrize(
    "record", [pytest.param("norms,residual", marks=pytest.mark.long), "norms,peaks,prompts,attention,neurons"]
)
def test_the_memory_that_is_planned_is_taken_in_a_fresh_process(tmp_path: Path, record: str) -> None:
    folder = tmp_path / "model"
    options = {
        **FAMILIES["Llama"].options,
        "intermediate_size": 2048,
        "num_hidden_layers": 8,
        "max_position_embeddings": 512,
    }
    tiny_model("LlamaConfig", options).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    (tmp_path / "p.txt").write_text("\n".join(text * 4 for text in PROMPTS * 3))
    arguments = ["capture", str(folder), "--prompts", "p.txt", "-o", "run.trace", "--device", "cpu", "--record", record]
    planned = json.loads(_stratoscope(tmp_path, *arguments, "--plan", "--json")[0])
    _, taken = _stratoscope(tmp_path, *arguments)
    assert planned["total"]["memory_bytes"] == pytest.approx(taken, rel=0.3)
    assert planned["total"]["disk_bytes"] == pytest.approx(bytes_of(tmp_path / "run.trace"), rel=0.15)
    assert planned["fits"] is True
    assert planned["total"]["seconds"] > planned["begin_seconds"] > 0


def _stratoscope(folder: Path, *arguments: str) -> tuple[str, int]:
    """What a command prints, and the most memory that its process held."""
    command = [sys.executable, "-c", _MEASURED, sys.executable, "-m", "stratoscope", *arguments]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    printed, _, most = done.stdout.rpartition("most ")
    return printed, int(most) * 1024


# a process begins with the size of the one that starts it, so a small one must start it
_MEASURED = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
print("most", usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


# --- too little -----------------------------------------------------------------------------------------------------


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(size, 0, size))


def test_a_capture_that_would_fill_the_disk_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 10_000)
    with pytest.raises(TraceError, match=r"needs at least .* 10 kB are free.* neurons alone takes .*--plan"):
        run(tmp_path / "t", record=(names.NORMS, names.NEURONS))
    assert list(tmp_path.iterdir()) == []


def test_a_recording_that_goes_on_needs_room_only_for_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stratoscope.recorder.recording import Recording
    from stratoscope.trace.write.writer import TraceWriter

    options: dict[str, Any] = {"record": (names.NEURONS,), "prompts": PROMPTS, "batch_size": 1}
    window = Recording._window
    left = [9]

    def stopping(self: Recording, prompts: range) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return window(self, prompts)

    with monkeypatch.context() as patch:
        patch.setattr(Recording, "_window", stopping)
        patch.setattr(TraceWriter, "_is_time", lambda _: True)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "t", **options)
    there = open_trace(tmp_path / "t").sizes["token"] / sum(len(text.encode()) for text in PROMPTS)
    assert there > 0.8
    whole = run(tmp_path / "whole", **options)
    free(monkeypatch, int(0.5 * whole.neurons.nbytes))
    assert np.array_equal(run(tmp_path / "t", resume=True, **options).neurons, whole.neurons)


def estimate(disk_free: int, memory_free: int | None = 10**12) -> Estimate:
    costs = {names.NORMS: Cost(10, 5, 0, 1), names.PEAKS: Cost(50, 20, 0, 1), names.NEURONS: Cost(900, 1, 0, 1)}
    total = Cost(1000, 100, 0, 10)
    return Estimate(4, 8, 1, 0.5, Cost(40, 74, 0, 7), costs, total, disk_free, memory_free, 0, False, 0, False)


def test_the_largest_groups_are_what_to_leave_out() -> None:
    assert estimate(1000).fits
    assert estimate(1000).advice == []
    assert estimate(999).advice == ["It fits without neurons: --record norms,peaks."]
    assert estimate(60).advice == ["It fits without neurons and peaks: --record norms."]
    assert estimate(10).advice == ["Use fewer prompts, or another disk with -o."]
    assert estimate(1000, None).fits, "memory that nobody knows is not missing"
    advice = estimate(1000, 85).advice
    assert "--batch-size" in advice[0]
    assert advice[1:] == ["It fits without peaks: --record norms,neurons."]


def test_where_each_prompt_runs_alone_no_smaller_batch_is_advised() -> None:
    assert replace(estimate(1000, 85), batches=4).advice == ["It fits without peaks: --record norms,neurons."]


def test_a_card_that_is_too_small_is_named() -> None:
    small = replace(estimate(1000), total=Cost(1000, 100, 50, 10), card_memory_free=40, has_card=True)
    assert "--batch-size" in small.advice[0]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (12.1, "13 s"), (59.5, "1 min 0 s"), (200, "3 min 20 s"), (3600, "1 h 0 min"),
     (18_600, "5 h 10 min"), (86_400, "1 d 0 h"), (183_600, "2 d 3 h")],
)  # fmt: skip
def test_times_are_told_in_words(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_no_compression_leaves_less_than_is_reckoned_with(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", record=names.SUMMARIES)
    for name, value in trace.data_vars.items():
        taken = sum(path.stat().st_size for path in (tmp_path / "t" / str(name)).iterdir() if path.name != "zarr.json")
        if value.dtype.kind == "f":
            assert taken >= disk.LEAST_COMPRESSED * value.nbytes or np_constant(value), name


def np_constant(value: Any) -> bool:
    """Whether an array repeats itself, as ratios of a tiny model may."""
    return len(set(value.values.ravel().tolist())) < 0.6 * value.size
