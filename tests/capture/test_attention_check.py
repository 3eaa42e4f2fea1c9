"""Recorded attention is proved on the way: what the model did not do is an error, and the figures are there to show."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attention_reference import OUT, make, make_batch, projections
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from stratoscope.errors import CaptureError
from stratoscope.recorder.attention.check import AttentionChecks
from stratoscope.recorder.attention.observer import AttentionObserver
from stratoscope.recorder.attention.rows import Mask, WeightRows, float32_unit

WRONG_OUTPUT = r"layer \d, prompt \d of the batch: attention weights that do not give the model's own attention output"


@torch.no_grad()
def record(model: Any, family: str, forwards: int = 1, padding: str = "left") -> AttentionObserver:
    batch = make_batch(padding)
    with AttentionObserver(model, 3, projections(model, family)) as observer:
        for _ in range(forwards):
            observer.begin(batch["attention_mask"].bool())
            model(**batch, use_cache=False)
            observer.take()
    return observer


def replaced(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Let sdpa do something else than it was asked for, as a faulty or patched attention function would."""
    original = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def faulty(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
        given = {"query": query, "key": key, "value": value, "attention_mask": mask, **kwargs}
        given |= {name: change(given.get(name)) for name, change in changes.items()}
        return original(module, **given)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._local_mapping, "sdpa", faulty)


@pytest.mark.parametrize(
    "changes",
    [
        {"scaling": lambda scaling: scaling * 1.01},
        {"attention_mask": lambda mask: mask & ~torch.eye(mask.shape[-1], dtype=torch.bool).roll(-1, 1)},
        {"attention_mask": lambda mask: mask | torch.ones_like(mask).tril()},
        {"key": lambda key: key.flip(1)},
        {"query": lambda query: (query / 3).tanh() * 3},
    ],
    ids=["another scaling", "a key hidden", "padding shown", "heads paired otherwise", "scores capped"],
)
def test_an_attention_function_that_does_something_else_is_an_error(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    record(make("Llama"), "Llama")
    replaced(monkeypatch, **changes)
    with pytest.raises(CaptureError, match=WRONG_OUTPUT):
        record(make("Llama"), "Llama")


def test_an_error_names_the_prompt_that_it_is_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(query: torch.Tensor) -> torch.Tensor:
        query = query.clone()
        query[1] *= 1.1
        return query

    replaced(monkeypatch, query=change)
    with pytest.raises(CaptureError, match="layer 0, prompt 1 of the batch"):
        record(make("Llama"), "Llama")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", OUT)
def test_rounding_alone_stays_well_within_the_limits(family: str, dtype: torch.dtype) -> None:
    checked = record(make(family, dtype), family).checked
    assert checked["outputs"]["share_of_limit"] < 0.6
    assert checked["row_sums"]["share_of_limit"] < 0.9
    assert checked["outputs"]["values"] > 0


def test_every_row_of_the_models_own_weights_is_counted() -> None:
    batch = make_batch("left")
    real = int(batch["attention_mask"].sum())
    checked = record(make("Gemma2"), "Gemma2", forwards=3).checked
    assert checked["row_sums"]["rows"] == 3 * 3 * 4 * real  # forwards, layers, heads
    assert 0 < checked["row_sums"]["max_error"] < 1e-6
    assert checked["outputs"]["forwards"] == 2  # the first and the second of three
    assert checked["source"] == "its attention function 'eager'"


def test_only_what_was_settled_is_counted_and_sampling_starts_again() -> None:
    checks = AttentionChecks()
    mask = Mask.whole(torch.ones(1, 3, dtype=torch.bool), None, causal=False)

    def forward() -> bool:
        checks.begin(mask.queries.numpy())
        checks.row_sums(0, torch.ones(1, 1, 3), mask, torch.float32, False)
        return checks.sampled

    assert [forward(), forward(), forward()] == [True, True, False]
    assert (checks.summary()["row_sums"]["rows"], checks.summary()["outputs"]["forwards"]) == (0, 0)
    checks.forget()  # the batch failed
    assert [forward(), forward(), forward()] == [True, True, False]
    checks.settle()
    assert (checks.summary()["row_sums"]["rows"], checks.summary()["outputs"]["forwards"]) == (9, 2)
    checks.restart()
    assert forward()


def test_recomputed_rows_are_not_said_to_be_checked_by_their_sums() -> None:
    assert record(make("Llama"), "Llama").checked["row_sums"]["rows"] == 0


@pytest.mark.parametrize(("weight", "sink", "wrong"), [(0.1, False, True), (0.1, True, False), (0.3, True, True)])
def test_a_row_may_miss_mass_only_to_a_learned_sink(weight: float, sink: bool, wrong: bool) -> None:
    checks = AttentionChecks()
    mask = Mask.whole(torch.tensor([[True] * 5, [False] + [True] * 4]), None, causal=False)
    checks.begin(mask.queries.numpy())
    sums = torch.full((2, 1, 5), 1.0)
    sums[1, 0, 2] = 5 * weight
    checks.row_sums(4, sums, mask, torch.float32, sink)
    if wrong:
        with pytest.raises(CaptureError, match="layer 4, prompt 1 of the batch: rows of attention weights"):
            checks.settle()
    else:
        checks.settle()


def test_weights_that_are_no_numbers_are_an_error_and_padding_is_not_looked_at() -> None:
    checks = AttentionChecks()
    mask = Mask.whole(torch.tensor([[False, True, True]]), None, causal=False)
    checks.begin(mask.queries.numpy())
    sums = torch.tensor([[[torch.nan, 1, 1]]])
    checks.row_sums(0, sums, mask, torch.float32, False)
    checks.settle()
    checks.row_sums(0, sums.flip(-1), mask, torch.float32, False)
    with pytest.raises(CaptureError, match="nan"):
        checks.settle()


def test_a_failed_batch_does_not_spoil_the_next() -> None:
    model, batch = make("Gemma2"), make_batch("none")
    with torch.no_grad(), AttentionObserver(model, 3) as observer:
        observer.begin(batch["attention_mask"].bool())
        observer._checks._sums[0] = torch.full((2, 3), 9.0)  # found in a batch that ended before `take`
        observer.begin(batch["attention_mask"].bool())
        model(**batch, use_cache=False)
        observer.take()


def test_half_precision_weights_may_be_off_by_their_rounding() -> None:
    rows = WeightRows(torch.full((1, 1, 1, 3), 1 / 3, dtype=torch.bfloat16))
    checks = AttentionChecks()
    mask = Mask(torch.ones(1, 1, dtype=torch.bool), torch.ones(1, 3, dtype=torch.bool), None, False)
    checks.begin(mask.queries.numpy())
    total = 3 * float(rows._weights[0, 0, 0, 0])
    assert total != 1
    checks.row_sums(0, torch.full((1, 1, 1), total), mask, rows.dtype, False)
    checks.settle()
    checks.row_sums(0, torch.full((1, 1, 1), total), mask, torch.float32, False)
    with pytest.raises(CaptureError, match="rows of attention"):
        checks.settle()


def test_a_whole_answer_is_settled_with_one_question_to_the_device() -> None:
    class Asked(TorchDispatchMode):
        waits = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.waits += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default)
            return func(*args, **(kwargs or {}))

    checks, no = AttentionChecks(), torch.tensor(False)
    for layer in range(32):
        for _ in range(512):
            checks.never(layer, "other keys", no)
    with Asked() as asked:
        checks.settle()
    assert asked.waits == 0, "asked for numbers one by one"  # a list of all of them is one copy
    checks.never(3, "other keys", no)
    checks.never(7, "other keys", ~no)
    checks.never(7, "other keys", no)
    with pytest.raises(CaptureError, match=r"layer 7: .*other keys"):
        checks.settle()


def test_the_bound_knows_how_torch_was_told_to_multiply_by_either_way_of_telling(user_precision: None) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert float32_unit(cpu) == float32_unit(gpu) == 2.0**-24
    torch.set_float32_matmul_precision("medium")
    assert (float32_unit(cpu), float32_unit(gpu)) == (2.0**-8, 2.0**-11)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision = "tf32"  # since then torch.get_float32_matmul_precision refuses
    assert (float32_unit(cpu), float32_unit(gpu)) == (2.0**-24, 2.0**-11)
