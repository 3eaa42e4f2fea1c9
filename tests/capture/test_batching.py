"""A prompt's values never depend on which prompts it is batched with: found out per model, and batched accordingly."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_capture import Stop, assert_equal
from test_generate import answers
from test_parts import assert_same_trace
from tiny import ALL_FAMILIES, TEXTS, byte_tokenizer, tiny, tiny_model
from tiny_any import tiny_of

import stratoscope
from stratoscope import capture, merge, plan_capture
from stratoscope.errors import CaptureError
from stratoscope.model.search.find import find_sites
from stratoscope.names import ATTENTION, NORMS, PEAKS, PROMPTS, RESIDUAL
from stratoscope.recorder.input.batches import make_batch
from stratoscope.recorder.input.grouping import ANY_LENGTH, EQUAL_LENGTH, NONE, Batching
from stratoscope.recorder.observe import forward
from stratoscope.recorder.prompts.prompt import Prompt
from stratoscope.recorder.proof import together
from stratoscope.recorder.proof.batching import BatchingRule, find_batching, probe_prompts
from stratoscope.recorder.proof.replay import eager_attention
from stratoscope.trace.info.facts import info, info_text

GROUPS = (NORMS, RESIDUAL, PEAKS, PROMPTS)
# of different lengths, with some of equal length among them
MANY = ["The fox ran.", "A fox sat!", "Tell me how a clock works, please", "The owl flew", *TEXTS]
PADDING = "This model's values change with padding: prompts were batched only with others of equal length."
NEIGHBOURS = "This model's values change with the prompts beside it: each prompt ran alone."


def run(out: Path, model: Any, **options: Any) -> Any:
    settings: dict[str, Any] = {"record": GROUPS, "top_k": 5, "batch_size": 4, "prompts": MANY, **options}
    settings = {"tokenizer": byte_tokenizer(settings.pop("side", "right")), **settings}
    return capture(model, settings.pop("prompts"), out, **settings)


def notes(trace: Any) -> list[str]:
    return [note["text"] for note in trace.attrs["notes"] if note["id"] == "L27"]


# --- models whose values depend on the batch --------------------------------------------------------------------------


def without_positions(dtype: torch.dtype = torch.float32) -> Any:
    """Learned positions counted from the left end: padding on the left shifts them."""
    model = tiny("GPT2", dtype)
    model.register_forward_pre_hook(lambda _, args, kwargs: (args, {**kwargs, "position_ids": None}), with_kwargs=True)
    return model


def blind_to_the_mask(dtype: torch.dtype = torch.float32) -> Any:
    """As code that ignores the attention mask: padding on the left is seen like words."""
    model = tiny("Llama", dtype)
    nothing = {"attention_mask": None, "position_ids": None}  # with positions alone, transformers would tell them apart
    model.register_forward_pre_hook(lambda _, args, kwargs: (args, {**kwargs, **nothing}), with_kwargs=True)
    return model


def refusing_positions(dtype: torch.dtype = torch.float32) -> Any:
    """As remote code that knows no position_ids."""
    model = tiny("GPT2", dtype)

    def refuse(_: Any, args: Any, kwargs: Any) -> None:
        if kwargs.get("position_ids") is not None:
            raise TypeError("forward() got an unexpected keyword argument 'position_ids'")

    model.register_forward_pre_hook(refuse, with_kwargs=True)
    return model


def quantising(dtype: torch.dtype = torch.float32) -> Any:
    """Activations in 8 bits with one scale for the whole batch."""
    model = tiny("Llama", dtype)

    def quantise(_: Any, args: Any) -> Any:
        scale = args[0].abs().max() / 127
        return ((args[0] / scale).round() * scale,)

    for layer in model.model.layers:
        layer.mlp.register_forward_pre_hook(quantise)
    return model


def normalising(dtype: torch.dtype = torch.float32) -> Any:
    """A norm over everything that is in the batch."""
    model = tiny("Llama", dtype)
    for layer in model.model.layers:
        layer.mlp.register_forward_pre_hook(lambda _, args: (args[0] / args[0].std(),))
    return model


def of_limited_capacity(dtype: torch.dtype = torch.float32) -> Any:
    """Experts that drop whatever comes after their share of the batch."""
    model = tiny("Mixtral", dtype)

    def drop(_: Any, args: Any) -> Any:
        hidden, chosen, weights = args
        first = torch.nn.functional.one_hot(chosen[:, 0], 4).cumsum(0).gather(1, chosen[:, :1])
        return hidden, chosen, weights * (first <= len(chosen) / 4)

    for layer in model.model.layers:
        layer.mlp.experts.register_forward_pre_hook(drop)
    return model


def long_and_short(dtype: torch.dtype = torch.float32) -> Any:
    """Rotary frequencies chosen for a batch by its longest prompt."""
    factors = {"short_factor": [1.0] * 4, "long_factor": [8.0] * 4}
    rope = {"rope_type": "longrope", **factors, "rope_theta": 10000.0}
    own = {"rope_parameters": rope, "original_max_position_embeddings": 16}
    return tiny_model("Phi3Config", {**ALL_FAMILIES["Phi3"].options, **own}, dtype)


DEPENDENT: list[tuple[Callable[..., Any], str, str]] = [
    (without_positions, "left", EQUAL_LENGTH),
    (blind_to_the_mask, "left", EQUAL_LENGTH),
    (refusing_positions, "left", EQUAL_LENGTH),
    (quantising, "right", NONE),
    (normalising, "right", NONE),
    (of_limited_capacity, "right", NONE),
]


def found(model: Any, side: str) -> BatchingRule:
    """What is found out about a model."""
    prompts = probe_prompts(byte_tokenizer(), 300, 90)
    sites = find_sites(model, torch.from_numpy(prompts[0].ids.astype(np.int64))[None])
    batch: Any = lambda some: make_batch(some, pad_id=0, padding_side=side, device=torch.device("cpu"))  # noqa: E731
    return find_batching(model, sites, prompts, batch, lambda one: forward(model, one))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_model_that_depends_on_its_batch_is_found_out(dtype: torch.dtype) -> None:
    small = (quantising, normalising)  # what these do is less than a last bit of bfloat16
    cases = [case for case in DEPENDENT if dtype != torch.bfloat16 or case[0] not in small]
    wanted = {make.__name__: together for make, _, together in cases}
    assert {make.__name__: found(make(dtype), side).together for make, side, _ in cases} == wanted


@pytest.mark.parametrize(
    ("dtype", "side"), [(torch.float32, "left"), (torch.bfloat16, "right"), (torch.float16, "right")], ids=str
)
def test_rounding_is_not_taken_for_dependence(dtype: torch.dtype, side: str) -> None:
    narrowed = {family: found(tiny(family, dtype), side) for family in ALL_FAMILIES}
    assert {family: one for family, one in narrowed.items() if one.together != ANY_LENGTH or one.limits} == {}


# --- recorded so that nothing depends on the batch --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "side", "together", "note"),
    [
        (without_positions, "left", EQUAL_LENGTH, PADDING),
        (quantising, "right", NONE, NEIGHBOURS),
        (long_and_short, "right", ANY_LENGTH, "This model counts positions otherwise where a prompt has more than 16"),
    ],
)
def test_a_prompt_has_the_values_that_it_has_alone(
    tmp_path: Path, make: Callable[..., Any], side: str, together: str, note: str
) -> None:
    record = (*GROUPS, ATTENTION)
    trace = run(tmp_path / "t", make(), side=side, record=record)
    assert trace.attrs["plan"]["together"] == trace.attrs["receipt"]["batching"]["together"] == together
    (said,) = notes(trace)
    assert said.startswith(note)
    assert "[L27] info: This model" in info_text(info(tmp_path / "t"))
    alone = run(tmp_path / "alone", make(), side=side, record=record, batch_size=1)
    assert notes(alone) == [], "nothing was batched"
    for name in trace.data_vars:
        assert np.allclose(trace[name].values, alone[name].values, rtol=1e-4, atol=1e-5, equal_nan=True), name


def test_without_the_rule_long_prompts_would_change_short_ones(tmp_path: Path) -> None:
    model = long_and_short()
    texts = ["A fox sat!", "Tell me how a clock works, please"]
    ids = [torch.tensor([byte_tokenizer()(text)["input_ids"]]) for text in texts]
    batch = torch.nn.functional.pad(ids[0], (0, ids[1].shape[1] - ids[0].shape[1]))
    mask = (torch.arange(batch.shape[1]) < ids[0].shape[1]).long()[None]
    with torch.no_grad():
        beside = model(torch.cat([batch, ids[1]]), attention_mask=torch.cat([mask, torch.ones_like(mask)])).logits
        alone = model(ids[0]).logits
    assert float((beside[0, : ids[0].shape[1]] - alone[0]).abs().max()) > 1e-2


def test_what_the_probe_misses_and_a_replay_finds_is_batched_accordingly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "find_batching", lambda *_: BatchingRule(ANY_LENGTH))
    for make, side, wanted, note in (
        (without_positions, "left", EQUAL_LENGTH, PADDING),
        (normalising, "right", NONE, NEIGHBOURS),
    ):
        trace = run(tmp_path / wanted, make(), side=side)
        assert trace.attrs["plan"]["together"] == wanted
        assert notes(trace) == [note]
        assert "differs from a replay (each prompt alone, " in trace.attrs["receipt"]["batching"]["found_by"]


def test_what_only_a_long_prompt_shows_is_an_error_with_its_cause(tmp_path: Path) -> None:
    model = tiny("Llama")
    rotary = model.model.rotary_emb  # positions are counted otherwise in batches longer than any probe
    rotary.register_forward_hook(lambda _, args, out: tuple(one * 0.5 for one in out) if out[0].shape[1] > 70 else out)
    with pytest.raises(CaptureError, match="Alone, this model gives other values for this prompt") as error:
        run(tmp_path / "long", model, prompts=["word " * 14, "word " * 15], verify="full")
    assert str(error.value).endswith("Record it again with --batch-size 1.")
    run(tmp_path / "alone", model, prompts=["word " * 14, "word " * 15], verify="full", batch_size=1)


def test_no_message_asks_for_a_report() -> None:
    sources = Path(stratoscope.__file__).parent.rglob("*.py")
    asking = re.compile(r"report (it|this) |report this arch|file an issue|is a bug", re.IGNORECASE)
    assert [path.name for path in sources if asking.search(path.read_text())] == []


def test_where_only_eager_attention_differs_that_is_a_limit_and_not_the_end(tmp_path: Path) -> None:
    model = tiny("Llama")

    def louder(module: Any, args: Any, kwargs: Any) -> Any:
        eager = model.config._attn_implementation == "eager"
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"] * 1.5} if eager else kwargs

    model.model.layers[1].self_attn.register_forward_pre_hook(louder, with_kwargs=True)
    receipt = run(tmp_path / "t", model).attrs["receipt"]
    (limit,) = receipt["limits"]
    assert "eager attention" in limit
    assert "so that is what it was held against" in limit
    assert receipt["replays"][1]["attention"] == ["sdpa"]
    assert "; sdpa replay within" in receipt["receipt_line"]
    with pytest.raises(CaptureError, match="Only eager attention shows its weights"):
        run(tmp_path / "attention", model, record=(RESIDUAL, ATTENTION))
    with eager_attention(model):
        assert run(tmp_path / "eager", model).attrs["receipt"]["limits"] == []


def test_a_machine_that_computes_differently_each_time_is_not_taken_for_dependence(tmp_path: Path) -> None:
    model = tiny("Llama")
    model.model.layers[1].mlp.register_forward_pre_hook(lambda _, args: (args[0] * (1 + 1e-3 * torch.rand(())),))
    trace = run(tmp_path / "t", model)
    assert trace.attrs["plan"]["together"] == ANY_LENGTH
    assert trace.attrs["receipt"]["limits"][0].startswith("Logits differ by")


def test_a_model_that_begins_to_differ_each_time_is_batched_as_ever_and_that_is_a_limit() -> None:
    model, forwards = tiny("Llama"), iter(range(100))

    def shake(_: Any, args: Any) -> Any:
        return (args[0] * (1 + torch.rand(())),) if next(forwards) > 2 else args  # after sites, alone and rounding

    model.model.layers[1].mlp.register_forward_pre_hook(shake)
    finding = found(model, "right")
    assert finding.together == ANY_LENGTH
    (limit,) = finding.limits
    assert limit == "Whether values depend on the batch was not found out: they differ each time, even alone."


# --- the rest of a recording knows it ---------------------------------------------------------------------------------


def test_parts_and_a_resumed_recording_are_batched_as_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"side": "left", "prompts": [*MANY, *MANY[::-1]], "batch_size": 2, "floor": True}
    options["prompts"] = [f"{number} {text}" for number, text in enumerate(options["prompts"])]
    whole = run(tmp_path / "whole", without_positions(), **options)
    for number in (1, 2):
        run(tmp_path / str(number), without_positions(), part=(number, 2), **options)
    merge([tmp_path / "1", tmp_path / "2"], tmp_path / "merged")
    assert_same_trace(tmp_path / "whole", tmp_path / "merged")
    with monkeypatch.context() as patch:
        Stop(patch, 1, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "t", without_positions(), **options)
    resumed = run(tmp_path / "t", without_positions(), resume=True, **{**options, "floor": False})
    assert_equal(whole, resumed)
    assert resumed.attrs["receipt"] == whole.attrs["receipt"]


def test_the_floor_holds_only_what_may_happen(tmp_path: Path) -> None:
    floors = {
        together: run(tmp_path / together, make(), side=side, floor=True).attrs["receipt"]["noise_floor"]
        for make, side, together in ((without_positions, "left", EQUAL_LENGTH), (quantising, "right", NONE))
    }
    measured = {together: list(floor["largest_changes"]) for together, floor in floors.items()}
    precision = "bfloat16, against float32"
    assert measured == {EQUAL_LENGTH: ["4 prompts in a batch, against each alone", precision], NONE: [precision]}
    assert floors[EQUAL_LENGTH]["largest_changes"]["4 prompts in a batch, against each alone"]["resid_norm"] < 1e-4


def test_what_is_planned_are_the_batches_that_are_recorded(tmp_path: Path) -> None:
    options: dict[str, Any] = {"tokenizer": byte_tokenizer("left"), "batch_size": 4, "record": GROUPS, "top_k": 5}
    estimate = plan_capture(without_positions(), MANY, tmp_path / "t", **options)
    trace = run(tmp_path / "t", without_positions(), side="left")
    assert estimate.batches == trace.attrs["receipt"]["batches"] > 3
    assert estimate.batching == (PADDING,)
    assert estimate.to_json()["batching"] == [PADDING] or estimate.to_json()["batching"] == (PADDING,)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=30),
    st.integers(1, 8),
    st.sampled_from([ANY_LENGTH, EQUAL_LENGTH, NONE]),
    st.sampled_from([(None, None), (16, 17), (10, 17), (0, 3)]),
)
def test_batches_hold_every_prompt_once_and_only_those_that_may_run_together(
    lengths: list[int], size: int, together: Any, apart: tuple[Any, Any]
) -> None:
    batches = list(Batching(size, together, *apart).batches(lengths))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) <= (1 if together == NONE else size)
        for one, other in combinations([lengths[index] for index in batch], 2):
            assert one == other or together == ANY_LENGTH
            assert one == other or apart[0] is None or max(one, other) <= apart[0] or min(one, other) >= apart[1]


# --- answers ----------------------------------------------------------------------------------------------------------


def test_a_recurrent_model_answers_as_it_answers_alone(tmp_path: Path) -> None:
    options: dict[str, Any] = {"generate": 4, "record": (RESIDUAL,), "prompts": ["The fox ran.", "No.", "A fox sat!"]}
    trace = run(tmp_path / "t", tiny_of("recurrent_gemma"), **options)
    assert trace.attrs["plan"]["together"] == EQUAL_LENGTH
    assert notes(trace) == [PADDING]
    alone = run(tmp_path / "alone", tiny_of("recurrent_gemma"), batch_size=1, **options)
    assert answers(trace) == answers(alone)
    assert np.allclose(trace["resid_norm"].values, alone["resid_norm"].values, rtol=1e-4)


def test_sampled_answers_do_not_depend_on_the_batch_or_the_order_of_prompts(tmp_path: Path) -> None:
    prompts = [Prompt(f"p{number}", text=text) for number, text in enumerate(MANY)]
    sampled: dict[str, Any] = {"do_sample": True, "temperature": 1.5}
    options: dict[str, Any] = {"generate": 6, "generation": sampled, "record": (RESIDUAL,)}
    by_id = []
    for number, (some, size) in enumerate(((prompts, 4), (prompts[::-1], 3), (prompts[2:4], 1))):
        trace = run(tmp_path / str(number), tiny("Llama"), prompts=some, batch_size=size, **options)
        by_id.append(dict(zip(trace.prompt_id.values.tolist(), answers(trace), strict=True)))
    assert by_id[0] == by_id[1]
    assert by_id[2].items() <= by_id[0].items()


@pytest.mark.parametrize("setting", [{"repetition_penalty": 2.0}, {"min_length": 20, "eos_token_id": [1, 5]}])
def test_settings_that_count_padding_are_answered_without_padding(tmp_path: Path, setting: dict[str, Any]) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = "e"  # as where the end of text is also the padding
    options: dict[str, Any] = {"generate": 6, "record": (RESIDUAL,), "generation": setting, "tokenizer": tokenizer}
    trace = run(tmp_path / "t", tiny("Llama"), **options)
    name = next(iter(setting))
    (note,) = notes(trace)
    assert note.startswith(f"What is written with {name} would change with padding")
    assert trace.attrs["receipt"]["batching"]["settings"] == [name]
    assert answers(trace) == answers(run(tmp_path / "alone", tiny("Llama"), batch_size=1, **options))


def test_prompts_are_kept_apart_where_an_answer_would_make_them_long(tmp_path: Path) -> None:
    options: dict[str, Any] = {"generate": 4, "openers": (), "record": (RESIDUAL,), "prompts": ["No.", "A fox"]}
    plan = run(tmp_path / "t", long_and_short(), **options).attrs["plan"]
    assert (plan["longest_short"], plan["shortest_long"]) == (12, 17)


# --- a real model -----------------------------------------------------------------------------------------------------


@pytest.mark.model
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_real_model_may_be_batched_with_any(smollm2: Path, tmp_path: Path, dtype: str) -> None:
    from stratoscope.model.load import load_model

    loaded = load_model(str(smollm2), dtype=dtype, device="cpu")
    prompts = probe_prompts(loaded.tokenizer, None, None)
    sites = find_sites(loaded.model, torch.from_numpy(prompts[0].ids.astype(np.int64))[None])
    batch: Any = lambda some: make_batch(some, pad_id=0, padding_side="right", device=torch.device("cpu"))  # noqa: E731
    finding = find_batching(loaded.model, sites, prompts, batch, lambda one: forward(loaded.model, one))
    assert finding.together == ANY_LENGTH
    assert finding.facts["beside_longer"] < finding.facts["rounding_at_most"] / 5
