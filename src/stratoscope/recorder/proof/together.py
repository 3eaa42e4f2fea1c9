"""Before anything is recorded: beside which others prompts may run, and the proof of a recording batched so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from stratoscope.model.load import LoadedModel
from stratoscope.model.sites import ModelSites
from stratoscope.recorder.input.batches import Batch, PromptTokens
from stratoscope.recorder.input.grouping import EQUAL_LENGTH, NONE
from stratoscope.recorder.input.tokens import TokenisedPrompt, cut
from stratoscope.recorder.observe import Observer
from stratoscope.recorder.plan import CapturePlan
from stratoscope.recorder.proof import receipt as receipts
from stratoscope.recorder.proof.batching import BatchingRule, find_batching, narrower, probe_prompts
from stratoscope.recorder.proof.checks import TokenWatch, vocabulary
from stratoscope.recorder.proof.verify import DependsOnBatch

MakeBatch = Callable[[Sequence[PromptTokens]], Batch]
Named = tuple[str, TokenisedPrompt]  # a prompt's id and its tokens

_FEWEST_TOKENS = 8  # worth a proof


@dataclass(frozen=True)
class Proved:
    """What was proved on the first prompts, batched as all will be.

    Attributes
    ----------
    plan
        With what was found out about batches.
    probe, receipt, arrays
        The prompts, what was proved, and what was recorded of them.
    notes
        What is to be said on the trace about which prompts run together.
    """

    plan: CapturePlan
    probe: receipts.Probe
    receipt: receipts.Receipt
    arrays: dict[str, np.ndarray]
    notes: list[dict[str, str]]


def find_out(
    loaded: LoadedModel,
    sites: ModelSites,
    make_batch: MakeBatch,
    rehearse: Callable[[Batch, Sequence[int]], None],
    follow: int,
) -> BatchingRule:
    """Beside which others a prompt may run.

    Parameters
    ----------
    loaded, sites
        The model and its proved sites.
    make_batch, rehearse
        Pad and run prompts as the recording does; the latter with the tokens of an answer.
    follow
        The most tokens that follow a prompt.
    """
    context = loaded.identity.get("context")
    prompts = probe_prompts(loaded.tokenizer, vocabulary(loaded.model), context and context - follow)
    answer = prompts[1].ids.tolist()
    return find_batching(loaded.model, sites, prompts, make_batch, lambda batch: rehearse(batch, answer))


def prove_together(
    model: nn.Module,
    sites: ModelSites,
    observer: Observer,
    watch: TokenWatch,
    plan: CapturePlan,
    finding: BatchingRule,
    prompts: Sequence[Named],
    lengths: Sequence[int],
    make_batch: MakeBatch,
    *,
    where: str,
) -> Proved:
    """Prove a recording on its first prompts; where they show more than was found out, batch so and begin anew.

    Parameters
    ----------
    model, sites, observer, watch
        As of `receipts.prove`.
    plan
        Of the recording.
    finding
        What was found out about batches.
    prompts
        The longest of the first and another one, cut short.
    lengths
        Tokens of every prompt.
    make_batch
        Pads prompts as the recording does.
    where
        The model's name, for errors.

    Raises
    ------
    ModelError, CaptureError
        As `receipts.prove`.
    """
    while True:
        plan = replace(plan, together=finding.together)
        probe = _probe(plan, prompts, make_batch)
        try:
            receipt, arrays = receipts.prove(model, sites, observer, watch, probe, where=where)
        except DependsOnBatch as error:
            finding = narrower(finding, error, padded=len(probe.batch.valid) < probe.batch.rows)
            continue
        receipt = {**receipt, "batching": finding.to_json(), "limits": [*receipt["limits"], *finding.limits]}
        return Proved(plan, probe, receipt, arrays, _notes(plan, finding, lengths))


def _probe(plan: CapturePlan, prompts: Sequence[Named], make_batch: MakeBatch) -> receipts.Probe:
    """As many of the prompts as the recording would run together; where only equal ones, cut to equal lengths."""
    shortest = min(len(prompt.ids) for _, prompt in prompts)
    if plan.together == EQUAL_LENGTH and shortest >= _FEWEST_TOKENS:
        prompts = [(name, cut(prompt, shortest)) for name, prompt in prompts]
    *_, with_longest = plan.batching.batches([len(prompt.ids) for _, prompt in prompts])
    ids, chosen = zip(*(prompts[index] for index in sorted(with_longest)), strict=True)
    return receipts.Probe([*ids], [*chosen], make_batch(chosen), plan.padding_side)


def _notes(plan: CapturePlan, finding: BatchingRule, lengths: Sequence[int]) -> list[dict[str, str]]:
    """Nothing where no prompt is kept from running beside another."""
    texts, longest = [finding.why] if finding.why else [], plan.longest_short
    if longest is not None and plan.together != NONE and min(lengths) <= longest < max(lengths):
        texts.append(
            f"This model counts positions otherwise where a prompt has more than {longest} tokens: shorter and longer "
            "prompts were not batched together."
        )
    batched = min(plan.batch_size, len(lengths)) > 1
    return [{"id": "L27", "severity": "info", "text": text} for text in texts if batched]
