"""Texts as a lens is fitted on them: token ids, cut to a length, each in the half that it counts for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from stratoscope.errors import InputError
from stratoscope.probe.lens.asked import FEWEST_TOKENS
from stratoscope.recorder.input.tokens import encode
from stratoscope.recorder.plan import prompts_sha256
from stratoscope.recorder.prompts.prompt import PromptList
from stratoscope.trace.lens_file import HALVES
from stratoscope.words import agreeing, counted


@dataclass(frozen=True)
class Text:
    """One prompt: its token ids, int64, and the corpus and half that it counts for."""

    ids: np.ndarray
    corpus: int
    half: int


@dataclass(frozen=True)
class Corpora:
    """The prompts of all corpora in the order in which they are run, and what was read."""

    texts: tuple[Text, ...]
    facts: tuple[dict[str, Any], ...]

    @property
    def too_short(self) -> int:
        """How many prompts are left out, as they have too few tokens."""
        return sum(one["too_short"] for one in self.facts)


def read_corpora(given: Mapping[str, PromptList], tokenizer: Any, *, most: int, chat: bool) -> Corpora:
    """The prompts of named corpora, corpora taking turns, and in each the halves.

    Raises
    ------
    InputError
        A corpus has fewer prompts than halves that are long enough.
    """
    texts: list[list[Text]] = []
    facts: list[dict[str, Any]] = []
    for corpus, (name, prompts) in enumerate(given.items()):
        encoded = [encode(prompt, tokenizer, chat=chat).ids.astype(np.int64) for prompt in prompts]
        long = [ids for ids in encoded if len(ids) >= FEWEST_TOKENS]
        digest = hashlib.sha256(b"".join(ids[:most].astype("<i4").tobytes() + b"\n" for ids in long)).hexdigest()
        too_short, cut = len(encoded) - len(long), sum(len(ids) > most for ids in long)
        if len(long) < HALVES:
            raise InputError(
                f"{counted(too_short, 'prompt')} of {len(encoded):,} {agreeing(too_short, 'is', 'are')} left out, as "
                f"{agreeing(too_short, 'it has', 'they have')} fewer than {FEWEST_TOKENS} tokens, and {HALVES} prompts "
                "are needed",
                where=name,
                fix="Give more and longer texts.",
            )
        facts.append({"name": name, "sha256": prompts_sha256(prompts), "tokens_sha256": digest, "prompts": len(long),
                      "too_short": too_short, "cut": cut})  # fmt: skip
        texts.append([Text(ids[:most], corpus, number % HALVES) for number, ids in enumerate(long)])
    in_turns = (text for turn in zip_longest(*texts) for text in turn if text is not None)
    return Corpora(tuple(in_turns), tuple(facts))
