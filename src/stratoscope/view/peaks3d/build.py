"""The picture of `peaks3d` as data: which peaks, which tokens they stand on, and how high on every scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import defaults, names
from stratoscope.analysis.lint.lint import applicable
from stratoscope.errors import InputError
from stratoscope.trace.arguments import real_number
from stratoscope.trace.arrays import Ints
from stratoscope.trace.prompts import Prompts
from stratoscope.trace.quantity_names import quantity_named
from stratoscope.view.choose.selection import EVERYTHING, Selection
from stratoscope.view.choose.tokens import shown_tokens, subtitle
from stratoscope.view.peaks3d.comparison import compare
from stratoscope.view.peaks3d.heights import scales_of
from stratoscope.view.peaks3d.points import Points, choose_points, recorded_points
from stratoscope.view.peaks3d.scenes import Scenes, places, text_ranks
from stratoscope.view.spec.buffers import indices
from stratoscope.view.spec.look import PLAIN, Look
from stratoscope.view.spec.maps import DrawnQuantity
from stratoscope.view.spec.peaks import PeakComparison, Peaks, PeakStyle
from stratoscope.view.spec.viewspec import Note, ViewSpec, notes_of, provenance_of
from stratoscope.words import capital, counted, listed, number, visible

if TYPE_CHECKING:
    import xarray as xr

HEIGHTS = ("peak_write", "imported_norm", "peak_value")  # what can be drawn upwards, the default first
MANY = 6_000  # from so many peaks on, markers are smaller
_FIRST_TOKEN = Note("L05", "info", "First tokens are left out of the scale.", first_token=False)
_GROWS = Note("L07", "info", "Raw L2 norms grow with depth: do not rank layers by them.")


def peaks_spec(
    dataset: xr.Dataset,
    selection: Selection = EVERYTHING,
    look: Look = PLAIN,
    *,
    quantity: str | None = None,
    threshold: float = defaults.THRESHOLD,
) -> ViewSpec:
    """The picture of `peaks3d` as data; parameters and errors as there."""
    row, threshold = names.QUANTITIES[_height_of(dataset, quantity)], real_number(threshold, "threshold")
    chosen = selection.of(dataset)
    tokens = np.sort(np.concatenate([panel.tokens for panel in chosen.panels]))
    prompts = Prompts(dataset)
    shown = [index for panel in chosen.panels for index in panel.prompts]
    scenes = Scenes(prompts, shown)
    numbers = dataset["layer"].values.tolist()
    layers = tuple(numbers[row] for row in selection.rows(numbers))
    scene, first = scenes.scene[scenes.row_of(prompts.of_token[tokens])], prompts.first[tokens]
    points = choose_points(
        dataset, row.name, tokens, layers, scene=scene, first=None if look.first_token else first, threshold=threshold
    )
    if not len(points.token):
        raise _nothing_left(points, threshold)
    bearing, of_point = np.unique(points.token, return_inverse=True)
    here = np.searchsorted(tokens, bearing)
    comparison = None
    if len(shown) == 2 and points.run == 1 and prompts.has_texts:
        comparison = _compared(dataset, row, tokens, prompts, shown, layers, points, bearing)
    content = Peaks(
        quantity=DrawnQuantity(row.name, row.label, row.unit, row.formula_in(dataset), log=row.log),
        index=_index_name(dataset),
        scenes=scenes.scenes,
        choice_label=scenes.choice_label,
        choices=tuple(visible(name) for name in scenes.choices),
        layers=layers,
        total=points.total,
        tokens_per_cell=points.run,
        threshold=threshold,
        scales=scales_of(points.height, points.layer, first[here][of_point], _axis_title(row)),
        style=_style(len(points.token)),
        token_scene=indices(scene[here]),
        token_place=indices(places(scene)[here]),
        token_choice=indices(scenes.choice[scenes.row_of(prompts.of_token[bearing])]),
        token_rank=indices(text_ranks(prompts.words(bearing))),
        token=indices(of_point),
        layer=indices(points.layer),
        neuron=indices(points.neuron),
        expert=indices(points.expert),
        value=points.value,
        height=points.height,
        write=points.write,
        highest=_highest(points),
        comparison=comparison,
    )
    return ViewSpec(
        f"{capital(row.label)} by token and layer",
        subtitle(dataset, chosen),
        content,
        look,
        shown_tokens(prompts, bearing, shown),
        chosen.selected(dataset, layers, len(numbers)),
        notes=(
            _FIRST_TOKEN,
            *_left_out(points),
            *_notes(dataset, row),
            *notes_of(dataset),
            *applicable(dataset, [row.name]),
        ),
        provenance=provenance_of(dataset),
    )


def _compared(
    dataset: xr.Dataset,
    row: names.Quantity,
    tokens: Ints,
    prompts: Prompts,
    shown: list[int],
    layers: tuple[int, ...],
    points: Points,
    bearing: Ints,
) -> PeakComparison:
    """The two prompts of a picture laid on each other."""
    of = tuple(tokens[prompts.of_token[tokens] == one] for one in shown)
    classes, ids = [visible(prompts.classes[one]) for one in shown], [visible(prompts.labels[one]) for one in shown]
    sides = classes if all(classes) and len(set(classes)) == 2 else ids
    recorded = points if len(points.token) == points.total else recorded_points(dataset, row.name, tokens, layers)
    return compare(
        dataset,
        (of[0], of[1]),
        bearing,
        points,
        recorded,
        signed=row.name != "peak_write",
        sides=(sides[0], sides[1]),
        title=f"{sides[1]} − {sides[0]}: {_axis_title(row)}",
    )


def _highest(points: Points) -> NDArray[np.uint8]:
    """1 where a peak is the first, which is the highest, of its token and layer."""
    same = (np.diff(points.token, prepend=-1) == 0) & (np.diff(points.layer, prepend=-1) == 0)
    return np.where(same, 0, 1).astype(np.uint8)


def _left_out(points: Points) -> list[Note]:
    if not points.infinite:
        return []
    peaks = f"{counted(points.infinite, 'peak')} {'is' if points.infinite == 1 else 'are'}"
    return [Note("L05", "warning", f"{peaks} infinite or too large to compute with: not drawn.")]


def _notes(dataset: xr.Dataset, row: names.Quantity) -> list[Note]:
    if row.dims == (names.ROW,):
        return []  # an import says so itself
    recorded = f"Only the {dataset.sizes[names.PEAK]} strongest neurons of each token and layer are recorded"
    top_k = Note("L08", "info", f"{recorded}: the others are not zero.")
    return [_GROWS, top_k] if row.name == "peak_write" else [top_k]


def _axis_title(row: names.Quantity) -> str:
    return row.label if row.unit in ("1", "as imported") else f"{row.label} ({row.unit})"


def _style(points: int) -> PeakStyle:
    many = points >= MANY
    smallest, largest, opacity = (1.5, 8.0, 0.35) if many else (2.0, 11.0, 0.6)
    return PeakStyle(
        smallest,
        largest,
        top=1.12,
        stems=4_000,
        stem_opacity=opacity,
        token_labels=30,
        layer_labels=11,
    )


def _height_of(dataset: xr.Dataset, quantity: str | None) -> str:
    there = [name for name in HEIGHTS if name in dataset]
    if not there:
        raise InputError(
            "there are no peaks in it",
            where="trace",
            fix="Record them: `stratoscope capture MODEL --prompts FILE --record norms,peaks -o TRACE`.",
        )
    if quantity is None:
        return there[0]
    quantity = quantity_named(quantity, there)
    if quantity not in there:
        raise InputError(
            f"no peaks of {quantity!r}", where="quantity", fix=f"What can be drawn upwards: {listed(there)}."
        )
    return quantity


def _nothing_left(points: Points, threshold: float) -> InputError:
    if points.total:
        return InputError(
            f"no peak is as high as {number(threshold)}", where="threshold", fix="Choose a lower threshold."
        )
    if points.infinite:
        what = f"{points.infinite:,} peaks are infinite or too large to compute with, and there is no other"
        return InputError(what, where="trace", fix="Look at them in Python, or choose other prompts and layers.")
    return InputError("there is no peak in these prompts and layers", where="trace", fix="Choose others.")


def _index_name(dataset: xr.Dataset) -> str:
    """What the number of a peak is an index of."""
    axis = dataset.attrs.get("axis", "neuron")
    return "index" if axis == "unknown" else str(axis)
