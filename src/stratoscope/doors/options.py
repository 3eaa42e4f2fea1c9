"""What two or more commands share: arguments and options with their help, and how a command passes them on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from stratoscope import defaults, names
from stratoscope.names import RECORD_GROUPS, SPANS, Caption, Scale, Theme

# --- what goes in -----------------------------------------------------------------------------------------------------

Inputs = Annotated[
    list[Path],
    typer.Argument(metavar="INPUT", help="A trace, or one or several CSV or Parquet files (one file = one prompt)."),
]
TraceOrModel = Annotated[
    str,
    typer.Argument(
        metavar="INPUT",
        help="A trace; or a model, as `capture` takes it, of which TEXT is recorded first.",
        show_default=False,
    ),
]
ModelText = Annotated[str | None, typer.Argument(metavar="[TEXT]", help="The prompt, where INPUT is a model.")]

# --- a model and its prompts ------------------------------------------------------------------------------------------

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
Chat = Annotated[bool, typer.Option("--chat", help="Put each text into the chat template, as a user's message.")]
Date = Annotated[
    str | None,
    typer.Option("--date", metavar="YYYY-MM-DD", help="The date, if the chat template writes it; by default today."),
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
Revision = Annotated[
    str | None, typer.Option("--revision", metavar="NAME", help="Branch, tag or commit of a hub model.")
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model. Read that code first.")
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

FittedLens = Annotated[
    Path | None,
    typer.Option(
        "--lens",
        metavar="FILE",
        help="A fitted lens of this model, read beside the logit lens: a file of `fit-lens`, or in TransformerLens's "
        "form.",
        show_default=False,
    ),
]

# --- whose logits are explained ---------------------------------------------------------------------------------------

Targets = Annotated[
    str | None,
    typer.Option(
        "--targets",
        metavar="TEXT|TEXT",
        help=r"Record these tokens as targets: their logits are explained, where the answer begins; a space in front "
        r"counts, \| is a bar. By default each prompt's likeliest token against its second.",
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

# --- what comes out ---------------------------------------------------------------------------------------------------

TraceOut = Annotated[
    Path, typer.Option("--out", "-o", metavar="TRACE", help="The trace to write, in a folder that exists.")
]
FigureOut = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help="The picture to write: .png, .svg or .pdf; by default NAME-COMMAND.png beside the INPUT.",
    ),
]
ResultOut = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="DIR", help="The folder to make; by default one in <trace stem>.results/."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is already there.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for a program.")]

# --- what a trace holds -----------------------------------------------------------------------------------------------

Record = Annotated[
    str, typer.Option("--record", metavar="NAMES", help=f"What to record, commas between: {', '.join(RECORD_GROUPS)}.")
]
TopK = Annotated[
    int, typer.Option("--top-k", metavar="N", min=1, help="How many peak neurons to keep per token and layer.")
]

# --- what to look at --------------------------------------------------------------------------------------------------

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
Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="TEXT|INDEX",
        help="Of a quantity that explains logits: which target, by its text or its number; by default the first.",
    ),
]
Head = Annotated[
    str | None,
    typer.Option(
        "--head",
        metavar="mean|sum|max|N",
        help="Mean, sum or maximum over heads, or one head; by default the mean, of what adds up the sum.",
    ),
]
Span = Annotated[
    list[str] | None,
    typer.Option("--span", metavar="SPAN", help=f"Only tokens of this span ({', '.join(SPANS)}); repeatable."),
]

# --- how classes are compared -----------------------------------------------------------------------------------------

Groups = Annotated[
    bool, typer.Option("--groups/--no-groups", help="Count the prompts of a group as one observation, or each as one.")
]
Unequal = Annotated[
    names.Unequal,
    typer.Option("--unequal", help="For classes of more than 2:1, compare equally many of both, or all by ranks."),
]
Alpha = Annotated[float, typer.Option("--alpha", metavar="LEVEL", help="Level of the discoveries and the intervals.")]
Permutations = Annotated[
    int,
    typer.Option(
        "--permutations", metavar="N", help="How many random exchanges of labels make the family-wise p-values."
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="The same seed makes the same halves and exchanges.")]

# --- how to draw ------------------------------------------------------------------------------------------------------

ColourScale = Annotated[Scale, typer.Option("--scale", help="How values become colours.")]
FirstToken = Annotated[
    bool, typer.Option("--first-token", help="Let the first token of a prompt take part in the colour limits.")
]
ColourTheme = Annotated[Theme, typer.Option("--theme", help="Light for paper, dark for a talk.")]

# --- pictures for a paper ---------------------------------------------------------------------------------------------

PageWidth = Annotated[
    str | None,
    typer.Option("--width", metavar="85mm|3.3in", help="Exact width of the picture; it is laid out anew to fit."),
]
FontSize = Annotated[
    float | None,
    typer.Option("--font-size", metavar="POINTS", help="Size of its labels; 7 with --width, unless you say otherwise."),
]
PageTitle = Annotated[
    str | None, typer.Option("--title", metavar="TEXT|none", help="Another title, or none: the caption says the rest.")
]
CaptionPlace = Annotated[
    Caption,
    typer.Option(
        "--caption",
        help="Where it says what was done: below, in a file (NAME.txt beside NAME.png), or nowhere but in the file's "
        "metadata. What is not recorded and what is warned of stays on the picture.",
    ),
]

# --- CSV --------------------------------------------------------------------------------------------------------------

CsvColumns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="NAME=COLUMN,…",
        help=r"Which column of a CSV file is which: Token_Pos=pos,Token=tok; or by number, from 1, with no header too: "
        r"Token_Pos=1,Token=2. \, is a comma in a name.",
    ),
]


def several_texts(text: str | None) -> tuple[str, ...] | None:
    r"""`Sorry|I cannot` as a tuple, `\|` a bar that is meant; nothing given is None, an empty text is none at all."""
    if not text:
        return None if text is None else ()
    return tuple(part.replace(r"\|", "|") for part in re.split(r"(?<!\\)\|", text))


def given(options: Mapping[str, Any], *but: str) -> dict[str, Any]:
    """The options of a command, as its verb takes them by the same names: a list that nobody gave is None.

    Parameters
    ----------
    options
        The `locals()` of the command, before anything else is one.
    but
        What is the command's alone.
    """
    return {name: None if value == [] else value for name, value in options.items() if name not in but}
