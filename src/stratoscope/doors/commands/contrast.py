"""The command `contrast`."""

from __future__ import annotations

from typing import Annotated

import typer

import stratoscope
from stratoscope import defaults, names
from stratoscope.doors import options, results

ClassA = Annotated[
    str | None, typer.Option("--a", metavar="CLASS", help="One class of prompts; by default the first of the two.")
]
ClassB = Annotated[str | None, typer.Option("--b", metavar="CLASS", help="The other class; differences are a − b.")]
Statistic = Annotated[
    names.Statistic,
    typer.Option("--statistic", help="What is compared of each neuron; extremes need pairs of equally many tokens."),
]
Profiled = Annotated[
    list[str] | None,
    typer.Option(
        "--quantity",
        metavar="NAME",
        help="Compare this quantity over the layers; the first one given also token by token; repeatable.",
    ),
]
OneSpan = Annotated[
    str, typer.Option("--span", metavar="SPAN", help=f"Which tokens the profiles are of: {', '.join(names.SPANS)}.")
]
HeldOut = Annotated[
    float,
    typer.Option(
        "--held-out",
        metavar="SHARE",
        help="Share of the prompts that only measure how large the discoveries are; 0 uses all prompts for the tests.",
    ),
]


def contrast(
    trace: options.Inputs,
    out: options.ResultOut = None,
    columns: options.CsvColumns = None,
    a: ClassA = None,
    b: ClassB = None,
    statistic: Statistic = defaults.STATISTIC,
    quantity: Profiled = None,
    target: options.Target = None,
    layers: options.Layers = None,
    span: OneSpan = defaults.SPAN,
    groups: options.Groups = defaults.AVERAGE_GROUPS,
    unequal: options.Unequal = defaults.UNEQUAL,
    held_out: HeldOut = defaults.HELD_OUT,
    alpha: options.Alpha = defaults.ALPHA,
    permutations: options.Permutations = defaults.PERMUTATIONS,
    seed: options.Seed = defaults.SEED,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Say which differences between two classes are real.

    Classes of prompts are compared neuron by neuron, layer by layer and token by aligned token; each prompt or pair is
    one observation. Where nothing is found, it says how large an effect would have been found. Writes a folder with a
    report, its figures, a table and all numbers.
    """
    asked = options.given(locals(), "trace", "out", "columns", "a", "b", "as_json", "overwrite")
    from stratoscope.analysis.classes.units import choose_classes
    from stratoscope.trace.opened import opened
    from stratoscope.view.report import default_folder

    dataset = opened(trace, columns)
    first, second = choose_classes(dataset, a, b)
    folder = out or default_folder(trace[0], "contrast", first, second)
    found = results.saved(
        lambda show: stratoscope.contrast(dataset, a=first, b=second, **asked, progress=show),
        folder,
        overwrite=overwrite,
    )
    results.tell(found, folder, as_json=as_json)
