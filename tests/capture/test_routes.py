"""Routes: every edge of attention by hand in float64, the largest kept, and sums that hold in every batch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from route_reference import every_route
from tiny import ALL_FAMILIES, TEXTS, byte_tokenizer, tiny, tiny_model

from stratoscope import capture
from stratoscope.errors import CaptureError
from stratoscope.kernels import kernel
from stratoscope.model.sites import unit_roundoff
from stratoscope.recorder.attention.given import GivenScores
from stratoscope.recorder.reduce.scratch import Scratch
from stratoscope.recorder.routes import edges, reducer
from stratoscope.recorder.routes.edges import Edges
from stratoscope.recorder.routes.sums import RouteSums

KEPT = 16
FORWARD = 1e-5  # what the forward in float32 itself differs by


def run(out: Path, model: Any, prompts: Any = TEXTS, **options: Any) -> Any:
    settings: dict[str, Any] = {"record": ("residual", "routes"), "batch_size": 3}
    return capture(model, prompts, out, tokenizer=byte_tokenizer(), **{**settings, **options}).load()


def exact_eager(name: str) -> Any:
    """The model in float64, which shows its attention weights."""
    family = ALL_FAMILIES[name]
    model = tiny_model(family.config, {**family.options, "attn_implementation": "eager"}).double()
    if family.experts:
        model.set_experts_implementation("batched_mm")  # grouped matrices are not multiplied in float64
    return model


# grouped heads; biases everywhere; a parallel block; one value for all heads; a post-norm, a window and a soft-cap;
# experts, a window and a learned sink; low-rank values; a convolution that is not split; what writes are multiplied by
FAMILIES = ("Llama", "GPT2", "GPTNeoX", "Falcon", "Gemma2", "GPT-OSS", "DeepSeek-V3", "LFM2", "Granite")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_edge_is_what_eager_weights_and_float64_give_and_the_largest_are_kept(tmp_path: Path, name: str) -> None:
    family = ALL_FAMILIES[name]
    trace = run(tmp_path / "t", tiny(name))
    exact = exact_eager(name)
    for number, text in enumerate(TEXTS):
        here = trace.isel(token=trace.prompt.values == number)
        for layer, wanted in enumerate(every_route(exact, family, byte_tokenizer()(text)["input_ids"])):
            at = here.isel(layer=layer)
            for share in ("carry", "bias", "mid", "mlp"):
                np.testing.assert_allclose(at[f"route_{share}"], getattr(wanted, share), atol=FORWARD, err_msg=share)
            weight, source, head = (at[f"route_{one}"].values for one in ("weight", "source", "head"))
            if wanted.edges is None:
                assert (source == -1).all()
                assert (head == -1).all()
                assert np.isnan(weight).all()
                np.testing.assert_allclose(at.route_other, wanted.whole, atol=FORWARD)
                np.testing.assert_allclose(at.route_other_size, wanted.whole.abs(), atol=FORWARD)
                continue
            every = wanted.edges.numpy()
            for q in range(len(every)):
                there = source[q] >= 0
                assert there.sum() == min(KEPT, np.count_nonzero(every[q]))
                assert len({*zip(head[q][there], source[q][there], strict=True)}) == there.sum()
                found = every[q][head[q][there], source[q][there]]
                np.testing.assert_allclose(weight[q][there], found, atol=FORWARD)  # with its sign
                most = np.sort(np.abs(every[q]).ravel())[::-1]
                np.testing.assert_allclose(np.abs(weight[q][there]), most[: there.sum()], atol=FORWARD)  # no larger one
                assert (np.diff(np.abs(weight[q][there])) <= 0).all()
                assert np.isnan(weight[q][~there]).all()
                assert at.route_other[q] == pytest.approx(every[q].sum() - found.sum(), abs=FORWARD)
                assert at.route_other_size[q] == pytest.approx(most[there.sum() :].sum(), abs=FORWARD)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run(tmp_path_factory.mktemp("routes") / "t", tiny("Llama"))


def test_they_add_up_in_every_batch_and_the_receipt_says_within_what(recorded: Any) -> None:
    shares = recorded.route_weight.sum("route") + recorded.route_other + recorded.route_bias + recorded.route_carry
    np.testing.assert_allclose(shares, 1, atol=1e-5)
    np.testing.assert_allclose(recorded.route_mid + recorded.route_mlp, 1, atol=1e-5)
    receipt = recorded.attrs["receipt"]
    assert 0 < receipt["routes"]["error"] < receipt["routes"]["limit"] == 1e-5
    assert 0 < receipt["routes"]["mlp_error"] < 1e-5
    assert "Routes add up to the residual stream that they make, in every batch." in receipt["checks"]


@pytest.mark.parametrize("changed", ["route_weight", "route_other", "route_carry", "route_mlp"])
def test_a_part_that_is_wrong_makes_the_sum_miss(recorded: Any, changed: str) -> None:
    arrays = {name: np.array(array.values) for name, array in recorded.data_vars.items()}
    lengths = np.bincount(recorded.prompt)
    prompts = [SimpleNamespace(ids=np.arange(length)) for length in lengths]
    ids = [str(one) for one in recorded.prompt_id.values]
    sums = RouteSums(torch.float32)
    sums.check(arrays, prompts, prompts, ids)
    row = (int(lengths[0]) + 2, 1, 0)
    arrays[changed][row[: arrays[changed].ndim]] += 1e-3
    with pytest.raises(CaptureError, match="do not add up to") as raised:
        sums.check(arrays, prompts, prompts, ids)
    assert raised.value.where == f"prompt {ids[1]}"
    assert "layer 1" in raised.value.what


# --- towards a target -------------------------------------------------------------------------------------------------


def edge_effects(model: Any, text: str, token: int, against: int) -> list[torch.Tensor]:
    """Of each layer, what each edge brings to the target, [query, head, key], by autograd through its weights' output.

    Each edge gets a number by which it is multiplied, 1: the derivative by it is its effect.
    """
    ids = torch.tensor([byte_tokenizer()(text)["input_ids"]])
    factors: list[torch.Tensor] = []
    multiply = torch.matmul

    def matmul(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        if one.ndim == 4 and one.shape[-2:] == 2 * (ids.shape[1],) and one.shape[-1] != other.shape[-1]:
            factors.append(torch.ones_like(one, requires_grad=True))
            one = one * factors[-1]
        return multiply(one, other)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "matmul", matmul)
        logits = model(ids, use_cache=False).logits[0, -1]
    cap = getattr(model.config, "final_logit_softcapping", None)
    logits = cap * torch.atanh(logits / cap) if cap else logits  # what is explained is in front of it
    (logits[token] - logits[against]).backward()
    return [factor.grad[0].transpose(0, 1) for factor in factors]


@pytest.mark.parametrize("name", ["Llama", "GPT2", "Gemma2"])  # grouped heads; biases; a norm behind attention
def test_effects_of_edges_are_what_autograd_gives_and_add_up_to_those_of_heads(tmp_path: Path, name: str) -> None:
    how = {"record": ("residual", "effects", "routes"), "targets": ("N",), "against": "x", "calibration": 0, "top_k": 2}
    trace = run(tmp_path / "t", tiny(name), TEXTS[:3], **how)
    token, against = (byte_tokenizer()(letter)["input_ids"][0] for letter in "Nx")
    for number, text in enumerate(TEXTS[:3]):
        here = trace.isel(token=trace.prompt.values == number, target=0)
        for layer, brought in enumerate(edge_effects(exact_eager(name), text, token, against)):
            at = here.isel(layer=layer)
            size = float(brought.abs().max())
            for q, wanted in enumerate(brought.numpy()):
                effect, source, head = (at[f"route_effect{one}"].values[q] for one in ("", "_source", "_head"))
                there = source >= 0
                found = wanted[head[there], source[there]]
                np.testing.assert_allclose(effect[there], found, atol=1e-4 * size)
                most = np.sort(np.abs(wanted).ravel())[::-1]
                np.testing.assert_allclose(np.abs(effect[there]), most[: there.sum()], atol=1e-4 * size)
                assert at.route_effect_other[q] == pytest.approx(wanted.sum() - found.sum(), abs=1e-4 * size)
                others = most.sum() - np.abs(found).sum()
                assert at.route_effect_other_size[q] == pytest.approx(others, abs=1e-4 * size)
    sums = trace.route_effect.sum("route") + trace.route_effect_other
    np.testing.assert_allclose(sums, trace.head_effect.sum("head"), atol=1e-5)
    facts = trace.attrs["receipt"]["effects"]
    assert 0 < facts["edges_error"] < facts["edges_limit"] == 1e-5


# --- with and without the compiled kernel -----------------------------------------------------------------------------


def some_attention(
    heads: int, tokens: int, *, equal: bool, padded: bool
) -> tuple[GivenScores, torch.Tensor, torch.Tensor]:
    """Two prompts of grouped heads, which tokens are real, and what their queries read; all edges alike if `equal`."""
    random = torch.Generator().manual_seed(heads * tokens)
    query, key, value = (
        torch.randn(2, count, tokens, 4, generator=random) for count in (heads, heads // 2, heads // 2)
    )
    read = torch.randn(2, tokens, heads, 4, generator=random)
    if equal:
        query, value, read = torch.zeros_like(query), torch.ones_like(value), torch.ones_like(read)
    valid = torch.ones(2, tokens, dtype=torch.bool)
    mask = None
    if padded:
        valid[1, : tokens // 3] = False
        far = torch.ones(tokens, tokens, dtype=torch.bool).tril(-9)  # a window
        mask = (torch.ones(tokens, tokens, dtype=torch.bool).tril() & ~far)[None, None].expand(2, -1, -1, -1)
    output = torch.zeros(2, heads, tokens, 4)
    return GivenScores(query, key, value, mask, mask is None, None, None, output, output, True), valid, read


@pytest.mark.skipif(kernel("edges_f32") is None, reason="no kernel: not compiled, or older than edges.c")
@pytest.mark.parametrize("tokens", [1, 7, 33, 130])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("equal", [False, True], ids=["", "ties"])
def test_without_the_kernel_the_same_edges_are_found(
    monkeypatch: pytest.MonkeyPatch, tokens: int, padded: bool, equal: bool
) -> None:
    given, valid, read = some_attention(6, tokens, equal=equal, padded=padded)
    found = []
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr(edges, "kernel", lambda name: None)
        out = Edges.room(valid.numel(), KEPT, torch.device("cpu"))
        edges.edges_into(out, given, valid, read, Scratch(torch.device("cpu")))
        real = valid.reshape(-1)
        found.append([values[real] for values in out])
    (source, head, *sizes), (other_source, other_head, *others) = found
    for one, other in zip(sizes, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, equal_nan=True)
    if not equal:  # of equal ones any may be kept
        assert torch.equal(source, other_source)
        assert torch.equal(head, other_head)
    places = [[*zip(h, s, strict=True)] for h, s in zip(head.tolist(), source.tolist(), strict=True)]
    assert all(len({*one}) == len(one) for one in ([edge for edge in row if edge[1] >= 0] for row in places))


# --- what is proved ---------------------------------------------------------------------------------------------------


def test_a_replay_finds_edges_that_are_of_another_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums would not: they are of all heads."""
    find = reducer.edges_into

    def of_another(out: Edges, *given: Any) -> None:
        find(out, *given)
        out.head.copy_(torch.where(out.head < 0, -1, out.head ^ 1))

    monkeypatch.setattr(reducer, "edges_into", of_another)
    with pytest.raises(CaptureError, match="share of an edge of attention differs from a replay"):
        run(tmp_path / "t", tiny("Llama"))


def test_in_half_precision_the_error_is_that_of_rounding_and_the_finished_trace_is_replayed(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", tiny("Llama", torch.bfloat16), verify="full", generate=2, openers=())
    receipt = trace.attrs["receipt"]
    assert 1e-5 < receipt["routes"]["error"] < receipt["routes"]["limit"] == 4 * unit_roundoff(torch.bfloat16)
    assert {"route_weight", "route_other", "route_carry", "route_mlp"} <= {
        *receipt["replays"][-1]["largest_differences"]
    }
    assert receipt["replays"][-1]["replay"].startswith("the trace on disk")
