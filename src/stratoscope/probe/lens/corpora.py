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
from stratoscope.words import counted, listed


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

    A prompt of the same tokens as one before, in any corpus, is left out and counted: halves and corpora that share
    prompts would agree by that alone.

    Raises
    ------
    InputError
        A corpus has fewer prompts than halves that are long enough and no repetition of one before.
    """
    texts: list[list[Text]] = []
    facts: list[dict[str, Any]] = []
    seen: set[bytes] = set()
    for corpus, (name, prompts) in enumerate(given.items()):
        encoded = [encode(prompt, tokenizer, chat=chat).ids.astype(np.int64) for prompt in prompts]
        long_enough = [ids for ids in encoded if len(ids) >= FEWEST_TOKENS]
        long = [ids for ids in long_enough if _is_new(ids[:most], seen)]
        digest = hashlib.sha256(b"".join(ids[:most].astype("<i4").tobytes() + b"\n" for ids in long)).hexdigest()
        too_short, cut = len(encoded) - len(long_enough), sum(len(ids) > most for ids in long)
        repeated = len(long_enough) - len(long)
        if len(long) < HALVES:
            raise _too_few(name, len(encoded), too_short, repeated)
        facts.append({"name": name, "sha256": prompts_sha256(prompts), "tokens_sha256": digest, "prompts": len(long),
                      "too_short": too_short, "repeated": repeated, "cut": cut, "max_tokens": most})  # fmt: skip
        texts.append([Text(ids[:most], corpus, number % HALVES) for number, ids in enumerate(long)])
    in_turns = (text for turn in zip_longest(*texts) for text in turn if text is not None)
    return Corpora(tuple(in_turns), tuple(facts))


def _is_new(ids: np.ndarray, seen: set[bytes]) -> bool:
    """Whether no prompt before had these tokens."""
    key = ids.tobytes()
    new = key not in seen
    seen.add(key)
    return new


def _too_few(name: str, given: int, too_short: int, repeated: int) -> InputError:
    """Says what a corpus lacks."""
    reasons = [f"{counted(too_short, 'prompt')} with fewer than {FEWEST_TOKENS} tokens"] * bool(too_short)
    reasons += [f"{counted(repeated, 'prompt')} of the same tokens as another one"] * bool(repeated)
    left_out = f", {listed(reasons)} left out" if reasons else ""
    return InputError(
        f"{HALVES} prompts are needed, and there {'is' if given == 1 else 'are'} {given:,}{left_out}",
        where=name,
        fix="Give more texts, longer ones and each once." if reasons else "Give more texts.",
    )
