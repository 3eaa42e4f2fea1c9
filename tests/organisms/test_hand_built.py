"""Routes of models whose weights were set by hand name the heads and tokens that were planted, and no others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

pytest.importorskip("torch")

import hand_built
import torch
from hand_built import COPY, INDUCTION, PREVIOUS, WORDS, Edge

import stratoscope
from stratoscope.analysis.routes.graph import route_graph

OFF_PATH = 1 / 3  # the most that an edge that was not planted may be of one that was
PROMPTS = {
    "copy head": ("d b e f g ?", "a i h ?", "i i h e c d g ?"),
    "previous-token head": ("a c f e b g", "d d d h a", "c i"),
    "induction": ("d a f b e c a", "g h i g", "c a b f e d i a"),
}
ANSWERS = {"copy head": "bac", "induction": "fhb"}
TOWARDS = "induction"  # of it effects of edges are recorded too
MODELS: dict[str, Callable[[], Any]] = {
    "copy head": hand_built.copy_head,
    "previous-token head": hand_built.previous_token_head,
    "induction": hand_built.induction,
    "nothing": hand_built.nothing,
}
Recorded = Callable[..., xr.Dataset]


def path(kind: str, text: str) -> list[Edge]:
    """The planted edges of a prompt, the last one first."""
    words = ["<bos>", *text.split()]
    last = len(words) - 1
    if kind == "copy head":
        topic = next(place for place, word in enumerate(words) if word in "abc" and place)
        return [Edge(last, *COPY, topic)]
    if kind == "previous-token head":
        return [Edge(token, *PREVIOUS, token - 1) for token in range(last, 0, -1)]
    followed = words.index(words[-1]) + 1
    return [Edge(last, *INDUCTION, followed), Edge(followed, *PREVIOUS, followed - 1)]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder, made = tmp_path_factory.mktemp("hand built"), dict[tuple[str, str], xr.Dataset]()

    def record(model: str, prompts: str = "") -> xr.Dataset:
        key = (model, prompts or model)
        if key not in made:
            asked = {"record": "routes,effects", "calibration": 0} if model == TOWARDS else {"record": "routes"}
            made[key] = stratoscope.capture(
                MODELS[model](), [*PROMPTS[key[1]]], folder / f"{len(made)}.trace", tokenizer=hand_built.tokenizer(),
                **asked,
            ).load()  # fmt: skip
        return made[key]

    return record


def at(trace: xr.Dataset, number: int, edge: Edge) -> dict[tuple[int, int], float]:
    """The recorded edges of the token and layer in which an edge ends: (head, source) → share."""
    token = int(np.flatnonzero((trace.prompt.values == number) & (trace.position.values == edge.token))[0])
    here = trace.isel(token=token, layer=edge.layer)
    keys = zip(here.route_head.values.tolist(), here.route_source.values.tolist(), strict=True)
    return {key: weight for key, weight in zip(keys, here.route_weight.values.tolist(), strict=True) if key[0] >= 0}


PLANTED = [(kind, number) for kind, texts in PROMPTS.items() for number in range(len(texts))]


@pytest.mark.parametrize("kind", ANSWERS)
def test_the_models_do_what_was_planted(kind: str) -> None:
    model = MODELS[kind]()
    for text, answer in zip(PROMPTS[kind], ANSWERS[kind], strict=True):
        ids = torch.tensor([hand_built.tokenizer()(text).input_ids])
        assert WORDS[int(model(ids).logits[0, -1].argmax())] == answer


@pytest.mark.parametrize(("kind", "number"), PLANTED)
def test_the_planted_edge_is_named_and_no_other_is_a_third_of_it(recorded: Recorded, kind: str, number: int) -> None:
    trace = recorded(kind)
    for edge in path(kind, PROMPTS[kind][number]):
        found = at(trace, number, edge)
        planted = found.pop((edge.head, edge.source))
        assert planted > 0.02, edge
        assert max(map(abs, found.values())) <= OFF_PATH * planted, edge


@pytest.mark.parametrize("kind", PROMPTS)
def test_without_what_was_planted_nothing_is_named(recorded: Recorded, kind: str) -> None:
    trace, with_it = recorded("nothing", kind), recorded(kind)
    for number, text in enumerate(PROMPTS[kind]):
        for edge in path(kind, text):
            planted = at(with_it, number, edge)[edge.head, edge.source]
            assert max(map(abs, at(trace, number, edge).values())) <= OFF_PATH * planted


@pytest.mark.parametrize("kind", PROMPTS)
def test_shares_sum_to_one(recorded: Recorded, kind: str) -> None:
    trace = recorded(kind)
    whole = trace.route_weight.sum("route") + trace.route_other + trace.route_bias + trace.route_carry
    np.testing.assert_allclose(whole, 1, atol=1e-5)
    np.testing.assert_allclose(trace.route_mid + trace.route_mlp, 1, atol=1e-5)


@pytest.mark.parametrize(("kind", "number"), PLANTED)
def test_the_graph_takes_the_planted_edges_before_all_others(recorded: Recorded, kind: str, number: int) -> None:
    graph = route_graph(recorded(kind), prompt=number, edges=8, first_token=True)
    chosen = graph["edges"].to_dataset()
    order = [
        (int(to), int(depth) - 1, int(head), int(source))
        for to, depth, head, source in zip(
            chosen.to_position.values, chosen.to_depth.values, chosen["head"].values, chosen.from_position.values,
            strict=True,
        )
        if head >= 0
    ]  # fmt: skip
    last = path(kind, PROMPTS[kind][number])[0]
    of_end = [one for one in order if one[:2] == (last.token, last.layer)]
    assert of_end[0] == (last.token, last.layer, last.head, last.source)
    if kind == "induction":
        before = path(kind, PROMPTS[kind][number])[1]
        assert (before.token, before.layer, before.head, before.source) in order[:4]


@pytest.mark.parametrize("number", range(len(PROMPTS[TOWARDS])))
def test_towards_the_answer_no_edge_off_the_path_is_a_third_of_one_on_it(recorded: Recorded, number: int) -> None:
    trace = recorded(TOWARDS)
    here = np.flatnonzero(trace.prompt.values == number)
    part = trace.isel(token=here, target=0)
    effects: dict[Edge, float] = {}
    for token, layer, rank in np.ndindex(part.route_effect.shape):
        cell = {"token": token, "layer": layer, "route": rank}
        head = int(part.route_effect_head.isel(cell))
        if head >= 0:
            edge = Edge(token, layer, head, int(part.route_effect_source.isel(cell)))
            effects[edge] = float(part.route_effect.isel(cell))
    planted = [effects.pop(edge) for edge in path(TOWARDS, PROMPTS[TOWARDS][number])]
    assert min(planted) > 0
    assert max(map(abs, effects.values())) <= OFF_PATH * min(planted)
