"""A `peaks3d` ViewSpec as a Plotly figure: three traces for each scene (stems, peaks, borders between prompts)."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from stratoscope.trace.arrays import Ints
from stratoscope.view.peaks3d.caption import caption, peaks_in
from stratoscope.view.peaks3d.traces import (
    Drawn,
    drawn_in,
    empty_traces,
    fill_borders,
    fill_peaks,
    fill_stems,
    heights_of,
    scene_name,
)
from stratoscope.view.sheet.fonts import has_glyph
from stratoscope.view.spec.palette import Colours
from stratoscope.view.spec.peaks import Heights, Scene
from stratoscope.view.spec.viewspec import ViewSpec
from stratoscope.words import drawable, html_label

FONT = "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', 'DejaVu Sans', sans-serif"
CAMERA = {"eye": {"x": 0.4, "y": -2.1, "z": 1.15}, "center": {"x": 0, "y": 0, "z": -0.09}}
CAPTION_WIDTH = 140  # characters
COLOURS = {"light": slice(None, 226, 15), "dark": slice(45, None, 15)}  # lost: yellow on white, navy on black


def figure(spec: ViewSpec) -> go.Figure:
    """The figure of a spec, as a notebook shows it: with title and caption, without the controls of the page."""
    result = frame(spec)
    for scene in range(len(peaks_in(spec).scenes)):
        stems, peaks, borders = result.data[3 * scene : 3 * scene + 3]
        drawn = drawn_in(spec, scene)
        fill_stems(stems, spec, drawn)
        fill_peaks(peaks, spec, drawn)
        fill_borders(borders, spec, drawn)
        set_token_ticks(result.layout[scene_name(scene)].xaxis, spec, drawn)
    lines = [html_label(part) for line in caption(spec) for part in textwrap.wrap(line, CAPTION_WIDTH)]
    result.add_annotation(
        {"text": "<br>".join(lines), "font": {"size": 11}, "align": "left", "showarrow": False},
        xref="paper",
        yref="paper",
        x=0.01,
        y=0,
        yshift=-8,
        xanchor="left",
        yanchor="top",
    )
    title = {"text": html_label(spec.title), "subtitle": {"text": html_label(spec.subtitle)}, "x": 0.01}
    return result.update_layout(
        title=title, dragmode="turntable", height=640, margin={"t": 76, "b": 24 + 15 * len(lines)}
    )


def frame(spec: ViewSpec) -> go.Figure:
    """The figure without its data, title and caption, which a page adds itself."""
    peaks, heights = peaks_in(spec), heights_of(spec)
    result = go.Figure()
    for place, scene in enumerate(peaks.scenes):
        result.add_traces(empty_traces(spec, scene_name(place)))
        result.update_layout({scene_name(place): _scene(spec, place)})
        result.add_annotation(_scene_title(scene, domain(place, len(peaks.scenes))))
    result.update_layout(
        template=template(spec.look.theme, spec.colours).to_plotly_json(),  # what it does not say is Plotly's own
        coloraxis={"cmin": heights.low, "cmax": heights.high},
        showlegend=False,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
    )
    bar = result.layout.coloraxis.colorbar
    bar.title = {"text": peaks.scales[spec.look.scale].title, "side": "right"}
    bar.thickness, bar.len, bar.outlinewidth = 12, 0.7, 0
    _set_ticks(bar, heights)
    return result


def template(theme: str, palette: Colours) -> go.layout.Template:
    """Colours and fonts of one theme."""
    colours = palette.themes[theme]
    axis = {
        "gridcolor": colours.line,
        "linecolor": colours.muted,
        "zerolinecolor": colours.line,
        "showbackground": False,
        "spikecolor": colours.accent,
        "spikethickness": 1,
        "spikesides": False,
        "tickfont": {"size": 11, "color": colours.muted},
        "title": {"font": {"size": 12, "color": colours.ink}},
    }
    font = {"family": FONT, "color": colours.ink, "size": 13}
    layout = go.Layout(
        paper_bgcolor=colours.paper,
        font=font,
        coloraxis={"autocolorscale": False, "colorscale": palette.sequential[COLOURS[theme]]},
        scene={"xaxis": axis, "yaxis": axis, "zaxis": axis},
        hoverlabel={"bgcolor": colours.paper, "bordercolor": colours.accent, "font": font, "align": "left"},
    )
    trace = go.Scatter3d(line={"color": colours.muted}, marker={"line": {"width": 0}})
    return go.layout.Template(layout=layout, data={"scatter3d": [trace]})


def set_token_ticks(axis: go.layout.scene.XAxis, spec: ViewSpec, drawn: Drawn) -> None:
    """Labels of evenly sampled tokens, the first and the last among them."""
    peaks = peaks_in(spec)
    tokens = sampled(np.unique(drawn.token), peaks.style.token_labels)
    axis.tickvals = peaks.token_place[tokens]
    axis.ticktext = [axis_label(drawable(spec.tokens.text[token], has_glyph)) for token in tokens]


def sampled(tokens: Ints, most: int) -> Ints:
    """At most so many tokens, evenly spread, the first and the last among them."""
    count = min(len(tokens), most)
    return tokens[np.rint(np.linspace(0, len(tokens) - 1, count)).astype(int)] if count else tokens


def axis_label(label: str) -> str:
    """A label for the axes of a scene, which know `<b>` but no `&lt;`: an invisible space keeps it from being a tag."""
    return label.replace("<", "<\u200b")


def _set_ticks(axis: go.layout.scene.ZAxis | go.layout.coloraxis.ColorBar, heights: Heights) -> None:
    """Ticks of the height or the colour bar."""
    axis.tickmode = "array" if heights.ticks else "auto"
    if heights.ticks:
        axis.tickvals, axis.ticktext = zip(*heights.ticks, strict=True)


def _scene(spec: ViewSpec, place: int) -> go.layout.Scene:
    peaks, heights = peaks_in(spec), heights_of(spec)
    count, layers = len(peaks.scenes), peaks.layers
    numbers, labels = layer_ticks(layers, peaks.style.layer_labels)
    across, up = domain(place, count)
    scene = go.layout.Scene(
        domain={"x": across, "y": up},
        camera=CAMERA,
        aspectmode="manual",
        aspectratio={"x": 1.9 if count == 1 else 1.1, "y": 1, "z": 0.8},
        xaxis={"title": {"text": "token"}, "tickangle": -50},
        yaxis={
            "title": {"text": "layer"},
            "range": [layers[0] - 0.5, layers[-1] + 0.5],
            "tickvals": numbers,
            "ticktext": labels,
        },
        zaxis={
            "title": {"text": peaks.scales[spec.look.scale].title},
            "range": [heights.floor, heights.floor + (heights.ceiling - heights.floor) * peaks.style.top],
        },
    )
    _set_ticks(scene.zaxis, heights)
    return scene


def domain(place: int, count: int) -> tuple[list[float], list[float]]:
    """Part of the figure that a scene fills, across and upwards: a row of up to three, else two rows."""
    columns = count if count <= 3 else 2
    rows = -(-count // columns)
    column, row = place % columns, place // columns
    return [column / columns, (column + 1) / columns], [1 - (row + 1) / rows, 1 - row / rows]


def layer_ticks(layers: Sequence[int], most: int) -> tuple[list[int], list[str]]:
    """`L12`, evenly sampled, the first and the last layer always among them."""
    step = -(-(len(layers) - 1) // (most - 1)) or 1
    sampled = [*layers[:-step:step]]
    sampled += [layers[-1]] if sampled[-1:] != [layers[-1]] else []
    return sampled, [f"L{number}" for number in sampled]


def _scene_title(scene: Scene, place: tuple[list[float], list[float]]) -> go.layout.Annotation:
    across, up = place
    detail = f"  {html_label(scene.detail)}" if scene.detail else ""
    return go.layout.Annotation(
        text=f"<b>{html_label(scene.title)}</b>{detail}",
        x=across[0] + 0.01,
        y=up[1],
        xref="paper",
        yref="paper",
        xanchor="left",
        yanchor="top",
        showarrow=False,
    )
