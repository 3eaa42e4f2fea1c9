"""The command `top`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import stratoscope
from stratoscope import defaults, names
from stratoscope.doors import console, options, tables
from stratoscope.names import AXIS_WORDS, IMPORTED
from stratoscope.words import capital, counted, noted, number, percent, readable

if TYPE_CHECKING:
    import pandas as pd

Token = Annotated[int | None, typer.Option("--token", metavar="POSITION", help="Only the token at this position.")]
TokenText = Annotated[
    str | None,
    typer.Option("--token-text", metavar="TEXT", help="Only the token of this text, which must stand in one place."),
]
HowMany = Annotated[int, typer.Option("-n", metavar="N", min=1, help="How many neurons of each prompt.")]
FirstToken = Annotated[
    bool, typer.Option("--first-token", help="Let the first token of each prompt take part, as asking for it does.")
]
RankedBy = Annotated[
    names.Ranking,
    typer.Option(
        "--by",
        help="What ranks them: what they write; their total effect on a target's logit, to first order; or their "
        "direct contribution to it, which is no effect.",
    ),
]
CsvTable = Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the table to this CSV file.")]

_NUMBERS = ("value", "write norm", "share", "layer")
_NEURON = {"neuron": "neuron", "residual": "coordinate", "unknown": "Neuron_ID"}
_VALUES = {"effect": "total effect", "direct": "direct contribution"}  # headings of what ranks besides writes
_ROOM = 135  # columns of a terminal in which the other tokens stand in the same table


def top(
    inputs: options.Inputs,
    columns: options.CsvColumns = None,
    prompt: options.PromptChoice = None,
    all_prompts: options.AllPrompts = False,
    token: Token = None,
    token_text: TokenText = None,
    layers: options.Layers = None,
    span: options.Span = None,
    n: HowMany = defaults.STRONGEST,
    by: RankedBy = defaults.RANKING,
    target: options.Target = None,
    first_token: FirstToken = defaults.FIRST_TOKEN,
    csv: CsvTable = None,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """List the strongest neurons of a prompt, a token or a layer.

    Each is listed once, at the token where it writes most (of a CSV: has the largest value), with the tokens elsewhere
    at which it is strong, too. Only recorded peaks can be listed.
    """
    asked = options.given(locals(), "csv", "as_json", "overwrite")
    if csv is not None:
        from stratoscope.trace.export.table import check_table

        check_table(csv, overwrite=overwrite, inputs=inputs)
    found = stratoscope.top(**asked)
    if csv is not None:
        from stratoscope.trace.export.table import write_table

        rows = [[" | ".join(one) if isinstance(one, list) else one for one in row.values()] for row in _records(found)]
        write_table([*found.columns], rows, csv, overwrite=overwrite)
    if as_json:
        written = [] if csv is None else [str(csv)]
        console.tell_json({**found.attrs, "neurons": _records(found), "written": written})
    else:
        width = tables.terminal_width()
        if csv is None:
            for name in found["prompt"].unique():
                console.tell_text(_told(found[found["prompt"] == name], width))
        for line in (*_words(found), *(noted(one["id"], one["text"]) for one in found.attrs["notes"])):
            console.tell_text(tables.wrapped(console.one_line(line), width))
        if csv is not None:
            console.tell_path(csv)
    if prompt is None and not all_prompts:
        console.remark_of_prompts(
            found["prompt"].nunique(), int(found["of_prompts"].iloc[0]), "prompts listed", "lists"
        )


def _told(found: pd.DataFrame, width: int | None) -> str:
    """The neurons of one prompt as a table; in a narrow terminal what is elsewhere is a table of its own."""
    ranked = found.attrs["strongest_by"]
    by = {"write_norm": "by what it writes", "value": "by the size of its value"}.get(ranked, "")
    if not by:
        on = found.attrs["target"]
        by = f"by total effect on {on}" if ranked == "effect" else f"by direct contribution to {on}, which is no effect"
    title = console.one_line(f"{found['prompt'].iloc[0]}: {counted(len(found), 'neuron')}, strongest first, {by}")
    of = [one for one in ("expert",) if one in found]
    neuron = _NEURON.get(found.attrs["axis"], "Neuron_ID")
    headings = ["token", "layer", *of, neuron, _VALUES.get(ranked, "value"), "write norm", "share", "prompts"]
    rows = [[*_cells(one, of)] for one in found.itertuples()]
    kept = [place for place in range(len(headings)) if any(row[place] for row in rows)]
    shown, also = [headings[place] for place in kept], "also strong at"
    cells = [[row[place] for place in kept] for row in rows]
    joined = ["\n".join(one) if width else "; ".join(one) for one in found["elsewhere"]]
    right = (*_NUMBERS, *of, *_NEURON.values(), *_VALUES.values())
    if width is None or width >= _ROOM:
        whole = [[*row, more] for row, more in zip(cells, joined, strict=True)]
        return f"{title}\n{tables.table([*shown, also], whole, right=right, width=width)}\n"
    first = tables.table(shown, cells, right=right, width=width)
    named = [[f"L{one.layer} {one.neuron}", more] for one, more in zip(found.itertuples(), joined, strict=True) if more]
    second = tables.table([neuron, also], named, right=(), width=width) if named else ""
    return "\n\n".join(part for part in (f"{title}\n{first}", second) if part) + "\n"


def _cells(one: Any, of: list[str]) -> list[str]:
    expert = [] if not of else ["" if one.expert < 0 else str(one.expert)]
    return [
        f"{one.position} {readable(one.token, spelling='tokenizer')}",
        f"L{one.layer}",
        *expert,
        str(one.neuron),
        number(value) if (value := _value(one)) == value else "",
        number(one.write_norm) if hasattr(one, "write_norm") and one.write_norm == one.write_norm else "",
        percent(one.share) if hasattr(one, "share") and one.share == one.share else "",
        f"{one.in_prompts} of {one.of_prompts}" if one.of_prompts > 1 else "",
    ]


def _value(one: Any) -> float:
    """What a neuron is ranked by, or its activation."""
    return float(next(getattr(one, name) for name in ("value", *_VALUES) if hasattr(one, name)))


def _words(found: pd.DataFrame) -> list[str]:
    """What the columns are."""
    if found.attrs["strongest_by"] in _VALUES:
        return ["Positive promotes the target, negative suppresses it."]
    imported = found.attrs["source"] == IMPORTED
    parts = ["value: as the file gives it" if imported else "value: the neuron's activation, with its sign"]
    if found["write_norm"].notna().any():
        parts.append("write norm: the size of what it adds to the MLP's output")
    if found["share"].notna().any():
        parts.append("share: its part of the squared write norms of all neurons of its layer, at that token")
    if found["of_prompts"].iloc[0] > 1:
        parts.append("prompts: in how many it is among the recorded neurons of some token")
    of_axis = [f"{AXIS_WORDS[found.attrs['axis']]}."] if imported and found.attrs["axis"] in AXIS_WORDS else []
    return [f"{capital('; '.join(parts))}.", *of_axis]


def _records(found: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as JSON holds them: what is not known is null, a float32 in as many digits as it has."""
    columns = [
        [None if one != one else float(str(one)) for one in column.to_numpy()]
        if column.dtype.kind == "f"
        else column.tolist()
        for _, column in found.items()
    ]
    return [dict(zip(found.columns, row, strict=True)) for row in zip(*columns, strict=True)]
