"""`routes` writes what the ending of its file says, of one prompt or of two, and refuses before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import stratoscope
from stratoscope.doors.cli import app


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("routes") / "run.trace"
    stratoscope.simulate(path, prompts=2, layers=3, tokens=8, record="peaks,routes")
    return path


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments])


BOTH = ("--prompt", "critical-1", "--prompt", "neutral-1")


def test_two_prompts_and_their_difference_become_one_page(recorded: Path, tmp_path: Path) -> None:
    done = run("routes", recorded, *BOTH, "--difference", "--edges", 20, "-o", tmp_path / "both.html")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "both.html").read_text("utf-8")
    assert "neutral-1 − critical-1" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")


def test_one_prompt_becomes_the_graph_that_python_writes(recorded: Path, tmp_path: Path) -> None:
    done = run("routes", recorded, "--prompt", "neutral-1", "--edges", 20, "-o", tmp_path / "one.json")
    assert done.exit_code == 0, done.output
    stratoscope.routes(recorded, tmp_path / "python.json", prompt="neutral-1", edges=20)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "python.json").read_bytes()


def test_numbers_of_two_prompts_stand_side_by_side(recorded: Path) -> None:
    told = json.loads(run("routes", recorded, *BOTH, "--edges", 5, "--json").stdout)
    assert [one["summary"]["prompt"] for one in told["graphs"]] == ["critical-1", "neutral-1"]
    alone = json.loads(run("routes", recorded, "--prompt", "critical-1", "--edges", 5, "--json").stdout)
    assert alone["edges"] == told["graphs"][0]["edges"]


@pytest.mark.parametrize(("arguments", "why"), [
    (("--difference",), "a difference is of two prompts"),
    (("-o", "picture.gif"), "is no .png, .svg, .pdf, .html or .json file"),
    ((*BOTH, "-o", "both.json"), "of one prompt"),
])  # fmt: skip
def test_what_cannot_be_written_is_refused(
    recorded: Path, arguments: tuple[str, ...], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("routes", recorded, *arguments)
    assert done.exit_code != 0
    assert why in " ".join((done.stderr or str(done.exception)).split()) or why in str(done.exception)
    assert not [*tmp_path.iterdir()]
