"""The traces of a `peaks3d` figure: stems, peaks, borders between prompts. `web/peaks3d.js` fills them on a page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from stratoscope.trace.arrays import AnyFloats, Ints
from stratoscope.view.peaks3d.caption import peaks_in
from stratoscope.view.sheet.fonts import drawn as drawn_line
from stratoscope.view.sheet.fonts import has_glyph
from stratoscope.view.spec.peaks import Heights, Peaks
from stratoscope.view.spec.viewspec import ViewSpec
from stratoscope.words import drawable, html_label, number, times

SEEN = 0.99  # what is not quite opaque is painted in the order of the data, whatever is nearer


def heights_of(spec: ViewSpec) -> Heights:
    """How high the peaks stand as the picture starts."""
    return peaks_in(spec).heights(spec.look)


def scene_name(scene: int) -> str:
    """Plotly's name of a scene: scene, scene2, scene3, …"""
    return f"scene{scene + 1 if scene else ''}"


def empty_traces(spec: ViewSpec, scene: str) -> list[go.Scatter3d]:
    """The three traces of a scene, without their data."""
    lines = {"scene": scene, "mode": "lines", "hoverinfo": "skip"}
    return [
        go.Scatter3d(lines, line={"width": 1.5}, opacity=peaks_in(spec).style.stem_opacity),
        go.Scatter3d(
            scene=scene,
            mode="markers",
            hovertemplate=hover_template(peaks_in(spec)),
            marker={"coloraxis": "coloraxis", "opacity": SEEN},
        ),
        go.Scatter3d(lines, line={"width": 1}),
    ]


@dataclass(frozen=True, eq=False)
class Drawn:
    """The peaks of one scene where they are drawn, the lowest first; arrays of shape (peaks,).

    Plotly paints them in this order (see `SEEN`), so that no low peak covers a high one. Seen from above
    that is also right in space: of two that are seen in one place, the nearer is the higher.

    Attributes
    ----------
    peak, token
        Which, and rows in the table of tokens.
    x, y, z
        Where they end.
    """

    peak: Ints
    token: Ints
    x: Ints
    y: Ints
    z: AnyFloats


def drawn_in(spec: ViewSpec, scene: int) -> Drawn:
    """The peaks of a scene."""
    peaks = peaks_in(spec)
    here = np.flatnonzero(peaks.token_scene[peaks.token] == scene)
    here = here[np.argsort(heights_of(spec).place[here], kind="stable")]
    token = peaks.token[here].astype(np.int64)
    x, y = peaks.token_place[token].astype(np.int64), peaks.layer[here].astype(np.int64)
    return Drawn(here, token, x, y, heights_of(spec).place[here])


def fill_stems(trace: go.Scatter3d, spec: ViewSpec, drawn: Drawn) -> None:
    """A line from the floor to the highest peak of each token and layer."""
    peaks = peaks_in(spec)
    top = np.flatnonzero(peaks.highest[drawn.peak])
    if len(top) > peaks.style.stems:
        z = drawn.z[top]
        top = top[z > np.partition(z, -peaks.style.stems - 1)[-peaks.style.stems - 1]]
    floor, gap = np.full(len(top), heights_of(spec).floor), np.full(len(top), np.nan)
    trace.x, trace.y, trace.z = (
        np.stack(ends, axis=1).ravel()
        for ends in ([drawn.x[top]] * 2 + [gap], [drawn.y[top]] * 2 + [gap], [floor, drawn.z[top], gap])
    )


def fill_peaks(trace: go.Scatter3d, spec: ViewSpec, drawn: Drawn) -> None:
    """A marker for each peak, with what its card says."""
    peaks, tokens, heights = peaks_in(spec), spec.tokens, heights_of(spec)
    ratios = dict(zip(heights.beyond.tolist(), heights.times.tolist(), strict=True))
    share = np.clip((drawn.z.astype(np.float64) - heights.floor) / (heights.ceiling - heights.floor), 0, 1)
    trace.x, trace.y, trace.z = drawn.x, drawn.y, drawn.z
    trace.marker.color = drawn.z
    trace.marker.size = peaks.style.smallest + (peaks.style.largest - peaks.style.smallest) * np.sqrt(share)
    trace.marker.symbol = np.where(np.isin(drawn.peak, heights.beyond), "diamond-open", "circle")
    write = peaks.write if len(peaks.write) else np.full(len(peaks.token), np.nan)
    labels = {token: html_label(drawable(tokens.text[token], has_glyph)) for token in np.unique(drawn.token).tolist()}
    prompts = [html_label(drawn_line(prompt.id)) for prompt in tokens.prompts]
    trace.customdata = [
        [
            labels[token],
            int(tokens.position[token]),
            prompts[tokens.prompt[token]],
            neuron_name(peaks, peak),
            number(peaks.value[peak]),
            number(write[peak]),
            int(peaks.layer[peak]),
            f"<br>{times(ratios[peak])} the top of the scale" if peak in ratios else "",
        ]
        for token, peak in zip(drawn.token.tolist(), drawn.peak.tolist(), strict=True)
    ]


def neuron_name(peaks: Peaks, peak: int) -> int | str:
    """A neuron's number, with that of its expert where it has one; as `neuronName` in peaks3d.js."""
    neuron = int(peaks.neuron[peak])
    has_expert = len(peaks.expert) and peaks.expert[peak] >= 0
    return f"{neuron} of expert {peaks.expert[peak]}" if has_expert else neuron


def hover_template(peaks: Peaks) -> str:
    """What is said about a peak; the fields are those of `fill_peaks`."""
    value = ["activation %{customdata[4]}", "write norm %{customdata[5]}"]
    if peaks.quantity.name == "imported_norm":
        value = ["Activation_Norm %{customdata[4]}"]
    head = ["<b>%{customdata[0]}</b>", "position %{customdata[1]} · %{customdata[2]}"]
    place = [f"L%{{customdata[6]}} · {peaks.index} %{{customdata[3]}}"]
    return "<br>".join([*head, *place, *value]) + "%{customdata[7]}<extra></extra>"


def fill_borders(trace: go.Scatter3d, spec: ViewSpec, drawn: Drawn) -> None:
    """Lines on the floor between the prompts of a scene."""
    peaks, tokens = peaks_in(spec), np.unique(drawn.token)
    edge = peaks.token_place[tokens][np.flatnonzero(np.diff(spec.tokens.prompt[tokens])) + 1] - 0.5
    floor, gap = np.full(len(edge), heights_of(spec).floor), np.full(len(edge), np.nan)
    ends = [np.full(len(edge), peaks.layers[0] - 0.5), np.full(len(edge), peaks.layers[-1] + 0.5)]
    trace.x, trace.y, trace.z = (
        np.stack([*line, gap], axis=1).ravel() for line in ([edge, edge], ends, [floor, floor])
    )
