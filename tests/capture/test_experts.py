"""Mixtures of experts: whatever function computes them, the neurons are put back where they belong, or refused."""

from __future__ import annotations

import csv
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from test_hooks import batch_of
from tiny import _COMMON, ALL_FAMILIES, byte_tokenizer, tiny, tiny_model

from stratoscope import capture, export_csv, heatmap, peaks3d
from stratoscope.errors import CaptureError, InputError, ModelError
from stratoscope.model.experts import BY_EXPERT, BY_TOKEN, EXPERT_BY_EXPERT
from stratoscope.model.search.find import find_sites
from stratoscope.names import NORMS, PEAKS, PROMPTS
from stratoscope.recorder.observe import Observer

IDS = torch.arange(5, 25)[None]
TEXT = ["a text that is long enough for every expert", "two"]
MIXTURES = [name for name, family in ALL_FAMILIES.items() if family.experts]


@pytest.mark.parametrize(
    ("family", "implementation", "order"),
    [
        ("Mixtral", "grouped_mm", BY_EXPERT),
        ("Mixtral", "batched_mm", BY_TOKEN),
        ("GPT-OSS", "batched_mm", BY_TOKEN),
        ("GPT-OSS", "eager", EXPERT_BY_EXPERT),
    ],
)
def test_every_implementation_of_the_experts_gives_the_same_record(
    tmp_path: Any, family: str, implementation: str, order: str
) -> None:
    found = {}
    for name in ("grouped_mm", implementation):
        model = tiny(family)
        model.set_experts_implementation(name)
        groups = (NORMS, PEAKS, PROMPTS)
        found[name] = capture(
            model, TEXT, tmp_path / name, tokenizer=byte_tokenizer(), record=groups, overwrite=True
        ).load()
    assert {layer.experts.order for layer in find_sites(model, IDS).layers if layer.experts} == {order}
    for name, values in found["grouped_mm"].data_vars.items():
        np.testing.assert_allclose(
            found[implementation][name].values, values.values, rtol=1e-4, atol=1e-5, err_msg=name
        )


@pytest.mark.parametrize(("found", "then"), [("grouped_mm", "batched_mm"), ("batched_mm", "grouped_mm")])
def test_experts_that_change_their_implementation_keep_their_neurons(found: str, then: str) -> None:
    # as transformers does by itself on a GPU, between a prompt and its answer
    model = tiny("Qwen2-MoE")
    model.set_experts_implementation(found)
    arrays = []
    with Observer(model, find_sites(model, IDS), (NORMS, PEAKS), 5) as observer:
        for implementation in (found, then):
            model.set_experts_implementation(implementation)
            arrays.append(observer.record(batch_of(*TEXT))[0])
    for name, values in arrays[0].items():
        np.testing.assert_allclose(arrays[1][name], values, rtol=1e-4, atol=1e-5, err_msg=name)


def test_an_implementation_that_no_gate_is_called_in_is_refused() -> None:
    model = tiny("Mixtral")
    model.set_experts_implementation("eager")
    with pytest.raises(ModelError, match=r"mixture of experts .*way of its own"):
        find_sites(model, IDS)


@pytest.mark.parametrize("family", MIXTURES)
def test_observing_experts_leaves_the_logits_bit_identical(record: Callable[..., Any], family: str) -> None:
    _, trace = record(family, (NORMS, PEAKS, PROMPTS))
    assert trace.attrs["receipt"]["logits_bit_identical"]


@pytest.mark.parametrize("family", MIXTURES)
@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_a_bfloat16_mixture_is_recorded(record: Callable[..., Any], family: str, dtype: torch.dtype) -> None:
    _, trace = record(family, (NORMS, PEAKS, PROMPTS), dtype=dtype, batch_size=2)
    explained = trace.peak_explained.values
    assert np.isfinite(explained).all()
    assert np.abs(explained).max() < 2


def test_the_neurons_write_what_the_mixture_puts_out(record: Callable[..., Any]) -> None:
    """With k as large as it can be the peaks explain everything: 1, whatever the experts, gates and biases do."""
    for family, every in (("Mixtral", 2 * 72), ("GPT-OSS", 2 * 72), ("Qwen2-MoE", 72)):
        _, trace = record(family, (PEAKS,), top_k=every, overwrite=True)
        whole = trace.peak_explained.values[:, 0 if family == "Qwen2-MoE" else slice(None)]
        np.testing.assert_allclose(whole, 1, atol=1e-4, err_msg=family)


def test_a_shared_experts_bias_is_nobodys_activity(tmp_path: Any) -> None:
    shape = {"moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 1, "moe_intermediate_size": 24}
    model = tiny_model("Ernie4_5_MoeConfig", {**_COMMON, **shape, "use_bias": True, "moe_layer_start_index": 1})
    trace = capture(model, TEXT, tmp_path / "t", tokenizer=byte_tokenizer(), record=(PEAKS,), top_k=72)
    np.testing.assert_allclose(trace.peak_explained.values[:, 1:], 1, atol=1e-4)


def test_the_routers_choice_is_not_drawn_as_a_map(record: Callable[..., Any]) -> None:
    _, trace = record("Mixtral", (NORMS,))
    with pytest.raises(InputError, match="router_weight"):
        heatmap(trace, quantity="router_weight")


def test_more_peaks_than_a_token_has_active_neurons_are_refused(record: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"top-k is 145, but at a token 144 neurons are active"):
        record("Mixtral", (PEAKS,), top_k=145)


def test_the_trace_says_what_the_neuron_axis_is(record: Callable[..., Any]) -> None:
    _, trace = record("DeepSeek-V3", (PROMPTS,))
    assert trace.attrs["model"]["mlps"] == [
        {"layers": [0], "experts": 0, "expert_width": 0, "dense_width": 72},
        {"layers": [1, 2], "experts": 4, "expert_width": 24, "dense_width": 48},
    ]
    assert trace.sizes["neuron"] == 4 * 24 + 48
    assert np.isnan(trace.prompt_mean.values[:, 0, 72:]).all()


def test_an_expert_that_no_token_chose_is_missing_not_zero(record: Callable[..., Any]) -> None:
    _, trace = record("Mixtral", (NORMS, PROMPTS), texts=["ab"])
    chosen = set(trace.router_expert.values[1, 0].tolist())  # of the only token that counts
    summary = trace.prompt_max.values[0, 0].reshape(4, 72)
    assert [bool(np.isfinite(row).all()) for row in summary] == [expert in chosen for expert in range(4)]
    assert [bool(np.isnan(row).all()) for row in summary] == [expert not in chosen for expert in range(4)]


def test_dense_blocks_of_a_mixture_have_no_router(record: Callable[..., Any]) -> None:
    _, trace = record("Qwen3-MoE", (NORMS, PEAKS))
    assert (trace.router_expert.values[:, 1] == -1).all()
    assert np.isnan(trace.router_weight.values[:, 1]).all()
    assert (trace.peak_expert.values[:, 1] == -1).all()
    assert (trace.peak_expert.values[:, [0, 2]] >= 0).all()


def test_experts_that_run_otherwise_than_they_were_found_are_an_error(
    record: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stratoscope.recorder import recording

    found = recording.find_sites

    def then_skipped(model: Any, ids: Any) -> Any:
        sites = found(model, ids)
        model.model.layers[1].mlp.experts.forward = lambda hidden, *_: hidden
        return sites

    monkeypatch.setattr(recording, "find_sites", then_skipped)
    with pytest.raises(CaptureError, match=r"experts of layer 1: .*did not compute"):
        record("Mixtral", (NORMS,))


def test_recording_leaves_the_experts_as_they_were(record: Callable[..., Any]) -> None:
    for family in ("Mixtral", "GPT-OSS"):
        model, _ = record(family, (NORMS, PEAKS), overwrite=True)
        assert not any("_apply_gate" in vars(module) for module in model.modules())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_model_without_an_mlp_says_so(record: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"no MLP, so no neurons for peaks and prompts.*--record norms"):
        record("Mamba", (NORMS, PEAKS, PROMPTS))
    _, trace = record("Mamba", (NORMS,))
    assert set(trace.data_vars) == {"attn_write_norm", "attn_write_ratio", "attn_write_cos"}
    limits = trace.attrs["receipt"]["limits"]
    assert any("MambaMixer" in limit for limit in limits)
    assert any("no MLP" in limit for limit in limits)


def test_which_mixers_are_not_attention_is_a_named_limit(record: Callable[..., Any]) -> None:
    _, trace = record("Jamba", (NORMS,))
    assert any("Layers 0, 2" in limit and "JambaMambaMixer" in limit for limit in trace.attrs["receipt"]["limits"])


def test_exported_and_drawn_peaks_name_their_expert(record: Callable[..., Any], tmp_path: Any) -> None:
    _, trace = record("Qwen3-MoE", (NORMS, PEAKS), texts=TEXT[:1])
    (file,) = export_csv(trace, tmp_path / "peaks.csv")
    rows = list(csv.DictReader(file.open(newline="")))
    assert [int(row["Expert"]) for row in rows] == trace.peak_expert.values.flatten().tolist()
    figure = peaks3d(trace)
    cards = {str(card[3]) for drawn in figure.data if drawn.customdata is not None for card in drawn.customdata}
    assert any("of expert" in card for card in cards)
    assert any("of expert" not in card for card in cards)  # block 1 is dense
