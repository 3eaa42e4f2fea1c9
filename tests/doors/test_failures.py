"""What happens when the world fails: a full disk, no permission, no memory, Ctrl-C, a fault of our own."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import stratoscope
from signals import heed_signals
from stratoscope.doors import failures
from stratoscope.doors import progress as progressing
from stratoscope.doors.cli import app
from stratoscope.errors import CaptureError

Refuse = Callable[..., str]
CAPTURE = ("capture", "m", "--prompts", "p.txt", "-o", "run.trace")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make `capture` raise, in place of the real one, which needs a model."""

    def replace(error: BaseException) -> None:
        def capture(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setitem(vars(stratoscope), "capture", capture)
        Path("p.txt").write_text("Hello\n")

    return replace


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "run.trace/x"),
            ["run.trace/x", "No space", "Free some disk"],
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/root/x"),
            ["/root/x", "Permission denied", "Choose a place"],
        ),
        (MemoryError(), ["out of memory", "--batch-size"]),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), ["out of memory", "--batch-size"]),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), ["torch", "stratoscope[capture]"]),
        (
            CaptureError("is not finite", where="prompt a", fix="Use float32."),
            ["prompt a: is not finite. Use float32."],
        ),
        (ZeroDivisionError("division by zero"), ["ZeroDivisionError", "STRATOSCOPE_DEBUG=1"]),
    ],
)
def test_a_failure_is_one_line_with_the_next_step(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: Callable[[BaseException], None],
    error: BaseException,
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    failing(error)
    result = CliRunner().invoke(app, CAPTURE)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


def test_debug_shows_where_a_fault_of_ours_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: Callable[[BaseException], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STRATOSCOPE_DEBUG", "1")
    failing(ZeroDivisionError("division by zero"))
    assert isinstance(CliRunner().invoke(app, CAPTURE).exception, ZeroDivisionError)


def test_ctrl_c_names_the_command_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: Callable[[BaseException], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stratoscope", *CAPTURE, "--overwrite"])
    failing(KeyboardInterrupt())
    Path("run.trace").mkdir()  # as a recording leaves it
    begun = {"attributes": {"format": "stratoscope-trace", "state": "recording"}}
    Path("run.trace", "zarr.json").write_text(json.dumps(begun))
    result = CliRunner().invoke(app, [*CAPTURE, "--overwrite"])
    assert result.exit_code == 130
    assert result.stderr.endswith("stratoscope capture m --prompts p.txt -o run.trace --resume\n")


def test_ctrl_c_in_a_fit_names_the_command_that_goes_on_where_something_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(**asked: object) -> None:
        raise KeyboardInterrupt

    fit = ["fit-lens", "m", "--prompts", "p.txt", "-o", "m.lens"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(vars(stratoscope), "fit_lens", stopped)
    monkeypatch.setattr(sys, "argv", ["stratoscope", *fit])
    assert "--resume" not in CliRunner().invoke(app, fit).stderr
    Path("m.lens.unfinished").touch()
    result = CliRunner().invoke(app, fit)
    assert result.exit_code == 130
    assert "m.lens.unfinished keeps" in result.stderr
    assert result.stderr.endswith("stratoscope fit-lens m --prompts p.txt -o m.lens --resume\n")


def test_ctrl_c_before_anything_was_recorded_promises_no_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: Callable[[BaseException], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    failing(KeyboardInterrupt())
    result = CliRunner().invoke(app, CAPTURE)
    assert result.exit_code == 130
    assert "--resume" not in result.stderr


def test_resuming_where_nothing_was_recorded_says_that_it_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: Callable[[BaseException], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    failing(CaptureError("stops here"))
    said, error = CliRunner().invoke(app, [*CAPTURE, "--resume"]).stderr.splitlines()
    assert said == "note: nothing was recorded in run.trace before, so it begins anew, with what is asked now."
    assert error == "error: stops here"


def _stratoscope(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "stratoscope", *(str(one) for one in arguments)]


def _small_files_only() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


@pytest.mark.parametrize(
    "command",
    [
        ("heatmap", "TRACE", "-o", "out.png"),
        ("engagement", "TRACE", "-o", "out.svg"),
        ("peaks3d", "TRACE", "-o", "out.html"),
        ("export", "TRACE", "--prompt", "0", "--csv", "out.csv"),
        ("simulate", "-o", "out.trace"),
        ("import", "big.csv", "-o", "out.trace"),
    ],
    ids=lambda command: command[0],
)
def test_no_room_to_write_leaves_nothing_that_looks_whole(
    tmp_path: Path, trace: Path, command: tuple[str, ...]
) -> None:
    rows = "".join(f"{token},a{token},{layer},{layer},{token}.5\n" for token in range(400) for layer in range(32))
    (tmp_path / "big.csv").write_text("Token_Pos,Token,Layer,Neuron_ID,Activation_Norm\n" + rows)
    arguments = [str(trace) if one == "TRACE" else one for one in command]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        _stratoscope(*arguments),
        cwd=tmp_path,
        env=environment,
        preexec_fn=_small_files_only,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    *progress, message = done.stderr.splitlines()
    assert message.startswith("error: ")
    assert "File too large" in message
    assert not [line for line in progress if not line.startswith("simulating")], done.stderr
    out = tmp_path / command[-1]
    if out.exists():  # a trace may keep the prompts it has, but must say that it is not complete
        assert stratoscope.info(out)["state"] == "recording"


def test_ctrl_c_in_a_real_process_is_one_line(tmp_path: Path) -> None:
    out = tmp_path / "out.trace"
    process = subprocess.Popen(
        _stratoscope("simulate", "-o", out, "--prompts", "20000", "--tokens", "64"),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()):
        assert time.monotonic() < deadline, "it never began"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == failures.INTERRUPTED, stderr
    assert stderr.splitlines()[-1].startswith("error: interrupted")
    assert "Traceback" not in stderr
    if out.exists():
        assert stratoscope.info(out)["state"] == "recording"


def test_a_closed_pipe_is_no_error(trace: Path) -> None:
    reader = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    reader.wait()
    done = subprocess.run(_stratoscope("info", trace), stdout=reader.stdin, stderr=subprocess.PIPE, text=True)
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


def test_progress_is_silent_where_nobody_waits(capsys: pytest.CaptureFixture[str]) -> None:
    with progressing.progress() as show:
        show("recording", 1, 2)
        show("recording", 2, 2)
    assert capsys.readouterr() == ("", "")


def test_progress_tells_now_and_then_where_stderr_is_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 2.0, 2.5, 3.0, 9.0, 9.1])
    monkeypatch.setattr(progressing.time, "monotonic", lambda: next(clock))
    with progressing.progress() as show:
        show("loading the model", 0, None)
        show("recording", 0, 9)
        show("recording", 1, 9)
        show("recording", 5, 9)
        show("recording", 9, 9)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["loading the model", "recording 0/9", "recording 5/9", "recording 9/9"]


def test_progress_of_a_long_stage_says_how_long_it_will_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 2.0, 10.0, 62.0, 122.0])
    monkeypatch.setattr(progressing.time, "monotonic", lambda: next(clock))
    with progressing.progress() as show:
        for done in (5, 6, 11, 25):
            show("fitting", done, 25)
    said = ["fitting 5/25", "fitting 6/25", "fitting 11/25, about 2 min 20 s left", "fitting 25/25"]
    assert capsys.readouterr().err.splitlines() == said


def test_a_failure_cannot_smuggle_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        failures.fail("a\x1b[2J\u2028b\n  c")
    assert capsys.readouterr().err == "error: a\\u2028b c\n"
