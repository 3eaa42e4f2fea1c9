"""The proof that observing changes nothing: the logits of an observed forward against those of an unobserved one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stratoscope.errors import ModelError


@dataclass(frozen=True)
class LogitProof:
    """How an observed forward compares with unobserved ones of the same object, inputs and device.

    Attributes
    ----------
    bit_identical
        Whether the observed logits are the unobserved ones, bit for bit.
    repeat_max_abs
        Largest difference between two unobserved forwards: 0 where the machine computes reproducibly.
    observed_max_abs
        Largest difference between the observed and the first unobserved forward.
    top1_changes
        At how many tokens the likeliest next token differs between them.
    """

    bit_identical: bool
    repeat_max_abs: float
    observed_max_abs: float
    top1_changes: int


def prove_unchanged(
    unobserved: Callable[[], Tensor], observed: Callable[[], Tensor], *, where: str, changed: Sequence[str] = ()
) -> LogitProof:
    """Run twice without and once with observation, and compare all logits.

    Parameters
    ----------
    unobserved, observed
        Give the logits of the same inputs, shape (tokens, vocabulary).
    where
        The model's name, for the error.
    changed
        Implementations that observing replaces by others: they round differently, and how much is only reported.

    Raises
    ------
    ModelError
        The machine computes reproducibly, the same implementations run, and yet observing changes the logits.
    """
    first, second, seen = unobserved(), unobserved(), observed()
    proof = LogitProof(
        bit_identical=torch.equal(first, seen),
        repeat_max_abs=_max_abs(first, second),
        observed_max_abs=_max_abs(first, seen),
        top1_changes=int((first.argmax(-1) != seen.argmax(-1)).sum()),
    )
    if not proof.bit_identical and not changed and torch.equal(first, second):
        raise ModelError(
            f"recording changes what it computes: its logits differ by up to {proof.observed_max_abs:.3g}",
            where=where,
            fix="What would be recorded is not what the model does; remove other hooks or compilation from the model.",
        )
    return proof


def _max_abs(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).abs().max())
