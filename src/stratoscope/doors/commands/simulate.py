"""The command `simulate`."""

from __future__ import annotations

from typing import Annotated

import typer

import stratoscope
from stratoscope import defaults
from stratoscope.doors import console, options
from stratoscope.doors.progress import progress

Prompts = Annotated[
    int, typer.Option("--prompts", metavar="N", min=1, help="How many, in pairs of a critical and a neutral twin.")
]
Tokens = Annotated[str, typer.Option("--tokens", metavar="N|N-M", help="How many per prompt, or a range.")]
LayerCount = Annotated[int, typer.Option("--layers", metavar="N", min=1, help="Layers of the simulated model.")]
ModelWidth = Annotated[int, typer.Option("--d-model", metavar="N", min=1, help="Width of its residual stream.")]
NeuronCount = Annotated[int, typer.Option("--d-ff", metavar="N", min=1, help="Neurons of each of its MLPs.")]
HeadCount = Annotated[int, typer.Option("--heads", metavar="N", min=1, help="Attention heads of each of its layers.")]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="The same seed gives the same trace.")]
Anomaly = Annotated[bool, typer.Option("--anomaly/--no-anomaly", help="Route one head of one prompt oddly.")]
LensPositions = Annotated[
    str | None,
    typer.Option("--positions", metavar="answer|all", help="With lens: read it at the last four tokens, or at all."),
]

_TOKENS = "-".join(map(str, defaults.SIMULATED_TOKENS))
_RECORD = ",".join(defaults.SIMULATED_RECORD)


def simulate(
    out: options.TraceOut,
    prompts: Prompts = defaults.SIMULATED_PROMPTS,
    tokens: Tokens = _TOKENS,
    layers: LayerCount = defaults.SIMULATED_LAYERS,
    d_model: ModelWidth = defaults.SIMULATED_D_MODEL,
    d_ff: NeuronCount = defaults.SIMULATED_D_FF,
    heads: HeadCount = defaults.SIMULATED_HEADS,
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

    What is planted in it (class-selective neurons, a sink token, an oddly routed head) is listed by `info`.
    """
    asked = options.given(locals()) | {"targets": options.several_texts(targets)}
    with progress() as show:
        stratoscope.simulate(**asked, progress=show)
    console.tell_path(out)
