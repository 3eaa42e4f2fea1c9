"""What `top` prints: a table for people, JSON and CSV for programs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from typer.testing import CliRunner

import stratoscope
from stratoscope.doors import tables
from stratoscope.doors.cli import app

Refuse = Callable[..., str]  # the fixture of conftest.py

HEADER = "Token_Pos,Token,Layer,Neuron_ID,Activation_Norm\n"
ROWS = "0,Hot,22,5,9\n1,=1+1,22,7,-3\n2,世界,31,12345,1.5\n3,世,31,12345,1.25\n"


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text(HEADER + ROWS, "utf-8")
    return Path("a.csv")


def test_each_row_of_the_table_says_what_python_gets(trace: Path) -> None:
    lines = run("top", trace, "--prompt", "neutral-1", "-n", 3).stdout.splitlines()
    found = stratoscope.top(trace, prompt="neutral-1", n=3)
    assert lines[0].startswith("neutral-1: 3 neurons, strongest first")
    for line, one in zip(lines[2:5], found.itertuples(), strict=True):
        assert line.split()[:4] == [str(one.position), f"·{str(one.token).strip()}", f"L{one.layer}", str(one.neuron)]
        assert f"{one.in_prompts} of 4" in line
        assert all(text in line for text in one.elsewhere)  # type: ignore[attr-defined]
    assert any(line.startswith("[L16] Simulated data") for line in lines)


def test_in_a_terminal_no_line_is_wider_and_no_cell_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.cells import cell_len

    for width in (80, 150):
        monkeypatch.setattr(tables, "terminal_width", lambda width=width: width)
        text = run("top", "a.csv").stdout
        assert max(map(cell_len, text.splitlines())) <= width
        for part in ("2 世界", "12345", "1.5", "=1+1世界[世] (1.25)", "residual coordinates"):
            assert part in text, part


def test_json_is_the_rows_and_what_they_are() -> None:
    told = json.loads(run("top", "a.csv", "--json", "-n", 1).stdout)
    assert (told["strongest_by"], told["axis"]) == ("value", "unknown")
    (row,) = told["neurons"]
    assert (row["token"], row["value"], row["write_norm"], row["of_prompts"]) == ("=1+1", -3.0, None, 1)


def test_a_csv_is_no_formula_and_is_not_replaced_unasked(refuse: Refuse) -> None:
    listed, told = (run("top", "a.csv", *more).stdout for more in ((), ("--csv", "out.csv")))
    assert told.splitlines()[-1] == "out.csv"
    assert told.removesuffix("out.csv\n") in listed, "what the list says of its columns, and no word more"
    assert "residual coordinates" in told
    rows = list(csv.DictReader(Path("out.csv").read_text("utf-8").splitlines()))
    assert [row["token"] for row in rows] == ["'=1+1", "世界"]
    assert rows[1]["elsewhere"] == "Hot=1+1世界[世] (1.25)"
    assert "out.csv: already exists" in refuse("top", "a.csv", "--csv", "out.csv")
    both = run("top", "a.csv", "--csv", "out.csv", "--json", "--overwrite").stdout
    assert len(json.loads(both)["neurons"]) == len(rows), "neither of the two is left out"
    assert json.loads(both)["written"] == ["out.csv"]
    assert "Name it out.csv" in refuse("top", "a.csv", "--csv", "out.txt")
    assert "a.csv" in refuse("top", "a.csv", "--csv", "a.csv", "--overwrite"), "never its own input"
    assert run("top", "a.csv", "--csv", "out.csv", "--overwrite").stdout == told


def test_json_holds_no_number_that_json_does_not_have() -> None:
    found = stratoscope.simulate(prompts=2, layers=2)
    found["peak_value"][:, 0] = np.inf
    found["peak_write"][:, 0] = np.inf
    replaced = mock.patch.object(stratoscope, "top", return_value=stratoscope.top(found))
    with replaced:
        told = run("top", "a.csv", "--json")
    assert told.exit_code == 0
    assert "Infinity" not in told.stdout
    assert None in {one["write_norm"] for one in json.loads(told.stdout)["neurons"]}


def test_it_says_how_many_prompts_were_not_asked(trace: Path) -> None:
    told = "note: 1 of 4 prompts listed: --all or --prompt ID lists others.\n"
    assert run("top", trace, "--json").stderr == told
    assert run("top", trace, "--prompt", "0").stderr == run("top", trace, "--all").stderr == ""


def test_what_is_not_there_is_told_in_one_line(refuse: Refuse, trace: Path) -> None:
    assert "There are: 0-5." in refuse("top", trace, "--token", "9")
    assert "--token-text" in refuse("top", "a.csv", "--token-text", "hto")
    assert "--span: tokens are chosen by" in refuse("top", trace, "--token", "1", "--span", "user", code=2)
