"""A picture as data: complete, the same bytes each time, and silent about who made it where."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from view_traces import Factory

from stratoscope.view.maps.heatmap import heatmap_spec
from stratoscope.view.spec.viewspec import Note, Provenance, ViewSpec, notes_of, provenance_of, public_name

arrays = npst.arrays(st.sampled_from(["<f4", ">f8", "<i2", "u1"]), npst.array_shapes(max_dims=3, max_side=4))


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=5), arrays, max_size=3), st.text(), st.text())
def test_bytes_give_back_the_same_spec(buffers, title: str, text: str) -> None:  # type: ignore[no-untyped-def]
    spec = ViewSpec("heatmap", title, "", {"a": [1, text]}, buffers, (Note("L05", "info", text),), Provenance("u"))
    back = ViewSpec.from_bytes(spec.to_bytes())
    assert back.to_bytes() == spec.to_bytes()
    assert (back.title, back.notes, back.provenance) == (spec.title, spec.notes, spec.provenance)
    for name, array in buffers.items():
        np.testing.assert_array_equal(back.buffers[name], array)


def test_buffers_are_little_endian_and_aligned(trace_of: Factory) -> None:
    data = heatmap_spec(trace_of()).to_bytes()
    start = data.index(b"\n") + 1
    length = int.from_bytes(data[start : start + 8], "little")
    for entry in json.loads(data[start + 8 : start + 8 + length])["buffers"].values():
        assert entry["dtype"][0] in "<|"
        assert (start + 8 + length + entry["offset"]) % 8 == 0


def test_other_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="no ViewSpec"):
        ViewSpec.from_bytes(b"PNG")


def test_equal_input_gives_equal_bytes(trace_of: Factory) -> None:
    assert heatmap_spec(trace_of()).to_bytes() == heatmap_spec(trace_of()).to_bytes()


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("/home/ada/models/llama", "llama"),
        ("./models/llama.gguf", "llama.gguf"),
        ("~/m/x", "x"),
        ("..\\m\\x", "x"),
        ("C:\\Users\\ada\\model", "model"),
        ("a/b/c", "c"),
        ("org/model", "org/model"),
        ("model", "model"),
        ("", ""),
    ],
)
def test_a_models_name_never_carries_its_folders(name: str, public: str) -> None:
    assert public_name(name) == public


def test_provenance_says_source_model_and_receipt(trace_of: Factory) -> None:
    found = provenance_of(trace_of(model={"name": "/home/ada/tiny"}))
    assert (found.source, found.model) == ("real", "tiny")
    assert found.receipt.startswith("logits bit-identical")


def test_a_simulation_says_so_even_if_its_notes_do_not(trace_of: Factory) -> None:
    (note,) = notes_of(trace_of(source="simulated"))
    assert (note.id, note.severity) == ("L16", "warning")
    assert not notes_of(trace_of(source="real"))


def test_notes_of_the_data_reach_the_picture(trace_of: Factory) -> None:
    note = {"id": "L20", "severity": "warning", "text": "flat by construction"}
    assert Note(**note) in heatmap_spec(trace_of(notes=[note])).notes
