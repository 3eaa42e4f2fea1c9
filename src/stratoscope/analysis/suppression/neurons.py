"""The neurons that promote and suppress a target most: how strongly, where, what they write and what set them off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import names
from stratoscope.analysis.suppression.heads import largest_of_either_sign
from stratoscope.analysis.suppression.recorded import answered
from stratoscope.analysis.suppression.targets import Chosen
from stratoscope.analysis.values.around import words_near
from stratoscope.trace.arrays import Floats, Ints
from stratoscope.trace.prompts import GONE, Prompts

if TYPE_CHECKING:
    import xarray as xr

LISTED = 10  # neurons of either sign
SOURCES = 3  # tokens that set a neuron off most, of its gate and of its up
NONE = -1
STRONGEST = ("strongest_position", "strongest_layer", "strongest_neuron", "strongest_value", "strongest_effect",
             "strongest_logit")  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A neuron at a token, and how strong it is.

    Attributes
    ----------
    prompt, rank
        Index of the prompt, and its place on the dimension `strongest`.
    in_prompts
        In how many of the prompts of each class it is among the strongest of its sign.
    mean
        Its listed effect, the mean over those prompts of each class in which it is among the strongest; NaN where in
        none: an effect that was not recorded is not zero.
    """

    prompt: int
    rank: int
    in_prompts: tuple[int, ...]
    mean: tuple[float, ...]


def strongest(dataset: xr.Dataset, target: int, prompts: Ints, classes: Ints, count: int) -> list[Place]:
    """The strongest neurons of either sign, the promoting ones first, each with its strongest place.

    Of one prompt each (neuron, token) is its own. Of several a neuron is listed once, ranked by its largest effect
    among those recorded. First tokens, which older traces rank too, are left out unless they are answer positions.

    Parameters
    ----------
    classes, count
        The class of each prompt as a number below `count`.
    """
    position, layer, neuron, effect = (
        np.asarray(dataset[name].isel(target=target, prompt=prompts).values)
        for name in ("strongest_position", "strongest_layer", "strongest_neuron", "strongest_effect")
    )
    effect = effect.astype(np.float64)
    of = Prompts(dataset)
    answered_first = (of.answer[prompts] != GONE) & (of.position[of.answer[prompts]] == 0)
    there = (neuron >= 0) & np.isfinite(effect) & (effect != 0) & ((position > 0) | answered_first[:, None])
    found: list[Place] = []
    for sign in (1, -1):
        here = np.argwhere(there & (np.sign(effect) == sign))
        groups: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        for row, rank in here.tolist():
            key = (int(layer[row, rank]), int(neuron[row, rank]), *((row, rank) if len(prompts) == 1 else ()))
            groups.setdefault(key, []).append((row, rank))
        largest = sorted(groups.values(), key=lambda members: -max(sign * effect[one] for one in members))
        found += [_place(members, effect, prompts, classes, count) for members in largest[:LISTED]]
    return found


def _place(members: list[tuple[int, int]], effect: Floats, prompts: Ints, classes: Ints, count: int) -> Place:
    row, rank = max(members, key=lambda one: abs(effect[one]))
    total, rows = np.zeros(count), np.zeros((count, len(prompts)), bool)
    for one in members:
        total[classes[one[0]]] += effect[one]
        rows[classes[one[0]], one[0]] = True
    recorded = rows.sum(axis=1)
    mean = np.where(recorded > 0, total / np.maximum(recorded, 1), np.nan)
    return Place(int(prompts[row]), rank, tuple(recorded.tolist()), tuple(mean.tolist()))


def described(dataset: xr.Dataset, chosen: Chosen, places: list[Place]) -> dict[str, dict[str, Any]]:
    """Tables of the neurons, by what each variable's dimensions are: "listed", "written", "part", "source"."""
    prompts = Prompts(dataset)

    def of(name: str) -> Any:
        if name not in dataset:
            return np.full(len(places), np.nan)
        array = dataset[name].isel(target=chosen.index)
        return np.stack([np.asarray(array[one.prompt, one.rank].values) for one in places]) if places else np.empty(0)

    position = of("strongest_position").astype(np.int64)
    tokens = [_token(prompts, place.prompt, int(where)) for place, where in zip(places, position, strict=True)]
    listed: dict[str, Any] = {
        "layer": _layer_numbers(dataset, of("strongest_layer").astype(np.int64)),
        "neuron": of("strongest_neuron").astype(np.int64),
        "prompt_id": [prompts.labels[place.prompt] for place in places],
        "position": position,
        **_in_context(prompts, tokens),
        "value": of("strongest_value").astype(np.float64),
        "total": of("strongest_effect").astype(np.float64),
        "direct": of("strongest_logit").astype(np.float64),
    }
    found = {"listed": listed}
    if {"write_token", "write_logit"} <= set(dataset.data_vars) and places:
        ids = of("write_token").astype(np.int64)
        texts = np.empty(ids.shape, object)
        texts[...] = [["" if one < 0 else chosen.text(one) for one in row] for row in ids.tolist()]
        found["written"] = {"token": texts, "token_id": ids, "logit": of("write_logit").astype(np.float64)}
    if "neuron_read" in dataset and places:
        found |= _reads(dataset, chosen.index, prompts, places)
    return found


def _reads(dataset: xr.Dataset, target: int, prompts: Prompts, places: list[Place]) -> dict[str, dict[str, Any]]:
    """What set the neurons off: the source tokens that gave most of their gate and up, and through which component."""
    array, through = dataset["neuron_read"].isel(target=target), dataset.get("read_through")
    component = dataset.get("read_component")
    parts = array.sizes[names.READ_PART]
    shape = (len(places), parts, SOURCES)
    sources = {"position": np.full(shape, NONE), "read": np.full(shape, np.nan), "share": np.full(shape, np.nan)}
    texts, components = np.full(shape, "", object), np.full(shape, NONE)
    whole = np.full(shape[:2], np.nan)
    for number, place in enumerate(places):
        own = prompts.tokens(place.prompt)
        values = np.asarray(array[own, place.rank].values, np.float64)  # [token, part]
        came = None if through is None else np.asarray(through.isel(target=target)[own, place.rank].values)
        known = np.isfinite(values)
        sizes = np.where(known, np.abs(values), 0.0)
        some = known.any(axis=0)
        whole[number, some] = np.where(known, values, 0.0).sum(axis=0)[some]
        if component is not None:  # the biases are the last, and of no token
            biases = component.isel(target=target)[place.prompt, place.rank, :, -1].values
            whole[number, some] += np.nan_to_num(np.asarray(biases, np.float64))[some]
        for part in np.flatnonzero(sizes.sum(axis=0) > 0).tolist():
            order = np.argsort(-sizes[:, part], kind="stable")[:SOURCES]
            order = order[sizes[order, part] > 0]
            here = np.s_[number, part, : len(order)]
            sources["position"][here] = prompts.position[own][order]
            sources["read"][here] = values[order, part]
            sources["share"][here] = values[order, part] / sizes[:, part].sum()
            texts[here] = list(prompts.words(own.start + order))
            if came is not None:
                components[here] = came[order, part]
    labels = np.empty(shape, object)
    layers = np.asarray(dataset[names.LAYER].values)
    labels[...] = [[[component_name(one, layers) for one in row] for row in some] for some in components.tolist()]
    return {"part": {"read": whole}, "source": {**sources, "token": texts, "through": labels}}


def component_name(component: int, layers: Ints) -> str:
    """What a component is called: 0 the embedding, 1 + 2l and 2 + 2l attention and MLP of layer l, last the biases."""
    if component < 0:
        return ""
    if component == 0:
        return "embedding"
    if component > 2 * len(layers):
        return "biases"
    layer, kind = divmod(component - 1, 2)
    return f"L{layers[layer]} {('attention', 'MLP')[kind]}"


def by_direct(dataset: xr.Dataset, chosen: Chosen, prompt: int) -> dict[str, Any]:
    """The neurons of the largest direct contribution of either sign at the answer position of a prompt."""
    token = int(answered(dataset, np.array([prompt]))[0])
    neuron, logit = (
        np.asarray(dataset[name].isel(target=chosen.index, token=token).values)
        for name in ("logit_neuron", "neuron_logit")
    )  # [layer, rank]
    values = np.where(neuron >= 0, logit.astype(np.float64), np.nan)
    row, rank = np.unravel_index(largest_of_either_sign(values.ravel(), LISTED), values.shape)
    return {
        "layer": np.asarray(dataset[names.LAYER].values, np.int64)[row],
        "neuron": neuron[row, rank].astype(np.int64),
        "direct": values[row, rank],
    }


def _layer_numbers(dataset: xr.Dataset, layers: Ints) -> Ints:
    """Numbers of the blocks of these places on the layer axis."""
    return np.asarray(dataset[names.LAYER].values, np.int64)[layers] if len(layers) else layers


def _token(prompts: Prompts, prompt: int, position: int) -> int:
    """The place on the token axis of a position in a prompt; `NONE` where it is not there."""
    own = prompts.tokens(prompt)
    found = np.flatnonzero(prompts.position[own] == position)
    return own.start + int(found[0]) if len(found) else NONE


def _in_context(prompts: Prompts, tokens: list[int]) -> dict[str, list[str]]:
    """The texts of tokens, and the words before and after each."""
    found = [words_near(prompts, token) if token >= 0 else ("", "", "") for token in tokens]
    return {name: [one[place] for one in found] for place, name in enumerate(("before", "token", "after"))}
