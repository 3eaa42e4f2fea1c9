"""The command `simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import stratoscope
from stratoscope import defaults
from stratoscope.doors import console, options
from stratoscope.doors.progress import progress

_TOKENS = "-".join(map(str, defaults.SIMULATED_TOKENS))
_RECORD = ",".join(defaults.SIMULATED_RECORD)

Like = Annotated[
    Path | None,
    typer.Option(
        "--like",
        metavar="PUBLISHED",
        help="Make a look-alike of a recording, from its published class profiles and nothing else.",
    ),
]
Prompts = Annotated[
    int | None,
    typer.Option(
        "--prompts",
        metavar="N",
        min=1,
        help="How many, in pairs of a critical and a neutral twin; by default "
        f"{defaults.SIMULATED_PROMPTS}, or as many as published.",
    ),
]
Tokens = Annotated[
    str | None,
    typer.Option(
        "--tokens", metavar="N|N-M", help=f"How many per prompt, or a range; by default {_TOKENS}, or as published."
    ),
]
LayerCount = Annotated[
    int | None,
    typer.Option(
        "--layers",
        metavar="N",
        min=1,
        help=f"Layers of the simulated model; by default {defaults.SIMULATED_LAYERS}, or those of the published one.",
    ),
]
ModelWidth = Annotated[
    int | None,
    typer.Option(
        "--d-model",
        metavar="N",
        min=1,
        help=f"Width of its residual stream; by default {defaults.SIMULATED_D_MODEL}.",
    ),
]
NeuronCount = Annotated[
    int | None,
    typer.Option(
        "--d-ff", metavar="N", min=1, help=f"Neurons of each of its MLPs; by default {defaults.SIMULATED_D_FF}."
    ),
]
HeadCount = Annotated[
    int | None,
    typer.Option(
        "--heads",
        metavar="N",
        min=1,
        help=f"Attention heads of each of its layers; by default {defaults.SIMULATED_HEADS}.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="The same seed gives the same trace.")]
Anomaly = Annotated[bool, typer.Option("--anomaly/--no-anomaly", help="Route one head of one prompt oddly.")]
LensPositions = Annotated[
    str | None,
    typer.Option("--positions", metavar="answer|all", help="With lens: read it at the last four tokens, or at all."),
]


def simulate(
    out: options.TraceOut,
    like: Like = None,
    prompts: Prompts = None,
    tokens: Tokens = None,
    layers: LayerCount = None,
    d_model: ModelWidth = None,
    d_ff: NeuronCount = None,
    heads: HeadCount = None,
    top_k: options.TopK = defaults.TOP_K,
    seed: Seed = defaults.SEED,
    anomaly: Anomaly = defaults.ANOMALY,
    record: options.Record = _RECORD,
    targets: options.Targets = None,
    against: options.Against = None,
    positions: LensPositions = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Write a labelled synthetic trace.

    What is planted in it (class-selective neurons, a sink token, an oddly routed head) is listed by `info`. With --like
    it has the shape of a real one, follows from published averages and the seed alone, and has only the sink planted.
    """
    asked = options.given(locals()) | {"targets": options.several_texts(targets)}
    with progress() as show:
        stratoscope.simulate(**asked, progress=show)
    console.tell_path(out)
