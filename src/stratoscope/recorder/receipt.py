"""The receipt: what was proved about a recording, as plain numbers and one line for figures."""

from __future__ import annotations

from dataclasses import asdict
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stratoscope.model.find import describe_replay
from stratoscope.model.prove import LogitProof, prove_unchanged
from stratoscope.model.sites import ModelSites
from stratoscope.recorder.batches import Batch
from stratoscope.recorder.observe import Observer, forward

Receipt = dict[str, Any]

_CHECKS = (
    "each site passed exactly once in every forward",
    "token ids equal the tokenizer's in every batch",
    "every norm, peak and prompt summary finite in every batch",
    "attention summaries finite wherever they are defined, in every batch",
)


def prove(
    model: nn.Module, sites: ModelSites, observer: Observer, batch: Batch, *, where: str
) -> tuple[Receipt, dict[str, np.ndarray]]:
    """What is proved before anything is recorded, on a probe batch, and what was recorded of it.

    Raises
    ------
    ModelError
        Observing changes the logits.
    """

    arrays: dict[str, np.ndarray] = {}

    def observed() -> Tensor:
        with observer:
            found, output = observer.record(batch)
        arrays.update(found)
        return _logits(output, batch)

    proof = prove_unchanged(lambda: _logits(forward(model, batch), batch), observed, where=where)
    receipt = {
        "probe": {"prompts": len(batch.input_ids), "tokens": len(batch.valid), "length": batch.input_ids.shape[1]},
        **_of_logits(proof),
        "residual_replay": describe_replay(sites.layers),
        "additions": " | ".join(dict.fromkeys(layer.order for layer in sites.layers)),
        "limits": _limits(proof),
        "threads": torch.get_num_threads(),
        "device": str(batch.input_ids.device),
    }
    return receipt, arrays


def of_generation(receipt: Receipt, tokens: int, proof: LogitProof) -> Receipt:
    """The receipt with what was proved about generating `tokens` tokens of each prompt of the probe."""
    limits = [f"while generating, {limit}" for limit in _limits(proof)]
    return {**receipt, "generation": {"tokens": tokens, **_of_logits(proof)}, "limits": [*receipt["limits"], *limits]}


def finished(receipt: Receipt, *, batches: int, tokens: int, sites: int) -> Receipt:
    """The receipt at the end of a recording, with what was checked on its batches and a line for figures."""
    words = "logits unchanged" if receipt["logits_bit_identical"] else receipt["limits"][0]
    line = f"{words}; residual replay {receipt['residual_replay']}; {batches} batch{'es'[: 2 * (batches != 1)]} checked"
    if not batches:  # a recording that was interrupted keeps this one
        line = f"{words}; residual replay {receipt['residual_replay']}; recording not finished"
    counts = {"batches": batches, "tokens": tokens, "sites_per_forward": sites}
    return {**receipt, **counts, "checks": list(_CHECKS) if batches else [], "receipt_line": line}


def last_logits_only(model: nn.Module) -> dict[str, int]:
    """The option that spares the vocabulary's share of a forward, where the model has it: nobody reads the logits."""
    return {"logits_to_keep": 1} if "logits_to_keep" in signature(model.forward).parameters else {}


def _logits(output: Any, batch: Batch) -> Tensor:
    """[tokens, vocabulary], padding left out; the last hidden state of a model without a head."""
    logits: Tensor = output.logits if "logits" in output else output[0]
    return logits.flatten(0, 1).index_select(0, batch.valid)


def _of_logits(proof: LogitProof) -> dict[str, Any]:
    names = {"bit_identical": "logits_bit_identical", "repeat_max_abs": "unobserved_repeat_max_abs"}
    return {names.get(name, name): value for name, value in asdict(proof).items()}


def _limits(proof: LogitProof) -> list[str]:
    if proof.bit_identical:
        return []
    size, changes = f"{proof.observed_max_abs:.2g}", proof.top1_changes
    return [f"logits differ by up to {size} from an unobserved forward ({changes} likeliest tokens change)"]
