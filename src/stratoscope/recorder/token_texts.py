"""Texts of tokens that are named in a trace and may stand in no prompt of it: the attribute `token_texts`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from stratoscope.recorder.input.spelling import literals
from stratoscope.trace.format.token_texts import MOST, TOKEN_TEXTS


class TokenTexts:
    """Token ids and the bytes that each stands for, decoded as UTF-8 with `surrogateescape`.

    Parameters
    ----------
    tokenizer
        Gives them.
    attrs
        Of the trace that is gone on with, which may have some.
    """

    def __init__(self, tokenizer: Any, attrs: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._texts: dict[str, str] = dict(attrs.get(TOKEN_TEXTS) or {})

    def add(self, ids: Collection[int]) -> bool:
        """Take further tokens, as many as there is room for; gives whether there were any."""
        new = sorted({number for number in ids if number >= 0 and str(number) not in self._texts})
        new = new[: max(0, MOST - len(self._texts))]
        texts = literals(new, self._tokenizer)
        self._texts |= {str(n): text.decode("utf-8", "surrogateescape") for n, text in zip(new, texts, strict=True)}
        return bool(new)

    @property
    def attribute(self) -> dict[str, dict[str, str]]:
        """The attribute of the trace."""
        return {TOKEN_TEXTS: dict(sorted(self._texts.items(), key=lambda one: int(one[0])))}
