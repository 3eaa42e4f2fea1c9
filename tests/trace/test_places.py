"""Where a trace may be written: one writer, nothing removed that is no trace, no two recordings mixed, full disks."""

from __future__ import annotations

import errno
import os
import resource
import tracemalloc
from pathlib import Path

import pytest
import xarray as xr
from small_traces import ATTRS, VARIABLES, expected, prompt_block, record, writer

from stratoscope import disk
from stratoscope.errors import TraceError
from stratoscope.trace.format import place
from stratoscope.trace.read.reader import open_trace


def test_two_writers_of_one_trace_are_refused(tmp_path: Path) -> None:
    with writer(tmp_path / "t") as recording:
        recording.append(prompt_block(0))
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(TraceError, match="another process is writing"):
                writer(tmp_path / "t", **options)
        recording.finish()
    assert not (tmp_path / "t.lock").exists()
    record(tmp_path / "t", overwrite=True)


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        writer(tmp_path / "t")
        os._exit(0)
    os.waitpid(child, 0)
    assert (tmp_path / "t.lock").exists()
    xr.testing.assert_equal(open_trace(record(tmp_path / "t")), expected(5))


def test_an_existing_trace_is_replaced_only_when_asked(tmp_path: Path) -> None:
    path = record(tmp_path / "t", 3)
    with pytest.raises(TraceError, match=r"already exists.*--overwrite"):
        record(path)
    xr.testing.assert_equal(open_trace(path), expected(3))
    record(path, 4, overwrite=True)
    xr.testing.assert_equal(open_trace(path), expected(4))
    assert [entry.name for entry in tmp_path.iterdir()] == ["t"]


def test_the_former_trace_stays_until_the_new_one_has_a_prompt(tmp_path: Path) -> None:
    path = record(tmp_path / "t", 3)
    with pytest.raises(ZeroDivisionError), writer(path, overwrite=True):
        raise ZeroDivisionError
    xr.testing.assert_equal(open_trace(path), expected(3))


def test_writing_at_once_shows_nothing_before_it_is_complete(tmp_path: Path) -> None:
    path = record(tmp_path / "t", 3)
    with pytest.raises(ZeroDivisionError), writer(path, overwrite=True, at_once=True) as recording:  # noqa: PT012
        recording.append(prompt_block(0))
        recording.commit()
        xr.testing.assert_equal(open_trace(path), expected(3))
        raise ZeroDivisionError
    xr.testing.assert_equal(open_trace(path), expected(3))
    assert [entry.name for entry in tmp_path.iterdir()] == ["t"]


@pytest.mark.parametrize("kind", ["file", "folder", "link", "empty folder", "other zarr"])
def test_what_is_not_a_trace_is_never_removed(tmp_path: Path, kind: str) -> None:
    target, precious = tmp_path / "t", tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    if kind == "file":
        target.write_text("years of work")
    elif kind == "link":
        target.symlink_to(precious, target_is_directory=True)
    else:
        target.mkdir()
    if kind == "folder":
        (target / "thesis.tex").write_text("years of work")
    if kind == "other zarr":
        xr.Dataset({"a": ("x", [1])}).to_zarr(target, zarr_format=3, consolidated=False)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    for options in ({"overwrite": True}, {"resume": True}, {}):
        with pytest.raises(TraceError, match="not a trace"):
            writer(target, **options)
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("place", [".t.new", ".t.old"])
def test_a_stranger_in_our_temporary_places_is_never_removed(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir()
    (tmp_path / place / "thesis.tex").write_text("years of work")
    with pytest.raises(TraceError, match="not removed"):
        writer(tmp_path / "t")
    assert (tmp_path / place / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"attrs": {**ATTRS, "plan": {"record": ["norms"], "top_k": 5}}}, r"plan\.top_k was 2 and is now 5"),
        ({"attrs": {**ATTRS, "model": {"name": "other", "revision": None}}}, r"model\.name was 'small'"),
        ({"attrs": {**ATTRS, "source": "real"}}, "source was 'simulated'"),
        ({"layers": (0, 1)}, "laid out differently"),
        ({"layers": (0, 1, 5)}, "its 'layer' holds other values"),
        ({"variables": VARIABLES[1:]}, "'mlp_out_norm' is laid out differently"),
        ({"sizes": {"peak": 3, "neuron": 6}}, "laid out differently"),
    ],
)
def test_two_recordings_are_never_mixed(tmp_path: Path, options: dict[str, object], words: str) -> None:
    with writer(tmp_path / "t") as recording:
        recording.append(prompt_block(0))
    with pytest.raises(TraceError, match=words):
        writer(tmp_path / "t", resume=True, **options)
    record(tmp_path / "t", resume=True)
    xr.testing.assert_equal(open_trace(tmp_path / "t"), expected(5))


def test_resuming_what_is_not_there_starts_afresh(tmp_path: Path) -> None:
    xr.testing.assert_equal(open_trace(record(tmp_path / "t", resume=True)), expected(5))


# --- a disk that refuses ----------------------------------------------------------------------------------------------


def test_a_full_disk_is_said_and_costs_only_the_last_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t"

    def full(operation: str, path: Path) -> None:
        if operation == "write" and "peak_value" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    recording = writer(path)
    recording.append(prompt_block(0))
    recording.commit()
    recording.append(prompt_block(1))
    monkeypatch.setattr(disk, "step", full)
    with pytest.raises(TraceError, match=r"No space left.*--resume"):
        recording.commit()
    with pytest.raises(TraceError, match="failed"):
        recording.append(prompt_block(2))
    recording.close()
    monkeypatch.undo()
    assert list(path.rglob("*.partial")) == []
    xr.testing.assert_equal(open_trace(path), expected(1))
    xr.testing.assert_equal(open_trace(record(path, resume=True)), expected(5))


def test_a_real_size_limit_is_one_clear_error(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        try:
            record(tmp_path / "t")
        except TraceError as error:
            os._exit(7 if "File too large" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:  # root may write anywhere, so the refusal is played
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("stratoscope.replacing.os.open", refuse)
    with pytest.raises(TraceError, match=r"cannot write here \(Permission denied\)"):
        writer(tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TraceError, match="its folder is a file"):
        writer(tmp_path / "file" / "t")


@pytest.mark.parametrize("kind", ["pipe", "much", "many"])
@pytest.mark.timeout(20)
def test_whether_a_folder_is_a_trace_is_found_out_without_waiting_or_reading_much(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "d" / "zarr.json"
    root.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(root)
    elif kind == "much":
        root.write_text('{"attributes": {"format": "stratoscope-trace", "x": "' + "a" * 2**25 + '"}}')
    else:
        root.write_text('{"attributes": {"format": "stratoscope-trace", "x": [' + "[]," * 10**6 + "0]}}")
    tracemalloc.start()
    try:
        assert not place.is_trace(root.parent)
        place.refuse_inside(root.parent / "x.png")
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()
    with pytest.raises(TraceError, match="not a trace"):
        writer(root.parent, overwrite=True)


def test_a_damaged_trace_is_one_still_so_that_it_can_be_overwritten(tmp_path: Path) -> None:
    root = record(tmp_path / "t") / "zarr.json"
    root.write_text(root.read_text().replace('"attributes": {', '"attributes": {"state": 3, ', 1))
    with pytest.raises(TraceError, match="twice"):
        open_trace(tmp_path / "t")
    record(tmp_path / "t", overwrite=True)
    open_trace(tmp_path / "t").load()


def test_a_stranger_in_the_place_of_a_waiting_recording_stays_there_and_is_named(tmp_path: Path) -> None:
    record(tmp_path / "t")
    (tmp_path / ".t.recording").mkdir()
    (tmp_path / ".t.recording" / "thesis.tex").write_text("years of work")
    for _ in range(2):
        with pytest.raises(TraceError, match=r"\.t\.recording.*not removed"):
            writer(tmp_path / "t", overwrite=True)
        assert {path.name for path in tmp_path.iterdir()} == {"t", ".t.recording"}
    assert (tmp_path / ".t.recording" / "thesis.tex").exists()
    (tmp_path / ".t.recording").rename(tmp_path / "mine")
    record(tmp_path / "t", overwrite=True)
