"""Whether a patch changed more than random patches of the same size do: 20 of them, each in memory for one pass.

A random patch touches as many neurons in the same layers. Where the claimed old norms are those of the columns, each
random neuron's column is given the same change of norm, New − Old; otherwise the same ratio, New / Old.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.analysis.diff.claims import AS_CLAIMED, Claim
from stratoscope.errors import InputError
from stratoscope.model.devices import input_device
from stratoscope.model.find import find_sites
from stratoscope.model.load import LoadedModel
from stratoscope.model.sites import ModelSites
from stratoscope.probe.scale import Scales, down_projection, scaled_columns
from stratoscope.progress import Progress, silent
from stratoscope.recorder.input.batches import alike_in_length, make_batch
from stratoscope.recorder.observe import Observer

if TYPE_CHECKING:
    import xarray as xr

Floats = NDArray[np.float64]
RUNS = 20
MOST_PROMPTS = 32
_QUANTITIES = ("mlp_write_norm", "resid_norm")
_BATCH = 8
_GROUPS = (names.NORMS, names.RESIDUAL)


@dataclass(frozen=True)
class _Tokens:
    """A prompt of a trace, as a batch needs it."""

    ids: NDArray[np.int32]
    spans: NDArray[np.int8]


@dataclass(frozen=True)
class MatchedNull:
    """The claimed patch among random ones.

    Attributes
    ----------
    by
        "difference of norms" or "ratio": what the random patches have in common with the claimed one.
    quantities
        What was measured, each as mean |change| over tokens and layers.
    claimed
        Change by the claimed patch, applied to the model in memory, [quantity].
    null
        Change by each random patch, [run, quantity].
    prompts
        How many prompts were run.
    """

    by: str
    quantities: tuple[str, ...]
    claimed: Floats
    null: Floats
    prompts: int

    @property
    def p(self) -> Floats:
        """(1 + random patches that change at least as much) / (1 + random patches), [quantity]."""
        p: Floats = (1 + (self.null >= self.claimed).sum(axis=0)) / (1 + len(self.null))
        return p


def matched_null(
    loaded: LoadedModel,
    trace: xr.Dataset,
    claims: Sequence[Claim],
    *,
    runs: int = RUNS,
    seed: int = 0,
    progress: Progress | None = None,
) -> MatchedNull:
    """Apply the claimed patch and random ones of equal count, layers and size, and measure how much each changes.

    Parameters
    ----------
    loaded
        The model before the patch. It is left bit for bit as it was.
    trace
        A trace of it: its tokens are run again.
    claims
        What the patch claims to have touched.
    runs
        Random patches.
    seed
        Of the random patches.
    progress
        Is told what is being done.
    """
    told = progress or silent
    model = loaded.model
    prompts = _prompts(trace)
    device = input_device(model)
    sites = find_sites(model, torch.tensor(prompts[0].ids[None].astype(np.int64), device=device))
    by, claimed, sizes = _claimed(model, sites, claims)
    random = np.random.default_rng(seed)
    base = _run(model, sites, prompts)
    with scaled_columns(model, sites, claimed):
        of_claimed = _apart(base, _run(model, sites, prompts))
    null = []
    for number in range(runs):
        told("random patches", number, runs)
        with scaled_columns(model, sites, _drawn(model, sites, claims, sizes, by, random)):
            null.append(_apart(base, _run(model, sites, prompts)))
    told("random patches", runs, runs)
    return MatchedNull(by, (*_QUANTITIES, "logits"), of_claimed, np.array(null), len(prompts))


def _claimed(model: Any, sites: ModelSites, claims: Sequence[Claim]) -> tuple[str, Scales, list[float]]:
    """What the sizes are, the claimed patch, and the size of each claim."""
    norms = [_norms(model, sites, claim.layer)[claim.neuron] for claim in claims]
    are_columns = np.mean([abs(claim.old / norm - 1) <= AS_CLAIMED for claim, norm in zip(claims, norms, strict=True)])
    by = "difference of norms" if are_columns >= 0.5 else "ratio"
    if by == "ratio" and any(claim.old == 0 for claim in claims):
        raise InputError("an old norm is 0 and no column's", where="claims", fix="Give the norms of the columns.")
    scales: dict[int, list[tuple[int, float]]] = {}
    sizes = []
    for claim, norm in zip(claims, norms, strict=True):
        change = claim.new - claim.old
        factor = 1 + change / norm if by == "difference of norms" else claim.new / claim.old
        scales.setdefault(claim.layer, []).append((claim.neuron, factor))
        sizes.append(change if by == "difference of norms" else claim.new / claim.old)
    return by, scales, sizes


def _drawn(
    model: Any, sites: ModelSites, claims: Sequence[Claim], sizes: Sequence[float], by: str, random: np.random.Generator
) -> Scales:
    """A random patch: in each layer as many other neurons, each with the size of one claim."""
    scales: dict[int, list[tuple[int, float]]] = {}
    for layer in sorted({claim.layer for claim in claims}):
        here = [(claim.neuron, size) for claim, size in zip(claims, sizes, strict=True) if claim.layer == layer]
        norms = _norms(model, sites, layer)
        free = np.setdiff1d(np.arange(len(norms)), [neuron for neuron, _ in here])
        if len(free) < len(here):
            raise InputError(f"layer {layer} has no {len(here)} other neurons", where="claims", fix="Claim fewer.")
        for neuron, (_, size) in zip(random.permutation(free).tolist(), here, strict=False):
            factor = 1 + size / norms[neuron] if by == "difference of norms" else size
            scales.setdefault(layer, []).append((neuron, factor))
    return scales


def _norms(model: Any, sites: ModelSites, layer: int) -> Floats:
    """‖W_:,i‖₂ of every neuron of a layer."""
    weight = down_projection(model, sites, layer)
    found: Floats = torch.linalg.vector_norm(weight, dim=0, dtype=torch.float32).double().cpu().numpy()
    return found


def _prompts(trace: xr.Dataset) -> list[_Tokens]:
    of_token, ids = np.asarray(trace["prompt"].values), np.asarray(trace["token_id"].values)
    if (ids < 0).any():
        raise InputError("the trace does not know its token ids", where="trace", fix="Give a recorded trace.")
    spans = np.asarray(trace["span"].values)
    count = min(trace.sizes[names.PROMPT], MOST_PROMPTS)
    return [_Tokens(ids[of_token == prompt], spans[of_token == prompt]) for prompt in range(count)]


def _run(model: Any, sites: ModelSites, prompts: Sequence[_Tokens]) -> dict[str, list[NDArray[Any]]]:
    """The quantities of every prompt, first tokens left out, and the logits of its last token."""
    device = input_device(model)
    found: dict[str, list[NDArray[Any]]] = {name: [] for name in (*_QUANTITIES, "logits")}
    observer = Observer(model, sites, _GROUPS, 1)
    with observer:
        for group in alike_in_length([len(prompt.ids) for prompt in prompts], _BATCH):
            chosen = [prompts[index] for index in group]
            arrays, output = observer.record(make_batch(chosen, pad_id=0, padding_side="right", device=device))
            ends = np.cumsum([len(prompt.ids) for prompt in chosen])
            later = np.setdiff1d(np.arange(ends[-1]), [0, *ends[:-1]])
            for name in _QUANTITIES:
                found[name].append(arrays[name][later].astype(np.float64))
            last = [
                output.logits[row, min(len(prompt.ids), output.logits.shape[1]) - 1]
                for row, prompt in enumerate(chosen)
            ]
            found["logits"].append(torch.stack(last).float().cpu().numpy())
    return found


def _apart(one: dict[str, list[NDArray[Any]]], other: dict[str, list[NDArray[Any]]]) -> Floats:
    """Mean |change| of each quantity."""
    return np.array(
        [np.nanmean(np.abs(np.concatenate(one[name]) - np.concatenate(other[name]))) for name in one], np.float64
    )
