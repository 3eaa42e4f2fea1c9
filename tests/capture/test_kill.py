"""Killed with SIGKILL at any moment, a recording loses nothing that was committed and ends with the same values."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from kills import CONFIGURATIONS, PHASES, kill_all, table

KILLS = 30
CHOSEN = ("every group", "sampled answers", "long prompts")  # `make torture` kills recordings of all of them


def test_thirty_kills_lose_nothing_and_change_nothing(tmp_path: Path) -> None:
    killers = kill_all(tmp_path, KILLS, configurations=[one for one in CONFIGURATIONS if one.name in CHOSEN])
    fell, resumed = sum((killer.fell for killer in killers), Counter[int]()), sum(killer.resumed for killer in killers)
    assert fell.total() == KILLS
    assert resumed >= KILLS // 6, f"too few kills fell into a recording\n{table(killers)}"
    assert len(fell) >= len(PHASES) // 2, f"the kills were not spread\n{table(killers)}"
