"""Total effects: gradients against finite differences, sums, baselines, the way from the baseline; nothing is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from every_effect import FirstOrder, first_order
from test_sites import hooks_of
from tiny import tiny
from torch import Tensor
from torch.overrides import TorchFunctionMode

from stratoscope.errors import CaptureError
from stratoscope.model import sites as s
from stratoscope.model.search.find import find_sites
from stratoscope.model.sites import ModelSites
from stratoscope.recorder.effects.baseline import Baseline, MeanPass, written
from stratoscope.recorder.effects.gradients import Gradients, SiteGradient
from stratoscope.recorder.effects.path import PathIntegral
from stratoscope.recorder.effects.strongest import EffectTables
from stratoscope.recorder.input.batches import Batch, GivenTokens, make_batch
from stratoscope.recorder.observe import forward

USER = 2  # index of the span
FAMILIES = ("Llama", "GPT2", "Gemma2", "GPTNeoX", "Qwen2-MoE")
TARGET, AGAINST = 40, 41


def batch_of(*lengths: int) -> Batch:
    prompts = [_prompt(length) for length in lengths]
    return make_batch(prompts, pad_id=0, padding_side="left", device=torch.device("cpu"))


def _prompt(length: int) -> GivenTokens:
    ids = np.random.default_rng(length).integers(2, 200, length).astype(np.int32)
    return GivenTokens(ids, np.full(length, USER, np.int8))


def model_of(family: str, dtype: torch.dtype = torch.float64) -> tuple[Any, ModelSites]:
    """A tiny model whose sites are found in float32, where they can be proved."""
    model = tiny(family)
    sites = find_sites(model, torch.arange(2, 14)[None])
    if any(layer.experts for layer in sites.layers) and dtype == torch.float64:
        model.set_experts_implementation("batched_mm")  # grouped_mm does not take float64
    return model.to(dtype), sites


def values_of(model: Any) -> Callable[[Tensor], Tensor]:
    """Two targets: a logit less another, before a soft-cap, and one less the mean."""
    cap = getattr(model.config, "final_logit_softcapping", None)

    def values(logits: Tensor) -> Tensor:
        logits = logits.double() if cap is None else torch.atanh(logits.double() / cap) * cap
        return torch.stack([logits[:, TARGET] - logits[:, AGAINST], logits[:, TARGET] - logits.mean(-1)], 1)

    return values


class Double(TorchFunctionMode):
    """While open, models of float64 stay in it where their code asks for float32, as norms and softmaxes do."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if args and isinstance(args[0], Tensor) and args[0].dtype == torch.float64:
            if func is Tensor.float:
                return args[0]
            args = tuple(torch.float64 if one is torch.float32 else one for one in args)
            kwargs = {name: torch.float64 if one is torch.float32 else one for name, one in kwargs.items()}
        return func(*args, **kwargs)


@contextmanager
def changed(model: Any, path: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """A plain hook on the input of a module."""

    def before(_: Any, args: tuple[Tensor, ...]) -> Any:
        return (change(args[0]), *args[1:])

    handle = model.get_submodule(path).register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


def y_where(model: Any, batch: Batch, path: str, place: tuple[int, int, int], by: float) -> Tensor:
    """The targets where one number of a module's input is larger by so much."""

    def change(tensor: Tensor) -> Tensor:
        other = tensor.clone().view(*batch.input_ids.shape, -1)
        other[place] += by
        return other.view_as(tensor)

    with changed(model, path, change), Double():
        return values_of(model)(forward(model, batch).logits[:, -1])


@pytest.fixture(scope="module")
def found() -> dict[str, tuple[Any, ModelSites, Batch, FirstOrder]]:
    result = {}
    for family in FAMILIES:
        model, sites = model_of(family)
        batch = batch_of(9)
        with Double():
            result[family] = model, sites, batch, first_order(model, sites, batch, values_of(model))
    return result


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_neurons_and_heads_are_those_of_central_differences(found: Any, family: str) -> None:
    model, sites, batch, effects = found[family]
    draw = np.random.default_rng(0)
    for layer, block in enumerate(sites.layers):
        places = [] if block.neurons is None else [(block.neurons.module, effects.gradients)]
        for path, gradients in [*places, (block.attn_out, effects.head_gradients)]:
            known = gradients[layer]
            dense = model.get_submodule(path).weight.numel() // sites.d_model
            for _ in range(2):
                token, number = int(draw.integers(9)), int(draw.integers(dense))
                up, down = (y_where(model, batch, path, (0, token, number), by) for by in (1e-4, -1e-4))
                expected = ((up - down) / 2e-4)[0]
                got = known[:, token, known.shape[2] - dense + number].double()
                torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("implementation", ["batched_mm", "grouped_mm"])
def test_gradients_of_chosen_experts_are_those_of_central_differences(implementation: str) -> None:
    model, sites = model_of("Mixtral", torch.float32 if implementation == "grouped_mm" else torch.float64)
    model.set_experts_implementation(implementation)
    batch, values = batch_of(9), values_of(model)
    with Double():
        effects = first_order(model, sites, batch, values)
    step = 1e-2 if implementation == "grouped_mm" else 1e-4
    for layer, block in enumerate(sites.layers):
        experts = block.experts
        module = model.get_submodule(experts.module)
        chosen = torch.isfinite(effects.gradients[layer][0]).reshape(9, experts.count, experts.width)
        assert chosen.all(2).sum(1).eq(experts.choices).all()
        token = 8 - layer  # of its first chosen expert, one neuron's column times a step is added to the output
        expert = int(chosen[token].all(1).nonzero()[0])
        known = effects.gradients[layer][:, token, expert * experts.width + 5]

        def shifted(by: float, module: Any = module, token: int = token, expert: int = expert) -> Tensor:
            def after(_: Any, args: Any, output: Tensor) -> Tensor:
                weight = args[2].view(9, -1)[token][args[1].view(9, -1)[token] == expert]
                other = output.clone()
                other.view(9, -1)[token] += by * weight * module.down_proj[expert][:, 5]
                return other

            handle = module.register_forward_hook(after)
            try:
                with Double():
                    return values(forward(model, batch).logits[:, -1])[0]
            finally:
                handle.remove()

        expected = (shifted(step) - shifted(-step)) / (2 * step)
        loose = 2e-2 if implementation == "grouped_mm" else 2e-5
        torch.testing.assert_close(known.double(), expected, rtol=loose, atol=loose * float(expected.abs().max()))


@pytest.mark.parametrize("family", ["Llama", "GPT2", "GPTNeoX", "Qwen2-MoE"])
def test_neurons_add_up_to_their_mlp_and_heads_to_their_attention(found: Any, family: str) -> None:
    _, sites, _, effects = found[family]
    for layer in range(len(sites.layers)):
        neurons = effects.neurons[layer].nan_to_num().sum(-1).T
        torch.testing.assert_close(effects.mlp[:, layer], neurons, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(effects.attn[:, layer], effects.head[:, layer].sum(1), rtol=1e-4, atol=1e-5)


def test_behind_a_norm_an_mlp_is_what_it_writes_as_its_neurons_cancel(found: Any) -> None:
    """Setting all of them nearer to zero together changes nothing that the norm gives."""
    model, sites, batch, effects = found["Gemma2"]
    neurons = effects.neurons[2].sum(-1).T
    assert float(neurons.abs().max()) < 1e-2 * float(effects.neurons[2].abs().max())
    assert float(effects.mlp[:, 2].abs().max()) > 10 * float(neurons.abs().max())
    write = sites.layers[2].mlp_write.module

    def scaled(by: float) -> Tensor:
        handle = model.get_submodule(write).register_forward_hook(lambda _, args, output: output * by)
        try:
            with Double():
                return values_of(model)(forward(model, batch).logits[:, -1])[0]
        finally:
            handle.remove()

    slope = (scaled(1 + 1e-6) - scaled(1 - 1e-6)) / 2e-6
    torch.testing.assert_close(effects.mlp[:, 2].sum(0).double(), slope, rtol=1e-4, atol=1e-6)


def test_the_strongest_of_a_prompt_are_those_of_all_neurons_at_all_its_tokens_but_the_first() -> None:
    model, sites = model_of("Llama", torch.float32)
    batch = batch_of(5, 9)
    seen = Gradients(model, sites)
    tables = EffectTables(sites, seen.heads, Baseline(), {}, batch, targets=2, top_k=4, ids=["a", "b"])
    seen.run(batch, values_of(model), tables.receive)
    everything = first_order(model, sites, batch, values_of(model))
    whole = torch.stack([everything.neurons[layer] for layer in range(3)])  # [layer, target, row, neuron]
    strongest = tables.strongest()
    for prompt, rows in enumerate((slice(5, 9), slice(10, 18))):  # without the first token of either
        for target in range(2):
            own = whole[:, target, rows]
            expected = own.flatten().sort().values
            np.testing.assert_allclose(strongest.effect[prompt, target, :10], expected.flip(0)[:10], rtol=1e-5)
            np.testing.assert_allclose(strongest.effect[prompt, target, 10:], expected[:10], rtol=1e-5)
            for rank in (0, 7, 10, 19):
                layer, row, neuron = (
                    int(getattr(strongest, name)[prompt, target, rank]) for name in ("layer", "row", "neuron")
                )
                assert whole[layer, target, row, neuron] == pytest.approx(strongest.effect[prompt, target, rank])
                a = everything.activations[layer][row, neuron]
                assert strongest.value[prompt, target, rank] == pytest.approx(float(a))
    ranked = whole[1, 0, 10].abs().sort(descending=True)
    assert tables.neuron[10, 1, 0].tolist() == ranked.indices[:4].tolist()
    assert (tables.neuron[9:17, -1] == -1).all()  # what the last block does there reaches no answer
    assert tables.effect[9:17, -1].isnan().all()
    assert (tables.neuron[17] >= 0).all()


def test_the_only_token_of_a_prompt_has_its_strongest() -> None:
    model, sites = model_of("Llama", torch.float32)
    batch, seen = batch_of(1, 3), Gradients(model, sites)
    tables = EffectTables(sites, seen.heads, Baseline(), {}, batch, targets=2, top_k=4, ids=["a", "b"])
    seen.run(batch, values_of(model), tables.receive)
    row = tables.strongest().row
    assert (row[0] == 2).all()
    assert set(row[1].flat) <= {4, 5}


def test_a_prompt_beside_a_longer_one_has_the_effects_that_it_has_alone() -> None:
    model, sites = model_of("Llama", torch.float32)
    alone = first_order(model, sites, batch_of(5), values_of(model))
    beside = first_order(model, sites, batch_of(5, 9), values_of(model))
    for layer in range(3):
        torch.testing.assert_close(beside.neurons[layer][:, 4:9], alone.neurons[layer], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(beside.head[4:9], alone.head, rtol=1e-3, atol=1e-5)


# --- baselines and the way from them ----------------------------------------------------------------------------------


def integrated(model: Any, sites: ModelSites, batch: Batch, baseline: Baseline, steps: int) -> EffectTables:
    seen = Gradients(model, sites)
    normed = {one: written(model, sites, *one, baseline) for one in seen.kinds if one[1] in (s.MLP_WRITE, s.ATTN_WRITE)}
    tables = EffectTables(sites, seen.heads, baseline, normed, batch, targets=2, top_k=4, ids=["a"])
    path = PathIntegral(model, sites, seen, baseline, normed, steps)

    def others(one: SiteGradient) -> None:
        if (one.layer, one.kind) not in path.kinds:
            tables.receive(one)

    seen.run(batch, values_of(model), others)
    path.run(batch, values_of(model), tables.receive)
    return tables


@pytest.mark.parametrize("mean", [False, True], ids=["zero", "mean"])
@pytest.mark.parametrize("family", ["Llama", "Gemma2", "GPTNeoX", "GPT2"])
def test_integrated_effects_of_a_layer_add_up_to_what_setting_it_to_the_baseline_does(family: str, mean: bool) -> None:
    model, sites = model_of(family)
    batch, baseline = batch_of(9), Baseline()
    if mean:
        means = MeanPass(model, sites)
        means.add(batch)
        baseline = means.result()
    tables = integrated(model, sites, batch, baseline, steps=8)
    y = values_of(model)(forward(model, batch).logits[:, -1])[0]
    for layer in (1, 2):
        block = sites.layers[layer]
        places = (
            (block.neurons.module, tables.mlp, baseline.values.neurons),
            (block.attn_out, tables.attn, baseline.values.heads),
        )
        for path, effect, means_of in places:
            given = means_of.get(layer)

            def to_baseline(tensor: Tensor, given: Tensor | None = given) -> Tensor:
                return torch.zeros_like(tensor) if given is None else given.to(tensor.dtype).expand_as(tensor)

            with changed(model, path, to_baseline):
                exact = y - values_of(model)(forward(model, batch).logits[:, -1])[0]
            error = (effect[:, layer].sum(0).double() - exact).abs().max() / exact.abs().max()
            assert error < 8e-3, f"{path}: off by {float(error):.2g}"


def test_means_are_those_of_the_words_and_effects_are_counted_from_them() -> None:
    model, sites = model_of("Qwen2-MoE", torch.float32)
    batch = batch_of(5, 9)
    means = MeanPass(model, sites)
    means.add(batch)
    baseline = means.result()
    effects = first_order(model, sites, batch, values_of(model))
    own = torch.cat([effects.activations[2][5:9], effects.activations[2][10:]])  # no first token, no padding
    expected = own.nanmean(0).nan_to_num()
    torch.testing.assert_close(baseline.values.neurons[2][0], expected, rtol=1e-4, atol=1e-6)
    counted = first_order(model, sites, batch, values_of(model), baseline)
    by_hand = (effects.activations[2] - expected) * effects.gradients[2]
    torch.testing.assert_close(counted.neurons[2], by_hand, rtol=1e-3, atol=1e-6, equal_nan=True)
    torch.testing.assert_close(counted.mlp[:, 2], by_hand.nan_to_num().sum(-1).T, rtol=1e-3, atol=1e-5)


# --- nothing is left --------------------------------------------------------------------------------------------------


def test_less_memory_gives_the_same_bits() -> None:
    for family in ("Llama", "Gemma2", "Mixtral"):
        model, sites = model_of(family, torch.float32)
        seen, both = Gradients(model, sites), []
        for recompute in (False, True):
            found: dict[Any, Tensor] = {}

            def receive(one: SiteGradient, found: dict[Any, Tensor] = found) -> None:
                found[one.layer, one.kind, one.target] = one.value * one.gradient

            seen.run(batch_of(5, 9), values_of(model), receive, recompute=recompute)
            both.append(found)
        assert both[0].keys() == both[1].keys()
        assert all(torch.equal(both[0][key], both[1][key]) for key in both[0])
        assert all("forward" not in vars(module) for module in model.modules())


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_no_hook_and_no_gradient_is_left_after_a_stop(error: type[BaseException]) -> None:
    model, sites = model_of("Mixtral", torch.float32)
    frozen = next(model.parameters()).requires_grad_(False)
    before = {name: value.requires_grad for name, value in model.named_parameters()}

    def stop(one: SiteGradient) -> None:
        raise error

    with pytest.raises(error):
        Gradients(model, sites).run(batch_of(9), values_of(model), stop, recompute=True)
    assert hooks_of(model) == 0
    assert {name: value.requires_grad for name, value in model.named_parameters()} == before
    assert not frozen.requires_grad
    assert all(value.grad is None for value in model.parameters())
    assert all("forward" not in vars(module) and "_apply_gate" not in vars(module) for module in model.modules())


def test_a_model_that_hides_its_computation_is_refused_by_name() -> None:
    model, sites = model_of("Llama", torch.float32)
    block, hidden = model.model.layers[1], model.model.layers[1].forward

    def without_graph(*args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return hidden(*args, **kwargs)

    block.forward = without_graph
    block = model.model.layers[2]
    with pytest.raises(CaptureError, match="cannot be differentiated: its logits do not depend"):
        Gradients(model, sites).run(batch_of(9), values_of(model), lambda one: None)


def test_experts_that_are_computed_where_nobody_sees_are_refused() -> None:
    model, sites = model_of("Mixtral", torch.float32)
    model.set_experts_implementation("eager")  # in code of the model's own
    with pytest.raises(CaptureError, match="called these experts 0 times"):
        Gradients(model, sites).run(batch_of(9), values_of(model), lambda one: None)


def test_gradients_that_are_not_finite_name_the_layer_and_the_prompt() -> None:
    model, sites = model_of("Llama", torch.float32)
    seen = Gradients(model, sites)
    batch = batch_of(5, 9)
    tables = EffectTables(sites, seen.heads, Baseline(), {}, batch, targets=2, top_k=4, ids=["short", "long"])

    def broken(one: SiteGradient) -> None:
        if one.layer == 1:
            one.gradient[12] = torch.nan
        tables.receive(one)

    with pytest.raises(CaptureError, match=r"prompt long: the gradients of layer 1 are not finite"):
        seen.run(batch, values_of(model), broken)
