"""What a picture leaves out since nobody chose, and the command that would show it: told once it is drawn."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from stratoscope.doors import console
from stratoscope.words import listed


def remark(
    inputs: Sequence[Path],
    *,
    prompt: list[str] | None,
    prompt_class: list[str] | None,
    all_prompts: bool,
    span: list[str] | None,
    compared: Sequence[str] | None = None,
) -> None:
    """Say how many of the prompts were drawn, where nobody chose them; and of two, what draws their difference.

    Parameters
    ----------
    compared
        Options of `compare` that are as those of the picture; None = nothing is said of it.
    """
    if all_prompts:
        return
    if inputs[0].is_dir():
        shown, there, named = _of_trace(inputs[0], prompt, prompt_class, span)
    elif prompt or prompt_class:
        return
    else:
        from stratoscope.view.choose.selection import MOST_PANELS

        shown, there, named = min(len(inputs), MOST_PANELS), len(inputs), []
    if not prompt:
        of_class = f" of class {listed(prompt_class)}" if prompt_class else ""
        console.remark_of_prompts(shown, there, f"prompts{of_class} drawn", "draws")
    if shown == 2 and compared is not None:
        command = shlex.join(["stratoscope", "compare", *map(str, inputs), *named, *compared])
        console.remark(f"what differs between the two: {command}")


def _of_trace(
    path: Path, prompt: list[str] | None, prompt_class: list[str] | None, span: list[str] | None
) -> tuple[int, int, list[str]]:
    """How many prompts are drawn, of how many of these classes, and options that name those drawn."""
    from stratoscope.trace.opened import opened
    from stratoscope.trace.prompts import Prompts
    from stratoscope.view.choose.selection import Selection

    dataset = opened(path)
    prompts = Prompts(dataset)
    panels = Selection(prompt or None, prompt_class or None, span=span or None).of(dataset).panels
    drawn = [index for panel in panels for index in panel.prompts]
    there = sum(not prompt_class or name in prompt_class for name in prompts.classes)
    ids = [prompts.ids[one] if prompts.ids.count(prompts.ids[one]) == 1 else str(one) for one in drawn]
    return len(drawn), there, [part for one in ids for part in ("--prompt", one)]
