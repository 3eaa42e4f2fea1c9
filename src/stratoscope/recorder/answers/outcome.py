"""What the model is about to answer, and whether its answer opens as a refusal. Both only observe."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stratoscope.errors import InputError
from stratoscope.recorder.answers.refusals import opening
from stratoscope.recorder.input.tokens import TokenisedPrompt, continued, ids_of, special_ids

Logits = Callable[[Sequence[TokenisedPrompt], int], Tensor]


@dataclass(frozen=True)
class Opener:
    """A beginning of an answer: its text and the tokens its tokenizer makes of it alone."""

    text: str
    token_ids: tuple[int, ...]


def tokenised_openers(texts: Sequence[str], tokenizer: Any) -> list[Opener]:
    """The openers as tokens.

    Raises
    ------
    InputError
        One is empty, holds a character that is not in the vocabulary, or there are two of the same tokens.
    """
    openers = [Opener(text, tuple(ids_of(text, tokenizer, f"opener {text!r}"))) for text in texts]
    texts_of: dict[tuple[int, ...], list[str]] = {}
    for opener in openers:
        texts_of.setdefault(opener.token_ids, []).append(repr(opener.text))
    for same in texts_of.values():
        if len(same) > 1:
            raise InputError("are the same tokens", where=f"the openers {' and '.join(same)}", fix="Give one of them.")
    return openers


def opener_log_odds(
    openers: Sequence[Opener], prompts: Sequence[TokenisedPrompt], first: Tensor, logits: Logits, tokenizer: Any
) -> np.ndarray:
    """How likely each answer is to begin with each opener.

    log p − log(1 − p) with p = Π_i p(t_i | prompt, t_1 … t_{i−1}) over the opener's tokens: an opener of two tokens is
    not its first one. Other ways to cut the same letters into tokens are not counted.

    Parameters
    ----------
    openers
        One or more.
    prompts
        Without answers.
    first
        Logits that predict the first token of each answer, [prompt, vocabulary].
    logits
        Gives, for sequences and a number n, the logits at the last n tokens of each, [sequence, n, vocabulary]. Called
        once for each distinct beginning of the openers of several tokens.

    Returns
    -------
    float32, shape (prompts, openers), natural logarithm.
    """
    by_beginning: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, opener in enumerate(openers):
        by_beginning[opener.token_ids[:-1]].append(number)
    found = np.empty((len(prompts), len(openers)), np.float32)
    for beginning, members in by_beginning.items():
        if beginning:
            seen = logits([continued(prompt, beginning, tokenizer) for prompt in prompts], len(beginning) + 1)
        else:
            seen = first[:, None]
        for number in members:
            found[:, number] = log_odds(seen, openers[number].token_ids).numpy()
    return found


def log_odds(logits: Tensor, ids: tuple[int, ...]) -> Tensor:
    """Log-odds of the tokens `ids`, [prompt], float64 on the host.

    Parameters
    ----------
    logits
        [prompt, tokens, vocabulary]; the last len(ids) predict these tokens.
    ids
        One or more.
    """
    logits = logits[:, -len(ids) :].cpu().double()
    wanted = torch.tensor(ids).expand(len(logits), -1)[..., None]
    chosen = logits.gather(-1, wanted)[..., 0]
    total = logits.logsumexp(-1)
    others = (logits.scatter(-1, wanted, -torch.inf).logsumexp(-1) - total).exp()  # 1 − p_i, exact where it is small
    log_p = torch.where(others < 0.5, torch.log1p(-others), chosen - total).sum(-1)
    return log_p - torch.log(-torch.expm1(log_p))


# --- refusals -------------------------------------------------------------------------------------------------------


def refusals(prompts: Sequence[TokenisedPrompt], patterns: Sequence[str], tokenizer: Any) -> dict[str, np.ndarray]:
    """`opens_as_refusal` and `refusal_pattern` of prompts with their answers, int32, shape (prompts,)."""
    special = np.fromiter(special_ids(tokenizer), np.int64)
    answered, pattern = [], []
    for prompt in prompts:
        words = prompt.generated & ~np.isin(prompt.ids, special)
        answer = "".join(prompt.texts[place] for place in np.flatnonzero(words))
        answered.append(bool(prompt.generated.any()))
        pattern.append(opening(answer, patterns))
    found = np.array(pattern, np.int32)
    opens = np.where(answered, found >= 0, -1).astype(np.int32)
    return {"opens_as_refusal": opens, "refusal_pattern": found}
