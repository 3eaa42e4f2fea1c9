"""The head and the gate are what an independent formula says; where a model does something else, that is a limit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import ALL_FAMILIES, TEXTS, byte_tokenizer, tiny, tiny_model
from tiny_any import tiny_of
from torch import nn

from stratoscope import capture
from stratoscope.model.gate import HALVES, INTERLEAVED, ONE, SEPARATE
from stratoscope.model.head import Unproved
from stratoscope.model.search.calls import Call
from stratoscope.model.search.find import find_sites, limits
from stratoscope.model.search.head import find_norm
from stratoscope.names import NORMS
from stratoscope.trace.format.receipt import merged_receipt

IDS = torch.arange(5, 25)[None]

RMS = ("model.norm", lambda x, w, b: w * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt())
GEMMA = ("model.norm", lambda x, w, b: (1 + w) * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt())


def layer_norm(x: Any, weight: Any, bias: Any) -> Any:
    centred = x - x.mean(-1, keepdim=True)
    return weight * centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() + (0 if bias is None else bias)


# by hand: the final norm and its formula, and what makes logits of what the output embedding gives
HEADS: dict[str, tuple[str, Any, Any]] = {
    "Llama": (*RMS, lambda y: y),
    "GPT2": ("transformer.ln_f", layer_norm, lambda y: y),
    "Gemma2": (*GEMMA, lambda y: 30 * torch.tanh(y / 30)),
    "Gemma3": (*GEMMA, lambda y: y),
    "Cohere": ("model.norm", layer_norm, lambda y: 0.0625 * y),
    "OLMo2": ("model.norm", lambda x, w, b: RMS[1](x, w, b), lambda y: y),
    "GPTNeoX": ("gpt_neox.final_layer_norm", layer_norm, lambda y: y),
    "Falcon": ("transformer.ln_f", layer_norm, lambda y: y),
    "mpt": ("transformer.norm_f", layer_norm, lambda y: y),
}


@pytest.mark.parametrize("family", HEADS)
def test_the_head_is_the_formula_that_a_person_would_write(family: str) -> None:
    path, formula, to_logits = HEADS[family]
    model = made(family)
    found = find_sites(model, IDS)
    head = found.head
    x, logits = run(model, found.layers[-1].block_out.module)
    assert not isinstance(head, Unproved)
    assert head.norm is not None
    assert (head.norm.module, head.exact) == (path, True)
    norm, unembedding = model.get_submodule(path), model.get_output_embeddings()
    normed = formula(x.double(), norm.weight.double(), beta(norm))
    by_hand = to_logits(normed @ unembedding.weight.double().T)
    assert torch.allclose(by_hand, logits.double(), atol=1e-5, rtol=1e-5)
    gamma, bias = head.norm.vectors(model)
    frozen = head.norm.scale(x) * gamma * head.norm.centre(x) + (0 if bias is None else bias)
    assert torch.allclose(frozen.double(), normed, atol=1e-5)
    assert (bias is not None) == (beta(norm) is not None)
    assert torch.equal(head.unembed(model, head.normed(model, x)), logits)


def made(family: str) -> Any:
    return tiny(family) if family in ALL_FAMILIES else tiny_of(family)


def beta(norm: Any) -> Any:
    bias = getattr(norm, "bias", None)
    return None if bias is None else bias.double()


def run(model: Any, path: str) -> tuple[Any, Any]:
    """What a module gave in a plain forward, and the logits."""
    kept: list[Any] = []
    handle = model.get_submodule(path).register_forward_hook(lambda _m, _i, output: kept.append(output))
    with torch.no_grad():
        logits = model(IDS, use_cache=False).logits
    handle.remove()
    return (kept[0][0] if isinstance(kept[0], tuple) else kept[0]), logits


def read_by(model: Any, path: str) -> Any:
    kept: list[Any] = []
    handle = model.get_submodule(path).register_forward_pre_hook(lambda _m, args: kept.append(args[0]))
    with torch.no_grad():
        model(IDS, use_cache=False)
    handle.remove()
    return kept[0].reshape(-1, kept[0].shape[-1])


def halves(weight: Any) -> tuple[Any, Any]:
    return weight[: len(weight) // 2], weight[len(weight) // 2 :]


# by hand: the module in front of the neurons, its weights of g and u as [neuron, residual], and the activation
GATES: dict[str, tuple[str, str, Any, Any]] = {
    "Llama": (SEPARATE, "gate_proj", lambda m: (m.gate_proj.weight, m.up_proj.weight), nn.functional.silu),
    "GPT2": (ONE, "c_fc", lambda m: (m.c_fc.weight.T, None), lambda g: nn.functional.gelu(g, approximate="tanh")),
    "Gemma2": (
        SEPARATE,
        "gate_proj",
        lambda m: (m.gate_proj.weight, m.up_proj.weight),
        lambda g: nn.functional.gelu(g, approximate="tanh"),
    ),
    "Phi3": (HALVES, "gate_up_proj", lambda m: halves(m.gate_up_proj.weight), nn.functional.silu),
    "GPTNeoX": (ONE, "dense_h_to_4h", lambda m: (m.dense_h_to_4h.weight, None), nn.functional.gelu),
    "Falcon": (ONE, "dense_h_to_4h", lambda m: (m.dense_h_to_4h.weight, None), nn.functional.gelu),
    "OLMo2": (SEPARATE, "gate_proj", lambda m: (m.gate_proj.weight, m.up_proj.weight), nn.functional.silu),
    "mpt": (ONE, "up_proj", lambda m: (m.up_proj.weight, None), nn.functional.gelu),
}


@pytest.mark.parametrize("family", GATES)
def test_a_dense_mlps_neurons_are_made_of_its_maps(family: str) -> None:
    layout, name, weights, act = GATES[family]
    model = made(family)
    found = find_sites(model, IDS)
    for layer, block in zip(found.layers, found.maps, strict=True):
        (gate,) = block.gates
        assert layer.neurons is not None
        mlp = model.get_submodule(gate.module.rsplit(".", 1)[0])
        assert (gate.layout, gate.module.rsplit(".", 1)[1], gate.gate_first) == (layout, name, True)
        maps, by_hand = gate.maps(model), weights(mlp)
        assert torch.equal(maps[0].weight, by_hand[0])
        assert (maps[1] is None) == (by_hand[1] is None)
        x = read_by(model, gate.module)
        g, u = (
            None if m is None else x @ w.T + (0 if m.bias is None else m.bias)
            for m, w in zip(maps, by_hand, strict=True)
        )
        assert torch.allclose(act(g) * (1 if u is None else u), read_by(model, layer.neurons.module), atol=2e-5)


@pytest.mark.parametrize(("family", "layout"), [("Mixtral", HALVES), ("Qwen2-MoE", HALVES), ("GPT-OSS", INTERLEAVED)])
def test_routed_experts_have_their_maps(family: str, layout: str) -> None:
    model = tiny(family)
    found = find_sites(model, IDS)
    layer, block = next(one for one in zip(found.layers, found.maps, strict=True) if one[0].experts)
    gate, experts = block.gates[-1], model.get_submodule(layer.experts.module)
    (g, bias_g), (u, bias_u) = gate.maps(model)
    fused, bias = experts.gate_up_proj, getattr(experts, "gate_up_proj_bias", None)
    if family == "GPT-OSS":
        assert torch.equal(g, fused[:, :, ::2].mT)
        assert torch.equal(u, fused[:, :, 1::2].mT)
        assert torch.equal(bias_u, bias[:, 1::2])
        assert (gate.offset, gate.clamp) == (1, 7)
    else:
        assert torch.equal(g, fused[:, : fused.shape[1] // 2])
        assert torch.equal(u, fused[:, fused.shape[1] // 2 :])
        assert bias_g is None
    assert gate.layout == layout
    assert len(block.gates) == 1 + (layer.neurons is not None)


def test_norms_in_front_of_and_behind_the_parts_of_a_block() -> None:
    for family, expected in {"Llama": (1, 0, 0), "Gemma2": (1, 1, 1), "OLMo2": (0, 1, 1), "Cohere": (1, 0, 0)}.items():
        for block in find_sites(tiny(family), IDS).maps:
            norms = (block.mlp_norm, block.attn_post_norm, block.mlp_post_norm)
            assert tuple(int(norm is not None) for norm in norms) == expected, family
            assert all(norm is None or norm.error < 1e-5 for norm in norms)


def test_half_precision_is_proved_too() -> None:
    for family in ("Llama", "Gemma2", "GPT2", "Qwen2-MoE"):
        for dtype in (torch.bfloat16, torch.float16):
            found = find_sites(tiny(family, dtype), IDS)
            assert not isinstance(found.head, Unproved)
            assert all(block.gates and not block.limits for block in found.maps)


# --- models that do something else ------------------------------------------------------------------------------------


def curved_head(model: Any) -> None:
    model.lm_head.register_forward_hook(lambda _m, _i, output: output + 0.01 * output.square())


def curved_logits(model: Any) -> None:
    forward = model.forward

    def bent(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        output.logits = output.logits + 0.01 * output.logits.square()
        return output

    model.forward = bent


def mixed_norm(model: Any) -> None:
    model.model.norm.register_forward_hook(lambda _m, _i, output: output + 0.1 * output.roll(1, -1))


def curved_norm(model: Any) -> None:
    model.model.norm.register_forward_hook(lambda _m, _i, output: torch.tanh(output))


def projection(model: Any) -> None:
    turn = nn.Linear(32, 32)
    model.turn = turn
    model.model.norm.register_forward_hook(lambda _m, _i, output: turn(output))


HEAD_LIARS = {
    curved_head: r"lm_head \(Linear\) is not W x \+ b",
    curved_logits: "are not the output of lm_head times a factor",
    mixed_norm: "is no norm",
    curved_norm: "is no norm",
    projection: "is no norm",
}


@pytest.mark.parametrize("lie", HEAD_LIARS)
def test_a_head_that_does_more_is_a_limit_and_no_false_proof(lie: Any) -> None:
    model = tiny("Llama")
    lie(model)
    found = find_sites(model, IDS)
    assert isinstance(found.head, Unproved)
    (limit,) = limits(found)
    assert re.search(f"Head not proved: .*{HEAD_LIARS[lie]}", limit)
    assert all(block.gates for block in found.maps)


def test_a_projection_in_front_of_the_head_is_named() -> None:
    model = tiny_model("OPTConfig", {**ALL_FAMILIES["OPT"].options, "word_embed_proj_dim": 16})
    (limit,) = limits(find_sites(model, IDS))
    assert limit.endswith("between the final norm and lm_head: model.decoder.project_out (Linear).")


def permuted(mlp: Any) -> None:
    mlp.act_fn.register_forward_hook(lambda _m, _i, output: output.flip(-1))


def adapted(mlp: Any) -> None:
    mlp.gate_proj.register_forward_hook(lambda _m, inputs, output: output + 0.1 * inputs[0].square() @ ADAPTER)


def unequal(mlp: Any) -> None:
    mlp.up_proj.register_forward_hook(lambda _m, _i, output: output * output.abs())


ADAPTER = torch.linspace(-1, 1, 32 * 72).reshape(32, 72)


@pytest.mark.parametrize("lie", [adapted, unequal])
def test_maps_that_are_not_linear_are_a_limit(lie: Any) -> None:
    model = tiny("Llama")
    lie(model.model.layers[1].mlp)
    found = find_sites(model, IDS)
    assert [len(block.gates) for block in found.maps] == [1, 0, 1]
    (limit,) = limits(found)
    assert limit.startswith("Layer 1: gate not proved: neurons are not act(g)·u")


def test_a_permuted_activation_is_a_limit() -> None:
    model = tiny("Llama")
    model.model.layers[1].mlp.act_fn = nn.SiLU()  # one of its own
    permuted(model.model.layers[1].mlp)
    assert [len(block.gates) for block in find_sites(model, IDS).maps] == [1, 0, 1]


class Mixing(nn.Module):
    """An activation that makes a number of several: of a token's neurons, or of a neuron's tokens."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


MIXING: dict[str, Any] = {
    "softmax": lambda x: x.softmax(-1),
    "normed": lambda x: nn.functional.silu(x / x.square().mean(-1, keepdim=True).sqrt()),
    "less the mean over tokens": lambda x: nn.functional.silu(x - x.mean(-2, keepdim=True)),
    "top 8": lambda x: torch.where(x >= x.topk(8, -1).values[..., -1:], x, 0),
}


@pytest.mark.parametrize("mixing", MIXING)
def test_an_activation_that_mixes_neurons_or_tokens_is_a_limit(mixing: str) -> None:
    for family in ("Llama", "GPT2", "Mixtral"):
        if family == "Mixtral" and "tokens" in mixing:
            continue  # its tokens are not beside each other
        model = tiny(family)
        blocks = model.transformer.h if family == "GPT2" else model.model.layers
        owner = blocks[1].mlp.experts if family == "Mixtral" else blocks[1].mlp
        setattr(owner, "act" if family == "GPT2" else "act_fn", Mixing(MIXING[mixing]).eval())
        assert [len(block.gates) for block in find_sites(model, IDS).maps] == [1, 0, 1], family


@pytest.mark.parametrize("cap", [30, 40])
def test_a_cap_that_no_setting_names_is_a_limit_in_half_precision_too(cap: float) -> None:
    model = tiny("Llama", torch.bfloat16)
    forward = model.forward

    def capped(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        output.logits = cap * torch.tanh(output.logits / cap)
        return output

    model.forward = capped
    assert isinstance(find_sites(model, IDS).head, Unproved)


def test_maps_that_bend_at_later_tokens_are_limits() -> None:
    model = tiny("Llama")
    for module in (model.lm_head, model.model.layers[1].mlp.gate_proj):
        module.register_forward_hook(lambda _m, _i, y: torch.cat([y[:, :8], y[:, 8:] + 0.3 * y[:, 8:] ** 2], 1))
    found = find_sites(model, IDS)
    assert isinstance(found.head, Unproved)
    assert [len(block.gates) for block in found.maps] == [1, 0, 1]


def test_what_is_0_on_the_probe_is_a_limit() -> None:
    model = tiny("Gemma2")
    with torch.no_grad():
        model.model.layers[0].mlp.gate_proj.weight.zero_()
        model.model.layers[1].mlp.down_proj.weight.zero_()
    found = find_sites(model, IDS)
    assert [len(block.gates) for block in found.maps] == [0, 1, 1]
    assert limits(found) == [
        "Layer 0: gate not proved: its neurons are 0 on the probe prompt.",
        "Layers 0, 1: norm not proved: what it is given is 0 on the probe prompt.",
    ]


def test_permuted_neurons_of_experts_are_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("Mixtral")
    kind = type(model.model.layers[0].mlp.experts)

    def shuffled(self: Any, fused: Any) -> Any:
        gate, up = fused.chunk(2, -1)
        return self.act_fn(gate).flip(-1) * up

    monkeypatch.setattr(kind, "_apply_gate", shuffled)
    assert not any(block.gates for block in find_sites(model, IDS).maps)


def test_another_order_of_gate_and_up_is_seen() -> None:
    model = tiny("Phi3")
    mlp = model.model.layers[1].mlp

    def up_first(x: Any) -> Any:
        up, gate = mlp.gate_up_proj(x).chunk(2, dim=-1)
        return mlp.down_proj(up * mlp.activation_fn(gate))

    mlp.forward = up_first
    gates = [block.gates[0] for block in find_sites(model, IDS).maps]
    assert [gate.gate_first for gate in gates] == [True, False, True]
    fused = mlp.gate_up_proj.weight
    assert torch.equal(gates[1].maps(model)[0].weight, fused[len(fused) // 2 :])


def test_another_order_of_experts_gate_and_up_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("Mixtral")
    experts = model.model.layers[0].mlp.experts
    own = type(experts)._apply_gate
    monkeypatch.setattr(
        type(experts), "_apply_gate", lambda self, fused: own(self, fused.roll(fused.shape[-1] // 2, -1))
    )
    assert {block.gates[0].gate_first for block in find_sites(model, IDS).maps} == {False}


def test_experts_that_are_not_linear_in_up_are_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("Mixtral")
    kind = type(model.model.layers[0].mlp.experts)
    monkeypatch.setattr(
        kind, "_apply_gate", lambda self, fused: torch.sin(fused.chunk(2, -1)[0] * fused.chunk(2, -1)[1])
    )
    found = find_sites(model, IDS)
    assert not any(block.gates for block in found.maps)
    assert limits(found)[-1].startswith("Layers 0, 1, 2: gate not proved: neurons of routed experts")


def test_a_proof_that_breaks_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("Llama")
    model.get_output_embeddings = lambda: 1 / 0
    found = find_sites(model, IDS)
    assert limits(found) == ["Head not proved: the proof failed (ZeroDivisionError: division by zero)."]


# --- in the receipt ---------------------------------------------------------------------------------------------------


def test_the_receipt_says_what_was_proved_and_parts_of_one_recording_agree(tmp_path: Path) -> None:
    model = tiny("Gemma2")
    settings: dict[str, Any] = {"record": (NORMS,), "tokenizer": byte_tokenizer(), "batch_size": 1}
    texts = [*TEXTS, *TEXTS[:3]]
    parts = [capture(model, texts, tmp_path / str(one), part=(one, 2), **settings).attrs["receipt"] for one in (1, 2)]
    whole = merged_receipt(parts)
    assert whole["head"] == parts[0]["head"] == parts[1]["head"]
    assert whole["head"]["norm"] == "RMSNorm with γ = 1 + weight model.norm"
    assert (whole["head"]["soft_cap"], whole["head"]["logits"]) == (30, "bit-equal")
    assert whole["gates"] == {"GELUTanh(g)·u": 3}
    assert whole["block_norms"]["proved"] == 9
    assert whole["block_norms"]["largest_error"] == max(one["block_norms"]["largest_error"] for one in parts)
    assert not whole["limits"]


def test_a_model_whose_head_is_not_proved_is_recorded(tmp_path: Path) -> None:
    model = tiny("Llama")
    curved_head(model)
    receipt = capture(model, TEXTS[:2], tmp_path / "t", record=(NORMS,), tokenizer=byte_tokenizer()).attrs["receipt"]
    assert receipt["head"] is None
    assert [limit for limit in receipt["limits"] if limit.startswith("Head not proved")]


def test_a_norm_is_told_from_its_neighbours() -> None:
    """With a mean that is small against its size, only single small numbers tell a LayerNorm from an RMSNorm."""
    torch.manual_seed(0)
    x = torch.randn(1, 64, 512).bfloat16()
    for module, centred in ((nn.RMSNorm(512, eps=1e-6), False), (nn.LayerNorm(512, eps=1e-6), True)):
        module = module.bfloat16()
        nn.init.normal_(module.weight, 1, 0.2)
        with torch.no_grad():
            call = Call("norm", x, 0, module(x), None)
        norm = find_norm(nn.ModuleDict({"norm": module}), call)
        assert norm is not None
        assert norm.centred == centred
