"""A colleague without torch makes, opens, draws and exports a trace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
EVERYTHING = """
import stratoscope as s
s.simulate("a.trace", prompts=4, tokens=8, layers=3, record=("norms", "residual", "peaks", "prompts", "attention"))
dataset = s.open_trace("a.trace")
assert float(dataset["mlp_out_norm"].mean()) > 0
assert s.info("a.trace")
s.heatmap("a.trace", "a.png")
s.engagement("a.trace", "a.svg")
s.peaks3d("a.trace", "a.html")
(file,) = s.export_csv("a.trace", "a.csv", prompt=0)
s.import_csv([file], "b.trace")
s.heatmap(file, "b.pdf")
"""


def without_torch(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-c", f"import no_torch\n{code}"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_everything_but_recording_works_without_torch(tmp_path: Path) -> None:
    done = without_torch(EVERYTHING, tmp_path)
    assert done.returncode == 0, done.stderr
    for file in ("a.png", "a.svg", "a.html", "a.csv", "b.pdf"):
        assert (tmp_path / file).stat().st_size > 0


@pytest.mark.parametrize("command", [("capture", "m", "--prompts", "p.txt", "-o", "a.trace"), ("demo", "-o", "d")])
def test_recording_without_torch_says_what_to_install(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "p.txt").write_text("Hello\n")
    code = f"import sys; sys.argv = {['stratoscope', *command]!r}\nfrom stratoscope.doors.cli import main; main()"
    done = without_torch(code, tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "stratoscope[capture]" in done.stderr
    assert not (tmp_path / "a.trace").exists()
