"""Killed with SIGKILL at any moment, a recording loses nothing that was committed and ends with the same values."""

from __future__ import annotations

import os
import random
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from test_capture import assert_equal, run

from stratoscope import defaults, open_trace
from stratoscope.errors import StratoscopeError
from stratoscope.recorder import recording
from stratoscope.trace.writer import TraceWriter

KILLS = 10
PROMPTS = [f"prompt number {number}" + "!" * (number % 7) for number in range(96)]


def record(out: Path, **options: Any) -> None:
    run(out, prompts=PROMPTS, batch_size=2, **options)


def killed(out: Path, *, after: int, delay: float) -> bool:
    """Record in a child that is killed some time after its n-th batch began; False if it was done before."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            record(out, resume=out.exists(), progress=lambda *_: os.write(writing, b"."))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as batches:
        batches.read(after)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def committed(out: Path) -> int:
    try:
        return int(open_trace(out).sizes["prompt"])
    except StratoscopeError:
        return 0


def assert_begins_with(whole: xr.Dataset, part: xr.Dataset) -> None:
    assert_equal(whole.isel({dim: slice(part.sizes[dim]) for dim in ("token", "prompt")}), part)


def test_ten_kills_lose_nothing_and_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "TraceWriter", partial(TraceWriter, commit_seconds=0))
    monkeypatch.setattr(defaults, "COMMIT_SHARE", 1.0)
    record(tmp_path / "whole")
    whole, out = open_trace(tmp_path / "whole"), tmp_path / "killed"

    chance, kills, kept = random.Random(0), 0, [0]
    for number in range(5 * KILLS):
        kills += killed(out, after=chance.randrange(3, 12), delay=chance.uniform(0, 0.05))
        kept.append(committed(out))
        assert kept[-1] >= kept[-2], f"committed prompts were lost: {kept}"
        if kept[-1]:
            assert_begins_with(whole, open_trace(out))
        if kills == KILLS:
            break
        if kept[-1] == len(PROMPTS):  # done before the kill: begin another one
            out = tmp_path / f"killed-{number}"
            kept.append(0)
    assert kills == KILLS
    assert any(0 < prompts < len(PROMPTS) for prompts in kept), f"no kill fell into the recording: {kept}"

    record(out, resume=True)
    assert open_trace(out).attrs["state"] == "complete"
    assert_equal(whole, open_trace(out))
