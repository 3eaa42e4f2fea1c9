"""A token in the words around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stratoscope import names
from stratoscope.words import plain_text, readable, visible

if TYPE_CHECKING:
    from stratoscope.trace.prompts import Prompts

_AROUND = 8  # tokens before and after
_BEFORE, _AFTER = 20, 12  # characters of an excerpt


def words_around(prompts: Prompts, token: int, within: slice | None = None) -> tuple[str, str, str]:
    """The texts before a token of its prompt (or within fewer tokens), its own, and those after it."""
    own = within or prompts.tokens(int(prompts.of_token[token]))
    low, high = max(own.start, token - _AROUND), min(own.stop, token + _AROUND + 1)
    spelling = str(prompts.dataset.attrs.get("token_spelling", "text"))
    texts = [plain_text(text, spelling) for text in prompts.words(slice(low, high))]
    at = token - low
    return "".join(texts[:at]), texts[at], "".join(texts[at + 1 :])


def excerpt(prompts: Prompts, token: int) -> str:
    """A token in brackets with a few words around it, on one line: "…for my child's [cough]. He is…".

    Around a token of a person's or a model's words stands nothing of the template.
    """
    own = _passage(prompts, token)
    before, text, after = words_around(prompts, token, own)
    core = text.strip(" ")
    blank = " " if core and text.startswith(" ") else ""
    shown = visible(core) if core else readable(text)
    before, after = visible(before), visible(after)
    more_before, more_after = token - own.start > _AROUND, own.stop - token - 1 > _AROUND
    if len(before) > _BEFORE:
        before, more_before = _whole_words(before[::-1][:_BEFORE])[::-1], True
    if len(after) > _AFTER:
        after, more_after = _whole_words(after[:_AFTER]), True
    return f"{'…' * more_before}{before.lstrip(' ')}{blank if before else ''}[{shown}]{after}{'…' * more_after}"


def _passage(prompts: Prompts, token: int) -> slice:
    """The tokens of a prompt around one, up to those of the template; all of it around one of these."""
    own = prompts.tokens(int(prompts.of_token[token]))
    template = np.isin(prompts.spans[own], [names.SPANS.index(name) for name in names.TEMPLATE_SPANS])
    if template[token - own.start]:
        return own
    ends = own.start + np.flatnonzero(template)
    place = np.searchsorted(ends, token)
    return slice(int(ends[place - 1]) + 1 if place else own.start, int(ends[place]) if place < len(ends) else own.stop)


def _whole_words(text: str) -> str:
    """The beginning of a text that was cut, up to its last blank if there is one in its second half."""
    cut = text.rfind(" ", len(text) // 2)
    return text if cut < 0 else text[:cut]
