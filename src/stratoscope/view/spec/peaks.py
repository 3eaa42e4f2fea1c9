"""Peaks of tokens × layers in three dimensions, as a ViewSpec holds them: which, where, how high on every scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from stratoscope import names
from stratoscope.view.spec.buffers import Flags, Indices, Numbers
from stratoscope.view.spec.document import Json
from stratoscope.view.spec.look import FirstTokens, Look
from stratoscope.view.spec.maps import DrawnQuantity


@dataclass(frozen=True)
class Scene:
    """One picture in space: a prompt, or several end to end; and the words above it.

    Attributes
    ----------
    title, detail
        What stands above it.
    """

    title: str
    detail: str


@dataclass(frozen=True, eq=False)
class Heights:
    """How high each peak stands and in which colour, on one scale.

    Attributes
    ----------
    place
        Where each peak ends on the axis of heights, which is also what is coloured: from `floor` to `ceiling`, a little
        above that where it is beyond it, [peak].
    beyond
        Peaks that are beyond the ceiling, ascending.
    times
        How many times the ceiling each of them is.
    floor, ceiling
        Ends of the axis.
    low, high
        Ends of the colours.
    ticks
        (place, label) of each; none = round numbers.
    """

    place: Numbers
    beyond: Indices
    times: Numbers
    floor: float
    ceiling: float
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class PeakScale:
    """A scale of the heights.

    Attributes
    ----------
    title
        What its axis and its colour bar show.
    words
        What it does.
    heights
        With first tokens in the limits and without.
    """

    title: str
    words: str
    heights: Mapping[FirstTokens, Heights]


@dataclass(frozen=True)
class PeakStyle:
    """Numbers that every renderer draws by.

    Attributes
    ----------
    smallest, largest
        Pixels of the lowest and the highest peak.
    top
        Where the axis of heights ends, the ceiling being 1.
    stems, stem_opacity
        Of each scene at most so many stems, on the highest peaks.
    token_labels, layer_labels
        At most so many labels in a scene.
    """

    smallest: float
    largest: float
    top: float
    stems: int
    stem_opacity: float
    token_labels: int
    layer_labels: int


@dataclass(frozen=True, eq=False)
class PeakComparison:
    """Two prompts laid on each other, equal token on equal token: the second minus the first, neuron by neuron.

    Attributes
    ----------
    a, b
        What the two prompts are called.
    column
        Where each token of the picture's table stands, [token].
    equal
        1 where the other prompt has the same token there, [token].
    peak
        A drawn peak of each difference, of `a` where both lists name the neuron, [difference].
    listed
        0 where both lists name the neuron, 1 only that of `a`, 2 only that of `b`, [difference].
    difference
        b − a; of a neuron that only one list names, its own height there, below zero in `a`, [difference].
    scales
        "robust" and "linear"; places are about zero.
    """

    a: str
    b: str
    column: Indices
    equal: Flags
    peak: Indices
    listed: Flags
    difference: Numbers
    scales: Mapping[names.Scale, PeakScale]


@dataclass(frozen=True, eq=False)
class Peaks:
    """The highest peaks of tokens × layers.

    Attributes
    ----------
    quantity
        What is drawn upwards.
    index
        What the number of a peak is an index of: "neuron", "residual" or "index".
    scenes
        What is drawn side by side.
    choice_label, choices
        "Class" or "Prompt", and what the reader may choose among.
    layers
        Block numbers, ascending.
    total
        How many peaks these were chosen from.
    tokens_per_cell
        The highest of every so many tokens and layer is always among them.
    threshold
        Lower ones were left out.
    scales
        All scales.
    style
        Numbers to draw by.
    token_scene, token_place, token_choice, token_rank
        Scene of each token of the picture's table, its place in reading order in the scene, its choice, and its place
        in the order of texts, [token].
    token, layer, neuron
        Row in the table of tokens, block number and neuron of each peak: in order of token, layer and height, the
        highest first, [peak].
    expert
        Whose neuron it is, [peak]; empty where there are no experts.
    value, height
        Signed activation and what is drawn upwards, [peak].
    write
        Write norm, [peak]; empty where it is not known.
    highest
        1 where it is the highest of its token and layer, [peak].
    comparison
        Where there are two prompts, none too long: one laid on the other.
    """

    quantity: DrawnQuantity
    index: str
    scenes: tuple[Scene, ...]
    choice_label: str
    choices: tuple[str, ...]
    layers: tuple[int, ...]
    total: int
    tokens_per_cell: int
    threshold: float
    scales: Mapping[names.Scale, PeakScale]
    style: PeakStyle
    token_scene: Indices
    token_place: Indices
    token_choice: Indices
    token_rank: Indices
    token: Indices
    layer: Indices
    neuron: Indices
    expert: Indices
    value: Numbers
    height: Numbers
    write: Numbers
    highest: Flags
    comparison: PeakComparison | None = None
    kind: Literal["peaks"] = "peaks"

    def heights(self, look: Look) -> Heights:
        """How high the peaks stand as they are to be looked at."""
        return self.scales[look.scale].heights[look.first]

    def shown(self, look: Look) -> Mapping[str, Json]:
        """How the numbers became this picture."""
        return {
            "quantity": {
                "name": self.quantity.name,
                "label": self.quantity.label,
                "unit": self.quantity.unit,
                "formula": self.quantity.formula,
            },
            "shown": len(self.token),
            "total": self.total,
            "tokens_per_cell": self.tokens_per_cell,
            "threshold": self.threshold,
        }
