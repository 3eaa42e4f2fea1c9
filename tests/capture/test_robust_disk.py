"""Disks that are full or may not be written: one clear error, what was committed opens, and the rest can follow."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
import xarray as xr
from kills import assert_same_recording, assert_same_values
from test_capture import run
from tiny import byte_tokenizer, tiny
from typer.testing import CliRunner

from stratoscope import disk, names, open_trace
from stratoscope.doors.cli import app
from stratoscope.errors import TraceError
from stratoscope.recorder import recording
from stratoscope.trace.write import row_stream
from stratoscope.trace.write.writer import TraceWriter

PROMPTS = [f"prompt number {number}" for number in range(8)]
SMALL: dict[str, Any] = {"prompts": PROMPTS, "batch_size": 1, "record": (names.NORMS, names.NEURONS)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """What an undisturbed recording gives."""
    return run(tmp_path_factory.mktemp("whole") / "whole", **SMALL)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit after every window."""
    monkeypatch.setattr(TraceWriter, "_is_time", lambda _: True)


def left_whole(out: Path, whole: xr.Dataset) -> int:
    """Check that what is there is the beginning of the whole; returns how many prompts."""
    if not out.exists():
        assert not list(out.parent.glob(f".{out.name}*")), "something half-written was left"
        return 0
    trace = open_trace(out)
    assert_same_values(whole, trace, "what a full disk left")
    return int(trace.sizes["prompt"])


# --- a full disk, played at each moment -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS], ids=errno.errorcode.get)
def test_a_disk_that_refuses_at_any_moment_costs_no_committed_prompt(
    tmp_path: Path, whole: xr.Dataset, monkeypatch: pytest.MonkeyPatch, often: None, number: int
) -> None:
    counted, one_by_one = 0, Lock()  # files are made durable in several threads

    def step(operation: str, path: Path) -> None:
        nonlocal counted
        with one_by_one:
            counted += 1
        if counted > place and path.name != names.PROMPT:  # from then on, as a full disk does
            raise OSError(number, os.strerror(number))

    def counted_run(out: Path) -> None:
        nonlocal counted
        counted = 0
        with monkeypatch.context() as patch:
            patch.setattr(disk, "step", step)
            patch.setattr(row_stream, "step", step)
            run(out, **SMALL)

    place, kept = sys.maxsize, []
    counted_run(tmp_path / "undisturbed")
    moments = 14 if number == errno.ENOSPC else 3
    for moment, place in enumerate([counted * part // moments for part in range(moments)]):
        out = tmp_path / f"t{place}"
        with pytest.raises(TraceError, match=os.strerror(number)) as caught:
            counted_run(out)
        kept.append(left_whole(out, whole))
        assert ("--resume" in str(caught.value)) == (kept[-1] > 0)
        assert ("Free some space" in str(caught.value)) == (number in (errno.ENOSPC, errno.EDQUOT))
        if moment % 3 == 0:
            assert_same_recording(whole, run(out, resume=True, **SMALL), "resumed after the disk was full")
            assert list(out.rglob("*.partial")) == []
    assert kept == sorted(kept)
    assert kept[0] == 0
    assert kept[-1] > 0, "the disk was never full in the midst of a recording"


# --- real ones ------------------------------------------------------------------------------------------------------


def mount(place: Path, options: str) -> None:
    """Mount or change a file system in memory; skip where that is not permitted."""
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk of which `mount` sets the size."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a small disk")
    place = tmp_path / "disk"
    place.mkdir()
    mount(place, "size=64k")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_really_full_and_then_is_given_room(
    small_disk: Path, whole: xr.Dataset, often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "refuse_full_disk", lambda *_: None)  # as when somebody else fills the disk
    kept, out = [], small_disk / "t"
    files = [path for path in Path(whole.encoding["source"]).rglob("*") if path.is_file()]
    needed = sum(-(-path.stat().st_size // 4096) * 4 for path in files)
    for tenths in (3, 6, 8, 9):
        mount(small_disk, f"remount,size={needed * tenths // 10}k")
        with pytest.raises(TraceError, match="No space left on device"):
            run(out, resume=True, **SMALL)
        kept.append(left_whole(out, whole))
    assert kept == sorted(kept), "a full disk lost what was committed"
    assert kept[0] == 0
    assert kept[-1] > 0, "the disk was never full in the midst of a recording"
    mount(small_disk, "remount,size=64m")
    assert_same_recording(whole, run(out, resume=True, **SMALL), "resumed after the disk was full")
    assert {entry.name for entry in small_disk.iterdir()} == {"t"}


def test_a_disk_that_has_become_read_only(small_disk: Path, whole: xr.Dataset, often: None) -> None:
    mount(small_disk, "remount,size=64m")
    out = small_disk / "t"

    def stop(stage: str, done: int, _: int | None) -> None:
        if stage == "recording" and done > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(out, progress=stop, **SMALL)
    kept = left_whole(out, whole)
    assert kept > 0
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for target in (out, small_disk / "other"):
        with pytest.raises(TraceError, match="Read-only file system"):
            run(target, resume=True, **SMALL)
    assert left_whole(out, whole) == kept
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert_same_recording(whole, run(out, resume=True, **SMALL), "resumed after the disk could be written again")


def test_a_folder_that_may_not_be_written_is_one_line_and_status_1(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny("Llama").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    with tempfile.TemporaryDirectory() as place:
        protected = Path(place) / "protected"
        protected.mkdir()
        arguments = ["capture", str(folder), "--prompts", str(tmp_path / "prompts.txt"), "--device", "cpu", "-o"]
        assert CliRunner().invoke(app, [*arguments, str(tmp_path / "t")]).exit_code == 0  # imports whatever it needs
        protected.chmod(0o555)
        Path(place).chmod(0o755)
        said = tmp_path / "said"
        said.touch()
        said.chmod(0o666)
        with said.open("w") as stderr:
            child = os.fork()
            if child == 0:
                sys.stderr, status = stderr, 99
                try:
                    as_nobody(reading=tmp_path)
                    app([*arguments, str(protected / "t")], prog_name="stratoscope")
                except SystemExit as end:
                    status = int(end.code or 0)
                finally:
                    stderr.flush()
                    os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        words = said.read_text()
        assert status == 1, words
        assert words.splitlines()[-1].startswith(f"error: {protected / 't'}: cannot write here (Permission denied)")
        assert "Traceback" not in words
        assert list(protected.iterdir()) == []


def as_nobody(*, reading: Path) -> None:
    """Give up root's right to write anywhere, but not to read what tests have written."""
    if os.geteuid() != 0:
        return
    for path in (*reading.rglob("*"), reading, *reading.parents):
        if path.stat().st_mode & 0o055 != 0o055:
            path.chmod(path.stat().st_mode | 0o055)
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
