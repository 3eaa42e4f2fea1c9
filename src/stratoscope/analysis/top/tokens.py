"""Which tokens of a prompt a person means: one at a position, one of a text, or all but the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.analysis.values.around import excerpt
from stratoscope.errors import InputError, choices
from stratoscope.trace.arrays import Ints
from stratoscope.words import counted, number_ranges, readable

if TYPE_CHECKING:
    from stratoscope.trace.prompts import Prompts

_SHOWN = 6  # places of a text in an error


def at_position(prompts: Prompts, prompt: int, position: int) -> int:
    """The token at a position of a prompt."""
    own = prompts.tokens(prompt)
    places = np.flatnonzero(prompts.position[own] == position)
    if not len(places):
        there = f"There are: {number_ranges(prompts.position[own].tolist())}."
        raise InputError(f"no position {position} in {prompts.labels[prompt]}", where="token", fix=there)
    return int(own.start + places[0])


def of_text(prompts: Prompts, prompt: int, text: str) -> int:
    """The only token of a prompt that reads so, with or without blanks, as pictures show it or tokenizers spell it.

    Raises
    ------
    InputError
        There is none, or more than one: it says where they stand.
    """
    own, name = prompts.tokens(prompt), str(prompts.labels[prompt])
    spelling, width = str(prompts.dataset.attrs.get("token_spelling", "text")), max(80, 2 * len(text))
    words = prompts.words(own)
    wanted = {readable(text, spelling=one, width=width) for one in ("text", "tokenizer")}
    labels = [readable(word, spelling=spelling, width=width) for word in words]
    places = [
        int(own.start + place)
        for place, label in enumerate(labels)
        if wanted & {label, label.strip("·"), readable(words[place], spelling=spelling)}
    ]
    if not places:
        raise InputError(f"no token reads {text!r} in {name}", where="token_text", fix=choices(text, sorted({*labels})))
    if len(places) > 1:
        shown = "; ".join(f"{prompts.position[one]} ({excerpt(prompts, one)})" for one in places[:_SHOWN])
        more = f"; … ({len(places)} in all)" if len(places) > _SHOWN else ""
        what = f"{text!r} stands in {counted(len(places), 'place')} of {name}"
        raise InputError(what, where="token_text", fix=f"Choose one by its position (token): {shown}{more}.")
    return places[0]


def some_of(prompts: Prompts, prompt: int, span: Sequence[str], *, first_token: bool) -> Ints:
    """The tokens of a prompt in these spans, all without one; its first only where it is to take part."""
    own = np.arange(prompts.starts[prompt], prompts.stops[prompt])
    if span:
        own = own[prompts.in_spans(span)[own]]
    return own if first_token else own[~prompts.first[own]]
