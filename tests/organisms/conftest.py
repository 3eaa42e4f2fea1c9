"""Organisms are trained once per run of the tests, whichever process first asks for one."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def trained(shared: Path) -> Callable[[str], Path]:
    """`trained(ONE_HEAD)`: the folder of that organism."""
    pytest.importorskip("torch")
    from planted import SEED, organism

    return lambda kind: organism(shared, kind, SEED)
