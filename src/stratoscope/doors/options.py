"""What two or more commands share: arguments and options with their help, and how a command passes them on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from stratoscope.names import RECORD_GROUPS, SPANS, Caption, Scale, Theme

# --- what goes in -----------------------------------------------------------------------------------------------------

Inputs = Annotated[
    list[Path],
    typer.Argument(metavar="INPUT", help="A trace, or one or several CSV or Parquet files (one file = one prompt)."),
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
Span = Annotated[
    list[str] | None,
    typer.Option("--span", metavar="SPAN", help=f"Only tokens of this span ({', '.join(SPANS)}); repeatable."),
]

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
