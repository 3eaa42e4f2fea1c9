"""Merging parts: nothing else than the parts of one recording, whole, never half of it, in little memory. No torch."""

from __future__ import annotations

import os
import shutil
import signal
import tracemalloc
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_traces import ATTRS, SIZES, VARIABLES, edit, prompt_block, record

from stratoscope import disk, info, merge, open_trace
from stratoscope.errors import InputError, StratoscopeError, TraceError
from stratoscope.trace.format.part import part_of, planned_prompts
from stratoscope.trace.format.receipt import merged_receipt
from stratoscope.trace.format.schema import Block
from stratoscope.trace.info.facts import info_text
from stratoscope.trace.write import from_dataset, row_stream
from stratoscope.trace.write import writer as writer_module
from stratoscope.trace.write.writer import TraceWriter

BOUNDS = (0, 4, 5, 10)  # of three parts
REPLAY = {"replay": "each prompt alone", "tolerance": 0.005, "median": False, "attention": ["sdpa"]}
RECEIPT: dict[str, Any] = {
    "threads": 1,
    "logits_bit_identical": True,
    "unobserved_repeat_max_abs": 0.0,
    "residual_replay": "bit-equal in 3/3 layers",
    "replays": [{**REPLAY, "prompts": ["p0"], "tokens": 1, "largest_differences": {"resid_norm": 1e-6}}],
    "limits": ["Attention of layer 1 is not replayed."],
    "checks": ["each site passed", "every norm finite"],
    "batches": 2,
    "tokens": 9,
    "receipt_line": "a line of its own",
}
PLAN: dict[str, Any] = {"record": ["norms", "neurons"], "top_k": 2, "prompts": BOUNDS[-1]}
RECORDED = {**ATTRS, "source": "real", "plan": PLAN, "receipt": RECEIPT, "software": {"torch": "2.7"}}


def bits(index: int, tokens: int) -> np.ndarray:
    """Any 16 bits, [token, layer, neuron]: the kinds of NaN among them too."""
    values = np.random.default_rng(1000 + index).integers(0, 2**16, (tokens, 3, 6), dtype=np.uint16)
    values[0, 0] = [0x7F81, 0xFF81, 0x7FC0, 0xFFFF, 0x8000, 0x7F80]  # signalling and quiet NaN, −0, infinity
    return values


def append(recording: TraceWriter, index: int) -> None:
    """One prompt with its neurons."""
    block = prompt_block(index)
    values = bits(index, len(block.texts["text"]))
    stream = recording.stream("neurons")
    for layer in range(3):
        stream.write(layer, stream.next_row, np.ascontiguousarray(values[:, layer]))
    recording.append(block)


def other_kind(path: Path, **changes: Any) -> Path:
    """The third part, begun with other arrays: one prompt of zeros."""
    sizes, streams = changes.get("sizes", SIZES), changes.get("streams", {"neurons": "bfloat16"})
    variables = changes.get("variables", VARIABLES)
    attrs = {**RECORDED, "plan": {**PLAN, "part": [3, 3], "part_prompts": [5, 10]}}
    block = prompt_block(0, variables=variables)
    block.arrays["prompt_mean"] = np.zeros((1, 3, sizes["neuron"]), np.float32)
    layers: Any = {"layers": (0, 1, 2), "sizes": sizes, "variables": variables, "streams": streams}
    with TraceWriter(path, attrs=attrs, **layers) as recording:
        for stream, layer in product(map(recording.stream, streams), range(3)):
            stream.fill(layer, 0, len(block.texts["text"]))
        recording.append(block)
    return path


def trace(
    path: Path, prompts: range, *, attrs: dict[str, Any] | None = None, complete: bool = True, **more: Any
) -> Path:
    """A recording of those prompts."""
    given: dict[str, Any] = {"layers": (0, 1, 2), "sizes": SIZES, "variables": VARIABLES}
    given |= {"streams": {"neurons": "bfloat16"}, **more}
    with TraceWriter(path, attrs={**RECORDED, **(attrs or {})}, **given) as recording:
        for index in prompts:
            append(recording, index)
        if complete:
            recording.finish()
    return path


def part(folder: Path, number: int, *, of: int = 3, name: str = "", plan: Any = (), **more: Any) -> Path:
    first, end = BOUNDS[number - 1 : number + 1]
    whole = {**PLAN, "part": [number, of], "part_prompts": [first, end], **dict(plan)}
    attrs = {"plan": whole, **more.pop("attrs", {})}
    return trace(folder / (name or f"{number}.trace"), more.pop("prompts", range(first, end)), attrs=attrs, **more)


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return [part(tmp_path, number) for number in (1, 2, 3)]


def assert_whole(path: Path, folder: Path) -> None:
    """The merged trace holds, byte for byte, what one recording of all prompts holds."""
    one = trace(folder / "one recording", range(BOUNDS[-1]))
    chunks = {chunk.relative_to(one) for chunk in one.rglob("c.*")}
    assert chunks == {chunk.relative_to(path) for chunk in path.rglob("c.*")}
    for chunk in chunks:
        assert (one / chunk).read_bytes() == (path / chunk).read_bytes(), chunk
    shutil.rmtree(one)


def left(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


# --- what comes of it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_parts_in_any_order_become_the_whole_bit_for_bit(tmp_path: Path, three: list[Path], order: Any) -> None:
    merge([three[place] for place in order], tmp_path / "m")
    assert_whole(tmp_path / "m", tmp_path)


@pytest.mark.parametrize("budget", [1, 60, 500])
def test_however_little_is_copied_at_once_nothing_changes(
    tmp_path: Path, three: list[Path], monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    monkeypatch.setattr(from_dataset, "_PART_BYTES", budget)
    monkeypatch.setattr(from_dataset, "_STREAMED_BYTES", budget)
    monkeypatch.setattr(writer_module, "_MOST_OPEN_FILES", 0)
    merge(three, tmp_path / "m")
    assert_whole(tmp_path / "m", tmp_path)


def test_the_plan_is_that_of_one_recording_and_every_part_is_named(tmp_path: Path, three: list[Path]) -> None:
    uuids = [open_trace(path).attrs["uuid"] for path in three]
    attrs = merge(three, tmp_path / "m").attrs
    assert attrs["plan"] == PLAN
    assert attrs["state"] == "complete"
    assert attrs["uuid"] not in uuids
    told = [(one["part"], one["prompts"], one["uuid"]) for one in attrs["merged"]]
    assert told == [(1, [0, 4], uuids[0]), (2, [4, 5], uuids[1]), (3, [5, 10], uuids[2])]
    assert attrs["notes"] == ATTRS["notes"]
    text = info_text(info(tmp_path / "m"))
    assert "from 3 parts" in text
    assert "part 1 of" not in text


def test_a_part_that_was_resumed_says_so_where_the_parts_are_named(tmp_path: Path) -> None:
    first = part(tmp_path, 1, prompts=range(2), complete=False)
    part(tmp_path, 1, prompts=range(2, 4), resume=True)
    attrs = merge([first, part(tmp_path, 2), part(tmp_path, 3)], tmp_path / "m").attrs
    assert "resumed" not in attrs
    assert ["resumed" in one for one in attrs["merged"]] == [True, False, False]
    assert_whole(tmp_path / "m", tmp_path)


def test_progress_ends_at_the_last_prompt(tmp_path: Path, three: list[Path]) -> None:
    seen: list[tuple[str, int, int | None]] = []
    merge(three, tmp_path / "m", progress=lambda *state: seen.append(state))
    assert seen[0][0] == "reading the parts"
    assert seen[-1] == ("merging", 10, 10)
    done = [done for stage, done, _ in seen if stage == "merging"]
    assert done == sorted(done)


def test_the_larger_noise_floor_counts(tmp_path: Path) -> None:
    floors = ([1.0, 5.0, np.nan], [2.0, 3.0, 4.0])
    paths = [
        part(tmp_path, number, fixed={"floor_mlp_out_norm": np.array(floor, np.float32)})
        for number, floor in zip((1, 2), floors, strict=True)
    ]
    merged = merge([*paths, part(tmp_path, 3)], tmp_path / "m")
    assert merged.floor_mlp_out_norm.values.tolist() == [2.0, 5.0, 4.0]


# --- receipts ---------------------------------------------------------------------------------------------------------


def test_equal_receipts_are_added_up_and_nothing_else(tmp_path: Path, three: list[Path]) -> None:
    receipt = merge(three, tmp_path / "m").attrs["receipt"]
    line = "logits unchanged; residual sum bit-equal in 3/3 layers; sdpa replay within 1e-06; 6 batches checked"
    assert receipt == {**RECEIPT, "batches": 6, "tokens": 27, "receipt_line": line}


def test_of_receipts_that_differ_the_worst_is_kept_and_what_held_in_all(tmp_path: Path) -> None:
    differ = "Logits differ by up to 0.1."
    other = {
        **RECEIPT,
        "logits_bit_identical": False,
        "unobserved_repeat_max_abs": 0.1,
        "limits": [differ],
        "checks": ["every norm finite"],
        "smallest_batch": 2,
        "residual_replay": "within rounding",
        "replays": [{**RECEIPT["replays"][0], "largest_differences": {"resid_norm": 1e-5, "peak_write": 1e-7}}],
        "generation": {"tokens": 3, "logits_bit_identical": True},
    }
    receipt = merged_receipt([RECEIPT, other, {**other, "generation": {"tokens": 3, "logits_bit_identical": False}}])
    assert receipt["logits_bit_identical"] is False
    assert receipt["unobserved_repeat_max_abs"] == 0.1
    assert receipt["limits"] == [*RECEIPT["limits"], differ]
    assert receipt["checks"] == ["every norm finite"]
    assert receipt["smallest_batch"] == 2
    assert receipt["replays"][0]["largest_differences"] == {"resid_norm": 1e-5, "peak_write": 1e-7}
    assert receipt["replays"][0]["tokens"] == 1  # the same prompt in all
    assert receipt["generation"] == {"tokens": 3, "logits_bit_identical": False}
    assert receipt["receipt_line"].startswith(
        "logits differ by up to 0.1; residual sum bit-equal in 3/3 layers | within rounding; "
    )


def test_parts_that_were_recorded_otherwise_are_merged_and_said(tmp_path: Path) -> None:
    model = {**ATTRS["model"], "device": "cuda"}
    others = {"model": model, "software": {"torch": "2.8"}, "receipt": {**RECEIPT, "threads": 4}}
    paths = [
        part(tmp_path, number, attrs=others if number == 2 else {"model": {**model, "device": "cpu"}})
        for number in (1, 2, 3)
    ]
    attrs = merge(paths, tmp_path / "m").attrs
    (note,) = [note for note in attrs["notes"] if note["id"] == "L14"]
    for words in ("device cpu (parts 1, 3) and cuda (part 2)", "torch 2.7 (parts 1, 3) and 2.8 (part 2)", "threads 1"):
        assert words in note["text"]
        assert words in attrs["receipt"]["limits"][-1]
    assert attrs["software"]["torch"] == "2.7 | 2.8"
    assert attrs["model"]["device"] == "cpu | cuda"
    assert attrs["receipt"]["threads"] == "1 | 4"
    assert [one["receipt"]["threads"] for one in attrs["merged"]] == [1, 4, 1]


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(words: str, parts: list[Path], out: Path, kind: type[StratoscopeError] = InputError, **more: Any) -> None:
    before = left(out.parent)
    with pytest.raises(kind, match=words):
        merge(parts, out, **more)
    assert left(out.parent) == before


def test_missing_parts_are_named(tmp_path: Path, three: list[Path]) -> None:
    refused("part 2 of 3 is missing.*--part 2/3", [three[0], three[2]], tmp_path / "m")
    refused("parts 1-2 of 3 are missing", [three[2]], tmp_path / "m")
    refused("there is no part", [], tmp_path / "m")


def test_a_part_given_twice_is_named_with_both_places(tmp_path: Path, three: list[Path]) -> None:
    shutil.copytree(three[1], tmp_path / "copy")
    refused(r"copy: part 2 is given twice, here and as .*2\.trace", [*three, tmp_path / "copy"], tmp_path / "m")
    refused("part 1 is given twice", [three[0], *three], tmp_path / "m")


def test_a_part_that_is_not_complete_is_to_be_resumed(tmp_path: Path, three: list[Path]) -> None:
    torn = part(tmp_path, 3, name="torn", prompts=range(5, 7), complete=False)
    refused(
        r"torn: part 3 is not complete: it holds 2 of its 5.*--part 3/3 --resume", [*three[:2], torn], tmp_path / "m"
    )


OTHER: dict[str, tuple[str, dict[str, Any]]] = {
    "plan": (r"plan\.top_k is 3 and in 1\.trace it is 2", {"plan": {"top_k": 3}}),
    "prompts": (r"plan\.prompts_sha256", {"plan": {"prompts_sha256": "a"}}),
    "model": (r"model\.name is 'other' and in 1\.trace it is 'small'", {"attrs": {"model": {"name": "other"}}}),
    "tokenizer": ("tokenizer", {"attrs": {"tokenizer": {"sha256": "b"}}}),
    "source": ("source", {"attrs": {"source": "simulated"}}),
    "number of parts": ("it is part 3 of 4, not of 3", {"plan": {"part": [3, 4]}}),
    "dtype": (r"neurons\.dtype is 'float16'.*'uint16'", {"streams": {"neurons": "float16"}}),
    "arrays": ("it lacks 'neurons'", {"streams": {}}),
    "more arrays": ("it holds 'neuron_norm'", {"variables": (*VARIABLES, "neuron_norm"), "streams": {}}),
    "shape": (r"prompt_mean\.shape is \[3, 7\]", {"sizes": {**SIZES, "neuron": 7}, "streams": {"neurons": "bfloat16"}}),
}


@pytest.mark.parametrize(("words", "changes"), OTHER.values(), ids=OTHER)
def test_a_part_of_another_recording_is_refused_with_what_differs(
    tmp_path: Path, three: list[Path], words: str, changes: dict[str, Any]
) -> None:
    if changes.keys() & {"streams", "variables"}:
        other = other_kind(tmp_path / "other", **changes)
    else:
        other = part(tmp_path, 3, name="other", prompts=range(5, 6), complete=False, **changes)
    refused(rf"other: it is not of the same recording as 1\.trace: .*{words}", [*three[:2], other], tmp_path / "m")


def test_what_is_no_part_is_refused(tmp_path: Path, three: list[Path]) -> None:
    whole = trace(tmp_path / "whole", range(2))
    refused("whole: this trace is not a part", [*three, whole], tmp_path / "m")
    (tmp_path / "folder").mkdir()
    refused("folder: is not a trace", [*three, tmp_path / "folder"], tmp_path / "m", TraceError)
    refused("nowhere: does not exist", [*three, tmp_path / "nowhere"], tmp_path / "m", TraceError)


def test_parts_whose_prompts_do_not_join_are_refused(tmp_path: Path, three: list[Path]) -> None:
    short = part(tmp_path, 2, name="short", plan={"part_prompts": [3, 4]})
    refused(r"overlap or leave some out: part 1 of 3 \(prompts 1-4 of 10\); part 2 of 3 \(prompts 4-4 of 10\)",
            [three[0], short, three[2]], tmp_path / "m")  # fmt: skip


def test_an_array_that_would_be_lost_is_refused(tmp_path: Path, three: list[Path]) -> None:
    def newer(document: dict[str, Any]) -> None:
        document["attributes"]["format_version"] = "2.99"
        document["consolidated_metadata"]["metadata"]["future"] = {}

    edit(three[1], newer)
    refused("it holds 'future', which this version does not know", three, tmp_path / "m")


def test_a_part_is_never_merged_into_itself_whatever_may_be_overwritten(tmp_path: Path, three: list[Path]) -> None:
    (tmp_path / "link").symlink_to(three[0])
    for out in (three[0], tmp_path / "link", three[1] / "inside"):
        refused("cannot be merged into itself", three, out, overwrite=True)
    merge(three, tmp_path / "m")
    assert_whole(tmp_path / "m", tmp_path)


def test_an_occupied_output_is_kept_unless_it_may_be_replaced(tmp_path: Path, three: list[Path]) -> None:
    record(tmp_path / "m", 2)
    refused("already exists", three, tmp_path / "m", TraceError)
    with pytest.raises(TraceError, match="its folder does not exist"):
        merge(three, tmp_path / "no" / "m")
    merge(three, tmp_path / "m", overwrite=True)
    assert_whole(tmp_path / "m", tmp_path)
    (tmp_path / "thesis").mkdir()
    refused("not a trace", three, tmp_path / "thesis", TraceError, overwrite=True)


ODD_RECEIPTS = [{}, {"replays": 3}, {**RECEIPT, "replays": [{}]}, {**RECEIPT, "limits": None}]


@pytest.mark.parametrize("receipt", ODD_RECEIPTS)
def test_odd_receipts_of_a_stranger_are_refused_in_words(tmp_path: Path, receipt: Any) -> None:
    paths = [part(tmp_path, number, attrs={"receipt": receipt}) for number in (1, 2, 3)]
    refused("receipts of these parts cannot be joined", paths, tmp_path / "m")


ODD_PLANS = [{"part": 3}, {"part": [2]}, {"part": [3, 2]}, {"part": [True, 2]}]
ODD_PLANS += [{"part_prompts": [4, 2]}, {"part_prompts": None}, {"prompts": 3}, {"prompts": "x"}]


@pytest.mark.parametrize("plan", ODD_PLANS)
def test_an_odd_plan_of_a_stranger_is_no_part(plan: dict[str, Any]) -> None:
    assert part_of({"prompts": 10, "part": [2, 3], "part_prompts": [4, 5]} | plan) is None
    assert part_of([plan]) is None
    assert planned_prompts({"prompts": "x"}) is None


# --- stopped ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", [False, True])
def test_ctrl_c_leaves_nothing_and_takes_nothing_away(tmp_path: Path, three: list[Path], overwrite: bool) -> None:
    if overwrite:
        record(tmp_path / "m", 2)
    before = left(tmp_path)

    def stop(stage: str, done: int, total: int | None) -> None:
        if stage == "merging" and done >= 4:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        merge(three, tmp_path / "m", overwrite=overwrite, progress=stop)
    assert left(tmp_path) == before
    if overwrite:
        assert open_trace(tmp_path / "m").sizes["prompt"] == 2


class Counted:
    """Stops at one of the operations on the disk."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int = -1) -> None:
        self.left, self.seen = at, 0
        for module in (disk, row_stream):
            patch.setattr(module, "step", self)

    def __call__(self, operation: str, path: Path) -> None:
        self.seen += 1
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("stopped")  # Ctrl-C waits until a commit is done


def test_a_stop_at_any_write_leaves_nothing_or_the_whole(
    tmp_path: Path, three: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = left(tmp_path)
    with monkeypatch.context() as patch:
        steps = Counted(patch)
        merge(three, tmp_path / "m")
    shutil.rmtree(tmp_path / "m")
    for at in range(1, steps.seen, steps.seen // 24):
        with monkeypatch.context() as patch:
            Counted(patch, at)
            with pytest.raises(RuntimeError, match="stopped"):
                merge(three, tmp_path / "m")
        if (tmp_path / "m").exists():
            assert_whole(tmp_path / "m", tmp_path)
            shutil.rmtree(tmp_path / "m")
        assert left(tmp_path) - {".m.old"} == before, at


def test_a_merge_that_is_killed_shows_nothing_and_the_next_one_tidies_up(tmp_path: Path, three: list[Path]) -> None:
    before = left(tmp_path)
    child = os.fork()
    if child == 0:
        merge(
            three, tmp_path / "m", progress=lambda stage, done, total: done < 5 or os.kill(os.getpid(), signal.SIGKILL)
        )
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert not (tmp_path / "m").exists()
    merge(three, tmp_path / "m")
    assert_whole(tmp_path / "m", tmp_path)
    assert left(tmp_path) == {*before, "m"}


# --- memory -----------------------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_dataset, "_PART_BYTES", 2**20)
    monkeypatch.setattr(from_dataset, "_STREAMED_BYTES", 2**22)
    monkeypatch.setattr("stratoscope.defaults.COMMIT_BYTES", 2**20)
    monkeypatch.setattr("stratoscope.trace.format.schema._CHUNK_BYTES", 2**16)
    peaks = [_peak(tmp_path / str(prompts), prompts) for prompts in (20, 80)]
    assert peaks[1] < 1.25 * peaks[0]
    assert peaks[1] < 8 * 2**20


def _peak(folder: Path, prompts: int) -> int:
    """Bytes that merging two parts of so many prompts holds at most; a prompt takes some 300 kB."""
    folder.mkdir()
    tokens, given = 64, {"layers": (0, 1, 2), "sizes": {"peak": 64, "neuron": 512}, "variables": ("peak_value",)}
    for number in (1, 2):
        bounds = [(number - 1) * prompts, number * prompts]
        attrs = {**RECORDED, "plan": {"prompts": 2 * prompts, "part": [number, 2], "part_prompts": bounds}}
        with TraceWriter(folder / str(number), attrs=attrs, streams={"neurons": "float32"}, **given) as recording:
            for index in range(prompts):
                block = prompt_block(index, ["x"] * tokens, ())
                stream = recording.stream("neurons")
                for layer in range(3):
                    stream.write(layer, stream.next_row, np.zeros((tokens, 512), np.float32))
                values = np.random.default_rng(index).random((tokens, 3, 64), np.float32)
                recording.append(Block({**block.arrays, "peak_value": values}, block.texts))
            recording.finish()
    tracemalloc.start()
    merge([folder / "1", folder / "2"], folder / "m")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak
