"""The reader: reads only what is asked for, in every way xarray can ask."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_traces import expected, prompt_block, record, writer

from stratoscope.errors import TraceError
from stratoscope.trace.read import safe_store
from stratoscope.trace.read.reader import open_trace

PROMPTS = 30


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Many small chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stratoscope.trace.format.schema._CHUNK_TOKENS", 4)
        patch.setattr("stratoscope.trace.format.schema._CHUNK_TEXT", 16)
        yield record(tmp_path_factory.mktemp("trace") / "t", PROMPTS)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the chunks read so far."""
    seen: list[str] = []
    read = safe_store._read_chunk

    def noting(path: Path, array: object) -> bytes:
        seen.append(f"{path.parent.name}/{path.name}")
        return read(path, array)  # type: ignore[arg-type]

    monkeypatch.setattr(safe_store, "_read_chunk", noting)
    return seen


def test_opening_reads_only_the_axes(trace: Path, reads: list[str]) -> None:
    dataset = open_trace(trace)
    assert dict(dataset.sizes) == dict(expected(PROMPTS).sizes)
    repr(dataset)
    assert {chunk.split("/")[0] for chunk in reads} == {"layer", "depth"}


def test_ten_texts_read_only_the_chunks_they_lie_in(trace: Path, reads: list[str]) -> None:
    dataset = open_trace(trace)
    reads.clear()
    assert dataset.text[40:42].values.tolist() == expected(PROMPTS).text[40:42].values.tolist()
    assert len(set(reads)) <= 4
    assert {chunk.split("/")[0] for chunk in reads} == {"text_bytes", "text_end"}


def test_one_token_of_a_quantity_reads_one_chunk(trace: Path, reads: list[str]) -> None:
    dataset = open_trace(trace)
    reads.clear()
    np.testing.assert_array_equal(dataset.peak_value[17, 1], expected(PROMPTS).peak_value[17, 1])
    assert reads == ["peak_value/c.4.0.0"]


INDICES = (
    st.slices(60).filter(lambda index: len(range(60)[index]))  # on an empty backward slice xarray itself fails
    | st.integers(-60, 59)
    | st.lists(st.integers(-60, 59), max_size=8).map(lambda places: np.array(places, int))
    | st.lists(st.booleans(), min_size=60, max_size=60).map(np.array)
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(index=INDICES)
def test_any_selection_equals_the_same_selection_in_memory(trace: Path, index: int | slice | np.ndarray) -> None:
    wanted, lazy = expected(PROMPTS), open_trace(trace)
    assert wanted.sizes["token"] == 60
    for name in ("text", "mlp_out_norm", "prompt"):
        assert lazy[name].isel(token=index).values.tolist() == wanted[name].isel(token=index).values.tolist()


def test_selections_of_selections_and_whole_dataset_operations_work(trace: Path) -> None:
    dataset, wanted = open_trace(trace), expected(PROMPTS)
    part = {"token": slice(5, 50, 3)}
    xr.testing.assert_equal(dataset.isel(part).isel(token=[3, 1]), wanted.isel(part).isel(token=[3, 1]))
    xr.testing.assert_equal(dataset.isel(prompt=slice(2, 9)).load(), wanted.isel(prompt=slice(2, 9)))
    xr.testing.assert_equal(dataset.sel(layer=[2, 0]), wanted.sel(layer=[2, 0]))
    xr.testing.assert_equal(copy.deepcopy(dataset), wanted)
    second = dataset.isel(token=np.flatnonzero(dataset["prompt"] == 2))
    assert second.text.values.tolist() == ["t2-0", "t2-1", "t2-2"]


def test_numbers_and_texts_have_the_types_of_the_format(trace: Path) -> None:
    dataset = open_trace(trace)
    for name, variable in expected(PROMPTS).variables.items():
        assert dataset[name].dtype == variable.dtype, name
        assert dataset[name].dims == variable.dims, name
    assert set(dataset.coords) == set(expected(PROMPTS).coords)


def test_opening_through_a_link_of_the_user_works(trace: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(trace, target_is_directory=True)
    xr.testing.assert_equal(open_trace(tmp_path / "link"), expected(PROMPTS))


def test_a_relative_path_still_works_in_another_folder(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trace.parent)
    dataset = open_trace("t")
    monkeypatch.chdir(tmp_path)
    xr.testing.assert_equal(dataset, expected(PROMPTS))


def test_a_trace_replaced_after_opening_is_not_mixed_with_the_new_one(tmp_path: Path) -> None:
    path = record(tmp_path / "t", 3)
    dataset = open_trace(path)
    with writer(path, overwrite=True) as recording:
        for index in (7, 8, 9):
            recording.append(prompt_block(index))
        recording.finish()
    with pytest.raises(TraceError, match="replaced since it was opened"):
        dataset.mlp_out_norm.load()


def test_a_trace_without_prompts_opens(tmp_path: Path) -> None:
    dataset = open_trace(record(tmp_path / "t", 0))
    assert dataset.sizes["token"] == dataset.sizes["prompt"] == 0
    assert dataset.load().text.values.tolist() == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dict(xr.open_zarr(tmp_path / "t").load().sizes) == {"layer": 3, "depth": 4}


def test_a_folder_without_permission_is_one_clear_error(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:  # root may read anything, so the refusal is played
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(TraceError, match="Permission denied"):
        open_trace(trace)
