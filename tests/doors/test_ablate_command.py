"""`stratoscope ablate` on a tiny model: what it prints, what it writes, and what it refuses before any work."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from stratoscope.doors.cli import app

pytestmark = pytest.mark.model
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama, and three prompts."""
    pytest.importorskip("torch")
    from tiny import byte_tokenizer, tiny

    folder = tmp_path_factory.mktemp("ablate")
    tiny("Llama").save_pretrained(folder / "m")
    byte_tokenizer().save_pretrained(folder / "m")
    (folder / "p.txt").write_text("The river is deep.\nNo.\nWhat did the fox say?\n")
    return folder


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(folder)

    def command(*more: Any) -> Result:
        given = ["ablate", "m", "--prompts", "p.txt", "--targets", "a", "--draws", "2", *map(str, more)]
        return CliRunner().invoke(app, given)

    return command


def test_it_prints_a_table_and_what_was_found_and_writes_a_row_for_every_prompt(run: Run) -> None:
    done = run(
        "--neurons", "1:3,2:5", "--heads", "0:2", "--openers", "S", "--against", "b", "-o", "t.csv", "--overwrite"
    )
    assert done.exit_code == 0, done.output
    table, said = done.stdout.split("\n\n")
    lines = table.splitlines()
    assert len(lines) == 1 + 4 * 2  # each of three and all of them, of a target and of an opener
    assert lines[0].split("  ")[0] == "ablated"
    assert "no match" not in table
    assert said.startswith("Setting 3 neurons and heads to the mean over these prompts at all tokens but the first ")
    assert "95 % t interval" in said
    assert "In size that is more than " in said
    assert said.splitlines()[-1] == "t.csv"
    rows = list(csv.DictReader(Path("t.csv").read_text("utf-8").splitlines()))
    assert len(rows) == 4 * 3
    assert {row["ablated"] for row in rows} == {"L1 n3", "L2 n5", "head 2 of L0", "all of them"}
    assert {row["target"] for row in rows} == {"“a” against “b”"}
    assert all(row["measured"] and row["matched"] and row["floor"] for row in rows)


def test_curves_are_drawn_in_both_themes_and_told_step_by_step(run: Run) -> None:
    for theme in ("light", "dark"):
        done = run("--cumulative", "3", "--how", "zero", "-o", f"{theme}.svg", "--theme", theme, "--overwrite")
        assert done.exit_code == 0, done.output
        picture = Path(f"{theme}.svg").read_text("utf-8")
        assert "The 3 strongest, ablated one after the other" in picture
        assert "strongest first" in picture
    tables = done.stdout.split("\n\n")
    steps = tables[1].splitlines()
    assert [line.split()[0] for line in steps] == ["taken", "0", "1", "2", "3"]
    assert "half is gone for good after the " in tables[2]


def test_json_holds_every_number_with_its_dimensions(run: Run) -> None:
    done = run("--heads", "blocks.1.attn.hook_z:3", "--positions", "answer", "--json")
    found = json.loads(done.stdout)
    assert (found["how"], found["positions"], found["written"]) == ("mean", "answer", [])
    measured = found["variables"]["measured"]
    assert measured["dims"] == ["set", "prompt", "target"]
    assert len(measured["values"][0]) == 3
    assert found["found"].startswith("Setting head 3 of L1 to the mean over these prompts at the last token ")


@pytest.mark.parametrize(
    ("more", "said", "code"),
    [
        (["--neurons", "22-394"], "neurons: '22-394' is no neuron", 2),
        (["--neurons", "1:3", "-o", "t.txt"], "t.txt: it is written as .csv, .png, .svg or .pdf", 1),
        (["--neurons", "1:3", "-o", "p.txt/t.csv"], "p.txt/t.csv: ", 1),
        ([], "there is no neuron and no head to ablate", 2),
        (["--neurons", "1:99"], "neuron 1:99: layer 1 has 72 neurons", 1),
    ],
)
def test_a_mistake_is_one_line(run: Run, more: list[str], said: str, code: int) -> None:
    done = run(*more)
    assert (done.exit_code, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
