"""`stratoscope capture` in a process of its own, on a tiny model: its result, its refusals, going on after Ctrl-C."""

from __future__ import annotations

import gzip
import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import stratoscope
from stratoscope.doors.cli import app
from stratoscope.errors import InputError

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with a context of 96 tokens and one token for each byte."""
    pytest.importorskip("torch")
    from tiny import byte_tokenizer, tiny

    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny("Llama").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "stratoscope", *(str(one) for one in arguments)]


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=folder, capture_output=True, text=True)


def only_error(stderr: str) -> str:
    """The one line that says what is wrong; the others may only say how far the recording was."""
    *before, last = stderr.splitlines()
    assert last.startswith("error: "), stderr
    assert not [line for line in before if "rror" in line or "arning" in line or line.startswith(" ")], stderr
    return last


def test_a_recording_prints_its_path_and_nothing_else(model: Path, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("One sheep\nTwo sheep\n")
    done = run(tmp_path, "capture", model, "--prompts", "p.txt", "-o", "run.trace", "--record", "norms,attention")
    assert (done.returncode, done.stdout) == (0, "run.trace\n"), done.stderr
    facts = stratoscope.info(tmp_path / "run.trace")
    assert (facts["state"], facts["prompts"], set(facts["quantities"])) == ("complete", 2, {"norms", "attention"})


def test_parts_are_recorded_and_merged_from_the_command_line(model: Path, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("".join(f"Sheep number {number}\n" for number in range(12)))
    arguments = ("capture", model, "--prompts", "p.txt", "--record", "norms,neurons", "--batch-size", 1)
    assert run(tmp_path, *arguments, "-o", "whole").returncode == 0
    for number in (1, 2, 3):
        done = run(tmp_path, *arguments, "--part", f"{number}/3", "-o", number)
        assert (done.returncode, done.stdout) == (0, f"{number}\n"), done.stderr
    torn = run(tmp_path, "merge", 1, 3, "-o", "merged")
    assert (torn.returncode, torn.stdout) == (1, "")
    assert "part 2 of 3 is missing" in only_error(torn.stderr)
    done = run(tmp_path, "merge", 3, 1, 2, "-o", "merged")
    assert (done.returncode, done.stdout) == (0, "merged\n"), done.stderr
    for chunk in (tmp_path / "whole").rglob("c.*"):
        assert chunk.read_bytes() == (tmp_path / "merged" / chunk.relative_to(tmp_path / "whole")).read_bytes()
    again = run(tmp_path, *arguments, "--part", "2/3", "-o", 1, "--resume")
    assert "plan.part was [1, 3] and is now [2, 3]" in only_error(again.stderr)


def test_a_prompt_longer_than_the_context_is_named_and_nothing_is_left(model: Path, tmp_path: Path) -> None:
    rows = [{"id": "short", "text": "a"}, {"id": "too-long", "text": "a" * 200}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = run(tmp_path, "capture", model, "--prompts", "p.jsonl", "-o", "run.trace")
    assert done.returncode == 1
    assert done.stdout == ""
    message = only_error(done.stderr)
    assert "too-long" in message
    assert "96" in message
    assert {path.name for path in tmp_path.iterdir()} <= {"p.jsonl", "run.trace.lock"}


@pytest.mark.parametrize(("file", "content"), [("config.json", "{}"), ("model.safetensors", "no weights")])
def test_a_damaged_model_is_refused_in_one_line(model: Path, tmp_path: Path, file: str, content: str) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for original in model.iterdir():
        (damaged / original.name).write_bytes(original.read_bytes())
    (damaged / file).write_text(content)
    (tmp_path / "p.txt").write_text("a\n")
    done = run(tmp_path, "capture", "damaged", "--prompts", "p.txt", "-o", "run.trace")
    assert done.returncode == 1
    assert "damaged" in only_error(done.stderr)
    assert not (tmp_path / "run.trace").exists()


def test_after_ctrl_c_the_printed_command_goes_on_to_the_same_trace(model: Path, tmp_path: Path) -> None:
    prompts = 1500
    (tmp_path / "p.txt").write_text("".join(f"Sheep number {number}\n" for number in range(prompts)))
    arguments = ("capture", model, "--prompts", "p.txt", "-o", "run.trace", "--record", "norms", "--batch-size", 1)
    process = subprocess.Popen(command(*arguments), cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run.trace").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline, "no commit in two minutes"
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    recorded = stratoscope.info(tmp_path / "run.trace")
    assert (recorded["state"], recorded["prompts"] < prompts) == ("recording", True)

    again = shlex.split(only_error(stderr).split("Resume with: ")[1])
    done = run(tmp_path, *again[1:])
    assert done.returncode == 0, done.stderr
    finished = stratoscope.info(tmp_path / "run.trace")
    assert (finished["state"], finished["prompts"], finished["uuid"]) == ("complete", prompts, recorded["uuid"])


def test_any_file_of_the_same_prompts_records_plans_parts_and_resumes_the_same(model: Path, tmp_path: Path) -> None:
    texts = [f"Sheep; number {number}" for number in range(6)]
    rows = [{"text": text, "class": "odd" if number % 2 else "even"} for number, text in enumerate(texts)]
    (tmp_path / "p.json").write_text(json.dumps(rows))
    table = "prompt\tclass\tsource\n" + "".join(f"{row['text']}\t{row['class']}\tx\n" for row in rows)
    (tmp_path / "p.csv.gz").write_bytes(gzip.compress(table.encode("utf-16")))
    shared = ("capture", model, "--record", "norms", "--batch-size", 1, "--generate", 2)
    of_json, of_table = ("--prompts", tmp_path / "p.json"), ("--prompts", tmp_path / "p.csv.gz", "--column", "prompt")
    out, part = tmp_path / "t", tmp_path / "part"

    done = CliRunner().invoke(app, [*map(str, (*shared, *of_table, "-o", out))])
    assert done.exit_code == 0, done.output
    said = done.stderr.splitlines()[0]
    assert said == "note: The prompts are the column 'prompt' of p.csv.gz; not used: 'source'."
    notes = stratoscope.open_trace(out).attrs["notes"]
    assert said.removeprefix("note: ") in [note["text"] for note in notes if note["id"] == "L26"]
    again = CliRunner().invoke(app, [*map(str, (*shared, *of_json, "-o", out, "--resume"))])
    assert (again.exit_code, "note: " in again.stderr) == (0, False), again.output
    planned = CliRunner().invoke(app, [*map(str, (*shared, *of_table, "-o", tmp_path / "no", "--plan", "--json"))])
    assert json.loads(planned.stdout)["prompts"] == 6
    for number, file in ((1, of_json), (2, of_table)):
        one = CliRunner().invoke(app, [*map(str, (*shared, *file, "--part", f"{number}/2", "-o", f"{part}{number}"))])
        assert one.exit_code == 0, one.output
    merged = stratoscope.merge([f"{part}1", f"{part}2"], tmp_path / "merged")
    assert merged["prompt_class"].values.tolist() == [row["class"] for row in rows]

    rows[3]["text"] += "!"
    (tmp_path / "p.json").write_text(json.dumps(rows))
    other = CliRunner().invoke(app, [*map(str, (*shared, *of_json, "-o", out, "--resume"))])
    assert "plan.prompts_sha256" in other.stderr


def test_a_prompts_file_of_another_tool_is_refused_before_the_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps({"instruction": "Sum", "input": "1", "output": "1"}))
    done = CliRunner().invoke(app, ["capture", "no/model", "--prompts", str(tmp_path / "p.jsonl"), "-o", "t"])
    assert done.exit_code == 1
    assert "python -c" in only_error(done.stderr)
    assert done.stderr.startswith(f"error: {tmp_path / 'p.jsonl'}:1: unknown keys 'instruction', 'input' and 'output'")


def test_column_without_a_file_is_refused_in_python(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="column names a column of a file"):
        stratoscope.capture("no/model", ["a"], tmp_path / "t", column="prompt")


def test_routes_of_a_model_are_recorded_and_drawn_in_one_step_and_leave_nothing_else(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["routes", str(model), "Two sheep", "-o", "routes.svg", "--edges", "12"])
    assert (done.exit_code, done.stdout) == (0, "routes.svg\n"), done.stderr
    assert "Routes into" in Path("routes.svg").read_text("utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["routes.svg"]
