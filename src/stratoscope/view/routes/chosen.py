"""The route graphs that a picture, a page or a file of routes shows: of one prompt, or of two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stratoscope import defaults
from stratoscope.analysis.routes.graph import route_graph
from stratoscope.analysis.values.align import GAP, align, token_keys
from stratoscope.errors import InputError, UsageError
from stratoscope.trace.arguments import several
from stratoscope.trace.opened import opened
from stratoscope.trace.prompts import some_prompts
from stratoscope.trace.targets import one_target
from stratoscope.view.routes.build import routes_spec
from stratoscope.view.routes.compare import two_spec
from stratoscope.view.spec.look import PLAIN, Look
from stratoscope.view.spec.page import PLAIN_PAGE, Page
from stratoscope.view.spec.viewspec import ViewSpec

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.trace.opened import Inputs
    from stratoscope.trace.prompts import PromptChoice
    from stratoscope.trace.targets import TargetChoice

_NAME_TWO = "Name two: `--prompt A --prompt B`."


@dataclass(frozen=True, eq=False)
class Routed:
    """What is shown of a trace: its route graphs, and whether their difference is."""

    dataset: xr.Dataset
    graphs: tuple[xr.DataTree, ...]
    difference: bool

    def spec(self, look: Look = PLAIN, page: Page = PLAIN_PAGE) -> ViewSpec:
        """The ViewSpec."""
        if len(self.graphs) == 1:
            return routes_spec(self.dataset, self.graphs[0], look, page)
        a, b = self.graphs
        return two_spec(self.dataset, (a, b), look, page, with_difference=self.difference)


def routed(
    inputs: Inputs,
    *,
    prompt: PromptChoice = None,
    token: int | None = None,
    target: TargetChoice = None,
    edges: int = defaults.ROUTE_EDGES,
    first_token: bool = defaults.FIRST_TOKEN,
    difference: bool = False,
) -> Routed:
    """Choose the edges of one or two prompts.

    Raises
    ------
    InputError
        There are no routes, or there is no such prompt, token or target.
    UsageError
        A difference is asked for of other than two prompts.
    """
    dataset = opened(inputs)
    wanted: list[Any] = [None] if prompt is None else several(prompt, "prompt", "'critical-1'")
    if len(wanted) > 2:
        raise UsageError(f"{len(wanted)} prompts, and at most two stand side by side", where="prompt", fix=_NAME_TWO)
    if difference and len(wanted) != 2:
        raise UsageError("a difference is of two prompts", where="difference", fix=_NAME_TWO)
    ends = [token] if len(wanted) == 1 else _ends(dataset, wanted[0], wanted[1], token)
    graphs = tuple(
        route_graph(dataset, prompt=one, token=end, target=target, edges=edges, first_token=first_token)
        for one, end in zip(wanted, ends, strict=True)
    )
    held = dataset if target is None else one_target(dataset, ["route_effect"], target)
    return Routed(held, graphs, difference)


def _ends(dataset: xr.Dataset, one: str | int, other: str | int, token: int | None) -> list[int | None]:
    """Where the ways of two prompts end: at a token of the first, and at that of the second which stands beside it."""
    prompts = some_prompts(dataset)
    a, b = prompts.find(one), prompts.find(other)
    if a == b:
        raise UsageError("one prompt is named twice, and nothing differs from itself", where="prompt", fix=_NAME_TWO)
    if token is None:
        return [None, None]
    columns = align(*(token_keys(dataset, prompts.tokens(place)) for place in (a, b)))
    beside = columns.b[columns.a == token]
    if not len(beside) or beside[0] == GAP:
        what = f"no token of {prompts.labels[b]} stands beside token {token} of {prompts.labels[a]}"
        raise InputError(what, where="token", fix="Choose one that both prompts have, or leave it out.")
    return [token, int(beside[0])]
