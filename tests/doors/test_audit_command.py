"""What `audit` prints, and with which status it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import stratoscope
from stratoscope.doors.cli import app


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["audit", *(str(one) for one in arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("audited")
    stratoscope.simulate(made / "mine.trace", prompts=4, layers=2, d_model=16, d_ff=32, heads=2, record="norms")
    stratoscope.publish(made / "mine.trace", made / "public.trace", level="no-text")
    return made


def test_the_last_line_never_says_that_a_file_is_safe(folder: Path) -> None:
    done = run(folder / "public.trace", "--original", folder / "mine.trace")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "Not found by these attacks."
    assert "safe" not in done.stdout


def test_what_is_found_ends_with_status_three(folder: Path) -> None:
    done = run(folder / "mine.trace", "--level", "no-text")
    assert done.exit_code == 3, done.output
    assert done.stdout.splitlines()[-1].startswith("Found: ")
    told = run(folder / "mine.trace", "--level", "no-text", "--json")
    assert told.exit_code == 3
    found = json.loads(told.stdout)
    assert found["found"] is True
    assert {"kind", "what", "where", "fix"} == set(found["findings"][0])
    assert found["last_line"] == done.stdout.splitlines()[-1]


def test_very_many_findings_of_a_kind_are_not_all_printed(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number}.bin").write_bytes(b"\0")
    done = run(tmp_path)
    assert "… and 30 more" in done.stdout
    assert len(done.stdout.splitlines()) < 60


def test_a_model_needs_the_original(folder: Path) -> None:
    done = run(folder / "public.trace", "--model", "no-such-model")
    assert done.exit_code == 2
    assert "--model: needs the original" in done.stderr
