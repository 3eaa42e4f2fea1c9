"""The command `diff`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stratoscope.doors import console, options

TraceA = Annotated[Path, typer.Argument(metavar="TRACE_A", help="A trace: the base, or before.")]
TraceB = Annotated[Path, typer.Argument(metavar="TRACE_B", help="Another of the same prompts: tuned, or after.")]
Prompts = Annotated[
    list[str] | None, typer.Option("--prompt", metavar="ID", help="Show this prompt token by token; repeatable.")
]
Quantities = Annotated[
    list[str] | None, typer.Option("--quantity", metavar="NAME", help="Show this quantity token by token; repeatable.")
]
Claims = Annotated[
    Path | None,
    typer.Option("--claims", metavar="CSV", help="What a patch claims: Layer,Neuron_ID,Old_Norm,New_Norm."),
]
ModelBefore = Annotated[
    str | None,
    typer.Option("--model", metavar="MODEL", help="With --claims: the model before it, rerun with random patches."),
]


def diff(
    trace_a: TraceA,
    trace_b: TraceB,
    out: options.ResultOut = None,
    prompt: Prompts = None,
    quantity: Quantities = None,
    claims: Claims = None,
    model: ModelBefore = None,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Say what changed between two traces of the same prompts.

    Held against the noise floor that `capture --floor` measured; with --claims also what became of a patch.
    """
    if model is not None and claims is None:
        raise typer.BadParameter("--model reruns what --claims says: give both")
    from stratoscope.analysis.diff.diff import diff
    from stratoscope.trace.reader import open_trace
    from stratoscope.view.report import check_folder, default_folder, save_result

    folder = out or default_folder(Path(trace_a), "diff", Path(trace_b).name)
    check_folder(folder, overwrite=overwrite)
    before = open_trace(trace_a)
    with console.progress() as show:
        result = diff(before, trace_b, prompt=prompt or None, quantity=quantity or None, claims=claims, progress=show)
        if model is not None and claims is not None:
            from stratoscope.analysis.diff.claims import read_claims
            from stratoscope.model.load import load_model
            from stratoscope.probe.attach import with_null
            from stratoscope.probe.matched_null import matched_null

            dtype = str((before.attrs.get("model") or {}).get("dtype", "")) or None
            loaded = load_model(model, dtype=dtype, progress=show)
            result = with_null(result, matched_null(loaded, before, read_claims(claims), progress=show))
        save_result(result, folder, overwrite=overwrite, progress=show)
    console.tell_result(result, folder, as_json=as_json)
