"""A small spec of each content, made by hand; whatever has the type of a spec; what it takes to damage its bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import is_dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from stratoscope.view.spec.buffers import Buffer, indices
from stratoscope.view.spec.charts import Axis, Bars, ChartPanel, Charts, Density, Line, Points, Words
from stratoscope.view.spec.document import fields_of
from stratoscope.view.spec.figures import Figures
from stratoscope.view.spec.file import MAGIC, to_bytes
from stratoscope.view.spec.lens import Lens
from stratoscope.view.spec.look import FirstTokens, Look
from stratoscope.view.spec.maps import Colouring, DrawnQuantity, Map, MapMarks, MapPanel, MapQuantity, Maps
from stratoscope.view.spec.peaks import Heights, PeakComparison, Peaks, PeakScale, PeakStyle, Scene
from stratoscope.view.spec.routes import RouteNeurons, RoutePanel, Routes, RouteSides
from stratoscope.view.spec.scale import Limits
from stratoscope.view.spec.tokens import ShownPrompt, ShownTokens
from stratoscope.view.spec.viewspec import Note, ViewSpec

START = len(MAGIC) + 8
TOKENS = ShownTokens(
    (ShownPrompt("one", "critical"),),
    indices([0, 0, 0]),
    indices([0, 1, 2]),
    indices([0, -1, 2]),
    np.array([1, 0, 0], "|u1"),
    ("<s>", " beta", "né"),
)
QUANTITY = DrawnQuantity("mlp_out_norm", "MLP output", "norm", "||W a||", rows=(3, 7))


def map_spec() -> ViewSpec:
    """One quantity of two layers in a panel of three tokens, on two scales."""
    cells = np.array([[100, 1], [2, np.nan], [3, 4.5]], "<f4")
    limits = Limits("linear", np.array([1.0]), np.array([100.0]))
    by_row = Limits("linear", np.array([1.0, 2.0]), np.array([2.0, 3.0]), by_row=True)
    colourings = [
        Colouring(one, (0.0, 0.1), np.linspace(0, 1, 4), indices([3, 0, 1]), False) for one in (limits, by_row)
    ]
    marks = MapMarks(((0, "×7"),), ((1, "×9"),), indices([[0, 0], [2, 1]]), 2, 0)
    both = dict.fromkeys(get_args(FirstTokens), marks)
    quantity = MapQuantity(
        QUANTITY, False, False, Figures(-2),
        {"robust": dict.fromkeys(get_args(FirstTokens), colourings[0]),
         "per-layer": dict.fromkeys(get_args(FirstTokens), colourings[1])},
    )  # fmt: skip
    one = Map(0, 0, dict.fromkeys(get_args(FirstTokens), cells), {"robust": both, "per-layer": both}, (2,), True, 0)
    panel = MapPanel("one", "critical", 0, 3, 1, (0,), (1,), ((0, "one"),))
    return ViewSpec("title", "subtitle", Maps((quantity,), (panel,), (one,)), Look("robust"), TOKENS)


def peak_spec() -> ViewSpec:
    """Two peaks of three tokens."""
    heights = Heights(np.array([0.5, 1.1], "<f4"), indices([1]), np.array([7], "<f4"), 0.0, 1.0, 0.0, 1.0)
    scale = PeakScale("write", "robust", dict.fromkeys(get_args(FirstTokens), heights))
    two = indices([0, 2])
    both = dict.fromkeys(("robust", "linear"), scale)
    comparison = PeakComparison(
        "one", "two", indices([0, 1, 1]), np.array([1, 0, 0], "|u1"), indices([0, 1]), np.array([0, 2], "|u1"),
        np.array([-1, 2], "<f4"), both,
    )  # fmt: skip
    content = Peaks(
        QUANTITY, "neuron", (Scene("one", ""),), "Class", ("critical",), (3, 7), 2, 1, 0.0, {"robust": scale},
        PeakStyle(2.0, 9.0, 1.1, 500, 0.5, 40, 20),
        token_scene=indices([0, 0, 0]), token_place=indices([0, 1, 2]), token_choice=indices([0, 0, 0]),
        token_rank=indices([0, 1, 2]), token=two, layer=indices([3, 7]), neuron=two, expert=indices([]),
        value=np.ones(2, "<f4"), height=np.ones(2, "<f4"), write=np.ones(2, "<f4"), highest=np.ones(2, "|u1"),
        comparison=comparison,
    )  # fmt: skip
    return ViewSpec("title", "subtitle", content, Look("robust"), TOKENS)


def route_spec() -> ViewSpec:
    """One head's edge and two streams, of two tokens and one layer."""
    panel = RoutePanel(
        "one", "critical", 0, 2, indices([0, 1, 0]), 1, 0.75, 0.25, 0.1, 0.0,
        there=np.ones(2), in_view=np.array([0.75, 1]),
        node_column=indices([1, 0, 1]), node_depth=indices([1, 0, 0]),
        node_flow=np.array([1, 0.25, 0.5]), node_rest=np.array([0.25, 0, 0]),
        to_column=indices([1, 1, 1]), to_depth=indices([1, 1, 1]),
        from_column=indices([0, 1, -1]), from_depth=indices([0, 0, -1]),
        edge_kind=np.array([0, 1, 4], "|u1"), head=indices([2, -1, -1]),
        weight=np.array([-0.25, 0.5, np.nan]), flow=np.array([0.25, 0.5, 0.25]),
        covered_by=np.array([0.75, np.nan, np.nan]), unmatched=np.array([0, 1], "|u1"),
        neurons=RouteNeurons("write norm", indices([0]), indices([7]), indices([-1]), np.ones(1), np.ones(1), ("·a",)),
        sides=RouteSides(np.array([0.25, 0, np.nan]), np.array([0, 0.5, np.nan]), np.array([np.nan, np.nan, 0.1])),
    )  # fmt: skip
    weight = DrawnQuantity("route_weight", "share", "1", "⟨w, x⟩ / ‖x‖²", signed=True, rows=(0, 1))
    return ViewSpec("title", "subtitle", Routes(weight, "the stream", 0.25, (panel,), ("one", "two")), tokens=TOKENS)


def lens_spec() -> ViewSpec:
    """Two depths at three tokens, one cell hatched, one without a word, and a chart beside them."""
    maps = map_spec()
    assert isinstance(maps.content, Maps)
    line = Line(np.array([-2.5, np.nan]), np.array([0.0, 1.0]), "plain", "answer", dashed=True)
    content = Lens(
        maps.content, (" né", "⟨E4⟩"), indices([[0, 1], [1, 1], [-1, 0]]), indices([[0, 1]]), indices([1, 0, -1]),
        indices([1, 0, -1]), 2, (ChartPanel("", Axis("log-probability"), Axis("", -0.5, 1.5), (line,)),),
    )  # fmt: skip
    return replace(maps, content=content)


def chart_spec() -> ViewSpec:
    """Every data type, one axis and two, arrays without elements."""
    x = np.array([1.5, np.nan, -np.inf], "<f4")
    marks = (
        Line(x, x.astype("<f8"), "accent", "a line"),
        Points(np.empty(0, "<f8"), np.empty(0, "<f4"), "a"),
        Density(np.arange(6, dtype="<i4").reshape(2, 3), np.arange(3.0), np.arange(4.0), "b"),
        Bars(
            np.array([0.5, -1.0]),
            np.array([0.0, 1.0]),
            np.full(2, np.nan),
            np.array([1.0, 2.0]),
            ("né", ""),
            0.4,
            "light",
            "plain",
        ),
        Words(np.array([0.5]), np.array([1.0]), ("né <s>",), "muted"),
    )
    panel = ChartPanel("a chart", Axis("x", 0.0), Axis("y", ticks=((1.0, "one"),)), marks)
    notes = (Note("L05", "info", "first tokens", ("robust", "log"), first_token=False),)
    parameters = {"n": [1, None]}
    return ViewSpec("title", "subtitle", Charts((panel,), 3.5), tokens=TOKENS, notes=notes, parameters=parameters)


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON of a spec's bytes, and what follows it."""
    body = START + int.from_bytes(data[len(MAGIC) : START], "little")
    return json.loads(data[START:body]), data[body:]


def joined(document: Any, body: bytes) -> bytes:
    """Bytes of a spec: `document` is JSON, or its text."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    text += b" " * (-(START + len(text)) % 8)
    return MAGIC + len(text).to_bytes(8, "little") + text + body


def changed(change: Callable[[dict[str, Any]], object], data: bytes | None = None) -> bytes:
    """The bytes of a spec whose JSON was changed in place."""
    document, body = parts(data or to_bytes(chart_spec()))
    change(document)
    return joined(document, body)


def any_of(kind: Any) -> st.SearchStrategy[Any]:
    """Whatever has this type: new fields and classes need nothing here."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return (
            _arrays(args[1]) if isinstance(args[1], Buffer) else st.dictionaries(st.text(max_size=3), _JSON, max_size=2)
        )
    if isinstance(kind, type) and is_dataclass(kind):
        return st.deferred(lambda: st.builds(kind, **{name: any_of(one) for name, one in fields_of(kind).items()}))
    if origin in (Union, UnionType):
        return st.one_of(*map(any_of, args))
    if origin is Literal:
        return st.sampled_from(args)
    if origin is tuple and args[1:] == (...,):
        return st.lists(any_of(args[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*map(any_of, args))
    if origin is not None:
        return st.dictionaries(any_of(args[0]), any_of(args[1]), max_size=2)
    return _PLAIN[kind]


def _arrays(buffer: Buffer) -> st.SearchStrategy[Any]:
    shapes = npst.array_shapes(min_dims=buffer.axes, max_dims=buffer.axes, min_side=1, max_side=3)
    empty = (0, *[1] * (buffer.axes - 1))
    return npst.arrays(st.sampled_from(buffer.dtypes), st.one_of(shapes, st.just(empty)))


_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_PLAIN = {
    str: st.text(st.characters(), max_size=5),  # lone surrogates too
    int: st.integers(-(2**70), 2**70),
    float: _FLOATS,
    bool: st.booleans(),
    NoneType: st.none(),
}
_JSON = st.recursive(st.one_of(*_PLAIN.values()), lambda inner: st.lists(inner, max_size=2), max_leaves=4)
