"""The tokens that a picture shows: one table, to which all that is drawn refers, so that it can be found and linked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stratoscope.view.spec.buffers import Flags, Indices, indices


@dataclass(frozen=True)
class ShownPrompt:
    """A prompt with a token in the picture.

    Attributes
    ----------
    id
        Its id, else its number.
    prompt_class
        Its class; "" = none.
    """

    id: str
    prompt_class: str = ""


@dataclass(frozen=True, eq=False)
class ShownTokens:
    """The tokens of a picture, in the order in which it shows them.

    Attributes
    ----------
    prompts
        The prompts that they belong to.
    prompt
        Index into `prompts`, −1 where a column is of no single prompt, of shape (tokens,).
    position
        Position in the prompt, of shape (tokens,); −1 where there is none, as of what only the second of two prompts
        has.
    span
        Index into system, template, user, answer, special, generated; −1 = unknown; of shape (tokens,).
    first
        1 where it is the first token of its prompt, of shape (tokens,).
    text
        What is written for each, readable; none at all where nothing is known.
    """

    prompts: tuple[ShownPrompt, ...] = ()
    prompt: Indices = field(default_factory=lambda: indices([]))
    position: Indices = field(default_factory=lambda: indices([]))
    span: Indices = field(default_factory=lambda: indices([]))
    first: Flags = field(default_factory=lambda: np.empty(0, np.uint8))
    text: tuple[str, ...] = ()


def joined(parts: Sequence[ShownTokens]) -> ShownTokens:
    """One table of several that share their prompts."""
    return ShownTokens(
        parts[0].prompts,
        np.concatenate([one.prompt for one in parts]),
        np.concatenate([one.position for one in parts]),
        np.concatenate([one.span for one in parts]),
        np.concatenate([one.first for one in parts]),
        tuple(text for one in parts for text in one.text),
    )


def unknown_tokens(count: int, first: Sequence[int] | NDArray[np.int64] = (), text: Sequence[str] = ()) -> ShownTokens:
    """Tokens of which no more is known than these, in reading order."""
    is_first = np.zeros(count, np.uint8)
    is_first[np.asarray(first, int)] = 1
    nothing = np.full(count, -1, np.int32)
    return ShownTokens((), nothing, np.arange(count, dtype=np.int32), nothing, is_first, tuple(text))
