"""Which prompts, tokens and layers a picture shows. Prompts are shown whole, side by side: never averaged by position."""  # noqa: E501

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.trace.arguments import is_whole, several
from stratoscope.trace.numbers import LayerChoice, choose_layers, listing
from stratoscope.words import number_ranges

if TYPE_CHECKING:
    import xarray as xr

PromptChoice: TypeAlias = "str | int | Sequence[str | int] | None"
TextChoice: TypeAlias = "str | Sequence[str] | None"
MOST_PANELS = 12
__all__ = ["LayerChoice", "PromptChoice", "PromptPanel", "Selection", "TextChoice", "choose_layers", "select"]


@dataclass(frozen=True)
class PromptPanel:
    """One prompt, or all of them end to end.

    Attributes
    ----------
    title, detail
        The prompt's class (else its id), and its id where the title is the class.
    prompts
        Indices on the prompt axis.
    tokens
        Indices on the token axis, in reading order, shape (n,).
    """

    title: str
    detail: str
    prompts: tuple[int, ...]
    tokens: NDArray[np.int64]


@dataclass(frozen=True)
class Selection:
    """The panels of a picture, and what there is besides them ("" = all is shown)."""

    panels: tuple[PromptPanel, ...]
    left_out: str


def select(
    dataset: xr.Dataset,
    *,
    prompt: PromptChoice = None,
    prompt_class: TextChoice = None,
    all_prompts: bool = False,
    span: TextChoice = None,
) -> Selection:
    """Choose prompts: those asked for, else the first pair, else the first prompt of each class.

    Parameters
    ----------
    dataset
        A trace.
    prompt
        Ids or indices, in the order to be shown.
    prompt_class
        Only prompts of these classes.
    all_prompts
        Every prompt (of those classes), end to end in one panel.
    span
        Only tokens of these parts of a prompt: names of `names.SPANS`.

    Raises
    ------
    InputError
        Something asked for does not exist, or nothing is left.
    """
    table = _Prompts(dataset)
    among = table.of_class(_listed(prompt_class, "class", "['critical']"))
    if prompt is not None and all_prompts:
        raise InputError("one prompt or all of them, not both", where="prompt", fix="Leave out `all`, or the prompt.")
    if prompt is not None:
        chosen = [table.find(one, among) for one in _listed(prompt, "prompt", "[0, 1]")]
    else:
        chosen = list(among) if all_prompts else table.typical(among)
    if len(chosen) > MOST_PANELS and not all_prompts:
        raise InputError(
            f"{len(chosen)} prompts are too many to show one by one",
            where="prompt",
            fix=f"Choose at most {MOST_PANELS}, or show all end to end (`--all`).",
        )
    wanted = _spans(_listed(span, "span", "['user']"))
    groups = [chosen] if all_prompts and len(chosen) > 1 else [[one] for one in chosen]
    panels = tuple(panel for group in groups if len((panel := _panel(dataset, table, group, wanted)).tokens))
    if not panels:
        raise InputError(
            "no token of the chosen prompts is in that span",
            where="span",
            fix=f"In these prompts: {listing(_spans_present(dataset, chosen))}.",
        )
    shown, total = sum(len(panel.prompts) for panel in panels), len(table.ids)
    left_out = "" if shown == total else f"{shown} of {total} prompts shown"
    return Selection(panels, left_out)


class _Prompts:
    """The prompts of a trace: their texts, and where their tokens start and stop."""

    def __init__(self, dataset: xr.Dataset) -> None:
        of_token = np.asarray(dataset["prompt"].values)
        count = dataset.sizes.get(names.PROMPT, int(of_token.max()) + 1 if of_token.size else 0)
        if not count or not of_token.size:
            raise InputError("there is no prompt in it", where="trace", fix="Record at least one prompt.")
        edges = np.searchsorted(of_token, np.arange(count + 1))
        self.starts, self.stops = edges[:-1], edges[1:]
        self.ids = self._texts(dataset, "prompt_id", count)
        self.classes = self._texts(dataset, "prompt_class", count)
        self.pairs = self._texts(dataset, "pair", count)
        self.imported = dataset.attrs.get("source") == names.IMPORTED

    @staticmethod
    def _texts(dataset: xr.Dataset, name: str, count: int) -> list[str]:
        return [str(text) for text in dataset[name].values] if name in dataset.coords else [""] * count

    def of_class(self, wanted: Sequence[str]) -> list[int]:
        for name in wanted:
            if name not in self.classes:
                known = sorted(set(self.classes) - {""})
                raise InputError(
                    f"no prompt of class {name!r}",
                    where="class",
                    fix=f"There are: {listing(known)}." if known else "The prompts of this trace have no class.",
                )
        return [index for index, name in enumerate(self.classes) if not wanted or name in wanted]

    def find(self, wanted: str | int, among: Sequence[int]) -> int:
        ids: dict[str, int] = {}
        for index in among:
            ids.setdefault(self.ids[index], index)
        if isinstance(wanted, str) and wanted in ids:
            return ids[wanted]
        if is_whole(wanted) or (isinstance(wanted, str) and wanted.lstrip("-").isdecimal()):
            if int(wanted) in among:
                return int(wanted)
            raise InputError(
                f"no prompt number {wanted}", where="prompt", fix=f"There are: {number_ranges(among)}, counted from 0."
            )
        raise InputError(f"no prompt called {wanted!r}", where="prompt", fix=f"There are: {listing(list(ids))}.")

    def typical(self, among: Sequence[int]) -> list[int]:
        """The first minimal pair, one prompt of each of its classes; without pairs, the first prompt of each class.

        Of an import, every file that was named; of too many, at least one of each class as far as there is room.
        """
        if self.imported:
            first = self._first_of_each_class(among)
            return sorted([*first, *(index for index in among if index not in first)][:MOST_PANELS])
        for pair in dict.fromkeys(self.pairs[index] for index in among):
            members = [index for index in among if self.pairs[index] == pair]
            twins = self._first_of_each_class(members)
            if pair and len(twins) > 1:
                return twins
        return self._first_of_each_class(among)[:MOST_PANELS]

    def _first_of_each_class(self, among: Sequence[int]) -> list[int]:
        first: dict[str, int] = {}
        for index in among:
            first.setdefault(self.classes[index], index)
        return list(first.values())


def _panel(dataset: xr.Dataset, table: _Prompts, group: list[int], spans: list[int]) -> PromptPanel:
    tokens = np.concatenate([np.arange(table.starts[index], table.stops[index]) for index in group])
    if spans:
        tokens = tokens[np.isin(np.asarray(dataset["span"].values)[tokens], spans)]
    if len(group) > 1:
        classes = [name for name in dict.fromkeys(table.classes[index] for index in group) if name]
        return PromptPanel(f"{len(group)} prompts, end to end", listing(classes), tuple(group), tokens)
    (index,) = group
    name, identity = table.classes[index], table.ids[index]
    if not name:
        name, identity = identity or f"prompt {index}", ""
    return PromptPanel(name, "" if identity == name else identity, (index,), tokens)


def _listed(choice: PromptChoice | TextChoice, where: str, example: str) -> list[Any]:
    """One choice or several as a list."""
    return [] if choice is None else several(choice, where, example)


def _spans(wanted: Sequence[str]) -> list[int]:
    for name in wanted:
        if name not in names.SPANS:
            raise InputError(f"no span called {name!r}", where="span", fix=f"Choose from: {', '.join(names.SPANS)}.")
    return [names.SPANS.index(name) for name in wanted]


def _spans_present(dataset: xr.Dataset, prompts: list[int]) -> list[str]:
    spans = np.asarray(dataset["span"].values)[np.isin(np.asarray(dataset["prompt"].values), prompts)]
    return [names.SPANS[index] if index >= 0 else "unknown" for index in np.unique(spans)]
