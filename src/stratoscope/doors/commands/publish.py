"""The command `publish`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import stratoscope
from stratoscope import defaults, names
from stratoscope.doors import console, options
from stratoscope.doors.progress import progress
from stratoscope.errors import UsageError

if TYPE_CHECKING:
    from stratoscope.publish.explained import Explanation, What

_TITLES: dict[What, str] = {
    "published": "Would be published",
    "averaged": "Would be published as means over a class",
    "left out": "Would be left out",
}

Source = Annotated[
    list[Path],
    typer.Argument(metavar="INPUT", help="A trace, a result, CSV files, pictures and pages, or a folder of them."),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="OUT", help="What to write, in a folder that exists.")]
HowMuch = Annotated[str, typer.Option("--level", help=f"How much to keep: {', '.join(names.LEVELS)}.")]
Traces = Annotated[
    list[Path] | None,
    typer.Option("--trace", metavar="TRACE", help="Draw pictures and pages of this trace again; repeatable."),
]
ChatTemplate = Annotated[
    bool,
    typer.Option("--chat-template/--no-chat-template", help="Keep the chat template at the level provenance."),
]
PrivateModel = Annotated[
    bool,
    typer.Option(
        "--private-model",
        help="Leave out what names the model, and all from which columns of its weights can be solved.",
    ),
]
Quantities = Annotated[
    list[str] | None,
    typer.Option("--quantity", metavar="NAME", help="Publish class means of this quantity; repeatable."),
]
Neurons = Annotated[
    bool, typer.Option("--neurons", help="At aggregate, publish the mean of each neuron too: it tells far more.")
]
Epsilon = Annotated[
    float | None,
    typer.Option(
        "--epsilon",
        help=f"At private, how much one prompt may change what comes out; without it {defaults.EPSILON:g}.",
    ),
]
Delta = Annotated[
    float | None,
    typer.Option("--delta", help=f"At private, the chance that it changes more; without it {defaults.DELTA:g}."),
]
Clip = Annotated[
    float | None,
    typer.Option(
        "--clip",
        help=f"At private, how far from the centre a prompt counts, over what is usual; without it {defaults.CLIP:g}.",
    ),
]
Centre = Annotated[
    Path | None,
    typer.Option("--centre", metavar="RESULT", help="At private, class means that were published of other prompts."),
]
Bands = Annotated[
    int | None,
    typer.Option("--bands", metavar="N", min=1, help="At private, average the layers in this many runs."),
]
AllowOverlap = Annotated[
    bool, typer.Option("--allow-overlap", help="Publish prompts again that were published before; it says the cost.")
]
Explain = Annotated[bool, typer.Option("--explain", help="Only say what would be published and what left out.")]


def publish(
    source: Source,
    out: Out = None,
    level: HowMuch = defaults.LEVEL,
    trace: Traces = None,
    chat_template: ChatTemplate = defaults.CHAT_TEMPLATE,
    private_model: PrivateModel = False,
    quantity: Quantities = None,
    prompt_class: options.PromptClass = None,
    neurons: Neurons = False,
    epsilon: Epsilon = None,
    delta: Delta = None,
    clip: Clip = None,
    centre: Centre = None,
    bands: Bands = None,
    allow_overlap: AllowOverlap = False,
    overwrite: options.Overwrite = False,
    explain: Explain = False,
    as_json: options.Json = False,
) -> None:
    """Rewrite a trace, a result, a table or a picture for others.

    A level says how much of it stays, and what that promises; nothing is published without -o.
    """
    asked = options.given(locals(), "explain", "as_json")
    if explain:
        from stratoscope.publish.publish import explain_publication

        if len(source) > 1:
            raise UsageError("one input is explained at a time", where="--explain", fix="Give one.")
        found = explain_publication(
            source[0], level=asked["level"], trace=trace, chat_template=chat_template, private_model=private_model
        )
        console.tell_json(found.to_json()) if as_json else _tell(found)
        return
    if out is None:
        raise UsageError("no output is given", where="--out", fix="Name what to write with -o, or ask with --explain.")
    with progress() as show:
        done = stratoscope.publish(**asked, progress=show)
    if as_json:
        console.tell_json({"out": str(done.out), "kind": done.kind, "level": done.level, "promise": done.promise,
                           "told": list(done.told)})  # fmt: skip
        return
    console.tell(f"{done.level}: {done.promise}")
    for sentence in done.told:
        console.remark(sentence)
    console.tell_path(done.out)


def _tell(found: Explanation) -> None:
    """What goes and what stays, by the reason."""
    console.tell(f"{found.level}: {found.promise}")
    if found.refused:
        console.tell(f"It would be refused: {found.refused}")
    for what, title in _TITLES.items():
        rows = found.names(what)
        if rows:
            console.tell(f"{title}:")
        for why, held in rows.items():
            console.tell(f"  {', '.join(held)}: {why}")
    for name, how in found.of_weights.items():
        console.tell(f"Private weights could be solved for: {name}: {how}; --private-model leaves it out.")
    for sentence in found.named:
        console.tell(sentence)
