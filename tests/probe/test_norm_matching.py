"""Norm matching recovers the tokens of a published trace, and of class means no more than the model expects anyway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny import byte_tokenizer, tiny  # noqa: E402

from stratoscope.doors.norm_attack import norm_attack  # noqa: E402
from stratoscope.probe.norm_matching import QUANTITIES, match_norms, sampled_tokens  # noqa: E402
from stratoscope.publish.attacks.norms import published_norms  # noqa: E402

pytestmark = pytest.mark.model
Record = Callable[..., Any]


@pytest.fixture
def trace(record: Record) -> tuple[Any, Any]:
    model = tiny("Llama")
    return model, record(model, "t", floor=False).load()


def test_every_token_is_recovered_from_the_norms_of_its_first_layer(trace: tuple[Any, Any]) -> None:
    model, original = trace
    published = original.drop_vars(["text", "token_id", "span"])
    attack = norm_attack(published, original, model, tokenizer=byte_tokenizer(), tokens=8)
    assert attack.recovered is not None
    assert (attack.count, attack.recovered.value) == (8, 1)
    assert attack.baseline is not None
    assert attack.baseline.value < 0.5
    assert "Candidates left: 1 in the median" in attack.note


@pytest.mark.parametrize("family", ["Llama", "GPT2", "Gemma2"])
def test_one_norm_is_enough_and_norms_of_one_pass_are_those_behind_a_kept_beginning(
    record: Record, family: str
) -> None:
    model = tiny(family)
    original = record(model, family, floor=False, record=("norms",)).load()
    tokens = sampled_tokens(original, original["position"].values > 4, 5)
    told = {row: of for row, of in published_norms(original, original, ["mlp_out_norm"]).items() if row[1] == 0}
    found = match_norms(original, model, told, tokens)
    assert (found.by_norms == found.ids).all()
    assert (found.left <= 3).all()


def test_a_ratio_is_a_norm_too(trace: tuple[Any, Any]) -> None:
    model, original = trace
    rows = published_norms(original, original, ["attn_write_ratio", "mlp_write_ratio"])
    found = match_norms(original, model, rows, sampled_tokens(original, original["position"].values > 4, 5))
    assert (found.by_norms == found.ids).all()
    assert (found.left == 1).all()


def test_a_class_mean_gives_exactly_what_the_model_expects_anyway(trace: tuple[Any, Any]) -> None:
    model, original = trace
    told = {
        row: np.full(of.shape, np.nanmean(of)) for row, of in published_norms(original, original, QUANTITIES).items()
    }
    found = match_norms(original, model, told, sampled_tokens(original, original["position"].values > 0, 6))
    assert (found.guesses == found.blind).all()
    assert (found.left == 300).all()  # every entry of the vocabulary fits


def test_rows_of_another_text_gain_nothing(trace: tuple[Any, Any]) -> None:
    model, original = trace
    told = published_norms(original, original, QUANTITIES)
    random = np.random.default_rng(0)
    mixed = {row: random.permutation(of) for row, of in told.items()}
    found = match_norms(original, model, mixed, sampled_tokens(original, original["position"].values > 0, 6))
    assert (found.by_norms == found.ids).sum() <= 1


def test_a_sample_takes_a_second_token_of_a_prompt_last(trace: tuple[Any, Any]) -> None:
    _, original = trace
    counted = original["position"].values > 0
    first = sampled_tokens(original, counted, 10)
    assert len(set(original["prompt"].values[first])) == 10
    again = sampled_tokens(original, counted, 25)
    assert np.bincount(original["prompt"].values[again]).tolist().count(3) == 5
    assert set(first) <= set(again)


def test_a_file_without_norms_is_not_attacked(trace: tuple[Any, Any]) -> None:
    model, original = trace
    bare = original.drop_vars([name for name in QUANTITIES if name in original])
    assert "no norm" in norm_attack(bare, original, model, tokenizer=byte_tokenizer()).reason
