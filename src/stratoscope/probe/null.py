"""`patch_null`: how much random patches of the size of a claimed one change, measured in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import defaults, names
from stratoscope.errors import InputError
from stratoscope.progress import Progress, silent

if TYPE_CHECKING:
    import torch
    import xarray as xr
    from torch import nn

    from stratoscope.analysis.diff.claims import Claim
    from stratoscope.probe.columns import Scaled
    from stratoscope.probe.rerun import Rerun
    from stratoscope.recorder.input.batches import Batch

KIND = "patch-null"
MOST_PROMPTS = 64  # of the trace, the first: 21 reruns of each
_SAME_NORM = 0.01  # relative: how close Old_Norm must be to a column's norm to be taken for it
_QUANTITIES = ("neuron_norm", "mlp_out_norm", "mlp_write_norm", "attn_write_norm", "mlp_write_ratio",
               "attn_write_ratio", "mlp_write_cos", "attn_write_cos", "resid_norm")  # fmt: skip


@dataclass
class _Sums:
    """Of one quantity: Σ |Δ| over tokens of each draw and prompt, and the claimed patch's Δ of every token."""

    draws: np.ndarray
    claimed: np.ndarray


def patch_null(
    model: str | os.PathLike[str] | nn.Module,
    trace: str | os.PathLike[str] | xr.Dataset,
    claims: str | os.PathLike[str] | Sequence[Claim],
    *,
    draws: int = defaults.DRAWS,
    seed: int = defaults.SEED,
    tokenizer: Any = None,
    progress: Progress | None = None,
) -> xr.DataTree:
    """Measure what random patches do that touch as many columns, in the same layers, by as much as a claimed one.

    For every claim a random other neuron of the same layer is taken, and the norm of its column of the MLP's last
    linear map is changed: by New_Norm − Old_Norm where Old_Norm is the norm of the claimed neuron's column within 1 %,
    else by the factor New_Norm / Old_Norm. The model runs over the prompts of the trace with each patch in memory;
    the weights are put back after each forward, and nothing is written.

    Parameters
    ----------
    model
        The model that trace A was recorded of: hub name, folder or GGUF file, or the model itself, with `tokenizer`.
    trace
        Trace A, the one before the patch.
    claims
        A CSV file of `Layer,Neuron_ID,Old_Norm,New_Norm`, or `Claim`s.
    draws
        Random patches.
    seed
        Of the neurons.
    tokenizer
        Tokenizer of a model object.
    progress
        Is told what is being done.

    Returns
    -------
    xarray.DataTree
        A Result of kind "patch-null", for `diff(…, null=…)`. In `change/<quantity>`, `random` [draw, run, layer or
        depth]: Σ |Δ| over the tokens of a prompt but the first, Δ against the unpatched rerun; `claimed` [step, layer
        or depth]: Δ of the claimed patch itself. In `kl`, `random` [draw] and `claimed`: mean over the same tokens of
        KL(unpatched ‖ patched) of the next token, in nats. `prompts` says which prompt each run is of, and how many
        `tokens` were counted; `tokens`, which token each step is.

    Raises
    ------
    InputError
        It is not the model of the trace, or a claim is about a neuron that is not there.
    ModelError
        It cannot be loaded, or a claimed layer has no dense MLP.

    Examples
    --------
    >>> import stratoscope
    >>> with open("claims.csv", "w") as file:
    ...     _ = file.write("Layer,Neuron_ID,Old_Norm,New_Norm\\n1,17,1.0,1.5\\n")
    >>> trace = stratoscope.capture("MODEL", ["The fire is out.", "The song is out."], "before.trace")
    >>> null = stratoscope.patch_null("MODEL", trace, "claims.csv", draws=4)
    >>> dict(null["kl"].sizes), sorted(null["change"].children)[:3]
    ({'draw': 4}, ['attn_write_cos', 'attn_write_norm', 'attn_write_ratio'])
    """
    from stratoscope.analysis.diff.claims import check_claims, read_claims
    from stratoscope.analysis.results.result import make_result, table_of
    from stratoscope.probe.rerun import Rerun, model_of
    from stratoscope.trace.opened import opened

    report = progress or silent
    dataset = opened(trace)
    claimed = read_claims(claims) if isinstance(claims, str | os.PathLike) else list(claims)
    check_claims(claimed, dataset, os.fspath(claims) if isinstance(claims, str | os.PathLike) else "claims")
    if draws < 1:
        raise InputError(f"{draws} random patches", where="draws", fix="Give 1 or more.")
    loaded = model_of(dataset, model, tokenizer, report)
    rerun = Rerun(loaded, dataset, quantities=_QUANTITIES, most_prompts=MOST_PROMPTS)
    counted = np.diff(rerun.starts) - 1
    patches, how = _patches(rerun, claimed, draws, seed)
    sums, kl = _measure(rerun, patches, report)
    kl /= max(int(counted.sum()), 1)
    tables: dict[str, dict[str, Any]] = {
        "kl": {"random": ("draw", kl[1:]), "claimed": ((), kl[0])},
        "prompts": table_of("run", {"prompt": np.array(rerun.prompts), "tokens": counted}),
        "tokens": table_of("step", {"token": rerun.places}),
    }
    layers = np.asarray(dataset[names.LAYER].values)
    numbers = {names.LAYER: layers, names.DEPTH: np.arange(len(layers) + 1)}
    for name, found in sums.items():
        row = names.QUANTITIES[name].row_kind
        tables[f"change/{name}"] = {
            row: numbers[row],
            "random": (("draw", "run", row), found.draws),
            "claimed": (("step", row), found.claimed),
        }
    drawn = [[[one.layer, one.neuron, one.factor] for one in patch] for patch in patches[1:]]
    return make_result(
        KIND,
        tables,
        sources=[dataset],
        parameters={"claims": [[one.layer, one.neuron, one.old, one.new] for one in claimed], "draws": draws,
                    "seed": seed},
        notes=[],
        summary={"quantities": list(sums), "how": how, "patches": drawn, "rerun": rerun.agreement},
    )  # fmt: skip


def _patches(rerun: Rerun, claims: Sequence[Claim], draws: int, seed: int) -> tuple[list[list[Scaled]], list[str]]:
    """The claimed patch, then the random ones; and of each claim how its size is carried over."""
    from stratoscope.probe.columns import Scaled, column_norms

    layers = sorted({claim.layer for claim in claims})
    norms = {layer: column_norms(rerun.model, rerun.sites, layer).numpy() for layer in layers}
    taken = {layer: {claim.neuron for claim in claims if claim.layer == layer} for layer in layers}
    rng = np.random.default_rng(seed)
    own: list[Scaled] = []
    how: list[str] = []
    for claim in claims:
        norm = float(norms[claim.layer][claim.neuron])
        absolute = abs(claim.old - norm) <= _SAME_NORM * norm
        own.append(Scaled(claim.layer, claim.neuron, claim.new / norm if absolute else claim.ratio))
        how.append("difference of norms" if absolute else "ratio of norms")
    patches = [own]
    for _ in range(draws):
        used = {layer: set(there) for layer, there in taken.items()}
        patch = []
        for claim, kind in zip(claims, how, strict=True):
            of = norms[claim.layer]
            change = claim.new - claim.old if kind == "difference of norms" else 0.0
            free = np.setdiff1d(np.flatnonzero((of > 0) & (of + change >= 0)), sorted(used[claim.layer]))
            if not len(free):
                raise InputError(f"no other neuron could change as {claim} does", where=f"layer {claim.layer}",
                                 fix="Claim fewer neurons of a layer, or leave the model out.")  # fmt: skip
            neuron = int(rng.choice(free))
            used[claim.layer].add(neuron)
            factor = (of[neuron] + change) / of[neuron] if change or kind != "ratio of norms" else claim.ratio
            patch.append(Scaled(claim.layer, neuron, float(factor)))
        patches.append(patch)
    return patches, how


def _measure(
    rerun: Rerun, patches: Sequence[Sequence[Scaled]], report: Progress
) -> tuple[dict[str, _Sums], np.ndarray]:
    """Run every prompt without and with each patch, the first of which is the claimed one; KL is summed over tokens."""
    from stratoscope.probe.columns import scaled_columns

    sums: dict[str, _Sums] = {}
    kl, batches = np.zeros(len(patches)), list(rerun.batches())
    with rerun.observer() as observer:
        for number, (chosen, batch) in enumerate(batches):
            base, logits = rerun.record(observer, batch)
            rerun.compare(base, chosen)
            for draw, patch in enumerate(patches):
                report("rerunning with patches", number * len(patches) + draw, len(batches) * len(patches))
                with scaled_columns(rerun.model, rerun.sites, patch):
                    found, patched = rerun.record(observer, batch)
                kl[draw] += _kl(logits, patched, batch)
                _add(rerun, sums, base, found, chosen, draw, len(patches) - 1)
    report("rerunning with patches", len(batches) * len(patches), len(batches) * len(patches))
    return sums, kl


def _add(
    rerun: Rerun,
    sums: dict[str, _Sums],
    base: dict[str, np.ndarray],
    found: dict[str, np.ndarray],
    chosen: list[int],
    draw: int,
    draws: int,
) -> None:
    ends = np.cumsum([0, *(len(rerun.tokens[run].ids) for run in chosen)])
    for name, values in found.items():
        delta = values - base[name]
        if name not in sums:
            rows = delta.shape[1]
            shape = (draws, len(rerun.prompts), rows)
            sums[name] = _Sums(np.zeros(shape), np.zeros((len(rerun.places), rows)))
        for place, run in enumerate(chosen):
            mine = delta[ends[place] : ends[place + 1]]
            if draw == 0:
                sums[name].claimed[rerun.starts[run] : rerun.starts[run + 1]] = mine
            else:
                sums[name].draws[draw - 1, run] = np.nansum(np.abs(mine[1:]), axis=0)


def _kl(base: torch.Tensor, patched: torch.Tensor, batch: Batch) -> float:
    """Σ over tokens, first ones left out, of KL(base ‖ patched), in nats."""
    import torch

    first = batch.mask.bool() & (batch.mask.cumsum(dim=1) == 1)
    counted = batch.mask.bool() & ~first
    total = 0.0
    for row in range(len(counted)):
        one, other = (
            torch.log_softmax(logits[row][counted[row].to(logits.device)].float(), dim=-1) for logits in (base, patched)
        )
        total += float((one.exp() * (one - other)).sum())
    return total
