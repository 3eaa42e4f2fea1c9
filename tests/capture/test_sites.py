"""Sites are found by what the blocks compute, proved, and refused by name where nothing adds up."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import torch
from tiny import _COMMON, _OPT, ALL_FAMILIES, FAMILIES, VOCAB, tiny, tiny_model

from stratoscope.errors import CaptureError, ModelError
from stratoscope.model.search.find import describe_replay, find_sites
from stratoscope.model.sites import BIT_EQUAL

IDS = torch.arange(5, 17)[None]
EXPERTS = {**_COMMON, "num_experts_per_tok": 2}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ALL_FAMILIES)
def test_sites_are_where_the_architecture_has_them(name: str, dtype: torch.dtype) -> None:
    family, model = ALL_FAMILIES[name], tiny(name, dtype)
    found = find_sites(model, IDS)
    assert found.blocks == family.blocks
    assert describe_replay(found.layers) == "bit-equal in 3/3 layers"
    for number, layer in enumerate(found.layers):
        block = f"{family.blocks}.{number}"
        assert (layer.block_in.layer, layer.block_in.module, layer.block_out.module) == (number, block, block)
        assert layer.parallel == family.parallel
        assert layer.replay == BIT_EQUAL
        assert same_output(model, layer.attn_write.module, path_in(model, block, family.attention))
        if not family.mlp:
            assert layer.mlp_write is layer.mlp_out is layer.neurons is layer.experts is None
            continue
        mixture = path_in(model, block, family.experts)
        last = path_in(model, block, family.last)
        assert (layer.experts and layer.experts.module) == mixture
        assert (layer.neurons and layer.neurons.module) == last
        assert layer.mlp_out.module in ({mixture, path_in(model, block, family.out)} if mixture else {last})
        assert (layer.shared_gate is not None) == bool(mixture and family.gate)
        assert (layer.experts.transposed if mixture else layer.transposed) == family.transposed
        assert layer.post_norm == family.post_norm
        assert layer.mlp_write.scale == layer.attn_write.scale == family.scale
        assert same_output(model, layer.mlp_write.module, path_in(model, block, family.mlp))


def path_in(model: Any, block: str, names: str) -> str | None:
    """Path of the first of the named modules that a block has."""
    paths = {path for path, _ in model.named_modules()}
    return next((f"{block}.{name}" for name in names.split("|") if name and f"{block}.{name}" in paths), None)


def same_output(model: Any, one: str, other: str) -> bool:
    """Whether two modules give the same tensor: a write may be taken from any module that only passes it on."""
    seen: dict[str, Any] = {}

    def keep(path: str) -> Any:
        return lambda _m, _i, output: seen.__setitem__(path, output[0] if isinstance(output, tuple) else output)

    handles = [model.get_submodule(path).register_forward_hook(keep(path)) for path in {one, other}]
    with torch.no_grad():
        model(IDS)
    for handle in handles:
        handle.remove()
    return torch.equal(seen[one].flatten(), seen[other].flatten())


@pytest.mark.parametrize("name", ["Llama", "GPT2", "OPT"])
def test_the_weights_columns_are_the_neurons(name: str) -> None:
    model = tiny(name)
    found = find_sites(model, IDS)
    weight, bias = found.mlp_weight(model, 0)
    assert weight.shape == (found.d_model, found.d_ff)
    seen: list[Any] = []
    last = model.get_submodule(found.layers[0].neurons.module)
    handle = last.register_forward_hook(lambda _m, inputs, output: seen.extend((inputs[0], output)))
    with torch.no_grad():
        model(IDS)
    handle.remove()
    again = seen[0].flatten(0, -2) @ weight.T + (0 if bias is None else bias)
    assert torch.allclose(again, seen[1].flatten(0, -2), atol=1e-5)


def test_a_square_weight_is_not_taken_the_wrong_way_round() -> None:
    for config, options in (("GPT2Config", {"n_inner": 32}), ("LlamaConfig", {"intermediate_size": 32})):
        family = FAMILIES["GPT2" if "GPT2" in config else "Llama"]
        found = find_sites(tiny_model(config, {**family.options, **options}), IDS)
        assert [layer.transposed for layer in found.layers] == [family.transposed] * 3


REFUSED = {
    "mixture of experts (Llama4TextMoe)": ("Llama4TextConfig", {**EXPERTS, "num_local_experts": 4, "head_dim": 8}),
    "token mixer that is known": ("xLSTMConfig", {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2}),
    "post-LN": ("OPTConfig", {**_OPT, "do_layer_norm_before": False}),
    "encoder-decoder": ("T5Config", {"vocab_size": VOCAB, "d_model": 32, "num_layers": 2, "d_ff": 40, "num_heads": 4}),
    "is not its input plus one write": ("DogeConfig", _COMMON),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_recorded_is_refused_by_name(reason: str) -> None:
    config, options = REFUSED[reason]
    with pytest.raises(ModelError) as caught:
        find_sites(tiny_model(config, options), IDS)
    assert reason in str(caught.value)
    assert config.removesuffix("Config").lower() in str(caught.value).lower()


def test_a_module_that_is_no_model_is_refused() -> None:
    with pytest.raises(ModelError, match="Linear: is not a Hugging Face model"):
        find_sites(torch.nn.Linear(2, 2), IDS)


def test_an_adapter_beside_the_last_map_is_refused() -> None:
    """W a would not be the neurons' output: column norms and explained shares would be of other weights."""
    model = tiny("Llama")
    last = model.model.layers[1].mlp.down_proj
    adapter = torch.randn(32, 72) / 10
    last.register_forward_hook(lambda _m, inputs, output: output + inputs[0] @ adapter.T)
    with pytest.raises(ModelError, match="block 1"):
        find_sites(model, IDS)


def test_something_between_two_blocks_is_refused() -> None:
    model = tiny("Llama")
    model.model.layers[2].register_forward_pre_hook(lambda _m, inputs: (inputs[0] * 2, *inputs[1:]))
    with pytest.raises(ModelError, match=r"block 2 .*not the output of the block before"):
        find_sites(model, IDS)


def test_weights_that_are_not_numbers_are_refused() -> None:
    model = tiny("Llama")
    model.model.layers[1].mlp.up_proj.weight.data[3, 4] = torch.nan
    with pytest.raises(CaptureError, match=r"block 1 .*not finite"):
        find_sites(model, IDS)


def test_finding_sites_leaves_no_hook_behind() -> None:
    for model in (tiny("Llama"), tiny_model(*REFUSED["post-LN"])):
        with suppress(ModelError):
            find_sites(model, IDS)
        assert hooks_of(model) == 0


def hooks_of(model: Any) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_blocks_that_are_given_their_input_by_keyword_are_found() -> None:
    model = tiny("Llama")
    for block in model.model.layers:
        forward = block.forward
        block.forward = lambda hidden_states, _forward=forward, **options: _forward(hidden_states, **options)
    decoder_forward = torch.nn.Module.__call__

    def by_keyword(module: Any, *args: Any, **kwargs: Any) -> Any:
        if module in list(model.model.layers) and args:
            return decoder_forward(module, hidden_states=args[0], **kwargs)
        return decoder_forward(module, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Module, "__call__", by_keyword)
        found = find_sites(model, IDS)
    assert found.layers[0].block_in.key == "hidden_states"
