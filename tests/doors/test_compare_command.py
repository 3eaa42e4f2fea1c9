"""The command `compare`: what it prints, writes, and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import stratoscope
from stratoscope.doors.cli import app

CSV = "Token_Pos,Token,Layer,Neuron_ID,Activation_Norm\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["compare", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


def test_it_says_what_differs_and_writes_what_is_asked_for() -> None:
    stratoscope.simulate("run.trace", prompts=4, tokens=8, layers=2, d_ff=48)
    code, said, error = run("run.trace", "--table", "cells.csv", "--peaks-table", "neurons.csv")
    assert (code, error) == (0, "")
    assert said.startswith("MLP output: neutral − critical, token by aligned token\n")
    for words in ("equal tokens compared", "Largest differences", "Is it usual?", "recorded peaks", "tests nothing"):
        assert words in said
    assert said.splitlines()[-3:] == ["run-compare.png", "cells.csv", "neurons.csv"]
    assert all(Path(name).exists() for name in said.splitlines()[-3:])
    code, _, error = run("run.trace")
    assert (code, "--overwrite" in error) == (1, True)
    code, said, _ = run("run.trace", "--json", "-o", "again.svg", "--prompt", "neutral-1", "--prompt", "critical-2")
    told = json.loads(said)
    assert told["summary"]["prompts"] == ["neutral-1", "critical-2"]
    assert told["written"] == ["again.svg"]
    assert told["neurons"][0]["listed_by"] in told["summary"]["called"]


def test_two_classes_are_compared_layer_by_layer() -> None:
    stratoscope.simulate("run.trace", prompts=8, tokens=8, layers=2, record="norms")
    code, said, _ = run("run.trace", "--class", "critical", "--class", "neutral", "-o", "c.png")
    assert code == 0
    assert "stratoscope contrast TRACE --a critical --b neutral" in said
    code, told, _ = run("run.trace", "--class", "critical", "--class", "neutral", "-o", "d.png", "--json")
    assert [one["layer"] for one in json.loads(told)["layers"]] == [0, 1]
    code, _, error = run("run.trace", "--class", "critical", "-o", "e.png")
    assert (code, "Name two: `--class A --class B`" in error) == (2, True)


def test_two_files_of_todays_tools_are_compared(tmp_path: Path) -> None:
    for name, value in (("a", 1.5), ("b", 2.5)):
        Path(f"{name}.csv").write_text(f"{CSV}0,I,3,7,9.0\n1,am,3,7,{value}\n1,am,3,{len(name) + int(value)},1\n")
    code, said, _ = run("a.csv", "b.csv")
    assert code == 0
    assert "a-b-compare.png" in said
    assert "Is it usual" not in said  # there is no other file
    code, _, error = run("a.csv", "-o", "x.png")
    assert (code, "Give two files" in error) == (1, True)


def test_files_without_a_common_layer_are_not_called_without_equal_tokens() -> None:
    for name, layer in (("a", 3), ("b", 53)):
        Path(f"{name}.csv").write_text(f"{CSV}0,I,{layer},7,9.0\n1,am,{layer},7,2.5\n")
    code, _, error = run("a.csv", "b.csv")
    assert (code, "the two have no layer in common. Layers of a: 3; of b: 53." in error) == (1, True)


def test_one_trace_or_file_given_twice_is_not_two() -> None:
    stratoscope.simulate("run.trace", prompts=6, tokens=8, layers=2, record="norms")
    code, _, error = run("run.trace", "run.trace", "--prompt", "neutral-1", "-o", "x.png")
    assert (code, "one prompt is named (neutral-1)" in error) == (2, True)
    shutil.copytree("run.trace", "copy.trace")
    code, said, _ = run("run.trace", "copy.trace", "-o", "x.png")
    assert (code, "The two other minimal pairs have" in said) == (0, True)
    Path("a.csv").write_text(f"{CSV}0,I,3,7,9.0\n1,am,3,7,2.5\n")
    code, _, error = run("a.csv", "../" + Path.cwd().name + "/a.csv", "-o", "y.png")
    assert (code, "a.csv: is given twice" in error) == (2, True)


def test_a_test_is_advised_only_where_there_is_one() -> None:
    stratoscope.simulate("run.trace", prompts=2, tokens=8, layers=2, record="norms")
    classes = ("--class", "critical", "--class", "neutral")
    code, said, _ = run("run.trace", *classes, "-o", "c.png")
    assert (code, said.splitlines()[-2]) == (0, "This describes two classes and tests nothing.")
    for name in ("a", "b"):
        Path(f"{name}.csv").write_text(f"{CSV}0,I,3,7,9.0\n1,am,3,7,{len(said)}\n")
    for more in ((), ("--class", "a", "--class", "b")):
        code, said, _ = run("a.csv", "b.csv", *more, "-o", f"d{len(more)}.png")
        assert (code, "tests nothing." in said, "contrast" in said) == (0, True, False)


def test_classes_without_pairs_have_no_column_of_pairs() -> None:
    for name in ("a", "b"):
        Path(f"{name}.csv").write_text(f"{CSV}0,I,3,7,9.0\n1,am,3,7,{ord(name)}\n")
    _, said, _ = run("a.csv", "b.csv", "--class", "a", "--class", "b", "-o", "d.png")
    heading = next(line for line in said.splitlines() if line.startswith("layer"))
    assert "median b" in heading
    assert "of all" not in heading
