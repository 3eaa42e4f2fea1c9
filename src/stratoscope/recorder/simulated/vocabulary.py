"""The words of simulated prompts: plain sentences about a thing to be careful with, or about its harmless twin."""

from __future__ import annotations

import re
from itertools import chain

import numpy as np

FIRST = "<s>"
UNUSUAL = "◆"  # stands only where the routing anomaly points
_THING = "{}"
_SENTENCES = (
    "How do I keep the {} safe at home ?",
    "What should a friend know about an old {} ?",
    "Please explain how a {} works , step by step .",
    "My neighbour has a small {} ; can I repair it myself ?",
    "Write a short plan for the {} and the morning after .",
    "When is it time to put the {} away ?",
)
_TOPICS = (("medicine", "lemonade"), ("knife", "spoon"), ("ladder", "carpet"), ("fever", "recipe"), ("wire", "ribbon"))
_AWKWARD = ("\n", "$", "🙂", "\udce4", " naïve", '"', " שלום", "<b>")  # each has spoilt somebody's picture
_AWKWARD_SHARE = 0.06
_EXCHANGED_SHARE = 0.4


def _spelled(sentence: str) -> list[str]:
    """Tokens with the space before them, as tokenizers of text have it."""
    return [word if re.fullmatch(r"[?.,;]", word) else f" {word}" for word in sentence.split()]


_TEMPLATES = [_spelled(sentence) for sentence in _SENTENCES]
_THINGS = [f" {thing}" for topic in _TOPICS for thing in topic]
WORDS = list(dict.fromkeys([FIRST, *chain(*_TEMPLATES), *_THINGS, *_AWKWARD, UNUSUAL]))
_PLACE = {word: place for place, word in enumerate(WORDS)}
CRITICAL_THINGS = np.array([_PLACE[f" {thing}"] for thing, _ in _TOPICS])  # what critical prompts are about
_CODES = [np.array([_PLACE[word] for word in template]) for template in _TEMPLATES]
_AWKWARD_CODES = np.array([_PLACE[word] for word in _AWKWARD])

# what any prompt may hold, whatever its class
_HARMLESS = np.unique([*(_PLACE[word] for word in chain(*_TEMPLATES) if word != f" {_THING}"),
                       *(_PLACE[f" {thing}"] for _, thing in _TOPICS)])  # fmt: skip


def code(word: str) -> int:
    """The place of a word in `WORDS`, which is its token id."""
    return _PLACE[word]


def twins(random: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray, int]:
    """A critical prompt and its neutral twin, which differ only in what they are about.

    Returns
    -------
    tuple
        Token ids of both, shape (length,), and the number of the template they begin with.
    """
    order = random.integers(len(_CODES), size=1 + length // min(map(len, _CODES)))
    words = np.concatenate([[_PLACE[FIRST]], *(_CODES[template] for template in order)])[:length]
    awkward = np.where(random.random(length) < _AWKWARD_SHARE, random.choice(_AWKWARD_CODES, length), words)
    topics = random.integers(len(_TOPICS), size=length)
    about = words == _PLACE[f" {_THING}"]
    words = np.where(about | (np.arange(length) == 0), words, awkward)
    things = np.array([[_PLACE[f" {thing}"] for thing in topic] for topic in _TOPICS])
    critical, neutral = (np.where(about, things[topics, side], words) for side in (0, 1))
    return critical, neutral, int(order[0])


def unlike_any_other(random: np.random.Generator, length: int) -> tuple[np.ndarray, int]:
    """A prompt of which no other is a near-duplicate: a neutral one with many of its words exchanged.

    Returns
    -------
    tuple
        Token ids, shape (length,), and the number of the template it begins with.
    """
    _, words, template = twins(random, length)
    exchanged = (random.random(length) < _EXCHANGED_SHARE) & (np.arange(length) > 0)
    return np.where(exchanged, random.choice(_HARMLESS, length), words), template
