"""The command `contrast`."""

from __future__ import annotations

from typing import Annotated

import typer

from stratoscope import defaults, names
from stratoscope.doors import console, options

ClassA = Annotated[
    str | None, typer.Option("--a", metavar="CLASS", help="One class of prompts; without it the first of the two.")
]
ClassB = Annotated[str | None, typer.Option("--b", metavar="CLASS", help="The other; differences are a − b.")]
Statistic = Annotated[
    names.Statistic,
    typer.Option("--statistic", help="What of each neuron; extremes need pairs of equally many tokens."),
]
Profiled = Annotated[
    list[str] | None,
    typer.Option(
        "--quantity",
        metavar="NAME",
        help="Compare its profile over the layers, the first also token by token; repeatable.",
    ),
]
OneSpan = Annotated[
    str, typer.Option("--span", metavar="SPAN", help=f"Which tokens profiles are of: {', '.join(names.SPANS)}.")
]
Groups = Annotated[
    bool, typer.Option("--groups/--no-groups", help="Take the prompts of a group for one observation, or each for one.")
]
Unequal = Annotated[
    names.Unequal,
    typer.Option("--unequal", help="Classes of more than 2:1: compare as many of either, or all of them by ranks."),
]
HeldOut = Annotated[
    float,
    typer.Option(
        "--held-out",
        metavar="SHARE",
        help="Of the prompts: they take no part in finding, and measure how large discoveries are. 0 tests all.",
    ),
]
Alpha = Annotated[float, typer.Option("--alpha", metavar="LEVEL", help="Level of discoveries and intervals.")]
Permutations = Annotated[
    int, typer.Option("--permutations", metavar="N", help="Random exchanges for family-wise p-values.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="The same seed makes the same halves and exchanges.")]


def contrast(
    trace: options.Inputs,
    out: options.ResultOut = None,
    columns: options.CsvColumns = None,
    a: ClassA = None,
    b: ClassB = None,
    statistic: Statistic = defaults.STATISTIC,
    quantity: Profiled = None,
    layers: options.Layers = None,
    span: OneSpan = defaults.SPAN,
    groups: Groups = defaults.AVERAGE_GROUPS,
    unequal: Unequal = defaults.UNEQUAL,
    held_out: HeldOut = defaults.HELD_OUT,
    alpha: Alpha = defaults.ALPHA,
    permutations: Permutations = defaults.PERMUTATIONS,
    seed: Seed = defaults.SEED,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Say which differences between two classes of prompts are real.

    Neuron by neuron, layer by layer and token by aligned token; one prompt or one pair is one observation. All are
    tested, and what is not found is said with the effect that would have been. Writes a folder with a report, its
    figures, a table and all numbers.
    """
    from stratoscope.analysis.contrast.contrast import contrast
    from stratoscope.analysis.units import choose_classes
    from stratoscope.trace.opened import opened
    from stratoscope.view.report import check_folder, default_folder, save_result

    dataset = opened(trace, columns)
    first, second = choose_classes(dataset, a, b)
    folder = out or default_folder(trace[0], "contrast", first, second)
    check_folder(folder, overwrite=overwrite)
    with console.progress() as show:
        result = contrast(
            dataset,
            a=first,
            b=second,
            statistic=statistic,
            quantity=quantity or None,
            layers=layers,
            span=span,
            groups=groups,
            unequal=unequal,
            held_out=held_out,
            alpha=alpha,
            permutations=permutations,
            seed=seed,
            progress=show,
        )
        save_result(result, folder, overwrite=overwrite, progress=show)
    console.tell_result(result, folder, as_json=as_json)
