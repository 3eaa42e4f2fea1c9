"""Calibration: a sample really ablated, and what it says of models whose answer is known, linear or saturated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from tiny import byte_tokenizer, tiny

from stratoscope import capture, info, merge
from stratoscope.errors import UsageError
from stratoscope.model.head import Head
from stratoscope.model.search.find import find_sites
from stratoscope.progress import silent
from stratoscope.recorder.effects.all_prompts import AllPrompts
from stratoscope.recorder.effects.asked import EffectSettings
from stratoscope.recorder.effects.baseline import Baseline
from stratoscope.recorder.effects.calibration import Calibrator
from stratoscope.recorder.input.batches import GivenTokens, make_batch
from stratoscope.recorder.input.grouping import Batching
from stratoscope.recorder.targets.batch import BatchTargets
from stratoscope.recorder.targets.directions import Directions
from stratoscope.recorder.targets.tokens import Target
from stratoscope.trace.calibration import KINDS, Calibration, Samples
from stratoscope.trace.info.facts import info_text

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
    prompts = AllPrompts(
        names=[f"p{number}" for number in range(len(PROMPTS))],
        lengths=[len(prompt.ids) for prompt in PROMPTS],
        encoded=lambda number: PROMPTS[number],  # type: ignore[arg-type, return-value]
        batch=lambda some: make_batch([PROMPTS[one] for one in some], pad_id=0, padding_side="left", device=device),
        batches=[],
        batching=Batching(4),
    )
    asked = EffectSettings(steps=steps, calibration=items)
    return Calibrator(model, sites, targets, prompts, asked, Baseline()).measure(silent)


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


def test_direct_contributions_are_those_of_what_is_written_at_the_answer_position(of_llama: dict[str, Any]) -> None:
    model, samples = tiny("Llama"), Samples.from_receipt({"calibration": of_llama})
    known = np.isfinite(samples.direct[0])
    last = [len(PROMPTS[int(name[1:])].ids) - 1 for name in samples.prompt]
    np.testing.assert_array_equal(known, samples.position == last)
    assert {samples.kind[number] for number in np.flatnonzero(known)} == {*KINDS}
    for number in np.flatnonzero(known):
        ids = torch.from_numpy(PROMPTS[int(samples.prompt[number][1:])].ids.astype(np.int64))[None]
        kind, layer, index = samples.kind[number], int(samples.layer[number]), int(samples.index[number])
        block = model.model.layers[layer]
        module = block.mlp.down_proj if kind in ("neuron", "mlp") else block.self_attn.o_proj
        given, x = at_last_token(model, module, ids)
        columns = columns_of(kind, index)
        write = module.weight[:, columns] @ given[columns]
        scale = torch.rsqrt(x.square().mean() + model.model.norm.variance_epsilon)
        for target, one in enumerate(TARGETS):
            rows = model.lm_head.weight
            along = (rows[one.token_id] - rows[one.against_id]) * model.model.norm.weight
            assert samples.direct[target][number] == pytest.approx((along @ write * scale).item(), rel=1e-4, abs=1e-6)


def columns_of(kind: str, index: int) -> slice:
    return {"neuron": slice(index, index + 1), "head": slice(8 * index, 8 * index + 8)}.get(kind, slice(None))


def at_last_token(model: Any, module: Any, ids: torch.Tensor) -> list[torch.Tensor]:
    """What a linear map and the final norm read."""
    seen: list[torch.Tensor] = []
    modules = module, model.model.norm
    hooks = [one.register_forward_pre_hook(lambda _, args: seen.append(args[0][0, -1])) for one in modules]
    with torch.no_grad():
        model(input_ids=ids)
    for hook in hooks:
        hook.remove()
    return seen


@contextmanager
def zeroed(model: Any, kind: str, place: tuple[int, int, int] | None) -> Iterator[None]:
    """A hook of torch on the input of one linear map."""
    if place is None:
        yield
        return
    position, layer, index = place
    block = model.model.layers[layer]
    module = block.mlp.down_proj if kind in ("neuron", "mlp") else block.self_attn.o_proj
    columns = columns_of(kind, index)

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


# --- with a recording -------------------------------------------------------------------------------------------------

TEXTS = [f"{number} rivers are {'very ' * (number % 3)}deep." for number in range(6)]
RECORDED: dict[str, Any] = {"record": ("effects",), "calibration": 8, "batch_size": 1, "top_k": 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("whole") / "whole.trace"
    return capture(tiny("Llama"), TEXTS, out, tokenizer=byte_tokenizer(), **RECORDED)


def test_every_part_measures_what_the_whole_does_and_merge_keeps_it(whole: Any, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.trace" for number in (1, 2)]
    for number, path in enumerate(paths, 1):
        capture(tiny("Llama"), TEXTS, path, tokenizer=byte_tokenizer(), part=(number, 2), **RECORDED)
    merged = merge(paths, tmp_path / "merged.trace")
    assert merged.attrs["receipt"]["calibration"] == whole.attrs["receipt"]["calibration"]
    assert not any("calibration" in part["receipt"] for part in merged.attrs["merged"])


def test_a_recording_that_goes_on_keeps_what_was_measured(whole: Any, tmp_path: Path) -> None:
    stages: list[str] = []

    def stop(stage: str, done: int, total: int | None) -> None:
        stages.append(stage)
        if stage == "recording" and done >= 5:
            raise KeyboardInterrupt

    again: dict[str, Any] = {"tokenizer": byte_tokenizer(), **RECORDED}
    with pytest.raises(KeyboardInterrupt):
        capture(tiny("Llama"), TEXTS, tmp_path / "t.trace", progress=stop, **again)
    measuring = stages.count("calibrating total effects")
    assert measuring > 1
    stages.clear()
    trace = capture(
        tiny("Llama"), TEXTS, tmp_path / "t.trace", resume=True, progress=lambda *one: stages.append(one[0]), **again
    )
    assert "calibrating total effects" not in stages
    assert trace.attrs["receipt"]["calibration"] == whole.attrs["receipt"]["calibration"]


def test_without_a_sample_everything_is_called_not_calibrated(tmp_path: Path) -> None:
    asked = {**RECORDED, "calibration": 0}
    trace = capture(tiny("Llama"), TEXTS[:2], tmp_path / "t.trace", tokenizer=byte_tokenizer(), **asked)
    assert "calibration" not in trace.attrs["receipt"]
    assert "Not calibrated: nothing was ablated." in info_text(info(trace))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"record": ("norms",), "calibration": 8}, "no total effects are recorded"),
        ({"record": ("effects",), "calibration": -1}, "calibration"),
        ({"record": ("effects",), "calibration": 513}, "too many"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(asked: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        capture("no model", "no-file.jsonl", tmp_path / "t.trace", **asked)
