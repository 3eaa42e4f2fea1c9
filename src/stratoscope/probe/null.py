"""`patch_null`: how much random patches of the size of a claimed one change, measured in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import defaults, names
from stratoscope.errors import InputError
from stratoscope.progress import Progress, silent
from stratoscope.trace.prompts import Prompts

if TYPE_CHECKING:
    import torch
    import xarray as xr
    from torch import nn

    from stratoscope.analysis.diff.claims import Claim
    from stratoscope.model.load import LoadedModel
    from stratoscope.model.sites import ModelSites
    from stratoscope.probe.columns import Scaled
    from stratoscope.recorder.input.batches import Batch

KIND = "patch-null"
MOST_PROMPTS = 64  # of the trace, the first: 21 reruns of each
_SAME_NORM = 0.01  # relative: how close Old_Norm must be to a column's norm to be taken for it
_QUANTITIES = ("neuron_norm", "mlp_out_norm", "mlp_write_norm", "attn_write_norm", "mlp_write_ratio",
               "attn_write_ratio", "mlp_write_cos", "attn_write_cos", "resid_norm")  # fmt: skip


@dataclass(frozen=True)
class _Tokens:
    """A prompt as a batch wants it: its ids, and the span of each."""

    ids: np.ndarray
    spans: np.ndarray


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
) -> xr.Dataset:
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
    xarray.Dataset
        A Result of kind "patch-null", for `diff(…, null=…)`. `sum_<quantity>` [draw, run, layer or depth]: Σ |Δ| over
        the tokens of a prompt but the first, Δ against the unpatched rerun; `run_tokens`: how many. `kl` [draw]: mean
        over the same tokens of KL(unpatched ‖ patched) of the next token, in nats. `claimed_<quantity>` [step, layer or
        depth] and `claimed_kl`: the claimed patch itself.

    Raises
    ------
    InputError
        It is not the model of the trace, or a claim is about a neuron that is not there.
    ModelError
        It cannot be loaded, or a claimed layer has no dense MLP.
    """
    from stratoscope.analysis.diff.claims import check_claims, read_claims
    from stratoscope.analysis.result import make_result
    from stratoscope.trace.opened import opened

    told = progress or silent
    dataset = opened(trace)
    claimed = read_claims(claims) if isinstance(claims, str | os.PathLike) else list(claims)
    check_claims(claimed, dataset, os.fspath(claims) if isinstance(claims, str | os.PathLike) else "claims")
    if draws < 1:
        raise InputError(f"{draws} random patches", where="draws", fix="Give 1 or more.")
    loaded = _loaded(model, dataset, tokenizer, told)
    run = _Run(loaded, dataset)
    patches, how = run.patches(claimed, draws, seed)
    sums, kl = run.measure(patches, told)
    variables: dict[str, Any] = {"kl": ("draw", kl[1:]), "claimed_kl": ((), kl[0])}
    coords: dict[str, Any] = {
        "run_prompt": ("run", np.array(run.prompts)),
        "run_tokens": ("run", run.counted),
        "run_token": ("step", run.steps),
        names.LAYER: np.asarray(dataset[names.LAYER].values),
        names.DEPTH: np.arange(dataset.sizes[names.LAYER] + 1),
    }
    for name, found in sums.items():
        row = names.QUANTITIES[name].dims[1]
        variables[f"sum_{name}"] = (("draw", "run", row), found.draws)
        variables[f"claimed_{name}"] = (("step", row), found.claimed)
    drawn = [[[one.layer, one.neuron, one.factor] for one in patch] for patch in patches[1:]]
    return make_result(
        KIND,
        variables,
        coords,
        sources=[dataset],
        parameters={"claims": [[one.layer, one.neuron, one.old, one.new] for one in claimed], "draws": draws,
                    "seed": seed},
        notes=[],
        summary={"quantities": list(sums), "how": how, "patches": drawn, "rerun": run.agreement},
    )  # fmt: skip


def _loaded(model: Any, dataset: xr.Dataset, tokenizer: Any, told: Progress) -> LoadedModel:
    """The model of the trace, in the dtype of the trace."""
    from torch import nn

    from stratoscope.analysis.diff.floor import dtype_of, weights_of
    from stratoscope.model.from_object import given_model
    from stratoscope.model.load import load_model

    if isinstance(model, nn.Module):
        loaded = given_model(model, tokenizer)
    else:
        loaded = load_model(os.fspath(model), dtype=dtype_of(dataset) or None, progress=told)
    if loaded.identity["weights_sha256"] != weights_of(dataset):
        raise InputError(
            "this is not the model that trace A was recorded of: its weights are others",
            where="model",
            fix="Give the model from before the patch.",
        )
    return loaded


class _Run:
    """A model and the prompts of a trace, which it runs over again and again.

    Attributes
    ----------
    prompts, counted
        Indices of the prompts, and how many tokens of each count: all but the first and what was generated.
    steps
        Where the tokens of all prompts are on the token axis.
    agreement
        The largest relative difference of each quantity between the unpatched rerun and the trace.
    """

    def __init__(self, loaded: LoadedModel, dataset: xr.Dataset) -> None:
        import torch

        from stratoscope.model.devices import input_device
        from stratoscope.model.find import find_sites
        from stratoscope.recorder.input.grouping import batching_of

        self.model, self.dataset = loaded.model, dataset
        plan = dataset.attrs.get("plan") or {}
        self.side = str(plan.get("padding_side") or "right")
        self.batching = batching_of(plan, defaults.BATCH_SIZE)  # as the trace was recorded
        ids, prompts = np.asarray(dataset["token_id"].values), Prompts(dataset)
        self.prompts = list(range(min(len(prompts), MOST_PROMPTS)))
        given = ~prompts.in_spans(["generated"])
        self.tokens: list[_Tokens] = []
        steps = []
        for prompt in self.prompts:
            start, own = int(prompts.starts[prompt]), prompts.tokens(prompt)
            mine = start + np.flatnonzero(given[own])
            self.tokens.append(_Tokens(ids[mine], prompts.spans[mine]))
            steps.append(mine)
        self.steps = np.concatenate(steps)
        self.counted = np.array([len(one.ids) - 1 for one in self.tokens])
        self.starts = np.cumsum([0, *(len(one.ids) for one in self.tokens)])
        self.agreement: dict[str, float] = {}
        longest = max(self.tokens, key=lambda one: len(one.ids)).ids[:64]
        device = input_device(self.model)
        self.sites: ModelSites = find_sites(self.model, torch.tensor(longest[None].astype(np.int64), device=device))

    def patches(self, claims: Sequence[Claim], draws: int, seed: int) -> tuple[list[list[Scaled]], list[str]]:
        """The claimed patch, then the random ones; and of each claim how its size is carried over."""
        from stratoscope.probe.columns import Scaled, column_norms

        layers = sorted({claim.layer for claim in claims})
        norms = {layer: column_norms(self.model, self.sites, layer).numpy() for layer in layers}
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

    def measure(self, patches: Sequence[Sequence[Scaled]], told: Progress) -> tuple[dict[str, _Sums], np.ndarray]:
        """Run every prompt without and with each patch; the first patch is the claimed one."""
        from stratoscope.names import NORMS, RESIDUAL
        from stratoscope.probe.columns import scaled_columns
        from stratoscope.recorder.observe import Observer

        observer = Observer(self.model, self.sites, (NORMS, RESIDUAL), defaults.TOP_K)
        sums: dict[str, _Sums] = {}
        kl, total = np.zeros(len(patches)), int(self.counted.sum())
        batches = list(self._batches())
        with observer:
            for number, (chosen, batch) in enumerate(batches):
                base, output = observer.record(batch)
                base, logits = self._wanted(base), output.logits.detach()
                self._agree(base, chosen)
                for draw, patch in enumerate(patches):
                    told("rerunning with patches", number * len(patches) + draw, len(batches) * len(patches))
                    with scaled_columns(self.model, self.sites, patch):
                        found, output = observer.record(batch)
                    kl[draw] += _kl(logits, output.logits.detach(), batch)
                    self._add(sums, base, self._wanted(found), chosen, draw, len(patches) - 1)
        told("rerunning with patches", len(batches) * len(patches), len(batches) * len(patches))
        return sums, kl / max(total, 1)

    def _batches(self) -> Iterator[tuple[list[int], Batch]]:
        from stratoscope.model.devices import input_device
        from stratoscope.recorder.input.batches import make_batch

        device = input_device(self.model)
        for chosen in self.batching.batches([len(one.ids) for one in self.tokens]):
            some = [self.tokens[place] for place in chosen]
            yield chosen, make_batch(some, pad_id=0, padding_side=self.side, device=device)

    def _wanted(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            name: arrays[name].astype(np.float64) for name in _QUANTITIES if name in arrays and name in self.dataset
        }

    def _agree(self, base: dict[str, np.ndarray], chosen: list[int]) -> None:
        """Note how far the rerun is from the trace, first tokens left out."""
        places = np.concatenate([np.arange(self.starts[run] + 1, self.starts[run + 1]) for run in chosen])
        keep = np.concatenate([np.arange(len(self.tokens[run].ids)) > 0 for run in chosen])
        for name, values in base.items():
            recorded = np.asarray(self.dataset[name].values, np.float64)[self.steps[places]]
            size = np.maximum(np.abs(recorded), np.abs(values[keep]))
            apart = np.abs(recorded - values[keep]) / np.where(size > 0, size, 1.0)
            self.agreement[name] = float(np.fmax(self.agreement.get(name, 0.0), np.nanmax(apart, initial=0.0)))

    def _add(
        self,
        sums: dict[str, _Sums],
        base: dict[str, np.ndarray],
        found: dict[str, np.ndarray],
        chosen: list[int],
        draw: int,
        draws: int,
    ) -> None:
        ends = np.cumsum([0, *(len(self.tokens[run].ids) for run in chosen)])
        for name, values in found.items():
            delta = values - base[name]
            if name not in sums:
                rows = delta.shape[1]
                shape = (draws, len(self.prompts), rows)
                sums[name] = _Sums(np.zeros(shape), np.zeros((len(self.steps), rows)))
            for place, run in enumerate(chosen):
                mine = delta[ends[place] : ends[place + 1]]
                if draw == 0:
                    sums[name].claimed[self.starts[run] : self.starts[run + 1]] = mine
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
