"""The command `fit-lens`."""

from __future__ import annotations

from itertools import chain, count
from pathlib import Path
from typing import Annotated

import typer

import stratoscope
from stratoscope import defaults
from stratoscope.doors import console, failures, options
from stratoscope.doors.progress import progress

Corpora = Annotated[
    list[Path],
    typer.Option(
        "--prompts",
        metavar="FILE",
        help="A file of texts, as that of `capture`; repeatable: each file is a corpus, and how far they disagree is "
        "kept.",
    ),
]
Out = Annotated[
    Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write, such as model.lens.", show_default=False)
]
Rank = Annotated[
    int | None,
    typer.Option(
        "--rank",
        metavar="R",
        min=1,
        help="Fit only the R directions that carry most of the logits on these texts: so much less time and room. What "
        "is lost is measured.",
    ),
]
MaxTokens = Annotated[
    int, typer.Option("--max-tokens", metavar="N", help="The most tokens of a text; longer ones are cut.")
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype", metavar="NAME", help="float64, float32, bfloat16 or float16; by default float32, whatever the "
        "checkpoint has."
    ),
]  # fmt: skip
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with a fit that was interrupted; it has lost at most one text.")
]


def fit_lens(
    model: options.Model,
    prompts: Corpora,
    out: Out,
    rank: Rank = None,
    max_tokens: MaxTokens = defaults.FITTED_TOKENS,
    column: options.Column = None,
    chat: options.Chat = False,
    dtype: Dtype = None,
    device: options.Device = None,
    device_map: options.DeviceMap = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    resume: Resume = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Fit a Jacobian lens to a model, on texts.

    It holds what each depth of the residual stream does, on average, to the last. That takes about as many forwards of
    each text as the stream is wide. `capture --record lens --lens FILE` reads with it.
    """
    asked = {**options.given(locals()), "prompts": _by_name(prompts)}
    with failures.resumable(lambda: _kept(out)), progress() as show:
        facts = stratoscope.fit_lens(**asked, progress=show)
    from stratoscope.trace.info.facts import info_text

    console.tell_text(info_text(facts))


def _by_name(files: list[Path]) -> dict[str, Path]:
    """Each corpus by the name of its file; files of one name are numbered."""
    found: dict[str, Path] = {}
    for file in files:
        numbered = (f"{file.stem} ({number})" for number in count(2))
        found[next(name for name in chain([file.stem], numbered) if name not in found)] = file
    return found


def _kept(out: Path) -> str:
    """What a fit that is interrupted keeps, in words."""
    from stratoscope.probe.lens.asked import unfinished

    begun = unfinished(out)
    return f"{begun} keeps what was fitted to the texts so far" if begun.exists() else ""
