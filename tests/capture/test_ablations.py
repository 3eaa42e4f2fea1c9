"""Ablations against plain hooks written here, and that nothing of them is left in the model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from test_hooks import batch_of
from test_sites import IDS, hooks_of
from tiny import ALL_FAMILIES, TEXTS, byte_tokenizer, tiny
from torch import Tensor

from stratoscope.errors import CaptureError
from stratoscope.model.heads import heads_of
from stratoscope.model.search.find import find_sites
from stratoscope.recorder.effects.ablations import Ablation, Values, ablated, ablated_logits
from stratoscope.recorder.input.grouping import NONE, Batching
from stratoscope.recorder.input.tokens import encode
from stratoscope.recorder.observe import forward
from stratoscope.recorder.prompts.prompt import Prompt

pytestmark = pytest.mark.model
PROMPTS = [encode(Prompt(text, text=text), byte_tokenizer(), chat=False) for text in TEXTS]
LAST_MAP = {"Llama": "mlp.down_proj", "GPT2": "mlp.c_proj", "Gemma2": "mlp.down_proj", "GPTNeoX": "mlp.dense_4h_to_h"}
O_MAP = {"Llama": "self_attn.o_proj", "GPT2": "attn.c_proj", "Gemma2": "self_attn.o_proj", "GPTNeoX": "attention.dense"}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@contextmanager
def plainly(module: Any, change: Callable[[Tensor], None]) -> Iterator[None]:
    """The plain hook: `change` is given a copy of the module's input, [prompt, token, width]."""

    def hook(_: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = args[0].clone()
        change(x)
        return (x, *args[1:])

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def alone(model: Any, prompt: Any) -> Tensor:
    with torch.no_grad():
        return model(torch.tensor(prompt.ids[None].astype("int64"))).logits[0, -1]


def block(model: Any, family: str, layer: int) -> Any:
    return model.get_submodule(f"{ALL_FAMILIES[family].blocks}.{layer}")


@pytest.mark.parametrize("family", LAST_MAP)
def test_neurons_and_heads_are_set_as_a_plain_hook_sets_them(family: str) -> None:
    model = tiny(family)
    sites = find_sites(model, IDS)
    values = Values({1: torch.full((1, 144), 9.0)}, {1: torch.full((1, 32), -0.3)})
    heads = heads_of(model, sites, 1)
    assert heads is not None
    last, out = (block(model, family, 1).get_submodule(one[family]) for one in (LAST_MAP, O_MAP))

    def neurons_to_zero(x: Tensor) -> None:
        x[:, :, [3, 8]] = 0

    def neuron_at_one_token(x: Tensor) -> None:
        x[:, -2, 5] = 9

    def head(x: Tensor) -> None:
        x[:, :, heads.width : 2 * heads.width] = -0.3

    cases = [
        (Ablation(), last, lambda _: None),
        (Ablation(neurons=[(1, 3), (1, 8)]), last, neurons_to_zero),
        (Ablation(neurons=[(1, 5)], positions=[-2], values=values), last, neuron_at_one_token),
        (Ablation(heads=[(1, 1)], values=values), out, head),
        (Ablation(mlps=[1]), last, Tensor.zero_),
        (Ablation(attentions=[1], positions=[-1]), out, lambda x: x[:, -1].zero_()),
    ]
    for prompt in PROMPTS[:2]:
        found = ablated_logits(model, sites, [prompt], [ablation for ablation, *_ in cases])
        for row, (ablation, module, change) in zip(found, cases, strict=True):
            with plainly(module, change):
                torch.testing.assert_close(row, alone(model, prompt), **CLOSE, msg=lambda m, a=ablation: f"{a}: {m}")
        assert (found[1:] - found[0]).abs().amax(-1).min() > 1e-3  # each changed something
    assert hooks_of(model) == 0


def test_what_is_added_to_an_mlp_is_what_a_plain_hook_adds() -> None:
    model = tiny("Llama")
    vector = torch.linspace(-1, 1, 32)
    (found,) = ablated_logits(model, find_sites(model, IDS), PROMPTS[:1], [Ablation(added={2: vector[None]})])
    handle = model.model.layers[2].mlp.register_forward_hook(lambda _m, _a, out: out + vector)
    wanted = alone(model, PROMPTS[0])
    handle.remove()
    torch.testing.assert_close(found, wanted, **CLOSE)


@pytest.mark.parametrize("family", ["Mixtral", "GPT-OSS", "Qwen2-MoE"])
@pytest.mark.parametrize("implementation", ["grouped_mm", "batched_mm"])
def test_a_neuron_of_an_expert_is_set_wherever_that_expert_was_chosen(family: str, implementation: str) -> None:
    """Against the same model with the row of down_proj that the neuron reads out through set to zero."""
    model = tiny(family)
    model.set_experts_implementation(implementation)
    sites = find_sites(model, IDS)
    experts = sites.layers[1].experts
    assert experts is not None
    prompt, flat = PROMPTS[2], [3, experts.width + 7, 2 * experts.width + 1]
    shared = [] if sites.layers[1].neurons is None else [experts.count * experts.width + 5]
    found = ablated_logits(
        model, sites, [prompt], [Ablation(), Ablation(neurons=[(1, one) for one in flat + shared]), Ablation(mlps=[1])]
    )
    weight, bias = experts.weight(model)
    with torch.no_grad():
        whole = weight.clone()
        for one in flat:
            weight[one // experts.width, :, one % experts.width] = 0
        if shared:
            column = sites.mlp_weight(model, 1)[0][:, 5]
            kept = column.clone()
            column.zero_()
    torch.testing.assert_close(found[1], alone(model, prompt), **CLOSE)
    with torch.no_grad():
        if shared:
            column.copy_(kept)
            sites.mlp_weight(model, 1)[0].zero_()
        weight.zero_()
    torch.testing.assert_close(found[2], alone(model, prompt), **CLOSE)
    assert not torch.allclose(found[0], found[1])
    assert bias is None or bool(bias.any())
    weight.copy_(whole)


def test_values_of_an_experts_neuron_follow_its_tokens() -> None:
    """Set to what it is anyway, token by token, it changes nothing; at another token's it does."""
    model = tiny("Mixtral")
    sites, prompt = find_sites(model, IDS), PROMPTS[2]
    seen: list[Tensor] = []
    experts = model.model.layers[1].mlp.experts
    gate = type(experts)._apply_gate
    experts._apply_gate = lambda x: seen.append(gate(experts, x)) or seen[-1]
    choice: list[Tensor] = []
    handle = experts.register_forward_pre_hook(lambda _m, args: choice.append(args[1]))
    alone(model, prompt)
    handle.remove()
    del experts._apply_gate
    order = torch.sort(choice[0].reshape(-1)).indices  # grouped_mm computes expert by expert
    own = torch.zeros(len(prompt.ids), 4 * 72)
    for row, at in zip(seen[0], order.tolist(), strict=True):
        expert = int(choice[0].reshape(-1)[at])
        own[at // 2, expert * 72 : (expert + 1) * 72] = row
    same, other = (Ablation(mlps=[1], values=Values({1: values})) for values in (own, own.roll(1, 0)))
    found = ablated_logits(model, sites, [prompt], [Ablation(), same, other])
    torch.testing.assert_close(found[1], found[0], **CLOSE)
    assert (found[2] - found[0]).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["Llama", "GPTNeoX"])
def test_an_mlp_of_which_everything_is_zero_is_a_block_without_it(family: str) -> None:
    model = tiny(family)
    found = ablated_logits(model, find_sites(model, IDS), PROMPTS[:1], [Ablation(mlps=[0, 1, 2])])[0]
    for layer in range(3):
        last = block(model, family, layer).get_submodule(LAST_MAP[family])
        last.weight.data.zero_()
    torch.testing.assert_close(found, alone(model, PROMPTS[0]), **CLOSE)


def test_different_ablations_in_one_batch_are_those_one_at_a_time_whatever_stands_beside() -> None:
    model = tiny("Qwen2-MoE")
    sites = find_sites(model, IDS)
    some = [
        Ablation(),
        Ablation(neurons=[(1, 30), (2, 101)], positions=[2, -1]),
        Ablation(heads=[(0, 3), (2, 0)], mlps=[0]),
        Ablation(attentions=[1], neurons=[(0, 4)]),
        Ablation(mlps=[2], positions=[0]),
    ]
    together = ablated_logits(model, sites, PROMPTS, some)  # padding in front of the shorter ones
    for row, (prompt, ablation) in enumerate(zip(PROMPTS, some, strict=True)):
        (single,) = ablated_logits(model, sites, [prompt], [ablation], batching=Batching(1, NONE))
        torch.testing.assert_close(together[row], single, **CLOSE)
    in_parts = ablated_logits(model, sites, PROMPTS, some, batching=Batching(2))
    torch.testing.assert_close(in_parts, together, **CLOSE)


def weights_of(model: Any) -> str:
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize("family", ["Llama", "Mixtral"])
def test_an_interrupted_ablation_leaves_no_hook_and_every_weight(family: str, error: type[BaseException]) -> None:
    model = tiny(family)
    sites, before = find_sites(model, IDS), weights_of(model)
    ablations = [Ablation(neurons=[(1, 3)], heads=[(0, 1)], added={1: torch.ones(1, 32)}), Ablation(mlps=[0])]
    base = ablated_logits(model, sites, PROMPTS[:1], ablations)

    def stop(*_: Any) -> None:
        raise error

    handle = model.model.layers[2].register_forward_pre_hook(stop)
    with pytest.raises(error):
        ablated_logits(model, sites, PROMPTS[:1], ablations)
    handle.remove()
    assert hooks_of(model) == 0
    assert not any("_apply_gate" in vars(module) for module in model.modules())
    assert weights_of(model) == before
    assert torch.equal(ablated_logits(model, sites, PROMPTS[:1], ablations), base)


def test_the_models_own_row_is_the_unhooked_model_bit_for_bit() -> None:
    model, batch = tiny("Llama"), batch_of(TEXTS[0], TEXTS[0], side="left")
    sites = find_sites(model, IDS)
    with ablated(model, sites, batch, [Ablation(), Ablation(neurons=[(0, 1)])]):
        found = forward(model, batch).logits[0]
    assert torch.equal(found, forward(model, batch).logits[0])


def test_a_place_that_the_model_passes_by_is_an_error_and_never_an_effect_of_zero() -> None:
    model = tiny("Llama")
    sites = find_sites(model, IDS)
    model.model.layers[1].mlp.forward = torch.zeros_like  # the last map is not called any more
    with pytest.raises(CaptureError, match=r"neurons of layer 1 .*0 times in one forward"):
        ablated_logits(model, sites, PROMPTS[:1], [Ablation(neurons=[(1, 3)])])
    assert hooks_of(model) == 0
