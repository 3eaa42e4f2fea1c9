"""Sums of attention rows, without a model: against the definitions, whatever the size of a chunk."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attention_reference import compare, expected, real_mask
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.recorder.attention import rows as attention_rows
from stratoscope.recorder.attention.rows import Mask, ScoreRows, WeightRows
from stratoscope.recorder.attention.sums import AttentionSums
from stratoscope.recorder.reduce.scratch import Scratch


def reduce(rows: ScoreRows | WeightRows, mask: Mask, scratch: Scratch | None = None) -> dict[str, torch.Tensor]:
    sums = AttentionSums(mask.queries, rows.heads)
    sums.add(rows, mask, scratch or Scratch(rows.device))
    return sums.result()


def whole(length: int, prompts: int = 1, given: torch.Tensor | None = None, causal: bool = True) -> Mask:
    return Mask.whole(torch.ones(prompts, length, dtype=torch.bool), given, causal)


def uniform(mask: np.ndarray) -> torch.Tensor:
    rows = mask / np.maximum(mask.sum(-1, keepdims=True), 1)
    return torch.tensor(rows, dtype=torch.float32)[None, None]


@given(length=st.integers(1, 60), window=st.none() | st.integers(1, 60), pads=st.integers(0, 59), left=st.booleans())
@settings(deadline=None)
def test_uniform_attention_receives_exactly_one_everywhere(
    length: int, window: int | None, pads: int, left: bool
) -> None:
    pads = min(pads, length - 1)
    valid = np.ones(length, bool)
    valid[: pads if left else 0] = False
    valid[length if left else length - pads :] = False
    mask = real_mask(length, window) & valid[:, None] & valid[None, :]
    given_mask = torch.tensor(mask)[None, None]
    found = reduce(WeightRows(uniform(mask)), Mask.whole(torch.tensor(valid)[None], given_mask, causal=False))
    first = int(np.flatnonzero(valid)[0])
    for name in ("attn_received", "attn_received_nosink"):
        seen = (mask & ~np.eye(length, dtype=bool)).sum(0) > 0
        if name.endswith("nosink"):
            seen[first] = False
        values = found[name][0, :, 0].numpy()
        assert np.array_equal(~np.isnan(values), seen & valid)
        assert np.allclose(values[seen], 1, atol=1e-5)
    entropy = found["attn_entropy"][0, :, 0].numpy()
    assert np.array_equal(~np.isnan(entropy), mask.sum(-1) > 1)
    assert np.allclose(entropy[mask.sum(-1) > 1], 1, atol=1e-5)


@pytest.mark.parametrize("elements", [1, 700, 1 << 20])
def test_the_size_of_a_chunk_changes_nothing(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    length = 60
    query, key = torch.randn(2, 4, length, 8) * 3, torch.randn(2, 2, length, 8)
    weights = (query @ key.repeat_interleave(2, 1).transpose(2, 3) * 0.3).masked_fill(
        ~torch.tensor(real_mask(length, None)), -torch.inf
    )
    weights = weights.softmax(-1).double().numpy()
    monkeypatch.setattr(attention_rows, "_CHUNK_ELEMENTS", {"cpu": elements})
    mask = whole(length, prompts=2)
    assert (len(list(mask.chunks(4))) == 1) == (elements > 1000)
    found = reduce(ScoreRows(query, key, 0.3), mask)
    for prompt, head in np.ndindex(2, 4):
        valid = np.ones(length, bool)
        for name, wanted in expected(weights[prompt, head], real_mask(length, None), valid).items():
            compare(found[name][prompt, :, head].double().numpy(), wanted, name)


def test_a_sink_of_nearly_all_mass_leaves_the_rest_exact() -> None:
    length = 12
    scores = torch.randn(1, 1, length, length, generator=torch.Generator().manual_seed(0))
    scores[..., 0] += 18  # e^-18 of the mass is left for the others, less than float32 can tell from 1
    mask = real_mask(length, None)
    exact = scores.double().masked_fill(~torch.tensor(mask), -torch.inf).softmax(-1)[0, 0].numpy()
    query, key = scores[0, 0][None, None], torch.eye(length)[None, None]
    found = reduce(ScoreRows(query, key, 1.0), whole(length))
    for name, wanted in expected(exact, mask, np.ones(length, bool)).items():
        if name.endswith("nosink"):
            compare(found[name][0, :, 0].double().numpy(), wanted, name, 1e-5)


def test_what_float32_cannot_tell_beside_a_sink_is_missing_not_made_up() -> None:
    length = 6
    scores = torch.zeros(1, 1, length, length)
    scores[..., 0] = 80
    found = reduce(ScoreRows(scores, torch.eye(length)[None, None], 1.0), whole(length))
    assert all(found[name].isnan().all() for name in found if name.endswith("nosink"))
    assert torch.equal(found["attn_first"][0, :, 0], torch.ones(length))


def test_position_bias_and_additive_masks_count() -> None:
    torch.manual_seed(5)
    length = 17
    query, key = torch.randn(1, 2, length, 8), torch.randn(1, 2, length, 8)
    bias = torch.randn(1, 2, length, length)
    allowed = torch.tensor(real_mask(length, 5))
    additive = torch.zeros(1, 1, length, length).masked_fill(~allowed, torch.finfo(torch.float32).min)
    weights = (query @ key.transpose(2, 3) * 0.5 + bias).masked_fill(~allowed, -torch.inf).softmax(-1)
    found = reduce(ScoreRows(query, key, 0.5, additive, bias), whole(length, given=additive))
    for head in range(2):
        wanted = expected(weights[0, head].double().numpy(), allowed.numpy(), np.ones(length, bool))
        for name, values in wanted.items():
            compare(found[name][0, :, head].double().numpy(), values, name)


def test_tokens_that_see_forward_are_summed_over_all_they_see() -> None:
    torch.manual_seed(6)
    length = 9
    query, key = torch.randn(1, 1, length, 8), torch.randn(1, 1, length, 8)
    weights = (query @ key.transpose(2, 3)).softmax(-1)[0, 0].double().numpy()
    found = reduce(ScoreRows(query, key, 1.0), whole(length, causal=False))
    for name, wanted in expected(weights, np.ones((length, length), bool), np.ones(length, bool)).items():
        compare(found[name][0, :, 0].double().numpy(), wanted, name)


def test_the_whole_square_of_weights_never_exists() -> None:
    length, heads = 3000, 4
    scratch = Scratch(torch.device("cpu"))
    query, key = torch.randn(1, heads, length, 8), torch.randn(1, heads, length, 8)
    reduce(ScoreRows(query, key, 0.3), whole(length), scratch)
    largest = max(buffer.numel() for buffer in scratch._flat.values())
    assert largest < heads * length * length / 20


@pytest.mark.parametrize("hidden", [torch.finfo(torch.float32).min, -torch.inf])
def test_a_query_that_sees_nothing_leaves_the_others_alone(hidden: float) -> None:
    length = 9
    query, key = torch.randn(1, 1, length, 8), torch.randn(1, 1, length, 8)
    allowed = torch.tensor(real_mask(length, None))
    allowed[3] = False
    additive = torch.zeros(1, 1, length, length).masked_fill(~allowed, hidden)
    valid = torch.ones(1, length, dtype=torch.bool)
    valid[0, 3] = False  # padding in the middle, whose row is masked whole
    found = reduce(ScoreRows(query, key, 1.0, additive), Mask.whole(valid, additive, causal=False))
    for name, values in found.items():
        assert values[0, 3].isnan().all(), name
        assert not values[0, 4:-1].isnan().any(), name


def test_sums_go_on_in_further_forwards_and_keep_no_square() -> None:
    torch.manual_seed(7)
    length, split, window = 40, 22, 6
    query, key = torch.randn(2, 4, length, 8), torch.randn(2, 2, length, 8)
    allowed = torch.tensor(real_mask(length, window))[None, None]
    at_once = reduce(ScoreRows(query, key, 0.4), whole(length, 2, allowed))
    valid = torch.ones(2, length, dtype=torch.bool)
    sums, scratch = AttentionSums(valid[:, :split], 4), Scratch(torch.device("cpu"))
    sums.add(
        ScoreRows(query[:, :, :split], key[:, :, :split], 0.4), whole(split, 2, allowed[..., :split, :split]), scratch
    )
    for step in range(split, length):
        low = step - window + 1  # older keys are dropped
        mask = Mask(valid[:, :1], valid[:, low : step + 1], None, False, step, low)
        sums.extend(valid[:, : step + 1])
        sums.add(ScoreRows(query[:, :, step : step + 1], key[:, :, low : step + 1], 0.4), mask, scratch)
    for name, values in sums.result().items():
        compare(values.numpy(), at_once[name].numpy(), name)
    assert sums._keys.numel() <= 2 * 9 * 2 * 1.5 * length


def test_scratch_is_one_buffer_for_each_name_device_and_dtype() -> None:
    scratch = Scratch(torch.device("cpu"))
    one, other = scratch.get("a", 4), scratch.get("a", 4, device=torch.device("meta"))
    assert (one.device.type, other.device.type) == ("cpu", "meta")
    one.fill_(1)
    assert scratch.get("a", 4, dtype=torch.int32).data_ptr() != one.data_ptr()
    assert scratch.get("a", 2).data_ptr() == one.data_ptr()
