"""Pictures without pixels: nothing overlaps, is cut, or is left out, whatever the data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sheets import column_labels, outside, overlapping, row_labels, words
from view_traces import Factory, make_import, make_trace

from drawn_maps import maps_of, sheet_of
from stratoscope import names
from stratoscope.view.choose.selection import Selection
from stratoscope.view.maps.engagement import QUANTITIES, engagement_spec
from stratoscope.view.maps.heatmap import heatmap_spec
from stratoscope.view.sheet import fonts
from stratoscope.view.sheet.items import Box, Ring
from stratoscope.view.spec import palette
from stratoscope.view.spec.figures import Figures, figures_of
from stratoscope.view.spec.look import Look

slow = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
token_texts = st.text(st.characters(codec=None) | st.sampled_from("\udce4\u202e$ \n<س你🦄"), max_size=20)


@st.composite
def traces(draw: st.DrawFn, quantities: tuple[str, ...] = ("mlp_out_norm",), most: int = 90):  # type: ignore[no-untyped-def]
    lengths = tuple(draw(st.lists(st.integers(1, most), min_size=1, max_size=4)))
    some = draw(st.lists(token_texts, min_size=1, max_size=8))
    dataset = make_trace(
        lengths=lengths,
        layers=draw(st.integers(1, 40)),
        quantities=quantities,
        texts=[some[index % len(some)] for index in range(sum(lengths))],
        classes=tuple(draw(st.lists(token_texts, min_size=4, max_size=4))),
        sink=draw(st.sampled_from([0.0, 1.0, 40.0, 1e7])),
        seed=draw(st.integers(0, 9)),
        source=draw(st.sampled_from(names.SOURCES)),
        model={"name": draw(st.text(max_size=30))},
    )
    ends = np.sort(np.random.default_rng(draw(st.integers(0, 9))).integers(0, sum(lengths), 12))
    if draw(st.booleans()):  # parts of some tokens each, as of a chat
        spans = np.searchsorted(ends, np.arange(sum(lengths))) * 5 % (len(names.SPANS) + 1) - 1
        dataset = dataset.assign_coords(span=("token", spans.astype("int8")))
    holes = np.random.default_rng(0).random(dataset[quantities[0]].shape) < draw(st.sampled_from([0.0, 0.2, 1.0]))
    dataset[quantities[0]] = dataset[quantities[0]].where(~holes)
    return dataset


def check(spec):  # type: ignore[no-untyped-def]
    sheet = sheet_of(spec)
    assert outside(sheet) == []
    assert overlapping(sheet) == []
    missing = {char for text in sheet.texts() for char in text.text if not fonts.has_glyph(char)}
    assert missing <= set("\u2068\u2069")
    return sheet


@slow
@given(traces(), st.booleans(), st.sampled_from(names.SCALES), st.booleans())
def test_no_heatmap_has_overlapping_or_cut_words(dataset, everything: bool, scale: names.Scale, first: bool) -> None:  # type: ignore[no-untyped-def]
    check(heatmap_spec(dataset, Selection(all_prompts=everything), Look(scale, first_token=first)))


@settings(slow, max_examples=20)
@given(traces(QUANTITIES), st.integers(1, 5))
def test_no_engagement_has_overlapping_or_cut_words(dataset, kept: int) -> None:  # type: ignore[no-untyped-def]
    check(engagement_spec(dataset[list(QUANTITIES[:kept])]))


@pytest.mark.parametrize("tokens", [1, 2, 13, 24, 56, 90, 400, 1500])
def test_every_token_has_its_label_in_reading_order(tokens: int) -> None:
    texts = [f"t{index}" for index in range(tokens)]
    sheet = check(heatmap_spec(make_trace(lengths=(tokens,), layers=4, texts=texts, classes=("",))))
    shown = [label.text for one in sheet.maps() for label in column_labels(one).values()]
    assert shown == texts
    for one in sheet.maps():
        places = [label.x for label in column_labels(one).values()]
        assert places == sorted(places)


@pytest.mark.parametrize("layers", [1, 2, 3, 30, 32, 61, 128, 200])
@pytest.mark.parametrize("tokens", [13, 400, 5000])
def test_layer_0_is_at_the_bottom_and_both_ends_are_labelled(layers: int, tokens: int) -> None:
    sheet = check(heatmap_spec(make_trace(lengths=(tokens,), layers=layers)))
    for one in sheet.maps():
        labels = row_labels(one)
        assert labels[0] == "L0"
        assert labels[layers - 1] == f"L{layers - 1}"
        heights = [label.y for _, label in one.rows]
        assert heights == sorted(heights, reverse=True)


def test_chosen_layers_keep_their_numbers_and_gaps_are_visible(trace_of: Factory) -> None:
    sheet = sheet_of(heatmap_spec(trace_of(layers=32), Selection(layers="22-31,0")))
    one = sheet.maps()[0]
    assert row_labels(one)[0] == "L0"
    assert row_labels(one)[10] == "L31"
    paper = palette.theme("light").paper
    assert [item for item in sheet.items if isinstance(item, Box) and item.fill == paper and item.width == one.width]


def test_depths_are_not_called_layers(trace_of: Factory) -> None:
    spec = heatmap_spec(trace_of(quantities=("resid_norm",)))
    assert row_labels(sheet_of(spec).maps()[0])[6] == "D6"
    assert "token and depth" in spec.title


def test_a_pair_stands_side_by_side_and_a_long_one_one_above_the_other() -> None:
    short = sheet_of(heatmap_spec(make_trace(lengths=(13, 13), layers=30))).maps()
    assert short[0].y == short[1].y
    assert short[0].x + short[0].width < short[1].x
    long = sheet_of(heatmap_spec(make_trace(lengths=(56, 56), layers=30))).maps()
    assert long[0].x == long[1].x
    assert long[0].y + long[0].height < long[1].y


def test_compared_panels_have_cells_of_one_size() -> None:
    for lengths in ((13, 9), (56, 48)):
        one, other = sheet_of(heatmap_spec(make_trace(lengths=lengths, layers=30))).maps()
        assert one.width / one.stop == pytest.approx(other.width / other.stop)
        assert one.height == other.height


def test_the_map_is_the_biggest_thing_on_the_page() -> None:
    for lengths in ((13, 13), (56, 56), (400,), (5000,)):
        sheet = sheet_of(heatmap_spec(make_trace(lengths=lengths, layers=30)))
        assert sum(one.width * one.height for one in sheet.maps()) > 0.35 * sheet.width * sheet.height


def test_the_first_token_is_marked_and_its_excess_is_a_badge(trace_of: Factory) -> None:
    sheet = sheet_of(heatmap_spec(trace_of(sink=1000.0)))
    accent = palette.theme("light").accent
    badges = [text for text in sheet.texts() if text.text.startswith("×")]
    assert len(badges) == len(sheet.maps()) == 2
    for one, badge in zip(sheet.maps(), badges, strict=True):
        assert badge.x == one.x
        bars = [item for item in sheet.items if isinstance(item, Box) and item.fill == accent and item.x == one.x]
        assert any(0 < one.y - bar.y < 0.1 for bar in bars)


def test_template_tokens_are_fainter_than_the_prompt(trace_of: Factory) -> None:
    labels = column_labels(sheet_of(heatmap_spec(trace_of())).maps()[0])
    theme = palette.theme("light")
    assert labels[0].colour == labels[1].colour == theme.faint
    assert labels[3].colour == theme.ink


def test_small_pictures_have_figures_in_their_cells_and_large_ones_have_none() -> None:
    spec = heatmap_spec(make_trace(lengths=(24,), layers=10))
    (one,) = sheet_of(spec).maps()
    assert len(one.cells) == 240
    values = maps_of(spec).maps[0].cells["without_first"]
    for cell in one.cells:
        assert cell.text == Figures().written(float(values[cell.column, cell.row]))
    assert not sheet_of(heatmap_spec(make_trace(lengths=(60,), layers=30))).maps()[0].cells


def test_a_missing_cell_has_no_figure() -> None:
    dataset = make_trace(lengths=(5,), layers=2)
    dataset["mlp_out_norm"][2, 1] = np.nan
    (one,) = sheet_of(heatmap_spec(dataset)).maps()
    assert len(one.cells) == 9
    assert (2, 1) not in {(cell.column, cell.row) for cell in one.cells}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.004, "<.01"),
        (-0.004, "<.01"),
        (0.034, ".03"),
        (-0.5, "−.50"),
        (0.996, "1.0"),
        (1.25, "1.2"),
        (9.96, "10"),
        (123.4, "123"),
        (999.6, "1.0k"),
        (12_345, "12k"),
        (3.4e6, "3.4M"),
        (7e12, "7e12"),
    ],
)
def test_figures_in_cells_are_short_and_never_round_to_zero(value: float, text: str) -> None:
    assert Figures().written(value) == text


@pytest.mark.parametrize(
    ("most", "values", "texts", "factor"),
    [
        ((0.04, 0.08), [0.0412, 0.0624, 0.0996, 0.51, 1.74, 40.0], ["4.1", "6.2", "10", "51", "174", "4.0e3"], "×10⁻²"),
        ((-0.05, 0.03), [-0.0512, 0.0, 0.0001, np.inf, -np.inf], ["−51", "0", ".10", "∞", "−∞"], "×10⁻³"),
        ((1.01, 1.09), [1.012, 1.034, 9.996, 12.34, 0.5], ["1.01", "1.03", "10.0", "12.3", ".500"], ""),
        ((1010, 1090), [1012, 1034, 1071, 12], ["1.01", "1.03", "1.07", ".012"], "×10³"),
        ((1200, 56_000), [1200, 3400, 56_000], ["1.2k", "3.4k", "56k"], ""),
        ((0.12, 0.9), [0.12, 0.5, 0.96, 0.004], [".12", ".50", ".96", "<.01"], ""),
        ((3e-7, 9e-7), [3e-7, 0.4e-9, 2.4e-9], ["3.0", "<.01", ".02"], "×10⁻⁷"),
        ((0.003, 900.0), [0.003, 0.5, 120.0], ["<.01", ".50", "120"], ""),
        ((np.nan, np.inf), [0.5, np.inf], [".50", "∞"], ""),
    ],
)
def test_numbers_in_cells_differ_where_the_values_do_and_share_a_factor(
    most: tuple[float, float], values: list[float], texts: list[str], factor: str
) -> None:
    figures = figures_of(np.linspace(*most, 20))
    assert figures.factor() == factor
    assert [figures.written(one) for one in values] == texts


@given(st.floats(1e-12, 1e12), st.sampled_from([0.0, 1e-3, 1.0, 30.0]), st.floats(0.01, 100))
def test_no_number_in_a_cell_is_off_by_more_than_half_its_last_digit(low: float, spread: float, times: float) -> None:
    figures = figures_of(np.linspace(low, low * (1 + spread), 9))
    value = low * times
    text = figures.written(-value).removeprefix("−")
    assert len(text) <= 6
    if not text.startswith("<"):
        scale = {"k": 1e3, "M": 1e6, "G": 1e9}.get(text[-1], 1.0)
        digits, _, exponent = text.rstrip("kMG").partition("e")
        step = 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2])) * scale
        read = float(text.rstrip("kMG")) * scale
        assert abs(read - value / 10.0**figures.power) <= 0.51 * step


def test_a_factor_is_said_where_there_are_numbers_and_only_there() -> None:
    trace = make_trace(lengths=(12,), layers=4)
    trace["mlp_out_norm"] *= 1e-3
    text = words(sheet_of(heatmap_spec(trace)))
    assert "cells ×10⁻" in text
    assert "4.7 in a cell is " in text
    trace = make_trace(lengths=(60,), layers=30)
    trace["mlp_out_norm"] *= 1e-3
    assert "cells" not in words(sheet_of(heatmap_spec(trace)))


def test_prompts_end_to_end_are_separated_and_named() -> None:
    sheet = sheet_of(heatmap_spec(make_trace(lengths=(12, 12, 12), layers=30), Selection(all_prompts=True)))
    assert {"p0 · critical", "p1 · neutral", "p2 · critical"} <= {text.text for text in sheet.texts()}
    (one,) = sheet.maps()
    paper = palette.theme("light").paper
    tall = [item for item in sheet.items if isinstance(item, Box) and item.fill == paper and item.height == one.height]
    assert len(tall) == 2


def test_footer_says_scale_exclusions_source_and_receipt(trace_of: Factory) -> None:
    text = words(sheet_of(heatmap_spec(trace_of(lengths=(12,) * 4))))
    for part in ("Robust colour limits", "(marked) is left out", "template or special", "org/tiny-model",
                 "0f0e0d0c", "logits bit-identical", "2 of 4 prompts shown", "[L05]", "[L07]", "[L21]"):  # fmt: skip
        assert part in text


@pytest.mark.parametrize(("source", "tag"), [("simulated", "SIMULATED"), ("imported", "IMPORTED")])
def test_what_is_not_recorded_is_tagged_in_the_accent(source: str, tag: str) -> None:
    dataset = make_import() if source == "imported" else make_trace(source=source)
    for spec in (heatmap_spec(dataset), engagement_spec(dataset)):
        (text,) = [text for text in sheet_of(spec).texts() if text.text == tag]
        assert text.colour == palette.theme("light").accent


def test_data_that_do_not_say_where_they_come_from_are_not_called_recorded() -> None:
    dataset = make_trace()
    del dataset.attrs["source"]
    text = words(sheet_of(heatmap_spec(dataset)))
    assert "SOURCE UNKNOWN" in text
    assert "RECORDED" not in text


def test_the_legend_stands_outside_the_map_with_unit_formula_and_shares(trace_of: Factory) -> None:
    sheet = check(heatmap_spec(trace_of()))
    text = words(sheet)
    for part in ("L2 norm", "log scale", "‖W a + b‖₂, the down_proj output", "% below", "% above"):
        assert part in text


def test_pooled_pictures_say_the_factor_and_ring_their_spikes() -> None:
    dataset = make_trace(lengths=(5000,), layers=12, sink=1.0)
    dataset["mlp_out_norm"][4321, 7] = 1e6
    spec = heatmap_spec(dataset)
    sheet = check(spec)
    assert "maximum over 5 of 5,000 tokens" in words(sheet)
    (ring,) = [item for item in sheet.items if isinstance(item, Ring)]
    (one,) = sheet.maps()
    assert (ring.x - one.x) / one.width * 1000 == pytest.approx(4321 // 5 + 0.5)
    assert (one.y + one.height - ring.y) / one.height * 12 == pytest.approx(7.5)


def test_both_themes_put_everything_in_the_same_place(trace_of: Factory) -> None:
    light, dark = (sheet_of(heatmap_spec(trace_of(), look=Look(theme=theme))) for theme in names.THEMES)
    assert [text.extent() for text in light.texts()] == [text.extent() for text in dark.texts()]
    assert not {text.colour for text in light.texts()} & {text.colour for text in dark.texts()}
