"""The traces of a `peaks3d` figure: stems, peaks, borders between prompts. `web/peaks3d.js` fills them on a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from stratoscope.view.peaks3d_levels import level
from stratoscope.view.spec.viewspec import ViewSpec
from stratoscope.words import html_label, number, times

OUTLINE = [[0, "rgba(0,0,0,0)"], [0.3, "rgba(0,0,0,0)"], [1, "rgba(0,0,0,0.6)"]]  # of the high ones

Columns = dict[str, NDArray[Any]]


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


def empty_traces(spec: ViewSpec, scene: str) -> list[go.Scatter3d]:
    """The three traces of a scene, without their data."""
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


def stems_of(spec: ViewSpec, columns: Columns) -> dict[str, Any]:
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


def peaks_of(spec: ViewSpec, columns: Columns) -> dict[str, Any]:
    """A marker for each peak, with what its card says."""
    buffers, content = spec.buffers, spec.content
    hover = [
        [
            html_label(content["labels"][token]),
            int(buffers["token_position"][token]),
            html_label(content["prompts"][buffers["token_prompt"][token]]),
            neuron_name(buffers, peak),
            number(buffers["peak_value"][peak]),
            number(buffers["peak_write"][peak]),
            int(layer),
            f"<br>{times(ratio)} the top of the scale" if above else "",
        ]
        for token, peak, layer, ratio, above in zip(
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


def neuron_name(buffers: Mapping[str, np.ndarray], peak: int) -> int | str:
    """A neuron's number, with that of its expert where it has one; as `neuronName` in peaks3d.js."""
    expert, neuron = int(buffers["peak_expert"][peak]), int(buffers["peak_neuron"][peak])
    return neuron if expert < 0 else f"{neuron} of expert {expert}"


def hover_template(spec: ViewSpec) -> str:
    """What is said about a peak; the fields are those of `peaks_of`."""
    imported = spec.facts["quantity"]["name"] == "imported_norm"
    value = ["activation %{customdata[4]}", "write norm %{customdata[5]}"]
    if imported:
        value = ["Activation_Norm %{customdata[4]}"]
    head = ["<b>%{customdata[0]}</b>", "position %{customdata[1]} · %{customdata[2]}"]
    place = [f"L%{{customdata[6]}} · {spec.content['index']} %{{customdata[3]}}"]
    return "<br>".join([*head, *place, *value]) + "%{customdata[7]}<extra></extra>"


def borders_of(spec: ViewSpec, scene: int, columns: Columns) -> dict[str, Any]:
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
