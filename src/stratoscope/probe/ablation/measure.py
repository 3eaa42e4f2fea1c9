"""Prompts run under ablations, and what is read off the logits: targets and openers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stratoscope.errors import CaptureError
from stratoscope.probe.ablation.subject import Subject
from stratoscope.recorder.answers.outcome import log_odds
from stratoscope.recorder.effects.ablations import Ablation, each_ablated
from stratoscope.recorder.input.grouping import NONE, Batching
from stratoscope.recorder.input.tokens import continued
from stratoscope.trace.arrays import Floats


def measured(subject: Subject, prompt: int, ablations: Sequence[Ablation], *, alone: bool = False) -> Floats:
    """What the model would answer to a prompt under each ablation, [ablation, target and then opener].

    Targets are logits, less that of what they are compared with; openers log-odds.

    Parameters
    ----------
    alone
        Whether each runs in a batch of its own.

    Raises
    ------
    CaptureError
        A logit is not finite.
    """
    found = np.full((len(ablations), subject.outcomes), np.nan)
    size = 1 if alone or subject.batching.together == NONE else subject.batching.size
    by_beginning: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    by_beginning[()] = []
    for number, opener in enumerate(subject.openers):
        by_beginning[opener.token_ids[:-1]].append(number)
    for beginning, openers in by_beginning.items():
        tokens = subject.tokens[prompt]
        sequence = continued(tokens, beginning, subject.tokenizer) if beginning else tokens
        last = len(beginning) + 1
        for rows, logits in each_ablated(
            subject.model, subject.sites, [sequence], ablations,
            batching=Batching(size), pad_id=subject.pad_id, last=last,
        ):  # fmt: skip
            _check(logits, subject.ids[prompt])
            if not beginning:
                values = subject.values(logits[:, -1], [prompt] * len(rows))
                found[list(rows), : subject.targets] = values.cpu().numpy()
            for number in openers:
                odds = log_odds(logits, subject.openers[number].token_ids)
                found[list(rows), subject.targets + number] = odds.cpu().numpy()
    return found


def _check(logits: Tensor, prompt: str) -> None:
    if not bool(torch.isfinite(logits).all()):
        raise CaptureError(
            "the logits are not finite under an ablation",
            where=f"prompt {prompt}",
            fix="Check the model's weights, or try --dtype float32.",
        )
