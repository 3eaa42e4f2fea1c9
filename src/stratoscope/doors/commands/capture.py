"""The command `capture`."""

from __future__ import annotations

import re
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

    asked["openers"] = parse_openers(openers)
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


def parse_openers(text: str | None) -> tuple[str, ...] | None:
    r"""`Sorry|I cannot` as a tuple, `\|` a bar that is meant; nothing given is None, an empty text is none at all."""
    if not text:
        return None if text is None else ()
    return tuple(part.replace(r"\|", "|") for part in re.split(r"(?<!\\)\|", text))
