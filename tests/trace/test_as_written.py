"""What was damaged, copied to a wrong place or edited since it was written is noticed, when it is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from small_traces import ATTRS, SIZES, VARIABLES, as_dataset, merged, prompt_block, record, writer
from test_streamed_arrays import LAYERS, WIDTH
from test_streamed_arrays import record as record_streams

from stratoscope import open_trace
from stratoscope.errors import TraceError
from stratoscope.trace.format import strict_json
from stratoscope.trace.format.schema import Block, Layout
from stratoscope.trace.format.shards import Shards
from stratoscope.trace.write.writer import TraceWriter

SHARDS = Shards(4, 2, LAYERS, WIDTH, 4)


@pytest.fixture(scope="module")
def small_chunks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace whose arrays along tokens have three chunks of equal size, and whose neurons have three shards."""
    path = tmp_path_factory.mktemp("small chunks") / "t"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stratoscope.trace.format.schema._CHUNK_TOKENS", 4)
        patch.setattr(Layout, "shards", lambda *_: SHARDS)
        record_streams(path, "float32")
    return path


@pytest.fixture
def trace(small_chunks: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_chunks, tmp_path / "t"))


def refused(trace: Path, name: str, words: str) -> None:
    opened = open_trace(trace)
    with pytest.raises(TraceError, match=words):
        opened[name].load()


# --- chunks and shards in a wrong place -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "name"),
    [
        ("position/c.0", "token_id/c.0", "token_id"),
        ("mlp_out_norm/c.0.0", "mlp_out_norm/c.1.0", "mlp_out_norm"),
        ("prompt_id_end/c.0", "pair_end/c.0", "pair"),
        ("prompt_class_bytes/c.0", "pair_bytes/c.0", "pair"),
    ],
)
def test_a_whole_chunk_of_another_array_or_place_is_refused(trace: Path, source: str, target: str, name: str) -> None:
    shutil.copy(trace / source, trace / target)
    refused(trace, name, "not the chunk that was written here")


def test_a_chunk_of_the_same_array_of_another_trace_is_refused(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stratoscope.trace.format.schema._CHUNK_TOKENS", 4)
    record(tmp_path / "other", 2, attrs={**ATTRS, "plan": {}})
    shutil.copy(tmp_path / "other" / "resid_norm" / "c.0.0", trace / "resid_norm" / "c.1.0")
    refused(trace, "resid_norm", "not the chunk that was written here")


def test_chunks_beside_a_wrong_one_can_be_read(trace: Path) -> None:
    whole = open_trace(trace).mlp_out_norm.values
    shutil.copy(trace / "mlp_out_norm" / "c.0.0", trace / "mlp_out_norm" / "c.1.0")
    assert np.array_equal(open_trace(trace).mlp_out_norm[:4].values, whole[:4])


@pytest.mark.parametrize("place", ["another place", "another array", "another recording"])
def test_a_whole_shard_of_somewhere_else_is_refused(trace: Path, tmp_path: Path, place: str) -> None:
    target = trace / "neurons" / "c.1.0.0"
    if place == "another place":
        shutil.copy(trace / "neurons" / "c.0.0.0", target)
    else:
        name = "neurons" if place == "another recording" else "active_neurons"
        recording = "another" if place == "another recording" else recording_of(trace)
        content = target.read_bytes()
        header = SHARDS.header(recording, name, 1)
        target.write_bytes(header + content[len(header) :])
    refused(trace, "neurons", "belongs to another array")


def recording_of(trace: Path) -> str:
    return str(open_trace(trace).attrs["recording_sha256"])


def test_the_second_index_of_a_shard_is_checked_and_must_be_there(trace: Path) -> None:
    for change in (lambda content: content[:-1] + b"\0", lambda content: content[:-1]):
        shard = trace / "neurons" / "c.2.0.0"
        before = shard.read_bytes()
        shard.write_bytes(change(before))
        refused(trace, "neurons", r"c\.2\.0\.0.*(index|cut off)")
        shard.write_bytes(before)
    open_trace(trace).load()


def test_a_recording_is_not_gone_on_with_after_a_shard_of_somewhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Layout, "shards", lambda *_: SHARDS)
    given: dict[str, Any] = {"attrs": ATTRS, "layers": range(LAYERS), "sizes": SIZES, "variables": VARIABLES}
    given["streams"] = {"neurons": "float32"}
    with TraceWriter(tmp_path / "t", **given) as recording:
        for _ in range(3):
            fill(recording, 2)
    shutil.copy(tmp_path / "t" / "neurons" / "c.0.0.0", tmp_path / "t" / "neurons" / "c.1.0.0")
    with pytest.raises(TraceError, match="another shard"):
        TraceWriter(tmp_path / "t", **given, resume=True)


def test_a_recording_is_not_gone_on_with_without_its_last_shard_and_none_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Layout, "shards", lambda *_: SHARDS)
    given: dict[str, Any] = {"attrs": ATTRS, "layers": range(LAYERS), "sizes": SIZES, "variables": VARIABLES}
    path = tmp_path / "t" / "neurons" / "c.0.0.0"
    with TraceWriter(tmp_path / "t", **given, streams={"neurons": "float32"}) as recording:
        fill(recording, 2)
    layout = next(iter(recording._streams.values()))
    path.unlink()
    with pytest.raises(TraceError, match="this part is missing"):
        layout._cut_off()
    assert not path.exists()


def fill(recording: TraceWriter, tokens: int) -> None:
    for layer in range(LAYERS):
        recording.stream("neurons").write(
            layer, recording.stream("neurons").next_row, np.ones((tokens, WIDTH), np.float32)
        )
    recording.append(prompt_block(0, ["a"] * tokens))


def test_each_commit_and_an_interrupted_recording_end_their_shards_with_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers that look for it nowhere else would take the numbers for zeros."""
    monkeypatch.setattr(Layout, "shards", lambda *_: SHARDS)
    given: dict[str, Any] = {"attrs": ATTRS, "layers": range(LAYERS), "sizes": SIZES, "variables": VARIABLES}
    with TraceWriter(tmp_path / "t", **given, streams={"neurons": "float32"}) as recording:
        for committed in (1, 2, 3):
            fill(recording, 1)
            recording.commit()
            content = (tmp_path / "t" / "neurons" / "c.0.0.0").read_bytes()
            assert content.endswith(SHARDS.index())
            assert len(content) == SHARDS.file_bytes(committed)
        recording.stream("neurons").write(0, 3, np.ones((1, WIDTH), np.float32))  # of a prompt that never ends
    content = (tmp_path / "t" / "neurons" / "c.0.0.0").read_bytes()
    assert len(content) == SHARDS.file_bytes(3)
    assert content.endswith(SHARDS.index())
    assert (open_trace(tmp_path / "t").neurons == 1).all()


# --- the root document ------------------------------------------------------------------------------------------------


def test_every_bit_of_the_root_document_that_is_flipped_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    path = record(tmp_path / "t", 1)
    root = path / "zarr.json"
    content = root.read_bytes()
    before = strict_json.load(content)
    unnoticed = 0
    random = np.random.default_rng(0)
    for bit in random.choice(len(content) * 8, 300, replace=False).tolist():
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        root.write_bytes(changed)
        try:
            open_trace(path)
        except TraceError:
            continue
        unnoticed += 1
        assert strict_json.load(bytes(changed)) == before
    assert unnoticed < 30


TWICE = {
    "an attribute": ('"attributes": {', '"attributes": {"state": "complete", '),
    "what the document is": ('{"zarr_format": 3, ', '{"zarr_format": 3, "zarr_format": 3, '),
    "an array": ('"metadata": {', '"metadata": {"layer": {}, '),
    "a shape": ('"shape": [1, 3]', '"shape": [1, 3], "shape": [1, 3]'),
    "in the plan": ('"plan": {', '"plan": {"top_k": 2, '),
    "in the receipt": ('"receipt": {', '"receipt": {"n": 1, '),
}


@pytest.mark.parametrize(("old", "new"), TWICE.values(), ids=TWICE)
def test_a_key_that_is_named_twice_is_refused(tmp_path: Path, old: str, new: str) -> None:
    attrs = {**ATTRS, "receipt": {"n": 1}}
    root = record(tmp_path / "t", 1, attrs=attrs) / "zarr.json"
    text = root.read_text()
    assert old in text
    root.write_text(text.replace(old, new, 1))
    with pytest.raises(TraceError, match=r"names '.*' twice"):
        open_trace(tmp_path / "t")


Change = Callable[[dict[str, Any]], object]
UNSEALED: dict[str, tuple[Change, str]] = {
    "an attribute": (lambda c: c["attributes"]["model"].update(name="other"), "digest does not fit"),
    "no digest": (lambda c: c["attributes"].pop("digest"), "it has no digest"),
    "a digest that is none": (lambda c: c["attributes"].update(digest=[]), "digest does not fit"),
    "a unit": (
        lambda c: c["consolidated_metadata"]["metadata"]["mlp_out_norm"]["attributes"].update(units="m"),
        "digest does not fit",
    ),
    "a checksum": (lambda c: c["attributes"]["checksums"].update(layer="AAAAAA=="), "digest does not fit"),
}


@pytest.mark.parametrize(("change", "words"), UNSEALED.values(), ids=UNSEALED)
def test_a_document_that_was_edited_by_hand_is_refused(trace: Path, change: Change, words: str) -> None:
    content = json.loads((trace / "zarr.json").read_text())
    change(content)
    (trace / "zarr.json").write_text(json.dumps(content))
    with pytest.raises(TraceError, match=words):
        open_trace(trace)


def test_a_document_that_was_only_laid_out_anew_opens(trace: Path) -> None:
    before = open_trace(trace).load()
    content = json.loads((trace / "zarr.json").read_text())
    (trace / "zarr.json").write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False))
    xr.testing.assert_identical(open_trace(trace).load(), before)


def test_checksums_that_are_not_those_of_the_chunks_are_refused(trace: Path) -> None:
    for text in ("AAAAAA==", "", "!", None, 3):
        content = json.loads((trace / "zarr.json").read_text())
        content["attributes"]["checksums"]["mlp_out_norm"] = text
        (trace / "zarr.json").write_text(json.dumps(strict_json.sealed(content)))
        with pytest.raises(TraceError, match="checksums of 'mlp_out_norm'"):
            open_trace(trace)


# --- arrays of no length ----------------------------------------------------------------------------------------------


def test_nothing_of_length_0_is_written_and_what_is_missing_is_empty(tmp_path: Path) -> None:
    path = record(tmp_path / "t", 2)
    assert not (path / "group_bytes").exists()
    assert open_trace(path).group.values.tolist() == ["", ""]
    assert open_trace(path).group[1].item() == ""
    shapes = [array["shape"] for array in arrays_of(path).values()]
    assert all(0 not in shape for shape in shapes)
    record(tmp_path / "none", 0)
    assert set(arrays_of(tmp_path / "none")) == {"layer", "depth"}
    assert open_trace(tmp_path / "none").sizes["token"] == 0


def arrays_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
    assert set(found) == {entry.name for entry in path.iterdir() if entry.is_dir()}
    return found


def test_bytes_that_are_missing_where_texts_are_not_empty_are_noticed(tmp_path: Path) -> None:
    path = record(tmp_path / "t", 2)
    content = json.loads((path / "zarr.json").read_text())
    del content["consolidated_metadata"]["metadata"]["pair_bytes"], content["attributes"]["checksums"]["pair_bytes"]
    (path / "zarr.json").write_text(json.dumps(strict_json.sealed(content)))
    refused(path, "pair", "end outside their bytes")


def test_a_column_that_is_empty_at_first_and_not_later_is_recorded(tmp_path: Path) -> None:
    block = prompt_block(1)
    block.texts["group"][0] = "a"  # type: ignore[index]
    with writer(tmp_path / "t") as recording:
        recording.append(prompt_block(0))
    with writer(tmp_path / "t", resume=True) as recording:
        recording.append(block)
        recording.finish()
    assert open_trace(tmp_path / "t").group.values.tolist() == ["", "a"]
    assert xr.open_zarr(tmp_path / "t").group_bytes.values.tolist() == [ord("a")]


# --- a recording that was stopped -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stops", [1, 2])
@pytest.mark.parametrize("prompts", [1, 5])
def test_a_recording_that_lacks_only_its_end_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompts: int, stops: int
) -> None:
    several_chunks(monkeypatch)
    with writer(tmp_path / "t") as recording:
        for index in range(prompts):
            recording.append(prompt_block(index))
    for _ in range(stops - 1):
        with writer(tmp_path / "t", resume=True) as recording:
            recording.commit()
    record(tmp_path / "t", prompts, resume=True)
    check_whole(tmp_path / "t", [prompt_block(index) for index in range(prompts)])


@pytest.mark.parametrize("stops", [1, 3])
def test_a_recording_whose_further_prompts_add_nothing_to_a_column_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: int
) -> None:
    several_chunks(monkeypatch)
    blocks = [prompt_block(index) for index in range(5)]
    blocks[0].texts["group"][0] = "a group"  # type: ignore[index]
    with writer(tmp_path / "t") as recording:
        recording.append(blocks[0])
    for index in range(1, stops):
        with writer(tmp_path / "t", resume=True) as recording:
            recording.append(blocks[index])
    with writer(tmp_path / "t", resume=True) as recording:
        for block in blocks[stops:]:
            recording.append(block)
        recording.finish()
    check_whole(tmp_path / "t", blocks)


def several_chunks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("stratoscope.trace.format.schema._CHUNK_TOKENS", 4)
    patch.setattr("stratoscope.trace.format.schema._CHUNK_WIDE_PROMPTS", 2)
    patch.setattr("stratoscope.trace.format.schema._CHUNK_BYTES", 200)  # two layers of (prompt, layer, neuron)


def check_whole(path: Path, blocks: list[Block]) -> None:
    opened = open_trace(path).load()
    assert opened.attrs["state"] == "complete"
    wanted = as_dataset(merged(blocks))
    for name in wanted.variables:
        assert np.array_equal(opened[name].values, wanted[name].values), name
    assert (path / "prompt_mean" / "c.0.1.0").exists()


@pytest.mark.parametrize("name", ["position", "group_end", "layer"])
def test_a_recording_is_not_gone_on_with_after_a_damaged_chunk(tmp_path: Path, name: str) -> None:
    """Also one that could still grow, which nothing in the root document vouches for."""
    with writer(tmp_path / "t") as recording:
        recording.append(prompt_block(1))
    chunk = tmp_path / "t" / name / "c.0"
    content = chunk.read_bytes()
    for changed in (content[:-1] + bytes([content[-1] ^ 1]), content[:20] + bytes([content[20] ^ 1]) + content[21:]):
        chunk.write_bytes(changed)
        with pytest.raises(TraceError, match=r"cannot be read|is not the chunk"):
            writer(tmp_path / "t", resume=True)
