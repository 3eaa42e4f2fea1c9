"""Running a command as a person does, and what must be true when it is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import stratoscope
from stratoscope import names
from stratoscope.doors.cli import app

Run = Callable[..., Result]
Refuse = Callable[..., str]


def run(*arguments: object) -> Result:
    """A command in this process; stdout and stderr apart."""
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture
def refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Run a command that must fail: exit code, exactly one line on stderr, nothing on stdout, nothing written."""
    monkeypatch.chdir(tmp_path)

    def check(*arguments: object, code: int = 1) -> str:
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        result = run(*arguments)
        assert result.exit_code == code, result.output
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1, result.stderr
        assert "fault in stratoscope" not in result.stderr
        after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.suffix != ".lock"}
        assert {path for path in after if path not in before} == set()
        assert all(after.get(path) == before[path] for path in before if path.is_file())
        return result.stderr

    return check


@pytest.fixture(scope="session")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small complete trace with every record group."""
    path = tmp_path_factory.mktemp("doors") / "small.trace"
    stratoscope.simulate(path, prompts=4, tokens=6, layers=3, record=names.SUMMARIES)
    return path
