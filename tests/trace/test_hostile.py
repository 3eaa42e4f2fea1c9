"""A trace from a stranger can at worst fail with one clear error: it runs, follows and inflates nothing."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from small_traces import edit, record, renew_checksums

from stratoscope import heatmap
from stratoscope.errors import InputError, TraceError
from stratoscope.trace.format import document as documents
from stratoscope.trace.info.facts import info, info_text
from stratoscope.trace.read.reader import open_trace
from stratoscope.trace.write.from_dataset import write_dataset

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("sound") / "t")


@pytest.fixture
def trace(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "t"))


def array(content: dict[str, Any], name: str = "mlp_out_norm") -> dict[str, Any]:
    return content["consolidated_metadata"]["metadata"][name]  # type: ignore[no-any-return]


def settings(content: dict[str, Any]) -> dict[str, Any]:
    return array(content)["codecs"][1]["configuration"]  # type: ignore[no-any-return]


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def rename(content: dict[str, Any], old: str, new: str) -> None:
    arrays = content["consolidated_metadata"]["metadata"]
    arrays[new] = arrays.pop(old)


PICKLE = {"name": "numcodecs.pickle", "configuration": {}}
WRONG_DOCUMENTS: dict[str, tuple[Change, str]] = {
    "a foreign format": (lambda c: c["attributes"].update(format="other"), "not a Stratoscope trace"),
    "no format": (lambda c: c["attributes"].pop("format"), "not a Stratoscope trace"),
    "no attributes": (lambda c: c.pop("attributes"), "not a Stratoscope trace"),
    "no version": (lambda c: c["attributes"].pop("format_version"), "format_version is None"),
    "a version that is none": (lambda c: c["attributes"].update(format_version="1.0; rm"), "format_version"),
    "a future version": (lambda c: c["attributes"].update(format_version="3.0"), r"version is 3\.0.*Install"),
    "an unknown state": (lambda c: c["attributes"].update(state="perhaps"), "attribute 'state'"),
    "an unhashable state": (lambda c: c["attributes"].update(state=[]), "attribute 'state'"),
    "an unknown source": (lambda c: c["attributes"].update(source=None), "attribute 'source'"),
    "a model that is no object": (lambda c: c["attributes"].update(model="x"), "attribute 'model'"),
    "notes that are none": (lambda c: c["attributes"].update(notes=[{"id": 3}]), "attribute 'notes'"),
    "planted things that are no list": (lambda c: c["attributes"].update(planted={}), "attribute 'planted'"),
    "an unknown axis": (lambda c: c["attributes"].update(axis=[]), "attribute 'axis'"),
    "a date that is none": (lambda c: c["attributes"].update(created=3), "attribute 'created'"),
    "an array at the root": (lambda c: c.update(node_type="array"), "no Zarr v3 group"),
    "another Zarr version": (lambda c: c.update(zarr_format=2), "no Zarr v3 group"),
    "no consolidated metadata": (lambda c: c.pop("consolidated_metadata"), "consolidated"),
    "consolidated metadata of no kind": (lambda c: c.update(consolidated_metadata=[1]), "consolidated"),
    "deep attributes": (lambda c: c["attributes"].update(plan={"x": nested(100)}), "nested too deeply"),
    "an unknown array": (lambda c: rename(c, "mlp_out_norm", "mystery"), "unknown array 'mystery'"),
    "an array outside": (lambda c: rename(c, "mlp_out_norm", "../secret"), "unknown array"),
    "an array in a folder": (lambda c: rename(c, "mlp_out_norm", "a/mlp_out_norm"), "unknown array"),
    "a missing coordinate": (lambda c: c["consolidated_metadata"]["metadata"].pop("position"), "lacks.*'position'"),
    "half a text": (lambda c: c["consolidated_metadata"]["metadata"].pop("text_end"), "lacks.*'text_end'"),
    "half a text, the other half": (
        lambda c: c["consolidated_metadata"]["metadata"].pop("text_bytes"),
        "checksums name the array 'text_bytes', which it lacks",
    ),
    "an object type": (lambda c: array(c).update(data_type="object"), "'mlp_out_norm' has a data type"),
    "another type": (lambda c: array(c).update(data_type="float64"), "data type"),
    "a string type": (lambda c: array(c, "text_end").update(data_type="string"), "'text_end' has a data type"),
    "no metadata": (lambda c: c["consolidated_metadata"]["metadata"].update(mlp_out_norm=7), "metadata"),
    "an extra key": (lambda c: array(c).update(must_understand=True), "metadata"),
    "a nested group": (lambda c: array(c).update(node_type="group"), "kind of node"),
    "other dimensions": (lambda c: array(c).update(dimension_names=["layer", "token"]), "dimensions"),
    "a negative shape": (lambda c: array(c).update(shape=[-1, 3]), "length of 'token'"),
    "a shape of text": (lambda c: array(c).update(shape=["9", 3]), "length of 'token'"),
    "a shape of truth values": (lambda c: array(c).update(shape=[True, 3]), "length of 'token'"),
    "a shape of fractions": (lambda c: array(c).update(shape=[9.0, 3]), "length of 'token'"),
    "a shape without end": (lambda c: array(c).update(shape=[10**18, 3]), "length of 'token'"),
    "a million layers": (lambda c: array(c).update(shape=[9, 10**6]), "length of 'layer'"),
    "too few dimensions": (lambda c: array(c).update(shape=[9]), "shape"),
    "two lengths of one dimension": (lambda c: array(c).update(shape=[8, 3]), "another length of 'token'"),
    "empty chunks": (lambda c: array(c)["chunk_grid"]["configuration"].update(chunk_shape=[0, 3]), "chunk_shape"),
    "huge chunks": (lambda c: array(c)["chunk_grid"]["configuration"].update(chunk_shape=[10**7, 3]), "chunk_shape of"),
    "an irregular grid": (lambda c: array(c)["chunk_grid"].update(name="rectilinear"), "chunk_grid"),
    "other chunk names": (lambda c: array(c)["chunk_key_encoding"].update(name="v2"), "chunk_key_encoding"),
    "folders of chunks": (
        lambda c: array(c)["chunk_key_encoding"]["configuration"].update(separator="/"),
        "chunk_key_encoding",
    ),
    "a storage transformer": (lambda c: array(c).update(storage_transformers=[{"name": "x"}]), "storage_transformers"),
    "another fill value": (lambda c: array(c).update(fill_value=0), "fill_value"),
    "no codec": (lambda c: array(c).update(codecs=[]), "codecs"),
    "pickle": (lambda c: array(c).update(codecs=[PICKLE]), "codecs"),
    "pickle behind bytes": (lambda c: array(c)["codecs"].insert(1, PICKLE), "codecs"),
    "an unknown codec": (lambda c: array(c)["codecs"].append({"name": "mystery"}), "codecs"),
    "a codec of text": (lambda c: array(c).update(codecs=["bytes"]), "codecs"),
    "gzip": (lambda c: array(c)["codecs"].insert(1, {"name": "gzip", "configuration": {"level": 1}}), "codecs"),
    "zstd": (lambda c: array(c)["codecs"].insert(1, {"name": "zstd", "configuration": {"level": 1}}), "codecs"),
    "blosc twice": (lambda c: array(c)["codecs"].insert(1, array(c)["codecs"][1]), "codecs"),
    "shards": (lambda c: array(c).update(codecs=[{"name": "sharding_indexed", "configuration": {}}]), "codecs"),
    "big-endian": (lambda c: array(c)["codecs"][0]["configuration"].update(endian="big"), "codecs"),
    "an unknown compressor": (lambda c: settings(c).update(cname="evil"), "blosc cname"),
    "a huge type size": (lambda c: settings(c).update(typesize=10**9), "blosc typesize"),
    "an unhashable compressor": (lambda c: settings(c).update(cname=["zstd"]), "blosc cname"),
    "an unknown blosc setting": (lambda c: settings(c).update(threads=10**6), "blosc settings"),
    "more tokens than the chunks hold": (
        lambda c: [
            item["shape"].__setitem__(0, 10**11)
            for item in c["consolidated_metadata"]["metadata"].values()
            if item["dimension_names"][0] == "token"
        ],
        "chunks",
    ),
}


@pytest.mark.parametrize(("change", "words"), WRONG_DOCUMENTS.values(), ids=WRONG_DOCUMENTS)
def test_a_document_that_is_not_what_the_format_allows_is_refused(trace: Path, change: Change, words: str) -> None:
    edit(trace, change)
    with pytest.raises(TraceError, match=words) as caught:
        open_trace(trace)
    assert str(trace) in caught.value.where
    assert caught.value.fix


WRONG_FILES = {
    "nothing": b"",
    "text": b"hello",
    "half a document": b'{"zarr_format": 3, "node_ty',
    "a list": b"[]",
    "a number": b"3",
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "NaN": b'{"zarr_format": NaN}',
    "200,000 brackets": b"[" * 200_000,
    "200,000 objects": b'{"a":' * 200_000,
    "a huge number": b'{"zarr_format": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("content", WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_root_document_that_is_none_is_refused(trace: Path, content: bytes) -> None:
    (trace / "zarr.json").write_bytes(content)
    with pytest.raises(TraceError, match=r"zarr\.json|group"):
        open_trace(trace)


def test_an_oversized_root_document_is_refused_unread(trace: Path) -> None:
    os.truncate(trace / "zarr.json", documents.MAX_DOCUMENT_BYTES + 1)
    with pytest.raises(TraceError, match="more than"):
        open_trace(trace)


def test_what_is_no_trace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a,b")
    (tmp_path / "folder").mkdir()
    zarr.create_group(tmp_path / "v2", zarr_format=2)
    for name, words in {
        "nowhere": "does not exist",
        "file": "is a file",
        "folder": "no zarr.json",
        "v2": "no zarr.json",
    }.items():
        with pytest.raises(TraceError, match=words) as caught:
            open_trace(tmp_path / name)
        assert caught.value.fix


def test_a_zarr_v2_store_that_runs_code_when_read_does_not_run_it(tmp_path: Path) -> None:
    """Filters of a v2 store may unpickle; `xarray.open_zarr` then runs the stranger's code."""

    class Payload:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    store = tmp_path / "t"
    (store / "layer").mkdir(parents=True)
    (store / ".zgroup").write_text('{"zarr_format": 2}')
    (store / ".zattrs").write_text('{"format": "stratoscope-trace", "format_version": "1.0"}')
    meta = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "compressor": None, "fill_value": None}
    (store / "layer" / ".zarray").write_text(json.dumps({**meta, "order": "C", "filters": [{"id": "pickle"}]}))
    (store / "layer" / "0").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(TraceError, match="not a trace"):
        open_trace(store)
    assert not (tmp_path / "ran").exists()


# --- chunks -----------------------------------------------------------------------------------------------------------


def chunk(trace: Path, name: str = "mlp_out_norm") -> Path:
    return next((trace / name).glob("c.*"))


def refused_in_reading(trace: Path, words: str, name: str = "mlp_out_norm") -> None:
    dataset = open_trace(trace)
    with pytest.raises(TraceError, match=words) as caught:
        dataset[name].load()
    assert caught.value.fix


def plain_codecs(content: dict[str, Any]) -> None:
    array(content)["codecs"] = [{"name": "bytes", "configuration": {"endian": "little"}}]


def without_checksum(content: dict[str, Any]) -> None:
    array(content)["codecs"] = array(content)["codecs"][:2]


@pytest.mark.parametrize("size", [1, 8, 15, 40, 200])
def test_a_cut_chunk_is_an_error_and_not_values(trace: Path, size: int) -> None:
    os.truncate(chunk(trace), size)
    refused_in_reading(trace, "cut off")


def test_a_single_wrong_bit_is_an_error_and_not_values(trace: Path) -> None:
    content = bytearray(chunk(trace).read_bytes())
    content[len(content) // 2] ^= 1
    chunk(trace).write_bytes(content)
    refused_in_reading(trace, "cannot be read")


def test_a_missing_chunk_is_an_error_and_not_fill_values(trace: Path) -> None:
    dataset = open_trace(trace)
    chunk(trace).unlink()
    with pytest.raises(TraceError, match="missing"):
        dataset["mlp_out_norm"].load()
    with pytest.raises(TraceError, match="0 of its 1 chunks"):
        open_trace(trace)


def test_a_missing_array_folder_is_an_error(trace: Path) -> None:
    shutil.rmtree(trace / "mlp_out_norm")
    with pytest.raises(TraceError, match="missing or no folder"):
        open_trace(trace)


def test_a_chunk_that_would_inflate_is_refused_unopened(trace: Path) -> None:
    bomb = numcodecs.Blosc(cname="zstd", clevel=1).encode(np.zeros(200_000_000, np.uint8))
    edit(trace, without_checksum)
    chunk(trace).write_bytes(bomb)
    assert len(bomb) < 2_000_000
    refused_in_reading(trace, "unpack to 200,000,000 bytes|more than")
    chunk(trace).write_bytes(bomb + b"trailing")
    refused_in_reading(trace, "cut off")


def test_an_oversized_chunk_is_refused_unread(trace: Path) -> None:
    edit(trace, plain_codecs)
    os.truncate(chunk(trace), 10**9)
    refused_in_reading(trace, "more than")


def test_reading_a_bomb_takes_no_memory(trace: Path) -> None:
    edit(trace, without_checksum)
    chunk(trace).write_bytes(numcodecs.Blosc(cname="zstd", clevel=1).encode(np.zeros(200_000_000, np.uint8)))
    program = f"""
        import resource
        from stratoscope.trace.read.reader import open_trace
        from stratoscope.errors import TraceError
        open_trace({str(trace)!r})["position"].load()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            open_trace({str(trace)!r})["mlp_out_norm"].load()
        except TraceError:
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20_000, "kB more than before"


# --- files that are none ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["chunk", "folder", "root"])
def test_a_link_is_never_followed(trace: Path, what: str) -> None:
    target = {"chunk": chunk(trace), "folder": trace / "mlp_out_norm", "root": trace / "zarr.json"}[what]
    outside = trace.parent / "outside"
    target.rename(outside)
    target.symlink_to(outside)
    with pytest.raises(TraceError, match=r"link|no folder|regular|cannot be read"):
        open_trace(trace)


def test_a_link_put_in_after_opening_is_not_followed(trace: Path) -> None:
    dataset = open_trace(trace)
    outside = trace.parent / "outside"
    chunk(trace).rename(outside)
    (trace / "mlp_out_norm" / "c.0.0").symlink_to(outside)
    with pytest.raises(TraceError, match="cannot be read"):
        dataset["mlp_out_norm"].load()


@pytest.mark.parametrize("place", ["zarr.json", "mlp_out_norm/c.0.0"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "folder"])
@pytest.mark.timeout(20)
def test_a_pipe_a_socket_or_a_folder_is_refused_and_does_not_block(
    trace: Path, place: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (trace / place).unlink()
    if kind == "pipe":
        os.mkfifo(trace / place)
    elif kind == "folder":
        (trace / place).mkdir()
    else:
        monkeypatch.chdir((trace / place).parent)  # the name of a socket has at most 108 bytes; TMPDIR may be longer
        socket.socket(socket.AF_UNIX).bind((trace / place).name)
    with pytest.raises(TraceError, match=r"regular|cannot be read"):
        open_trace(trace)


# --- contents ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [[-1, 2, 3], [3, 2, 1], [0, 10**15, 10**15]])
def test_texts_that_end_outside_their_bytes_are_an_error(trace: Path, ends: list[int]) -> None:
    stored = zarr.open_array(trace / "text_end", mode="r+")
    stored[:3] = ends
    renew_checksums(trace, "text_end")
    refused_in_reading(trace, "end outside|cannot be read", "text")


@pytest.mark.parametrize(("name", "value"), [("prompt", -1), ("prompt", 5), ("span", 6), ("span", -2)])
def test_an_index_that_points_outside_is_an_error(trace: Path, name: str, value: int) -> None:
    zarr.open_array(trace / name, mode="r+")[2] = value
    renew_checksums(trace, name)
    refused_in_reading(trace, "has values outside", name)


def newer(content: dict[str, Any], version: str = "2.7") -> None:
    """What a later minor version may do: an array of a dimension, a type and a codec that nobody knows today."""
    content["attributes"]["format_version"] = version
    arrays = content["consolidated_metadata"]["metadata"]
    new = {"shape": [3, 1, 5], "dimension_names": ["token", "layer", "new_rank"], "data_type": "bfloat16"}
    arrays["unheard_of"] = {**arrays["mlp_out_norm"], **new, "codecs": [{"name": "new"}]}


def test_a_newer_minor_version_opens_without_what_it_adds_and_says_so(trace: Path, tmp_path: Path) -> None:
    edit(trace, newer)
    dataset = open_trace(trace)
    assert dataset.attrs["unknown_arrays"] == ["unheard_of"]
    assert dataset["mlp_out_norm"].load().notnull().all()
    said = "Not read: unheard_of. A newer Stratoscope wrote this trace, in format 2.7; this one reads up to 2.0."
    assert said in " ".join(info_text(info(trace)).split())
    assert said in [one["text"] for one in dataset.attrs["notes"]]
    with pytest.raises(InputError, match=r"unheard_of.*Install the newer Stratoscope"):
        heatmap(trace, quantity="unheard_of")
    write_dataset(dataset, tmp_path / "copy")  # which holds what was read, and no more
    assert "unknown_arrays" not in open_trace(tmp_path / "copy").attrs


OTHER_VERSIONS: dict[str, tuple[Change, str]] = {
    "an unknown array of a known version": (
        lambda c: newer(c, "2.0"),
        "unknown array 'unheard_of'.*damaged",
    ),
    "a state that is new": (
        lambda c: (newer(c), c["attributes"].update(state="paused")),
        "'state' is not what it must be.*Install the newer Stratoscope",
    ),
    "another type of an array that is known": (
        lambda c: (newer(c), array(c).update(data_type="float64")),
        "data type that is not allowed.*Install the newer Stratoscope",
    ),
    "a newer major version": (lambda c: newer(c, "3.0"), "reads up to 2.0.*Install the newer Stratoscope"),
}


@pytest.mark.parametrize(("change", "said"), OTHER_VERSIONS.values(), ids=OTHER_VERSIONS)
def test_only_what_is_damaged_is_called_so(trace: Path, change: Change, said: str) -> None:
    edit(trace, change)
    with pytest.raises(TraceError, match=said) as error:
        open_trace(trace)
    assert ("damaged" in error.value.fix) == ("damaged" in said)


def test_stray_files_in_the_folder_are_not_looked_at(trace: Path) -> None:
    (trace / "README.txt").symlink_to("/etc/passwd")
    (trace / "extra").mkdir()
    (trace / "extra" / "zarr.json").write_text("[" * 1000)
    open_trace(trace).load()


def test_a_trace_cannot_write_to_the_terminal(trace: Path) -> None:
    evil = "\x1b]0;owned\x07\u202egnp.exe\n\r"
    edit(
        trace,
        lambda c: c["attributes"].update(model={evil: evil}, notes=[dict.fromkeys(("id", "severity", "text"), evil)]),
    )
    text = info_text(info(trace))
    assert all(char == "\n" or char.isprintable() for char in text)
    assert "owned" not in text  # the title of a terminal is left out, as everywhere
    assert r"\u202egnp.exe\n" in text


@pytest.mark.parametrize("value", [None, 3, "x", [1, [2]], {"a": {"b": [None, 1.5]}}, [{}], {}])
def test_odd_contents_of_attributes_are_shown_and_not_fatal(trace: Path, value: object) -> None:
    odd = {key: {"odd": value} for key in ("model", "tokenizer", "plan", "receipt", "software")}
    edit(trace, lambda c: c["attributes"].update({**odd, "planted": [value], "coordinates": value, "mine": value}))
    facts = info(trace)
    assert "odd" in info_text(facts)
    json.dumps(facts, allow_nan=False)
