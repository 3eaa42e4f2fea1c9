"""A capture that stops at any write, fsync or replace: what is left is whole prompts, and can be brought to its end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from kills import assert_same_recording, assert_same_values, committed
from test_capture import run
from tiny import RECORDED

from stratoscope import disk, names, open_trace
from stratoscope.recorder import batched
from stratoscope.trace.write import row_stream
from stratoscope.trace.write.writer import TraceWriter

PROMPTS = ["one", "and two", "three"]
STREAMED = [group for group in (names.NEURONS, names.ATTENTION_FULL) if group in names.RECORD_GROUPS]
SMALL: dict[str, Any] = {"prompts": PROMPTS, "batch_size": 1, "record": (names.RESIDUAL, *STREAMED)}
ANSWERS = {"generate": 2, "openers": []}
_WRITE = TraceWriter._write
SEALING = ("zarr.json", "t")  # what is replaced when a commit becomes true, and when a trace takes its place


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit after every prompt."""
    monkeypatch.setattr(batched, "_WINDOW_BATCHES", 1)
    monkeypatch.setattr(TraceWriter, "_is_time", lambda _: True)


class Moments:
    """What is on disk before every write and replace, and in the middle of every write, as a kill would leave it."""

    def __init__(self, folder: Path, snapshots: Path) -> None:
        self.folder, self._snapshots = folder, snapshots
        self.found: list[tuple[Path, int, str]] = []
        self.operations: dict[str, int] = {}
        self.acknowledged = 0  # prompts that the recorder was told to be safe

    def __call__(self, operation: str, path: Path) -> None:
        self.operations[operation] = self.operations.get(operation, 0) + 1
        if operation == "fsync":  # changes nothing that a kill could show; several run side by side
            return
        self.keep(f"{operation} {path.name}")
        if operation == "write":
            torn = self.keep(f"torn {path.name}") / path.relative_to(self.folder)
            if path.name.endswith(disk.PARTIAL):
                torn.write_bytes(b"torn")
            elif torn.exists():  # a shard that rows are written into: half a row more
                with torn.open("ab") as shard:
                    shard.write(b"torn")
            elif torn.parent.exists():
                torn.write_bytes(b"half an index")

    def written(self, writer: TraceWriter, attrs: dict[str, Any], **options: Any) -> None:
        """Write a commit, and know what it has made safe."""
        _WRITE(writer, attrs, **options)
        self.acknowledged = writer.committed_prompts

    def keep(self, what: str) -> Path:
        """Copy what is there; files that are only ever replaced as links."""
        snapshot = self._snapshots / str(len(self.found))
        shutil.copytree(self.folder, snapshot, copy_function=_copy)
        self.found.append((snapshot, self.acknowledged, what))
        return snapshot


def _copy(source: str, target: str) -> object:
    in_place = Path(source).parent.name in ("neurons", "active_neurons", "attention")
    return shutil.copyfile(source, target) if in_place else os.link(source, target)


@pytest.mark.parametrize("answers", [{}, {**ANSWERS, "prompts": PROMPTS[:1]}], ids=["prompts", "answers"])
def test_a_capture_stopped_at_any_moment_loses_nothing_and_ends_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any]
) -> None:
    options = SMALL | answers
    whole = run(tmp_path / "whole", **options)
    (tmp_path / "work").mkdir()
    moments = Moments(tmp_path / "work", tmp_path / "snapshots")
    with monkeypatch.context() as patch:
        patch.setattr(disk, "step", moments)
        patch.setattr(row_stream, "step", moments)
        patch.setattr(TraceWriter, "_write", lambda writer, attrs, **more: moments.written(writer, attrs, **more))
        run(tmp_path / "work" / "t", **options)
    moments.keep("the end")
    assert moments.operations.keys() == {"write", "fsync", "replace"}

    seen = []
    for number, (snapshot, acknowledged, what) in enumerate(moments.found):
        seen.append(_kept(snapshot / "t", whole, what))
        assert seen[-1] >= acknowledged, f"before {what}, {acknowledged} prompts had been seen"
        if (what.startswith("replace") and what.endswith(SEALING)) or number % 24 == 0:
            assert_same_recording(whole, run(snapshot / "t", resume=True, **options), f"resumed after {what}")
            assert [entry.name for entry in snapshot.iterdir()] == ["t"]
            assert list(snapshot.rglob("*.partial")) == []
    assert len(seen) > 100
    assert seen == sorted(seen)
    assert set(seen) == set(range(len(options["prompts"]) + 1))


def _kept(out: Path, whole: xr.Dataset, what: str) -> int:
    trace = committed(out)
    if trace is None:
        return 0
    assert_same_values(whole, trace, f"before {what}")
    return int(trace.sizes[names.PROMPT])


@pytest.mark.parametrize("disturb", ["another batch size", "another thread count", "no kernels"])
def test_a_recording_resumed_otherwise_is_refused_or_differs_only_in_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disturb: str
) -> None:
    """What `docs/recording.md` says of each."""
    import torch

    from stratoscope import kernels
    from stratoscope.errors import TraceError

    options = {**SMALL, "record": RECORDED}
    whole = run(tmp_path / "whole", **options)
    _stopped(tmp_path / "t", options)
    if disturb == "another batch size":
        with pytest.raises(TraceError, match=r"plan\.batch_size was 1 and is now 2"):
            run(tmp_path / "t", resume=True, **{**options, "batch_size": 2})
        return
    threads = torch.get_num_threads()
    if disturb == "another thread count":
        torch.set_num_threads(2)
    else:
        monkeypatch.setattr(kernels, "_library", lambda: None)
        kernels.kernel.cache_clear()
    try:
        other = run(tmp_path / "t", resume=True, **options)
    finally:
        torch.set_num_threads(threads)
        kernels.kernel.cache_clear()
    assert other.attrs["state"] == "complete"
    for name in whole.data_vars:
        if whole[name].dtype.kind == "f":
            xr.testing.assert_allclose(whole[name], other[name], rtol=1e-3, atol=1e-5)


def _stopped(out: Path, options: dict[str, Any], prompts: int = 1) -> None:
    """A recording that is interrupted after some prompts."""

    def stop(stage: str, done: int, _: int | None) -> None:
        if stage == "recording" and done > prompts:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(out, progress=stop, **options)
    assert 0 < open_trace(out).sizes[names.PROMPT] < len(PROMPTS)


@pytest.mark.parametrize(
    "place", ["with a space", "наблюдение é→", "x" * 240, "-o", "100%", "new\nline"], ids=lambda name: ascii(name)[:12]
)
def test_any_name_of_a_trace_can_be_recorded_interrupted_and_resumed(tmp_path: Path, place: str) -> None:
    out = tmp_path / place
    whole = run(tmp_path / "whole", **SMALL)
    _stopped(out, SMALL)
    assert_same_recording(whole, run(out, resume=True, **SMALL), place)
    assert {entry.name for entry in tmp_path.iterdir()} == {"whole", place}


def test_a_name_too_long_for_the_files_beside_it_is_one_clear_error(tmp_path: Path) -> None:
    from stratoscope.errors import TraceError

    with pytest.raises(TraceError, match="File name too long"):
        run(tmp_path / ("x" * 253), **SMALL)
    assert list(tmp_path.iterdir()) == []


# --- a trace that is taken away while it is recorded ---------------------------------------------------------------


def disturbed(out: Path, deed: Callable[[], object], words: str) -> None:
    """Do something after the first commit of a recording; it must then stop with these words."""
    from stratoscope.errors import TraceError

    done: list[object] = []

    def disturb(stage: str, prompts: int, _: int | None) -> None:
        if stage == "recording" and prompts == 1 and not done and out.exists():
            done.append(deed())

    with pytest.raises(TraceError, match=words):
        run(out, progress=disturb, **SMALL)
    assert done


def test_a_trace_moved_while_it_is_recorded_keeps_what_it_has_and_goes_on_where_it_is(tmp_path: Path) -> None:
    whole, out, moved = run(tmp_path / "whole", **SMALL), tmp_path / "t", tmp_path / "moved"
    disturbed(out, lambda: out.rename(moved), r"No such file|was moved, removed or replaced.*--resume")
    assert not out.exists(), "a second trace was begun where the first one was"
    assert _kept(moved, whole, "the move") == 1
    assert_same_recording(whole, run(moved, resume=True, **SMALL), "moved and resumed")


def test_a_trace_removed_while_it_is_recorded_does_not_come_back_as_a_part(tmp_path: Path) -> None:
    out = tmp_path / "t"
    disturbed(out, lambda: shutil.rmtree(out), r"No such file|was moved, removed or replaced")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_removed_while_it_is_recorded_stops_the_recording_and_not_the_next(tmp_path: Path) -> None:
    whole, out = run(tmp_path / "whole", **SMALL), tmp_path / "t"
    disturbed(out, (tmp_path / "t.lock").unlink, r"lock file was removed.*--resume")
    assert _kept(out, whole, "the lock was removed") == 1
    assert_same_recording(whole, run(out, resume=True, **SMALL), "resumed")


def test_a_clock_that_goes_backwards_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    whole, now = run(tmp_path / "whole", **SMALL), [2e9]

    def backwards() -> float:
        now[0] -= 3600
        return now[0]

    with monkeypatch.context() as patch:
        patch.setattr(time, "time", backwards)
        _stopped(tmp_path / "t", SMALL)
        assert_same_recording(whole, run(tmp_path / "t", resume=True, **SMALL), "resumed an hour ago")
