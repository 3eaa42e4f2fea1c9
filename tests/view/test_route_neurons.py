"""The neurons that a node of routes names are those that its trace holds of the MLP that wrote into it."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import stratoscope
from stratoscope.trace.prompts import Prompts
from stratoscope.view.routes.chosen import routed
from stratoscope.view.spec.routes import RouteNeurons, RoutePanel, Routes
from stratoscope.words import readable


@pytest.fixture(scope="module")
def trace() -> xr.Dataset:
    return stratoscope.simulate(prompts=2, layers=4, tokens=8, record="peaks,effects,routes")


def drawn(trace: xr.Dataset, prompt: int, target: int | None) -> tuple[RoutePanel, RouteNeurons]:
    content = routed(trace, prompt=prompt, target=target, edges=30).spec().content
    assert isinstance(content, Routes)
    (panel,) = content.panels
    assert panel.neurons is not None
    return panel, panel.neurons


@pytest.mark.parametrize(("target", "names", "label"), [
    (None, ("peak_neuron", "peak_write"), "write norm"),
    (0, ("effect_neuron", "neuron_effect"), "effect"),
])  # fmt: skip
def test_each_node_names_the_first_of_its_token_and_layer(
    trace: xr.Dataset, target: int | None, names: tuple[str, str], label: str
) -> None:
    panel, neurons = drawn(trace, 1, target)
    start = Prompts(trace).tokens(1).start
    assert neurons.size_label == label
    assert len(neurons.node) > 20
    for node, (column, depth) in enumerate(zip(panel.node_column, panel.node_depth, strict=True)):
        mine = neurons.node == node
        if depth == 0:
            assert not mine.any()
            continue
        there = trace.isel(token=start + int(column), layer=int(depth) - 1)
        number, size = (np.asarray(there[name].values).ravel()[:5] for name in names)
        assert neurons.neuron[mine].tolist() == number[number >= 0].tolist()
        np.testing.assert_array_equal(neurons.size[mine], size[number >= 0].astype("<f4"))


def test_what_a_neuron_promotes_stands_beside_it_where_it_is_recorded(trace: xr.Dataset) -> None:
    panel, neurons = drawn(trace, 0, 0)
    place = zip(panel.node_column[neurons.node].tolist(), panel.node_depth[neurons.node].tolist(), strict=True)
    known = dict(zip(zip(place, neurons.neuron.tolist(), strict=True), neurons.promotes, strict=True))
    of = trace.isel(prompt=0, target=0)
    texts, found = trace.attrs["token_texts"], 0
    for rank in range(of.sizes["strongest"]):
        position, layer, neuron = (int(of[f"strongest_{name}"][rank]) for name in ("position", "layer", "neuron"))
        words = known.get(((position, layer + 1), neuron))
        if words is not None:
            found += 1
            assert words == " ".join(readable(texts[str(int(one))]) for one in of["write_token"][rank, :3])
    assert found > 3
    assert sum(map(bool, known.values())) == found


def test_without_neurons_there_are_none(trace: xr.Dataset) -> None:
    bare = trace.drop_vars(["peak_neuron", "effect_neuron"])
    content = routed(bare, prompt=0, edges=30).spec().content
    assert isinstance(content, Routes)
    assert content.panels[0].neurons is None
