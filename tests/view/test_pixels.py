"""What really lands on the page, pixel by pixel."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text as Drawn
from numpy.typing import NDArray
from PIL import Image
from sheets import words
from view_traces import Factory, make_trace

from drawn_maps import colouring, maps_of, sheet_of
from stratoscope import names
from stratoscope.view.maps.heatmap import heatmap, heatmap_of_array, heatmap_spec
from stratoscope.view.matplotlib.draw import draw
from stratoscope.view.matplotlib.save import picture_bytes
from stratoscope.view.sheet import measures
from stratoscope.view.sheet.items import DPI, Sheet
from stratoscope.view.spec import palette
from stratoscope.view.spec.look import Look


def _levels(*, signed: bool) -> np.ndarray:
    return np.array([palette.rgb_of(colour) for colour in palette.COLOURS.of(signed=signed)]) * 255


def pixels(figure: Figure) -> NDArray[np.int64]:
    return np.asarray(Image.open(io.BytesIO(picture_bytes(figure, ".png", "{}"))).convert("RGB")).astype(int)


def cell_colours(sheet: Sheet, picture: NDArray[np.int64], place: int, rows: int) -> NDArray[np.int64]:
    """The colour near the lower left corner of each cell (columns, rows), clear of figures and lines."""
    one = sheet.maps()[place]
    columns = one.stop - one.start
    x = (one.x + (np.arange(columns) + 0.2) * one.width / columns) * DPI
    y = (one.y + one.height - (np.arange(rows) + 0.2) * one.height / rows) * DPI
    return picture[y.astype(int)[None, :], x.astype(int)[:, None]]


@pytest.mark.parametrize("theme", names.THEMES)
@pytest.mark.parametrize("quantity", ["mlp_out_norm", "mlp_write_cos"])
def test_every_cell_has_the_colour_of_its_value(trace_of: Factory, quantity: str, theme: names.Theme) -> None:
    trace = trace_of(lengths=(12, 9), layers=7, quantities=(quantity,))
    spec = heatmap_spec(trace, look=Look(theme=theme), quantity=quantity)
    picture, sheet = pixels(draw(spec)), sheet_of(spec)
    limits = colouring(spec).limits
    colours = _levels(signed=maps_of(spec).quantities[0].quantity.signed)
    for place in (0, 1):
        units = limits.unit(maps_of(spec).maps[place].cells["without_first"]).clip(0, 1)
        expected = colours[np.minimum((units * 256).astype(int), 255)]
        found = cell_colours(sheet, picture, place, 7)
        assert np.abs(found - expected).max() <= 3


@pytest.mark.parametrize("quantity", ["mlp_out_norm", "mlp_write_cos"])
def test_infinite_cells_have_the_colours_of_the_ends_and_not_that_of_missing_ones(
    trace_of: Factory, quantity: str
) -> None:
    trace = trace_of(lengths=(12, 9), layers=7, quantities=(quantity,))
    values = trace[quantity].values.copy()
    values[3, 2], values[5, 4] = np.inf, -np.inf
    spec = heatmap_spec(trace.assign({quantity: (trace[quantity].dims, values)}), quantity=quantity)
    picture, sheet = pixels(draw(spec)), sheet_of(spec)
    ends = _levels(signed=maps_of(spec).quantities[0].quantity.signed)[[-1, 0]]
    found = cell_colours(sheet, picture, 0, 7)
    assert np.abs(found[[3, 5], [2, 4]] - ends).max() <= 3


def test_all_20_spikes_of_one_cell_in_100000_by_128_are_visible() -> None:
    rng = np.random.default_rng(0)
    values = rng.lognormal(size=(100_000, 128)).astype(np.float32)
    places = [(int(rng.integers(1, 100_000)), int(rng.integers(128))) for _ in range(20)]
    noise = pixels(heatmap_of_array(values, log=True))
    for token, layer in places:
        values[token, layer] = 3_000
    figure = heatmap_of_array(values, log=True)
    spiked, (axes,) = pixels(figure), figure.axes
    assert spiked.shape[1] == noise.shape[1]  # the footer, which names the outliers, may be a line longer
    assert "20 outliers" in " ".join(text.get_text() for text in figure.texts)
    box = axes.get_position()
    height, width, _ = spiked.shape
    ring = palette.rgb_of(palette.theme("light").ring) * 255
    for token, layer in places:
        x = (box.x0 + box.width * (token // 84 + 0.5) / 1191) * width
        y = height - (box.y0 + box.height * (layer + 0.5) / 128) * height
        window = (slice(max(int(y) - 7, 0), int(y) + 8), slice(max(int(x) - 7, 0), int(x) + 8))
        ringed = np.abs(spiked[window] - ring).max(axis=2) < 40
        assert ringed.sum() >= 9, f"spike at token {token}, layer {layer}: {ringed.sum()} pixels"
        assert (np.abs(noise[window] - ring).max(axis=2) < 40).sum() == 0


def test_the_last_layer_and_the_last_token_survive_pooling() -> None:
    values = np.ones((5_001, 128), np.float32)
    values[-1, -1] = 1_000
    figure = heatmap_of_array(values, log=True, first=())
    box, picture = figure.axes[0].get_position(), pixels(figure)
    height, width, _ = picture.shape
    corner = picture[round((1 - box.y1) * height) + 2, round(box.x1 * width) - 1]
    assert np.abs(corner - np.rint(palette.sequential()[-1] * 255)).max() <= 3


@pytest.mark.parametrize("lengths", [(13, 13), (56, 56), (5_000,)])
def test_texts_are_drawn_where_the_sheet_says(lengths: tuple[int, ...]) -> None:
    spec = heatmap_spec(make_trace(lengths=lengths, layers=30))
    sheet, figure = sheet_of(spec), draw(spec)
    picture_bytes(figure, ".png", "{}")
    figure.set_dpi(DPI)
    figure.draw_without_rendering()
    drawn = [text for text in figure.findobj(Drawn) if text.get_text() and text.get_visible()]
    found = sorted((text.get_text(), *text.get_window_extent().extents / DPI) for text in drawn)
    planned = sorted(
        (text.text, left, sheet.height - bottom, right, sheet.height - top)
        for text in sheet.texts()
        for left, top, right, bottom in [text.extent()]
    )
    assert [one[0] for one in found] == [one[0] for one in planned]
    beyond = (np.array([one[1:] for one in found]) - np.array([one[1:] for one in planned])) * [-1, -1, 1, 1]
    assert beyond.max() < 0.035, f"drawn {beyond.max():.3f} inches beyond its place"
    assert beyond.min() > -0.12, f"drawn {-beyond.min():.3f} inches short of its place"


def test_nothing_is_drawn_on_the_margins(trace_of: Factory) -> None:
    for dataset in (trace_of(), trace_of(lengths=(1,)), trace_of(lengths=(5_000,))):
        picture = pixels(heatmap(dataset))
        edge = int(0.15 * DPI)
        for strip in (picture[:edge], picture[-edge:], picture[:, :edge], picture[:, -edge:]):
            assert (strip == 255).all()


def test_no_line_of_the_footer_runs_past_its_rule_at_whatever_size_it_is_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for size in (5.6, 9.6):  # where glyphs fitted to pixels would be widest
        monkeypatch.setattr(measures, "SLIDE", replace(measures.SLIDE, note=size))
        notes = [{"id": "L16", "severity": kind, "text": "So many words of it. " * 40} for kind in ("warning", "info")]
        figure = draw(heatmap_spec(make_trace(lengths=(12,), notes=notes)))
        paper = palette.rgb_of(palette.theme("light").paper) * 255
        right = pixels(figure)[-int(0.5 * size * DPI) :, -int(0.33 * DPI) :]
        assert np.abs(right - paper).max() < 5


def test_missing_cells_are_grey_and_no_colour_of_the_map(trace_of: Factory) -> None:
    dataset = trace_of(lengths=(12,), layers=6)
    dataset["mlp_out_norm"][5, 2] = np.nan
    spec = heatmap_spec(dataset)
    found = cell_colours(sheet_of(spec), pixels(draw(spec)), 0, 6)[5, 2]
    assert found.max() - found.min() < 14
    assert np.abs(palette.sequential() * 255 - found).max(axis=1).min() > 30
    assert "which is not zero" in words(sheet_of(spec))
