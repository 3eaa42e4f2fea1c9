"""What is said about a trace is what is in it, for programs and for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from small_traces import ATTRS, expected, prompt_block, record, writer

from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.trace.info.facts import info, info_text
from stratoscope.trace.read.reader import open_trace
from stratoscope.trace.write.from_dataset import write_dataset
from stratoscope.words import number_ranges, size_text


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    receipt = {"logits_bit_identical": True, "spread": float("nan"), "checked": np.int32(7)}
    return record(tmp_path_factory.mktemp("trace") / "small.trace", attrs={**ATTRS, "receipt": receipt})


def test_the_facts_are_those_of_the_trace(trace: Path) -> None:
    facts = info(trace)
    assert {key: facts[key] for key in ("prompts", "tokens", "layers", "rows", "top_k", "neurons", "heads")} == {
        "prompts": 5,
        "tokens": expected(5).sizes["token"],
        "layers": [0, 1, 2],
        "rows": None,
        "top_k": 2,
        "neurons": 6,
        "heads": None,
    }
    assert facts["classes"] == {"critical": 5}
    assert (facts["pairs"], facts["groups"]) == (5, 0)
    assert facts["state"] == "complete"
    assert facts["model"] == ATTRS["model"]
    assert facts["notes"] == ATTRS["notes"]
    assert facts["receipt"] == {"logits_bit_identical": True, "spread": None, "checked": 7}


def test_every_quantity_is_named_with_its_dimensions_in_its_record_group(trace: Path) -> None:
    quantities = info(trace)["quantities"]
    assert list(quantities) == ["norms", "residual", "peaks", "prompts"]
    for group, found in quantities.items():
        for fact in found:
            quantity = names.QUANTITIES[fact["name"]]
            assert group == quantity.group
            assert (fact["dims"], fact["unit"]) == (list(quantity.dims), quantity.unit)


def test_the_size_is_what_the_files_take(trace: Path) -> None:
    assert info(trace)["bytes"] == sum(path.stat().st_size for path in trace.rglob("*") if path.is_file())


def test_the_facts_are_strict_json(trace: Path) -> None:
    facts = info(trace)
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_a_dataset_in_memory_has_no_size_on_disk(trace: Path) -> None:
    facts = info(open_trace(trace).load().drop_encoding())
    assert (facts["path"], facts["bytes"], facts["tokens"]) == (None, None, info(trace)["tokens"])
    assert "(in memory)" in info_text(facts)


def test_the_text_says_it_all_and_fits_a_terminal(trace: Path) -> None:
    text = info_text(info(trace))
    for words in (
        "small.trace · simulated",
        "5 (5 critical; 5 pairs)",
        "3 (0-2)",
        "peak_neuron, peak_value (token × layer × peak)",
        "name: small; revision: not known",
        "logits bit identical  yes",
        "[L01] info: a note",
    ):
        assert words in text
    assert max(map(len, text.splitlines())) <= 100
    assert str(trace.parent) not in text
    assert "NOT COMPLETE" not in text


RECEIPT: dict[str, Any] = {
    "receipt_line": "logits unchanged; 3 batches checked",
    "limits": ["attention of layer 3 is not replayed, " + "since it is long, " * 8],
    "checks": [],
    "replays": [
        {
            "replay": "each alone",
            "tolerance": 0.005,
            "median": False,
            "prompts": ["a", "b"],
            "tokens": 1234,
            "attention": ["sdpa"],
            "largest_differences": {"resid_norm": 2e-6, "peak_write": 1e-6, "attn_first": 0.0, "peak_value": 0.0},
        }
    ],
    "noise_floor": {
        "prompts": ["a"],
        "tokens": 7,
        "largest_changes": {"bfloat16, against float32": {"resid_norm": 67.0, "mlp_out_norm": None}},
    },
}


def test_the_receipt_is_told_whole_and_in_words(tmp_path: Path) -> None:
    text = " ".join(info_text(info(record(tmp_path / "t", attrs={**ATTRS, "receipt": RECEIPT}))).split())
    for words in (
        "Receipt: what was proved while recording logits unchanged; 3 batches checked",
        "since it is long, since it is long, checks - none",  # a limit is never cut short
        "each alone, sdpa attention: prompts a, b (1,234 tokens); largest difference resid_norm 2.0e-06, "
        "peak_write 1.0e-06, "
        "attn_first 0.0e+00, … of 4 quantities; tolerance 5.0e-03",
        "measured on prompts a (7 tokens), stored as floor_*",
        "bfloat16, against float32: resid_norm 67",
    ):
        assert words in text


ODD: list[object] = [None, 3, "x", [1, [2]], {"a": 1}, [{"replay": 1}], [{**RECEIPT["replays"][0], "tokens": "x"}]]
ODD += [{"prompts": [1], "tokens": 10**400, "largest_changes": 3}]


@pytest.mark.parametrize("key", list(RECEIPT))
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_receipt_of_a_stranger_is_shown_and_not_fatal(tmp_path: Path, key: str, odd: object) -> None:
    path = record(tmp_path / "t", attrs={**ATTRS, "receipt": {**RECEIPT, key: odd}})
    assert "Receipt: what was proved" in info_text(info(path))


def test_a_trace_that_is_not_complete_says_so_first(tmp_path: Path) -> None:
    with writer(tmp_path / "t") as recording:
        recording.append(prompt_block(0))
    facts = info(tmp_path / "t")
    assert facts["state"] == "recording"
    assert "NOT COMPLETE" in info_text(facts).splitlines()[0]


def test_a_resumed_trace_says_when(tmp_path: Path) -> None:
    with writer(tmp_path / "t") as recording:
        recording.append(prompt_block(0))
    facts = info(record(tmp_path / "t", resume=True))
    assert len(facts["resumed"]) == 1
    assert f"resumed           {facts['resumed'][0]['at']}" in info_text(facts)


def test_an_import_says_its_rows_and_its_axis(tmp_path: Path) -> None:
    dataset = expected(2).drop_vars(["resid_norm", "mlp_out_norm", "peak_neuron", "peak_value", "prompt_mean", "depth"])
    rows = {
        name: ("row", np.zeros(3, dtype))
        for name, dtype in (("row_token", int), ("row_layer", int), ("row_neuron", int))
    }
    dataset = dataset.assign(**rows, imported_norm=("row", np.ones(3))).assign_attrs(source="imported", axis="residual")
    write_dataset(dataset, tmp_path / "t")
    facts = info(tmp_path / "t")
    assert (facts["rows"], facts["axis"]) == (3, "residual")
    assert "a residual index" in info_text(facts)


def test_what_is_no_trace_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        info(tmp_path / "nowhere")


def test_an_empty_dataset_is_described_and_not_fatal() -> None:
    assert "none" in info_text(info(xr.Dataset()))


@pytest.mark.parametrize(
    ("numbers", "words"), [([], ""), ([3], "3"), ([0, 1, 2], "0-2"), ([31, 22, 23, 0, 23], "0, 22-23, 31")]
)
def test_number_ranges(numbers: list[int], words: str) -> None:
    assert number_ranges(numbers) == words


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 bytes"), (999, "999 bytes"), (34_400, "34.4 kB"), (3 * 10**12, "3 TB")]
)
def test_size_text(size: int, words: str) -> None:
    assert size_text(size) == words
