"""A small spec with an array of every kind, and what it takes to damage its bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from stratoscope.view.spec.charts import Axis, ChartPanel, Charts, Density, Line, Points, Words
from stratoscope.view.spec.file import MAGIC, to_bytes
from stratoscope.view.spec.tokens import ShownPrompt, ShownTokens
from stratoscope.view.spec.viewspec import Note, ViewSpec

START = len(MAGIC) + 8


def small_spec() -> ViewSpec:
    """Every data type, one axis and two, arrays without elements."""
    x = np.array([1.5, np.nan, -np.inf], "<f4")
    marks = (
        Line(x, x.astype("<f8"), "accent", "a line"),
        Points(np.empty(0, "<f8"), np.empty(0, "<f4"), "a"),
        Density(np.arange(6, dtype="<i4").reshape(2, 3), np.arange(3.0), np.arange(4.0), "b"),
        Words(np.array([0.5]), np.array([1.0]), ("né <s>",), "muted"),
    )
    tokens = ShownTokens(
        (ShownPrompt("one", "critical"),),
        np.zeros(2, "<i4"),
        np.arange(2, dtype="<i4"),
        np.array([0, -1], "<i4"),
        np.array([1, 0], "|u1"),
        ("<s>", " beta"),
    )
    panel = ChartPanel("a chart", Axis("x", 0.0), Axis("y", ticks=((1.0, "one"),)), marks)
    notes = (Note("L05", "info", "first tokens", ("robust", "log"), first_token=False),)
    return ViewSpec("title", "subtitle", Charts((panel,), 3.5), tokens=tokens, notes=notes, parameters={"n": [1, None]})


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
    document, body = parts(data or to_bytes(small_spec()))
    change(document)
    return joined(document, body)
