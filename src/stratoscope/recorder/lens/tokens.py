"""Logits of many rows as what is kept of them: the likeliest tokens, log-probabilities, ranks. Exact, in one place.

A row of logits is looked at once as groups of tokens: the largest of all stand in the groups whose largest are largest.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

GROUP = 64  # tokens whose largest logit stands for them
_LEAST = -80.0  # below the largest logit: less adds nothing, and denormal exponentials take ten times as long
_AT_ONCE = 1024  # tokens, whose exponentials and comparisons stay in a processor's cache


class Read(NamedTuple):
    """What is kept of rows of logits.

    Attributes
    ----------
    token, logprob
        The likeliest tokens and their log-probabilities, likeliest first, of equal ones the lower number: [row, rank].
    logprob_of, rank_of
        Log-probability and rank of given tokens, 1 = no token is likelier: [row, token].
    """

    token: Tensor
    logprob: Tensor
    logprob_of: Tensor
    rank_of: Tensor


def room(vocabulary: int) -> int:
    """Numbers of a row of logits with what fills up the last group."""
    return -(-vocabulary // GROUP) * GROUP


def read(logits: Tensor, tokens: Tensor, kept: int) -> Read:
    """Keep of rows of logits what is asked for.

    Parameters
    ----------
    logits
        float32, [row, room(vocabulary)]; −inf behind the vocabulary.
    tokens
        int64, [row, any number]: whose log-probabilities and ranks are wanted.
    kept
        How many of the likeliest are.
    """
    values, token = _likeliest(logits, kept)
    own = logits.gather(1, tokens)
    top = values[:, :1]
    total, likelier = torch.zeros_like(top), torch.zeros_like(own)
    piece = torch.empty(len(logits), min(_AT_ONCE, logits.shape[1]), device=logits.device)
    for some in torch.split(logits, _AT_ONCE, 1):
        into = piece[:, : some.shape[1]]
        for number in range(own.shape[1]):
            likelier[:, number] += torch.gt(some, own[:, number, None], out=into).sum(1)
        total += torch.sub(some, top, out=into).clamp_(min=_LEAST).exp_().sum(1, keepdim=True)
    log_sum = top + total.log()
    return Read(token, values - log_sum, own - log_sum, 1 + likelier.long())


def _likeliest(logits: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """The largest logits of each row and whose they are."""
    groups = logits.view(len(logits), -1, GROUP)
    one_more = min(kept + 1, logits.shape[1])
    which = groups.amax(-1).topk(min(one_more, groups.shape[1]), -1).indices
    among = groups.gather(1, which[..., None].expand(-1, -1, GROUP)).flatten(1)
    found, places = among.topk(one_more, -1)
    token = which.gather(1, places // GROUP) * GROUP + places % GROUP
    values, token = found[:, :kept], token[:, :kept]
    tied = (found[:, 1:] == found[:, :-1]).any(1).nonzero()[:, 0]
    if len(tied):  # rare but in half precision: of equal ones the lower number stands first
        ordered = logits[tied].sort(dim=-1, descending=True, stable=True)
        values[tied], token[tied] = ordered.values[:, :kept], ordered.indices[:, :kept]
    return values, token
