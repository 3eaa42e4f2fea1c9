"""The command `compare`: what it prints, writes, and refuses."""

from __future__ import annotations

import json
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
