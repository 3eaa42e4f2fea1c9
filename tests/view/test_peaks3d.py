"""The picture of peaks3d as data, as a figure and as a file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope import peaks3d
from stratoscope.errors import InputError
from stratoscope.view import page3d, peaks3d_caption, plotly3d, plotly3d_traces
from stratoscope.view.peaks3d_levels import level, levels
from stratoscope.view.peaks3d_spec import peaks_spec
from stratoscope.view.spec.viewspec import ViewSpec

PEAKS = ("peak_write", "peak_value", "peak_neuron")


Factory = Callable[..., xr.Dataset]


@pytest.fixture
def spec(trace_of: Factory) -> ViewSpec:
    return peaks_spec(trace_of(quantities=PEAKS, top_k=3))


def words(spec: ViewSpec) -> str:
    return " ".join(peaks3d_caption.caption(spec))


def test_the_default_is_the_first_pair_side_by_side(spec: ViewSpec) -> None:
    assert [scene["title"] for scene in spec.content["scenes"]] == ["critical", "neutral"]
    assert spec.content["choice"] == {"label": "Class", "names": ["critical", "neutral"]}
    assert spec.facts["shown"] == spec.facts["total"] == 24 * 6 * 3


@pytest.mark.parametrize(
    ("prompts", "classes", "titles"),
    [
        (1, ("",), ["p0"]),
        (3, ("a", "b", "a"), ["a", "b", "a"]),
        (6, ("a", "b", "a", "b", "a", "b"), ["a", "b"]),
        (6, tuple("abcdef"), ["6 prompts, end to end"]),
    ],
)
def test_scenes_are_prompts_else_classes_else_one(
    trace_of: Factory, prompts: int, classes: tuple[str, ...], titles: list[str]
) -> None:
    trace = trace_of(quantities=PEAKS, lengths=(4,) * prompts, classes=classes)
    content = peaks_spec(trace, all_prompts=True).content
    assert [scene["title"] for scene in content["scenes"]] == titles


def test_tokens_of_a_scene_keep_reading_order_and_their_own_place(trace_of: Factory) -> None:
    trace = trace_of(quantities=PEAKS, lengths=(3, 4, 3, 4, 3, 4), texts=["the"] * 21)
    spec = peaks_spec(trace, all_prompts=True)
    place, scene = spec.buffers["token_place"], spec.buffers["token_scene"]
    assert place[scene == 0].tolist() == list(range(9))
    assert place[scene == 1].tolist() == list(range(12))
    assert spec.buffers["token_position"][scene == 0].tolist() == [0, 1, 2] * 3
    borders = plotly3d.figure(spec).data[2]
    assert borders.x[::3].tolist() == [2.5, 5.5]


def test_prompts_come_in_the_order_asked_for(trace_of: Factory) -> None:
    spec = peaks_spec(trace_of(quantities=PEAKS), prompt=[1, 0])
    assert [scene["title"] for scene in spec.content["scenes"]] == ["neutral", "critical"]
    first_scene = spec.buffers["token_prompt"][spec.buffers["token_scene"] == 0]
    assert {spec.content["prompts"][prompt] for prompt in first_scene} == {"p1"}


def test_the_first_token_stays_out_of_the_limits_unless_asked_for(trace_of: Factory) -> None:
    trace = trace_of(quantities=PEAKS, sink=1000.0)
    others = trace["peak_write"].values[trace["position"].values > 0]
    limits = peaks_spec(trace).content["levels"]["linear"]
    assert limits["without_first"]["ceiling"] == pytest.approx(float(others.max()))
    assert limits["with_first"]["ceiling"] == pytest.approx(float(trace["peak_write"].values.max()))
    drawn = plotly3d_traces.scene_columns(peaks_spec(trace), 0)
    ceiling = limits["without_first"]["ceiling"]
    assert drawn["above"].any()
    assert (drawn["z"][drawn["above"]] > ceiling).all()
    assert (drawn["z"] <= ceiling * 1.12).all()
    assert not plotly3d_traces.scene_columns(peaks_spec(trace, first_token=True, scale="linear"), 0)["above"].any()


def test_a_prompt_of_one_token_still_has_limits(trace_of: Factory) -> None:
    spec = peaks_spec(trace_of(quantities=PEAKS, lengths=(1,)))
    assert spec.content["levels"]["linear"]["without_first"]["ceiling"] > 0


@given(
    st.lists(st.tuples(st.floats(0, 1e30), st.integers(0, 3), st.booleans()), min_size=1, max_size=30),
    st.sampled_from(["robust", "linear", "log", "per-layer"]),
    st.sampled_from(["with_first", "without_first"]),
)
@settings(deadline=None)
def test_limits_are_finite_and_in_order_for_any_heights(
    peaks: list[tuple[float, int, bool]], scale: str, which: str
) -> None:
    height, layer, first = (np.array(column) for column in zip(*peaks, strict=True))
    limits = levels(height.astype(float), layer, first.astype(bool), "height")[scale][which]
    assert np.isfinite([limits["floor"], limits["ceiling"], *limits["colour"]]).all()
    assert limits["floor"] < limits["ceiling"]
    assert limits["colour"][0] < limits["colour"][1]
    assert all(limits["floor"] <= value <= limits["ceiling"] for value, _ in limits["ticks"])
    values = level(height.astype(float), layer, scale, limits)
    if which == "with_first":
        assert (values <= limits["ceiling"] + 1e-9 * abs(limits["ceiling"])).all()


def test_stems_reach_from_the_floor_to_the_highest_peak_of_their_cell(spec: ViewSpec) -> None:
    columns = plotly3d_traces.scene_columns(spec, 0)
    stems = plotly3d.figure(spec).data[0]
    ends = {(x, y): z for x, y, z in zip(stems.x[1::3], stems.y[1::3], stems.z[1::3], strict=True)}
    assert len(ends) == 12 * 6
    for (x, y), z in ends.items():
        assert z == columns["z"][(columns["x"] == x) & (columns["y"] == y)].max()
    assert set(stems.z[::3]) == {0.0}


def test_an_import_shows_its_numbers_and_says_what_they_are_an_index_of(import_of: Factory) -> None:
    trace = import_of().assign_attrs(axis="residual")
    spec = peaks_spec(trace)
    assert spec.content["index"] == "residual"
    assert spec.facts["quantity"]["name"] == "imported_norm"
    assert spec.content["layers"] == list(range(22, 32))
    np.testing.assert_array_equal(np.sort(spec.buffers["peak_value"]), np.sort(trace["imported_norm"].values))
    assert "write norm" not in plotly3d_traces.hover_template(spec)
    assert "IMPORTED" in words(spec)


def test_a_simulation_says_so_on_the_figure(trace_of: Factory) -> None:
    spec = peaks_spec(trace_of(quantities=PEAKS, source="simulated"))
    assert "SIMULATED" in words(spec)
    assert "[L16]" in words(spec)


@pytest.mark.parametrize("layers", [1, 2, 10, 11, 12, 32, 128])
def test_the_first_and_the_last_layer_are_always_labelled(layers: int) -> None:
    ticks = plotly3d.layer_ticks(list(range(layers)), 11)
    assert ticks["ticktext"][0] == "L0"
    assert ticks["ticktext"][-1] == f"L{layers - 1}"
    assert len(set(ticks["tickvals"])) == len(ticks["tickvals"]) <= 12


def test_labels_on_the_axes_are_no_tags() -> None:
    assert re.search("<[a-z/]", plotly3d.axis_label("<b>x</b><br>")) is None


def test_the_figure_is_plotlys_own_and_valid(trace_of: Factory) -> None:
    figure = peaks3d(trace_of(quantities=PEAKS), theme="dark", scale="log")
    assert isinstance(figure, go.Figure)
    assert json.loads(go.Figure(figure.to_dict()).to_json()) == json.loads(figure.to_json())


def test_equal_input_gives_an_equal_file_without_names_of_places(trace_of: Factory, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        trace = trace_of(quantities=PEAKS, model={"name": "/home/someone/models/tiny"})
        peaks3d(trace, tmp_path / name / "peaks.html")
    one, two = ((tmp_path / name / "peaks.html").read_bytes() for name in ("one", "two"))
    assert one == two
    assert b"someone" not in one
    assert str(tmp_path).encode() not in one


def test_the_page_forbids_itself_every_request(spec: ViewSpec) -> None:
    page = page3d.page(spec)
    policy = re.search('Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "http" not in policy[1]
    own = page.replace(page3d.get_plotlyjs(), "")
    assert re.search(r"(src|href)=|url\(|https?://|import\s", own) is None


def test_the_views_bytes_and_its_metadata_are_in_the_page(spec: ViewSpec) -> None:
    page = page3d.page(spec)
    said = re.search('<script type="application/json" id="stratoscope">(.*?)</script>', page)
    assert said is not None
    assert json.loads(said[1]) == spec.metadata()


def test_an_existing_file_is_kept_unless_asked(trace_of: Factory, tmp_path: Path) -> None:
    out = tmp_path / "peaks.html"
    out.write_text("mine")
    trace = trace_of(quantities=PEAKS)
    with pytest.raises(InputError, match="already exists"):
        peaks3d(trace, out)
    assert out.read_text() == "mine"
    peaks3d(trace, out, overwrite=True)
    assert out.read_text("utf-8").startswith("<!doctype html>")


def test_nothing_is_left_behind_where_writing_fails(
    trace_of: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InputError, match="No space left on device"):
        peaks3d(trace_of(quantities=PEAKS), tmp_path / "peaks.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"quantity": "mlp_out_norm"}, "peak_write and peak_value"),
        ({"scale": "cubic"}, "robust"),
        ({"layers": "77"}, "no layer 77"),
        ({"prompt": "nobody"}, "no prompt called"),
        ({"threshold": 1e9}, "no peak is as high"),
        ({"out": "picture.png"}, "picture.html"),
        ({"out": "missing/peaks.html"}, "folder does not exist"),
    ],
)
def test_what_cannot_be_drawn_is_said_with_a_way_out(
    trace_of: Factory, tmp_path: Path, options: dict[str, object], words: str
) -> None:
    options = {**options, **({"out": tmp_path / str(options["out"])} if "out" in options else {})}
    with pytest.raises(InputError, match=re.escape(words)) as raised:
        peaks3d(trace_of(quantities=PEAKS), **options)  # type: ignore[arg-type]
    assert raised.value.fix


def test_a_trace_without_peaks_names_the_command_that_records_them(trace_of: Factory) -> None:
    with pytest.raises(InputError, match="--record norms,peaks"):
        peaks3d(trace_of())
