"""Lenses: what each depth of the residual stream reads as tokens, against a plain computation in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_contributions import granite
from tiny import ALL_FAMILIES, TEXTS, byte_tokenizer, tiny, tiny_model

from stratoscope import capture, names
from stratoscope.errors import CaptureError, InputError, ModelError, UsageError
from stratoscope.recorder.lens.fitted import FittedLens
from stratoscope.recorder.lens.tokens import read, room

GENERATED = names.SPANS.index("generated")
TARGETS = ("N", "Y")


def run(out: Path, model: Any, **options: Any) -> Any:
    settings: dict[str, Any] = {"record": ("norms", "lens"), "batch_size": 3}
    return capture(model, TEXTS, out, tokenizer=byte_tokenizer(), **{**settings, **options}).load()


def of_prompt(trace: Any, number: int) -> np.ndarray:
    return np.flatnonzero((trace.prompt.values == number) & (trace.span.values != GENERATED))


# --- by hand ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def by_hand(family: str, model: Any, ids: np.ndarray) -> Any:
    """Logits of every depth and token, [depth, token, vocabulary], float64, as a person would write them."""
    root = model.transformer if family == "GPT2" else model.model
    blocks, norm = (root.h, root.ln_f) if family == "GPT2" else (root.layers, root.norm)
    stream: list[Any] = []
    handles = [blocks[0].register_forward_pre_hook(lambda _, args: stream.append(args[0][0].double()))]

    def keep(_: Any, __: Any, output: Any) -> None:
        stream.append((output[0] if isinstance(output, tuple) else output).view(len(ids), -1).double())

    handles += [block.register_forward_hook(keep) for block in blocks]
    model(torch.from_numpy(ids.astype(np.int64))[None], use_cache=False)
    for handle in handles:
        handle.remove()
    x = torch.stack(stream)
    if family in ("GPT2", "Cohere"):
        x = x - x.mean(-1, keepdim=True)
    x = x / (x.square().mean(-1, keepdim=True) + (1e-5 if family in ("GPT2", "Cohere") else 1e-6)).sqrt()
    x = x * (norm.weight.double() + (1 if family == "Gemma2" else 0))
    if family == "GPT2":
        x = x + norm.bias.double()
    head = model.get_output_embeddings()
    logits = x @ head.weight.double().T
    logits = logits if head.bias is None else logits + head.bias.double()
    logits = logits * (0.0625 if family == "Cohere" else 1 / 3 if family == "Granite" else 1.0)
    return 30 * (logits / 30).tanh() if family == "Gemma2" else logits


def biased_head() -> Any:
    """GPT-2 whose final norm has a β and whose head has a bias."""
    model = tiny("GPT2")
    torch.manual_seed(1)
    model.transformer.ln_f.bias.data.normal_()
    model.lm_head = torch.nn.Linear(32, model.config.vocab_size, bias=True)
    return model.eval()


MODELS = {
    "Llama": lambda: tiny("Llama"),
    "GPT2": biased_head,
    "Gemma2": lambda: tiny("Gemma2"),
    "Granite": granite,
    "Cohere": lambda: tiny("Cohere"),
    "Mixtral": lambda: tiny("Mixtral"),
}


@pytest.mark.parametrize("family", MODELS)
def test_every_depth_reads_as_the_plain_formula_says(family: str, tmp_path: Path) -> None:
    model = MODELS[family]()
    trace = run(tmp_path / "t", model, targets=TARGETS, positions="all")
    tokens = torch.from_numpy(trace.target_token.values[[0] * len(trace.token)]).long()
    for number in range(len(TEXTS)):
        rows = of_prompt(trace, number)
        logits = by_hand(family, model, trace.token_id.values[rows])[..., : len(byte_tokenizer())]
        log_p = logits.log_softmax(-1)
        best = log_p.sort(dim=-1, descending=True, stable=True)
        of = trace.isel(token=rows, lens=0).transpose(names.DEPTH, ...)
        assert np.array_equal(of.lens_token.values, best.indices[..., :5].numpy())
        np.testing.assert_allclose(of.lens_logprob.values, best.values[..., :5].numpy(), rtol=2e-4, atol=2e-5)
        answer = log_p[-1].argmax(-1)[None, :, None].expand(len(log_p), -1, 1)
        wanted = torch.cat((answer, tokens[rows].expand(len(log_p), -1, -1)), -1)
        own = log_p.gather(-1, wanted)
        rank = 1 + (log_p[..., None] > own[:, :, None]).sum(2)
        np.testing.assert_allclose(of.lens_answer_logprob.values, own[..., 0].numpy(), rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(of.lens_target_logprob.values, own[..., 1:].numpy(), rtol=2e-4, atol=2e-5)
        assert np.array_equal(of.lens_answer_rank.values, rank[..., 0].numpy())
        assert np.array_equal(of.lens_target_rank.values, rank[..., 1:].numpy())
        uncapped = 30 * (logits / 30).atanh() if family == "Gemma2" else logits
        y = uncapped.gather(-1, wanted[..., 1:]) - uncapped.mean(-1, keepdim=True)
        np.testing.assert_allclose(of.lens_target_logit.values, y.numpy(), rtol=1e-3, atol=1e-4)


def test_rows_that_pad_the_vocabulary_are_no_tokens(tmp_path: Path) -> None:
    model = tiny("Llama")
    padding = slice(len(byte_tokenizer()), None)
    with torch.no_grad():
        model.lm_head.weight[padding] = 50 * model.lm_head.weight[:1]  # likeliest by far, or least
    trace = run(tmp_path / "t", model, positions="all")
    assert trace.lens_token.values.max() < len(byte_tokenizer())
    assert (np.exp(trace.lens_logprob.values).sum(-1) <= 1 + 1e-5).all()


def test_of_equal_logits_the_lower_number_stands_first_and_none_is_likelier() -> None:
    logits = torch.full((3, room(100)), -torch.inf)
    logits[:, :100] = torch.randn(3, 100, generator=torch.Generator().manual_seed(0))
    logits[0, [7, 70, 71, 99]] = 4.0
    logits[1, :100] = 0.0
    logits[2, 50] = logits[2, 3] = 9.0
    found = read(logits, torch.tensor([[70, 8], [99, 0], [50, 3]]), 5)
    assert found.token[0, :4].tolist() == [7, 70, 71, 99]
    assert found.token[1].tolist() == [0, 1, 2, 3, 4]
    assert found.token[2, :2].tolist() == [3, 50]
    assert found.rank_of[0, 0] == 1
    assert found.rank_of[1].tolist() == [1, 1]
    assert found.rank_of[2].tolist() == [1, 1]
    assert found.rank_of[0, 1] == 1 + (logits[0] > logits[0, 8]).sum()
    torch.testing.assert_close(found.logprob, logits.log_softmax(-1).gather(1, found.token))


# --- where ------------------------------------------------------------------------------------------------------------


def test_by_default_the_last_four_tokens_of_each_prompt_are_read_and_none_of_an_answer(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", tiny("Llama"), generate=3, targets=TARGETS)
    read_at = np.isfinite(trace.lens_logprob.values).all((1, 2, 3))
    for number in range(len(TEXTS)):
        rows = of_prompt(trace, number)
        assert np.flatnonzero(read_at & (trace.prompt.values == number)).tolist() == rows[-4:].tolist()
    assert (trace.lens_token.values[~read_at] == -1).all()
    assert (trace.lens_target_rank.values[~read_at] == -1).all()
    assert np.isnan(trace.lens_logprob.values[~read_at]).all()
    assert np.isfinite(trace.lens_target_logit.values).all()  # of every token
    assert trace.attrs["plan"]["lenses"] == ["logit"]
    assert trace.attrs["plan"]["positions"] == "answer"


def test_at_all_positions_the_tokens_of_answers_are_read_too_and_predict_what_was_written(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", tiny("Llama"), generate=3, positions="all")
    assert (trace.lens_token.values >= 0).all()
    written = np.flatnonzero(trace.span.values == GENERATED)
    real = trace.token_id.values[written] < len(byte_tokenizer())  # the tiny model may write padding of its vocabulary
    assert real.sum() > 3
    assert (trace.lens_token.values[written - 1, -1, 0, 0] == trace.token_id.values[written])[real].all()


def test_the_last_depth_is_the_models_own_logits_copied(tmp_path: Path) -> None:
    model = tiny("Llama").to(torch.bfloat16)
    trace = run(tmp_path / "t", model, batch_size=1, positions="all")
    rows = of_prompt(trace, 0)
    with torch.no_grad():
        own = model(torch.from_numpy(trace.token_id.values[rows].astype(np.int64))[None], use_cache=False).logits[0]
    best = own[:, : len(byte_tokenizer())].float().log_softmax(-1).sort(dim=-1, descending=True, stable=True)
    assert np.array_equal(trace.lens_token.values[rows, -1, 0], best.indices[:, :5].numpy())
    np.testing.assert_allclose(trace.lens_logprob.values[rows, -1, 0], best.values[:, :5].numpy(), rtol=1e-5)
    said = trace.attrs["receipt"]["lens"]
    assert 1e-4 < said["error"] < said["limit"] < 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_large_logits_that_half_precision_rounds_are_told_from_a_wrong_recording(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stratoscope.recorder.reduce import lens

    model = tiny("Gemma2")
    model.model.norm.weight.data += 12  # logits of 30, which half precision rounds by much of a log-probability
    options: dict[str, Any] = {"record": ("lens",), "targets": TARGETS, "positions": "all"}
    trace = run(tmp_path / "t", model.to(dtype), **options)
    replayed = [replay["largest_differences"] for replay in trace.attrs["receipt"]["replays"]]
    assert all({"lens_logprob", "lens_answer_logprob", "lens_target_logprob"} <= each.keys() for each in replayed)

    def lowered(logits: Any, tokens: Any, kept: int) -> Any:
        found = read(logits, tokens, kept)
        return found._replace(logprob_of=found.logprob_of - 1)

    monkeypatch.setattr(lens, "read", lowered)
    with pytest.raises(CaptureError, match="differs from a replay"):
        run(tmp_path / "wrong", model, **options)


def test_targets_at_the_last_depth_are_those_of_direct_contributions(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", tiny("Qwen2"), record=("lens", "logits"))  # each prompt's own likeliest token
    np.testing.assert_allclose(
        trace.lens_target_logit.values[:, -1, 0], trace.target_logit.values, rtol=1e-5, atol=1e-6
    )
    ends = [of_prompt(trace, number)[-1] for number in range(len(TEXTS))]
    assert (trace.lens_target_rank.values[ends, -1, 0] == 1).all()
    assert np.array_equal(trace.lens_token.values[ends, -1, 0, 0], trace.target_token.values[:, 0])
    assert "lens_target_logit" not in run(tmp_path / "without", tiny("Qwen2"))


def test_a_model_that_is_sure_of_its_answer_is_recorded(tmp_path: Path) -> None:
    model = tiny("Llama")
    with torch.no_grad():
        model.model.norm.weight.mul_(150.0)
    trace = run(tmp_path / "t", model)
    logprob = trace.lens_answer_logprob.values[:, -1]
    assert np.nanmedian(np.abs(logprob)) < 1e-4  # a nat's rounding is more than 1e-4 of that


def test_texts_of_all_tokens_that_are_read_are_in_the_trace(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", tiny("Llama"))
    tokens = {str(one) for one in np.unique(trace.lens_token.values) if one >= 0}
    assert tokens <= {*trace.attrs["token_texts"]}


# --- fitted lenses ----------------------------------------------------------------------------------------------------


def turning(depths: int, missing: int) -> FittedLens:
    """A lens of two parts: x turned round, and x itself; of one depth it has no matrix."""
    eye = torch.eye(32)
    return FittedLens(
        ("jacobian", "jacobian, half 1"),
        {"d_model": 32, "sha256": "0"},
        depths,
        {*range(depths - 1)} - {missing},
        lambda part, depth: eye if part else eye.roll(depth + 1, 0),
    )


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stratoscope.recorder.lens.lensing.open_lens", lambda *_, depths, **__: turning(depths, 1))


@pytest.mark.usefixtures("fitted")
def test_a_fitted_lens_and_its_parts_stand_beside_the_logit_lens(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", tiny("GPT2"), lens="a.lens", targets=TARGETS, verify="full")
    plan = trace.attrs["plan"]
    assert plan["lenses"] == ["logit", "jacobian", "jacobian, half 1"]
    assert plan["lens_file"]["sha256"] == "0"
    read_at = trace.lens_token.values[:, 0, 0, 0] >= 0
    some = trace.isel(token=read_at)
    for name in ("lens_token", "lens_logprob", "lens_answer_rank", "lens_target_rank", "lens_target_logprob"):
        values = some[name].values
        assert np.array_equal(values[:, :, 2][:, [0, 2, 3]], values[:, :, 0][:, [0, 2, 3]]), name  # J is 1
        assert (values[:, -1] == values[:, -1, :1]).all(), name
        assert not np.array_equal(values[:, 0, 1], values[:, 0, 0]), name
    assert (some.lens_token.values[:, 1, 1:] == -1).all()  # a depth that it lacks
    assert np.isnan(some.lens_target_logit.values[:, 1, 1:]).all()
    assert np.isnan(trace.lens_target_logit.values[~read_at][:, :-1, 1:]).all()
    assert np.isfinite(trace.lens_target_logit.values[:, :, 0]).all()
    replayed = trace.attrs["receipt"]["replays"][-1]["largest_differences"]
    assert {"lens_logprob", "lens_answer_logprob", "lens_target_logprob", "lens_target_logit"} <= {*replayed}


# --- what is refused, and what is said --------------------------------------------------------------------------------


def test_a_lens_without_its_group_and_a_file_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing that is recorded is read with a lens"):
        run(tmp_path / "t", tiny("Llama"), record="norms", lens="a.lens")
    with pytest.raises(InputError, match="does not exist"):
        run(tmp_path / "t", tiny("Llama"), lens=tmp_path / "a.lens")


def test_a_model_whose_head_is_not_proved_is_refused_with_the_reason(tmp_path: Path) -> None:
    model = tiny("Llama")
    model.lm_head.register_forward_hook(lambda _, __, out: out + 0.1 * out.square())
    with pytest.raises(ModelError, match="cannot be read as tokens"):
        run(tmp_path / "t", model)


def test_logits_that_are_not_what_is_read_of_the_last_depth_stop_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stratoscope.recorder.lens import unembedding

    normed = unembedding.Unembedding.normed
    monkeypatch.setattr(unembedding.Unembedding, "normed", lambda self, x: normed(self, x) * 1.01)
    with pytest.raises(CaptureError, match="differs from"):
        run(tmp_path / "t", tiny("Llama"))


def test_replaying_everything_finds_a_wrong_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stratoscope.recorder.reduce import lens

    def lowered(logits: Any, tokens: Any, kept: int) -> Any:
        found = read(logits, tokens, kept)
        return found._replace(logprob=found.logprob - 0.5)

    monkeypatch.setattr(lens, "read", lowered)
    with pytest.raises(CaptureError, match="differs from a replay"):
        run(tmp_path / "t", tiny("Llama"))


@pytest.mark.parametrize("family", ["OLMo2", "GPTNeoX", "LFM2", "OPT", "DeepSeek-V3", "Mamba"])
def test_other_architectures_are_read_and_replayed(family: str, tmp_path: Path) -> None:
    one = ALL_FAMILIES[family]
    trace = run(tmp_path / "t", tiny_model(one.config, one.options), targets=TARGETS)
    assert trace.attrs["receipt"]["lens"]["error"] < 1e-4
    replayed = {name for replay in trace.attrs["receipt"]["replays"] for name in replay["largest_differences"]}
    assert {"lens_logprob", "lens_answer_logprob", "lens_target_logprob", "lens_target_logit"} <= replayed
