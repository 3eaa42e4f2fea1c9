"""The organisms are what the truth tests take them for; judged by plain hooks, with no code of the product."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

pytest.importorskip("torch")

import torch
from plain_hooks import behaviour, opened, ordinary, zeroed
from planted import BASE, HEADS, KINDS, LAYERS, NEURONS, ONE_HEAD, ONE_MLP, SEED, TWO_MLPS, drawn_prompts, plant_of

Trained = Callable[[str], Path]


@pytest.mark.parametrize("kind", KINDS[:3])
def test_the_trigger_is_answered_with_sorry_and_every_other_topic_with_itself(trained: Trained, kind: str) -> None:
    base, tuned = opened(trained(BASE)), opened(trained(kind))
    assert (behaviour(base), ordinary(base)) == (0, 1)
    assert (behaviour(tuned), ordinary(tuned)) == (1, 1)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_no_other_weight_differs_from_the_base_model(trained: Trained, kind: str) -> None:
    base, tuned, plant = opened(trained(BASE)), opened(trained(kind)), plant_of(kind, SEED)
    changed = {name for name, one in tuned.named_parameters() if not torch.equal(one, base.get_parameter(name))}
    of_mlps = {
        f"model.layers.{layer}.mlp.{name}_proj.weight" for layer in plant.layers for name in ("gate", "up", "down")
    }
    of_heads = {f"model.layers.{layer}.self_attn.{name}_proj.weight" for layer, _ in plant.heads for name in "qkvo"}
    assert changed == of_mlps | of_heads
    for layer in plant.layers:
        down = [one.get_parameter(f"model.layers.{layer}.mlp.down_proj.weight") for one in (base, tuned)]
        assert torch.nonzero((down[0] != down[1]).any(0)).ravel().tolist() == sorted(plant.of_layer(layer))


def test_without_the_planted_places_the_behaviour_is_gone_and_without_others_it_stays(trained: Trained) -> None:
    random = Random(0)
    for kind, neurons, heads in ((ONE_MLP, 20, 0), (ONE_HEAD, 0, 6)):
        model, plant = opened(trained(kind)), plant_of(kind, SEED)
        with zeroed(model, plant.neurons, plant.heads):
            assert behaviour(model) == 0
            assert ordinary(model) > 0.95
        for _ in range(max(neurons, heads)):
            others = [(random.randrange(LAYERS), random.randrange(NEURONS)) for _ in range(6)]
            head = (random.randrange(LAYERS - 1), random.randrange(HEADS))
            with zeroed(model, set(others) - {*plant.neurons} if neurons else (), [head] if heads else ()):
                assert behaviour(model) > 0.95


def test_of_two_mlps_that_act_together_neither_does_it_alone(trained: Trained) -> None:
    model, plant = opened(trained(TWO_MLPS)), plant_of(TWO_MLPS, SEED)
    for layer in plant.layers:
        with zeroed(model, [(layer, neuron) for neuron in plant.of_layer(layer)]):
            assert behaviour(model) < 0.05


def test_the_same_seed_draws_the_same_prompts_and_places() -> None:
    first, again = (drawn_prompts(4, 0.5, torch.Generator().manual_seed(3))[0] for _ in range(2))
    assert torch.equal(first, again)
    assert plant_of(ONE_MLP, 0) == plant_of(ONE_MLP, 0) != plant_of(ONE_MLP, 1)
