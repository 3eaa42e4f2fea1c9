"""What a fitted lens is: as JSON-able facts, and as text to read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from stratoscope.errors import printable_line
from stratoscope.trace.lens_file import MOVED, is_lens_file, read_lens_file
from stratoscope.words import counted, number, percent, size_text

_WIDTH = 16
_CORPORA = 20  # that are told


def lens_of(given: Any) -> Path | None:
    """The one file of a fitted lens that was given; None where something else was."""
    if isinstance(given, Sequence) and not isinstance(given, str) and len(given) == 1:
        given = given[0]
    return Path(given) if isinstance(given, str | os.PathLike) and is_lens_file(given) else None


def lens_facts(path: Path) -> dict[str, Any]:
    """What a file of a fitted lens holds, as JSON has it.

    Raises
    ------
    InputError
        It is damaged.
    """
    file = read_lens_file(path)
    moved = np.asarray(file.arrays[MOVED], np.float64)
    medians = [float(np.median(row[np.isfinite(row)])) if np.isfinite(row).any() else None for row in moved]
    return {"path": str(path), "bytes": path.stat().st_size, **file.facts, "parts": list(file.parts()),
            "moved": medians}  # fmt: skip


def lens_text(facts: Mapping[str, Any]) -> str:
    """The facts of `lens_facts` as plain text for a terminal, ending without a newline."""
    state = f" · NOT COMPLETE, of {facts['planned']:,} (fit-lens --resume goes on)" if facts.get("unfinished") else ""
    name, prompts = printable_line(Path(facts["path"]).name), counted(facts["prompts"], "prompt")
    lines = [f"{name} · Jacobian lens, fitted on {prompts}{state} · {size_text(facts['bytes'])}", ""]
    for key, value in _lines(facts):
        lines.append(f"  {key:<{_WIDTH}}  {printable_line(value)}")
    return "\n".join(lines)


def _lines(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    model, skipped = facts["model"], facts["skipped"]
    found = [
        ("model", f"{model['name']}, {model['dtype']}, weights {facts['weights_sha256'][:16]}…"),
        ("basis", str(facts["basis"])),
        ("depths", f"0 to {facts['depths'] - 2}; the last, {facts['depths'] - 1}, is the model itself"),
        ("rank", "full" if facts["rank"] is None else f"{facts['rank']:,} of {facts['d_model']:,}"),
        ("tokens", f"{facts['positions']:,} (without the first {skipped['first']} and the last of each prompt)"),
        ("parts", "; ".join(facts["parts"])),
    ]
    for corpus in facts["corpora"][:_CORPORA]:
        what = f"{corpus['name']}: {counted(corpus['prompts'], 'prompt')}, sha256 {corpus['sha256'][:16]}…"
        what += f"; {corpus['too_short']:,} too short and left out" if corpus["too_short"] else ""
        what += f"; {corpus['repeated']:,} the same as another one and left out" if corpus.get("repeated") else ""
        to = f" to {corpus['max_tokens']:,} tokens" if "max_tokens" in corpus else ""
        found.append(("corpus", what + (f"; {corpus['cut']:,} cut{to}" if corpus["cut"] else "")))
    if facts.get("apart"):
        apart = facts["apart"]
        what = f"{number(median(apart))} of the size of the whole (median of the depths; {number(min(apart))} to "
        what += f"{number(max(apart))})"
        found.append(("halves apart", what))
    if facts.get("outside"):
        what = f"about {percent(max(facts['outside']))} of the squared logits at the worst depth (estimated)"
        found.append(("lost by the rank", what))
    if facts["moved"] and facts["moved"][-1] is not None:
        found.append(("still moved by", f"{number(facts['moved'][-1])} of its size by the last prompt"))
    return found
