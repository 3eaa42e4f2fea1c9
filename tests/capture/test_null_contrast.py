"""Nothing is discovered between prompts of one kind, recorded from the real model and divided at random."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "analysis"))
from truth import CLASSES, PAIRS, docstrings, null_splits, recorded_means


@pytest.mark.model
def test_random_halves_of_real_prompts_do_not_differ(smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truth.docstrings", lambda: docstrings(80, 140))
    values = recorded_means(smollm2, 40)
    assert values.shape == (40, 30 * 1536)
    for kind in (CLASSES, PAIRS):
        null = null_splits(values, kind, 10, 10, "subsample", 24)
        assert null.holds, (kind, null)
