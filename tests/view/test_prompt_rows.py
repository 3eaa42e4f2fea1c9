"""One row per prompt: every token of every prompt where it stands in it, nothing averaged, classes told by colours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from sheets import outside, overlapping, row_labels, words
from view_traces import Factory, make_trace

from drawn_maps import maps_of, sheet_of
from stratoscope.errors import InputError, UsageError
from stratoscope.view.choose.selection import Selection
from stratoscope.view.maps import prompt_rows
from stratoscope.view.maps.heatmap import heatmap, heatmap_spec
from stratoscope.view.sheet.arrangement import Arrangement, bands
from stratoscope.view.sheet.items import Box
from stratoscope.view.sheet.measures import SLIDE
from stratoscope.view.spec import palette
from stratoscope.view.spec.file import from_bytes, to_bytes
from stratoscope.view.spec.look import Look
from stratoscope.view.spec.maps import MapPanel

ALL = Selection(all_prompts=True)


def test_a_cell_is_the_largest_of_its_token_over_the_layers_and_there_is_none_behind_a_prompt(
    trace_of: Factory,
) -> None:
    dataset = trace_of(lengths=(5, 3, 7), layers=4, classes=("a", "b", "a"))
    spec = heatmap_spec(dataset, rows="prompts")
    (one,) = maps_of(spec).maps
    assert [prompt.id for prompt in spec.tokens.prompts] == ["p1", "p2", "p0"]  # from the bottom up
    values = dataset["mlp_out_norm"].values.max(axis=1)
    cells = one.cells["without_first"]
    assert cells.shape == (7, 3)
    np.testing.assert_array_equal(cells[:5, 2], values[:5])
    np.testing.assert_array_equal(cells[:3, 0], values[5:8])
    np.testing.assert_array_equal(cells[:, 1], values[8:])
    assert one.absent.tolist() == [[0, 3, 7], [2, 5, 7]]
    assert not one.missing
    assert np.isnan(cells).sum() == 6
    assert "maximum over 4 layers" in words(sheet_of(spec))
    assert from_bytes(to_bytes(spec)) is not None


def test_one_layer_is_that_layer_and_of_signed_values_the_one_of_largest_size_counts(trace_of: Factory) -> None:
    dataset = trace_of(lengths=(5, 3), layers=4, quantities=("mlp_out_norm", "mlp_write_cos"), sink=1.0)
    one = maps_of(heatmap_spec(dataset, Selection(layers="2"), rows="prompts")).maps[0]
    np.testing.assert_array_equal(one.cells["without_first"][:, 1], dataset["mlp_out_norm"].values[:5, 2])
    spec = heatmap_spec(dataset, rows="prompts", quantity="mlp_write_cos")
    values = dataset["mlp_write_cos"].values[:5]
    largest = values[np.arange(5), np.abs(values).argmax(axis=1)]
    np.testing.assert_array_equal(maps_of(spec).maps[0].cells["without_first"][:, 1], largest)
    assert "value of largest size over 4 layers" in words(sheet_of(spec))
    assert "layer 2" in words(sheet_of(heatmap_spec(dataset, Selection(layers="2"), rows="prompts")))


def test_a_span_leaves_tokens_at_their_positions(trace_of: Factory) -> None:
    spec = heatmap_spec(trace_of(lengths=(12, 24)), Selection(span="user"), rows="prompts")
    assert spec.tokens.position[0] == 3  # "How": what stands before it is no user token
    (one,) = maps_of(spec).maps
    assert [run for run in one.absent.tolist() if run[0] == 1] == [[1, 7, 19]]
    assert "span user" in spec.selected.of_trace


def test_prompts_longer_than_the_page_are_pooled_by_maximum() -> None:
    dataset = make_trace(lengths=(3_000, 20), layers=2, classes=("a", "b"), sink=1.0)
    dataset["mlp_out_norm"][2_222, 1] = 1e6
    spec = heatmap_spec(dataset, rows="prompts")
    (panel,), (one,) = maps_of(spec).panels, maps_of(spec).maps
    assert panel.tokens_per_column == 3
    assert one.cells["without_first"][2_222 // 3, 1] == 1e6
    assert one.absent.tolist() == [[0, 7, 1000]]


def test_all_prompts_have_rows_where_they_would_fill_over_a_page_and_layers_where_they_do_not() -> None:
    many, few = make_trace(lengths=(30,) * 9), make_trace(lengths=(25,) * 9)
    assert maps_of(heatmap_spec(many, ALL)).quantities[0].quantity.row_kind == "prompt"
    assert maps_of(heatmap_spec(few, ALL)).quantities[0].quantity.row_kind == "layer"
    assert maps_of(heatmap_spec(many, ALL, rows="layers")).quantities[0].quantity.row_kind == "layer"
    assert maps_of(heatmap_spec(many)).quantities[0].quantity.row_kind == "layer"
    assert maps_of(heatmap_spec(make_trace(lengths=(2_000, 3_000)), ALL)).quantities[0].quantity.row_kind == "layer"


@pytest.mark.parametrize("count", [1, 3, 100, 1000])
def test_classes_stand_together_in_their_colours_and_names_are_sampled(count: int) -> None:
    dataset = make_trace(lengths=(4,) * count, layers=2, classes=("harm", "plain") * count)
    spec = heatmap_spec(dataset, rows="prompts")
    sheet = sheet_of(spec)
    assert outside(sheet) == []
    assert overlapping(sheet) == []
    (one,) = sheet.maps()
    labels = row_labels(one)
    assert {0, count - 1} <= labels.keys()
    assert count > 100 or len(labels) == count
    assert one.height < 10.5
    theme = palette.theme("light")
    bars = {
        box.fill: box for box in sheet.items if isinstance(box, Box) and box.x + box.width <= one.x and box.y >= one.y
    }
    harm = (count + 1) // 2
    assert bars[theme.side_a].height == pytest.approx(one.height * harm / count)
    assert f"harm ({harm} prompt{'s' * (harm > 1)})" in words(sheet)


def test_what_makes_no_sense_is_refused_by_name() -> None:
    dataset = make_trace(lengths=(4, 4))
    with pytest.raises(UsageError, match=r"scale.*one scale"):
        heatmap_spec(dataset, look=Look("per-layer"), rows="prompts")
    with pytest.raises(UsageError, match="no rows to choose"):
        heatmap(dataset, rows="prompts", profile=True)
    with pytest.raises(InputError, match="rows"):
        heatmap(dataset, rows="tokens")  # type: ignore[arg-type]


def test_more_prompts_than_rows_are_refused_with_the_way_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_rows, "MOST_ROWS", 3)
    with pytest.raises(InputError, match="--profile"):
        heatmap_spec(make_trace(lengths=(4,) * 4), rows="prompts")


@settings(deadline=None, max_examples=15)
@example([4, 4, 17, 1, 1, 1, 1], ["", "\U000142ca", "𐀀\U00019dd0", "0000", "000\x1f𐀀𐀀", "0000000\x1f\x1f𐀀", "0"], False)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=30),
    st.lists(st.text(max_size=30), min_size=1, max_size=9),
    st.booleans(),
)
def test_nothing_overlaps_or_is_cut(lengths: list[int], classes: list[str], first: bool) -> None:
    named = tuple(classes[place % len(classes)] for place in range(len(lengths)))
    dataset = make_trace(lengths=tuple(lengths), layers=2, classes=named)
    dataset["mlp_out_norm"] = dataset["mlp_out_norm"].where(dataset["mlp_out_norm"] > 0.3)
    for rows in ("prompts", "layers"):
        sheet = sheet_of(heatmap_spec(dataset, ALL, Look(first_token=first), rows=rows))  # type: ignore[arg-type]
        assert outside(sheet) == []
        assert overlapping(sheet) == []
        boxes = [item for item in sheet.items if isinstance(item, Box)]
        assert all(one.x >= 0 and one.x + one.width <= sheet.width + 0.01 and one.y >= 0 for one in boxes)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 200), min_size=2, max_size=20))
def test_a_prompt_is_only_broken_where_it_is_longer_than_a_line(lengths: list[int]) -> None:
    ends = np.cumsum(lengths).tolist()
    begins = [0, *ends[:-1]]
    panel = MapPanel("", "", 0, ends[-1], 1, starts=tuple((begin, "") for begin in begins))
    lines = bands(panel, Arrangement(SLIDE, "lines", 0.15, 0.1))
    longest = max(stop - start for start, stop in lines)
    assert longest <= 82  # columns of 0.15 inches
    for start, stop in zip(begins, ends, strict=True):
        assert stop - start > 82 or any(begin <= start and stop <= end for begin, end in lines)
    assert [one for line in lines for one in range(*line)] == list(range(ends[-1]))


def test_in_axes_of_ones_own_rows_are_named_after_their_prompts_not_after_layers(trace_of: Factory) -> None:
    axes = Figure().add_subplot()
    heatmap(trace_of(lengths=(5, 3, 7), layers=4), rows="prompts", ax=axes)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["p1", "p2", "p0"]  # class by class
    assert axes.patch.get_hatch() is None  # there is no token behind a short prompt: nothing is missing


def test_the_footer_names_the_layer_that_most_cells_are_those_of_and_none_where_no_layer_has_most(
    trace_of: Factory,
) -> None:
    dataset = trace_of(lengths=(5, 5), layers=4, quantities=("mlp_write_ratio",))
    dataset["mlp_write_ratio"].values[:] = np.eye(4)[[0, 0, 0, 0, 0, 0, 1, 2, 3, 0]] + 0.5
    spec = heatmap_spec(dataset, rows="prompts", quantity="mlp_write_ratio")
    assert "70.0 % of the cells are those of L0: choose layers by --layers." in [note.text for note in spec.notes]
    dataset["mlp_write_ratio"].values[:] = np.eye(4)[[0, 1, 2, 3, 0, 1, 2, 3, 0, 1]] + 0.5
    spec = heatmap_spec(dataset, rows="prompts", quantity="mlp_write_ratio")
    assert not [note for note in spec.notes if "of the cells are those" in note.text]
