"""A lesson is a page of Markdown; its notebook holds the same cells, and the page also what they gave."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LESSONS = sorted((Path(__file__).parent / "lessons").glob("[0-9]-*.md"))
_OUTPUT = re.compile(r"\n*<!-- output -->\n.*?<!-- end of output -->", re.DOTALL)
_CODE = re.compile(r"```python\n(.*?)\n```\n?", re.DOTALL)
_RUN = re.compile(r"\n*<!-- Outputs of the code with SHA-256 (\w+)\. -->\n*$")
_FOLDED, _UNFOLDED = "<details><summary>Answers</summary>", "</details>"
_ANSWERS = (
    "## Answers\n\nThey are computed by the cells below, which are folded: click on the bar beside one to open it."
)


@dataclass(frozen=True)
class Cell:
    """A piece of a lesson.

    Attributes
    ----------
    text
        Markdown, or Python if it is `code`.
    folded
        Whether it is an answer, which a reader opens.
    """

    text: str
    code: bool
    folded: bool = False


def cells(page: str) -> list[Cell]:
    """The cells of a page, without what they gave."""
    found, folded = [], False
    for place, text in enumerate(_CODE.split(_RUN.sub("", _OUTPUT.sub("", page)))):
        if place % 2:
            found.append(Cell(text, code=True, folded=folded))
            continue
        folded = (folded or _FOLDED in text) and _UNFOLDED not in text
        if said := text.replace(_FOLDED, _ANSWERS).replace(_UNFOLDED, "").strip():
            found.append(Cell(said, code=False))
    return found


def notebook(page: str) -> str:
    """The notebook of a page, without outputs, as Jupyter writes it."""
    made = {
        "cells": [_notebook_cell(number, cell) for number, cell in enumerate(cells(page))],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def _notebook_cell(number: int, cell: Cell) -> dict[str, Any]:
    made: dict[str, Any] = {"cell_type": "code" if cell.code else "markdown", "id": f"cell-{number}", "metadata": {}}
    if cell.folded:
        made["metadata"] = {"collapsed": True, "jupyter": {"outputs_hidden": True, "source_hidden": True}}
    if cell.code:
        made |= {"execution_count": None, "outputs": []}
    return made | {"source": cell.text.splitlines(keepends=True)}


def with_outputs(page: str, outputs: Sequence[str]) -> str:
    """The page with what each of its code cells gave, as Markdown; "" = nothing."""
    waiting = iter(outputs)

    def block(found: re.Match[str]) -> str:
        output = next(waiting)
        return (
            found[0].rstrip("\n") + (f"\n\n<!-- output -->\n{output}\n<!-- end of output -->" if output else "") + "\n"
        )

    filled = _CODE.sub(block, _RUN.sub("\n", _OUTPUT.sub("", page)))
    return filled.rstrip("\n") + f"\n\n<!-- Outputs of the code with SHA-256 {code_hash(page)}. -->\n"


def code_hash(page: str) -> str:
    """What the outputs of a page depend on: all of its code."""
    code = "\n".join(cell.text for cell in cells(page) if cell.code)
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def outputs_are_of(page: str) -> str:
    """The hash of the code that gave the outputs of a page; "" where there are none."""
    found = _RUN.search(page)
    return found[1] if found else ""


def as_markdown(outputs: Sequence[dict[str, Any]], alt: str, picture: Callable[[str], str]) -> str:
    """What a cell gave, as Markdown.

    Parameters
    ----------
    outputs
        As in a notebook that ran.
    alt
        What pictures show, in words.
    picture
        Keeps a PNG, given in base 64, and says in which file.
    """
    parts: list[str] = []
    said = ""
    for output in outputs:
        data = output.get("data", {})
        if output.get("name") == "stdout":
            said += output["text"]
        elif "image/png" in data:
            parts.append(f"![{alt}]({picture(data['image/png'])})")
        elif data:
            parts.append(_block("".join(data["text/plain"])))
    return "\n\n".join([*([_block(said)] if said else []), *parts])


def _block(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"
