# ruff: noqa: E501 (tables)
"""`from_bytes` refuses what is not a ViewSpec: in one error that says what is wrong and where, and in little memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from stratoscope.errors import InputError
from stratoscope.view.spec.check import check
from stratoscope.view.spec.document import Packing, Unfit, Unpacking
from stratoscope.view.spec.file import MAGIC, from_bytes, to_bytes
from stratoscope.view.spec.viewspec import ViewSpec
from viewspecs import changed, chart_spec, joined, lens_spec, map_spec, parts, peak_spec, route_spec

DATA = to_bytes(chart_spec())
DOCUMENT, BODY = parts(DATA)
SCHEMA = Draft202012Validator(
    json.loads((Path(__file__).parents[2] / "docs" / "viewspec.schema.json").read_text("utf-8"))
)
OTHERS = {"maps": map_spec, "peaks": peak_spec, "routes": route_spec, "lens": lens_spec}
BYTES = {"charts": DATA, **{name: to_bytes(make()) for name, make in OTHERS.items()}}


def refused(data: bytes) -> str:
    with pytest.raises(InputError) as caught:
        from_bytes(data)
    what = caught.value.what
    assert what.startswith("no ViewSpec: ")
    assert "\n" not in what
    return what.removeprefix("no ViewSpec: ")


def test_a_cut_anywhere_is_noticed() -> None:
    causes = {refused(DATA[:end]) for end in range(len(DATA))}
    assert all("cut off" in cause or cause in {"it is empty", "it does not begin as one"} for cause in causes)


def test_more_bytes_are_noticed() -> None:
    assert refused(DATA + bytes(8)) == "something follows its last buffer"


@pytest.mark.parametrize(
    ("cause", "data"),
    [
        ("it does not begin as one", b"\x89PNG" + DATA),
        ("it is cut off", MAGIC + (2**63).to_bytes(8, "little")),
        ("its JSON does not end where a buffer may begin", MAGIC + (2).to_bytes(8, "little") + b"{}"),
        (
            "its JSON cannot be read: Expecting property name enclosed in double quotes: line 1 column 8 (char 7)",
            joined(b"{", b""),
        ),
        (
            "its JSON cannot be read: 'utf-8' codec can't decode byte 0xff in position 1: invalid start byte",
            joined(b'"\xff"', b""),
        ),
        (
            "its JSON cannot be read: 99999999999999999999… is too large a number",
            joined(b'{"view_version":' + b"9" * 5000 + b"}", b""),
        ),
        ("its JSON nests too deep", joined(b"[" * 100_000, b"")),
        ("its JSON cannot be read: NaN is no JSON", joined(b'{"view":NaN}', b"")),
        ("its JSON cannot be read: -Infinity is no JSON", joined(b"-Infinity", b"")),
        ("its JSON cannot be read: 1e999 is too large a number", joined(b'{"view":1e999}', b"")),
        ("its JSON cannot be read: it names 'view' twice", joined(b'{"view":1,"view":1}', b"")),
        ("it does not say of which version it is", joined([], b"")),
        ("it does not say of which version it is", joined({"view_version": 2.0}, b"")),
        ("it is of version '1.0', and here 2.0 is known", joined({"view_version": "1.0"}, b"")),
        (f"it is of version '{'9' * 40}…', and here 2.0 is known", joined({"view_version": "9" * 99}, b"")),
        ("it is not made of a version, a view and buffers", joined({"view_version": "2.0"}, b"")),
        ("it is not an object", joined(DOCUMENT | {"view": []}, BODY)),
        ("its buffers are no list", joined(DOCUMENT | {"buffers": {}}, BODY)),
    ],
)
def test_what_is_no_document_is_refused(cause: str, data: bytes) -> None:
    assert refused(data) == cause


@pytest.mark.parametrize(
    ("cause", "place", "entry"),
    [
        ("is not described by dtype, shape and offset", 0, None),
        ("is not described by dtype, shape and offset", 0, {"name": "x"}),
        ("is of an unknown type", 0, {"dtype": ">f4"}),
        ("is of an unknown type", 0, {"dtype": "|O"}),
        ("is of an unknown type", 0, {"dtype": ["<f4"]}),
        ("has no shape", 0, {"shape": 3}),
        ("has no shape", 0, {"shape": []}),
        ("has no shape", 0, {"shape": [3, 1, 1]}),
        ("has no shape", 0, {"shape": [1] * 100_000}),
        ("has no shape", 0, {"shape": [-3]}),
        ("has no shape", 0, {"shape": [3.0]}),
        ("has no shape", 0, {"shape": [True]}),
        ("has no shape", 0, {"shape": [2**40, 0]}),
        ("is cut off", 0, {"shape": [2**62]}),
        ("is cut off", 0, {"shape": [2**4000, 2**4000]}),
        ("does not lie where it should", 0, {"offset": False}),
        ("does not lie where it should", 1, {"offset": 0}),
        ("does not lie where it should", 1, {"offset": 16.0}),
        ("does not lie where it should", 1, {"offset": 24}),
        ("does not lie where it should", 1, {"offset": -8}),
    ],
)
def test_buffers_that_lie_are_refused(cause: str, place: int, entry: dict[str, Any] | None) -> None:
    def change(document: dict[str, Any]) -> None:
        document["buffers"][place] = entry and document["buffers"][place] | entry

    assert refused(changed(change)) == f"buffer {place} {cause}"


def test_buffers_of_no_use_are_refused() -> None:
    more = {"dtype": "<f4", "shape": [2], "offset": len(BODY)}
    data = joined(DOCUMENT | {"buffers": [*DOCUMENT["buffers"], more]}, BODY + bytes(8))
    assert refused(data) == f"buffer {len(DOCUMENT['buffers'])} is used nowhere"


def test_a_lie_costs_no_memory() -> None:
    lies = [changed(lambda document: document["buffers"][0].update(shape=[2**31 - 1])), joined(b"[" * 100_000, b"")]
    tracemalloc.start()
    for lie in lies:
        refused(lie)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def _set(value: Any, *path: str | int) -> Callable[[dict[str, Any]], None]:
    """Put a value at a place of the view."""

    def change(document: dict[str, Any]) -> None:
        at = document["view"]
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = value

    return change


PANEL = ("content", "panels", 0)


NOT_OF_ITS_TYPE = [
    ("it may not have 'a.b\\n'", _set(1, "a.b\n")),
    ("it may not have '\\ud800'", _set(1, "\ud800")),
    (f"it may not have '{'x' * 40}…'", _set(1, "x" * 10**5)),
    ("it lacks 'look'", lambda document: document["view"].pop("look")),
    ("look lacks 'scale'", _set({"theme": "light", "first_token": True}, "look")),
    ("look.scale is none of 'linear', 'log', 'robust', 'per-layer'", _set("x", "look", "scale")),
    ("look.scale is none of 'linear', 'log', 'robust', 'per-layer'", _set(["log"], "look", "scale")),
    ("look.first_token is not true or false", _set(1, "look", "first_token")),
    ("title is not a text", _set(None, "title")),
    ("notes is not a list", _set("L05", "notes")),
    ("notes[0].first_token is none of true or false, null", _set(0, "notes", 0, "first_token")),
    ("selected.layers[1] is not a whole number", _set([1, True], "selected", "layers")),
    ("content.kind is none of 'maps', 'charts', 'peaks', 'routes', 'lens'", _set("heatmap", "content", "kind")),
    ("content.kind is none of 'maps', 'charts', 'peaks', 'routes', 'lens'", _set({}, "content", "kind")),
    ("content lacks 'advice'", _set("maps", "content", "kind")),
    ("content.height is not a number", _set("3", "content", "height")),
    ("content.panels[0].y.ticks[0] has 3 items instead of 2", _set([1, "one", 2], *PANEL, "y", "ticks", 0)),
    ("content.panels[0].x.low is none of a number, null", _set("0", *PANEL, "x", "low")),
    ("content.panels[0].marks[0].x is no buffer", _set(0, *PANEL, "marks", 0, "x")),
    ("content.panels[0].marks[0].x is no buffer", _set({"$buffer": -1}, *PANEL, "marks", 0, "x")),
    ("content.panels[0].marks[0].x is no buffer", _set({"$buffer": False}, *PANEL, "marks", 0, "x")),
    ("content.panels[0].marks[0].x is no buffer", _set({"$buffer": 0, "x": 0}, *PANEL, "marks", 0, "x")),
    (
        "content.panels[0].marks[0].kind is none of 'line', 'band', 'points', 'intervals', 'bars', 'density', 'vertical', 'horizontal', 'span', 'words'",
        _set([], *PANEL, "marks", 0, "kind"),
    ),
]
BEYOND_A_SCHEMA = [
    ("selected.layers[0] is not a whole number", _set([1.0], "selected", "layers")),
    ("content.height is not a number", _set(10**400, "content", "height")),
    ("content.panels[0].marks[0].x is no buffer", _set({"$buffer": 99}, *PANEL, "marks", 0, "x")),
    (
        "content.panels[0].marks[0].x is <i4 along 2 axes instead of <f4 or <f8 along 1",
        _set(DOCUMENT["view"]["content"]["panels"][0]["marks"][2]["counts"], *PANEL, "marks", 0, "x"),
    ),
    ("parameters may not have '$buffer'", _set({"$buffer": 0}, "parameters", "n")),
]


@pytest.mark.parametrize(("cause", "change"), NOT_OF_ITS_TYPE + BEYOND_A_SCHEMA)
def test_what_is_not_of_its_type_is_refused_at_its_place(cause: str, change: Callable[..., object]) -> None:
    assert refused(changed(change)) == cause


@pytest.mark.parametrize(
    "change", [change for _, change in NOT_OF_ITS_TYPE], ids=[cause for cause, _ in NOT_OF_ITS_TYPE]
)
def test_the_schema_refuses_it_too(change: Callable[..., object]) -> None:
    document, _ = parts(DATA)
    change(document)
    assert not SCHEMA.is_valid(document)


@pytest.mark.parametrize("content", BYTES)
def test_the_schema_takes_what_is_written(content: str) -> None:
    SCHEMA.validate(parts(BYTES[content])[0])


def test_the_schema_is_one() -> None:
    SCHEMA.check_schema(SCHEMA.schema)


QUANTITY = ("content", "quantities", 0)
MAP = ("content", "maps", 0)
HEIGHTS = ("content", "scales", "robust", "heights")
MARKS = ("content", "panels", 0, "marks")


@pytest.mark.parametrize(
    ("cause", "content", "change"),
    [
        ("tokens.text has 1 items instead of 3", "maps", _set(["a"], "tokens", "text")),
        ("tokens.prompt has what is not one of -1 to -1", "maps", _set([], "tokens", "prompts")),
        ("colours.diverging has 1 items instead of 256", "maps", _set(["#000000"], "colours", "diverging")),
        ("colours.sequential has what is no #rrggbb", "maps", _set(["red"] * 256, "colours", "sequential")),
        ("colours.themes['dark'] has what is no #rrggbb", "maps", _set("url(x)", "colours", "themes", "dark", "ink")),
        ("colours.themes has not each of 'light', 'dark'", "maps", _set({}, "colours", "themes")),
        ("content.quantities[0].quantity.rows are not ascending numbers", "maps", _set([7, 3], *QUANTITY, "quantity", "rows")),
        ("content.quantities[0].scales lacks 'log'", "maps", _set("log", "look", "scale")),
        ("content.quantities[0].scales['robust'] has not each of 'with_first', 'without_first'", "maps", _set({}, *QUANTITY, "scales", "robust")),
        ("content.quantities[0].scales['robust']['with_first'].limits.low has 1 items instead of 2", "maps", _set(True, *QUANTITY, "scales", "robust", "with_first", "limits", "by_row")),
        ("content.panels[0] is none of the 3 tokens", "maps", _set(4, *PANEL, "stop")),
        ("content.panels[0] is none of the 3 tokens", "maps", _set(3, *PANEL, "start")),
        ("content.panels[0].tokens_per_column is not above 0", "maps", _set(0, *PANEL, "tokens_per_column")),
        ("content.panels[0].first has what is not one of 0 to 2", "maps", _set([3], *PANEL, "first")),
        ("content.panels[0].starts has what is not one of 0 to 2", "maps", _set([[10**99, ""]], *PANEL, "starts")),
        ("content.maps[0].panel has what is not one of 0 to 0", "maps", _set(1, *MAP, "panel")),
        ("content.maps[0].quantity has what is not one of 0 to 0", "maps", _set(-1, *MAP, "quantity")),
        ("content.maps[0].cells['with_first'] has the shape (3, 2) instead of (2, 2)", "maps", _set(2, *PANEL, "tokens_per_column")),
        ("content.maps[0].rarely_seen has what is not one of 0 to 2", "maps", _set([-1], *MAP, "rarely_seen")),
        ("content.maps[0].marks has not each of 'per-layer', 'robust'", "maps", _set({}, *MAP, "marks")),
        ("content.maps has not each quantity in each panel once", "maps", _set([], "content", "maps")),
        ("content.panels is empty", "charts", _set([], "content", "panels")),
        ("content.height is not above 0", "charts", _set(0, "content", "height")),
        ("content.panels[0].x does not run upwards", "charts", _set(-1, "content", "panels", 0, "x", "high")),
        ("content.panels[0].x is logarithmic and does not stay above 0", "charts", _set(True, "content", "panels", 0, "x", "log")),
        ("content.panels[0].marks[3].words has 1 items instead of 2", "charts", _set(["a"], *MARKS, 3, "words")),
        ("content.panels[0].marks[4].words has 2 items instead of 1", "charts", _set(["a", "b"], *MARKS, 4, "words")),
        ("content.scenes is empty", "peaks", _set([], "content", "scenes")),
        ("content.token_choice has what is not one of 0 to -1", "peaks", _set([], "content", "choices")),
        ("content.layer has what is not in content.layers", "peaks", _set([3], "content", "layers")),
        ("content.scales lacks 'linear'", "peaks", _set("linear", "look", "scale")),
        ("content.likeliest has what is not one of -1 to 0", "lens", _set(["né"], "content", "texts")),
        ("content.chosen has what is not one of 0 to 2", "lens", _set(3, "content", "chosen")),
        ("content.charts[0].y does not run upwards", "lens", _set(-1, "content", "charts", 0, "y", "high")),
        ("content.panels is empty", "routes", _set([], "content", "panels")),
        ("content.widest is not above 0", "routes", _set(0, "content", "widest")),
        ("content.weight.rows are not ascending numbers", "routes", _set([], "content", "weight", "rows")),
        ("content.panels[0] is none of the 3 tokens", "routes", _set(4, *PANEL, "stop")),
        ("content.panels[0].end has what is not one of 0 to 1", "routes", _set(2, *PANEL, "end")),
        ("content.panels[0].there has 2 items instead of 1", "routes", _set([0], "content", "weight", "rows")),
        ("content.scales['robust'].heights['with_first'] does not run upwards", "peaks", _set(-1, *HEIGHTS, "with_first", "ceiling")),
    ],
)  # fmt: skip
def test_parts_that_do_not_agree_are_refused_at_their_place(
    cause: str, content: str, change: Callable[..., object]
) -> None:
    assert refused(changed(change, BYTES[content])) == cause


@pytest.mark.parametrize("make", [chart_spec, *OTHERS.values()])
def test_no_array_may_be_longer_than_its_neighbours(make: Callable[[], ViewSpec]) -> None:
    packing = Packing()
    view = packing.pack(make())
    for place, array in enumerate(packing.arrays):
        longer = np.resize(array, (len(array) + 1, *array.shape[1:]))
        arrays = [*packing.arrays[:place], longer, *packing.arrays[place + 1 :]]
        bent: ViewSpec = Unpacking(arrays).unpack(ViewSpec, view)
        if array.shape[1:] in ((2,), (3,)) and array.dtype == np.int32:
            continue  # one more ring, or one more run without a token
        with pytest.raises(Unfit, match="instead of"):
            check(bent)
