"""Receipts as they are stored: their line for pictures, and those of several parts as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, zip_longest
from math import floor, log10
from typing import Any

from stratoscope.words import capital, counted

Receipt = Mapping[str, Any]

ON_DISK = "the trace on disk"  # how the replay of a finished trace begins
DIFFER = "Logits differ"  # how the limit of an observation that changes them begins

_LINE = "receipt_line"
_COUNTS = ("batches", "tokens")
_OF_THE_WHOLE = "calibration"  # measured in every part on the same prompts of the whole


def receipt_line(receipt: Receipt) -> str:
    """The receipt in one line, for the footer of a picture."""
    differ = (limit.removesuffix(".") for limit in receipt["limits"] if capital(limit).startswith(DIFFER))
    logits = "logits unchanged" if receipt["logits_bit_identical"] else next(differ, DIFFER).replace("L", "l", 1)
    replay = receipt["replays"][-1]
    within = max(replay["largest_differences"].values(), default=None)
    of = f" of {counted(len(replay['prompts']), 'prompt')}" if replay["replay"].startswith(ON_DISK) else ""
    median = " (median)" if replay["median"] else ""
    attention = " and ".join(replay["attention"])
    replayed = "not replayed" if within is None else f"{attention} replay{of} within {_no_less(within)}{median}"
    batches = receipt["batches"]  # a recording that was interrupted keeps the line of its beginning
    checked = f"{counted(batches, 'batch')} checked" if batches else "recording not finished"
    return f"{logits}; residual sum {receipt['residual_replay']}; {replayed}; {checked}"


def _no_less(number: float) -> str:
    """A number in one digit, rounded up, so that it is within what is said."""
    shown = f"{number:.1g}"
    return shown if float(shown) >= number else f"{number + 10.0 ** floor(log10(number)) / 2:.1g}"


# --- several receipts as one ------------------------------------------------------------------------------------------


def merged_receipt(receipts: Sequence[Receipt]) -> dict[str, Any]:
    """The receipt of a trace that is made of parts: what holds for all of them, and the worst that holds for one.

    What was checked is what was checked in every part; limits are those of any part; differences are the largest. Other
    facts that are not the same in all parts stand side by side.
    """
    given = {name: _given(receipts, name) for name in _keys(receipts) if name != _LINE}
    whole = {name: sum(some) if name in _COUNTS else _combined(name, some) for name, some in given.items()}
    return {**whole, _LINE: receipt_line(whole)}


def own_facts(receipts: Sequence[Receipt]) -> list[dict[str, Any]]:
    """Of each receipt, the facts that are not the same in all of them."""
    of_parts = [name for name in _keys(receipts) if name not in (_LINE, _OF_THE_WHOLE)]
    differing = [name for name in of_parts if not _all_same(_given(receipts, name, None))]
    return [{name: receipt[name] for name in differing if name in receipt} for receipt in receipts]


def _combined(name: str, values: Sequence[Any]) -> Any:
    if name in _RULES:
        return _RULES[name](values)
    if _all_same(values):
        return values[0]
    if all(isinstance(value, Mapping) for value in values):
        return {key: _combined(key, _given(values, key)) for key in _keys(values)}
    return " | ".join(dict.fromkeys(map(str, values)))


def _worst(values: Sequence[Any]) -> Any:
    """The largest number; of mappings, of each number in them. None is a number that JSON cannot hold, or none."""
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, Mapping) for value in known):
        return {key: _worst(_given(known, key)) for key in _keys(known)}
    return max(known, default=None)


def _union(lists: Sequence[Sequence[Any]]) -> list[Any]:
    return list(dict.fromkeys(chain.from_iterable(lists)))


def _first(values: Sequence[Any]) -> Any:
    return values[0]


def _in_all(lists: Sequence[Sequence[Any]]) -> list[Any]:
    return [one for one in lists[0] if all(one in others for others in lists)]


def _replays(lists: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Replays of the same kind as one, with the prompts of all and the largest differences."""
    alike: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for replays in zip_longest(*lists):  # the first of each part, then the second: the same prompts of all
        for one in filter(None, replays):
            alike.setdefault((one["replay"], one["tolerance"], one["median"]), []).append(one)
    return [
        {
            **_sampled(replays, "largest_differences", sort=True),
            "attention": _union([one["attention"] for one in replays]),
        }
        for replays in alike.values()
    ]


def _floor(floors: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {**_sampled(floors, "largest_changes"), "limits": _union([floor["limits"] for floor in floors])}


def _sampled(facts: Sequence[Mapping[str, Any]], measured: str, *, sort: bool = False) -> dict[str, Any]:
    """What was measured on some prompts, as one: their prompts and tokens, each counted once, and the largest."""
    tokens = {tuple(one["prompts"]): one["tokens"] for one in facts}
    largest = _worst([one[measured] for one in facts])
    if sort:
        largest = {name: largest[name] for name in sorted(largest, key=lambda name: -largest[name])}
    return {**facts[0], "prompts": _union(list(tokens)), "tokens": sum(tokens.values()), measured: largest}


_RULES: dict[str, Callable[[Sequence[Any]], Any]] = {
    **dict.fromkeys(
        ("unobserved_repeat_max_abs", "observed_max_abs", "top1_changes", "largest_error", "edges_error"), _worst
    ),
    **dict.fromkeys(("beside_longer", "beside_equal_length"), _worst),
    **dict.fromkeys(("logits_bit_identical", "embedding_watched", "smallest_batch"), min),
    **dict.fromkeys(("contributions", "routes"), _worst),
    **dict.fromkeys(("error", "limit"), _worst),  # of lenses
    "pre_activations": sum,
    "not_split": sum,
    "limits": _union,
    "checks": _in_all,
    "replays": _replays,
    "noise_floor": _floor,
    _OF_THE_WHOLE: _first,
}


def _keys(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    return _union([list(one) for one in mappings])


def _given(mappings: Iterable[Mapping[str, Any]], key: str, *default: Any) -> list[Any]:
    """The values under that key, those of mappings that lack it left out, or replaced by a default."""
    return [one[key] if key in one else default[0] for one in mappings if key in one or default]


def _all_same(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)
