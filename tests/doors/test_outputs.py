"""Where a picture goes when nobody says, and what is told of it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import stratoscope
from stratoscope.doors import outputs
from stratoscope.doors.cli import app
from stratoscope.errors import InputError

Refuse = Callable[..., str]  # the fixture of conftest.py

GOOD = "Token_Pos,Token,Layer,Neuron_ID,Activation_Norm\n0,The,5,17,0.5\n1, cat,5,3,2.25\n"


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.mark.parametrize(
    ("inputs", "name"),
    [
        (["run.trace"], "run"),
        (["run.zarr"], "run"),
        (["v1.2"], "v1.2"),
        (["run.trace/"], "run"),
        (["run.trace/."], "run"),
        (["fire.csv"], "fire"),
        (["fire.csv.gz"], "fire"),
        (["fire.parquet"], "fire"),
        (["fire.csv", "deeper/water.csv"], "fire-water"),
        (["deeper/water.csv", "fire.csv"], "deeper/water-fire"),
        (["fire.csv", "fire.csv.gz", "fire.parquet"], "fire-and-2-more"),
    ],
    ids=str,
)
def test_a_picture_stands_beside_its_first_input_and_is_named_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: list[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for one in map(Path, inputs):
        one.parent.mkdir(exist_ok=True)
        one.mkdir() if one.suffix not in (".csv", ".gz", ".parquet") else one.touch()
    assert outputs.picture(None, [*map(Path, inputs)], "heatmap", overwrite=False) == Path(f"{name}-heatmap.png")


def test_the_folder_in_which_one_stands_is_named_beside_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.trace").mkdir()
    monkeypatch.chdir(tmp_path / "run.trace")
    assert outputs.picture(None, [Path()], "peaks3d", ".html", overwrite=False) == tmp_path / "run-peaks3d.html"


@pytest.mark.parametrize("command", ["heatmap", "engagement", "peaks3d"])
def test_without_o_a_picture_says_where_it_is_and_is_not_replaced_unasked(refuse: Refuse, command: str) -> None:
    Path("fire.csv").write_text(GOOD)
    drawn = Path(f"fire-{command}.{'html' if command == 'peaks3d' else 'png'}")
    assert run(command, "fire.csv").stdout == f"{drawn}\n"
    before = drawn.read_bytes()
    drawn.write_text("mine")
    message = refuse(command, "fire.csv")
    assert message == f"error: {drawn}: already exists. Replace it with --overwrite, or name another with -o.\n"
    assert run(command, "fire.csv", "--overwrite").stdout == f"{drawn}\n"
    assert drawn.read_bytes()[:8] == before[:8]


def test_without_o_the_input_that_is_at_fault_is_named_and_no_output(refuse: Refuse) -> None:
    Path("empty").mkdir()
    Path("fire.csv").write_text(GOOD)
    for given in (["nowhere/run.trace"], ["fire.csv", "water.csv"], ["empty"], ["-"], ["/dev/null"]):
        message = refuse("heatmap", *given)
        assert re.match(rf"error: \S*{given[-1]}: ", message), message
        assert "heatmap.png" not in message


def test_a_place_that_cannot_be_written_is_told_before_anything_is_drawn_with_the_way_on(
    refuse: Refuse, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("fire.csv").write_text(GOOD)
    Path("fire-heatmap.png").mkdir()
    assert "fire-heatmap.png: is a folder. Name another with -o." in refuse("heatmap", "fire.csv", "--overwrite")
    inside = shutil.copytree(trace, "run.trace") + "/fire.csv"
    Path(inside).write_text(GOOD)
    assert "is inside a trace. Name another with -o." in refuse("heatmap", inside)
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for anybody but root in a folder of somebody else's
    with pytest.raises(InputError, match="read-only") as caught:
        outputs.picture(None, [Path("fire.csv")], "engagement", overwrite=False)
    assert caught.value.fix == "Name the picture with -o, in a folder that you may write to."


@pytest.mark.parametrize("command", ["heatmap", "engagement", "peaks3d"])
def test_a_picture_of_some_prompts_says_so_unless_they_were_chosen(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setitem(vars(stratoscope), command, lambda **_: None)  # what is told is not of the figure
    out = tmp_path / ("a.html" if command == "peaks3d" else "a.png")
    told = run(command, trace, "-o", out).stderr
    assert "note: 2 of 4 prompts drawn: --all or --prompt ID draws others.\n" in told
    assert ("compare" in told) == (command == "heatmap")
    of_class = run(command, trace, "-o", out, "--class", "critical", "--overwrite").stderr
    assert of_class == "note: 1 of 2 prompts of class critical drawn: --all or --prompt ID draws others.\n"
    all_drawn = [["--profile"], ["--rows", "prompts"]] if command == "heatmap" else []
    for choice in (["--prompt", "0"], ["--all"], *all_drawn):
        assert run(command, trace, "-o", out, *choice, "--overwrite").stderr == ""


def test_a_heatmap_of_two_prompts_tells_the_command_that_draws_their_difference(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(vars(stratoscope), "heatmap", lambda **_: None)
    for name in ("fire c.csv", "b.csv"):
        Path(name).write_text(GOOD.replace("Layer", "lay"))
    columns = ("--columns", "Layer=lay")
    for given in (
        ["fire c.csv", "b.csv", *columns],
        [trace, "--prompt", "3", "--prompt", "0", "--quantity", "resid_norm"],
    ):
        told = run("heatmap", *given, "-o", "a.png", "--overwrite").stderr
        command = shlex.split(told.removeprefix("note: what differs between the two: "))
        assert command[:2] == ["stratoscope", "compare"]
        done = run(*command[1:], "-o", "difference.png", "--overwrite")
        assert done.exit_code == 0, done.output
        assert "difference.png" in done.stdout
    Path("c.csv").write_text(Path("b.csv").read_text())
    assert run("heatmap", "fire c.csv", "b.csv", "c.csv", *columns).stderr == ""
