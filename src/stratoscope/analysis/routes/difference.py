"""Two prompts' routes, edge by matched edge: B − A where both are recorded, else in which prompt and how large at most.

Edges are matched where both ends are: at tokens that are equal in both prompts and stand in one column. An edge that is
not among the recorded ones of a prompt is not zero there. It is no larger than the smallest that is recorded into the
same token and layer, nor than all that are not recorded together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope.analysis.results.result import table_in
from stratoscope.analysis.routes.recorded import Edges
from stratoscope.analysis.values.align import GAP, Alignment
from stratoscope.trace.arrays import Floats, Ints

if TYPE_CHECKING:
    import xarray as xr

ATTENTION, MLP = "attention", "mlp"


@dataclass(frozen=True, eq=False)
class Side:
    """The routes of one of two prompts.

    Attributes
    ----------
    graph
        Its route graph.
    edges
        What its trace holds of heads.
    other
        Sum of the sizes of all edges that are not recorded, [token, layer].
    own
        Weights of "carry-over" and "mlp", which are all recorded, [token, layer]; none where they are not known.
    """

    graph: xr.DataTree
    edges: Edges
    other: Floats
    own: Mapping[str, Floats]


@dataclass(frozen=True, eq=False)
class Difference:
    """Edges of either graph, those that were chosen earlier in front.

    Attributes
    ----------
    to_column, to_depth, from_column, from_depth
        Where each ends and begins, in columns of the alignment, [edge].
    kind, head
        What it is, [edge].
    a, b
        Its weight in either prompt, NaN = not recorded, [edge].
    most
        How large it may be where it is not recorded; NaN where it is recorded in both, or has no counterpart as one of
        its tokens has none, [edge].
    """

    to_column: Ints
    to_depth: Ints
    from_column: Ints
    from_depth: Ints
    kind: tuple[str, ...]
    head: Ints
    a: Floats
    b: Floats
    most: Floats

    @property
    def difference(self) -> Floats:
        """B − A; NaN where either is not recorded; [edge]."""
        return self.b - self.a

    @property
    def is_bounded(self) -> NDArray[np.bool_]:
        """Which have a counterpart that is not recorded, and so is only known to be small; [edge]."""
        bounded: NDArray[np.bool_] = np.isfinite(self.most)
        return bounded

    def at(self, which: Sequence[bool]) -> Difference:
        """Some of the edges."""
        kept = np.asarray(which, bool)
        arrays = (self.to_column, self.to_depth, self.from_column, self.from_depth)
        to_column, to_depth, from_column, from_depth = (one[kept] for one in arrays)
        kind = tuple(one for one, is_kept in zip(self.kind, which, strict=True) if is_kept)
        a, b, most = (one[kept] for one in (self.a, self.b, self.most))
        return Difference(to_column, to_depth, from_column, from_depth, kind, self.head[kept], a, b, most)


@dataclass(frozen=True, order=True)
class _Edge:
    """An edge as both prompts know it: its ends in columns of the alignment; `only` one prompt has it, "" = both."""

    to_column: int
    to_depth: int
    from_column: int
    from_depth: int
    kind: str
    head: int
    only: str = ""


def difference(a: Side, b: Side, columns: Alignment) -> Difference:
    """The edges of two graphs, matched."""
    order: dict[_Edge, int] = {}
    for side, places, name in ((a, columns.a, "a"), (b, columns.b, "b")):
        for rank, edge in enumerate(_edges_in(side, _columns_of(places), columns.equal, name)):
            order[edge] = min(rank, order.get(edge, rank))
    found = sorted(order, key=lambda one: (order[one], one))
    pairs = [(_at(a, columns.a, one, "a"), _at(b, columns.b, one, "b")) for one in found]
    weights = np.array([(in_a.weight, in_b.weight) for in_a, in_b in pairs], float).reshape(-1, 2)
    most = [in_a.most if np.isnan(in_a.weight) else in_b.most for in_a, in_b in pairs]
    places = np.array([(one.to_column, one.to_depth, one.from_column, one.from_depth, one.head) for one in found])
    to_column, to_depth, from_column, from_depth, head = places.reshape(-1, 5).T
    return Difference(
        to_column,
        to_depth,
        from_column,
        from_depth,
        kind=tuple(one.kind for one in found),
        head=head,
        a=weights[:, 0],
        b=weights[:, 1],
        most=np.array(most, float),
    )


def _columns_of(places: NDArray[np.int64]) -> Ints:
    """Place in the prompt → column."""
    there = np.flatnonzero(places != GAP)
    found = np.empty(len(there), np.int64)
    found[places[there]] = there
    return found


def _edges_in(side: Side, column: Ints, equal: NDArray[np.bool_], name: str) -> Iterator[_Edge]:
    """The edges of a graph that come from a token and whose weights are known, in its order."""
    table = table_in(side.graph, "edges")
    names = ("to_position", "to_depth", "from_position", "from_depth", "kind", "head")
    for to, to_depth, source, from_depth, kind, head in zip(
        *(table[one].values.tolist() for one in names), strict=True
    ):
        if kind == ATTENTION or kind in side.own:
            into, start = int(column[to]), int(column[source])
            matched = bool(equal[into] and equal[start])
            yield _Edge(into, to_depth, start, from_depth, str(kind), head, "" if matched else name)


@dataclass(frozen=True)
class _Known:
    """What is known of an edge in a prompt: its weight, else how large it may be."""

    weight: float = np.nan
    most: float = np.nan


def _at(side: Side, places: NDArray[np.int64], edge: _Edge, name: str) -> _Known:
    if edge.only not in ("", name):
        return _Known()
    to, source, layer = int(places[edge.to_column]), int(places[edge.from_column]), edge.to_depth - 1
    if edge.kind != ATTENTION:
        return _Known(float(side.own[edge.kind][to, layer]))
    sources, heads, weights = (one[to, layer] for one in (side.edges.source, side.edges.head, side.edges.weight))
    here = np.flatnonzero((sources == source) & (heads == edge.head))
    if len(here):
        return _Known(float(weights[here[0]]))
    smallest = np.abs(weights[sources >= 0]).min(initial=np.inf)
    return _Known(most=float(min(smallest, side.other[to, layer])))
