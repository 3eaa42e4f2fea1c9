"""What can be recorded of which architecture, found out by recording: the page `docs/architectures.md`."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from tiny import byte_tokenizer, tiny
from tiny_any import ARCHITECTURES, tiny_of

from stratoscope import capture
from stratoscope.errors import StratoscopeError
from stratoscope.names import ATTENTION, LOGITS, NORMS, PEAKS, PROMPTS, QUANTITIES, RESIDUAL, ROUTES, SUMMARIES, TARGETS

_FACTORS = {"norm ×": "input_scale", "logits ×": "logit_scale", "soft-cap": "soft_cap"}
_UNEXPLAINED = "its logits cannot be explained"
TEXTS = ["a text of some length", "another one"]
_DENSE = (NORMS, RESIDUAL, PEAKS, PROMPTS, ROUTES)
_LISTED = {
    **{"Llama": "llama", "Mistral": "mistral", "Mixtral": "mixtral", "Qwen2": "qwen2", "Qwen3": "qwen3"},
    **{"Qwen2-MoE": "qwen2_moe", "Qwen3-MoE": "qwen3_moe", "Gemma": "gemma", "Gemma2": "gemma2"},
    **{"Gemma3": "gemma3_text", "Phi": "phi", "Phi3": "phi3", "GPT2": "gpt2", "GPT-J": "gptj", "GPTNeoX": "gpt_neox"},
    **{"OPT": "opt", "Falcon": "falcon", "BLOOM": "bloom", "OLMo2": "olmo2", "Cohere": "cohere"},
    **{"StableLM": "stablelm", "GLM4": "glm4", "Starcoder2": "starcoder2", "LFM2": "lfm2", "GPT-OSS": "gpt_oss"},
    **{"DeepSeek-V3": "deepseek_v3", "Jamba": "jamba", "Mamba": "mamba", "Granite": "granite"},
}


@dataclass(frozen=True)
class Finding:
    """What recording a tiny model of an architecture gave.

    `trace` is None where it was refused, with the reason; `attention` is "yes", or why its attention is not recorded;
    `unexplained` says why contributions to its logits are not, "" where they are.
    """

    name: str
    trace: Any = None
    refused: str = ""
    attention: str = ""
    unexplained: str = ""


def survey_listed(folder: Path) -> list[Finding]:
    """Every family of `tiny.py`, with all groups."""
    return [_record(name, tiny(name), folder) for name in _LISTED]


def survey_others(folder: Path) -> tuple[list[Finding], list[str]]:
    """Every other causal architecture of transformers, and those of which no tiny model could be made."""
    found, untried = [], []
    for architecture in sorted(set(ARCHITECTURES) - set(_LISTED.values())):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                model = tiny_of(architecture)
            except ValueError:
                untried.append(architecture)
                continue
            found.append(_record(architecture, model, folder))
    return found, untried


def _record(name: str, model: Any, folder: Path) -> Finding:
    """Record everything the model can give; StratoscopeError is the only way in which it may refuse."""
    first, why = _explained(model, folder / "all", (*_DENSE, ATTENTION))
    if not isinstance(first, str):
        return Finding(name, first, attention="yes", unexplained=why)
    without, why = _explained(model, folder / "dense", _DENSE)
    if not isinstance(without, str):
        return Finding(name, without, attention=first, unexplained=why)
    writes, why = _explained(model, folder / "writes", (NORMS, RESIDUAL, ROUTES))
    if isinstance(writes, str):
        return Finding(name, refused=without)
    return Finding(name, writes, attention="none", unexplained=why)


def _explained(model: Any, out: Path, groups: tuple[str, ...]) -> tuple[Any, str]:
    """What recording these groups and contributions to logits gave, or without those and why."""
    found = _try(model, out, (*groups, LOGITS), targets=("N", "Y"))
    return (_try(model, out, groups), found) if isinstance(found, str) and _UNEXPLAINED in found else (found, "")


def _try(model: Any, out: Path, groups: tuple[str, ...], **more: Any) -> Any:
    try:
        options: dict[str, Any] = {"record": groups, "tokenizer": byte_tokenizer(), "overwrite": True, "batch_size": 2}
        return capture(model, TEXTS, out, top_k=5, **options, **more).load()
    except StratoscopeError as error:
        return str(error)


# --- the page -------------------------------------------------------------------------------------------------------


def page(listed: Iterable[Finding], others: Iterable[Finding], untried: Iterable[str]) -> str:
    """`docs/architectures.md`."""
    others = list(others)
    recorded = [_row(finding) for finding in others if finding.trace is not None]
    refused = [f"| {finding.name} | {_reason(finding.refused)} |" for finding in others if finding.trace is None]
    return _PAGE.format(
        version=transformers.__version__,
        listed="\n".join(map(_row, listed)),
        recorded="\n".join(recorded),
        refused="\n".join(refused),
        untried=", ".join(untried),
        counts=f"{len(recorded)} more are recorded, {len(refused)} are refused by name",
    )


def _row(finding: Finding) -> str:
    trace = finding.trace
    receipt = trace.attrs["receipt"]
    groups = list(dict.fromkeys(QUANTITIES[name].group for name in trace.data_vars))
    groups = [group for group in groups if group not in (LOGITS, TARGETS, ROUTES)]
    recorded = "all" if groups == list(SUMMARIES) else ", ".join(groups)
    experts = any(run["experts"] for run in trace.attrs["model"].get("mlps", []))
    notes = ["Mixture of experts."] if experts else []
    notes += [limit for limit in receipt["limits"] if "not proved" not in limit]
    notes += ["Norms what it writes (L20)." for note in trace.attrs["notes"] if note["id"] == "L20"]
    if finding.attention not in ("yes", "none"):
        notes.append(f"Attention: {_reason(finding.attention)}.")
    replay = f"{receipt['additions']}, {receipt['residual_replay'].split(' in ')[0]}"
    proved = (head_of(receipt), _sums(finding), _split(trace), gate_of(receipt))
    cells = (finding.name, recorded, replay, *proved, " ".join(notes))
    return f"| {' | '.join(cells)} |".replace("\n", " ")


def _sums(finding: Finding) -> str:
    """Within what direct contributions add up to the model's own logits, and of which layers heads and neurons do."""
    if finding.unexplained:
        return f"refused: {_reason(finding.unexplained).partition(_UNEXPLAINED)[2].lstrip(': ')}"
    trace = finding.trace
    found = trace.attrs["receipt"]["contributions"]
    worst = max(value for name, value in found.items() if name.endswith("error"))
    said = [f"within {'1e-6' if worst <= 1e-6 else '1e-5'} of Σ\\|c\\|"]
    layers = trace.sizes["layer"]
    for words, name in (("heads", "head_logit"), ("neurons", "other_neurons_logit")):
        values = trace[name].values if name in trace else np.full((1, layers), np.nan)
        split = int((~np.isnan(values)).reshape(len(values), layers, -1).any((0, 2)).sum())
        said += [] if split == layers else [f"{words} of {split} of {layers} layers" if split else f"no {words}"]
    return ", ".join(said)


def _split(trace: Any) -> str:
    """Within what routes add up, and of which layers attention is split by source token."""
    found, layers = trace.attrs["receipt"]["routes"], trace.sizes["layer"]
    worst = max(value for name, value in found.items() if name.endswith("error"))
    split = int((trace.route_source.values >= 0).any((0, 2)).sum())
    edges = "" if split == layers else f", edges of {split} of {layers} layers" if split else ", no edges"
    return f"within {'1e-6' if worst <= 1e-6 else '1e-5'} of Σ\\|share\\|{edges}"


def head_of(receipt: Any) -> str:
    """Whether the head is proved, and what more than a norm and a map is in it; or the limit."""
    head = receipt["head"]
    if head is None:
        return _limits(receipt, "head")
    more = [f"{name} {head[key]:.4g}" for name, key in _FACTORS.items() if head[key] not in (None, 1)]
    return ", ".join(["proved" if head["logits"] == "bit-equal" else "proved within rounding", *more])


def gate_of(receipt: Any) -> str:
    """Which forms of MLPs are proved, and the limits of the others and of norms in the blocks."""
    forms = [f"proved: {' and '.join(receipt['gates'])}."] if receipt["gates"] else []
    return " ".join([*forms, *filter(None, [_limits(receipt, "gate"), _limits(receipt, "norm")])]) or "no MLP"


def _limits(receipt: Any, what: str) -> str:
    return " ".join(limit for limit in receipt["limits"] if f"{what} not proved" in limit.lower())


def _reason(error: str) -> str:
    """An error without the model's name in front and the advice behind."""
    text = re.sub(r"^\w+(, block (\d+) \(\w+\))?: ", lambda match: f"block {match[2]} " if match[2] else "", error)
    return text.split(". ", 1)[0].rstrip(".")


_PAGE = """<!-- Generated by `make docs` from what recording tiny random models gave. -->

# Architectures

No architecture is named in the code. When a model is loaded, one probe prompt is run, and in each block the modules are
found whose outputs, added to the block's input in the model's own dtype and order, give the block's output bit for bit.
The neurons are the input of the MLP's last linear map, or what a mixture of experts computes behind transformers'
interface for experts. A block that does not add up is refused by name: nothing is recorded that was not proved.

Below is what `capture` gave for tiny random models of transformers {version}. For the first table every quantity
is compared with a plain float64 computation (`tests/capture/test_parity.py`), unpadded within 2e-5 and padded on either
side within 1e-3; the logits are bit-identical to the unobserved model's in all of them. "All" groups are norms,
residual, peaks, prompts and attention. What **head** and **gate** prove is in
[receipt.md](receipt.md#before-anything-is-recorded); what is not proved stands there with the reason, and stops no
recording. **Direct contributions** is what `--record logits` gave: how far the parts are from adding up to the model's
own logits, for two targets against the mean of the vocabulary, and of which layers heads and neurons are parts; or why
it is refused ([effects](effects.md#direct-contributions)). **Routes** is what `--record routes` gave: how far edges,
biases and what is carried over are from adding up to the residual stream in front of the MLP, and that and the MLP to
what leaves the block; and of which layers attention is split into edges ([routes](routes.md)). Of the others it is one
sum, and "what to know" says why.

## Tested number by number

| family | groups | the block's output | head | direct contributions | routes | gate | what to know |
|---|---|---|---|---|---|---|---|
{listed}

Mixtures of experts record the router's choice (`router_expert`, `router_weight`); a neuron is then (expert, i), what it
writes carries the router's weight, and an expert that no token chose is missing, not zero. Their neurons are seen under
the implementations `grouped_mm` (transformers' default) and `batched_mm`, and `eager` where that calls the gate.

## Every other causal model of transformers

{counts}.

### Recorded

| model type | groups | the block's output | head | direct contributions | routes | gate | what to know |
|---|---|---|---|---|---|---|---|
{recorded}

### Refused by name

| model type | reason |
|---|---|
{refused}

Not tried, as the options that most models share do not make a tiny one of them: {untried}.
"""
