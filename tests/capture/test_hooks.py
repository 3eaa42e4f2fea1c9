"""Hooks come off whatever happens, and a site that is missed is an error, never a row of zeros."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sites import IDS, hooks_of
from tiny import TEXTS, byte_tokenizer, tiny

from stratoscope import capture
from stratoscope.errors import CaptureError, ModelError
from stratoscope.model.hooks import ModuleHooks, SiteHooks
from stratoscope.model.prove import prove_unchanged
from stratoscope.model.search.find import find_sites
from stratoscope.names import NORMS, PEAKS, PROMPTS, RESIDUAL, SUMMARIES
from stratoscope.recorder.input.batches import make_batch
from stratoscope.recorder.input.tokens import encode
from stratoscope.recorder.observe import Observer, forward
from stratoscope.recorder.prompts.prompt import Prompt
from stratoscope.recorder.reduce.topk import largest

FAMILIES = ["Llama", "Mistral", "Qwen2", "Gemma2", "GPT2", "GPTNeoX"]


def batch_of(*texts: str, side: str = "right") -> Any:
    tokens = [encode(Prompt(text, text=text), byte_tokenizer(), chat=False) for text in texts]
    return make_batch(tokens, pad_id=0, padding_side=side, device=torch.device("cpu"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_observed_logits_are_bit_identical(family: str, dtype: torch.dtype) -> None:
    model, batch = tiny(family, dtype), batch_of(*TEXTS, side="left")
    unobserved = forward(model, batch).logits
    with Observer(model, find_sites(model, IDS), SUMMARIES, 5) as observer:
        _, output = observer.record(batch)
    assert torch.equal(unobserved, output.logits)
    assert hooks_of(model) == 0


def test_hooks_are_removed_after_an_error_inside() -> None:
    model = tiny("Llama")
    observer = Observer(model, find_sites(model, IDS), SUMMARIES, 5)
    with observer:
        assert hooks_of(model) > 0
    with pytest.raises(ZeroDivisionError), observer:
        raise ZeroDivisionError
    assert hooks_of(model) == 0


def test_hooks_are_removed_when_the_model_itself_fails() -> None:
    model = tiny("Llama")
    observer = Observer(model, find_sites(model, IDS), (NORMS,), 5)
    broken = batch_of("a")
    broken.input_ids[0, 0] = 10**6
    with pytest.raises(IndexError), observer:
        observer.record(broken)
    assert hooks_of(model) == 0


def test_a_hook_that_cannot_be_put_on_takes_the_others_off() -> None:
    model = tiny("Llama")
    modules = {"good": model.model.layers[0], "bad": None}
    with pytest.raises(AttributeError), ModuleHooks(modules, before=lambda *_: None, after=None):  # type: ignore[arg-type]
        pass
    assert hooks_of(model) == 0


def test_a_missed_site_is_an_error_and_never_zeros() -> None:
    model = tiny("Llama")
    sites = find_sites(model, IDS)
    skipped = model.model.layers[1]
    skipped.forward = lambda hidden_states, **_: hidden_states  # nothing inside is called any more
    with (
        pytest.raises(CaptureError, match=r"layer 1 .*0 times in one forward"),
        Observer(model, sites, (NORMS,), 5) as observer,
    ):
        observer.record(batch_of("hello"))


def test_a_site_that_is_passed_twice_is_an_error() -> None:
    model = tiny("Llama")
    sites = find_sites(model, IDS)
    with SiteHooks(model, sites, lambda *_: None) as hooks:
        forward(model, batch_of("a"))
        forward(model, batch_of("a"))
        with pytest.raises(CaptureError, match="2 times"):
            hooks.expect_once()


def test_a_tensor_that_the_model_overwrites_is_an_error_and_never_a_wrong_cosine() -> None:
    model = tiny("Llama")
    sites = find_sites(model, IDS)
    first, streams = model.model.layers[0], []
    first.register_forward_pre_hook(lambda _m, inputs: streams.append(inputs[0]))

    def overwrite(*_: Any) -> None:
        streams[-1].mul_(2)

    first.input_layernorm.register_forward_hook(overwrite)
    with (
        pytest.raises(CaptureError, match=r"block input of layer 0 .*overwrites"),
        Observer(model, sites, (NORMS,), 5) as observer,
    ):
        observer.record(batch_of("hello"))


def test_a_model_that_observing_changes_is_refused() -> None:
    logits = torch.zeros(3, 4)
    with pytest.raises(ModelError, match="recording changes what it computes"):
        prove_unchanged(lambda: logits, lambda: logits + 1e-7, where="m")


def test_a_machine_that_does_not_repeat_itself_is_reported_not_hidden() -> None:
    runs = iter([torch.zeros(3, 4), torch.full((3, 4), 1e-3), torch.full((3, 4), 2e-3)])
    proof = prove_unchanged(lambda: next(runs), lambda: next(runs), where="m")
    assert not proof.bit_identical
    assert proof.repeat_max_abs == pytest.approx(1e-3)
    assert proof.observed_max_abs == pytest.approx(2e-3)


@pytest.mark.parametrize("group", [NORMS, RESIDUAL, PEAKS, PROMPTS])
def test_numbers_that_are_not_finite_name_prompt_and_layer(tmp_path: Path, group: str) -> None:
    model = tiny("Llama")
    row = encode(Prompt("x", text="~"), byte_tokenizer(), chat=False).ids[0]
    model.model.embed_tokens.weight.data[row] = torch.nan  # only prompts with this byte break
    texts = ["fine " * 9, "also fine", "so is this", "bro~ken"]
    with pytest.raises(CaptureError, match=r"prompt p0004, (layer|depth) 0: .*not finite"):
        capture(model, texts, tmp_path / "t", record=(group,), tokenizer=byte_tokenizer(), batch_size=2)
    assert hooks_of(model) == 0
    assert not (tmp_path / "t").exists()


rows = st.integers(1, 5).flatmap(
    lambda count: st.integers(20, 600).flatmap(
        lambda columns: st.tuples(st.just(count), st.just(columns), st.integers(1, 12), st.integers(0, 2**31))
    )
)


@settings(max_examples=60, deadline=None)
@given(rows)
def test_the_fast_top_k_is_exact(case: tuple[int, int, int, int]) -> None:
    count, columns, k, seed = case
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(count, columns, generator=generator)
    scores[:, ::3] = (scores[:, ::3] * 4).round() / 4  # many equal numbers, and zeros
    scores[0, 0] = torch.inf
    values, neurons = largest(scores, k)
    assert torch.equal(values, torch.topk(scores, k).values)
    assert torch.equal(scores.gather(1, neurons), values)
    assert all(len(set(row)) == k for row in neurons.tolist())


def test_the_fast_top_k_lets_a_nan_through() -> None:
    scores = torch.rand(2, 512)
    scores[1, 77] = torch.nan
    values, neurons = largest(scores, 5)
    assert values[1, 0].isnan()
    assert neurons[1, 0] == 77
