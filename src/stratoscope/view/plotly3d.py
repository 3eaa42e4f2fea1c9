"""A `peaks3d` ViewSpec as a Plotly figure: three traces for each scene (stems, peaks, borders between prompts)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.view import palette
from stratoscope.view.footer import source
from stratoscope.view.peaks3d_levels import level
from stratoscope.view.spec import ViewSpec
from stratoscope.view.tokens import html_label

FONT = "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', 'DejaVu Sans', sans-serif"
CAMERA = {"eye": {"x": 0.25, "y": -1.5, "z": 0.8}, "center": {"x": 0, "y": 0, "z": -0.12}}
TAGS = {names.SIMULATED: "SIMULATED", names.IMPORTED: "IMPORTED", names.REAL: "RECORDED"}
OUTLINE = [[0, "rgba(0,0,0,0)"], [0.3, "rgba(0,0,0,0)"], [1, "rgba(0,0,0,0.6)"]]  # of the high ones
COLOURS = {"light": slice(None, 226, 15), "dark": slice(45, None, 15)}  # lost: yellow on white, navy on black

Columns = dict[str, NDArray[Any]]


def figure(spec: ViewSpec) -> go.Figure:
    """The figure of a spec, as a notebook shows it: with title and caption, without the controls of the page."""
    result = frame(spec)
    for scene in range(len(spec.content["scenes"])):
        stems, peaks, borders = result.data[3 * scene : 3 * scene + 3]
        columns = scene_columns(spec, scene)
        stems.update(_stems(spec, columns))
        peaks.update(_peaks(spec, columns))
        borders.update(_borders(spec, scene, columns))
        result.layout[scene_name(scene)].xaxis.update(token_ticks(spec, columns))
    caption = {"text": caption_text(spec), "x": 0, "y": 0, "yshift": -8, "yanchor": "top", "align": "left"}
    result.add_annotation(caption | {"xref": "paper", "yref": "paper", "xanchor": "left", "showarrow": False})
    title = f"{html_label(spec.title)}<br><sub>{html_label(spec.subtitle)}</sub>"
    return result.update_layout(title={"text": title, "x": 0.01}, margin={"t": 72, "b": 84})


def frame(spec: ViewSpec) -> go.Figure:
    """The figure without its data, title and caption, which a page adds itself."""
    content = spec.content
    limits = limits_of(spec)
    result = go.Figure()
    for scene in range(len(content["scenes"])):
        result.add_traces(_empty_traces(spec, scene_name(scene)))
        result.update_layout({scene_name(scene): _scene(spec, scene)})
    low, high = limits["colour"]
    bar = {"title": {"text": limits["title"], "side": "right"}, "thickness": 12, "len": 0.7, "outlinewidth": 0}
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


def limits_of(spec: ViewSpec) -> dict[str, Any]:
    """Limits of the scale that the picture starts with."""
    state = spec.content["state"]
    limits: dict[str, Any] = spec.content["levels"][state["scale"]][
        "with_first" if state["first_token"] else "without_first"
    ]
    return limits


def scene_name(scene: int) -> str:
    """Plotly's name of a scene: scene, scene2, scene3, …"""
    return f"scene{scene + 1 if scene else ''}"


def scene_columns(spec: ViewSpec, scene: int) -> Columns:
    """Coordinates and attributes of the peaks of one scene, of shape (peaks,), tokens in reading order."""
    buffers, limits = spec.buffers, limits_of(spec)
    here = np.flatnonzero(buffers["token_scene"][buffers["peak_token"]] == scene)
    token, layer = buffers["peak_token"][here], buffers["peak_layer"][here].astype(np.int64)
    height = buffers["peak_height"][here].astype(np.float64)
    scale, style = spec.content["state"]["scale"], spec.content["style"]
    value = level(height, layer, scale, limits)
    floor, ceiling = limits["floor"], limits["ceiling"]
    times = 10 ** (value - ceiling) if scale == "log" else value / ceiling
    above = value > ceiling + style["tolerance"] * (ceiling - floor)
    share = np.clip((value - floor) / (ceiling - floor), 0, 1)
    rise = style["rise"] * np.clip(np.log10(np.maximum(times, 1)) / 4, 0, 1)
    small, large = style["sizes"]
    return {
        "peak": here,
        "token": token,
        "x": buffers["token_place"][token],
        "y": layer,
        "z": floor + (ceiling - floor) * np.where(above, style["roof"] + rise, share),
        "floor": np.full(len(here), floor),
        "level": value,
        "size": small + (large - small) * np.sqrt(share),
        "above": above,
        "times": times,
    }


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


def hover_template(spec: ViewSpec) -> str:
    """What is said about a peak; the fields are those of `_peaks`."""
    imported = spec.facts["quantity"]["name"] == "imported_norm"
    value = (
        ["Activation_Norm %{customdata[4]:.6g}"]
        if imported
        else [
            "activation %{customdata[4]:+.4g}",
            "write norm %{customdata[5]:.4g}",
        ]
    )
    head = ["<b>%{customdata[0]}</b>", "position %{customdata[1]} · %{customdata[2]}"]
    place = [f"L%{{customdata[6]}} · {spec.content['index']} %{{customdata[3]}}"]
    return "<br>".join([*head, *place, *value]) + "%{customdata[7]}<extra></extra>"


def caption_text(spec: ViewSpec) -> str:
    """Caption of the figure: how many peaks of how many, the notes, where the numbers come from."""
    lines = [f"{spec.facts['shown']:,} of {spec.facts['total']:,} peaks. {height_words(spec.facts)}"]
    lines += [f"{note.text} [{note.id}]" for note in spec.notes]
    lines += [f"{TAGS[spec.provenance.source]} {source(spec.provenance)}"]
    return "<br>".join(html_label(line) for line in lines)


def height_words(facts: Mapping[str, Any]) -> str:
    """What the height is, and how the drawn peaks were chosen."""
    quantity, run = facts["quantity"], facts["tokens_per_cell"]
    words = [f"Height: {quantity['label']}, {quantity['formula']}."]
    if run > 1:
        words.append(f"Drawn: the highest of every {run:,} tokens and layer, and the next highest of all.")
    elif facts["shown"] < facts["total"]:
        words.append("Drawn: the highest of every token and layer, and the next highest of all.")
    if facts["threshold"] > 0:
        words.append(f"Peaks below {facts['threshold']:g} are left out.")
    return " ".join(words)


def _colour_scale(theme: str) -> list[list[Any]]:
    colours = palette.hex_colours(palette.sequential()[COLOURS[theme]])
    return [[place, colour] for place, colour in zip(np.linspace(0, 1, len(colours)).tolist(), colours, strict=True)]


def _empty_traces(spec: ViewSpec, scene: str) -> list[go.Scatter3d]:
    low, high = limits_of(spec)["colour"]
    outline = {"colorscale": OUTLINE, "cmin": low, "cmax": high}
    return [
        go.Scatter3d(
            scene=scene,
            mode="lines",
            hoverinfo="skip",
            line={"width": 1.5},
            opacity=spec.content["style"]["stem_opacity"],
        ),
        go.Scatter3d(
            scene=scene,
            mode="markers",
            hovertemplate=hover_template(spec),
            marker={"coloraxis": "coloraxis", "opacity": 1, "line": outline},
        ),
        go.Scatter3d(scene=scene, mode="lines", hoverinfo="skip", line={"width": 1}),
    ]


def _scene(spec: ViewSpec, scene: int) -> dict[str, Any]:
    count = len(spec.content["scenes"])
    limits = limits_of(spec)
    floor, span = limits["floor"], limits["ceiling"] - limits["floor"]
    layers = spec.content["layers"]
    return {
        "domain": domain(scene, count),
        "camera": CAMERA,
        "aspectmode": "manual",
        "aspectratio": {"x": 1.9 if count == 1 else 1.4, "y": 1.0, "z": 0.7},
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


def _stems(spec: ViewSpec, columns: Columns) -> dict[str, Any]:
    """A line from the floor to the highest peak of each token and layer (of a cell, the highest comes first)."""
    cell = columns["token"].astype(np.int64) * (max(spec.content["layers"]) + 1) + columns["y"]
    top = np.flatnonzero(np.diff(cell, prepend=-1))
    level = columns["level"][top]
    most = spec.content["style"]["stems"]
    if len(top) > most:
        top = top[level > np.partition(level, -most - 1)[-most - 1]]
    x, y, z, floor = (columns[name][top].astype(float) for name in ("x", "y", "z", "floor"))
    gap = np.full(len(top), np.nan)
    joined = [np.stack(ends, axis=1).ravel() for ends in ([x, x, gap], [y, y, gap], [floor, z, gap])]
    return dict(zip("xyz", joined, strict=True))


def _peaks(spec: ViewSpec, columns: Columns) -> dict[str, Any]:
    buffers, content = spec.buffers, spec.content
    hover = [
        [
            html_label(content["labels"][token]),
            int(buffers["token_position"][token]),
            html_label(content["prompts"][buffers["token_prompt"][token]]),
            int(buffers["peak_neuron"][peak]),
            float(buffers["peak_value"][peak]),
            float(buffers["peak_write"][peak]),
            int(layer),
            f"<br>×{times:.1f} the top of the scale" if above else "",
        ]
        for token, peak, layer, times, above in zip(
            *(columns[name] for name in ("token", "peak", "y", "times", "above")), strict=True
        )
    ]
    marker = {
        "color": columns["level"],
        "size": columns["size"],
        "line": {"color": columns["level"]},
        "symbol": np.where(columns["above"], "diamond-open", "circle"),
    }
    return {"x": columns["x"], "y": columns["y"], "z": columns["z"], "marker": marker, "customdata": hover}


def _borders(spec: ViewSpec, scene: int, columns: Columns) -> dict[str, Any]:
    """Lines on the floor between the prompts of a scene."""
    tokens = np.unique(columns["token"])
    prompt, place = spec.buffers["token_prompt"][tokens], spec.buffers["token_place"][tokens]
    edge = place[np.flatnonzero(np.diff(prompt)) + 1] - 0.5
    layers, floor = spec.content["layers"], limits_of(spec)["floor"]
    gap = np.full(len(edge), np.nan)
    low, high = np.full(len(edge), layers[0] - 0.5), np.full(len(edge), layers[-1] + 0.5)
    return {
        "x": np.stack([edge, edge, gap], axis=1).ravel(),
        "y": np.stack([low, high, gap], axis=1).ravel(),
        "z": np.stack([np.full(len(edge), floor), np.full(len(edge), floor), gap], axis=1).ravel(),
    }
