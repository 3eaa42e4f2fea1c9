"""Answers recorded while the model writes them: equal to a plain forward over the same tokens, seeded, resumable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import expected
from test_capture import Stop, assert_equal
from tiny import ALL_FAMILIES, CONTEXT, TEXTS, byte_tokenizer, tiny

from stratoscope import capture, names
from stratoscope.errors import CaptureError, InputError, ModelError, TraceError
from stratoscope.model.search.find import find_sites
from stratoscope.names import ATTENTION, NORMS, PEAKS, PROMPTS, RESIDUAL
from stratoscope.recorder.answers.settings import checked_settings, parse_settings
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.observe import Observer
from stratoscope.recorder.prompts.prompt import Prompt

GROUPS = (NORMS, RESIDUAL, PEAKS, PROMPTS)
TOP_K = 5
NEW = 12
GENERATED = names.SPANS.index("generated")
SAMPLED = {"do_sample": True, "temperature": 1.5}


def run(out: Path, family: str = "Llama", **options: Any) -> Any:
    settings: dict[str, Any] = {"record": GROUPS, "top_k": TOP_K, "batch_size": 3, "generate": NEW}
    model = options.pop("model", None) or tiny(family)
    tokenizer = options.pop("tokenizer", None) or byte_tokenizer()
    return capture(model, options.pop("prompts", TEXTS), out, tokenizer=tokenizer, **{**settings, **options})


def answers(trace: Any) -> list[list[int]]:
    """Generated ids of each prompt."""
    return [
        trace.token_id.values[(trace.prompt.values == number) & (trace.span.values == GENERATED)].tolist()
        for number in range(trace.sizes["prompt"])
    ]


def plain_answers(model: Any, texts: Any, eos: Any, new: int = NEW) -> list[list[int]]:
    """The likeliest tokens, one forward over the whole text for each of them."""
    found = []
    for text in texts:
        ids = byte_tokenizer()(text)["input_ids"]
        start = len(ids)
        while len(ids) < start + new and (len(ids) == start or ids[-1] not in eos):
            with torch.no_grad():
                ids = [*ids, int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())]
        found.append(ids[start:])
    return found


def worst_difference(trace: Any, model: Any, family: str) -> dict[str, float]:
    """Per quantity, the largest difference from a plain forward over prompt and answer; relative above 1."""
    worst: dict[str, float] = {}
    for number in range(trace.sizes["prompt"]):
        tokens = np.flatnonzero(trace.prompt == number)
        ids = trace.token_id.values[tokens].tolist()
        user = np.flatnonzero(trace.span.values[tokens] == names.SPANS.index("user")).tolist()
        wanted = expected(model, ALL_FAMILIES[family], ids, user, TOP_K)
        assert wanted.keys() == {name for name in trace.data_vars if names.QUANTITIES[name].group != names.OUTCOME}
        for name, again in wanted.items():
            quantity = names.QUANTITIES[name]
            values = trace[name].values[number] if quantity.dims[0] == names.PROMPT else trace[name].values[tokens]
            assert values.shape == again.shape, name
            assert np.array_equal(np.isnan(values), np.isnan(again)), name
            if np.isfinite(again).any():
                size = 1.0 if quantity.dtype == "int32" else np.maximum(1, np.abs(again))
                difference = float(np.nanmax(np.abs(values - again) / size))
                worst[name] = max(worst.get(name, 0.0), difference)
    return worst


def stopping_at_different_times(model: Any, texts: Any) -> list[int]:
    """End-of-text tokens so that greedy answers end early, late and not at all."""
    free = plain_answers(model, texts, [])
    return [free[0][3], free[1][0]]


# --- the same as a plain forward --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "batch_size"),
    [*((family, 3) for family in ALL_FAMILIES), *((family, 1) for family in ("Llama", "GPT2", "Gemma2", "Mistral"))],
)
def test_every_quantity_of_prompt_and_answer_equals_a_plain_forward(
    tmp_path: Path, family: str, batch_size: int
) -> None:
    model = tiny(family)
    eos = stopping_at_different_times(model, TEXTS)
    groups = GROUPS if ALL_FAMILIES[family].mlp else (NORMS, RESIDUAL)
    trace = run(tmp_path / "t", model=model, record=groups, batch_size=batch_size, generation={"eos_token_id": eos})
    assert answers(trace) == plain_answers(model, TEXTS, eos)
    assert len({len(answer) for answer in answers(trace)}) > 1, "all answers are of one length"
    worst = worst_difference(trace, model, family)
    assert max(worst.values()) <= 1e-3, worst


@pytest.mark.model
def test_a_real_model_answers_sensibly_and_as_it_would_unobserved(smollm2: Path, tmp_path: Path) -> None:
    """float32; the cache and the batch change the order of sums: largest difference allowed 1e-3 of a value above 1."""
    from stratoscope.model.load import load_model

    loaded = load_model(str(smollm2), dtype="float32", device="cpu")
    questions = ["What is the capital of France?", "How do I make a cup of tea?", "Hi"]
    options: dict[str, Any] = {"tokenizer": loaded.tokenizer, "generate": 8, "batch_size": 3, "top_k": TOP_K}
    trace = capture(loaded.model, questions, tmp_path / "chat", chat=True, record=(RESIDUAL,), **options)
    written = [loaded.tokenizer.decode(ids) for ids in answers(trace)]
    assert written[0].startswith("The capital of France is Paris.")
    for number, ids in enumerate(answers(trace)):
        here = (trace.prompt.values == number) & (trace.span.values != GENERATED)
        prompt = torch.tensor([trace.token_id.values[here].tolist()])
        again = loaded.model.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=0)
        assert again[0, prompt.shape[1] :].tolist() == ids
    trace = capture(
        loaded.model, ["The capital of", "One"], tmp_path / "raw", record=GROUPS, **{**options, "generate": 3}
    )
    worst = worst_difference(trace, loaded.model, "Llama")
    assert max(worst[name] for name in worst if name != "peak_neuron") <= 1e-3, worst


@pytest.mark.parametrize("family", ["Llama", "Gemma2"])
def test_every_token_runs_through_the_model_once_even_the_last(tmp_path: Path, family: str) -> None:
    model, seen = tiny(family), []
    eos = stopping_at_different_times(model, TEXTS)
    hook = model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"].clone()), with_kwargs=True
    )
    trace = run(tmp_path / "t", model=model, prompts=TEXTS[:1], generation={"eos_token_id": eos}, openers=())
    hook.remove()
    fed = torch.cat(seen[-len(answers(trace)[0]) - 1 :], dim=1)[0].tolist()
    assert fed == trace.token_id.values.tolist()


def test_prompt_summaries_are_over_the_prompt_and_not_over_the_answer(tmp_path: Path) -> None:
    without = run(tmp_path / "0", generate=0)
    answered = run(tmp_path / "1")
    for name in ("prompt_mean", "prompt_max", "prompt_min"):
        assert np.allclose(without[name].values, answered[name].values, atol=1e-5, equal_nan=True), name


def test_generated_tokens_carry_their_text_their_span_and_no_place_in_the_prompt(tmp_path: Path) -> None:
    trace = run(tmp_path / "t")
    written = trace.span.values == GENERATED
    assert [int((trace.prompt.values[written] == number).sum()) for number in range(len(TEXTS))] == [NEW] * len(TEXTS)
    assert (trace.char_start.values[written] == -1).all()
    assert (trace.char_end.values[written] == -1).all()
    assert (trace.char_start.values[~written] >= 0).all()
    tokenizer = byte_tokenizer()
    for index, text in zip(trace.token_id.values[written], trace.text.values[written], strict=True):
        known = index < len(tokenizer)
        assert text.encode("utf-8", "surrogateescape") == (tokenizer.decode([index]).encode() if known else b"") or (
            "\udc80" <= text[0] <= "\udcff"
        )
    first = [trace.position.values[trace.prompt.values == number].tolist() for number in range(len(TEXTS))]
    assert first == [list(range(len(places))) for places in first]


# --- how it is chosen -------------------------------------------------------------------------------------------------


def test_the_plan_says_how_answers_are_chosen_and_the_models_own_settings_do_nothing(tmp_path: Path) -> None:
    model = tiny("Llama")
    plain = answers(run(tmp_path / "0", model=model))
    model.generation_config.update(do_sample=True, temperature=3.0, repetition_penalty=9.0, eos_token_id=[1, 5])
    before = model.generation_config.to_dict()
    trace = run(tmp_path / "1", model=model)
    assert model.generation_config.to_dict() == before
    assert answers(trace) == plain
    plan = trace.attrs["plan"]
    assert (plan["generate"], plan["seed"], plan["padding_side"]) == (NEW, 0, "left")
    assert plan["generation"] == {"do_sample": False, "eos_token_id": [1, 5]}
    sampled = run(tmp_path / "2", model=model, generation=SAMPLED).attrs["plan"]["generation"]
    assert sampled == {"do_sample": True, "eos_token_id": [1, 5], "temperature": 1.5, "top_k": 0, "top_p": 1.0}


def test_a_seed_gives_the_same_answers_and_leaves_the_process_alone(tmp_path: Path) -> None:
    model = tiny("Llama")
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    first = run(tmp_path / "1", model=model, generation=SAMPLED, seed=3)
    assert torch.equal(torch.rand(3), wanted)
    assert_equal(first, run(tmp_path / "2", generation=SAMPLED, seed=3))
    assert answers(first) != answers(run(tmp_path / "3", generation=SAMPLED, seed=4))
    assert answers(first) != answers(run(tmp_path / "4"))


def test_prompts_that_are_alike_are_not_sampled_alike(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", prompts=["the same"] * 4, batch_size=1, generation=SAMPLED)
    assert len({tuple(answer) for answer in answers(trace)}) == 4


def test_an_interrupted_recording_of_answers_goes_on_with_equal_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {
        "prompts": [f"{text} {number}" for number in range(4) for text in TEXTS],
        "batch_size": 2,
        "generation": SAMPLED,
    }
    whole = run(tmp_path / "whole", **options)
    with monkeypatch.context() as patch:
        Stop(patch, 1, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "t", **options)
    resumed = run(tmp_path / "t", resume=True, **options)
    assert resumed.attrs["resumed"]
    assert_equal(whole, resumed)
    assert resumed.attrs["receipt"] == whole.attrs["receipt"]
    assert resumed.attrs["receipt"]["tokens"] == resumed.sizes["token"]


def test_resuming_with_another_way_of_answering_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = list(TEXTS) * 3
    with monkeypatch.context() as patch:
        Stop(patch, 1, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "t", prompts=many, batch_size=1)
    for words, options in (
        ("plan.generate was 12 and is now 11", {"generate": 11}),
        ("plan.generate", {"generate": 0}),
        ("plan.generation.do_sample", {"generation": SAMPLED}),
        ("plan.seed was 0 and is now 1", {"seed": 1}),
        ("plan.openers", {"openers": ["No"]}),
    ):
        with pytest.raises(TraceError, match=words):
            run(tmp_path / "t", prompts=many, batch_size=1, resume=True, **options)


def test_an_answer_ends_at_a_stop_string(tmp_path: Path) -> None:
    model = tiny("Llama")
    free = run(tmp_path / "0", model=model)
    tokenizer = byte_tokenizer()
    text = next(t for t in (tokenizer.decode(answer[3:5]) for answer in answers(free)) if t.isascii() and len(t) == 2)
    ended = answers(run(tmp_path / "1", model=model, generation={"stop_strings": [text]}))
    for whole, cut in zip(answers(free), ended, strict=True):
        decoded = [tokenizer.decode(whole[:end]) for end in range(1, NEW + 1)]
        wanted = next((end for end, words in enumerate(decoded, start=1) if text in words), NEW)
        assert cut == whole[:wanted]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_beams": 4}, "num_beams makes more or other sequences than there are prompts"),
        ({"num_return_sequences": 2}, "num_return_sequences makes more or other"),
        ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens runs forwards that are not of the text"),
        ({"assistant_model": "x"}, "assistant_model runs forwards"),
        ({"guidance_scale": 2.0}, "guidance_scale runs forwards"),
        ({"use_cache": False}, "use_cache is not the growing cache"),
        ({"cache_implementation": "static"}, "cache_implementation is not the growing cache"),
        ({"max_new_tokens": 5}, "max_new_tokens is given by --generate"),
        ({"max_time": 5}, "max_time makes the answer depend on how fast the machine is"),
        ({"temperature": 0.5}, "temperature does nothing without do_sample"),
        ({"temprature": 1.0}, "no setting called 'temprature'. Did you mean temperature"),
    ],
)
def test_a_setting_that_cannot_be_recorded_is_refused_by_name(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=f"generation: {words}"):
        checked_settings(settings)


def test_settings_that_do_nothing_are_not_refused() -> None:
    neutral = {"num_beams": 1, "use_cache": True, "transformers_version": "5.0", "bos_token_id": 1, "top_p": None}
    found = checked_settings({**neutral, "do_sample": True, "temperature": 2, "top_k": 3})
    assert found == {"do_sample": True, "temperature": 2.0, "top_k": 3}
    assert isinstance(found["temperature"], float)  # transformers insists


def test_values_that_transformers_refuses_are_refused(tmp_path: Path) -> None:
    for settings in ({"do_sample": True, "temperature": -1.0}, {"do_sample": True, "min_p": 3.0}):
        with pytest.raises(InputError, match="generation: transformers refuses them"):
            run(tmp_path / "t", generation=settings)
    assert not (tmp_path / "t").exists()


def test_settings_come_as_text_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "g.json"
    file.write_text('{"do_sample": true}')
    assert parse_settings(str(file)) == parse_settings(' {"do_sample": true}') == {"do_sample": True}
    for text, words in (("{x", "is not valid JSON"), (str(tmp_path / "no.json"), "cannot be read: No such file")):
        with pytest.raises(InputError, match=words):
            parse_settings(text)
    file.write_text("[1]")
    with pytest.raises(InputError, match="is not a JSON object"):
        parse_settings(str(file))


def test_prompt_and_answer_must_fit_into_the_context_before_anything_runs(tmp_path: Path) -> None:
    model = tiny("Llama")
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    long = ["short", "x" * (CONTEXT - NEW + 1)]
    words = (
        rf"prompt p0002: has {CONTEXT - NEW + 1} tokens and {NEW} of the answer, the model's context holds {CONTEXT}"
    )
    with pytest.raises(CaptureError, match=words):
        run(tmp_path / "t", model=model, prompts=long)


def test_prompt_and_answer_as_long_as_the_context_are_recorded(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", "GPT2", prompts=["x" * (CONTEXT - NEW)])
    assert trace.sizes["token"] == CONTEXT


def test_what_cannot_answer_is_refused(tmp_path: Path) -> None:
    ended = [Prompt("a", messages=({"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}))]
    for options in ({}, {"generate": 0, "openers": ["No"]}):
        with pytest.raises(InputError, match="prompt a: ends with an assistant's message"):
            run(tmp_path / "t", prompts=ended, **options)
    with pytest.raises(ModelError, match="cannot generate text"):
        run(tmp_path / "t", model=tiny("Llama").model)
    with pytest.raises(InputError, match=r"generation: .* none is generated"):
        run(tmp_path / "t", generate=0, generation=SAMPLED)
    with pytest.raises(InputError, match="generate: -1 is too small"):
        run(tmp_path / "t", generate=-1)


def test_other_tokens_than_those_it_wrote_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("Llama")
    prepare = model.prepare_inputs_for_generation

    def other(ids: Any, **kwargs: Any) -> Any:
        inputs = prepare(ids, **kwargs)
        inputs["input_ids"] = inputs["input_ids"].clone()
        inputs["input_ids"][:, -1] = 7
        return inputs

    monkeypatch.setattr(model, "prepare_inputs_for_generation", other)
    with pytest.raises(CaptureError, match="the token ids that the model embedded are not those it was given"):
        run(tmp_path / "t", model=model)


# --- attention --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("family", ["Llama", "GPT2", "Gemma2", "Mistral", "BLOOM"])
def test_attention_of_prompt_and_answer_equals_that_of_a_plain_forward(
    tmp_path: Path, family: str, batch_size: int
) -> None:
    model = tiny(family)
    eos = stopping_at_different_times(model, TEXTS)
    trace = run(
        tmp_path / "t", model=model, record=(ATTENTION,), batch_size=batch_size, generation={"eos_token_id": eos}
    )
    observer = Observer(model, find_sites(model, torch.tensor([[5, 6, 7, 8]])), (ATTENTION,), TOP_K)
    compared = 0
    for number in range(len(TEXTS)):
        tokens = np.flatnonzero(trace.prompt == number)
        ids = torch.tensor([trace.token_id.values[tokens].tolist()])
        whole = Batch(ids, torch.ones_like(ids), None, torch.arange(ids.numel()), (), ())
        with observer:
            wanted, _ = observer.record(whole)
        for name in (quantity.name for quantity in names.quantities_of([ATTENTION]) if quantity.name in trace):
            found, again = trace[name].values[tokens], wanted[name]
            assert np.array_equal(np.isnan(found), np.isnan(again)), name
            error = np.nanmax(np.abs(found - again) / np.maximum(1, np.abs(again)))
            assert error <= 1e-3, f"{name} differs by up to {error:.1e}"
            compared += 1
    assert compared >= 8 * len(TEXTS)
