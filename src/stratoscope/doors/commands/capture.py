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

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A hub name, a folder with a model, or a GGUF file.", show_default=False)
]
PromptsFile = Annotated[
    Path,
    typer.Option(
        "--prompts",
        metavar="FILE",
        help="A .jsonl, .json, .csv, .tsv or .parquet file with text or messages, optional id, class, pair, group; or "
        ".txt, one prompt a line.",
    ),
]
Column = Annotated[
    str | None,
    typer.Option(
        "--column",
        metavar="NAME",
        help="The column that holds the texts or messages, if it has another name. Columns that are not used are "
        "listed.",
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype", metavar="NAME", help="float64, float32, bfloat16 or float16; by default the checkpoint's own."
    ),
]
Device = Annotated[
    str | None, typer.Option("--device", metavar="NAME", help="cpu, cuda, cuda:1 or mps; by default the best there is.")
]
DeviceMap = Annotated[
    str | None,
    typer.Option(
        "--device-map",
        metavar="HOW|FILE",
        help="Spread the model over several devices: auto, balanced, sequential, or a .json file of parts and devices.",
    ),
]
BatchSize = Annotated[int, typer.Option("--batch-size", metavar="N", min=1, help="The most prompts per forward pass.")]
Chat = Annotated[bool, typer.Option("--chat", help="Put each text into the chat template, as a user's message.")]
Date = Annotated[
    str | None,
    typer.Option("--date", metavar="YYYY-MM-DD", help="The date, if the chat template writes it; by default today."),
]
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
Openers = Annotated[
    str | None,
    typer.Option(
        "--openers",
        metavar="TEXT|TEXT",
        help=r"Record how likely the answer is to begin with each of these (\| is a bar); by default, with --generate: "
        f"{'|'.join(defaults.OPENERS)}.",
    ),
]
RefusalPatterns = Annotated[
    Path | None,
    typer.Option(
        "--refusal-patterns",
        metavar="FILE",
        help="How refusals open, one pattern a line, for other languages or rules; by default English ones.",
    ),
]
Targets = Annotated[
    str | None,
    typer.Option(
        "--targets",
        metavar="TEXT|TEXT",
        help=r"Tokens whose logits are explained, where the answer begins; a space in front counts, \| is a bar. By "
        "default each prompt's likeliest token against its second.",
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        "--against",
        metavar="TEXT",
        help="The token that each target is compared with; by default the mean over the vocabulary.",
    ),
]
AnswerPrefix = Annotated[
    str | None,
    typer.Option("--answer-prefix", metavar="TEXT", help="Text behind each prompt, as the beginning of its answer."),
]
Positions = Annotated[
    names.Positions | None,
    typer.Option(
        "--positions",
        help="Where the strongest neurons are explained: at the last token of each prompt, or at all tokens.",
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
Revision = Annotated[
    str | None, typer.Option("--revision", metavar="NAME", help="Branch, tag or commit of a hub model.")
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model. Read that code first.")
]
Plan = Annotated[
    bool, typer.Option("--plan", help="Record nothing, but say how much disk, memory and time each group would take.")
]
PlanJson = Annotated[bool, typer.Option("--json", help="Print what --plan says as JSON, for a program.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted recording.")]

_RECORD = ",".join(defaults.RECORD)


def capture(
    model: Model,
    prompts: PromptsFile,
    out: options.TraceOut,
    column: Column = None,
    record: options.Record = _RECORD,
    top_k: options.TopK = defaults.TOP_K,
    dtype: Dtype = None,
    device: Device = None,
    device_map: DeviceMap = None,
    batch_size: BatchSize = defaults.BATCH_SIZE,
    chat: Chat = False,
    date: Date = None,
    generate: Generate = defaults.GENERATE,
    generation: Generation = None,
    seed: SamplingSeed = defaults.SEED,
    openers: Openers = None,
    refusal_patterns: RefusalPatterns = None,
    targets: Targets = None,
    against: Against = None,
    answer_prefix: AnswerPrefix = None,
    positions: Positions = None,
    baseline: Baseline = None,
    mean_of: MeanOf = None,
    effect_steps: EffectSteps = None,
    calibration: Calibration = None,
    verify: Verification = defaults.VERIFY,
    floor: NoiseFloor = False,
    part: Part = None,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
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
    with failures.resumable(out), progress() as show:
        trace = stratoscope.capture(**asked, progress=show)
    console.warn_of(trace.attrs["notes"])
    console.tell_path(out)
