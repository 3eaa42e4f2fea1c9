"""The command `explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import stratoscope
from stratoscope.doors import console, options, recorded, results
from stratoscope.doors.progress import progress

Prompt = Annotated[str, typer.Argument(metavar="TEXT", help="The prompt.", show_default=False)]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="DIR", help="The folder for the trace and the page; by default NAME-explain."),
]
_TRACE, _PAGE = "prompt.trace", "suppression"  # in that folder
_LINES = 4  # the prompt, and what was found


def explain(
    model: options.Model,
    prompt: Prompt,
    out: Out = None,
    targets: options.Targets = None,
    against: options.Against = None,
    answer_prefix: options.AnswerPrefix = None,
    chat: options.Chat = False,
    dtype: options.Dtype = None,
    device: options.Device = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Show what promotes and suppresses the answer to one prompt.

    Records it with contributions and effects, and makes the page of `suppression`, in one step.
    """
    asked = options.given(locals(), "out", "as_json")
    from stratoscope.view.report import PAGE, check_folder, contents_of, save_result

    folder = out or Path(f"{recorded.stem(model)}-explain")
    page, trace = folder / _PAGE, folder / _TRACE
    check_folder(page, overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    asked |= {"targets": options.several_texts(targets), "out": trace}
    with progress() as show:
        result = stratoscope.explain(**asked, progress=show)
        save_result(result, page, overwrite=overwrite, progress=show)
    if as_json:
        results.tell(result, page, as_json=True)
        return
    contents = contents_of(result)
    for line in (contents.title, *contents.lead[:_LINES]):
        console.tell(line)
    console.tell_path(page / PAGE)
