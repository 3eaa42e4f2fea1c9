"""Whose logits a trace explains, as JSON-able facts for `info`: targets, where the answer begins, how far sums are off."""  # noqa: E501

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stratoscope import names
from stratoscope.trace.targets import Targets

if TYPE_CHECKING:
    import xarray as xr

_LIMIT = 20  # prompts whose own target is told


def explained(dataset: xr.Dataset) -> dict[str, Any] | None:
    """Facts about the targets of a trace; None where it explains no logit.

    Returns
    -------
    dict
        `targets` (each in words), `own` (id of a prompt → its own target, where each prompt has one; of many prompts
        the first), `answer_prefix` ("" = none), `positions` ("answer" or "all": where neurons are ranked), `error` and
        `limit` (the largest error of the sums of contributions, as a share of Σ|c|; None = not said), `groups` (record
        groups that are there).
    """
    targets = Targets(dataset)
    if not len(targets):
        return None
    plan, receipt = (dataset.attrs.get(key) for key in ("plan", "receipt"))
    plan = plan if isinstance(plan, Mapping) else {}
    sums = receipt.get("contributions") if isinstance(receipt, Mapping) else None
    sums = sums if isinstance(sums, Mapping) else {}
    held = {names.QUANTITIES[name].group for name in map(str, dataset.data_vars) if name in names.QUANTITIES}
    return {
        "targets": [_in_words(targets, place) for place in range(len(targets))],
        "own": _own(dataset, targets),
        "answer_prefix": _text(plan.get("answer_prefix")),
        "positions": _text(plan.get("positions")),
        "error": _number(sums.get("error")),
        "limit": _number(sums.get("limit")),
        "groups": [group for group in names.OF_TARGETS if group in held],
    }


def _in_words(targets: Targets, place: int) -> str:
    mean = "" if targets.own or targets.against[place] else " against the mean of the vocabulary"
    return f"{targets.label(place)}{mean}"


def _own(dataset: xr.Dataset, targets: Targets) -> dict[str, str]:
    if not targets.own:
        return {}
    ids = [str(one) for one in dataset["prompt_id"][:_LIMIT].values] if "prompt_id" in dataset.variables else []
    return {identity: targets.label_in(prompt, 0) for prompt, identity in enumerate(ids)}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
