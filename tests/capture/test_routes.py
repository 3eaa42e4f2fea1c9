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
            edges = wanted.edges.numpy()
            for q in range(len(edges)):
                there = source[q] >= 0
                assert there.sum() == min(KEPT, np.count_nonzero(edges[q]))
                assert len({*zip(head[q][there], source[q][there], strict=True)}) == there.sum()
                found = edges[q][head[q][there], source[q][there]]
                np.testing.assert_allclose(weight[q][there], found, atol=FORWARD)  # with its sign
                most = np.sort(np.abs(edges[q]).ravel())[::-1]
                np.testing.assert_allclose(np.abs(weight[q][there]), most[: there.sum()], atol=FORWARD)  # no larger one
                assert (np.diff(np.abs(weight[q][there])) <= 0).all()
                assert np.isnan(weight[q][~there]).all()
                assert at.route_other[q] == pytest.approx(edges[q].sum() - found.sum(), abs=FORWARD)
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
