"""The grammar that all commands share: every argument and option, with its help, stated once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from stratoscope.defaults import OPENERS
from stratoscope.names import RECORD_GROUPS, SPANS, Axis, Scale, Theme, Verify

# --- what goes in ---------------------------------------------------------------------------------------------------

Inputs = Annotated[
    list[Path],
    typer.Argument(metavar="INPUT", help="A trace, or one or several CSV or Parquet files (one file = one prompt)."),
]
PartTraces = Annotated[
    list[Path], typer.Argument(metavar="PART", help="Every part that `capture --part` made of one recording.")
]
CsvFiles = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE.csv", help="CSV files (also .gz, .bz2, .xz, .zip) or Parquet files; one file = one prompt."
    ),
]
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

# --- what comes out -------------------------------------------------------------------------------------------------

TraceOut = Annotated[
    Path, typer.Option("--out", "-o", metavar="TRACE", help="The trace to write, in a folder that exists.")
]
FigureOut = Annotated[
    Path, typer.Option("--out", "-o", metavar="FILE", help="The picture to write: .png, .svg or .pdf.")
]
PageOut = Annotated[Path, typer.Option("--out", "-o", metavar="HTML", help="The page to write; it works offline.")]
ResultOut = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="DIR", help="The folder to make; by default one in <trace stem>.results/."),
]
CsvOut = Annotated[
    Path | None,
    typer.Option(
        "--csv", metavar="FILE", help="The CSV file to write; for several prompts, one <stem>-<prompt id>.csv each."
    ),
]
ParquetOut = Annotated[
    Path | None, typer.Option("--parquet", metavar="FILE", help="The Parquet file to write (needs the parquet extra).")
]
DemoOut = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="DIR", help="The folder to write into; by default demo or demo-simulated."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is already there.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for a program.")]

# --- how to record --------------------------------------------------------------------------------------------------

Record = Annotated[
    str,
    typer.Option("--record", metavar="GROUPS", help=f"What to record, commas between: {', '.join(RECORD_GROUPS)}."),
]
TopK = Annotated[int, typer.Option("--top-k", min=1, help="How many peak neurons to keep per token and layer.")]
Dtype = Annotated[
    str | None, typer.Option("--dtype", help="float64, float32, bfloat16 or float16; by default the checkpoint's own.")
]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1 or mps; by default the best there is.")]
DeviceMap = Annotated[
    str | None,
    typer.Option(
        "--device-map",
        metavar="HOW|FILE",
        help="Spread the model over several devices: auto, balanced, sequential, or a .json file of parts and devices.",
    ),
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="The most prompts per forward pass.")]
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
SamplingSeed = Annotated[int, typer.Option("--seed", min=0, help="The same seed samples the same answers.")]
Openers = Annotated[
    str | None,
    typer.Option(
        "--openers",
        metavar="TEXT|TEXT",
        help=r"Record how likely the answer is to begin with each of these (\| is a bar); by default, with --generate: "
        f"{'|'.join(OPENERS)}.",
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
    Verify,
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
Revision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub model.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model. Read that code first.")
]
Plan = Annotated[
    bool,
    typer.Option("--plan", help="Record nothing, but say how much disk, memory and time each group would take."),
]
PlanJson = Annotated[bool, typer.Option("--json", help="Print what --plan says as JSON, for a program.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted recording.")]

# --- what to simulate -----------------------------------------------------------------------------------------------

Prompts = Annotated[int, typer.Option("--prompts", min=1, help="How many, in pairs of a critical and a neutral twin.")]
Tokens = Annotated[str, typer.Option("--tokens", metavar="N|N-M", help="How many per prompt, or a range.")]
LayerCount = Annotated[int, typer.Option("--layers", min=1, help="Layers of the simulated model.")]
ModelWidth = Annotated[int, typer.Option("--d-model", min=1, help="Width of its residual stream.")]
NeuronCount = Annotated[int, typer.Option("--d-ff", min=1, help="Neurons of each of its MLPs.")]
HeadCount = Annotated[int, typer.Option("--heads", min=1, help="Attention heads of each of its layers.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same trace.")]
Anomaly = Annotated[bool, typer.Option("--anomaly/--no-anomaly", help="Route one head of one prompt oddly.")]
Simulated = Annotated[bool, typer.Option("--simulated", help="Simulate the trace, in seconds, without torch.")]

# --- what to look at ------------------------------------------------------------------------------------------------

PromptColumn = Annotated[
    bool,
    typer.Option(
        "--prompt-column", help="Write all prompts to one file, with the id of each in a last column, Prompt."
    ),
]
PromptChoice = Annotated[
    list[str] | None,
    typer.Option("--prompt", metavar="ID|INDEX", help="Only this prompt, by id or place (0 = first); repeatable."),
]
PromptClass = Annotated[
    list[str] | None, typer.Option("--class", metavar="NAME", help="Only prompts of this class; repeatable.")
]
AllPrompts = Annotated[bool, typer.Option("--all", help="Every prompt, one after the other.")]
Layers = Annotated[
    str | None, typer.Option("--layers", metavar="22-31,0", help="Only these layers; ranges include both ends.")
]
QuantityName = Annotated[
    str | None,
    typer.Option(
        "--quantity",
        metavar="NAME",
        help="Which quantity of the trace to draw (`info` lists them). A number in another tool's name, such as "
        "blocks.3.hook_mlp_out, chooses no layer: --layers does.",
    ),
]
Span = Annotated[
    list[str] | None,
    typer.Option("--span", metavar="SPAN", help=f"Only tokens of this span ({', '.join(SPANS)}); repeatable."),
]

# --- how to draw ----------------------------------------------------------------------------------------------------

ColourScale = Annotated[Scale, typer.Option("--scale", help="How values become colours.")]
Threshold = Annotated[float, typer.Option("--threshold", metavar="VALUE", help="Leave out peaks lower than this.")]
FirstToken = Annotated[
    bool, typer.Option("--first-token", help="Let the first token of a prompt take part in the colour limits.")
]
ColourTheme = Annotated[Theme, typer.Option("--theme", help="Light for paper, dark for a talk.")]
Head = Annotated[str, typer.Option("--head", metavar="mean|max|N", help="Mean or maximum over heads, or one head.")]

# --- CSV ------------------------------------------------------------------------------------------------------------

Classes = Annotated[
    list[str] | None,
    typer.Option("--class", metavar="NAME", help="Class of each file, in order; by default the file's stem."),
]
CsvColumns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="NAME=COLUMN,…",
        help=r"Which column of a CSV file is which: Token_Pos=pos,Token=tok; or by number, from 1, with no header too: "
        r"Token_Pos=1,Token=2. \, is a comma in a name.",
    ),
]
NeuronAxis = Annotated[Axis, typer.Option("--axis", help="What Neuron_ID is an index of.")]


def parse_groups(text: str) -> tuple[str, ...]:
    """`norms,peaks` as a tuple of record groups."""
    groups = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [group for group in groups if group not in RECORD_GROUPS]
    if unknown:
        known = ", ".join(RECORD_GROUPS)
        raise typer.BadParameter(f"{unknown[0]!r} is no record group; there are {known}", param_hint="--record")
    return groups


def parse_openers(text: str | None) -> tuple[str, ...] | None:
    r"""`Sorry|I cannot` as a tuple, `\|` a bar that is meant; nothing given is None, an empty text is none at all."""
    if not text:
        return None if text is None else ()
    return tuple(part.replace(r"\|", "|") for part in re.split(r"(?<!\\)\|", text))


def parse_part(text: str | None) -> tuple[int, int] | None:
    """`2/5` as (2, 5)."""
    if text is None:
        return None
    number, slash, of = text.partition("/")
    if not (slash and all(one.isascii() and one.isdigit() for one in (number, of))):
        raise typer.BadParameter(f"{text!r} is not like 2/5, the second of five parts", param_hint="--part")
    return int(number), int(of)


def parse_head(text: str) -> str | int:
    """`mean`, `max` or the number of one head."""
    return int(text) if text.isascii() and text.isdigit() else text


def parse_tokens(text: str) -> int | tuple[int, int]:
    """`24`, or `20-32` as the fewest and the most."""
    first, dash, last = text.partition("-")
    if not all(part.isascii() and part.isdigit() for part in ((first, last) if dash else (first,))):
        raise typer.BadParameter(f"{text!r} is neither a number (24) nor a range (20-32)", param_hint="--tokens")
    return (int(first), int(last)) if dash else int(first)


def tokens_text(tokens: int | tuple[int, int]) -> str:
    """What `parse_tokens` reads."""
    return str(tokens) if isinstance(tokens, int) else f"{tokens[0]}-{tokens[1]}"
