"""The writer: what goes in comes out, however it was cut into blocks and commits, and nothing wrong goes in."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_traces import (
    ATTRS,
    VARIABLES,
    as_dataset,
    expected,
    merged,
    prompt_block,
    record,
    writer,
)

from stratoscope import defaults, disk, names
from stratoscope.errors import TraceError
from stratoscope.trace.format.schema import Block
from stratoscope.trace.read.reader import open_trace
from stratoscope.trace.write.from_dataset import write_dataset

texts = st.binary(max_size=6).map(lambda raw: raw.decode("utf-8", "surrogateescape")) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=4
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_blocks_and_commits_leave_no_trace_in_the_values(data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / "t"
    prompts = data.draw(st.lists(st.lists(texts, min_size=1, max_size=4), min_size=1, max_size=6))
    blocks = [prompt_block(index, tokens, ("mlp_out_norm",)) for index, tokens in enumerate(prompts)]
    with writer(path, variables=("mlp_out_norm",), overwrite=True) as recording:
        waiting: list[Block] = []
        for block in blocks:
            waiting.append(block)
            if data.draw(st.booleans()):
                recording.append(merged(waiting))
                waiting = []
                if data.draw(st.booleans()):
                    recording.commit()
        if waiting:
            recording.append(merged(waiting))
        recording.finish()
    xr.testing.assert_equal(open_trace(path), as_dataset(merged(blocks), ("mlp_out_norm",)))


def test_chunks_that_grow_over_many_commits_keep_every_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stratoscope.trace.format.schema._CHUNK_TOKENS", 4)
    monkeypatch.setattr("stratoscope.trace.format.schema._CHUNK_WIDE_PROMPTS", 2)
    monkeypatch.setattr("stratoscope.trace.format.schema._CHUNK_TEXT", 16)
    with writer(tmp_path / "t") as recording:
        for index in range(12):
            recording.append(prompt_block(index))
            recording.commit()
        recording.finish()
    assert len(list((tmp_path / "t" / "mlp_out_norm").glob("c.*"))) == 6
    xr.testing.assert_equal(open_trace(tmp_path / "t"), expected(12))


@pytest.mark.parametrize(
    "text", ["", "\0", "\n", "\udce4", "\udcf0\udc9f", "שלום‮", "<0x0A>", "▁Explain", "😀", "a\0b\r\n"]
)
def test_awkward_tokens_survive(tmp_path: Path, text: str) -> None:
    with writer(tmp_path / "t") as recording:
        recording.append(prompt_block(0, ["a", text, "", text]))
        recording.finish()
    trace = open_trace(tmp_path / "t")
    assert trace.text.values.tolist() == ["a", text, "", text]
    assert trace.text[1:3].values.tolist() == [text, ""]
    assert trace.text[-1].item() == text
    assert trace.text[[3, 0]].values.tolist() == [text, "a"]


def test_values_that_the_caller_changes_afterwards_are_not_recorded(tmp_path: Path) -> None:
    block = prompt_block(0)
    before = block.arrays["mlp_out_norm"].copy()
    with writer(tmp_path / "t") as recording:
        recording.append(block)
        block.arrays["mlp_out_norm"][:] = -1
        recording.finish()
    np.testing.assert_array_equal(open_trace(tmp_path / "t").mlp_out_norm, before)


def test_nothing_recorded_is_nan_and_minus_one_and_never_zero(tmp_path: Path) -> None:
    block = prompt_block(0)
    block.arrays["peak_value"][:] = np.nan
    block.arrays["peak_neuron"][:] = -1
    block.arrays["mlp_out_norm"][:] = np.nan
    with writer(tmp_path / "t") as recording:
        recording.append(block)
        recording.finish()
    trace = xr.open_zarr(tmp_path / "t")
    assert np.isnan(trace.peak_value).all()
    assert np.isnan(trace.mlp_out_norm).all()
    assert (trace.peak_neuron == -1).all()
    assert trace.peak_neuron.dtype == np.int32


def test_plain_xarray_opens_the_committed_shape_without_a_warning(tmp_path: Path) -> None:
    with writer(tmp_path / "t") as recording:
        recording.append(prompt_block(0))
        recording.append(prompt_block(1))
        recording.commit()
        recording.append(prompt_block(2))
        recording.commit()
        root = (tmp_path / "t" / "zarr.json").read_bytes()
        recording.append(prompt_block(3))
    (tmp_path / "t" / "zarr.json").write_bytes(root)  # as if it had stopped before the last commit was sealed
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace = xr.open_zarr(tmp_path / "t")
        assert trace.sizes["prompt"] == 3
        np.testing.assert_array_equal(trace.mlp_out_norm, expected(3).mlp_out_norm)
        np.testing.assert_array_equal(trace.coords["prompt"], expected(3).coords["prompt"])


def test_a_trace_being_recorded_can_be_read(tmp_path: Path) -> None:
    with writer(tmp_path / "t") as recording:
        recording.append(prompt_block(0))
        assert not (tmp_path / "t").exists()
        recording.commit()
        early = open_trace(tmp_path / "t")
        recording.append(prompt_block(1))
        recording.commit()
        xr.testing.assert_equal(early, expected(1))
        now = open_trace(tmp_path / "t")
        assert now.attrs["state"] == "recording"
        xr.testing.assert_equal(now, expected(2))
        recording.finish()
    assert open_trace(tmp_path / "t").attrs["state"] == "complete"


def test_arrays_say_what_they_are(tmp_path: Path) -> None:
    trace = open_trace(record(tmp_path / "t"))
    for name in VARIABLES:
        quantity = names.QUANTITIES[name]
        wanted = {"units": quantity.unit, "long_name": quantity.label, "formula": quantity.formula}
        for tool, other in quantity.elsewhere.items():
            assert f"{tool}: {other}" in trace[name].attrs["elsewhere"]
        assert {key: text for key, text in trace[name].attrs.items() if key != "elsewhere"} == {
            **wanted,
            "source": "simulated",
        }
        assert trace[name].dims == quantity.dims


def test_a_dataset_comes_back_from_disk_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stratoscope.trace.write.from_dataset._PART_BYTES", 200)
    dataset = expected(7).assign_attrs(ATTRS)
    write_dataset(dataset, tmp_path / "t")
    again = open_trace(tmp_path / "t")
    xr.testing.assert_equal(again, dataset)
    assert {key: again.attrs[key] for key in ATTRS} == ATTRS
    assert again.attrs["state"] == "complete"


def test_rows_of_an_import_come_back_with_their_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stratoscope.trace.write.from_dataset._PART_BYTES", 200)
    dataset = imported_dataset()
    write_dataset(dataset, tmp_path / "t")
    again = open_trace(tmp_path / "t")
    xr.testing.assert_equal(again, dataset)
    assert again.column_0.attrs["column"] == "Remark"
    assert again.layer.values.tolist() == [22, 23]


def imported_dataset() -> xr.Dataset:
    """Three prompts of two tokens, two rows a token, one extra column."""
    dataset = as_dataset(merged([prompt_block(1, variables=()) for _ in range(3)]), ())
    rows = np.repeat(np.arange(6), 2)
    data = {
        "row_token": ("row", rows),
        "row_layer": ("row", np.tile(np.array([22, 23], np.int32), 6)),
        "row_neuron": ("row", np.arange(12, dtype=np.int32)),
        "imported_norm": ("row", np.linspace(0, 1, 12) / 3),
        "column_0": ("row", np.array([f"r{row}\n" for row in range(12)], dtype=object), {"column": "Remark"}),
    }
    dataset = dataset.drop_vars("layer").assign_coords(layer=np.array([22, 23], np.int32))
    return dataset.assign(data).assign_attrs({"source": "imported", "axis": "neuron"})


# --- what is refused ------------------------------------------------------------------------------------------------


def changed(arrays: dict[str, object] | None = None, texts: dict[str, object] | None = None) -> Block:
    """A block of two prompts with some entries replaced, or taken out where the new value is None."""
    block = merged([prompt_block(0), prompt_block(1)])

    def replace(old: object, new: dict[str, object] | None) -> dict[str, object]:
        together = {**old, **(new or {})}  # type: ignore[dict-item]
        return {key: value for key, value in together.items() if value is not None}

    return Block(replace(block.arrays, arrays), replace(block.texts, texts))  # type: ignore[arg-type]


WRONG_BLOCKS = {
    "a missing array": changed({"peak_value": None}),
    "an unknown array": changed({"extra": np.zeros(3)}),
    "a missing text": changed(texts={"pair": None}),
    "too few token texts": changed(texts={"text": ["a"]}),
    "too few prompt texts": changed(texts={"group": []}),
    "another number of layers": changed({"mlp_out_norm": np.zeros((3, 4), np.float32)}),
    "another number of tokens": changed({"mlp_out_norm": np.zeros((2, 3), np.float32)}),
    "numbers that float32 cannot hold": changed({"mlp_out_norm": np.zeros((3, 3))}),
    "fractions where indices belong": changed({"token_id": np.zeros(3, np.float32)}),
    "indices beyond int32": changed({"token_id": np.full(3, 2**40)}),
    "spans beyond int8": changed({"span": np.full(3, 300)}),
    "prompts that do not start at 0": changed({"prompt": np.array([1, 2, 2])}),
    "prompts that leave one out": changed({"prompt": np.array([0, 2, 2])}),
    "prompts that run backwards": changed({"prompt": np.array([0, 1, 0])}),
    "a prompt without tokens": changed({"prompt": np.array([0, 0, 0])}),
    "a list": changed({"position": [0, 0, 1]}),
    "a lone surrogate": changed(texts={"text": ["a", "\ud800", "b"]}),
    "bytes": changed(texts={"text": ["a", b"b", "c"]}),
}


@pytest.mark.parametrize("block", WRONG_BLOCKS.values(), ids=WRONG_BLOCKS)
def test_a_wrong_block_is_refused_and_spoils_nothing(tmp_path: Path, block: Block) -> None:
    with writer(tmp_path / "t") as recording:
        recording.append(prompt_block(0))
        with pytest.raises(TraceError):
            recording.append(block)
        recording.append(prompt_block(1))
        recording.finish()
    xr.testing.assert_equal(open_trace(tmp_path / "t"), expected(2))


def test_an_attribute_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="JSON"):
        writer(tmp_path / "t", attrs={**ATTRS, "model": object()})


def test_numbers_json_cannot_hold_become_null(tmp_path: Path) -> None:
    path = record(tmp_path / "t", attrs={**ATTRS, "receipt": {"spread": float("nan"), "n": np.int64(3)}})
    assert json.loads((path / "zarr.json").read_text())["attributes"]["receipt"] == {"spread": None, "n": 3}


def test_a_complete_trace_never_changes(tmp_path: Path) -> None:
    path = record(tmp_path / "t")
    before = (path / "zarr.json").read_bytes()
    with writer(path, resume=True) as recording:
        assert recording.complete
        assert recording.committed_prompts == 5
        with pytest.raises(TraceError, match="complete"):
            recording.append(prompt_block(5))
        recording.finish(receipt={"other": 1})
    assert (path / "zarr.json").read_bytes() == before


# --- commits ----------------------------------------------------------------------------------------------------------


def test_an_error_in_the_recording_program_keeps_the_prompts_before_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), writer(tmp_path / "t") as recording:  # noqa: PT012
        recording.append(prompt_block(0))
        recording.append(prompt_block(1))
        raise ZeroDivisionError
    trace = open_trace(tmp_path / "t")
    assert trace.attrs["state"] == "recording"
    xr.testing.assert_equal(trace, expected(2))
    record(tmp_path / "t", resume=True)
    xr.testing.assert_equal(open_trace(tmp_path / "t"), expected(5))


def test_no_prompt_recorded_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), writer(tmp_path / "t"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_while_a_commit_runs_keeps_the_commit_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(operation: str, path: Path) -> None:
        if operation == "replace" and path.name.startswith("c."):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), writer(tmp_path / "t") as recording:  # noqa: PT012
        recording.append(prompt_block(0))
        recording.commit()
        recording.append(prompt_block(1))
        monkeypatch.setattr(disk, "step", interrupt)
        recording.commit()
    monkeypatch.undo()
    xr.testing.assert_equal(open_trace(tmp_path / "t"), expected(1))
    record(tmp_path / "t", resume=True)
    xr.testing.assert_equal(open_trace(tmp_path / "t"), expected(5))


@pytest.mark.parametrize(("cost", "most", "least"), [(0.5, 0.0055, 0.002), (0.001, 0.001, 0.0002)])
def test_commits_come_by_themselves_and_take_a_small_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cost: float, most: float, least: float
) -> None:
    now, spent = 0.0, 0.0

    def slow_disk(operation: str, path: Path) -> None:
        nonlocal now, spent
        if operation == "replace" and path.name == "zarr.json" and path.parent.name == "t":
            now, spent = now + cost, spent + cost

    with writer(tmp_path / "t", commit_seconds=defaults.COMMIT_SECONDS) as recording:
        recording.append(prompt_block(0))
        recording.commit()
        monkeypatch.setattr("stratoscope.trace.write.writer.time", SimpleNamespace(monotonic=lambda: now))
        monkeypatch.setattr(disk, "step", slow_disk)
        recording.commit()
        start, spent = now, 0.0
        while now - start < cost * 600 + 10:
            now += 0.25
            recording.append(prompt_block(1))
        assert least <= spent / (now - start) <= most


def test_memory_does_not_grow_with_what_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "COMMIT_BYTES", 5000)
    with writer(tmp_path / "t") as recording:
        for index in range(60):
            recording.append(prompt_block(index))
            waiting = sum(values.nbytes for block in recording._pending for values in block.arrays.values())
            assert waiting <= 5000
        assert recording.committed_prompts > 30
        recording.finish()
    xr.testing.assert_equal(open_trace(tmp_path / "t"), expected(60))
