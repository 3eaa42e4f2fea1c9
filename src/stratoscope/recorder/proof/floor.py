"""The noise floor: how much recorded quantities move when nothing that should matter is changed.

A few prompts are recorded alone, together, together with padding on the other side, and alone in another dtype. The
floor of a quantity in a layer is the largest change at any token (and head, rank or neuron), of each of the three by
itself: what counts between two recordings is what was not the same in both. What no recording of the model does, since
its values would change with it, is not measured: padding where prompts run only beside those of equal length, and
batches where each runs alone. A prompt's first token is left out: it is a sink whose norms are hundreds of times larger
than all others.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stratoscope import defaults, names
from stratoscope.errors import InputError, StratoscopeError
from stratoscope.model.devices import input_device
from stratoscope.model.sites import ModelSites
from stratoscope.recorder.input.batches import make_batch
from stratoscope.recorder.input.grouping import EQUAL_LENGTH, Batching
from stratoscope.recorder.input.tokens import TokenisedPrompt, cut
from stratoscope.recorder.observe import Observer
from stratoscope.recorder.plan import CapturePlan
from stratoscope.trace.format.place import is_trace, recorded_at
from stratoscope.trace.read.reader import open_trace

Arrays = dict[str, np.ndarray]

_CUTS = (256, 192, 128, 64)  # tokens: of different lengths, so that a batch of them has padding
_SPARE = 1.2  # memory that must be free, in sizes of the copy


@dataclass(frozen=True)
class Floor:
    """A measured noise floor.

    Attributes
    ----------
    arrays
        `floor_<nuisance>_<quantity>`: float32 [layer or depth].
    facts
        For the receipt: what was compared with what (`nuisances`, `dtypes`), on which prompts, on how many tokens, how
        many the longest has, and the largest change of each quantity.
    limits
        What could not be measured, in sentences.
    """

    arrays: Arrays
    facts: dict[str, Any]
    limits: list[str]

    def of(self, quantities: Sequence[str]) -> Floor:
        """With the arrays of these quantities alone."""
        named = [names.floor_name(name, nuisance) for name in quantities for nuisance in names.NUISANCES]
        return replace(self, arrays={name: self.arrays[name] for name in named if name in self.arrays})


def floor_of_begun(out: Path, *, wanted: bool) -> Floor | None:
    """The floor of the recording that goes on at `out`, empty where it was begun without; None where none was begun.

    Raises
    ------
    InputError
        A floor is wanted of a recording that was begun without.
    """
    begun = recorded_at(out.absolute())
    if not is_trace(begun):
        return None
    earlier = open_trace(begun)
    facts = earlier.attrs["receipt"].get("noise_floor")
    if not facts and wanted:
        fix = "Resume it without --floor, or record anew."
        raise InputError("was begun without a noise floor", where=str(out), fix=fix)
    arrays = {str(name): value.values for name, value in earlier.data_vars.items() if names.is_floor(str(name))}
    return Floor(arrays, dict(facts), facts["limits"]) if facts else Floor({}, {}, [])


def sample(lengths: Sequence[int]) -> list[int]:
    """Indices of the prompts to measure on: the longest, the first, and seeded others, as many as there are cuts."""
    order = np.random.default_rng(defaults.SEED).permutation(len(lengths)).tolist()
    chosen = list(dict.fromkeys([int(np.argmax(lengths)), 0, *order]))[: len(_CUTS)]
    return list(islice(cycle(chosen), len(_CUTS)))


def measure_floor(
    model: nn.Module,
    sites: ModelSites,
    observer: Observer,
    prompts: Sequence[TokenisedPrompt],
    ids: Sequence[str],
    plan: CapturePlan,
) -> Floor:
    """Record a sample of prompts under each nuisance, and compare.

    Parameters
    ----------
    model, sites, observer
        The model, its sites and what records them, not open.
    prompts, ids
        Those that `sample` chose; they are cut to different lengths.
    plan
        That of the recording.
    """
    padding_side, batching = plan.padding_side, plan.batching
    measurable = [group for group in plan.record if group not in names.GROUPS_WITHOUT_FLOOR]
    prompts = _shortened(prompts, equal=batching.together == EQUAL_LENGTH)
    groups = _together(batching, prompts)
    device, dtype = input_device(model), next(model.parameters()).dtype
    other_side, other_dtype = ("left" if padding_side == "right" else "right"), _other(dtype)

    def run(who: Observer, side: str, together: Sequence[Sequence[TokenisedPrompt]]) -> Arrays:
        with who:
            found = [who.record(make_batch(some, pad_id=0, padding_side=side, device=device))[0] for some in together]
        return {name: np.concatenate([one[name] for one in found]) for name in found[0]}

    def in_other_dtype() -> Observer:
        return Observer(_in_dtype(model, other_dtype), sites, measurable, plan.top_k)

    alone = [[prompt] for prompt in prompts]
    base = run(observer, padding_side, alone)
    words = {
        "batch": f"{max(map(len, groups))} prompts in a batch, against each alone",
        "padding": f"padding on the {other_side}, against the {padding_side}",
        "dtype": f"{_name(other_dtype)}, against {_name(dtype)}",
    }
    changes: dict[str, Arrays] = {}
    limits: list[str] = []
    lengths = [len(prompt.ids) for prompt in prompts]

    def measured(nuisance: str, measure: Callable[[], tuple[Arrays, Arrays]]) -> Arrays | None:
        try:
            found, against = measure()
        except (StratoscopeError, RuntimeError, MemoryError) as error:
            limits.append(f"Noise floor without {words[nuisance]}: {' '.join(str(error).split())[:120].rstrip('.')}.")
            return None
        changes[nuisance] = _changes(found, against, lengths)
        return found

    together = None
    if len(groups) < len(prompts):
        together = measured("batch", lambda: (run(observer, padding_side, groups), base))
    if together is not None and any(len({len(prompt.ids) for prompt in group}) > 1 for group in groups):
        measured("padding", lambda: (run(observer, other_side, groups), together))
    measured(
        "dtype",
        lambda: (run(in_other_dtype(), padding_side, alone), base),
    )
    if unmeasured := [group for group in plan.record if group not in measurable]:
        limits.append(f"Noise floor: not measured for the group {' and '.join(unmeasured)}.")
    facts = {
        "prompts": list(dict.fromkeys(ids)),
        "tokens": sum(lengths),
        "longest": max(lengths),
        "dtypes": [_name(dtype), _name(other_dtype)],
        "nuisances": {nuisance: words[nuisance] for nuisance in changes},
        "largest_changes": {words[nuisance]: _largest(found) for nuisance, found in changes.items()},
    }
    return _floor(changes, facts, limits)


def _floor(changes: Mapping[str, Arrays], facts: dict[str, Any], limits: list[str]) -> Floor:
    arrays = {
        names.floor_name(name, nuisance): values.astype(np.float32)
        for nuisance, found in changes.items()
        for name, values in found.items()
    }
    undefined = [name for name in arrays if np.isnan(arrays[name]).all()]
    if undefined:
        limits = [*limits, f"Noise floor: nothing to compare beyond the first tokens for {', '.join(undefined)}."]
    return Floor({name: values for name, values in arrays.items() if name not in undefined}, facts, limits)


def _largest(changes: Arrays) -> dict[str, float]:
    return {name: float(np.fmax.reduce(values)) for name, values in changes.items()}


def _changes(found: Arrays, against: Arrays, lengths: Sequence[int]) -> Arrays:
    """Largest absolute difference of each quantity, [layer or depth]; NaN where nothing is defined."""
    first = np.zeros(sum(lengths), bool)
    first[np.cumsum([0, *lengths[:-1]])] = True
    changes = {}
    for name in found.keys() & against.keys():
        quantity = names.QUANTITIES[name]
        if names.has_floor(quantity):
            difference = np.abs(found[name].astype(np.float64) - against[name])
            difference = difference[~first] if quantity.dims[0] == names.TOKEN else difference
            others = tuple(axis for axis in range(difference.ndim) if axis != 1)
            changes[name] = np.fmax.reduce(difference, axis=others, initial=np.nan)
    return {name: changes[name] for name in names.QUANTITIES if name in changes}


def _shortened(prompts: Sequence[TokenisedPrompt], *, equal: bool) -> list[TokenisedPrompt]:
    """The prompts, each at least a little shorter than the one before if it can be, so that they need padding.

    With `equal`, all are as long as the middle one, and the longest takes the place of those that are too short.
    """
    longest = min(max(len(prompt.ids) for prompt in prompts), _CUTS[0])
    lengths = [max(1, longest * most // _CUTS[0]) for most in _CUTS]
    if equal:
        middle = min(sorted(len(prompt.ids) for prompt in prompts)[len(prompts) // 2], _CUTS[0])
        prompts = [prompt if len(prompt.ids) >= middle else prompts[0] for prompt in prompts]
        lengths = [middle] * len(prompts)
    return [cut(prompt, length) for prompt, length in zip(prompts, lengths, strict=True)]


def _together(batching: Batching, prompts: Sequence[TokenisedPrompt]) -> list[list[TokenisedPrompt]]:
    """The prompts as they may run together, in their order: lengths fall, so batches are of neighbours."""
    found = replace(batching, size=len(prompts)).batches([len(prompt.ids) for prompt in prompts])
    return [[prompts[index] for index in sorted(batch)] for batch in sorted(found, key=min)]


# --- the model in another dtype ---------------------------------------------------------------------------------------


def _other(dtype: torch.dtype) -> torch.dtype:
    return torch.bfloat16 if dtype == torch.float32 else torch.float32


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _in_dtype(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of the model with its parameters in another dtype; buffers stay, as when a model is loaded so.

    Raises
    ------
    RuntimeError
        The model cannot be copied so, or there is not enough memory.
    """
    if getattr(model, "hf_device_map", None) or getattr(model, "is_quantized", False):
        raise RuntimeError("the model is spread over devices or quantised")
    parameters = list(model.parameters())
    wanted = sum(parameter.numel() for parameter in parameters) * dtype.itemsize
    free = _free_bytes(parameters[0].device)
    if free < _SPARE * wanted:
        raise RuntimeError(f"a copy takes {wanted / 1e9:.2g} GB, and {free / 1e9:.2g} GB are free")
    converted: dict[int, Any] = {
        id(one): nn.Parameter(one.detach().to(dtype), requires_grad=False)
        for one in parameters
        if one.is_floating_point()
    }
    return copy.deepcopy(model, converted)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        words = meminfo.read_text().split()
        return 1024 * int(words[words.index("MemAvailable:") + 1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4  # no system says more: a cautious guess
