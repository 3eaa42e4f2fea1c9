"""A picture as data: complete, the same bytes each time, and silent about who made it where."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from view_traces import Factory

from stratoscope.view.maps.heatmap import heatmap_spec
from stratoscope.view.spec.document import Packing, Unpacking
from stratoscope.view.spec.file import from_bytes, to_bytes
from stratoscope.view.spec.viewspec import Note, ViewSpec, notes_of, provenance_of, public_name
from viewspecs import any_of, chart_spec, lens_spec, map_spec, parts, peak_spec, route_spec

SPECS = {"maps": map_spec(), "charts": chart_spec(), "peaks": peak_spec(), "routes": route_spec(), "lens": lens_spec()}


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(any_of(ViewSpec))
def test_whatever_has_the_types_of_a_spec_is_read_as_it_was_written(spec: ViewSpec) -> None:
    packing = Packing()
    view = packing.pack(spec)
    unpacking = Unpacking(packing.arrays)
    back = unpacking.unpack(ViewSpec, view)
    unpacking.finish()
    assert to_bytes(back) == to_bytes(spec)


@pytest.mark.parametrize("content", SPECS)
def test_bytes_give_back_the_same_spec(content: str) -> None:
    spec = SPECS[content]
    back = from_bytes(to_bytes(spec))
    assert to_bytes(back) == to_bytes(spec)
    assert (type(back.content), back.look, back.notes) == (type(spec.content), spec.look, spec.notes)
    np.testing.assert_array_equal(back.tokens.position, spec.tokens.position)
    assert back.metadata_json() == spec.metadata_json()


def test_an_array_of_two_states_is_written_once() -> None:
    document, _ = parts(to_bytes(SPECS["maps"]))
    cells = document["view"]["content"]["maps"][0]["cells"]
    assert cells["with_first"] == cells["without_first"]


def test_buffers_are_little_endian_and_aligned() -> None:
    big = replace(SPECS["peaks"], tokens=replace(SPECS["peaks"].tokens, position=np.array([0, 1, 2], ">i4")))
    data = to_bytes(big)
    document, body = parts(data)
    for entry in document["buffers"]:
        assert entry["dtype"][0] in "<|"
        assert (len(data) - len(body) + entry["offset"]) % 8 == 0
    assert from_bytes(data).tokens.position.tolist() == [0, 1, 2]


def test_what_no_reader_takes_is_not_written() -> None:
    for array in (np.zeros(2, "<f2"), np.zeros((1, 1, 1), "<f4"), np.zeros((2, 0), "<f4")):
        with pytest.raises(TypeError, match="cannot be part of a ViewSpec"):
            Packing().pack(array)
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_bytes(replace(SPECS["charts"], parameters={"x": float("nan")}))


def test_equal_input_gives_equal_bytes(trace_of: Factory) -> None:
    assert to_bytes(heatmap_spec(trace_of())) == to_bytes(heatmap_spec(trace_of()))


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
