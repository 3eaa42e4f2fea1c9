"""Calibration: a sample really ablated, and what it says of models whose answer is known, linear or saturated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from tiny import tiny

from stratoscope.model.head import Head
from stratoscope.model.search.find import find_sites
from stratoscope.recorder.effects.asked import EffectSettings
from stratoscope.recorder.effects.baseline import Baseline
from stratoscope.recorder.effects.calibration import Calibrator, Source
from stratoscope.recorder.input.batches import GivenTokens, make_batch
from stratoscope.recorder.input.grouping import Batching
from stratoscope.recorder.targets.batch import BatchTargets
from stratoscope.recorder.targets.directions import Directions
from stratoscope.recorder.targets.tokens import Target
from stratoscope.trace.calibration import KINDS, Calibration, Samples

TARGETS = (Target("a", 40, "b", 41), Target("c", 42, "b", 41))
PROMPTS = [
    GivenTokens(np.random.default_rng(n).integers(2, 200, n).astype(np.int32), np.full(n, 2, np.int8))
    for n in range(6, 15)
]
ITEMS = 24


def linear() -> Any:
    """One parallel block and no final norm: y is a sum of what its neurons and heads give at the last token."""
    model = tiny("GPTNeoX")
    model.gpt_neox.layers = model.gpt_neox.layers[:1]
    model.config.num_hidden_layers = 1
    model.gpt_neox.final_layer_norm = torch.nn.Identity()
    return model


def saturated() -> Any:
    """Neurons far out where tanh is flat: no gradient says what passes through a later layer."""
    model = tiny("GPT2")
    for block in model.transformer.h:
        block.mlp.act = torch.nn.Tanh()
        block.mlp.c_fc.weight.data *= 40
    return model


def calibrated(model: Any, *, items: int = ITEMS, steps: int = 1) -> dict[str, Any]:
    sites = find_sites(model, torch.arange(2, 14)[None])
    assert isinstance(sites.head, Head)
    targets = BatchTargets(TARGETS, Directions(model, sites.head, 300), lambda _: torch.zeros(0))
    device = torch.device("cpu")
    source = Source(
        count=len(PROMPTS),
        encoded=lambda number: PROMPTS[number],  # type: ignore[arg-type, return-value]
        name="p{}".format,
        make_batch=lambda some: make_batch(some, pad_id=0, padding_side="left", device=device),
        batching=Batching(4),
    )
    return Calibrator(model, sites, targets, source, EffectSettings(steps=steps), Baseline(), items).measure(
        lambda _: None
    )


@pytest.fixture(scope="module")
def of_llama() -> dict[str, Any]:
    return calibrated(tiny("Llama"))


def test_where_a_target_is_linear_first_order_effects_are_what_ablating_gives() -> None:
    found = calibrated(linear())
    rho_and_slope = [[one["spearman"][0], one["slope"][0]] for one in found["agreement"]]
    assert len(rho_and_slope) == len(KINDS) * 2 * len(TARGETS)
    np.testing.assert_allclose(rho_and_slope, 1, atol=1e-4)
    assert {one["sign"][0] for one in found["agreement"]} == {1.0}
    assert Calibration.from_receipt({"calibration": found}).calibrated


def test_where_first_order_is_wrong_nothing_is_called_calibrated() -> None:
    found = Calibration.from_receipt({"calibration": calibrated(saturated())})
    assert [found.mark(kind) for kind in KINDS] == ["not calibrated"] * len(KINDS)


def test_the_statistics_are_those_that_scipy_gives_of_the_stored_samples(of_llama: dict[str, Any]) -> None:
    samples = Samples.from_receipt({"calibration": of_llama})
    for one in of_llama["agreement"]:
        mine = np.array([kind == one["kind"] for kind in samples.kind])
        key = one["baseline"], one["target"]
        x, y = samples.first_order[key][mine], samples.measured[key][mine]
        decided = np.abs(y) > of_llama["floor"]
        assert one["count"] == mine.sum() == ITEMS
        assert one["decided"] == decided.sum()
        assert one["spearman"][0] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
        assert one["slope"][0] == pytest.approx(stats.theilslopes(y, x).slope, abs=1e-12)
        assert one["sign"][0] == (np.sign(x) == np.sign(y))[decided].mean()


def test_the_same_prompts_give_the_same_sample_and_numbers(of_llama: dict[str, Any]) -> None:
    assert calibrated(tiny("Llama")) == of_llama


def test_what_was_ablated_is_what_plain_hooks_measure(of_llama: dict[str, Any]) -> None:
    model, samples = tiny("Llama"), Samples.from_receipt({"calibration": of_llama})
    for kind in KINDS:
        for number in [place for place, one in enumerate(samples.kind) if one == kind][:4]:
            ids = torch.from_numpy(PROMPTS[int(samples.prompt[number][1:])].ids.astype(np.int64))[None]
            place = (int(samples.position[number]), int(samples.layer[number]), int(samples.index[number]))
            for target, one in enumerate(TARGETS):
                y = []
                for where in (None, place):
                    with torch.no_grad(), zeroed(model, kind, where):
                        logits = model(input_ids=ids).logits[0, -1].double()
                    y.append(float(logits[one.token_id] - logits[one.against_id]))
                assert samples.measured["zero", target][number] == pytest.approx(y[0] - y[1], abs=1e-5)


@contextmanager
def zeroed(model: Any, kind: str, place: tuple[int, int, int] | None) -> Iterator[None]:
    """A hook of torch on the input of one linear map."""
    if place is None:
        yield
        return
    position, layer, index = place
    block = model.model.layers[layer]
    module = block.mlp.down_proj if kind in ("neuron", "mlp") else block.self_attn.o_proj
    columns = {"neuron": slice(index, index + 1), "head": slice(8 * index, 8 * index + 8)}.get(kind, slice(None))

    def hook(_: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        other = args[0].clone()
        other[0, position, columns] = 0
        return (other,)

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def test_effects_that_are_integrated_are_calibrated_as_such() -> None:
    """From the recorded baseline; effects from the other one stay those to first order."""
    integrated, first = (_by_place(calibrated(tiny("Llama"), items=8, steps=steps)) for steps in (2, 1))
    both = integrated.keys() & first.keys()
    assert any(integrated[place]["zero"] != first[place]["zero"] for place in both)
    assert all(integrated[place]["mean"] == first[place]["mean"] for place in both)


def _by_place(found: dict[str, Any]) -> dict[tuple[Any, ...], dict[str, float]]:
    """What was drawn to its first-order effect on the first target from each baseline."""
    stored = found["samples"]
    places = zip(*(stored[name] for name in ("kind", "prompt", "position", "layer", "index")), strict=True)
    effects = {one["baseline"]: one["first_order"] for one in stored["effects"] if one["target"] == 0}
    return {place: {how: effects[how][number] for how in effects} for number, place in enumerate(places)}
