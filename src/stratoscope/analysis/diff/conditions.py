"""Whether two traces were recorded alike, as far as they say it: what was not is noise that the floor may not hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import names
from stratoscope.trace.format.attributes import object_in
from stratoscope.words import counted

if TYPE_CHECKING:
    import xarray as xr

_IN_FLOOR = ("dtype", "batch size", "prompts that run together", "other prompts in the batches", "padding")
_PLAN = {"batch_size": "batch size", "together": "prompts that run together", "padding_side": "padding"}
_RECEIPT = {
    "device": "device",
    "threads": "threads",
    "attention_implementation": "attention implementation",
    "experts_implementation": "experts implementation",
    "changed_implementations": "implementations changed to observe",
}


@dataclass(frozen=True)
class Conditions:
    """What two recordings do not have in common.

    Attributes
    ----------
    unlike
        What differs → as it was in A, and in B.
    known
        Whether both are recordings that say how they were made.
    """

    unlike: dict[str, tuple[str, str]]
    known: bool

    @property
    def alike(self) -> bool:
        """Whether both were recorded under the same conditions, as far as traces tell."""
        return self.known and not self.unlike

    def beyond_floor(self) -> dict[str, tuple[str, str]]:
        """What no floor is measured under."""
        return {what: values for what, values in self.unlike.items() if what not in _IN_FLOOR}


def conditions(a: xr.Dataset, b: xr.Dataset) -> Conditions:
    """Compare what two traces say about how they were recorded."""
    known = all(one.attrs.get("source") == names.REAL and one.attrs.get("receipt") for one in (a, b))
    said = [_said(one) for one in (a, b)]
    unlike = {
        what: (said[0].get(what, "not known"), said[1].get(what, "not known"))
        for what in dict.fromkeys([*said[0], *said[1]])
        if said[0].get(what) != said[1].get(what)
    }
    if known and not _same_prompts(a, b):
        of_a, of_b = (counted(side.sizes.get(names.PROMPT, 0), "prompt") for side in (a, b))
        unlike["other prompts in the batches"] = (of_a, of_b)
    return Conditions(unlike, bool(known))


def _said(dataset: xr.Dataset) -> dict[str, str]:
    attrs = dataset.attrs
    if attrs.get("source") != names.REAL:
        return {}
    model, plan, receipt, software = (object_in(attrs.get(key)) for key in ("model", "plan", "receipt", "software"))
    found: dict[str, Any] = {"dtype": model.get("dtype")}
    found |= {words: plan[key] for key, words in _PLAN.items() if key in plan}
    found |= {words: receipt[key] for key, words in _RECEIPT.items() if key in receipt}
    found |= {"parts merged": len(attrs["merged"])} if attrs.get("merged") else {}
    found |= {str(name): value for name, value in software.items()}
    return {what: _in_words(value) for what, value in found.items() if value is not None}


def _same_prompts(a: xr.Dataset, b: xr.Dataset) -> bool:
    """Whether both hold the same tokens of the same prompts, so that their batches were the same."""
    return all(np.array_equal(a[name].values, b[name].values) for name in ("prompt", "token_id"))


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_in_words(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)
