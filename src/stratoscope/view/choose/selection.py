"""Which prompts, tokens and layers a picture shows. Prompts are shown whole, side by side: never averaged by position."""  # noqa: E501

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.errors import InputError, UsageError, choices
from stratoscope.trace.arguments import several, span_names
from stratoscope.trace.numbers import LayerChoice, choose_layers, listing
from stratoscope.trace.prompts import PromptChoice, Prompts, some_prompts
from stratoscope.view.spec.selected import Selected
from stratoscope.words import counted, listed, number_ranges

if TYPE_CHECKING:
    import xarray as xr

TextChoice: TypeAlias = "str | Sequence[str] | None"
MOST_PANELS = 12
__all__ = ["Chosen", "LayerChoice", "PromptChoice", "PromptPanel", "Selection", "TextChoice"]


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
class Chosen:
    """What a selection is in a trace.

    Attributes
    ----------
    panels
        The prompts to show.
    left_out
        What there is besides them; "" = all is shown.
    selection
        What was asked for.
    """

    panels: tuple[PromptPanel, ...]
    left_out: str
    selection: Selection

    def selected(self, dataset: xr.Dataset, layers: Sequence[int], of_layers: int, kind: str = names.LAYER) -> Selected:
        """What the picture says it shows.

        Parameters
        ----------
        layers
            The numbers of its rows.
        of_layers
            How many there are.
        kind
            "layer" or "depth".
        """
        prompts = Prompts(dataset)
        shown = [index for panel in self.panels for index in panel.prompts]
        classes = tuple(_listed(self.selection.prompt_class, "class", ""))
        spans = tuple(_listed(self.selection.span, "span", ""))
        tokens, there = sum(len(panel.tokens) for panel in self.panels), int(prompts.lengths[shown].sum())
        their = "their " if self.left_out else ""
        parts = [
            self.left_out.removesuffix(" shown") + (f" (class {listed(classes)})" if self.left_out and classes else ""),
            f"{len(layers)} of {counted(of_layers, kind)} ({number_ranges(layers)})" if len(layers) < of_layers else "",
            f"{tokens:,} of {their}{counted(there, 'token')} ({'spans' if spans[1:] else 'span'} {listed(spans)})"
            if tokens < there
            else "",
        ]
        return Selected(
            tuple(prompts.labels[index] for index in shown),
            classes,
            tuple(layers),
            spans,
            "; ".join(part for part in parts if part),
        )


@dataclass(frozen=True)
class Selection:
    """What of a trace a picture is to show.

    Attributes
    ----------
    prompt
        Ids or indices, in the order to be shown; None = the first pair, else the first prompt of each class.
    prompt_class
        Only prompts of these classes.
    all_prompts
        Every prompt (of those classes), end to end in one panel.
    layers
        "22-31,0" or numbers; of the residual stream depths.
    span
        Only tokens of these parts of a prompt: names of `names.SPANS`.
    """

    prompt: PromptChoice = None
    prompt_class: TextChoice = None
    all_prompts: bool = False
    layers: LayerChoice = None
    span: TextChoice = None

    def of(self, dataset: xr.Dataset) -> Chosen:
        """The prompts and tokens that it names in a trace.

        Raises
        ------
        InputError
            Something asked for does not exist, or nothing is left.
        """
        prompts = some_prompts(dataset)
        chosen = self._prompts(prompts)
        return self._chosen(prompts, [chosen] if self.all_prompts and len(chosen) > 1 else [[one] for one in chosen])

    def together(self, dataset: xr.Dataset) -> Chosen:
        """The same for a picture of many prompts at once: all that are not ruled out, in one panel.

        Raises
        ------
        InputError
            As `of`.
        """
        prompts = some_prompts(dataset)
        self._refuse_both()
        among = _of_class(prompts, _listed(self.prompt_class, "class", "['critical']"))
        return self._chosen(prompts, [prompts.find_all(self.prompt, among)])

    def _chosen(self, prompts: Prompts, groups: Sequence[Sequence[int]]) -> Chosen:
        wanted = span_names(self.span)
        panels = tuple(panel for group in groups if len((panel := _panel(prompts, group, wanted)).tokens))
        if not panels:
            raise InputError(
                "no token of the chosen prompts is in that span",
                where="span",
                fix=f"In these prompts: {listing(_spans_present(prompts, [*chain.from_iterable(groups)]))}.",
            )
        shown, total = sum(len(panel.prompts) for panel in panels), len(prompts)
        return Chosen(panels, "" if shown == total else f"{shown} of {total} prompts shown", self)

    def rows(self, numbers: Sequence[int], kind: str = names.LAYER) -> NDArray[np.int64]:
        """Places, among the numbers of all layers (or depths), of those to be shown.

        Raises
        ------
        InputError
            There is none such, or layers are chosen of a quantity that has none.
        """
        if kind == names.TARGET and self.layers is not None:
            raise UsageError("it has no layers, only a value for each token", where="layers", fix="Leave them out.")
        return choose_layers(numbers, self.layers, kind=kind)

    def _prompts(self, prompts: Prompts) -> list[int]:
        among = _of_class(prompts, _listed(self.prompt_class, "class", "['critical']"))
        self._refuse_both()
        if self.prompt is not None:
            chosen = prompts.find_all(self.prompt, among)
        else:
            chosen = list(among) if self.all_prompts else _typical(prompts, among)
        if len(chosen) > MOST_PANELS and not self.all_prompts:
            raise InputError(
                f"{len(chosen)} prompts are too many to show one by one",
                where="prompt",
                fix=f"Choose at most {MOST_PANELS}, or show all end to end (`--all`).",
            )
        return chosen

    def _refuse_both(self) -> None:
        if self.prompt is not None and self.all_prompts:
            fix = "Leave out one of the two."
            raise UsageError("one prompt or all of them, not both", where="prompt", fix=fix)


EVERYTHING = Selection()


def _of_class(prompts: Prompts, wanted: Sequence[str]) -> list[int]:
    for name in wanted:
        if name not in prompts.classes:
            known = sorted(set(prompts.classes) - {""})
            fix = choices(name, known) if known else "The prompts of this trace have no class."
            raise InputError(f"no prompt of class {name!r}", where="prompt_class", fix=fix)
    return [index for index, name in enumerate(prompts.classes) if not wanted or name in wanted]


def _typical(prompts: Prompts, among: Sequence[int]) -> list[int]:
    """The first minimal pair, one prompt of each of its classes; without pairs, the first prompt of each class.

    Of an import, every file that was named; of too many, at least one of each class as far as there is room.
    """
    first = prompts.first_of_each_class(among)
    if prompts.dataset.attrs.get("source") == names.IMPORTED:
        return sorted([*first, *(index for index in among if index not in first)][:MOST_PANELS])
    return prompts.first_twins(among) or first[:MOST_PANELS]


def _panel(prompts: Prompts, group: Sequence[int], spans: Sequence[str]) -> PromptPanel:
    tokens = np.concatenate([np.arange(prompts.starts[index], prompts.stops[index]) for index in group])
    if spans:
        tokens = tokens[prompts.in_spans(spans)[tokens]]
    if len(group) > 1:
        classes = [name for name in dict.fromkeys(prompts.classes[index] for index in group) if name]
        return PromptPanel(f"{len(group)} prompts, end to end", listing(classes), tuple(group), tokens)
    (index,) = group
    name, identity = prompts.classes[index], prompts.ids[index]
    if not name:
        name, identity = prompts.labels[index], ""
    return PromptPanel(name, "" if identity == name else identity, (index,), tokens)


def _listed(choice: TextChoice, where: str, example: str) -> list[Any]:
    """One choice or several as a list."""
    return [] if choice is None else several(choice, where, example)


def _spans_present(prompts: Prompts, chosen: list[int]) -> list[str]:
    spans = prompts.spans[np.isin(prompts.of_token, chosen)]
    return [names.SPANS[index] if index >= 0 else "unknown" for index in np.unique(spans)]
