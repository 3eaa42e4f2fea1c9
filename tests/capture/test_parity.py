"""Every recorded quantity equals an independent, straightforward computation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from reference import expected
from tiny import ALL_FAMILIES, FAMILIES, TEXTS

from stratoscope import names
from stratoscope.names import NORMS, PEAKS, PROMPTS, RESIDUAL

GROUPS = (NORMS, RESIDUAL, PEAKS, PROMPTS)
TOP_K = 5


class Reference:
    """What a plain forward of a family gives, computed once for the same tokens of a model of equal weights."""

    def __init__(self, family: str) -> None:
        self._family, self._known = family, dict[str, Any]()

    def __call__(self, model: Any, ids: list[int], user: list[int]) -> dict[str, Any]:
        weights = float(sum(weight.detach().double().abs().sum() for weight in model.parameters()))
        key = f"{ids} {user} {weights}"
        if key not in self._known:
            self._known[key] = expected(model, ALL_FAMILIES[self._family], ids, user, TOP_K)
        return self._known[key]


def assert_same(trace: Any, model: Any, family: str, *, tolerance: float, again: Reference | None = None) -> None:
    """All quantities of all prompts; differences are relative to values above 1."""
    reference = again or Reference(family)
    worst: dict[str, float] = {}
    for number in range(trace.sizes["prompt"]):
        tokens = np.flatnonzero(trace.prompt == number)
        ids = trace.token_id.values[tokens].tolist()
        user = np.flatnonzero(trace.span.values[tokens] == names.SPANS.index("user")).tolist()
        wanted = reference(model, ids, user)
        assert set(trace.data_vars) == set(wanted)
        for name, plain in wanted.items():
            quantity = names.QUANTITIES[name]
            values = trace[name].values
            values = values[number] if quantity.dims[0] == names.PROMPT else values[tokens]
            assert values.shape == plain.shape, name
            assert np.array_equal(np.isnan(values), np.isnan(plain)), name
            if np.isfinite(plain).any():
                size = 1.0 if quantity.dtype == "int32" else np.maximum(1, np.abs(plain))
                difference = float(np.nanmax(np.abs(values - plain) / size))
                worst[name] = max(worst.get(name, 0.0), difference)
    name = max(worst, key=lambda key: worst[key])
    assert worst[name] <= tolerance, f"{family}: {name} differs by up to {worst[name]:.2e} > {tolerance:.0e}; {worst}"


def groups_of(family: str) -> tuple[str, ...]:
    """What the family can give: without an MLP there are no neurons."""
    return GROUPS if ALL_FAMILIES[family].mlp else (NORMS, RESIDUAL)


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_every_quantity_equals_a_plain_forward_alone_and_padded_on_either_side(
    record: Callable[..., Any], family: str
) -> None:
    again = Reference(family)
    for batch_size, padding_side, tolerance in ((1, "right", 2e-5), (3, "right", 1e-3), (3, "left", 1e-3)):
        options: dict[str, Any] = {"top_k": TOP_K, "padding_side": padding_side, "overwrite": True}
        model, trace = record(family, groups_of(family), batch_size=batch_size, **options)
        assert_same(trace, model, family, tolerance=tolerance, again=again)


@pytest.mark.parametrize("family", ["Llama", "GPT2"])
def test_chat_summaries_hold_only_the_users_words(record: Callable[..., Any], family: str) -> None:
    model, trace = record(family, GROUPS, top_k=TOP_K, batch_size=2, chat=True)
    spans = set(trace.span.values.tolist())
    assert {names.SPANS.index("user"), names.SPANS.index("template")} <= spans
    assert_same(trace, model, family, tolerance=1e-3)


def test_a_prompt_without_own_words_has_no_summary_rather_than_zero(record: Callable[..., Any]) -> None:
    _, trace = record("Llama", GROUPS, texts=["a", "bc"])
    assert np.isnan(trace.prompt_mean.values[0]).all()
    assert np.isfinite(trace.prompt_mean.values[1]).all()


def test_rows_longer_than_a_piece_are_reduced_whole(
    record: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stratoscope.recorder.reduce.scratch._CACHE_BYTES", 1)  # 16 rows a piece
    model, trace = record("Gemma2", GROUPS, top_k=TOP_K, batch_size=3)
    assert_same(trace, model, "Gemma2", tolerance=1e-3)


def test_weights_beyond_the_budget_are_transposed_each_time(
    record: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stratoscope.recorder.reduce.peaks.WEIGHT_CACHE_BYTES", 10_000)  # of 3 layers the first
    model, trace = record("GPTNeoX", GROUPS, top_k=TOP_K, batch_size=3)
    assert_same(trace, model, "GPTNeoX", tolerance=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bfloat16_model_is_reduced_in_float32(record: Callable[..., Any], family: str) -> None:
    model, trace = record(family, GROUPS, top_k=TOP_K, batch_size=1, dtype=torch.bfloat16)
    number = 2
    tokens = np.flatnonzero(trace.prompt == number)
    wanted = expected(model, ALL_FAMILIES[family], trace.token_id.values[tokens].tolist(), [], TOP_K)
    # exact sums of the very bfloat16 numbers the model computed; x + attention is rounded to bfloat16, as in the model
    for name in ("resid_norm", "neuron_norm", "mlp_out_norm", "attn_write_norm", "attn_write_cos", "peak_write"):
        error = np.abs(trace[name].values[tokens] / wanted[name] - 1).max()
        assert error < 1e-4, f"{name} differs by up to {error:.1e} of its value"
    for name in ("mlp_write_cos", "peak_explained"):
        error = np.abs(trace[name].values[tokens] - wanted[name]).max()
        assert error < 2e-2, f"{name} differs by up to {error:.1e}"


def test_a_group_can_be_recorded_alone(record: Callable[..., Any]) -> None:
    for group in GROUPS:
        _, trace = record("Llama", (group,), overwrite=True)
        of_group = {quantity.name for quantity in names.quantities_of((group,))}
        assert set(trace.data_vars) == of_group - {*names.OF_SOME_MODELS}


def test_tokens_stand_in_file_order_although_batches_are_sorted_by_length(record: Callable[..., Any]) -> None:
    texts = [TEXTS[index % len(TEXTS)] + "." * index for index in range(11)]
    _, trace = record("Llama", (RESIDUAL,), texts=texts, batch_size=2)
    for number, text in enumerate(texts):
        written = "".join(trace.text.values[trace.prompt.values == number])
        assert written.encode("utf-8", "surrogateescape") == text.encode()
    assert trace.position.values[trace.prompt.values == 3].tolist() == list(range(len(texts[3].encode())))
