"""What is recorded is what the model does: replays find every value that is not, and models that padding changes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import ALL_FAMILIES, TEXTS, byte_tokenizer, tiny

from stratoscope import capture, names, open_trace
from stratoscope.errors import CaptureError, ModelError
from stratoscope.names import ATTENTION, LOGITS, QUANTITIES, SUMMARIES
from stratoscope.recorder.input.grouping import ANY_LENGTH, EQUAL_LENGTH
from stratoscope.recorder.observe import Observer
from stratoscope.recorder.proof import together
from stratoscope.recorder.proof.batching import BatchingRule
from stratoscope.recorder.proof.replay import attention_implementation, eager_attention
from stratoscope.recorder.recording import Recording
from stratoscope.recorder.reference.differences import relative_difference

WITHOUT_ATTENTION = tuple(group for group in SUMMARIES if group != ATTENTION)
OWN_ATTENTION = {"Falcon", "Falcon sequential", "BLOOM", "GPT-J"}  # computed in their own code


def run(out: Path, **options: Any) -> Any:
    settings: dict[str, Any] = {"record": SUMMARIES, "top_k": 5, "batch_size": 3, "prompts": TEXTS}
    settings |= {"model": tiny("Llama"), "tokenizer": byte_tokenizer(), **options}
    return capture(settings.pop("model"), settings.pop("prompts"), out, **settings)


def tamper(patch: pytest.MonkeyPatch, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Let `change` write into everything that is observed."""
    honest = Observer.record

    def record(self: Observer, batch: Any, **options: Any) -> Any:
        arrays, output = honest(self, batch, **options)
        change(arrays)
        return arrays, output

    patch.setattr(Observer, "record", record)


# --- what is compared -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding_side", ["right", "left"])
@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_every_quantity_of_every_architecture_is_replayed(tmp_path: Path, family: str, padding_side: str) -> None:
    record = WITHOUT_ATTENTION if family in OWN_ATTENTION else SUMMARIES
    record = record if ALL_FAMILIES[family].mlp else (names.NORMS, names.RESIDUAL)
    trace = run(tmp_path / "t", model=tiny(family), record=record, tokenizer=byte_tokenizer(padding_side))
    receipt = trace.attrs["receipt"]
    plain, eager = receipt["replays"]
    # what an index points at is compared: values and writes at those neurons
    recorded = {str(name) for name in trace.data_vars if QUANTITIES[name].dtype.startswith("float")}
    assert set(eager["largest_differences"]) == recorded
    assert set(plain["largest_differences"]) == {name for name in recorded if QUANTITIES[name].group != ATTENTION}
    assert max(plain["largest_differences"].values()) < 1e-5
    assert max(eager["largest_differences"].values()) < 1e-3
    assert not [limit for limit in receipt["limits"] if "replay" in limit]
    assert eager["prompts"] == receipt["probe_prompts"] == ["p0003", "p0001"]
    assert f"padded on the {padding_side}" in receipt["batch"]
    with eager_attention(tiny(family)) as attention:  # Falcon cannot be set to it
        assert eager["attention"] == [attention]
    assert f"; {attention} replay within" in receipt["receipt_line"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_held_to_the_last_bits_by_the_same_batch(
    record: Callable[..., Any], dtype: torch.dtype
) -> None:
    _, trace = record("Gemma", SUMMARIES, dtype=dtype, batch_size=3, top_k=5)
    plain, eager = trace.attrs["receipt"]["replays"]
    tight = {n: d for n, d in plain["largest_differences"].items() if n not in ("mlp_out_norm", "peak_explained")}
    assert max(tight.values()) < 1e-5  # of those two, W a is rounded to the model's dtype
    assert (plain["median"], eager["median"]) == (False, True)
    assert max(eager["largest_differences"].values()) < eager["tolerance"]


def test_full_replays_every_prompt_from_disk(tmp_path: Path) -> None:
    stages: list[str] = []
    trace = run(tmp_path / "t", verify="full", progress=lambda stage, *_: stages.append(stage))
    full = trace.attrs["receipt"]["replays"][2]
    assert full["prompts"] == trace.prompt_id.values.tolist()
    assert full["tokens"] == trace.sizes["token"]
    assert set(full["largest_differences"]) == set(trace.data_vars) - {"peak_neuron"}
    assert "eager replay of 5 prompts within" in trace.attrs["receipt"]["receipt_line"]
    assert stages[-1] == "verifying"


def test_the_final_norm_is_replayed_at_the_answer_position_of_prompts_with_an_answer(tmp_path: Path) -> None:
    options = {"record": (LOGITS,), "targets": ["a"], "generate": 2, "openers": ()}
    trace = run(tmp_path / "t", prompts=TEXTS[:2], verify="full", **options)
    assert trace.attrs["receipt"]["replays"][-1]["largest_differences"]["final_scale"] < 1e-5


def test_a_number_of_the_whole_prompt_that_differs_is_told_without_a_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["final_scale"] = arrays["final_scale"] * 2

    tamper(monkeypatch, change)
    with pytest.raises(CaptureError, match=r"^prompt p\d+: factor of the final norm differs"):
        run(tmp_path / "t", record=(LOGITS,), targets=["a"], prompts=TEXTS[:2], openers=())


def test_a_token_without_any_residual_stream_is_replayed_in_silence(tmp_path: Path) -> None:
    model, tokenizer = tiny("Llama"), byte_tokenizer()
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer(TEXTS[0])["input_ids"][1]] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace = run(tmp_path / "t", model=model, tokenizer=tokenizer, verify="full", prompts=TEXTS[:1])
    ratio = trace["attn_write_ratio"].values[:, 0]
    assert np.isnan(ratio[trace["resid_norm"].values[:, 0] == 0]).all(), "something over nothing is not defined"
    assert np.isnan(ratio).any()
    assert "attn_write_ratio" in trace.attrs["receipt"]["replays"][-1]["largest_differences"]


@pytest.mark.parametrize(
    ("recorded", "difference"), [(np.inf, 0.0), (-np.inf, np.inf), (1.0, np.inf), (np.nan, np.inf)]
)
def test_an_infinite_value_agrees_with_itself_only(recorded: float, difference: float) -> None:
    values = np.array([[recorded], [1.0]], np.float32)
    found = relative_difference(values, np.array([[np.inf], [1.0]]), QUANTITIES["resid_norm"])
    assert found.tolist() == [[difference], [0.0]]


# --- what is found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [n for n in QUANTITIES if QUANTITIES[n].group in SUMMARIES and n not in names.OF_SOME_MODELS]
)
def test_a_value_that_is_not_the_models_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        if name == "peak_neuron":
            arrays[name][10, 1, 2] = (arrays[name][10, 1, 2] + 1) % 72
        else:
            row = 0 if QUANTITIES[name].dims[0] == names.PROMPT else 10
            arrays[name][row, 1] = arrays[name][row, 1] * 1.05 + 0.02

    tamper(monkeypatch, change)
    label = {"peak_neuron": "peak (activation|write)"}.get(
        name, QUANTITIES[name].label.replace("(", r"\(").replace(")", r"\)")
    )
    with pytest.raises(
        CaptureError, match=rf"prompt p0003, {QUANTITIES[name].dims[1]} 1: {label} differs from a replay"
    ):
        run(tmp_path / "t")
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("name", ["router_weight", "peak_expert", "peak_write", "prompt_mean", "mlp_out_norm"])
def test_a_value_that_is_not_the_mixtures_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        row = 0 if QUANTITIES[name].dims[0] == names.PROMPT else 10
        changed = (arrays[name][row, 1] + 1) % 4 if name == "peak_expert" else arrays[name][row, 1] * 1.05 + 0.02
        arrays[name][row, 1] = changed

    tamper(monkeypatch, change)
    with pytest.raises(CaptureError, match=r"prompt p0003, layer 1: .* differs from a replay \(same batch"):
        run(tmp_path / "t", model=tiny("Mixtral"))


def test_a_stronger_neuron_that_was_left_out_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        for name in ("peak_neuron", "peak_value", "peak_write"):
            arrays[name][10, 1, :-1] = arrays[name][10, 1, 1:]  # each of them is right, but the strongest is missing

    tamper(monkeypatch, change)
    with pytest.raises(CaptureError, match="layer 1: peak write differs"):
        run(tmp_path / "t")


def test_what_is_undefined_on_one_side_only_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tamper(monkeypatch, lambda arrays: arrays["attn_received"].__setitem__((10, 2), np.nan))
    with pytest.raises(CaptureError, match=r"layer 2: attention received differs from a replay .* by inf"):
        run(tmp_path / "t")


def test_one_token_that_is_wrong_in_half_precision_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tamper(monkeypatch, lambda arrays: arrays["resid_norm"].__setitem__((10, 2), arrays["resid_norm"][10, 2] * 1.05))
    with pytest.raises(CaptureError, match=r"depth 2: residual stream differs from a replay \(same batch"):
        run(tmp_path / "t", model=tiny("Llama", torch.bfloat16))


def test_a_model_that_padding_changes_is_found_by_a_replay_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("GPT2")  # with learned positions: those of a prompt are shifted by its padding
    model.register_forward_pre_hook(lambda _, args, kwargs: (args, {**kwargs, "position_ids": None}), with_kwargs=True)
    monkeypatch.setattr(
        together, "find_batching", lambda *_: BatchingRule(ANY_LENGTH)
    )  # as if it had not been found out
    trace = run(tmp_path / "t", model=model, tokenizer=byte_tokenizer("left"), record=WITHOUT_ATTENTION)
    batching = trace.attrs["receipt"]["batching"]
    assert batching["together"] == EQUAL_LENGTH
    assert "differs from a replay (each prompt alone, sdpa attention) by" in batching["found_by"]


def test_full_finds_what_went_wrong_after_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    window = Recording._window

    def swapped(self: Recording, prompts: range) -> Any:
        block = window(self, prompts)
        values = block.arrays["mlp_out_norm"]
        values[[40, 41]] = values[[41, 40]]  # two neighbours change places
        return block

    monkeypatch.setattr(Recording, "_window", swapped)
    run(tmp_path / "sample")
    with pytest.raises(CaptureError, match=r"prompt p0003, layer \d: MLP output differs") as error:
        run(tmp_path / "full", verify="full")
    assert "something changes what the model computes" in str(error.value), "its batch gives other values as well"
    assert open_trace(tmp_path / "full").attrs["state"] == "recording"


# --- what cannot be replayed ------------------------------------------------------------------------------------------


def test_a_model_without_eager_attention_is_recorded_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("Llama")

    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("has no eager attention")

    monkeypatch.setattr(type(model), "set_attn_implementation", refuse)
    receipt = run(tmp_path / "t", model=model).attrs["receipt"]
    assert receipt["limits"] == [
        "Not replayed (each prompt alone, eager attention): prompt p0003 and 1 more (has no eager attention)."
    ]
    assert "not replayed" in receipt["receipt_line"]


@pytest.mark.parametrize("family", ["Llama", "Gemma2", "Falcon", "GPT2"])
def test_every_implementation_is_restored_whatever_happens(family: str) -> None:
    model = tiny(family)
    before = attention_implementation(model)
    with pytest.raises(RuntimeError, match="stop"), eager_attention(model):
        raise RuntimeError("stop")
    assert attention_implementation(model) == before


def test_eager_attention_is_what_runs_inside() -> None:
    model = tiny("Llama")
    assert attention_implementation(model) == "sdpa"
    with eager_attention(model) as implementation:
        assert implementation == attention_implementation(model) == "eager"


# --- the machine and the model ----------------------------------------------------------------------------------------


def test_a_machine_that_computes_differently_each_time_is_reported(tmp_path: Path) -> None:
    model = tiny("Llama")
    model.lm_head.register_forward_hook(lambda *call: call[2] + 1e-3 * torch.rand(()))
    receipt = run(tmp_path / "t", model=model).attrs["receipt"]
    assert receipt["logits_bit_identical"] is False
    assert 0 < receipt["unobserved_repeat_max_abs"] < 1.1e-3
    assert receipt["limits"][0].startswith("Logits differ by up to")
    assert "two unobserved ones by" in receipt["limits"][0]
    assert receipt["receipt_line"].startswith("logits differ by up to")


def test_observation_that_changes_the_logits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("Llama")
    enter = Observer.__enter__

    def and_change(self: Observer) -> Observer:
        model.lm_head.register_forward_hook(lambda *call: call[2] * 1.0001)
        return enter(self)

    monkeypatch.setattr(Observer, "__enter__", and_change)
    with pytest.raises(ModelError, match="recording changes what it computes"):
        run(tmp_path / "t", model=model)


def test_an_implementation_that_is_replaced_is_reported_and_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("Llama")
    enter = Observer.__enter__

    def and_change(self: Observer) -> Observer:
        handle = model.lm_head.register_forward_hook(lambda *call: call[2] * 1.0001)
        self_open = enter(self)
        self._open.callback(handle.remove)
        return self_open

    monkeypatch.setattr(Observer, "__enter__", and_change)
    monkeypatch.setattr(Observer, "changes_implementation", ["experts one by one"])
    receipt = run(tmp_path / "t", model=model).attrs["receipt"]
    assert receipt["changed_implementations"] == ["experts one by one"]
    assert receipt["observed_max_abs"] > 0
    assert "from an unobserved forward with the default (experts one by one)" in receipt["limits"][0]


# --- differences ------------------------------------------------------------------------------------------------------


def test_differences_are_relative_to_the_value_or_to_its_layer() -> None:
    wanted = np.array([[100.0], [1.0], [1.0], [0.001]])
    found = relative_difference(wanted + 0.01, wanted, QUANTITIES["resid_norm"])
    np.testing.assert_allclose(found[:, 0], [1e-4, 1e-2, 1e-2, 1e-2])


def test_differences_of_bounded_quantities_are_taken_as_they_are() -> None:
    wanted = np.array([[0.5], [1e-9]])
    found = relative_difference(wanted + 0.01, wanted, QUANTITIES["mlp_write_cos"])
    np.testing.assert_allclose(found[:, 0], [0.01, 0.01])


@pytest.mark.parametrize("name", ["lens_answer_logprob", "lens_target_logit", "opener_log_odds"])
def test_logarithms_that_are_nearly_0_are_taken_as_they_are(name: str) -> None:
    wanted = np.array([[-1e-5], [-2e-5], [-20.0]])
    found = relative_difference(wanted + 0.01, wanted, QUANTITIES[name])
    np.testing.assert_allclose(found[:, 0], [0.01, 0.01, 0.01 / 20])


def test_differences_over_heads_leave_out_what_is_undefined_in_both() -> None:
    wanted = np.array([[[3.0, np.nan]], [[3.0, 3.0]], [[np.nan, np.nan]]])
    found = relative_difference(wanted * 1.1, wanted, QUANTITIES["attn_received"])
    np.testing.assert_allclose(found[:, 0], [0.1, 0.1, np.nan])
    assert relative_difference(np.zeros((1, 1, 2)), wanted[:1], QUANTITIES["attn_received"])[0, 0] == np.inf
