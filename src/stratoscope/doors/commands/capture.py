"""The command `capture`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import stratoscope
from stratoscope import defaults, names
from stratoscope.doors import console, failures, options
from stratoscope.doors.progress import progress
from stratoscope.errors import UsageError

Generate = Annotated[
    int,
    typer.Option("--generate", metavar="N", min=0, help="Let the model answer with up to N tokens; record them too."),
]
Generation = Annotated[
    str | None,
    typer.Option(
        "--generation",
        metavar="JSON|FILE",
        help='How it answers, in the words of transformers: {"do_sample": true, "temperature": 0.7}, or a file that '
        "holds this; by default the likeliest token each time.",
    ),
]
SamplingSeed = Annotated[
    int, typer.Option("--seed", metavar="N", min=0, help="The same seed samples the same answers.")
]
RefusalPatterns = Annotated[
    Path | None,
    typer.Option(
        "--refusal-patterns",
        metavar="FILE",
        help="How refusals open, one pattern a line, for other languages or rules; by default English ones.",
    ),
]
Positions = Annotated[
    names.Positions | None,
    typer.Option(
        "--positions",
        help="Where the strongest neurons are explained and lenses read: at the last token of each prompt (lenses at "
        "its last four), or at all tokens.",
        show_default=False,
    ),
]
Baseline = Annotated[
    names.Baseline | None,
    typer.Option(
        "--baseline",
        help="What total effects are counted from: zero, or the means over the words of all prompts.",
        show_default=False,
    ),
]
MeanOf = Annotated[
    Path | None,
    typer.Option(
        "--mean-of",
        metavar="TRACE",
        help="A trace of the same model that holds the means for --baseline mean; without it all prompts run once "
        "before.",
    ),
]
EffectSteps = Annotated[
    int | None,
    typer.Option(
        "--effect-steps",
        metavar="N",
        help="Take total effects at N points of the way from the baseline, a layer at a time; by default at its end: "
        "first order.",
    ),
]
Calibration = Annotated[
    int | None,
    typer.Option(
        "--calibration",
        metavar="N",
        help=f"Really ablate N neurons, N MLPs, N heads and N attentions at a token each, to see how far total effects "
        f"agree; by default {defaults.CALIBRATION}, 0 = none.",
    ),
]
Verification = Annotated[
    names.Verify,
    typer.Option("--verify", help="Replay a sample with eager attention; full: also every prompt of the trace."),
]
NoiseFloor = Annotated[
    bool,
    typer.Option(
        "--floor", help="Measure how much each quantity changes with batch size, padding and dtype, and store it."
    ),
]
Part = Annotated[
    str | None,
    typer.Option(
        "--part",
        metavar="I/N",
        help="Record only the I-th of N parts of the prompts, on one of several machines; `merge` joins them.",
    ),
]
Plan = Annotated[
    bool, typer.Option("--plan", help="Record nothing, but say how much disk, memory and time each group would take.")
]
PlanJson = Annotated[bool, typer.Option("--json", help="Print what --plan says as JSON, for a program.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted recording.")]

_RECORD = ",".join(defaults.RECORD)


def capture(
    model: options.Model,
    prompts: options.PromptsFile,
    out: options.TraceOut,
    column: options.Column = None,
    record: options.Record = _RECORD,
    top_k: options.TopK = defaults.TOP_K,
    dtype: options.Dtype = None,
    device: options.Device = None,
    device_map: options.DeviceMap = None,
    batch_size: options.BatchSize = defaults.BATCH_SIZE,
    chat: options.Chat = False,
    date: options.Date = None,
    generate: Generate = defaults.GENERATE,
    generation: Generation = None,
    seed: SamplingSeed = defaults.SEED,
    openers: options.Openers = None,
    refusal_patterns: RefusalPatterns = None,
    targets: options.Targets = None,
    against: options.Against = None,
    answer_prefix: options.AnswerPrefix = None,
    positions: Positions = None,
    lens: options.FittedLens = None,
    baseline: Baseline = None,
    mean_of: MeanOf = None,
    effect_steps: EffectSteps = None,
    calibration: Calibration = None,
    verify: Verification = defaults.VERIFY,
    floor: NoiseFloor = False,
    part: Part = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    plan: Plan = False,
    as_json: PlanJson = False,
    resume: Resume = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Record a model over a file of prompts."""
    asked = options.given(locals(), "plan", "as_json")
    if as_json and not plan:
        raise UsageError("it says what --plan finds", where="--json", fix="Give both.")
    from stratoscope.recorder.arguments import CaptureArguments
    from stratoscope.trace.format import place

    asked |= {"openers": options.several_texts(openers), "targets": options.several_texts(targets)}
    checked = CaptureArguments(**asked)
    checked.settings()  # mistakes show before the prompts are read, and those before torch is imported
    found = checked.read_prompts()
    for remark in found.remarks:
        console.remark(remark)
    asked |= {"prompts": found, "column": None}
    if plan:
        from stratoscope.doors import estimate

        of_plan = options.given(asked, "verify", "floor", "resume", "overwrite")
        with progress() as show:
            cost = stratoscope.plan_capture(**of_plan, progress=show)
        estimate.show(cost, as_json=as_json)
        return
    if resume and not place.is_trace(place.recorded_at(out.absolute())):
        console.remark(f"nothing was recorded in {out} before, so it begins anew, with what is asked now.")
    with failures.resumable(lambda: kept(out)), progress() as show:
        trace = stratoscope.capture(**asked, progress=show)
    console.warn_of(trace.attrs["notes"])
    console.tell_path(out)


def kept(out: Path) -> str:
    """What a recording that is interrupted keeps, in words."""
    from stratoscope.trace.format import place

    begun = place.recorded_at(out.absolute())
    if not place.is_begun(begun):
        return ""
    if begun != out.absolute():
        return f"{out} is as it was, and the prompts recorded so far are kept beside it"
    return f"{out} keeps the prompts recorded so far"
