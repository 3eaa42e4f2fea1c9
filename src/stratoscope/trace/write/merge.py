"""The verb `merge`: the parts of a recording become one trace, with the values of a recording in one go."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.progress import Progress, silent
from stratoscope.trace.format import place
from stratoscope.trace.format.part import PLAN_FIELDS
from stratoscope.trace.format.receipt import merged_receipt, own_facts
from stratoscope.trace.format.schema import WRITTEN
from stratoscope.trace.format.token_texts import united
from stratoscope.trace.labels import note
from stratoscope.trace.read.reader import open_trace
from stratoscope.trace.write.from_dataset import copied, writer_for
from stratoscope.trace.write.merge_check import StoredPart, checked_parts, listed

_OWN = (*WRITTEN, "resumed")  # attributes of one part that say nothing about the whole
_KEPT = ("uuid", "created", "finished", "resumed", "software")  # … which `merged` keeps


def merge(
    parts: Iterable[str | Path], out: str | Path, *, overwrite: bool = False, progress: Progress | None = None
) -> xr.Dataset:
    """Join the parts of a recording that `capture` made with `part`.

    The trace is what one recording of all prompts would have given, bit for bit where the parts were recorded on the
    same kind of machine with the same software. Where they were not, a note on the trace and a limit in its receipt say
    so. It is written piece by piece, so that memory does not grow with it, and appears when it is complete.

    Parameters
    ----------
    parts
        Every part, in any order. They are only read.
    out
        The trace to write.
    overwrite
        Replace a trace that is there.
    progress
        Called with (stage, done, total or None).

    Returns
    -------
    xarray.Dataset
        The whole trace, opened lazily. `attrs["merged"]` lists the parts, with what each one's own receipt says.

    Raises
    ------
    InputError
        A part is missing, given twice, not complete, or of another recording.
    TraceError
        A part cannot be read, or the trace cannot be written.

    Examples
    --------
    >>> import stratoscope
    >>> prompts = [f"{number} and one are {number + 1}." for number in range(16)]
    >>> for number in (1, 2):  # each may run on a machine of its own
    ...     _ = stratoscope.capture("MODEL", prompts, f"part{number}.trace", part=(number, 2), batch_size=1)
    >>> trace = stratoscope.merge(["part1.trace", "part2.trace"], "whole.trace")
    >>> trace.sizes["prompt"], len(trace.attrs["merged"])
    (16, 2)
    """
    target, say = Path(out).absolute(), progress or silent
    place.refuse_without_parent(target)
    place.refuse_occupied(target.resolve(), overwrite=overwrite)
    say("reading the parts", 0, None)
    given = [parts] if isinstance(parts, str | os.PathLike) else parts
    found = checked_parts([Path(part) for part in given], target)
    datasets = [open_trace(one.path) for one in found]
    whole = datasets[0].assign(_floors(datasets))
    total, done = found[0].part.whole, 0
    with writer_for(whole, target, _attributes(found), overwrite=overwrite) as writer:
        for dataset in datasets:
            say("merging", done, total)
            for prompts in copied(dataset, writer):
                say("merging", done + prompts, total)
            done += dataset.sizes["prompt"]
        writer.finish()
    return open_trace(out)


def _floors(datasets: Sequence[xr.Dataset]) -> dict[str, xr.DataArray]:
    """The larger of the noise floors of the parts; all have the same sample, so one that measured it is enough."""
    floors: dict[str, xr.DataArray] = {}
    for dataset in datasets:
        for name in filter(names.is_floor, map(str, dataset.data_vars)):
            former = floors.get(name, dataset[name])
            floors[name] = former.copy(data=np.fmax(former.values, dataset[name].values))
    return floors


def _attributes(found: Sequence[StoredPart]) -> dict[str, Any]:
    """Those of a recording in one go, and where each part came from."""
    attrs = [dict(one.attrs) for one in found]
    unlike = _unlike(found)
    receipt, own = _receipts(found)
    receipt["limits"] = [*receipt["limits"], *unlike]
    notes = [one for some in attrs for one in some.get("notes") or ()]
    notes += [note("L14", "warning", sentence) for sentence in unlike]
    origins = zip(found, attrs, own, strict=True)
    return {
        **{key: value for key, value in attrs[0].items() if key not in _OWN},
        **{key: _side_by_side([some.get(key) for some in attrs]) for key in ("software", "model")},
        "plan": {key: value for key, value in attrs[0]["plan"].items() if key not in PLAN_FIELDS},
        **united(attrs),
        "receipt": receipt,
        "notes": [one for number, one in enumerate(notes) if one not in notes[:number]],
        "merged": [
            {"part": one.part.number, "prompts": [one.part.prompts.start, one.part.prompts.stop]}
            | {key: some[key] for key in _KEPT if key in some}
            | {"receipt": facts}
            for one, some, facts in origins
        ],
    }


def _receipts(found: Sequence[StoredPart]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The receipts as one, and of each what is its own; InputError where they are not what `capture` writes."""
    receipts = [one.attrs.get("receipt") or {} for one in found]
    try:
        return merged_receipt(receipts), own_facts(receipts)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise InputError(
            f"the receipts of these parts cannot be joined ({type(error).__name__}: {error})",
            where=str(found[0].path),
            fix="Give parts as `stratoscope capture --part` wrote them.",
        ) from None


def _side_by_side(mappings: Sequence[Any]) -> Any:
    """The first, with what differs in the others beside it."""
    first = dict(mappings[0] or {})
    for key in first:
        values = dict.fromkeys(str(one.get(key)) for one in mappings if isinstance(one, Mapping))
        first[key] = " | ".join(values) if len(values) > 1 else first[key]
    return first


def _unlike(found: Sequence[StoredPart]) -> list[str]:
    """What the parts were not recorded alike with and may change last bits, in a sentence."""
    kinds: dict[str, dict[str, list[int]]] = {}
    for one in found:
        for what, value in one.conditions().items():
            kinds.setdefault(what, {}).setdefault(value, []).append(one.part.number)
    words = [
        f"{what} " + " and ".join(f"{value} ({listed(numbers)})" for value, numbers in values.items())
        for what, values in kinds.items()
        if len(values) > 1
    ]
    if not words:
        return []
    with_what = "; ".join(words)
    return [
        f"The parts of this trace were recorded with {with_what}: last bits may differ from those of one recording."
    ]
