"""The process may be killed at any moment: what was committed is whole, and a resumed recording ends as any other."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import xarray as xr
from small_traces import ATTRS, as_dataset, merged, prompt_block, writer

from stratoscope import disk
from stratoscope.errors import TraceError
from stratoscope.trace.read.reader import open_trace

PROMPTS = 3
VARIABLES = ("mlp_out_norm",)
SEALED = ("replace .t.new/zarr.json", "replace t", "replace t/zarr.json")
Acknowledge = Callable[[int], object]


def values(prompts: int) -> xr.Dataset:
    """What a trace of that many prompts must hold."""
    return as_dataset(merged([prompt_block(index, variables=VARIABLES) for index in range(prompts)]), VARIABLES)


def record(path: Path, acknowledge: Acknowledge = int, *, prompts: int = PROMPTS, **options: object) -> None:
    """Record with a commit after each prompt but the last."""
    with writer(path, variables=VARIABLES, **options) as recording:
        for index in range(recording.committed_prompts, prompts):
            recording.append(prompt_block(index, variables=VARIABLES))
            if index < prompts - 1:
                recording.commit()
            acknowledge(recording.committed_prompts)
        recording.finish()


def whole_prompts(path: Path, acknowledged: int) -> int:
    """Check that a stopped recording left whole prompts, no fewer than acknowledged; returns how many."""
    if not path.exists():
        assert acknowledged == 0
        return 0
    trace = open_trace(path)
    prompts = trace.sizes["prompt"]
    assert prompts >= acknowledged
    xr.testing.assert_equal(trace, values(prompts))
    return prompts


@dataclass
class Stops:
    """Keeps what is on disk before every write, fsync and replace: what a kill at that moment would leave."""

    folder: Path
    snapshots: Path
    acknowledged: int = 0
    found: list[tuple[Path, int, str]] = field(default_factory=list)
    log: list[tuple[str, Path]] = field(default_factory=list)

    def step(self, operation: str, path: Path) -> None:
        self.log.append((operation, path))
        if operation == "fsync":  # changes nothing that a kill could show; several run side by side
            return
        self.keep(f"{operation} {path.relative_to(self.folder)}")
        if operation == "write":  # a kill in the middle of it
            torn = self.keep(f"torn {path.name}")
            (torn / path.relative_to(self.folder)).write_bytes(b"torn")

    def keep(self, what: str) -> Path:
        snapshot = self.snapshots / str(len(self.found))
        shutil.copytree(self.folder, snapshot, copy_function=os.link)
        self.found.append((snapshot, self.acknowledged, what))
        return snapshot

    def acknowledge(self, prompts: int) -> None:
        self.acknowledged = prompts


@pytest.fixture
def stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stops:
    (tmp_path / "work").mkdir()
    stops = Stops(tmp_path / "work", tmp_path / "snapshots")
    monkeypatch.setattr(disk, "step", lambda operation, path: stops.step(operation, path))
    return stops


def test_a_stop_at_every_write_and_replace_loses_nothing(stops: Stops, monkeypatch: pytest.MonkeyPatch) -> None:
    record(stops.folder / "t", stops.acknowledge)
    stops.keep("the end")
    monkeypatch.undo()
    seen = [whole_prompts(snapshot / "t", acknowledged) for snapshot, acknowledged, _ in stops.found]
    assert len(seen) > 200
    assert seen == sorted(seen)
    assert set(seen) == set(range(PROMPTS + 1))
    for snapshot, _, what in stops.found:
        if what in SEALED or int(snapshot.name) % 16 == 0:
            record(snapshot / "t", resume=True)
            xr.testing.assert_equal(open_trace(snapshot / "t"), values(PROMPTS))
            assert [entry.name for entry in snapshot.iterdir()] == ["t"]
            assert list(snapshot.rglob("*.partial")) == []


@pytest.mark.parametrize(
    "exchanges", [True, pytest.param(False, marks=pytest.mark.long)], ids=["exchange", "two renames"]
)
def test_the_old_trace_stays_until_the_new_one_is_complete(
    stops: Stops, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    path, old = stops.folder / "t", {**ATTRS, "plan": {"prompts": "others"}}
    if not exchanges:
        monkeypatch.setattr(disk, "_renameat2", None)
    with monkeypatch.context() as quiet:
        quiet.setattr(disk, "step", lambda operation, path: None)
        record(path, prompts=5, attrs=old)
    record(path, stops.acknowledge, overwrite=True)
    monkeypatch.setattr(disk, "step", lambda operation, path: None)
    missing, new, resumed = 0, 0, 0
    for snapshot, acknowledged, what in stops.found:
        if "replace" not in what and ".t.old" not in what:
            continue  # what is in place is as it was at the step before
        again = Path(shutil.copytree(snapshot, stops.snapshots / f"{snapshot.name} again"))  # snapshots share files
        target = again / "t"
        if not target.exists():
            missing += 1
            with pytest.raises(TraceError, match="interrupted"):
                open_trace(target)
            with pytest.raises(TraceError, match="was to replace this trace was interrupted"):
                record(target)  # finds the old trace again
        trace = open_trace(target)
        new += trace.attrs["plan"] == ATTRS["plan"]
        assert trace.attrs["state"] == "complete"
        xr.testing.assert_equal(trace, values(PROMPTS if trace.attrs["plan"] == ATTRS["plan"] else 5))
        if acknowledged and what.endswith(".t.recording/zarr.json") and trace.attrs["plan"] == old["plan"]:
            with pytest.raises(TraceError, match="was to replace this trace was interrupted"):
                record(target)
            with writer(target, variables=VARIABLES, resume=True) as recording:
                assert recording.committed_prompts >= acknowledged
            resumed += 1
            record(target, resume=True)
        elif int(snapshot.name) % 8 == 0 or ".old" in what:
            record(target, overwrite=True)
        else:
            continue
        xr.testing.assert_equal(open_trace(target), values(PROMPTS))
        assert [entry.name for entry in again.iterdir()] == ["t"]
    assert missing == (not exchanges)
    assert new
    assert resumed == PROMPTS - 1


def test_a_disk_that_refuses_when_the_first_commit_has_taken_its_place_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, done = tmp_path / "t", []

    def step(operation: str, where: Path) -> None:
        done.append((operation, where))
        if ("replace", path) in done and operation == "fsync":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(disk, "step", step)
        with pytest.raises(TraceError, match="use --resume; what was committed is whole"):
            record(path)
    assert whole_prompts(path, 1) == 1
    record(path, resume=True)
    assert whole_prompts(path, PROMPTS) == PROMPTS


def test_nothing_takes_its_place_before_it_is_durable(stops: Stops) -> None:
    record(stops.folder / "t")
    durable: set[Path] = set()
    waiting: set[Path] = set()  # folders whose new entries are not durable
    roots = 0
    for operation, path in stops.log:
        if operation == "write":
            durable.discard(path)
        elif operation == "fsync":
            durable.add(path)
            waiting.discard(path)
        elif path.name == "zarr.json" and path.parent.name in ("t", ".t.new"):
            assert path.with_name("zarr.json.partial") in durable
            assert not waiting, "the commit is sealed before its chunks are durable"
            roots += 1
        elif path.parent != stops.folder:
            assert path.with_name(path.name + ".partial") in durable
            waiting.add(path.parent)
    assert roots == PROMPTS  # each commit; the last one finishes


def test_ten_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    path, acknowledged, grew, chance = tmp_path / "t", 0, 0, random.Random(0)
    for _ in range(10):
        before = acknowledged
        acknowledged = max(acknowledged, killed(path, 10_000, after=chance.uniform(0.1, 0.6)))
        acknowledged = whole_prompts(path, acknowledged)
        grew += acknowledged > before
    assert grew >= 3, "the kills came before anything was recorded"
    record(path, resume=True, prompts=acknowledged + 2)
    xr.testing.assert_equal(open_trace(path), values(acknowledged + 2))


def killed(path: Path, prompts: int, after: float) -> int:
    """Record in a forked process and kill it: the last number of prompts it acknowledged."""
    reader, acknowledgements = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            record(path, lambda done: os.write(acknowledgements, struct.pack("i", done)), prompts=prompts, resume=True)
        finally:
            os._exit(1)
    os.close(acknowledgements)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == -signal.SIGKILL, f"the recording ended by itself with {status}"
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    return int(struct.unpack("i", said[-4:])[0]) if said else 0
