"""The receipt: what was proved about a recording, as plain numbers and one line for figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stratoscope.model.identity import attention_implementation
from stratoscope.model.prove import LogitProof, prove_unchanged
from stratoscope.model.search.find import describe_maps, describe_replay
from stratoscope.model.sites import ModelSites
from stratoscope.names import ROUTES
from stratoscope.recorder.groups import group_of
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.input.tokens import TokenisedPrompt
from stratoscope.recorder.observe import Observer, forward
from stratoscope.recorder.proof.checks import TokenWatch, check_tokens
from stratoscope.recorder.proof.verify import Outcome, verify_sample
from stratoscope.recorder.targets.sums import RECEIPT
from stratoscope.trace.format.receipt import DIFFER, ON_DISK, receipt_line

Receipt = dict[str, Any]

_SITES = "Each site passed exactly once in every forward."
_TOKENS = "Token ids that the model embedded equal the tokenizer's in every recorded forward."
_FINITE = "Every norm, peak and prompt summary is finite in every batch."
_SUMS = "Contributions add up to the model's own logits where answers begin, in every batch."
_ROUTES = "Routes add up to the residual stream that they make, in every batch."
_ATTENTION_CHECK = "Attention summaries are finite wherever they are defined, in every batch."
_ROW_SUMS = "The attention weights that the model shows sum to 1 in every batch."
_OUTPUTS = "Attention weights times values are the model's own attention output, in sampled batches."


@dataclass(frozen=True)
class Probe:
    """The prompts on which a recording is proved, cut short, as one batch.

    Attributes
    ----------
    ids, prompts, batch
        Ids, tokens and the padded rectangle.
    padding_side
        Where padding stands.
    """

    ids: list[str]
    prompts: list[TokenisedPrompt]
    batch: Batch
    padding_side: str


def prove(
    model: nn.Module, sites: ModelSites, observer: Observer, watch: TokenWatch, probe: Probe, *, where: str
) -> tuple[Receipt, dict[str, np.ndarray]]:
    """What is proved before anything is recorded, on a probe batch, and what was recorded of it.

    Raises
    ------
    ModelError
        Observing changes the logits.
    CaptureError
        The model embeds other tokens than it is given, or what is recorded differs from a replay.
    """
    batch = probe.batch
    arrays: dict[str, np.ndarray] = {}

    def observed() -> Tensor:
        with observer, watch, observer.streams.kept([len(prompt.ids) for prompt in probe.prompts]) as kept:
            found, output = observer.record(batch)
        arrays.update(found | kept)
        return _logits(output, batch)

    changed = observer.changes_implementation
    proof = prove_unchanged(lambda: _logits(forward(model, batch), batch), observed, where=where, changed=changed)
    watch.learn()
    check_tokens(watch, batch, probe.prompts)
    plain, eager = verify_sample(
        model,
        sites,
        batch,
        probe.prompts,
        probe.ids,
        arrays,
        reproducible=proof.repeat_max_abs == 0 and not changed,
        transport=observer.transport,
    )
    shown_by_eager = [name for name in arrays if group_of(name).shown_by_eager(name)]
    receipt = {
        **_conditions(model, sites, probe),
        **_of_logits(proof),
        "embedding_watched": not watch.limit,
        "changed_implementations": changed,
        "residual_replay": describe_replay(sites.layers),
        "additions": " | ".join(dict.fromkeys(layer.order for layer in sites.layers)),
        **describe_maps(sites),
        **({"attention_on_probe": observer.attention_checked} if observer.attention_checked else {}),
        "replays": [plain.to_json(), eager.to_json()],
        "limits": [
            *_limits(proof, changed),
            *([watch.limit] if watch.limit else []),
            *plain.limits([name for name in arrays if name not in shown_by_eager]),
            *eager.limits(arrays),
        ],
    }
    return receipt, arrays


def of_generation(receipt: Receipt, tokens: int, proof: LogitProof) -> Receipt:
    """The receipt with what was proved about generating `tokens` tokens of each prompt of the probe."""
    limits = [f"While generating, {limit[0].lower()}{limit[1:]}" for limit in _limits(proof, ())]
    return {**receipt, "generation": {"tokens": tokens, **_of_logits(proof)}, "limits": [*receipt["limits"], *limits]}


def _conditions(model: nn.Module, sites: ModelSites, probe: Probe) -> dict[str, Any]:
    """Under which everything was proved: bit-identity holds for these and no others."""
    ids = probe.batch.input_ids
    config = model.config.get_text_config()  # type: ignore[operator, union-attr]
    return {
        "probe_prompts": probe.ids,
        "probe_tokens": len(probe.batch.valid),
        "batch": f"{ids.shape[0]} × {ids.shape[1]}, padded on the {probe.padding_side}",
        "attention_implementation": attention_implementation(model),
        "experts_implementation": getattr(config, "_experts_implementation", None) if sites.choices else "no experts",
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "device": str(ids.device),
        "threads": torch.get_num_threads(),
    }


def finished(
    receipt: Receipt,
    *,
    batches: int,
    tokens: int,
    observer: Observer,
    verified: Outcome | None = None,
    recorded: Iterable[str] = (),
) -> Receipt:
    """The receipt at the end of a recording, with what was checked on its batches and a line for figures.

    Parameters
    ----------
    batches, tokens
        How many were recorded; no batch is a recording that has only begun.
    observer
        What recorded them.
    verified
        The replay of the trace, if there was one.
    recorded
        Names of the quantities that the trace holds.
    """
    checks = _checks(receipt, observer) if batches else []
    counts = {"batches": batches, "tokens": tokens, "sites_per_forward": observer.sites_per_forward}
    limits = list(dict.fromkeys([*receipt["limits"], *observer.limits]))
    done = {**receipt, **counts, "checks": checks, "limits": limits}
    if verified is not None:
        on_disk = {"replay": f"{ON_DISK}: {verified.standard.what}"}
        done["replays"] = [*receipt["replays"], verified.to_json() | on_disk]
        done["limits"] = list(dict.fromkeys([*limits, *verified.limits(recorded)]))
    return {**done, "receipt_line": receipt_line(done)}


def _checks(receipt: Receipt, observer: Observer) -> list[str]:
    """What was checked of every batch, in sentences."""
    checks = [_SITES, *([_TOKENS] if receipt["embedding_watched"] else []), _FINITE]
    checks += [_SUMS] if RECEIPT in receipt else []
    checks += [_ROUTES] if ROUTES in receipt else []
    if not observer.records_attention:
        return checks
    compared = observer.attention_checked
    rows, outputs = (compared.get(kind, {}).get(count) for kind, count in (("row_sums", "rows"), ("outputs", "values")))
    return [*checks, _ATTENTION_CHECK, *([_ROW_SUMS] if rows else []), *([_OUTPUTS] if outputs else [])]


def _logits(output: Any, batch: Batch) -> Tensor:
    """[tokens, vocabulary], padding left out; the last hidden state of a model without a head."""
    logits: Tensor = output.logits if "logits" in output else output[0]
    return logits.flatten(0, 1).index_select(0, batch.valid)


def _of_logits(proof: LogitProof) -> dict[str, Any]:
    names = {"bit_identical": "logits_bit_identical", "repeat_max_abs": "unobserved_repeat_max_abs"}
    return {names.get(name, name): value for name, value in asdict(proof).items()}


def _limits(proof: LogitProof, changed: Sequence[str]) -> list[str]:
    if proof.bit_identical:
        return []
    size, changes = f"{proof.observed_max_abs:.2g}", proof.top1_changes
    other = f"an unobserved forward with the default ({', '.join(changed)})" if changed else "an unobserved forward"
    spread = "" if changed else f"; two unobserved ones by {proof.repeat_max_abs:.2g}"
    return [f"{DIFFER} by up to {size} from {other} ({changes} likeliest tokens change){spread}."]
