"""The verb `capture`: what it stores, what it refuses before anything runs, how it goes on after a stop."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import CONTEXT, TEXTS, byte_tokenizer, tiny

from stratoscope import capture, open_trace
from stratoscope.errors import CaptureError, InputError, StratoscopeError, TraceError
from stratoscope.names import ATTENTION, NORMS, PEAKS, PROMPTS, RESIDUAL, SUMMARIES
from stratoscope.recorder import recording
from stratoscope.recorder.disk_needed import uncompressed_bytes
from stratoscope.recorder.plan import CapturePlan, prompts_sha256
from stratoscope.recorder.prompts.prompt import Prompt

MANY = [f"{text} {number}" for number in range(6) for text in TEXTS]


def run(out: Path, **options: Any) -> Any:
    settings: dict[str, Any] = {"record": (NORMS, RESIDUAL, PEAKS, PROMPTS), "top_k": 5, "batch_size": 2}
    prompts = options.pop("prompts", MANY)
    model = options.pop("model", None) or tiny("Llama")
    tokenizer = options.pop("tokenizer", None) or byte_tokenizer()
    return capture(model, prompts, out, tokenizer=tokenizer, **{**settings, **options})


# --- what is stored ---------------------------------------------------------------------------------------------------


def test_the_trace_says_what_was_recorded_how_and_what_was_proved(tmp_path: Path) -> None:
    model, trace = tiny("Gemma2"), None
    trace = run(tmp_path / "t", model=model)
    attrs = trace.attrs
    assert (attrs["state"], attrs["source"], attrs["token_spelling"]) == ("complete", "real", "text")
    known = {key: attrs["model"][key] for key in ("architecture", "d_model", "d_ff", "n_layers", "dtype", "device")}
    assert list(known.values()) == ["Gemma2ForCausalLM", 32, 72, 3, "float32", "cpu"]
    assert len(attrs["model"]["weights_sha256"]) == len(attrs["tokenizer"]["sha256"]) == 64
    assert {"torch", "transformers", "stratoscope", "kernels"} <= attrs["software"].keys()
    assert [note["id"] for note in attrs["notes"]] == ["L20"]
    receipt = attrs["receipt"]
    assert receipt["logits_bit_identical"] is True
    assert receipt["unobserved_repeat_max_abs"] == receipt["observed_max_abs"] == 0.0
    assert receipt["residual_replay"] == "bit-equal in 3/3 layers"
    assert receipt["batches"] == len(MANY) / 2
    assert receipt["tokens"] == trace.sizes["token"]
    assert receipt["sites_per_forward"] == 7 * 3
    parts = receipt["receipt_line"].split("; ")
    assert parts[:2] == ["logits unchanged", "residual sum bit-equal in 3/3 layers"]
    assert re.fullmatch(r"eager replay within \de-\d\d", parts[2])
    assert parts[3] == f"{len(MANY) // 2} batches checked"
    assert CapturePlan.from_json(attrs["plan"]).to_json() == attrs["plan"]


def test_the_plan_counts_what_the_trace_holds(tmp_path: Path) -> None:
    trace = run(tmp_path / "t")
    plan = CapturePlan.from_json(trace.attrs["plan"])
    assert (plan.prompts, plan.tokens) == (trace.sizes["prompt"], trace.sizes["token"])
    lengths = np.bincount(trace.prompt).tolist()
    sizes = uncompressed_bytes(map(str, trace.data_vars), {str(k): v for k, v in trace.sizes.items()}, lengths)
    assert sizes == {str(name): values.nbytes for name, values in trace.data_vars.items()}


def test_any_change_of_a_prompt_changes_its_hash() -> None:
    base = Prompt("a", "critical", "1", "g", text="hello")
    others = [Prompt("b", "critical", "1", "g", text="hello"), Prompt("a", "critical", "1", "g", text="hello ")]
    others += [
        Prompt("a", "neutral", "1", "g", text="hello"),
        Prompt("a", messages=({"role": "user", "content": "x"},)),
    ]
    assert len({prompts_sha256([prompt]) for prompt in (base, *others)}) == 5


def test_prompts_of_a_file_keep_their_labels(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"text": "one", "id": "x", "class": "critical", "pair": "1", "group": "g"}\n'
                    '{"text": "two", "id": "y", "class": "neutral", "pair": "1"}\n')  # fmt: skip
    trace = run(tmp_path / "t", prompts=file)
    assert trace.prompt_id.values.tolist() == ["x", "y"]
    assert trace.prompt_class.values.tolist() == ["critical", "neutral"]
    assert trace.pair.values.tolist() == ["1", "1"]
    assert trace.group.values.tolist() == ["g", ""]


def test_every_group_together_with_attention(record: Callable[..., Any]) -> None:
    _, trace = record("Llama", SUMMARIES, batch_size=2)
    first = trace.attn_first.values
    assert first.shape == (trace.sizes["token"], 3, 4)
    at_start = trace.position.values == 0
    assert np.allclose(first[at_start], 1)  # a first token can look at nothing else


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("family", ["Llama", "Mistral", "Gemma2", "GPTNeoX"])
def test_attention_of_a_batch_is_put_back_to_its_own_prompts(tmp_path: Path, family: str, padding_side: str) -> None:
    options: dict[str, Any] = {"record": (ATTENTION,), "model": tiny(family), "prompts": TEXTS}
    together = run(tmp_path / "3", batch_size=3, tokenizer=byte_tokenizer(padding_side), **options)
    alone = run(tmp_path / "1", batch_size=1, **options)
    for name in alone.data_vars:
        one, other = together[name].values, alone[name].values
        assert np.array_equal(np.isnan(one), np.isnan(other)), name
        error = np.nanmax(np.abs(one - other) / (1 + np.abs(other)))
        assert error <= 1e-4, f"{name}: largest difference {error:.2g}"


@pytest.mark.parametrize("family", ["Llama", "Gemma2", "GPT2", "GPTNeoX"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_are_recorded(record: Callable[..., Any], family: str, dtype: torch.dtype) -> None:
    _, trace = record(family, (NORMS, RESIDUAL, PEAKS, PROMPTS), batch_size=2, dtype=dtype)
    assert trace.attrs["model"]["dtype"] == str(dtype).removeprefix("torch.")
    assert trace.attrs["receipt"]["residual_replay"] == "bit-equal in 3/3 layers"
    assert all(np.isfinite(trace[name].values).all() for name in trace.data_vars if not name.startswith("prompt_"))


def test_progress_names_the_stages_and_ends_at_the_last_prompt(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    run(tmp_path / "t", progress=lambda *state: seen.append(state))
    stages = list(dict.fromkeys(stage for stage, _, _ in seen))
    assert stages == ["reading the prompts", "proving the sites", "recording"]
    assert seen[-1] == ("recording", len(MANY), len(MANY))
    done = [done for stage, done, _ in seen if stage == "recording"]
    assert done == sorted(done)


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(error: type[StratoscopeError], words: str, out: Path, **options: Any) -> None:
    with pytest.raises(error, match=words):
        run(out, **options)
    assert not out.exists()


def test_a_prompt_longer_than_the_context_is_refused_before_anything_runs(tmp_path: Path) -> None:
    model = tiny("Llama")
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    long = ["short", "x" * (CONTEXT + 1), "y" * CONTEXT, "z" * 500]
    words = rf"prompt p0002: has {CONTEXT + 1} tokens, the model's context holds {CONTEXT} \(and 1 more"
    refused(CaptureError, words, tmp_path / "t", prompts=long, model=model)


def test_a_prompt_as_long_as_the_context_is_recorded(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", prompts=["x" * CONTEXT])
    assert trace.sizes["token"] == CONTEXT


def test_input_that_cannot_be_used_is_refused_in_words(tmp_path: Path) -> None:
    out = tmp_path / "t"
    refused(InputError, "there is no prompt", out, prompts=[])
    refused(InputError, r"prompts\[0\]: text is empty", out, prompts=[""])
    refused(
        InputError,
        r"prompts\[1\]: the id 'a' is already that of prompts\[0\]",
        out,
        prompts=[Prompt("a", text="x"), Prompt("a", text="y")],
    )
    refused(InputError, "no record group called 'norm'", out, record=("norm",))
    refused(InputError, "no record group", out, record=())
    refused(InputError, "top_k: 0 is too small", out, top_k=0)
    refused(InputError, "the top-k is 73, but at a token 72 neurons are active", out, top_k=73)
    refused(InputError, "batch_size: 0 is too small", out, batch_size=0)
    refused(InputError, "a model object has its own dtype", out, dtype="float32")
    refused(InputError, "the model is in training mode", out, model=tiny("Llama").train())
    with pytest.raises(InputError, match="needs its tokenizer"):
        capture(tiny("Llama"), MANY, out)


def test_broken_weights_leave_no_trace(tmp_path: Path) -> None:
    model = tiny("Llama")
    model.model.layers[1].self_attn.o_proj.weight.data[0, 0] = torch.nan
    refused(CaptureError, "not finite", tmp_path / "t", model=model)


def test_an_existing_trace_is_refused_before_the_model_is_touched(tmp_path: Path) -> None:
    run(tmp_path / "t", prompts=["a"])
    with pytest.raises(TraceError, match="already exists"):
        capture("no/such-model", ["a"], tmp_path / "t")


# --- interrupted ------------------------------------------------------------------------------------------------------


class Stop:
    """Interrupts the n-th window."""

    def __init__(self, patch: pytest.MonkeyPatch, after: int, error: type[BaseException]) -> None:
        self.left, self.error, self.window = after, error, recording.Recording._window
        patch.setattr(recording.Recording, "_window", lambda recorder, window: self(recorder, window))

    def __call__(self, recorder: Any, window: range) -> Any:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return self.window(recorder, window)


def assert_equal(one: Any, other: Any) -> None:
    assert set(one.variables) == set(other.variables)
    for name in one.variables:
        assert np.array_equal(one[name].values, other[name].values, equal_nan=one[name].dtype.kind == "f"), name


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_recording_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    whole = run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        Stop(patch, 2, error)
        with pytest.raises(error) as caught:
            run(tmp_path / "t")
    if error is KeyboardInterrupt:
        assert caught.value.__notes__ == ["16 of 30 prompts are kept; resume goes on there"]
    calls: list[int] = []
    resumed = run(
        tmp_path / "t", resume=True, progress=lambda stage, done, _: stage == "recording" and calls.append(done)
    )
    assert calls[0] == 16
    assert_equal(whole, resumed)
    assert resumed.attrs["receipt"] == whole.attrs["receipt"]  # it speaks of the whole trace


def test_an_unfinished_trace_claims_no_check_of_its_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Stop(monkeypatch, 2, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "t")
    receipt = open_trace(tmp_path / "t").attrs["receipt"]
    assert receipt["checks"] == []
    assert receipt["receipt_line"].endswith("recording not finished")


def test_a_complete_trace_is_not_recorded_again(tmp_path: Path) -> None:
    first = run(tmp_path / "t")
    again = run(tmp_path / "t", resume=True)
    assert first.attrs["uuid"] == again.attrs["uuid"]
    assert first.attrs["finished"] == again.attrs["finished"]


def test_a_complete_trace_is_not_said_to_be_verified(tmp_path: Path) -> None:
    run(tmp_path / "t")
    with pytest.raises(InputError, match="complete trace is not verified again"):
        run(tmp_path / "t", resume=True, verify="full", model="not/loaded")


def test_what_is_known_of_another_plan_is_said_before_the_model_is_loaded(tmp_path: Path) -> None:
    run(tmp_path / "t", generate=2, seed=1)
    run(tmp_path / "t", generate=2, seed=1, resume=True)
    for words, options in (
        ("plan.generate was 2 and is now 3", {"generate": 3, "seed": 1}),
        ("plan.generate was 2 and is now not given", {}),
        ("plan.seed was 1 and is now 0", {"generate": 2}),
    ):
        with pytest.raises(TraceError, match=words):
            run(tmp_path / "t", resume=True, model="not/loaded", **options)


def test_resuming_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        Stop(patch, 1, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "t")
    for words, options in (
        ("plan.top_k was 5 and is now 6", {"top_k": 6}),
        ("plan.batch_size was 2 and is now 3", {"batch_size": 3}),
        ("plan.chat", {"chat": True}),
        ("plan.prompts_sha256", {"prompts": [*MANY[:-1], "another"]}),
        ("plan.record", {"record": (NORMS,)}),
        ("model.architecture", {"model": tiny("Mistral")}),
    ):
        with pytest.raises(TraceError, match=words):
            run(tmp_path / "t", resume=True, **options)
    other = byte_tokenizer()
    other.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(TraceError, match=r"tokenizer\.chat_template"):
        run(tmp_path / "t", resume=True, tokenizer=other)
    with pytest.raises(InputError, match="resume: it keeps what overwrite would replace"):
        run(tmp_path / "t", resume=True, overwrite=True)
    other = tiny("Llama")
    other.model.layers[0].mlp.up_proj.weight.data[0, 0] += 1
    with pytest.raises(TraceError, match=r"model\.weights_sha256"):
        run(tmp_path / "t", resume=True, model=other)
