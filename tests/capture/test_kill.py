"""Killed at any moment, a recording loses nothing that was committed, and no command what was there before."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import kill_commands
import pytest
from kills import CONFIGURATIONS, PHASES, kill_all, table

from stratoscope.recorder import batched

KILLS = 15
CHOSEN = ("every group", "sampled answers", "long prompts")  # `make torture` kills recordings of all of them


def test_fifteen_kills_lose_nothing_and_change_nothing(tmp_path: Path) -> None:
    killers = kill_all(tmp_path, KILLS, configurations=[one for one in CONFIGURATIONS if one.name in CHOSEN])
    fell, resumed = sum((killer.fell for killer in killers), Counter[int]()), sum(killer.resumed for killer in killers)
    assert fell.total() == KILLS
    assert resumed >= KILLS // 6, f"too few kills fell into a recording\n{table(killers)}"
    assert len(fell) >= len(PHASES) // 2, f"the kills were not spread\n{table(killers)}"


def test_five_kills_of_other_commands_leave_the_old_output_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batched, "_WINDOW_BATCHES", 4)  # the script makes it smaller; what it was comes back
    kills = {"import": 2, "export": 1, "merge": 1, "heatmap": 1}  # `make torture` kills all that write
    assert kill_commands.killed(kill_commands.kill_all(tmp_path, kills).values()) == 5
