"""Ctrl-C and SIGTERM at any stage: hooks off, nothing half-written that looks whole, and how to go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from test_sites import hooks_of
from tiny import TEXTS, byte_tokenizer, tiny

from signals import heed_signals
from stratoscope import capture, info, open_trace
from stratoscope.doors.commands.capture import kept
from stratoscope.doors.failures import INTERRUPTED, resumable
from stratoscope.errors import TraceError
from stratoscope.names import NORMS, PEAKS, SUMMARIES

MANY = [f"{text} {number}" for number in range(6) for text in TEXTS]


def run(out: Path, model: Any, **options: Any) -> Any:
    settings = {"record": SUMMARIES, "top_k": 5, "batch_size": 2, **options}
    return capture(model, MANY, out, tokenizer=byte_tokenizer(), **settings)


@pytest.mark.parametrize("forward", range(8))
def test_ctrl_c_inside_any_forward_leaves_no_hook_and_nothing_that_looks_whole(forward: int, tmp_path: Path) -> None:
    model, left = tiny("Llama"), [forward]  # the first forwards find and prove the sites, the others record

    def stop(*_: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    hook = model.model.layers[1].mlp.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "t", model)
    hook.remove()
    assert hooks_of(model) == 0
    assert model.config._attn_implementation == "sdpa"
    if (tmp_path / "t").exists():
        assert open_trace(tmp_path / "t").attrs["state"] == "recording"
    assert {path.name for path in tmp_path.iterdir()} <= {"t"}
    whole = run(tmp_path / "t", model, resume=True)
    assert whole.sizes["prompt"] == len(MANY)
    assert whole.attrs["state"] == "complete"


@pytest.mark.parametrize("stage", ["reading the prompts", "proving the sites"])
def test_ctrl_c_before_the_first_batch_writes_nothing(stage: str, tmp_path: Path) -> None:
    def stop(now: str, *_: Any) -> None:
        if now == stage:
            raise KeyboardInterrupt

    model = tiny("Llama")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "t", model, progress=stop)
    assert hooks_of(model) == 0
    assert list(tmp_path.iterdir()) == []


def stopped_after(commits: int) -> Callable[..., None]:
    """A progress that is Ctrl-C once that many windows are recorded."""
    left = commits

    def stop(stage: str, done: int, total: int | None) -> None:
        nonlocal left
        left -= stage == "recording" and done > 0
        if left < 0:
            raise KeyboardInterrupt

    return stop


def test_the_trace_that_is_overwritten_stays_until_the_new_one_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("stratoscope.recorder.batched._WINDOW_BATCHES", 1)
    monkeypatch.setattr("stratoscope.trace.write.writer.TraceWriter._is_time", lambda _: True)
    model, out = tiny("Llama"), tmp_path / "t"
    run(out, model, top_k=3)
    before = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def is_as_it_was() -> bool:
        return before == {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}

    with pytest.raises(typer.Exit), resumable(lambda: kept(out)):
        run(out, model, overwrite=True, progress=stopped_after(4))
    assert "t is as it was, and the prompts recorded so far are kept beside it" in capsys.readouterr().err
    assert is_as_it_was()
    assert open_trace(tmp_path / ".t.recording").sizes["prompt"] > 0
    with pytest.raises(TraceError, match=r"was to replace this trace was interrupted.*--resume.*--overwrite"):
        run(out, model)
    with pytest.raises(TraceError, match=r"plan\.top_k was 5 and is now 4"):
        run(out, model, top_k=4, resume=True)
    assert is_as_it_was()
    trace = run(out, model, resume=True, verify="full")
    assert trace.attrs["plan"]["top_k"] == 5
    assert trace.sizes["prompt"] == len(MANY)
    assert len(trace.attrs["resumed"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_a_forgotten_record_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    model, left = tiny("Llama"), [18]

    def stop(*_: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    def begun(out: Path) -> None:
        hook = model.model.layers[1].mlp.register_forward_pre_hook(stop)
        with pytest.raises(KeyboardInterrupt):
            run(out, model, record=(NORMS, PEAKS), batch_size=1)
        hook.remove()

    begun(tmp_path / "t")
    same: dict[str, Any] = {"record": (NORMS, PEAKS), "top_k": 5, "batch_size": 1, "resume": True}
    for words, options in (
        ("plan.record was", {"record": SUMMARIES}),
        ("plan.top_k was 5 and is now 6", {"top_k": 6}),
        ("plan.batch_size was 1 and is now 4", {"batch_size": 4}),
        ("plan.chat was False and is now True", {"chat": True}),
    ):
        with pytest.raises(TraceError, match=words):
            capture("no/such-model", MANY, tmp_path / "t", **{**same, **options})
    with pytest.raises(TraceError, match=r"plan\.prompts_sha256"):
        capture("no/such-model", MANY[1:], tmp_path / "t", **same)


def test_an_output_in_a_folder_that_does_not_exist_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"its folder does not exist. Make .*nowhere first"):
        capture("no/such-model", MANY, tmp_path / "nowhere" / "t")
    assert list(tmp_path.iterdir()) == []


# --- a real process -------------------------------------------------------------------------------------------------

SLOW = """
import sys, time
from stratoscope.model import load
from stratoscope.recorder import recording
from stratoscope.doors import cli
slow, original = sys.argv[1], {}
def wait(module, name):
    function = getattr(module, name)
    def slower(*args, **kwargs):
        print("now", flush=True)
        time.sleep(60)
        return function(*args, **kwargs)
    setattr(module, name, slower)
if slow == "loading":
    wait(load, "_load_weights")
if slow == "proving":
    wait(recording, "find_sites")
if slow == "recording":
    window, done = recording.Recording._window, []
    def slower(self, part):
        if done:
            print("now", flush=True)
            time.sleep(60)
        done.append(part)
        return window(self, part)
    recording.Recording._window = slower
sys.argv[:2] = ["stratoscope"]
cli.main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny("Llama").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("stage", ["loading", "proving", "recording"])
def test_a_signal_at_any_stage_is_one_line_and_says_how_to_go_on(
    stage: str, number: signal.Signals, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "p.txt").write_text("\n".join(MANY))
    arguments = ["capture", str(folder), "--prompts", "p.txt", "-o", "run.trace", "--batch-size", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, stage, *arguments, "--device", "cpu"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ},
        preexec_fn=heed_signals,
    )  # fmt: skip
    wait_for(process, lambda: process.stdout is not None and process.stdout.readline() == "now\n")
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, stderr
    assert "Traceback" not in stderr
    last = stderr.splitlines()[-1]
    assert last.startswith("error: interrupted")
    left = {path.name for path in tmp_path.iterdir()} - {"p.txt"}
    if stage != "recording":
        assert left == set()
        assert "--resume" not in last
        return
    assert left == {"run.trace"}
    facts = info(tmp_path / "run.trace")
    assert (facts["state"], facts["prompts"]) == ("recording", 8)
    assert last.endswith("--resume")


def wait_for(process: Any, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
