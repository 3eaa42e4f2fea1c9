"""The command `ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import stratoscope
from stratoscope import defaults, names
from stratoscope.doors import console, options, tables
from stratoscope.doors.progress import progress
from stratoscope.words import number

if TYPE_CHECKING:
    import xarray as xr

Neurons = Annotated[
    str,
    typer.Option(
        "--neurons",
        metavar="LAYER:NEURON,…",
        help="Neurons to ablate: 22:394,23:4036. In a mixture of experts they are numbered through, experts one after "
        "the other.",
    ),
]
Heads = Annotated[str, typer.Option("--heads", metavar="LAYER:HEAD,…", help="Attention heads to ablate: 5:3.")]
How = Annotated[
    names.How,
    typer.Option(
        "--how",
        help="What they are set to: their mean over all tokens but first ones, what they are in another prompt at the "
        "same distance from its end, or zero.",
    ),
]
Positions = Annotated[
    names.Positions, typer.Option("--positions", help="At all tokens of a prompt, or at its last alone.")
]
Cumulative = Annotated[
    int | None,
    typer.Option(
        "--cumulative",
        metavar="K",
        min=1,
        help="Ablate the K strongest one after the other: of those named, or, where none is, of all neurons.",
    ),
]
MeanOf = Annotated[
    Path | None,
    typer.Option("--mean-of", metavar="TRACE", help="Set neurons to the means of this trace, not of these prompts."),
]
Draws = Annotated[
    int,
    typer.Option(
        "--draws", metavar="N", min=1, help="How many random neurons, directions, orders, and other prompts are drawn."
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="The same seed draws the same.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FILE", help="A table of every prompt, .csv, or a picture: .png, .svg, .pdf."),
]


def ablate(
    model: options.Model,
    prompts: options.PromptsFile,
    out: Out = None,
    neurons: Neurons = "",
    heads: Heads = "",
    how: How = defaults.HOW,
    positions: Positions = defaults.ABLATED_POSITIONS,
    targets: options.Targets = None,
    against: options.Against = None,
    answer_prefix: options.AnswerPrefix = None,
    openers: options.Openers = None,
    cumulative: Cumulative = None,
    mean_of: MeanOf = None,
    draws: Draws = defaults.ABLATION_DRAWS,
    seed: Seed = defaults.SEED,
    column: options.Column = None,
    chat: options.Chat = False,
    date: options.Date = None,
    batch_size: options.BatchSize = defaults.BATCH_SIZE,
    dtype: options.Dtype = None,
    device: options.Device = None,
    device_map: options.DeviceMap = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    theme: options.ColourTheme = defaults.THEME,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Set neurons and heads to other values in memory, and read off the logits what that changes.

    Beside it stand random neurons and heads like them, random directions of equal norm, and what another batch size
    changes. No text is generated and no weight is touched.
    """
    asked = options.given(locals(), "out", "theme", "as_json", "overwrite")
    asked |= {"openers": options.several_texts(openers), "targets": options.several_texts(targets)}
    asked |= {"neurons": neurons or (), "heads": heads or ()}
    from stratoscope.probe.ablation.asked import AblateArguments
    from stratoscope.view.charts.ablation import check_out, save

    check_out(out, overwrite=overwrite, inputs=[prompts])
    checked = AblateArguments(**asked)
    checked.settings()  # mistakes show before the prompts are read, and those before torch is imported
    found_prompts = checked.read_prompts()
    for remark in found_prompts.remarks:
        console.remark(remark)
    with progress() as show:
        found = stratoscope.ablate(**{**asked, "prompts": found_prompts, "column": None}, progress=show)
    if out is not None:
        save(found, out, theme=theme, overwrite=overwrite)
    if as_json:
        console.tell_json(_as_json(found) | {"written": [] if out is None else [str(out)]})
        return
    width = tables.terminal_width()
    for heading, rows in _tables(found):
        console.tell_text(f"{tables.table(heading, rows, right=heading[2:], width=width)}\n")
    for line in (found.attrs["found"], *found.attrs["remarks"], _WORDS):
        console.tell_text(tables.wrapped(console.one_line(line), width))
    if out is not None:
        console.tell_path(out)
