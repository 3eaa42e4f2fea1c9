"""The attribute `token_texts`: what tokens say that are named by a number and may stand in no prompt of the trace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

TOKEN_TEXTS = "token_texts"
MOST = 20_000  # tokens: the root document is rewritten with every commit


def token_texts(attrs: Mapping[str, Any]) -> dict[int, str]:
    """Token id to its text, as the tokens of prompts have theirs; empty where a trace has none."""
    stored = attrs.get(TOKEN_TEXTS)
    if not isinstance(stored, Mapping):
        return {}
    return {int(number): text for number, text in stored.items() if str(number).isdecimal() and isinstance(text, str)}


def united(attributes: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """The attribute of a trace that is made of parts; nothing where none of them has one."""
    texts = {number: text for attrs in attributes for number, text in token_texts(attrs).items()}
    return {TOKEN_TEXTS: {str(number): texts[number] for number in sorted(texts)[:MOST]}} if texts else {}
