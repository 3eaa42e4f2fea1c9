"""Routes: how a node's mass is shared, which edges are chosen, and what is covered, against a count of all ways."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import stratoscope
from route_traces import route_trace
from stratoscope.analysis.results.result import rows_in, table_in
from stratoscope.analysis.routes import recorded
from stratoscope.analysis.routes.graph import route_graph
from stratoscope.errors import InputError, StratoscopeError

Trace = xr.Dataset
SMALL = settings(deadline=None, max_examples=10)


@st.composite
def traces(draw: st.DrawFn) -> xr.Dataset:
    """Small ones of two prompts, of which the first is looked at; some with biases, some that keep few edges."""
    return route_trace(
        draw(st.integers(1, 7)),
        3,
        layers=draw(st.integers(1, 4)),
        heads=draw(st.integers(1, 2)),
        kept=draw(st.sampled_from([1, 3, 16])),
        seed=draw(st.integers(0, 2**20)),
        bias=draw(st.sampled_from([0.0, -0.02])),
    )


def ways_down(of: recorded.Made, kept: set[tuple[int, int, int]], token: int, depth: int) -> float:
    """Share of a node that reaches the embeddings, each way by itself, by recursion over all of them."""
    if depth == 0:
        return 1.0
    layer = depth - 1
    found = of.carry[token, layer] * ways_down(of, kept, token, layer)
    for at, where, route in kept:
        if (at, where) == (token, layer):
            source = int(of.edges.source[token, layer, route])
            found += of.share[token, layer, route] * ways_down(of, kept, source, layer)
    return float(found)


@SMALL
@given(traces(), st.integers(1, 12), st.booleans())
def test_what_is_covered_is_the_sum_over_all_ways_along_shown_edges(trace: Trace, edges: int, first: bool) -> None:
    graph = route_graph(trace, prompt=0, edges=edges, first_token=first)
    of = recorded.made(trace, 0)
    shown = {
        (int(row["to_position"]), int(row["from_depth"]), route)
        for row in rows_in(graph, "edges")
        if row["kind"] == "attention"
        for route in np.flatnonzero(
            (of.edges.source[int(row["to_position"]), int(row["from_depth"])] == row["from_position"])
            & (of.edges.head[int(row["to_position"]), int(row["from_depth"])] == row["head"])
        ).tolist()
    }
    summary = graph.attrs["summary"]
    assert summary["covered"] == pytest.approx(ways_down(of, shown, summary["token"], of.carry.shape[1]), abs=1e-12)
    assert len(shown) == summary["edges"] <= edges


@SMALL
@given(traces(), st.integers(1, 12), st.booleans())
def test_nothing_is_lost_or_made_on_the_way(trace: Trace, edges: int, first: bool) -> None:
    graph = route_graph(trace, prompt=0, edges=edges, first_token=first)
    summary, rows = graph.attrs["summary"], rows_in(graph, "edges")
    at = {(row["position"], row["depth"]): row for row in rows_in(graph, "nodes")}
    end = (summary["token"], summary["layers"])
    assert at[end]["flow"] == 1.0
    out, into = dict.fromkeys(at, 0.0), dict.fromkeys(at, 0.0)
    for row in rows:
        assert row["flow"] >= 0
        if row["kind"] != "mlp":  # what runs through an MLP came along the other edges of its node
            into[row["to_position"], row["to_depth"]] += row["flow"]
        if row["kind"] in ("attention", "carry-over"):
            out[row["from_position"], row["from_depth"]] += row["flow"]
    for node, row in at.items():
        if node[1] > 0:
            assert into[node] == pytest.approx(row["flow"], abs=1e-12)
        if node != end:
            assert out[node] == pytest.approx(row["flow"], abs=1e-12)
    lost = sum(row["rest"] for row in at.values()) + summary["bias"]
    assert summary["covered"] + lost == pytest.approx(1.0, abs=1e-9)
    assert summary["covered"] + summary["rest"] == pytest.approx(1.0, abs=1e-12)


@SMALL
@given(traces())
def test_a_longer_list_begins_with_the_shorter_one_and_covers_no_less(trace: Trace) -> None:
    def strongest(edges: int) -> tuple[list[tuple[int, ...]], float, list[float]]:
        graph = route_graph(trace, prompt=0, edges=edges)
        rows = [row for row in rows_in(graph, "edges") if row["kind"] == "attention"]
        places = ("to_position", "to_depth", "from_position", "head")
        edges_of = [tuple(row[name] for name in places) for row in rows]
        return edges_of, graph.attrs["summary"]["covered"], [row["covered"] for row in rows]

    lists = [strongest(edges) for edges in (1, 2, 5, 150)]
    for (few, less, _), (many, more, by_edge) in pairwise(lists):
        assert many[: len(few)] == few
        assert more >= less - 1e-12
        assert not few or by_edge[len(few) - 1] == pytest.approx(less, abs=1e-12)


@SMALL
@given(traces())
def test_each_edge_is_the_strongest_that_leads_on_when_it_is_chosen(trace: Trace) -> None:
    of = recorded.made(trace, 0)
    for edges in (1, 4):
        before = route_graph(trace, prompt=0, edges=edges, first_token=True)
        after = route_graph(trace, prompt=0, edges=edges + 1, first_token=True)
        if after.attrs["summary"]["edges"] == before.attrs["summary"]["edges"]:
            continue
        flow = np.zeros((len(of.carry), of.carry.shape[1] + 1))
        for row in rows_in(before, "nodes"):
            flow[row["position"], row["depth"]] = row["flow"]
        through = flow[:, 1:, None] * of.share
        for row in rows_in(before, "edges"):
            if row["kind"] == "attention":
                at = int(row["to_position"]), int(row["from_depth"])
                same = (of.edges.source[at] == row["from_position"]) & (of.edges.head[at] == row["head"])
                through[at][same] = 0.0
        new = rows_in(after, "edges")[edges]
        at = int(new["to_position"]), int(new["from_depth"])
        same = (of.edges.source[at] == new["from_position"]) & (of.edges.head[at] == new["head"])
        assert through[at][same] == pytest.approx(through.max(), abs=1e-12)


def test_an_edge_that_takes_away_counts_by_its_size() -> None:
    trace = route_trace(2, layers=1, heads=1, kept=2)
    for name, values in {
        "route_source": [0, 1], "route_head": [0, 0], "route_weight": [-0.5, 0.25],
    }.items():  # fmt: skip
        trace[name][1, 0] = values
    trace["route_other"][1, 0], trace["route_other_size"][1, 0], trace["route_bias"][1, 0] = 0.1, 0.5, -0.25
    trace["route_carry"][1, 0] = 1.4
    graph = route_graph(trace, first_token=True)
    rows = {(row["kind"], row["from_position"]): row for row in rows_in(graph, "edges")}
    whole = 0.5 + 0.25 + 0.5 + 0.25 + 1.4
    assert rows["attention", 0]["flow"] == pytest.approx(0.5 / whole)
    assert (rows["attention", 0]["weight"], rows["attention", 1]["weight"]) == (-0.5, 0.25)
    assert rows["carry-over", 1]["flow"] == pytest.approx(1.4 / whole)
    assert rows["bias", -1]["flow"] == pytest.approx(0.25 / whole)
    assert rows["rest", -1]["flow"] == pytest.approx(0.5 / whole)


def test_edges_from_the_first_token_are_not_shown_but_counted() -> None:
    trace = route_trace(4, layers=2, seed=3)  # so small that all edges are shown
    without, shown = (route_graph(trace, edges=150, first_token=first) for first in (False, True))
    sources = [
        [row["from_position"] for row in rows_in(graph, "edges") if row["kind"] == "attention"]
        for graph in (without, shown)
    ]
    assert 0 not in sources[0]
    assert 0 in sources[1]
    assert without.attrs["summary"]["first_token"] == pytest.approx(shown.attrs["summary"]["first_token"])
    assert without.attrs["summary"]["rest"] == pytest.approx(without.attrs["summary"]["first_token"])  # nothing else


def test_a_layer_that_is_not_split_by_token_is_rest() -> None:
    trace = route_trace(4, layers=2, seed=1)
    for name, nothing in {"route_source": -1, "route_head": -1, "route_weight": np.nan}.items():
        trace[name][:, 1] = nothing
    trace["route_other_size"][:, 1] = 0.4
    trace["route_carry"][:, 1] = 0.6
    graph = route_graph(trace)
    (top,) = [row for row in rows_in(graph, "nodes") if row["depth"] == 2]
    assert top["rest"] == pytest.approx(0.4)
    assert graph.attrs["summary"]["unsplit"] == [1]


def test_a_block_without_an_mlp_passes_all_on() -> None:
    trace = route_trace(4, layers=2, seed=1)
    trace["route_mlp"][:, 1] = np.nan
    rows = rows_in(route_graph(trace), "edges")
    assert [row["to_depth"] for row in rows if row["kind"] == "mlp" and row["to_position"] == 3] == [1]


def test_the_way_ends_where_the_model_answers_or_at_the_token_that_is_named() -> None:
    trace = route_trace(5, 9, layers=2, generated=2)
    assert route_graph(trace, prompt="p1").attrs["summary"]["token"] == 6
    graph = route_graph(trace, prompt="p1", token=4)
    assert graph.attrs["summary"]["token"] == 4
    assert table_in(graph, "tokens")["position"].values.max() == 4


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"token": 9}, "no position 9"),
        ({"token": 8, "prompt": "p1"}, "no route of position 8"),
        ({"prompt": "x"}, "no prompt called"),
        ({"edges": 0}, "too small"),
        ({"edges": 151}, "more than a picture"),
    ],
)
def test_what_is_not_there_is_refused(arguments: dict[str, object], what: str) -> None:
    trace = route_trace(5, 9, layers=2, generated=2)
    with pytest.raises(StratoscopeError, match=what):
        route_graph(trace, **arguments)  # type: ignore[arg-type]


def test_what_was_cut_or_not_recorded_is_refused_with_what_to_do() -> None:
    trace = route_trace(5, layers=3)
    for cut, what in (
        (trace.isel(layer=slice(1, 3)), "all layers"),
        (trace.isel(token=slice(1, 5)), "all tokens"),
        (trace.drop_vars("route_carry"), "lacks route_carry"),
    ):
        with pytest.raises(StratoscopeError, match=what):
            route_graph(cut)
    with pytest.raises(StratoscopeError, match="no routes are recorded") as caught:
        route_graph(trace.drop_vars(list(trace.data_vars)))
    assert "--record routes" in caught.value.fix


def test_values_that_no_trace_can_hold_are_none_and_warn_of_nothing(recwarn: pytest.WarningsRecorder) -> None:
    whole = stratoscope.simulate(prompts=1, layers=3, record="routes,effects")
    for name in ("route_head", "route_effect_head"):
        whole[name][:, :, ..., 0] = -5
        whole[name][:, :, ..., 1] = 10_000
    whole["route_effect_other_size"][:] = np.inf
    for target in (None, 0):
        edges = stratoscope.route_graph(whole, prompt=0, target=target)["edges"]
        heads = edges["head"].values[edges["kind"].values == "attention"]
        assert len(heads)
        assert (heads >= 0).all()
        assert (heads < whole.sizes["head"]).all()
    whole["route_carry"][5] = np.nan
    with pytest.raises(InputError, match="Its values are missing in the trace"):
        stratoscope.route_graph(whole, prompt=0, token=5)
    assert not [one for one in recwarn if issubclass(one.category, RuntimeWarning)]
