"""Two prompts' routes: what is not recorded of one is never zero there, and its bound is true of what was left out."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from route_traces import route_trace
from stratoscope.analysis.results.result import rows_in
from stratoscope.analysis.routes import recorded
from stratoscope.analysis.routes.difference import Difference, Side, difference
from stratoscope.analysis.routes.graph import route_graph
from stratoscope.analysis.values.align import GAP, Alignment, align

Key = tuple[int, int, int, str, int]


def side(trace: xr.Dataset, prompt: int, *, kept: int = 16) -> Side:
    """The routes of a prompt, of whose trace only so many edges into a node are kept."""
    cut = trace.isel({"route": slice(kept)})
    lost = abs(trace["route_weight"]).isel({"route": slice(kept, None)}).sum("route")
    cut = cut.assign(route_other_size=trace["route_other_size"] + lost)
    of = recorded.made(cut, prompt)
    own = slice(*np.searchsorted(trace["prompt"].values, [prompt, prompt + 1]).tolist())
    other = cut["route_other_size"].values[own].astype(float)
    graph = route_graph(cut, prompt=prompt, edges=40, first_token=True)
    return Side(graph, of.edges, other, {"carry-over": of.carry_weight, "mlp": of.mlp_weight})


def rows(found: Difference) -> dict[Key, tuple[float, float, float]]:
    keys = zip(found.to_column, found.to_depth, found.from_column, found.kind, found.head, strict=True)
    values = zip(found.a, found.b, found.most, strict=True)
    return dict(zip(((int(a), int(b), int(c), d, int(e)) for a, b, c, d, e in keys), values, strict=True))


def columns_of(a: str, b: str) -> Alignment:
    return align(list(a), list(b))


def test_a_prompt_does_not_differ_from_itself() -> None:
    one = side(route_trace(6, layers=3), 0)
    found = difference(one, one, columns_of("abcdef", "abcdef"))
    assert len(found.a) > 20
    assert (found.difference == 0).all()
    assert np.isnan(found.most).all()


def test_a_weight_is_that_of_its_trace_and_one_that_was_left_out_is_below_its_bound() -> None:
    trace = route_trace(7, 7, layers=3, heads=3, seed=2)
    full = [side(trace, prompt) for prompt in (0, 1)]
    found = rows(difference(side(trace, 0, kept=2), side(trace, 1, kept=2), columns_of("abcdefg", "abcdefg")))
    one_only = 0
    for (to, depth, source, kind, head), (a, b, most) in found.items():
        for value, of in zip((a, b), full, strict=True):
            if kind != "attention":
                assert value == of.own[kind][to, depth - 1]
                continue
            edges = of.edges
            here = (edges.source[to, depth - 1] == source) & (edges.head[to, depth - 1] == head)
            true = float(edges.weight[to, depth - 1][here].sum())
            if np.isnan(value):
                one_only += 1
                assert abs(true) <= most * (1 + 1e-6)
            else:
                assert value == true
    assert one_only > 5


def test_a_replaced_token_has_no_twin_and_no_bound() -> None:
    trace = route_trace(6, 6, layers=2, seed=1)
    columns = columns_of("abXdef", "abYdef")
    assert columns.before == 2
    found = difference(side(trace, 0), side(trace, 1), columns)
    touched = (found.to_column == 2) | (found.from_column == 2)
    assert touched.any()
    assert (~touched).any()
    assert np.isnan(found.most[touched]).all()
    assert (np.isnan(found.a[touched]) ^ np.isnan(found.b[touched])).all()
    assert not np.isnan(found.difference[~touched & np.isnan(found.most)]).any()


def test_what_only_one_prompt_has_stands_in_its_own_column() -> None:
    trace = route_trace(5, 7, layers=2, seed=3)
    columns = columns_of("abcde", "abXYcde")
    assert (columns.a == GAP).sum() == 2
    found = difference(side(trace, 0), side(trace, 1), columns)
    inserted = np.isin(found.to_column, [2, 3]) | np.isin(found.from_column, [2, 3])
    assert np.isnan(found.a[inserted]).all()
    assert not np.isnan(found.b[inserted]).any()
    ends = found.to_column[(found.to_depth == 2)]
    assert set(ends.tolist()) == {6}  # both ways end in the last token, one column


@pytest.mark.parametrize("kept", [1, 16])
def test_edges_that_were_chosen_first_stand_in_front(kept: int) -> None:
    trace = route_trace(6, 6, layers=3, seed=5)
    a, b = side(trace, 0, kept=kept), side(trace, 1, kept=kept)
    found = difference(a, b, columns_of("abcdef", "abcdef"))
    first = {
        tuple(
            int(rows_in(one.graph, "edges")[0][name]) for name in ("to_position", "to_depth", "from_position", "head")
        )
        for one in (a, b)
    }
    front = zip(found.to_column, found.to_depth, found.from_column, found.head, strict=True)
    assert first == {tuple(map(int, row)) for row in list(front)[: len(first)]}
