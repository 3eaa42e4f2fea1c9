"""The tokens that a model embeds are the tokenizer's, in every forward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TEXTS, byte_tokenizer, tiny
from torch import nn

from stratoscope import capture
from stratoscope.errors import CaptureError
from stratoscope.names import RESIDUAL

OTHER = 7


def run(model: Any, out: Path) -> Any:
    return capture(model, TEXTS, out, record=(RESIDUAL,), batch_size=2, tokenizer=byte_tokenizer())


def swap_after(forwards: int) -> Any:
    """A hook that gives the embedding other ids after some forwards."""
    calls = [0]

    def swap(module: nn.Module, args: tuple[Any, ...]) -> Any:
        calls[0] += 1
        if calls[0] > forwards:
            ids = args[0].clone()
            ids[0, -1] = OTHER
            return (ids, *args[1:])
        return None

    return swap, calls


def test_a_model_that_embeds_other_tokens_is_refused_at_once(tmp_path: Path) -> None:
    model = tiny("Llama")
    model.model.embed_tokens.register_forward_pre_hook(swap_after(0)[0])
    with pytest.raises(CaptureError, match="the token ids that the model embedded are not those it was given"):
        run(model, tmp_path / "t")


def test_a_model_that_embeds_other_tokens_later_is_found_in_that_batch(tmp_path: Path) -> None:
    model = tiny("Llama")
    hook, calls = swap_after(10**9)
    handle = model.model.embed_tokens.register_forward_pre_hook(hook)
    run(model, tmp_path / "whole")
    handle.remove()
    hook, _ = swap_after(calls[0] - 1)  # only the last of the three batches
    model.model.embed_tokens.register_forward_pre_hook(hook)
    with pytest.raises(CaptureError, match="embedded are not those it was given"):
        run(model, tmp_path / "t")


def test_ids_that_are_changed_in_place_are_found(tmp_path: Path) -> None:
    model = tiny("Llama")

    def overwrite(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kwargs["input_ids"].fill_(OTHER)

    model.register_forward_pre_hook(overwrite, with_kwargs=True)
    with pytest.raises(CaptureError, match="tokens given to the model are not the tokenizer's"):
        run(model, tmp_path / "t")


def test_a_model_that_does_not_call_its_embedding_is_recorded_and_says_so(tmp_path: Path) -> None:
    model = tiny("Llama")
    model.get_input_embeddings = lambda: nn.Embedding(300, 2)
    receipt = run(model, tmp_path / "t").attrs["receipt"]
    assert receipt["limits"] == [
        "The model does not call its input embedding: token ids are compared as they are handed to the model, "
        "not as it embeds them."
    ]


def test_a_model_without_an_input_embedding_is_recorded_and_says_so(tmp_path: Path) -> None:
    model = tiny("Llama")

    def nothing() -> None:
        raise NotImplementedError

    model.get_input_embeddings = nothing
    receipt = run(model, tmp_path / "t").attrs["receipt"]
    assert receipt["limits"][0].startswith("The model has no input embedding")


def test_an_embedding_that_is_skipped_later_is_found(tmp_path: Path) -> None:
    model = tiny("Llama")
    real, calls = model.model.embed_tokens.forward, [0]

    class Sometimes(nn.Embedding):
        def __call__(self, ids: torch.Tensor) -> torch.Tensor:
            calls[0] += 1
            return real(ids) if calls[0] > 7 else super().__call__(ids)  # past its hooks

    model.model.embed_tokens.__class__ = Sometimes
    with pytest.raises(CaptureError, match="it embedded token ids 0 times in 1 forwards instead of 1 each"):
        run(model, tmp_path / "t")
