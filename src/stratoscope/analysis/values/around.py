"""A token in the words around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stratoscope import names
from stratoscope.words import plain_text, readable, shortened, visible

if TYPE_CHECKING:
    from stratoscope.trace.prompts import Prompts

_AROUND = 8  # tokens before and after
_BEFORE, _AFTER = 20, 12  # characters of an excerpt
_LONG = 24  # characters of a token
_NEAR = 16  # characters on either side, in a cell of a table


def words_around(prompts: Prompts, token: int, within: slice | None = None) -> tuple[str, str, str]:
    """The texts before a token of its prompt (or within fewer tokens), its own, and those after it."""
    own = within or prompts.tokens(int(prompts.of_token[token]))
    low, high = max(own.start, token - _AROUND), min(own.stop, token + _AROUND + 1)
    spelling = str(prompts.dataset.attrs.get("token_spelling", "text"))
    texts = [plain_text(text, spelling) for text in prompts.words(slice(low, high))]
    at = token - low
    return "".join(texts[:at]), texts[at], "".join(texts[at + 1 :])


def words_near(prompts: Prompts, token: int) -> tuple[str, str, str]:
    """As `words_around`, of as few whole tokens as a cell has room for; "…" stands for the others."""
    own = prompts.tokens(int(prompts.of_token[token]))
    spelling = str(prompts.dataset.attrs.get("token_spelling", "text"))

    def beside(tokens: range) -> list[str]:
        texts, room = list[str](), _NEAR
        for one in tokens:
            (text,) = (plain_text(word, spelling) for word in prompts.words(slice(one, one + 1)))
            room -= len(text)
            if room < 0:
                return [*texts, "…"]
            texts.append(text)
        return texts

    (text,) = (plain_text(word, spelling) for word in prompts.words(slice(token, token + 1)))
    before, after = beside(range(token - 1, own.start - 1, -1)), beside(range(token + 1, own.stop))
    return "".join(reversed(before)), text, "".join(after)


def asked_words(prompts: Prompts, prompt: int, most: int = 300) -> str:
    """What a person wrote in a prompt, on one line; all of its words where that is not known."""
    own = prompts.tokens(prompt)
    spelling = str(prompts.dataset.attrs.get("token_spelling", "text"))
    asked = prompts.in_spans(["user"])[own]
    tokens = own.start + (np.flatnonzero(asked) if asked.any() else np.arange(own.stop - own.start))
    texts = [shortened(plain_text(text, spelling), _LONG) for text in prompts.words(tokens[:most])]
    return shortened(visible("".join(texts)).strip(" "), most)


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
