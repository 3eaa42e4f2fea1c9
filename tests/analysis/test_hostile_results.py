"""A result from a stranger can at worst fail with one clear error: it runs, follows and inflates nothing."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import xarray as xr
import zarr

import stratoscope
from stratoscope.analysis.results.result import is_result_folder, make_result, open_result, store_result, table_of
from stratoscope.errors import InputError, StratoscopeError
from stratoscope.trace.format import checksums, strict_json
from stratoscope.trace.format.document import MAX_DOCUMENT_BYTES
from stratoscope.trace.notes import Note
from stratoscope.view.report import check_folder, save_result

Change = Callable[[dict[str, Any]], object]
WORDS = [["", "a\0"], ["\udce4", "é\n"]]


def small() -> xr.DataTree:
    trace = stratoscope.simulate(prompts=2, layers=2, d_ff=16, heads=1, tokens=4)
    return make_result(
        "anomalies",
        {"of": {"value": (("row", "layer"), np.arange(6.0).reshape(3, 2)), "none": ("nothing", np.empty(0)),
                **table_of(("x", "y"), {"words": np.array(WORDS, dtype=object)}),
                "found": ("row", np.array([True, False, True])), "layer": np.array([3, 7])},
         "of/mlp_out_norm": {"value": (("row", "depth"), np.arange(9.0).reshape(3, 3))},
         "other": {"layer": np.array([5]), "value": ("layer", np.array([0.5]))}},
        sources=[trace],
        parameters={"alpha": 1.0},
        notes=[Note("L05", "info", "a note")],
        summary={"findings": 0},
    )  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    store_result(small(), folder)
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "r"))


def edit(folder: Path, change: Change) -> None:
    root = folder / "result.zarr" / "zarr.json"
    content = json.loads(root.read_text())
    change(content)
    sealed = isinstance(content, dict) and isinstance(content.get("attributes"), dict)  # a stranger can seal as well
    root.write_text(json.dumps(strict_json.sealed(content) if sealed else content))


def array(content: dict[str, Any], name: str = "of/value") -> dict[str, Any]:
    return content["consolidated_metadata"]["metadata"][name]  # type: ignore[no-any-return]


def rename(content: dict[str, Any], old: str, new: str) -> None:
    arrays = content["consolidated_metadata"]["metadata"]
    arrays[new] = arrays.pop(old)


def grouped(*paths: str, **changes: Any) -> Change:
    """Add groups."""
    group = {"zarr_format": 3, "node_type": "group", "attributes": {}} | changes
    return lambda content: content["consolidated_metadata"]["metadata"].update(dict.fromkeys(paths, group))


def said(**changes: Any) -> Change:
    """Change what a result says of itself."""

    def change(content: dict[str, Any]) -> None:
        attrs = {**json.loads(content["attributes"]["stratoscope"]), **changes}
        content["attributes"]["stratoscope"] = json.dumps(attrs)

    return change


def test_a_result_comes_back_as_it_was_and_plain_xarray_opens_it(folder: Path) -> None:
    result, stored = small(), open_result(folder).load()
    assert stored.attrs == {**result.attrs, "sources": stored.attrs["sources"]}
    assert stored.groups == ("/", "/of", "/other", "/of/mlp_out_norm")
    assert stored["of/words"].values.tolist() == WORDS
    assert stored["of/words"][1, 0].item() == "\udce4"
    for name in ("of/value", "of/layer", "of/mlp_out_norm/value", "other/value", "other/layer"):
        np.testing.assert_array_equal(stored[name], result[name])
    assert stored["of/found"].dtype == bool
    assert [list(stored[table].coords) for table in ("of", "of/mlp_out_norm", "other")] == [
        ["layer"],
        ["layer"],
        ["layer"],
    ]
    plain = xr.open_datatree(folder / "result.zarr", engine="zarr", chunks=None).load()
    np.testing.assert_array_equal(plain["of/mlp_out_norm/value"], result["of/mlp_out_norm/value"])
    assert list(plain["other"].coords) == ["layer"]
    data, ends = plain["of/words_bytes"].values.tobytes(), plain["of/words_end"].values.ravel()
    found = [data[start:end].decode("utf-8", "surrogateescape") for start, end in zip([0, *ends], ends, strict=False)]
    assert found == [word for row in WORDS for word in row]


def test_plain_zarr_opens_a_table_by_itself(folder: Path) -> None:
    store = folder / "result.zarr"
    assert zarr.open_group(store, mode="r")["of/mlp_out_norm/value"].shape == (3, 3)
    alone = zarr.open_group(store / "of", mode="r", use_consolidated=False)
    assert sorted(alone.group_keys()) == ["mlp_out_norm"]
    assert xr.open_zarr(store / "other", chunks=None, consolidated=False)["value"].values.tolist() == [0.5]


PICKLE = {"name": "numcodecs.pickle", "configuration": {}}
WRONG: dict[str, Change] = {
    "no attributes": lambda c: c.pop("attributes"),
    "attributes that are none": lambda c: c["attributes"].update(stratoscope=3),
    "attributes that are no JSON": lambda c: c["attributes"].update(stratoscope="{"),
    "attributes that are a list": lambda c: c["attributes"].update(stratoscope="[]"),
    "deep attributes": lambda c: c["attributes"].update(stratoscope="[" * 100_000),
    "attributes nested 100 times": lambda c: c["attributes"].update(stratoscope='{"a":' * 100 + "1" + "}" * 100),
    "another format": said(format="other"),
    "a kind that is none": said(kind="; rm -r"),
    "an unhashable kind": said(kind=[]),
    "a version that is none": said(format_version="2.0; rm"),
    "no version": said(format_version=None),
    "notes without a text": said(notes=[{"id": "L05", "severity": "info"}]),
    "a note whose id is a number": said(notes=[{"id": 5, "severity": "info", "text": "x"}]),
    "a severity that is a list": said(notes=[{"id": "L05", "severity": [], "text": "x"}]),
    "parameters that are a text": said(parameters="x"),
    "sources that lack a key": said(sources=[{"uuid": "x"}]),
    "sources that are none": said(sources=None),
    "a count that is a text": said(
        sources=[{"uuid": "", "source": "", "model": "", "receipt": "", "prompts": "many", "tokens": 1}]
    ),
    "a summary that is a list": said(summary=[]),
    "software that is a number": said(software=3),
    "no consolidated metadata": lambda c: c.pop("consolidated_metadata"),
    "metadata that are a list": lambda c: c["consolidated_metadata"].update(metadata=[]),
    "thousands of arrays": lambda c: [
        c["consolidated_metadata"]["metadata"].update({f"of/a{number}": array(c)}) for number in range(4001)
    ],
    "an array outside": lambda c: rename(c, "of/value", "../secret"),
    "an array outside its table": lambda c: rename(c, "of/value", "of/../../secret"),
    "an array in no table": lambda c: rename(c, "of/value", "value"),
    "an array in a table that is not there": lambda c: rename(c, "of/value", "a/value"),
    "an array without a name": lambda c: rename(c, "of/value", "of/"),
    "an array with no name at all": lambda c: rename(c, "of/value", ""),
    "an array inside an array": lambda c: rename(c, "of/layer", "of/value/layer"),
    "a table outside": grouped(".."),
    "a table whose name is a path": grouped("/tmp"),
    "a table without a name": grouped(""),
    "a table with a long name": grouped("a" * 101),
    "a table with a name that no folder has": grouped("a\0b"),
    "a table that is not on disk": grouped("absent"),
    "a table inside one that is not there": grouped("absent/inner"),
    "tables too deep": grouped("of/mlp_out_norm/deeper"),
    "tables a hundred deep": grouped(*("/".join("a" * depth) for depth in range(1, 100))),
    "hundreds of tables": grouped(*(f"t{number}" for number in range(501))),
    "a table with attributes of its own": lambda c: array(c, "of").update(attributes={"a": 1}),
    "a table of zarr v2": lambda c: array(c, "of").update(zarr_format=2),
    "a table that is an array": lambda c: array(c, "of").update(node_type="array"),
    "a table that is nothing known": lambda c: array(c, "of").update(node_type=["group"]),
    "a table and a text of one name": lambda c: [
        rename(c, "of/words_bytes", "of/mlp_out_norm_bytes"),
        rename(c, "of/words_end", "of/mlp_out_norm_end"),
    ],
    "another number of rows inside than above": lambda c: array(c, "of/mlp_out_norm/value").update(shape=[2, 3]),
    "an object type": lambda c: array(c).update(data_type="object"),
    "a type of variable length": lambda c: array(c).update(data_type="string"),
    "a type of fixed length": lambda c: array(c).update(
        data_type={"name": "fixed_length_utf32", "configuration": {"length_bytes": 40}}
    ),
    "no metadata": lambda c: c["consolidated_metadata"]["metadata"].update({"of/value": 7}),
    "no dimensions": lambda c: array(c).update(dimension_names=None),
    "one dimension twice": lambda c: array(c).update(dimension_names=["row", "row"]),
    "dimensions of numbers": lambda c: array(c).update(dimension_names=[1, 2]),
    "two lengths of one dimension": lambda c: array(c).update(shape=[2, 2]),
    "a shape without end": lambda c: array(c).update(shape=[10**18, 2]),
    "more rows than the chunks hold": lambda c: array(c).update(shape=[10**11, 2]),
    "huge chunks": lambda c: array(c)["chunk_grid"]["configuration"].update(chunk_shape=[10**8, 2]),
    "other chunk names": lambda c: array(c)["chunk_key_encoding"].update(name="v2"),
    "a storage transformer": lambda c: array(c).update(storage_transformers=[{"name": "x"}]),
    "another fill value": lambda c: array(c).update(fill_value=0),
    "pickle": lambda c: array(c).update(codecs=[PICKLE]),
    "pickle behind bytes": lambda c: array(c)["codecs"].insert(1, PICKLE),
    "variable-length text": lambda c: array(c).update(codecs=[{"name": "vlen-utf8"}]),
    "gzip": lambda c: array(c)["codecs"].insert(1, {"name": "gzip", "configuration": {"level": 1}}),
    "shards": lambda c: array(c).update(codecs=[{"name": "sharding_indexed", "configuration": {}}]),
    "an unknown compressor": lambda c: array(c)["codecs"][1]["configuration"].update(cname="evil"),
    "half a text": lambda c: c["consolidated_metadata"]["metadata"].pop("of/words_end"),
    "a text and an array of one name": lambda c: c["consolidated_metadata"]["metadata"].update({"of/words": array(c)}),
    "ends that are no numbers": lambda c: rename(c, "of/found", "of/words_end"),
    "a gigabyte of text": lambda c: array(c, "of/words_bytes").update(shape=[2**30]),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_document_that_is_not_what_the_format_allows_is_refused_in_one_line(folder: Path, change: Change) -> None:
    edit(folder, change)
    with pytest.raises(InputError, match="cannot be read") as caught:
        open_result(folder)
    assert str(folder) in caught.value.where
    assert "\n" not in str(caught.value)
    assert is_result_folder(folder) in (True, False)


@pytest.mark.parametrize("content", [b"", b"hello", b"[]", b'{"zarr_format": NaN}', b"[" * 200_000, b'{"a": "\xff"}'])
def test_a_root_document_that_is_none_is_refused_and_never_replaced(folder: Path, content: bytes) -> None:
    (folder / "result.zarr" / "zarr.json").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        open_result(folder)
    with pytest.raises(InputError, match="not a result"):
        check_folder(folder, overwrite=True)


def test_an_oversized_root_document_is_refused_unread(folder: Path) -> None:
    os.truncate(folder / "result.zarr" / "zarr.json", MAX_DOCUMENT_BYTES + 1)
    with pytest.raises(InputError, match="more than"):
        open_result(folder)
    assert not is_result_folder(folder)


def test_a_store_of_zarr_v2_is_no_result(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "result.zarr", zarr_format=2)
    with pytest.raises(InputError, match=r"no zarr\.json"):
        open_result(tmp_path)


def chunk(folder: Path, name: str = "of/value") -> Path:
    return next((folder / "result.zarr" / name).glob("c.*"))


def refused_in_reading(folder: Path, words: str, name: str = "of/value") -> None:
    result = open_result(folder)
    with pytest.raises(StratoscopeError, match=words):
        result[name].load()


@pytest.mark.parametrize("size", [1, 15, 20])
def test_a_cut_chunk_is_an_error_and_not_values(folder: Path, size: int) -> None:
    os.truncate(chunk(folder), size)
    refused_in_reading(folder, "cut off")


def test_a_single_wrong_bit_is_an_error_and_not_values(folder: Path) -> None:
    content = bytearray(chunk(folder).read_bytes())
    content[len(content) // 2] ^= 1
    chunk(folder).write_bytes(content)
    refused_in_reading(folder, "cannot be read")


def test_a_missing_chunk_is_an_error_and_not_fill_values(folder: Path) -> None:
    chunk(folder).unlink()
    with pytest.raises(InputError, match="0 of its 1 chunks"):
        open_result(folder)


def test_a_chunk_that_would_inflate_is_refused_unopened(folder: Path) -> None:
    edit(folder, lambda c: array(c)["codecs"].pop())
    chunk(folder).write_bytes(numcodecs.Blosc(cname="zstd", clevel=1).encode(np.zeros(2**27, np.uint8)))
    refused_in_reading(folder, "unpack to|more than")


@pytest.mark.parametrize("what", ["store", "chunk", "array", "root", "table", "inner table"])
def test_a_link_is_never_followed(folder: Path, what: str) -> None:
    store = folder / "result.zarr"
    target = {"store": store, "chunk": chunk(folder), "array": store / "of" / "value", "root": store / "zarr.json",
              "table": store / "of", "inner table": store / "of" / "mlp_out_norm"}[what]  # fmt: skip
    outside = folder.parent / "outside"
    target.rename(outside)
    target.symlink_to(outside)
    with pytest.raises(InputError, match=r"link|no folder|regular|cannot be read"):
        open_result(folder)


@pytest.mark.parametrize("place", ["zarr.json", "of/value/c.0.0"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "folder"])
@pytest.mark.timeout(20)
def test_a_pipe_a_socket_or_a_folder_is_refused_and_does_not_block(
    folder: Path, place: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "result.zarr" / place
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        monkeypatch.chdir(path.parent)  # the name of a socket has at most 108 bytes; TMPDIR may be longer
        socket.socket(socket.AF_UNIX).bind(path.name)
    with pytest.raises(InputError, match=r"regular|cannot be read"):
        open_result(folder)


@pytest.mark.parametrize("ends", [[-1, 2, 3, 4], [3, 2, 1, 4], [0, 1, 2, 10**15]])
def test_texts_that_end_outside_their_bytes_are_an_error(folder: Path, ends: list[int]) -> None:
    stored = zarr.open_array(folder / "result.zarr" / "of" / "words_end", mode="r+")
    stored[...] = np.array(ends).reshape(2, 2)
    sums = {(0, 0): checksums.of_chunk(chunk(folder, "of/words_end").read_bytes())}
    edit(folder, lambda c: c["attributes"]["checksums"].update({"of/words_end": checksums.to_text(sums, (1, 1))}))
    refused_in_reading(folder, "end outside", "of/words")


def test_a_report_of_a_result_that_lacks_its_numbers_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lacks what its report is made of"):
        save_result(open_result(folder), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_result_that_was_edited_or_whose_chunks_were_mixed_up_is_refused(folder: Path) -> None:
    root = folder / "result.zarr" / "zarr.json"
    before = root.read_text()
    root.write_text(before.replace('"findings\\": 0', '"findings\\": 1'))
    assert root.read_text() != before
    with pytest.raises(InputError, match="digest does not fit"):
        open_result(folder)
    root.write_text(before)
    shutil.copyfile(chunk(folder, "of/layer"), chunk(folder, "of/words_bytes"))
    refused_in_reading(folder, "not the chunk that was written here|instead of", "of/words")


def test_a_result_that_says_too_much_of_itself_is_refused_with_the_true_cause_before_anything_is_written(
    tmp_path: Path,
) -> None:
    result = small()
    result.attrs["summary"] = {"families": ['"' * 100] * 6000}  # 600 kB; each quote takes four bytes on disk
    with pytest.raises(InputError, match=r"says of itself has 2,\d{3},\d{3} bytes; it may have 1,048,576"):
        store_result(result, tmp_path)
    assert not list(tmp_path.iterdir())
    result.attrs["summary"] = {"families": ["a" * 100] * 9000}
    store_result(result, tmp_path)
    assert open_result(tmp_path).attrs["summary"] == result.attrs["summary"]


def test_an_array_that_no_table_would_hold_is_refused_and_not_left_out(tmp_path: Path) -> None:
    result = small()
    result["mine"] = xr.DataArray([1.0], dims="alone")
    with pytest.raises(InputError, match="in no table"):
        store_result(result, tmp_path)
    assert not list(tmp_path.iterdir())
    del result["mine"]
    result["of/mine"] = xr.DataArray([1.0, 2.0, 3.0], dims="row")
    store_result(result, tmp_path)
    assert open_result(tmp_path)["of/mine"].values.tolist() == [1.0, 2.0, 3.0]


def test_texts_are_decoded_once_and_nobody_changes_those_of_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stratoscope.analysis.results import store as result_store

    decoded: list[int] = []
    decode = result_store.decode_texts

    def counted(data: np.ndarray, ends: np.ndarray, start: int) -> np.ndarray:
        decoded.append(len(ends))
        return decode(data, ends, start)

    monkeypatch.setattr(result_store, "decode_texts", counted)
    words = open_result(folder)["of/words"]
    assert [[words[row, column].item() for column in range(2)] for row in range(2)] == WORDS
    assert words[:, 1].values.tolist() == [row[1] for row in WORDS]
    words[0].values[...] = "changed"
    assert words.values.tolist() == WORDS
    assert decoded == [4]


@pytest.mark.parametrize("kind", ["pipe", "much"])
@pytest.mark.timeout(20)
def test_whether_a_folder_is_a_result_is_found_out_without_waiting_or_reading_much(folder: Path, kind: str) -> None:
    root = folder / "result.zarr" / "zarr.json"
    content = root.read_bytes()
    root.unlink()
    if kind == "pipe":
        os.mkfifo(root)
    else:
        root.write_bytes(content + b" " * 2**25)
    assert not is_result_folder(folder)
