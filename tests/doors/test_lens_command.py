"""The command `lens`: of a trace it draws and says what lenses read; of a model it records that first."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import stratoscope
from stratoscope.doors.cli import app


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["lens", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


def test_it_draws_a_trace_and_says_from_which_depth_on_the_answer_leads() -> None:
    stratoscope.simulate("run.trace", prompts=2, tokens=8, layers=4, record="lens", targets=["Sorry"])
    code, said, error = run("run.trace", "-o", "x.svg")
    lines = said.splitlines()
    assert (code, error, lines[-1]) == (0, "", "x.svg")
    assert lines[0].startswith("The model's answer behind token 7")
    assert lines[1].startswith("The Jacobian lens: ")
    assert any(line.startswith("Target “Sorry”") for line in lines)
    code, _, error = run("run.trace", "-o", "x.svg")
    assert (code, "--overwrite" in error) == (1, True)
    code, said, _ = run("run.trace", "--json", "--prompt", "neutral-1", "--token", 6, "--in-cells", "logit")
    told = json.loads(said)
    assert code == 0
    assert (told["prompt"], told["position"], told["lens"], told["written"]) == ("neutral-1", 6, "logit", [])
    assert told["stable_share"] is None
    assert told["sentences"][0].startswith("The model's answer behind token 6")


def test_what_is_printed_is_of_the_columns_that_a_narrow_picture_has() -> None:
    stratoscope.simulate("run.trace", prompts=1, tokens=40, layers=2, record="lens", positions="all")
    code, said, _ = run("run.trace", "-o", "x.svg", "--width", "85mm", "--caption", "file")
    (beside,) = [path for path in Path().glob("x*") if path.suffix != ".svg"]
    cells = re.compile(r"([\d.]+ %) of\s+the ([\d,]+) cells")
    assert code == 0
    assert cells.findall(said) == cells.findall(" ".join(beside.read_text("utf-8").split())) != []


def test_a_model_is_recorded_with_lenses_alone_and_its_trace_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def capture(model: str, prompts: list[str], out: Path, **given: Any) -> None:
        asked.update(given, model=model, prompts=prompts, out=out)
        stratoscope.simulate(out, prompts=1, tokens=6, layers=2, record="lens")

    monkeypatch.setitem(vars(stratoscope), "capture", capture)
    code, said, _ = run(
        "some/model", "A text", "--chat", "--targets", "No|Yes", "--lens", "m.lens", "--positions", "all"
    )
    assert (code, said.splitlines()[-1]) == (0, "model-lens.png")
    assert (asked["model"], asked["record"]) == ("some/model", ["lens"])
    assert asked["prompts"] == [{"id": "“A text”", "text": "A text"}]  # the text stands where a prompt's name does
    assert (asked["targets"], asked["lens"], asked["positions"]) == (("No", "Yes"), Path("m.lens"), "all")
    assert asked["chat"] is True
    run("some/model", "not seen " * 9 + "is the city\nof", "--overwrite")
    assert asked["prompts"][0]["id"] == "“…seen not seen not seen not seen is the city of”"
    assert not asked["out"].exists()


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trace that holds no lenses."""
    folder = tmp_path_factory.mktemp("without")
    stratoscope.simulate(folder / "run.trace", prompts=2, tokens=4, layers=1, record="norms")
    (folder / "made-lens.png").touch()
    return folder


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("run.trace", "Hello"), "a text is recorded of a model, and this is a trace"),
        (("run.trace", "--lens", "m.lens"), "--lens: is an option of a model"),
        (("run.trace",), "capture MODEL --prompts FILE --record lens"),
        (("absent",), "without a text no model is recorded"),
        (("made",), "without a text no model is recorded"),  # not that made-lens.png is there
        (("absent", "A text", "--target", "the"), "Of a model, name it with --targets"),
        (("run.trace", "-o", "x.txt"), "a picture is a .png, .svg or .pdf file"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_what_to_do(
    without: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], what: str
) -> None:
    monkeypatch.chdir(without)
    code, said, error = run(*words)
    assert (code != 0, said) == (True, "")
    assert what in error
    assert error.count("\n") == 1
