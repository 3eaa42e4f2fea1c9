"""The command `routes`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import stratoscope
from stratoscope import defaults, names
from stratoscope.doors import console, options, recorded

if TYPE_CHECKING:
    import xarray as xr

Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help="What to write: a picture (.png, .svg, .pdf), an interactive page (.html), or the graph as Neuronpedia's "
        "viewer reads it (.json); by default NAME-routes.png.",
    ),
]
Prompts = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt",
        metavar="ID|INDEX",
        help="Which prompt, by id or place (0 = first); twice for two, aligned. By default the first.",
    ),
]
Token = Annotated[
    int | None,
    typer.Option(
        "--token",
        metavar="POSITION",
        help="The token whose stream is followed back; by default the one from which the model answers.",
    ),
]
Towards = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="TEXT|INDEX",
        help="Weigh edges by what they bring to the logit of this recorded target; of a model, --targets names those "
        "to record.",
    ),
]
Edges = Annotated[
    int | None,
    typer.Option(
        "--edges",
        metavar="N",
        min=1,
        max=defaults.ROUTE_EDGES,
        help=f"At most so many edges of heads; by default {defaults.STILL_ROUTE_EDGES} on a still picture, "
        f"{defaults.ROUTE_EDGES} on a page or in a graph.",
    ),
]
FirstToken = Annotated[
    bool, typer.Option("--first-token", help="Show edges from the first token, too; they are counted either way.")
]

Difference = Annotated[
    bool, typer.Option("--difference", help="Of two prompts also the second minus the first, edge by matched edge.")
]


def routes(
    inputs: options.TraceOrModel,
    text: options.ModelText = None,
    out: Out = None,
    prompt: Prompts = None,
    token: Token = None,
    target: Towards = None,
    edges: Edges = None,
    first_token: FirstToken = defaults.FIRST_TOKEN,
    difference: Difference = False,
    theme: options.ColourTheme = defaults.THEME,
    width: options.PageWidth = None,
    font_size: options.FontSize = None,
    title: options.PageTitle = None,
    caption: options.CaptionPlace = defaults.CAPTION,
    targets: options.Targets = None,
    against: options.Against = None,
    answer_prefix: options.AnswerPrefix = None,
    chat: options.Chat = False,
    dtype: options.Dtype = None,
    device: options.Device = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Draw along which edges a token's stream came about.

    An edge is what one head brings from one token to another in one layer. A trace must hold them (`capture --record
    routes`); of a model and a text they are recorded first, with --targets what they bring to these, too.
    """
    asked = recorded.asked_of_a_model(locals())
    drawn = options.given(locals(), "inputs", "text", "as_json", "asked", *recorded.OF_A_MODEL)
    drawn["out"] = out or (None if as_json else Path(f"{recorded.stem(inputs)}-routes.png"))
    recorded.check(inputs, text, asked, target)
    _check(drawn["out"], inputs, overwrite=overwrite, caption=caption == "file")
    explained = any(asked[name] is not None for name in recorded.OF_TARGETS)
    record = [names.ROUTES, *([names.EFFECTS] if explained else [])]
    if drawn["out"] is not None and drawn["out"].suffix.lower() == ".html":
        record.append(names.PEAKS)  # a page names the neurons of each node
    if explained and target is None and not recorded.is_trace(inputs):
        drawn["target"] = 0
    with recorded.trace_of(inputs, text, record, asked) as trace:
        if drawn["out"] is not None:
            stratoscope.routes(trace, **drawn)
        if as_json:
            from stratoscope.view.routes.chosen import routed

            if edges is None:
                drawn["edges"] = _usual_edges(drawn["out"])
            chosen = {name: drawn[name] for name in ("prompt", "token", "target", "edges", "first_token", "difference")}
            console.tell_json(_told(routed(trace, **chosen).graphs, drawn["out"]))
    if drawn["out"] is not None and not as_json:
        console.tell_path(drawn["out"])


def _told(graphs: Sequence[xr.DataTree], out: Path | None) -> dict[str, Any]:
    """Route graphs as JSON: of one prompt its facts, of two those of each."""
    facts = [_facts(graph) for graph in graphs]
    written = {"written": [] if out is None else [str(out)]}
    return {**facts[0], **written} if len(facts) == 1 else {"graphs": facts, **written}


def _facts(graph: xr.DataTree) -> dict[str, Any]:
    """A route graph: what it says of itself, and its tables row by row."""
    from stratoscope.analysis.results.result import rows_in

    tables = {name: rows_in(graph, name) for name in graph.children}
    attrs = {str(name): value for name, value in graph.attrs.items()}
    return {**attrs, **tables}


def _usual_edges(out: Path | None) -> int:
    """As many edges as are written where nobody asks; a graph alone has all."""
    from stratoscope.view.routes import files

    return defaults.ROUTE_EDGES if out is None else files.usual_edges(out)


def _check(out: Path | None, given: str, *, overwrite: bool, caption: bool) -> None:
    """Refuse a picture that may not be written before a model is loaded."""
    if out is not None:
        from stratoscope.view.routes import files

        files.check(out, overwrite=overwrite, inputs=[given], caption=caption)
