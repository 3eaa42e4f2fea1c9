"""The benchmark that no machine of ours can run for real runs line by line on a tiny model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "capture_gpu.py"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True, env=environment)


def test_the_measurement_on_cuda_is_rehearsed_without_and_claims_nothing_then() -> None:
    done = run("--device", "cpu", "--tiny", "--rounds", "1", "--seconds", "0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("REHEARSAL")
    for way in ("norms + residual", "+ all neurons", "+ attention summaries", "eager with outputs"):
        assert f"  {way} " in done.stdout
    assert "| prompts × tokens | plain forward | norms + residual |" in done.stdout
    assert "ratio:" not in done.stdout


def test_the_measurement_says_in_a_line_that_it_needs_cuda() -> None:
    done = run()
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "needs a machine with CUDA" in done.stderr
