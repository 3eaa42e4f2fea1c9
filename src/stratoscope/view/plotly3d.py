"""A `peaks3d` ViewSpec as a Plotly figure: three traces for each scene (stems, peaks, borders between prompts)."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import plotly.graph_objects as go

from stratoscope.view.peaks3d_caption import caption
from stratoscope.view.plotly3d_traces import (
    Columns,
    borders_of,
    empty_traces,
    limits_of,
    peaks_of,
    scene_columns,
    scene_name,
    stems_of,
)
from stratoscope.view.spec import palette
from stratoscope.view.spec.viewspec import ViewSpec
from stratoscope.words import html_label

FONT = "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', 'DejaVu Sans', sans-serif"
CAMERA = {"eye": {"x": 0.4, "y": -2.1, "z": 1.15}, "center": {"x": 0, "y": 0, "z": -0.09}}
CAPTION_WIDTH = 140  # characters
COLOURS = {"light": slice(None, 226, 15), "dark": slice(45, None, 15)}  # lost: yellow on white, navy on black


def figure(spec: ViewSpec) -> go.Figure:
    """The figure of a spec, as a notebook shows it: with title and caption, without the controls of the page."""
    result = frame(spec)
    for scene in range(len(spec.content["scenes"])):
        stems, peaks, borders = result.data[3 * scene : 3 * scene + 3]
        columns = scene_columns(spec, scene)
        stems.update(stems_of(spec, columns))
        peaks.update(peaks_of(spec, columns))
        borders.update(borders_of(spec, scene, columns))
        result.layout[scene_name(scene)].xaxis.update(token_ticks(spec, columns))
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
    return result.update_layout(title=title, height=640, margin={"t": 76, "b": 24 + 15 * len(lines)})


def frame(spec: ViewSpec) -> go.Figure:
    """The figure without its data, title and caption, which a page adds itself."""
    content = spec.content
    limits = limits_of(spec)
    result = go.Figure()
    for scene in range(len(content["scenes"])):
        result.add_traces(empty_traces(spec, scene_name(scene)))
        result.update_layout({scene_name(scene): _scene(spec, scene)})
    low, high = limits["colour"]
    bar = {
        "title": {"text": content["levels"][content["state"]["scale"]]["title"], "side": "right"},
        "thickness": 12,
        "len": 0.7,
        "outlinewidth": 0,
    }
    return result.update_layout(
        template=template(content["state"]["theme"]),
        coloraxis={"cmin": low, "cmax": high, "colorbar": bar | axis_ticks(limits)},
        annotations=[_scene_title(spec, scene) for scene in range(len(content["scenes"]))],
        showlegend=False,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
    )


def template(theme: str) -> dict[str, Any]:
    """Colours and fonts of one theme."""
    colours = palette.theme(theme)
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
    layout = {
        "paper_bgcolor": colours.paper,
        "font": font,
        "dragmode": "turntable",
        "coloraxis": {"autocolorscale": False, "colorscale": _colour_scale(theme)},
        "scene": {"xaxis": axis, "yaxis": axis, "zaxis": axis},
        "hoverlabel": {"bgcolor": colours.paper, "bordercolor": colours.accent, "font": font, "align": "left"},
    }
    trace = {"line": {"color": colours.muted}, "marker": {"line": {"width": 1 if theme == "light" else 0}}}
    return {"layout": layout, "data": {"scatter3d": [trace]}}


def token_ticks(spec: ViewSpec, columns: Columns) -> dict[str, Any]:
    """Labels of evenly sampled tokens, the first and the last among them."""
    tokens = np.unique(columns["token"])
    count = min(len(tokens), max(spec.content["style"]["token_labels"] // len(spec.content["scenes"]), 2))
    sampled = tokens[np.rint(np.linspace(0, len(tokens) - 1, count)).astype(int)] if count else tokens
    labels = [axis_label(spec.content["labels"][token]) for token in sampled]
    return {"tickvals": spec.buffers["token_place"][sampled], "ticktext": labels}


def axis_label(label: str) -> str:
    """A label for the axes of a scene, which know `<b>` but no `&lt;`: an invisible space keeps it from being a tag."""
    return label.replace("<", "<\u200b")


def axis_ticks(limits: dict[str, Any]) -> dict[str, Any]:
    """Ticks of the height and the colour bar."""
    if not limits["ticks"]:
        return {"tickmode": "auto"}
    values, words = zip(*limits["ticks"], strict=True)
    return {"tickmode": "array", "tickvals": list(values), "ticktext": list(words)}


def _colour_scale(theme: str) -> list[list[Any]]:
    colours = palette.hex_colours(palette.sequential()[COLOURS[theme]])
    return [[place, colour] for place, colour in zip(np.linspace(0, 1, len(colours)).tolist(), colours, strict=True)]


def _scene(spec: ViewSpec, scene: int) -> dict[str, Any]:
    count = len(spec.content["scenes"])
    limits = limits_of(spec)
    floor, span = limits["floor"], limits["ceiling"] - limits["floor"]
    layers = spec.content["layers"]
    return {
        "domain": domain(scene, count),
        "camera": CAMERA,
        "aspectmode": "manual",
        "aspectratio": {"x": 1.9 if count == 1 else 1.1, "y": 1, "z": 0.8},
        "xaxis": {"title": {"text": "token"}, "tickangle": -50},
        "yaxis": {"title": {"text": "layer"}, "range": [layers[0] - 0.5, layers[-1] + 0.5]}
        | layer_ticks(layers, spec.content["style"]["layer_labels"]),
        "zaxis": {
            "title": {"text": "height"},
            "range": [floor, floor + span * spec.content["style"]["top"]],
        }
        | axis_ticks(limits),
    }


def domain(scene: int, count: int) -> dict[str, list[float]]:
    """Part of the figure that a scene fills: a row of up to three, else two rows."""
    columns = count if count <= 3 else 2
    rows = -(-count // columns)
    column, row = scene % columns, scene // columns
    return {"x": [column / columns, (column + 1) / columns], "y": [1 - (row + 1) / rows, 1 - row / rows]}


def layer_ticks(layers: list[int], most: int) -> dict[str, Any]:
    """`L12`, evenly sampled, the first and the last layer always among them."""
    step = -(-(len(layers) - 1) // (most - 1)) or 1
    sampled = layers[: -step // 2 or None : step]
    sampled = sampled + layers[-1:] if sampled[-1:] != layers[-1:] else sampled
    return {"tickvals": sampled, "ticktext": [f"L{number}" for number in sampled]}


def _scene_title(spec: ViewSpec, scene: int) -> dict[str, Any]:
    place = domain(scene, len(spec.content["scenes"]))
    words = spec.content["scenes"][scene]
    detail = f"  {html_label(words['detail'])}" if words["detail"] else ""
    return {
        "text": f"<b>{html_label(words['title'])}</b>{detail}",
        "x": place["x"][0] + 0.01,
        "y": place["y"][1],
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "top",
        "showarrow": False,
    }
