"""`readView` gives JavaScript what Python wrote, along every axis, and refuses other bytes in one clear line."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser
from playwright.sync_api import Error as PageError

from stratoscope.view.spec.file import MAGIC, to_bytes
from stratoscope.view.web import pages
from viewspecs import changed, chart_spec, joined, lens_spec, parts, route_spec

pytestmark = pytest.mark.browser

# Typed arrays as their type and their numbers in words, since JSON has neither
READ = """([text, shift]) => {
  const plain = (value) => {
    if (ArrayBuffer.isView(value)) return [value.constructor.name, ...Array.from(value, String)];
    if (Array.isArray(value)) return value.map(plain);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
  };
  if (shift === null) return plain(readView(text));
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const moved = new Uint8Array(bytes.length + 16);
  moved.set(bytes, shift);
  return plain(readViewBytes(moved.subarray(shift, shift + bytes.length)));
}"""
DATA = to_bytes(chart_spec())
DOCUMENT, BODY = parts(DATA)


@pytest.fixture(scope="module")
def read(browser: Browser) -> Iterator[Callable[..., Any]]:
    page = browser.new_page()
    page.add_script_tag(content=pages.web_file("view.js"))
    yield lambda data, shift=None: page.evaluate(READ, [base64.b64encode(data).decode(), shift])
    page.close()


@pytest.mark.parametrize("shift", [None, 8, 3])
def test_arrays_arrive_with_their_type_and_all_their_axes(read: Callable[..., Any], shift: int | None) -> None:
    view = read(DATA, shift)
    line, points, density, _, words = view["content"]["panels"][0]["marks"]
    assert line["x"] == ["Float32Array", "1.5", "NaN", "-Infinity"]
    assert line["y"] == ["Float64Array", "1.5", "NaN", "-Infinity"]
    assert (points["x"], points["y"]) == (["Float64Array"], ["Float32Array"])
    assert density["counts"] == [["Int32Array", "0", "1", "2"], ["Int32Array", "3", "4", "5"]]
    assert words["words"] == ["né <s>"]
    assert view["tokens"]["first"] == ["Uint8Array", "1", "0", "0"]
    assert view["parameters"] == {"n": [1, None]}


def test_routes_arrive_edge_by_edge(read: Callable[..., Any]) -> None:
    (panel,) = read(to_bytes(route_spec()))["content"]["panels"]
    assert panel["edge_kind"] == ["Uint8Array", "0", "1", "4"]
    assert panel["from_column"] == ["Int32Array", "0", "1", "-1"]
    assert panel["weight"] == ["Float64Array", "-0.25", "0.5", "NaN"]
    assert (panel["covered"], panel["end"]) == (0.75, 1)


def test_lenses_arrive_cell_by_cell(read: Callable[..., Any]) -> None:
    content = read(to_bytes(lens_spec()))["content"]
    assert content["likeliest"] == [["Int32Array", "0", "1"], ["Int32Array", "1", "1"], ["Int32Array", "-1", "0"]]
    assert content["changing"] == [["Int32Array", "0", "1"]]
    assert (content["texts"], content["stays"]) == ([" né", "⟨E4⟩"], ["Int32Array", "1", "0", "-1"])
    assert content["charts"][0]["marks"][0]["dashed"] is True


def entry(change: dict[str, object], place: int = 0) -> bytes:
    return changed(lambda document: document["buffers"][place].update(change))


DAMAGED = {
    "does not begin": b"PNG" + DATA,
    "cut off": DATA[:-8],
    "cut off ": MAGIC + b"\0",
    "of version 3.0": changed(lambda document: document.update(view_version="3.0")),
    "of version undefined": joined([], b""),
    "of version undefined ": joined(b"null", b""),
    "does not say what it is": changed(lambda document: document.pop("view")),
    "JSON cannot be read": joined(b"{", b""),
    "JSON cannot be read ": joined(b'{"a": NaN}', b""),
    "JSON does not end where": MAGIC + (2).to_bytes(8, "little") + b"{}",
    "follows its last buffer": DATA + bytes(8),
    "buffer 0 is of an unknown type": entry({"dtype": "<f2"}),
    "buffer 0 is of an unknown type ": entry({"dtype": ["<f4"]}),
    "buffer 0 has no shape": entry({"shape": [-3]}),
    "buffer 0 has no shape ": entry({"shape": []}),
    "buffer 0 has no shape  ": entry({"shape": [2**31, 0]}),
    "buffer 0 is cut off": entry({"shape": [2**53, 2**53]}),
    "buffer 1 does not lie where": entry({"offset": 0}, 1),
    "x is no buffer": joined(DOCUMENT | {"view": {"x": {"$buffer": 99}}}, BODY),
    "y is no buffer": joined(DOCUMENT | {"view": {"y": {"$buffer": "length"}}}, BODY),
}


@pytest.mark.parametrize("cause", DAMAGED)
def test_other_bytes_are_refused_in_one_line(read: Callable[..., Any], cause: str) -> None:
    with pytest.raises(PageError, match=f"Error: no ViewSpec: .*{cause.rstrip()}"):
        read(DAMAGED[cause])


def test_what_nests_too_deep_for_a_function_that_calls_itself_is_read(read: Callable[..., Any]) -> None:
    nested = b"[" * 50_000 + b'{"z":{"$buffer":0}}' + b"]" * 50_000
    with pytest.raises(PageError, match="z is no buffer"):
        read(joined(b'{"view_version":"2.0","buffers":[],"view":' + nested + b"}", b""))
