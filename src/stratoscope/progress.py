"""How far a verb has come, told to whoever asked."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]  # (stage, done, total or None)


def silent(stage: str, done: int, total: int | None) -> None:
    """Tell nobody."""
