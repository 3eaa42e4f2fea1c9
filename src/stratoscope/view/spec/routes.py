"""Routes on the grid of tokens × depths, as a ViewSpec holds them: nodes, edges between them, and what is not shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stratoscope.view.spec.buffers import Flags, Indices, Numbers
from stratoscope.view.spec.document import Json
from stratoscope.view.spec.look import Look
from stratoscope.view.spec.maps import DrawnQuantity

ATTENTION, CARRY_OVER, MLP = range(3)  # as `edge_kind`: places in names.ROUTE_KINDS
LEAST_MLP = 0.01  # share of the whole that runs through an MLP which is marked


@dataclass(frozen=True, eq=False)
class RouteSides:
    """The edges of two prompts, matched; an edge that one does not have among its recorded ones is not zero there.

    Attributes
    ----------
    a, b
        Weight of each edge in either prompt, NaN = not recorded, [edge].
    most
        How large the one that is not recorded may be, NaN = not known, as where one of its tokens is in one prompt
        only, [edge].
    """

    a: Numbers
    b: Numbers
    most: Numbers


@dataclass(frozen=True, eq=False)
class RouteNeurons:
    """The strongest neurons of MLPs that write into nodes.

    Attributes
    ----------
    size_label
        What they are ranked by.
    node
        Node that each writes into, ascending, [neuron].
    neuron, expert
        Its number and whose it is, −1 = of no expert, [neuron].
    value, size
        Its activation, NaN = not recorded, and what it is ranked by, [neuron].
    promotes
        Tokens whose logits it raises most, in words; "" = not recorded, [neuron].
    """

    size_label: str
    node: Indices
    neuron: Indices
    expert: Indices
    value: Numbers
    size: Numbers
    promotes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class RoutePanel:
    """The routes of one prompt: ways through its tokens that end in one of them.

    Attributes
    ----------
    title, detail
        What stands above it.
    start, stop
        Its tokens: rows of the picture's table of tokens; each has a column.
    left_out
        How many tokens of the prompt have no column: before each one, and behind the last; of shape (columns + 1,).
    end
        Column of the token whose stream is followed back, at the highest depth.
    covered
        Share of the whole that runs along what is shown; a difference has no whole: None, as the next three.
    rest
        1 − covered.
    first_token
        Share of the whole that comes from the prompt's first token, shown or not.
    bias
        Share of the whole that comes from biases; part of the rest.
    there, in_view
        Share of the whole that there is at each depth, and that runs through what is shown, [depth].
    node_column, node_depth
        Where each node is, [node].
    node_flow, node_rest
        Share of the whole that runs through it, and of that what is lost from view there, [node].
    to_column, to_depth
        Node in which each edge ends, [edge].
    from_column, from_depth
        Node where it begins, −1 = none: of biases and of the rest, [edge].
    edge_kind
        What it is: index into attention, carry-over, mlp, bias, rest, [edge].
    head
        Which head, −1 = none, [edge].
    weight
        How much it brings, with its sign, NaN = not known, [edge].
    flow
        Share of the whole that runs through it, NaN = not known, [edge]. What runs through an MLP runs through the
        other edges of its node too, which are what the MLP reads.
    covered_by
        Share of the whole that is covered with this edge and those before it, NaN where it is of no head, [edge].
    unmatched
        1 where the other prompt has no equal token, 0 where there is no other prompt, [column].
    neurons
        Where they are recorded.
    sides
        Of a difference; then `weight` is B − A, NaN where one of both is not recorded, and nothing is known of a whole.
    """

    title: str
    detail: str
    start: int
    stop: int
    left_out: Indices
    end: int
    covered: float | None
    rest: float | None
    first_token: float | None
    bias: float | None
    there: Numbers
    in_view: Numbers
    node_column: Indices
    node_depth: Indices
    node_flow: Numbers
    node_rest: Numbers
    to_column: Indices
    to_depth: Indices
    from_column: Indices
    from_depth: Indices
    edge_kind: Flags
    head: Indices
    weight: Numbers
    flow: Numbers
    covered_by: Numbers
    unmatched: Flags
    neurons: RouteNeurons | None = None
    sides: RouteSides | None = None

    @property
    def columns(self) -> int:
        """How many tokens have a column."""
        return self.stop - self.start

    @property
    def of_heads(self) -> NDArray[np.bool_]:
        """Which edges are of heads, [edge]."""
        of_heads: NDArray[np.bool_] = self.edge_kind == ATTENTION
        return of_heads


@dataclass(frozen=True)
class Routes:
    """Along which edges tokens came about, one panel a prompt.

    Attributes
    ----------
    weight
        What the weight of an edge of a head is; its rows are the depths, 0 = the embeddings.
    whole
        What the whole is of which shares are told, in words.
    widest
        Size of a weight at which an edge is drawn as wide as any.
    panels
        What is drawn, side by side.
    called
        What the two prompts of a difference, B − A, are called.
    """

    weight: DrawnQuantity
    whole: str
    widest: float
    panels: tuple[RoutePanel, ...]
    called: tuple[str, ...] = ()
    kind: Literal["routes"] = "routes"

    @property
    def depths(self) -> int:
        """How many rows a panel has."""
        return len(self.weight.rows)

    def shown(self, look: Look) -> Mapping[str, Json]:
        """How the numbers became this picture."""
        return {
            "weight": {
                "name": self.weight.name,
                "label": self.weight.label,
                "unit": self.weight.unit,
                "formula": self.weight.formula,
            },
            "whole": self.whole,
            "panels": [
                {
                    "title": panel.title,
                    "covered": panel.covered,
                    "rest": panel.rest,
                    "first_token": panel.first_token,
                    "bias": panel.bias,
                    "edges": int(panel.of_heads.sum()),
                }
                for panel in self.panels
            ],
        }
