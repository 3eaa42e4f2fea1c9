"""The command `routes`: of a trace it draws and tells edges; of a model it records them first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import stratoscope
from stratoscope.doors.cli import app


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["routes", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


def test_it_draws_a_trace_beside_it_and_tells_edges_as_json() -> None:
    stratoscope.simulate("run.trace", prompts=2, tokens=8, layers=2, record="routes,effects")
    assert run("run.trace") == (0, "run-routes.png\n", "")
    assert Path("run-routes.png").exists()
    code, _, error = run("run.trace")
    assert (code, "--overwrite" in error) == (1, True)
    code, said, _ = run("run.trace", "--json", "--edges", 3, "--prompt", "neutral-1", "--token", 5)
    told = json.loads(said)
    assert code == 0
    assert (told["summary"]["prompt"], told["summary"]["token"], told["written"]) == ("neutral-1", 5, [])
    assert sum(row["kind"] == "attention" for row in told["edges"]) == told["summary"]["edges"] == 3
    code, said, _ = run("run.trace", "--json", "--target", 0, "-o", "t.svg")
    assert json.loads(said)["written"] == ["t.svg"]
    assert "Routes towards" in Path("t.svg").read_text("utf-8")


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trace of routes, and one without."""
    folder = tmp_path_factory.mktemp("traces")
    for name, group in (("run", "routes"), ("norms", "norms")):
        stratoscope.simulate(folder / f"{name}.trace", prompts=1, tokens=4, layers=1, record=group)
    return folder


def test_a_still_picture_has_fewer_edges_than_a_page_unless_they_are_asked_for() -> None:
    stratoscope.simulate("run.trace", prompts=1, tokens=12, layers=8, record="routes")
    shown = [
        json.loads(run("run.trace", "--json", *words)[1])["summary"]["edges"]
        for words in (["-o", "a.svg"], ["-o", "a.html"], [], ["-o", "b.svg", "--edges", 70])
    ]
    assert shown == [50, 150, 150, 70]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("run.trace", "Hello"), "a text is recorded of a model, and this is a trace"),
        (("run.trace", "--chat"), "--chat: is an option of a model"),
        (("run.trace", "-o", "x.txt"), "x.txt: is no .png"),
        (("absent",), "does not exist, and without a text no model is recorded"),
        (("run.trace", "--edges", "151"), "--edges: 151 is too large. Give 150 or less."),
        (("norms.trace",), "no routes are recorded in it"),
        (("norms.trace",), "--record routes"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_what_to_do(
    traces: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], what: str
) -> None:
    monkeypatch.chdir(traces)
    code, said, error = run(*words)
    assert code in (1, 2)
    assert said == ""
    assert what in error
    assert error.count("\n") == 1
