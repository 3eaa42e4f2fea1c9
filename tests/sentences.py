"""What a sentence is that users read: in errors, notes, receipts, reports and help texts."""

from __future__ import annotations


def is_sentence(text: str) -> bool:
    """Whether a text begins with a capital, or with no letter, and ends as a sentence does."""
    return not text[:1].islower() and text.endswith((".", "?", ".)"))
