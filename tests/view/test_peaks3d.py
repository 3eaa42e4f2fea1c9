"""The picture of peaks3d as data, as a figure and as a file."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope import peaks3d
from stratoscope.errors import InputError
from stratoscope.names import SCALES, Scale
from stratoscope.trace.arrays import Floats, Ints
from stratoscope.view.choose.selection import EVERYTHING, Selection
from stratoscope.view.peaks3d import caption, figure, page, traces
from stratoscope.view.peaks3d.build import peaks_spec
from stratoscope.view.peaks3d.heights import scales_of
from stratoscope.view.peaks3d.ticks import round_ticks
from stratoscope.view.spec.file import from_bytes, to_bytes
from stratoscope.view.spec.look import PLAIN, FirstTokens, Look
from stratoscope.view.spec.peaks import Heights, Peaks
from stratoscope.view.spec.scale import Distribution
from stratoscope.view.spec.viewspec import ViewSpec

PEAKS = ("peak_write", "peak_value", "peak_neuron")


Factory = Callable[..., xr.Dataset]


@pytest.fixture
def spec(trace_of: Factory) -> ViewSpec:
    return peaks_spec(trace_of(quantities=PEAKS, top_k=3))


def words(spec: ViewSpec) -> str:
    return " ".join(caption.caption(spec))


def peaks_of(trace: xr.Dataset, selection: Selection = EVERYTHING, look: Look = PLAIN) -> Peaks:
    return caption.peaks_in(peaks_spec(trace, selection, look))


def test_the_default_is_the_first_pair_side_by_side(spec: ViewSpec) -> None:
    peaks = caption.peaks_in(spec)
    assert [scene.title for scene in peaks.scenes] == ["critical", "neutral"]
    assert (peaks.choice_label, peaks.choices) == ("Class", ("critical", "neutral"))
    assert len(peaks.token) == peaks.total == 24 * 6 * 3


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
    assert [scene.title for scene in peaks_of(trace, Selection(all_prompts=True)).scenes] == titles


def test_tokens_of_a_scene_keep_reading_order_and_their_own_place(trace_of: Factory) -> None:
    trace = trace_of(quantities=PEAKS, lengths=(3, 4, 3, 4, 3, 4), texts=["the"] * 21)
    spec = peaks_spec(trace, Selection(all_prompts=True))
    place, scene = caption.peaks_in(spec).token_place, caption.peaks_in(spec).token_scene
    assert place[scene == 0].tolist() == list(range(9))
    assert place[scene == 1].tolist() == list(range(12))
    assert spec.tokens.position[scene == 0].tolist() == [0, 1, 2] * 3
    borders = figure.figure(spec).data[2]
    assert borders.x[::3].tolist() == [2.5, 5.5]


def test_prompts_come_in_the_order_asked_for(trace_of: Factory) -> None:
    spec = peaks_spec(trace_of(quantities=PEAKS), Selection([1, 0]))
    peaks = caption.peaks_in(spec)
    assert [scene.title for scene in peaks.scenes] == ["neutral", "critical"]
    first_scene = spec.tokens.prompt[peaks.token_scene == 0]
    assert {spec.tokens.prompts[prompt].id for prompt in first_scene} == {"p1"}


def test_the_table_of_tokens_says_whose_each_peak_is(trace_of: Factory) -> None:
    trace = trace_of(quantities=PEAKS)
    spec = peaks_spec(trace)
    peaks, tokens = caption.peaks_in(spec), spec.tokens
    rank = (tokens.position[peaks.token] + 12 * tokens.prompt[peaks.token], peaks.layer)
    assert (np.isin(peaks.height, trace["peak_write"].values[rank])).all()
    assert tokens.first.sum() == 2
    assert [prompt.prompt_class for prompt in tokens.prompts] == ["critical", "neutral"]
    assert tokens.span.tolist() == trace["span"].values.tolist()
    assert len(tokens.text) == 24


def test_what_is_left_out_stands_in_the_view_and_in_the_caption(trace_of: Factory) -> None:
    trace = trace_of(quantities=PEAKS, lengths=(12, 12, 12), classes=("critical", "neutral", "neutral"))
    spec = peaks_spec(trace, Selection(prompt_class="neutral", layers="1-2", span="user"))
    assert spec.selected.prompts == ("p1",)
    assert spec.selected.layers == caption.peaks_in(spec).layers == (1, 2)
    assert (spec.selected.classes, spec.selected.spans) == (("neutral",), ("user",))
    said = (
        r"On this page: 1 of 3 prompts \(class neutral\); 2 of 6 layers \(1-2\); \d+ of their 12 tokens \(span user\)\."
    )
    assert re.search(said, words(spec))
    assert json.loads(spec.metadata_json())["selected"]["layers"] == [1, 2]
    assert "Shown" not in words(peaks_spec(trace, Selection(all_prompts=True)))


def test_notes_hold_only_where_they_are_true(spec: ViewSpec) -> None:
    left_out = "First tokens are left out of the scale"
    assert left_out in words(spec)
    assert left_out not in words(replace(spec, look=Look(first_token=True)))


def test_the_first_token_stays_out_of_the_limits_unless_asked_for(trace_of: Factory) -> None:
    trace = trace_of(quantities=PEAKS, sink=1000.0)
    others = trace["peak_write"].values[trace["position"].values > 0]
    linear = peaks_of(trace).scales["linear"].heights
    ceiling = linear["without_first"].ceiling
    assert ceiling == pytest.approx(float(others.max()))
    assert linear["with_first"].ceiling == pytest.approx(float(trace["peak_write"].values.max()))
    place, beyond = linear["without_first"].place, linear["without_first"].beyond
    assert len(beyond)
    assert (place[beyond] > ceiling).all()
    assert (place <= ceiling * 1.12).all()
    assert not len(linear["with_first"].beyond)


def test_a_prompt_of_one_token_still_has_limits(trace_of: Factory) -> None:
    peaks = peaks_of(trace_of(quantities=PEAKS, lengths=(1,)))
    assert peaks.scales["linear"].heights["without_first"].ceiling > 0


@given(
    st.lists(st.tuples(st.floats(0, 1e30), st.integers(0, 3), st.booleans()), min_size=1, max_size=30),
    st.sampled_from(SCALES),
    st.sampled_from(["with_first", "without_first"]),
    st.sampled_from([np.float32, np.float64]),
)
@settings(deadline=None)
def test_limits_and_places_are_finite_and_in_order_for_any_heights(
    peaks: list[tuple[float, int, bool]], scale: Scale, which: FirstTokens, dtype: type
) -> None:
    height, layer, first = (np.array(column) for column in zip(*peaks, strict=True))
    height = height.astype(dtype)
    limits = scales_of(height, layer, first.astype(bool), "height")[scale].heights[which]
    assert np.isfinite([limits.floor, limits.ceiling, limits.low, limits.high]).all()
    assert limits.floor < limits.ceiling
    assert limits.low < limits.high
    assert all(limits.floor <= value <= limits.ceiling for value, _ in limits.ticks)
    within = np.delete(limits.place, limits.beyond)
    room = 1e-6 * (limits.ceiling - limits.floor + abs(limits.ceiling))
    assert (within >= limits.floor - room).all()
    assert (within <= limits.ceiling + room).all()
    assert (limits.place[limits.beyond] >= limits.ceiling).all()
    assert (limits.times > 1).all()
    assert which == "without_first" or not len(limits.beyond)


def test_places_on_each_scale_are_those_of_its_formula(spec: ViewSpec) -> None:
    peaks = caption.peaks_in(spec)
    first = spec.tokens.first[peaks.token].astype(bool)
    height, top = peaks.height.astype(float), float(peaks.height[~first].max())
    tops = np.array([height[~first & (peaks.layer == layer)].max() for layer in range(6)])[peaks.layer]
    robust = Distribution([height[~first, np.newaxis]]).fit("log", "robust")
    low, high = np.log10([robust.low[0], robust.high[0]])
    steep = [min(1.0, 0.3 * (high - low) / (np.log10(top) - high)), 0.1 * (high - low) / (low - np.log10(height.min()))]
    beyond = [np.maximum(np.log10(height) - high, 0), np.maximum(low - np.log10(height), 0)]
    squeezed = np.clip(np.log10(height), low, high) + steep[0] * beyond[0] - min(1.0, steep[1]) * beyond[1]
    expected = {"linear": height, "robust": squeezed, "log": np.log10(height), "per-layer": height / tops}
    for scale, level in expected.items():
        limits = peaks.scales[scale].heights["without_first"]
        shares = height / (tops if scale == "per-layer" else top)
        np.testing.assert_array_equal(limits.beyond, np.flatnonzero(shares > 1))
        np.testing.assert_allclose(limits.times, shares[limits.beyond])
        np.testing.assert_allclose(
            np.delete(limits.place, limits.beyond),
            np.delete(np.maximum(level, limits.floor), limits.beyond),
            rtol=1e-6,
        )
        roof = 1.04 + 0.06 * np.clip(np.log10(limits.times) / 4, 0, 1)
        np.testing.assert_allclose(
            limits.place[limits.beyond], limits.floor + (limits.ceiling - limits.floor) * roof, rtol=1e-6
        )


def test_robust_colours_are_those_of_a_map(spec: ViewSpec) -> None:
    peaks = caption.peaks_in(spec)
    others = peaks.height[spec.tokens.first[peaks.token] == 0]
    limits = Distribution([others[:, np.newaxis]]).fit("log", "robust")
    heights = peaks.scales["robust"].heights["without_first"]
    assert [heights.low, heights.high] == pytest.approx(np.log10([limits.low[0], limits.high[0]]))


def one_hot_layer() -> tuple[Floats, Ints]:
    """Heights and layers as in an import with one hot layer: nine layers at 0.04 to 0.08, the last at 1.2 to 2.2."""
    layer = np.repeat(np.arange(22, 32), 450)
    share = np.random.default_rng(2).random(len(layer))
    return np.where(layer < 31, 0.04 + 0.04 * share, 1.2 + share), layer


def test_one_hot_layer_owns_neither_heights_nor_colours() -> None:
    height, layer = one_hot_layer()
    heights = scales_of(height, layer, np.zeros(len(layer), bool), "height")["robust"].heights["without_first"]
    usual, hot = heights.place[layer < 31], heights.place[layer == 31]
    whole, colours = heights.ceiling - heights.floor, heights.high - heights.low
    assert np.ptp(usual) > 0.4 * whole
    assert np.ptp(usual) > 0.55 * colours
    assert usual.max() <= heights.high < hot.min()
    assert (np.diff(heights.place[np.argsort(height)]) >= 0).all()  # the higher stands higher, also beyond the limits
    labels = [float(words) for _, words in heights.ticks]
    assert any(label < 0.06 for label in labels)
    assert any(label >= 1 for label in labels)


@given(st.floats(1e-30, 1e30), st.floats(0, 60))
@settings(deadline=None)
def test_ticks_are_apart_within_the_axis_and_never_fewer_than_two(low: float, decades: float) -> None:
    high = low * 10 ** max(decades, 0.05)
    ticks = round_ticks(low, high, lambda value: float(np.log10(value)))
    places = np.array([place for place, _ in ticks])
    ends = np.log10([low, high])
    assert len(ticks) >= 2
    assert ((places >= ends[0]) & (places <= ends[1])).all()
    assert (np.diff(places) >= 0.08 * (ends[1] - ends[0])).all()


def test_numbers_keep_their_type_and_equal_arrays_travel_once(trace_of: Factory) -> None:
    spec = peaks_spec(trace_of(quantities=PEAKS, lengths=(400, 400), layers=3, top_k=10))
    peaks = caption.peaks_in(spec)
    assert {array.dtype for array in (peaks.value, peaks.height, peaks.write)} == {np.dtype("float32")}
    assert peaks.height is peaks.write is peaks.scales["linear"].heights["with_first"].place
    per_token = 8 * 4 + 1
    alone = replace(spec, content=replace(peaks, comparison=None))
    for one, most in ((alone, 52), (spec, 65)):
        per_peak = (len(to_bytes(one)) - len(spec.metadata_json()) - per_token * 800) / len(peaks.token)
        assert per_peak < most


def test_a_view_survives_its_bytes(spec: ViewSpec) -> None:
    read = from_bytes(to_bytes(spec))
    assert to_bytes(read) == to_bytes(spec)
    heights: Heights = caption.peaks_in(read).heights(spec.look)
    np.testing.assert_array_equal(heights.place, traces.heights_of(spec).place)


def test_stems_reach_from_the_floor_to_the_highest_peak_of_their_cell(spec: ViewSpec) -> None:
    drawn = traces.drawn_in(spec, 0)
    stems = figure.figure(spec).data[0]
    ends = {(x, y): z for x, y, z in zip(stems.x[1::3], stems.y[1::3], stems.z[1::3], strict=True)}
    assert len(ends) == 12 * 6
    for (x, y), z in ends.items():
        assert z == drawn.z[(drawn.x == x) & (drawn.y == y)].max()
    assert set(stems.z[::3]) == {traces.heights_of(spec).floor}


def test_an_import_shows_its_numbers_and_says_what_they_are_an_index_of(import_of: Factory) -> None:
    trace = import_of().assign_attrs(axis="residual")
    spec = peaks_spec(trace)
    peaks = caption.peaks_in(spec)
    assert peaks.index == "residual"
    assert peaks.quantity.name == "imported_norm"
    assert peaks.layers == tuple(range(22, 32))
    np.testing.assert_array_equal(np.sort(peaks.value), np.sort(trace["imported_norm"].values))
    assert "write norm" not in traces.hover_template(peaks)
    assert "IMPORTED" in words(spec)


def test_a_simulation_says_so_on_the_figure(trace_of: Factory) -> None:
    spec = peaks_spec(trace_of(quantities=PEAKS, source="simulated"))
    assert "SIMULATED" in words(spec)
    assert "[L16]" in words(spec)


@pytest.mark.parametrize("layers", [1, 2, 10, 11, 12, 32, 128])
def test_the_first_and_the_last_layer_are_always_labelled(layers: int) -> None:
    numbers, labels = figure.layer_ticks(range(layers), 11)
    assert labels[0] == "L0"
    assert labels[-1] == f"L{layers - 1}"
    assert len(set(numbers)) == len(numbers) <= 12


def test_labels_on_the_axes_are_no_tags() -> None:
    assert re.search("<[a-z/]", figure.axis_label("<b>x</b><br>")) is None


def test_the_figure_is_plotlys_own_and_valid(trace_of: Factory) -> None:
    drawn = peaks3d(trace_of(quantities=PEAKS), theme="dark", scale="log")
    assert isinstance(drawn, go.Figure)
    assert json.loads(go.Figure(drawn.to_dict()).to_json()) == json.loads(drawn.to_json())


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
    text = page.page(spec)
    policy = re.search('Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "http" not in policy[1]
    own = text.replace(page.get_plotlyjs(), "")
    assert re.search(r"(src|href)=|url\(|https?://|import\s", own) is None


def test_the_views_bytes_and_its_metadata_are_in_the_page(spec: ViewSpec) -> None:
    text = page.page(spec)
    said = re.search('<script type="application/json" id="stratoscope">(.*?)</script>', text)
    assert said is not None
    assert json.loads(said[1]) == json.loads(spec.metadata_json())
    held = re.search('id="stratoscope-view">(.*?)</script>', text)
    assert held is not None
    assert base64.b64decode(held[1]) == to_bytes(spec)


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
