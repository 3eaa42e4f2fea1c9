"""Nothing is discovered between prompts of one kind, recorded from the real model and divided at random."""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "analysis"))
from truth import CLASSES, PAIRS, null_splits, recorded_means


@pytest.mark.model
def test_random_halves_of_real_prompts_do_not_differ(smollm2: Path) -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as aside:  # what a model took stays with its process
        values = aside.submit(recorded_means, smollm2, 40, least=80, most=140).result()
    assert values.shape == (40, 30, 1536)
    for kind in (CLASSES, PAIRS):
        null = null_splits(values.reshape(len(values), -1), kind, 10, 10, "subsample", 12)
        assert null.holds, (kind, null)
