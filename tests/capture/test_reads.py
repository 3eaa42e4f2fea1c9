"""What set a neuron off: against a float64 computation with eager attention's weights, and sums on every family."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny import ALL_FAMILIES, tiny
from tiny_any import tiny_of

from stratoscope.model.search.find import find_sites
from stratoscope.recorder.attention.sources import probe_split
from stratoscope.recorder.effects.reads import NeuronReader, Reads
from stratoscope.recorder.input.batches import Batch, GivenTokens, make_batch

LENGTHS = (14, 6, 9)
ENDS = np.cumsum(LENGTHS)
IDS = [np.arange(20 + n, 20 + 2 * n, dtype=np.int32) for n in LENGTHS]
CPU = torch.device("cpu")


def left_padded() -> Batch:
    prompts = [GivenTokens(ids, np.zeros(len(ids), np.int8)) for ids in IDS]
    return make_batch(prompts, pad_id=0, padding_side="left", device=CPU)


def pairs(sites: Any, seed: int = 0, strongest: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Positions in the prompt, rows of the batch, layers and neurons of some pairs, [prompt, 2 targets, strongest]."""
    rng, shape = np.random.default_rng(seed), (len(IDS), 2, strongest)
    layer = rng.choice([number for number, width in enumerate(sites.widths) if width], shape)
    neuron = np.array([rng.integers(sites.widths[one]) for one in layer.flat]).reshape(shape)
    position = np.stack([rng.integers(0, n, shape[1:]) for n in LENGTHS])
    position[:, 0, 0] = np.array(LENGTHS) - 1
    column = position + max(LENGTHS) - np.array(LENGTHS)[:, None, None]
    return position, column + max(LENGTHS) * np.arange(len(IDS))[:, None, None], layer, neuron


def by_prompt(found: np.ndarray) -> list[np.ndarray]:
    return np.split(found[left_padded().valid], ENDS[:-1])


def sums(reads: Reads) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Σ over components, Σ over sources and biases, and Σ|c|."""
    components = np.nansum(reads.read_component, -1)
    sources = np.stack([one.sum(0) for one in by_prompt(reads.neuron_read)]) + reads.read_component[..., -1]
    return components, sources, np.nansum(np.abs(reads.read_component), -1)


@pytest.mark.parametrize("family", [name for name in ALL_FAMILIES if name != "Mamba"])
def test_components_and_sources_sum_to_the_models_own_pre_activation(family: str) -> None:
    model = tiny(family)
    sites = find_sites(model, torch.from_numpy(IDS[0][None].astype(np.int64)))
    reader = NeuronReader(model, sites)
    _, *where = pairs(sites)
    reads = reader.of(left_padded(), *where)
    has_up = all(gate.layout != "one map" for maps in sites.maps for gate in maps.gates)
    assert np.isfinite(reads.value[..., 0]).all()
    assert np.isfinite(reads.value[..., 1]).all() == has_up
    components, sources, size = sums(reads)
    known = np.isfinite(reads.value)
    assert reads.failed == 0
    errors = np.abs(components - reads.value)[known] / size[known]
    assert errors.max() <= 1e-5
    assert np.median(errors) <= 2e-6
    if reader.limits:  # convolutions and state spaces: components are known, sources are not
        assert {sites.layers[layer].mixer for layer in reader.limits} <= {"Lfm2ShortConv", "JambaMambaMixer"}
        assert np.isnan(sources).all()
        assert (reads.read_through == -1).all()
    else:
        assert (np.abs(sources - reads.value)[known] / size[known]).max() <= 4e-5


# --- an independent computation ---------------------------------------------------------------------------------------


def expected(model: Any, family: str, ids: np.ndarray, position: int, layer: int, neuron: int) -> list[np.ndarray]:
    """Of gate (and up): what each (component, source token) adds, and what is constant, in float64, unpadded.

    Components as `read_component`; only weights of eager attention and outputs of modules are used.
    """
    llama = family != "GPT2"
    blocks = model.model.layers if llama else model.transformer.h
    kept: dict[Any, Any] = {}

    def keep(key: Any, take_input: bool = False) -> Any:
        def hook(_: Any, given: Any, output: Any) -> None:
            value = given[0] if take_input else output
            kept[key] = (value[0] if isinstance(value, tuple) else value)[0]

        return hook

    handles = []
    for number, block in enumerate(blocks):
        attention = block.self_attn if llama else block.attn
        handles += [
            (attention.v_proj if llama else attention.c_attn).register_forward_hook(keep(("v", number))),
            block.mlp.register_forward_hook(keep(("mlp", number))),
            block.register_forward_hook(keep(("in", number), take_input=True)),
            (block.post_attention_layernorm if llama else block.ln_2).register_forward_hook(
                keep(("mid", number), take_input=True)
            ),
        ]
    with torch.no_grad():
        weights = model(
            torch.from_numpy(ids[None].astype(np.int64)), output_attentions=True, use_cache=False
        ).attentions
    for handle in handles:
        handle.remove()

    block = blocks[layer]
    norm = block.post_attention_layernorm if llama else block.ln_2
    x = kept["mid", layer][position]
    centred = x if llama else x - x.mean()
    scale = 1 / torch.sqrt(centred.square().mean() + (norm.variance_epsilon if llama else norm.eps))
    maps = [block.mlp.gate_proj, block.mlp.up_proj] if llama else [block.mlp.c_fc]
    found = []
    for part in maps:
        row = part.weight[neuron] if llama else part.weight[:, neuron]
        w = row * norm.weight * scale
        w = w if llama else w - w.mean()
        parts = torch.zeros(2 * len(blocks) + 2, len(ids), dtype=torch.float64)
        parts[0, position] = w @ kept["in", 0][position]
        constant = torch.zeros((), dtype=torch.float64)
        if not llama:
            constant += row @ norm.bias + part.bias[neuron]
        for number in range(layer + 1):
            attention = blocks[number].self_attn if llama else blocks[number].attn
            heads = weights[number].shape[1]
            v, out = kept["v", number], attention.o_proj.weight if llama else attention.c_proj.weight.T
            v = v if llama else v.chunk(3, -1)[2]
            width = out.shape[1] // heads
            v = v.view(len(ids), -1, width)
            for head in range(heads):
                group = head * v.shape[1] // heads
                along = v[:, group] @ (w @ out[:, head * width : (head + 1) * width])
                parts[1 + 2 * number] += weights[number][0, head, position] * along
            if not llama:
                constant += w @ attention.c_proj.bias
            if number < layer:
                parts[2 + 2 * number, position] = w @ kept["mlp", number][position]
        parts[-1, 0] = constant
        found.append(parts.detach().numpy())
    return found


@pytest.mark.parametrize("family", ["Llama", "GPT2", "Mistral"])  # grouped heads, one map and biases, a window of 8
def test_every_part_is_that_of_a_float64_computation_with_eager_attention(family: str) -> None:
    model = tiny(family)
    sites = find_sites(model, torch.from_numpy(IDS[0][None].astype(np.int64)))
    position, *where = pairs(sites)
    reads = NeuronReader(model, sites).of(left_padded(), *where)
    exact = tiny(family).double()
    exact.set_attn_implementation("eager")
    sources, through = by_prompt(reads.neuron_read), by_prompt(reads.read_through)
    for at in np.ndindex(position.shape):
        parts = expected(exact, family, IDS[at[0]], position[at], where[1][at], where[2][at])
        for part, wanted in enumerate(parts):
            limit = 2e-5 * np.abs(wanted).sum()
            constant = wanted[-1, 0]
            np.testing.assert_allclose(reads.read_component[(*at, part)], [*wanted[:-1].sum(1), constant], atol=limit)
            source = (slice(None), *at[1:], part)
            np.testing.assert_allclose(sources[at[0]][source], wanted[:-1].sum(0), atol=limit)
            assert (sources[at[0]][source][position[at] + 1 :] == 0).all()
            total = wanted[:-1].sum(0)
            strongest = (wanted[:-1] * np.sign(total)).argmax(0)
            clear = np.abs(total) > limit
            assert (through[at[0]][source][clear] == strongest[clear]).all()


def test_a_source_is_what_remains_when_the_values_of_the_others_are_zero() -> None:
    model, ids = tiny("Llama"), IDS[0]
    tokens = torch.from_numpy(ids[None].astype(np.int64))
    sites = find_sites(model, tokens)
    last, neuron, source = len(ids) - 1, 7, 4
    batch = make_batch([GivenTokens(ids, np.zeros(len(ids), np.int8))], pad_id=0, padding_side="left", device=CPU)
    reads = NeuronReader(model, sites).of(batch, *(np.array([[[one]]]) for one in (last, 0, neuron)))
    block, seen = model.model.layers[0], {}

    def zeroed(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        return torch.where(torch.arange(len(ids))[:, None] == source, output, 0)

    handles = [
        block.post_attention_layernorm.register_forward_hook(lambda _, given, __: seen.setdefault("x", given[0])),
        block.self_attn.register_forward_hook(lambda _, __, output: seen.__setitem__("write", output[0])),
    ]
    with torch.no_grad():
        model(tokens)
        handles.append(block.self_attn.v_proj.register_forward_hook(zeroed))
        model(tokens)
    for handle in handles:
        handle.remove()
    scale = (seen["x"][0, last].square().mean() + block.post_attention_layernorm.variance_epsilon).rsqrt()
    along = block.mlp.gate_proj.weight[neuron] * block.post_attention_layernorm.weight * scale
    assert reads.neuron_read[source, 0, 0, 0] == pytest.approx((along @ seen["write"][0, last]).item(), rel=1e-4)
    assert reads.read_through[source, 0, 0, 0] == 1  # attention of layer 0


# --- what cannot be split ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "why"),
    [
        ("diffllama", "several calls"),
        ("granite_swa", "are not what its attention gave"),
        ("bamba", "BambaMixer moves information between tokens by other than attention weights"),
    ],
)
def test_attention_that_cannot_be_split_has_a_reason_and_no_source(architecture: str, why: str) -> None:
    model = tiny_of(architecture)
    sites = find_sites(model, torch.arange(5, 13)[None])
    reader = NeuronReader(model, sites)
    assert all(why in limit for limit in reader.limits.values())
    assert len(reader.limits) == len(sites.layers)
    _, *where = pairs(sites)
    reads = reader.of(left_padded(), *where)
    assert np.isnan(reads.neuron_read).all()
    assert np.isfinite(np.nansum(reads.read_component, -1)).all()


@pytest.mark.parametrize("architecture", ["afmoe", "bitnet"])  # a gate, a norm in front of the output projection
def test_a_gate_or_a_norm_before_the_output_projection_is_a_factor(architecture: str) -> None:
    model = tiny_of(architecture)
    limits, multiplied = probe_split(model, find_sites(model, torch.arange(5, 13)[None]))
    assert not limits
    assert multiplied == {0, 1, 2, 3}


def test_heads_that_are_mixed_before_the_output_projection_are_not_split() -> None:
    model = tiny("Llama")
    sites = find_sites(model, torch.arange(5, 13)[None])
    mixed = model.model.layers[1].self_attn.o_proj.register_forward_pre_hook(lambda _, given: (given[0].flip(-1),))
    limits, _ = probe_split(model, sites)
    mixed.remove()
    assert limits == {1: "more than a gate or a norm stands between its attention and its output projection"}
    assert probe_split(model, sites) == ({}, set())


def test_what_sums_to_something_else_is_missing_and_counted() -> None:
    model = tiny("Llama")
    sites = find_sites(model, torch.arange(5, 13)[None])
    _, *where = pairs(sites)
    reader = NeuronReader(model, sites)
    doubled = model.model.layers[0].mlp.gate_proj.register_forward_hook(lambda _, __, output: 2 * output)
    reads = reader.of(left_padded(), *where)
    doubled.remove()
    here = where[1] == 0
    assert reads.failed == here.sum() > 0
    assert (np.isnan(reads.read_component[..., 0, :]).all(-1) == here).all()
    assert np.isfinite(reads.read_component[..., 1, :]).all()


def test_pairs_that_are_not_there_are_missing() -> None:
    model = tiny("Llama")
    sites = find_sites(model, torch.arange(5, 13)[None])
    _, row, layer, neuron = pairs(sites)
    row[1, 0, 2] = layer[1, 0, 2] = neuron[1, 0, 2] = -1
    reads = NeuronReader(model, sites).of(left_padded(), row, layer, neuron)
    assert np.isnan(reads.read_component[1, 0, 2]).all()
    assert np.isnan(by_prompt(reads.neuron_read)[1][:, 0, 2]).all()
    assert (by_prompt(reads.read_through)[1][:, 0, 2] == -1).all()
    assert np.isnan(reads.read_component).sum() == reads.read_component[1, 0, 2].size


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_sums_within_its_rounding(dtype: torch.dtype) -> None:
    model = tiny("Llama", dtype)
    sites = find_sites(model, torch.arange(5, 13)[None])
    _, *where = pairs(sites)
    reads = NeuronReader(model, sites).of(left_padded(), *where)
    components, sources, size = sums(reads)
    limit = 8 * torch.finfo(dtype).eps
    assert (np.abs(components - reads.value) / size).max() <= limit
    assert (np.abs(sources - reads.value) / size).max() <= limit
    assert 0 < reads.error <= limit


def test_nothing_stays_on_the_model() -> None:
    model = tiny("GPT2")
    sites = find_sites(model, torch.arange(5, 13)[None])
    _, *where = pairs(sites)
    with torch.no_grad():
        before = model(torch.arange(5, 13)[None]).logits
        NeuronReader(model, sites).of(left_padded(), *where)
        assert torch.equal(model(torch.arange(5, 13)[None]).logits, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
