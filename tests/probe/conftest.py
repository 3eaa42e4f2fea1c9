"""Tiny models that are recorded, patched in memory and recorded again."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TEXTS = [f"{word} and then some other words, number {number}" for number, word in enumerate("abcdefghij")]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(1)


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Any]:
    """`record(model, "a")` gives a trace of it; every neuron is among its peaks."""
    pytest.importorskip("torch")
    from tiny import byte_tokenizer

    from stratoscope import capture

    def run(model: Any, name: str, *, texts: Any = TEXTS, **options: Any) -> Any:
        given = {"record": ("norms", "residual", "peaks", "prompts"), "top_k": 72, "floor": True} | options
        return capture(model, texts, tmp_path / f"{name}.trace", tokenizer=byte_tokenizer(), **given)

    return run
