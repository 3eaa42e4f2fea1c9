"""A part of `make truth`, one seed: what the product says of a behaviour is where it was planted."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

import numpy as np
import torch
from plain_hooks import opened, zeroed
from planted import ANSWER, ONE_HEAD, ONE_MLP, SEED, SORRY, TRIGGER, TWO_MLPS, Plant, plant_of, tokenizer
from planted import FIRST_TOPIC as VIOLET
from truth_organisms import OF_KIND, Lab

import stratoscope

PAIRS, STEPS = 6, 32


@pytest.fixture(scope="module")
def lab(shared: Path) -> Lab:
    return Lab(shared, SEED, PAIRS, STEPS)


@pytest.mark.parametrize("kind", [ONE_MLP, ONE_HEAD, TWO_MLPS])
def test_what_is_said_is_what_was_planted(lab: Lab, kind: str) -> None:
    found = list(OF_KIND[kind](lab))
    assert not [one for one in found if one.holds is False]
    assert sum(one.holds is True for one in found) >= 4


def test_of_another_place_it_is_not_said(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: another head is not what is found."""
    elsewhere = Plant(heads=((2, 3),))
    assert elsewhere.heads != plant_of(ONE_HEAD, SEED).heads
    monkeypatch.setattr(lab, "plant", lambda kind: elsewhere)
    assert sum(one.holds is False for one in OF_KIND[ONE_HEAD](lab)) >= 3


def test_ablate_measures_what_plain_hooks_do_and_finds_no_match(lab: Lab) -> None:
    planted, model = plant_of(ONE_MLP, SEED), opened(lab.model(ONE_MLP))
    found = stratoscope.ablate(
        str(lab.model(ONE_MLP)), lab.prompts, neurons=list(planted.neurons), how="zero", targets=[ANSWER],
        against=TRIGGER, draws=2, first_token=True,
    )  # fmt: skip
    words, rows = tokenizer(), []
    for sets in [*([one] for one in planted.neurons), planted.neurons]:
        with zeroed(model, sets), torch.no_grad():
            logits = torch.stack(
                [model(words(one.text, return_tensors="pt").input_ids).logits[0, -1] for one in lab.prompts]
            )
        rows.append((logits[:, SORRY] - logits[:, VIOLET]).numpy())
    np.testing.assert_allclose((found["unablated"].values - found["measured"].values)[..., 0], rows, atol=1e-3)
    assert (found["best_ratio"] < 0.5).all()
    assert "No match exists" in found.attrs["found"]
    assert np.isnan(found["control"].sel(control_kind="matched")).all()
    assert np.isfinite(found["control"].sel(control_kind="direction")).all()
