"""The command `lens`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import stratoscope
from stratoscope import defaults, names
from stratoscope.doors import console, options, recorded

if TYPE_CHECKING:
    from stratoscope.analysis.lens.finding import Found

Out = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="FILE", help="The picture to write: .png, .svg or .pdf; by default NAME-lens.png."
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option("--prompt", metavar="ID|INDEX", help="Which prompt of a trace, by id or place; by default the first."),
]
Token = Annotated[
    int | None,
    typer.Option(
        "--token",
        metavar="POSITION",
        help="The token whose trajectories are drawn; by default the one from which the model answers.",
    ),
]
OneTarget = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="TEXT|INDEX",
        help="Of the targets that are recorded, draw this one alone; of a model, --targets names those to record.",
    ),
]
InCells = Annotated[
    str | None,
    typer.Option(
        "--in-cells",
        metavar="logit|jacobian",
        help="Which lens is in the cells; by default the fitted one, where it was recorded. The other is beside it.",
    ),
]
MostTokens = Annotated[
    int | None,
    typer.Option(
        "--most-tokens",
        metavar="N",
        help="The most tokens that are drawn, around --token; by default as many as have room for words.",
    ),
]
Positions = Annotated[
    names.Positions | None,
    typer.Option(
        "--positions",
        help="Where a model's stream is read: at the last tokens of the text (the usual), or at all.",
        show_default=False,
    ),
]
_OF_THE_PICTURE = ("prompt", "token", "target", "in_cells", "span", "most_tokens")
_OF_THE_PAGE = ("width", "font_size", "title", "caption")


def lens(
    trace: options.TraceOrModel,
    text: options.ModelText = None,
    out: Out = None,
    prompt: Prompt = None,
    token: Token = None,
    target: OneTarget = None,
    in_cells: InCells = None,
    span: options.Span = None,
    most_tokens: MostTokens = None,
    theme: options.ColourTheme = defaults.THEME,
    width: options.PageWidth = None,
    font_size: options.FontSize = None,
    title: options.PageTitle = None,
    caption: options.CaptionPlace = defaults.CAPTION,
    lens_file: options.FittedLens = None,
    targets: options.Targets = None,
    against: options.Against = None,
    answer_prefix: options.AnswerPrefix = None,
    positions: Positions = None,
    chat: options.Chat = False,
    dtype: options.Dtype = None,
    device: options.Device = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Draw the likeliest next token at each depth.

    A trace must hold it (`capture --record lens`); of a model and a text it is recorded first. Says from which depth on
    the model's answer is the likeliest.
    """
    asked = recorded.asked_of_a_model(locals()) | {"lens": lens_file, "positions": positions}
    drawn = options.given(locals(), "trace", "text", "as_json", "asked", "lens_file", "positions", *recorded.OF_A_MODEL)
    drawn["out"] = out or (None if as_json else Path(f"{recorded.stem(trace)}-lens.png"))
    recorded.check(trace, text, asked, target)
    _check(drawn["out"], [trace, lens_file], overwrite=overwrite, caption=caption == "file")
    with recorded.trace_of(trace, text, (names.LENSES,), asked) as given:
        if drawn["out"] is not None:
            stratoscope.lens(given, **drawn)
        found = _found(given, drawn)
    if as_json:
        console.tell_json({**found.record(), "written": [] if drawn["out"] is None else [str(drawn["out"])]})
        return
    for line in found.sentences():
        console.tell(line)
    console.tell_path(drawn["out"])


def _found(given: str | Path, drawn: dict[str, Any]) -> Found:
    """What the lenses of a trace say at the chosen token, of the columns that the picture has on its page."""
    from stratoscope.trace.opened import opened
    from stratoscope.view.lens.lens import lens_spec
    from stratoscope.view.spec.page import page_of

    page = page_of(*(drawn[name] for name in _OF_THE_PAGE))
    return lens_spec(opened(given), page=page, **{name: drawn[name] for name in _OF_THE_PICTURE})[1]


def _check(out: Path | None, inputs: Sequence[str | Path | None], *, overwrite: bool, caption: bool) -> None:
    """Refuse a picture that may not be written before a model is loaded."""
    if out is not None:
        from stratoscope.view.matplotlib import save

        save.check(out, overwrite=overwrite, inputs=inputs, caption=caption)
