"""The command `diff`: its folder, its JSON, its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import stratoscope
from stratoscope.doors.cli import app


@pytest.fixture
def traces(tmp_path: Path) -> tuple[str, str]:
    paths = [tmp_path / "a.trace", tmp_path / "b.trace"]
    for seed, path in enumerate(paths):
        stratoscope.simulate(path, prompts=4, tokens=8, layers=3, d_ff=32, heads=2, seed=seed)
    return str(paths[0]), str(paths[1])


def test_the_result_goes_beside_trace_a_and_is_not_replaced_unasked(traces: tuple[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "a.results" / "diff-b"
    done = CliRunner().invoke(app, ["diff", *traces, "--quantity", "resid_norm", "--layers", "0-1", "--prompt", "0"])
    assert done.exit_code == 0, done.output
    assert (folder / "report.html").exists()
    assert "Neither trace has a noise floor" in done.stdout
    again = CliRunner().invoke(app, ["diff", *traces])
    assert again.exit_code == 1
    assert "already exists" in again.stderr
    told = CliRunner().invoke(app, ["diff", *traces, "--json", "--overwrite"])
    assert json.loads(told.stdout)["kind"] == "diff"


def test_what_cannot_be_done_is_said_before_anything_is_written(traces: tuple[str, str], tmp_path: Path) -> None:
    alone = CliRunner().invoke(app, ["diff", *traces, "--model", "x"])
    assert alone.exit_code == 2
    assert "--claims" in alone.stderr
    bad = tmp_path / "claims.csv"
    bad.write_text("Layer,Neuron_ID,Old_Norm,New_Norm\n0,99,1,2\n")
    refused = CliRunner().invoke(app, ["diff", *traces, "--claims", str(bad)])
    assert refused.exit_code == 1
    assert "line 2: Neuron_ID 99 is beyond the 32 neurons" in refused.stderr
    assert not (tmp_path / "a.results").exists()
