"""The picture of `peaks3d` as data: which peaks, which tokens they stand on, and the limits of every scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope import defaults, names
from stratoscope.analysis.lint.lint import applicable
from stratoscope.errors import InputError, refuse_unknown
from stratoscope.trace.arguments import real_number
from stratoscope.trace.prompts import Prompts
from stratoscope.trace.quantity_names import quantity_named
from stratoscope.view.panels import subtitle, token_labels
from stratoscope.view.peaks3d_levels import levels
from stratoscope.view.peaks3d_points import Points, choose_points
from stratoscope.view.select import LayerChoice, PromptChoice, TextChoice, choose_layers, select
from stratoscope.view.spec import Note, ViewSpec, notes_of, provenance_of
from stratoscope.words import capital, counted, listed, number, number_ranges, visible

if TYPE_CHECKING:
    import xarray as xr

HEIGHTS = ("peak_write", "imported_norm", "peak_value")  # what can be drawn upwards, the default first
MANY = 6_000  # from so many peaks on, markers are smaller
MOST_SCENES = 4  # each holds a graphics context of its own
_FIRST_TOKEN = Note("L05", "info", "First tokens are left out of the scale; ◇ at the top is beyond it.")
_GROWS = Note("L07", "info", "Raw L2 norms grow with depth: do not rank layers by them.")


def peaks_spec(
    dataset: xr.Dataset,
    *,
    quantity: str | None = None,
    prompt: PromptChoice = None,
    prompt_class: TextChoice = None,
    all_prompts: bool = False,
    layers: LayerChoice = None,
    span: TextChoice = None,
    scale: names.Scale = defaults.SCALE,
    threshold: float = defaults.THRESHOLD,
    first_token: bool = defaults.FIRST_TOKEN,
    theme: names.Theme = defaults.THEME,
) -> ViewSpec:
    """The picture of `peaks3d` as data; parameters and errors as there."""
    row, threshold = names.QUANTITIES[_height_of(dataset, quantity)], real_number(threshold, "threshold")
    refuse_unknown(scale, names.SCALES, "scale")
    chosen = select(dataset, prompt=prompt, prompt_class=prompt_class, all_prompts=all_prompts, span=span)
    tokens = np.sort(np.concatenate([panel.tokens for panel in chosen.panels]))
    prompts = Prompts(dataset)
    scenes = _Scenes(prompts, [index for panel in chosen.panels for index in panel.prompts])
    numbers = np.asarray(dataset["layer"].values)[choose_layers(dataset["layer"].values, layers)]
    scene = scenes.scene[scenes.row_of(prompts.of_token[tokens])]
    first = prompts.first[tokens]
    points = choose_points(
        dataset,
        row.name,
        tokens,
        numbers.tolist(),
        scene=scene,
        first=None if first_token else first,
        threshold=threshold,
    )
    if not len(points.token):
        raise _nothing_left(points, threshold)
    table, of_point = _token_table(prompts, tokens, scene, first, points, scenes)
    facts: dict[str, Any] = {
        "quantity": {"name": row.name, "label": row.label, "unit": row.unit, "formula": row.formula_in(dataset)},
        "shown": len(points.token),
        "total": points.total,
        "tokens_per_cell": points.run,
        "left_out": chosen.left_out,
        "layers": number_ranges(numbers.tolist()),
        "threshold": threshold,
        "scale": scale,
        "first_token_in_limits": bool(first_token),
    }
    content = {
        "index": _index_name(dataset),
        "scenes": [{key: visible(words) for key, words in scene.items()} for scene in scenes.scenes],
        "choice": {"label": scenes.choice_label, "names": [visible(name) for name in scenes.choices]},
        "prompts": [visible(name) for name in scenes.names],
        "layers": numbers.tolist(),
        "labels": token_labels(prompts, table["token"]),
        "total": points.total,
        "levels": levels(points.height, points.layer, table["first"][of_point].astype(bool), _axis_title(row)),
        "style": _style(len(points.token)),
        "state": {"scale": scale, "first_token": bool(first_token), "theme": theme},
    }
    buffers = {f"token_{name}": column for name, column in table.items() if name != "token"} | {
        "peak_token": of_point.astype("int32"),
        "peak_layer": points.layer.astype("int32"),
        "peak_expert": points.expert.astype("int32"),
        "peak_neuron": points.neuron.astype("int32"),
        "peak_value": points.value,
        "peak_write": points.write,
        "peak_height": points.height,
    }
    notes = (
        _FIRST_TOKEN,
        *_left_out(points),
        *_notes(dataset, row),
        *notes_of(dataset),
        *applicable(dataset, [row.name]),
    )
    title = f"{capital(row.label)} by token and layer"
    return ViewSpec("peaks3d", title, subtitle(dataset, chosen), content, buffers, notes, provenance_of(dataset), facts)


class _Scenes:
    """The chosen prompts: which scene each is drawn in, and what the reader can choose among.

    Attributes
    ----------
    names
        Id of each prompt.
    scenes
        Title and detail of each scene.
    scene, choice
        Scene and choice of each prompt, of shape (prompts,).
    choices, choice_label
        Classes, else prompts, that can be looked at alone, and which of the two they are.
    """

    def __init__(self, of: Prompts, prompts: list[int]) -> None:
        self._index = np.array(prompts)
        self.names, classes = [of.labels[index] for index in prompts], [of.classes[index] for index in prompts]
        by_class = len(set(classes)) > 1
        groups = [name or "no class" for name in classes] if by_class else self.names
        self.choice_label = "Class" if by_class else "Prompt"
        self.choices, self.choice = _numbered(groups)
        if len(prompts) <= MOST_SCENES:
            self.scene = np.arange(len(prompts))
            self.scenes = [
                {"title": name or identity, "detail": identity if name and name != identity else ""}
                for name, identity in zip(classes, self.names, strict=True)
            ]
        elif by_class and len(self.choices) <= MOST_SCENES:
            self.scene = self.choice
            counts = np.bincount(self.choice)
            self.scenes = [
                {"title": name, "detail": f"{count} prompts, end to end"}
                for name, count in zip(self.choices, counts.tolist(), strict=True)
            ]
        else:
            self.scene = np.zeros(len(prompts), np.int64)
            self.scenes = [{"title": f"{len(prompts)} prompts, end to end", "detail": ""}]

    def row_of(self, prompt: NDArray[np.integer]) -> NDArray[np.int64]:
        """Place among the chosen prompts of each index on the prompt axis."""
        order = np.argsort(self._index)
        return order[np.searchsorted(self._index[order], prompt)]


def _token_table(
    prompts: Prompts,
    tokens: NDArray[np.int64],
    scene: NDArray[np.int64],
    first: NDArray[np.bool_],
    points: Points,
    scenes: _Scenes,
) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
    """Columns of the tokens that bear a drawn peak, and the row of each peak in them.

    `place` counts the tokens of a scene in reading order; `rank` is the token's place in the order of texts.
    """
    place = np.empty(len(tokens), np.int64)
    for one in np.unique(scene):
        place[scene == one] = np.arange(np.count_nonzero(scene == one))
    bearing, of_point = np.unique(points.token, return_inverse=True)
    here = np.searchsorted(tokens, bearing)
    row, texts = scenes.row_of(prompts.of_token[bearing]), prompts.words(bearing)
    rank = np.empty(len(bearing), np.int64)
    rank[sorted(range(len(texts)), key=lambda index: (texts[index].strip(" ▁Ġ").casefold(), texts[index], index))] = (
        np.arange(len(texts))
    )
    table = {
        "token": bearing,
        "place": place[here].astype("int32"),
        "position": prompts.position[bearing].astype("int32"),
        "scene": scene[here].astype("int32"),
        "choice": scenes.choice[row].astype("int32"),
        "prompt": row.astype("int32"),
        "first": first[here].astype("uint8"),
        "rank": rank.astype("int32"),
    }
    return table, of_point


def _left_out(points: Points) -> list[Note]:
    if not points.infinite:
        return []
    peaks = f"{counted(points.infinite, 'peak')} {'is' if points.infinite == 1 else 'are'}"
    return [Note("L05", "warning", f"{peaks} infinite and not drawn: they have no height.")]


def _notes(dataset: xr.Dataset, row: names.Quantity) -> list[Note]:
    if row.dims == (names.ROW,):
        return []  # an import says so itself
    recorded = f"Only the {dataset.sizes[names.PEAK]} strongest neurons of each token and layer are recorded"
    top_k = Note("L08", "info", f"{recorded}: the others are not zero.")
    return [_GROWS, top_k] if row.name == "peak_write" else [top_k]


def _axis_title(row: names.Quantity) -> str:
    return row.label if row.unit in ("1", "as imported") else f"{row.label} ({row.unit})"


def _style(points: int) -> dict[str, Any]:
    """Numbers that every renderer draws by."""
    return {
        "tolerance": 1e-6,  # the ceiling's own peak is not above it, however a renderer rounds
        "roof": 1.04,  # where a peak just above the ceiling is drawn, as a share of the height …
        "rise": 0.06,  # … and how much higher one of 10,000 times the ceiling is
        "top": 1.12,  # where the axis ends
        "sizes": [1.5, 8.0] if points >= MANY else [2.0, 11.0],  # pixels of the lowest and the highest peak
        "stems": 4_000,  # of each scene, on the highest peaks
        "stem_opacity": 0.35 if points >= MANY else 0.6,
        "token_labels": 24,  # of all scenes together
        "layer_labels": 11,
    }


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
        what = f"{points.infinite:,} peaks are infinite, so they have no height, and there is no other"
        return InputError(what, where="trace", fix="Look at them in Python, or choose other prompts and layers.")
    return InputError("there is no peak in these prompts and layers", where="trace", fix="Choose others.")


def _index_name(dataset: xr.Dataset) -> str:
    """What the number of a peak is an index of."""
    axis = dataset.attrs.get("axis", "neuron")
    return "index" if axis == "unknown" else str(axis)


def _numbered(items: list[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Distinct items in order of appearance, and the number of each item among them."""
    distinct = list(dict.fromkeys(items))
    return distinct, np.array([distinct.index(item) for item in items])
