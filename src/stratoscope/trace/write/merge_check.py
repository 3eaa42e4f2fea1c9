"""Parts of a recording on disk, and everything for which they are not one recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.trace.format import place
from stratoscope.trace.format.array_document import ArrayDocument
from stratoscope.trace.format.attributes import differences
from stratoscope.trace.format.document import Document, read_document
from stratoscope.trace.format.part import PLAN_FIELDS, Part, part_of
from stratoscope.trace.format.schema import COMPLETE, companion
from stratoscope.words import number_ranges

_SAME = ("format_version", "source", "token_spelling", "model", "tokenizer", "plan")
_MAY_DIFFER = {"model": ("device",), "plan": PLAN_FIELDS}


@dataclass(frozen=True)
class StoredPart:
    """A trace that is a part of a recording."""

    path: Path
    part: Part
    document: Document

    @property
    def attrs(self) -> Mapping[str, Any]:
        """Its root attributes."""
        return self.document.attrs

    @property
    def prompts(self) -> int:
        """How many it holds."""
        return self.document.length("prompt_id_end")

    def conditions(self) -> dict[str, str]:
        """What may change the last bits of what is computed: device, threads and versions, by name."""
        model, receipt = (self.attrs.get(key) or {} for key in ("model", "receipt"))
        known = {"device": model.get("device"), "threads": receipt.get("threads")}
        return {name: str(value) for name, value in {**known, **(self.attrs.get("software") or {})}.items()}

    def arrays(self) -> dict[str, dict[str, Any]]:
        """What must be the same in all parts; not a noise floor, which any one of them measures for the whole."""
        return {name: _facts(array) for name, array in self.document.arrays.items() if not _may_lack(name)}


def _may_lack(name: str) -> bool:
    """Whether a part may be without an array that others have: a noise floor, or the bytes of texts that are empty."""
    return names.is_floor(name) or (name.endswith("_bytes") and companion(name) is not None)


def checked_parts(paths: Sequence[Path], target: Path) -> list[StoredPart]:
    """All parts of one recording, in order.

    Parameters
    ----------
    paths
        The traces.
    target
        Where they will be merged to.

    Raises
    ------
    InputError
        They are not all parts, each once, complete, of one recording; or the target is one of them.
    TraceError
        One cannot be opened.
    """
    if not paths:
        raise InputError("there is no part to merge", fix="Give every part of a recording.")
    for path in paths:
        _refuse_into_itself(path, target)
    found = [_part(path) for path in paths]
    first = found[0]
    for other in found[1:]:
        _refuse_another_recording(first, other)
    _refuse_twice(found)
    found.sort(key=lambda one: one.part.number)
    _refuse_missing(found)
    for one in found:
        _refuse_incomplete(one)
    return found


def listed(numbers: Sequence[int]) -> str:
    """Numbers of parts in words: part 1, parts 1, 3-5."""
    return f"part{'s' if len(numbers) > 1 else ''} {number_ranges(numbers)}"


def _part(path: Path) -> StoredPart:
    place.refuse_absent(path)
    document = read_document(path.resolve())
    part = part_of(document.attrs.get("plan"))
    if part is None:
        raise InputError(
            "this trace is not a part of a recording", where=str(path), fix="Give what `capture --part` wrote."
        )
    if document.unknown:
        raise InputError(
            f"it holds '{document.unknown[0]}', which this version does not know and would lose",
            where=str(path),
            fix="Merge it with the version of Stratoscope that recorded it.",
        )
    return StoredPart(path, part, document)


def _refuse_into_itself(path: Path, target: Path) -> None:
    part, whole = path.resolve(), target.resolve()
    if part == whole or part in whole.parents or whole in part.parents:
        raise InputError("a part cannot be merged into itself", where=str(path), fix="Choose another output.")


def _refuse_another_recording(one: StoredPart, other: StoredPart) -> None:
    verbs = ("is", f"in {one.path.name} it is")
    words = [differences(_same(other, key), _same(one, key), key, verbs) for key in _SAME]
    if one.part.of != other.part.of:
        words.append(f"it is part {other.part.number} of {other.part.of}, not of {one.part.of}")
    words.append(_other_arrays(one, other))
    if said := "; ".join(filter(None, words)):
        raise InputError(
            f"it is not of the same recording as {one.path.name}: {said}",
            where=str(other.path),
            fix="Give parts that were recorded with the same model, prompts and settings.",
        )


def _same(one: StoredPart, key: str) -> Any:
    """An attribute without what may differ between the parts of one recording."""
    value = one.attrs.get(key)
    if not isinstance(value, Mapping):
        return value
    return {name: item for name, item in value.items() if name not in _MAY_DIFFER.get(key, ())}


def _other_arrays(one: StoredPart, other: StoredPart) -> str:
    """The first array that only one of them has, or that is not the same in both, in words; "" where there is none."""
    if not (one.prompts and other.prompts):  # then nothing is stored, and that it is not complete is what is said
        return ""
    here, there = other.arrays(), one.arrays()
    for name in sorted(here.keys() ^ there.keys()):
        return f"it {'holds' if name in here else 'lacks'} '{name}'"
    found = (differences(here[name], there[name], name, ("is", "there it is")) for name in here)
    return next(filter(None, found), "")


def _facts(array: ArrayDocument) -> dict[str, Any]:
    layout = array.layout
    kept = array.shape[1:] if layout.grows else array.shape
    return {"dtype": str(np.dtype(layout.dtype)), "shape": list(kept), **array.attrs}


def _refuse_twice(found: Sequence[StoredPart]) -> None:
    seen: dict[int, StoredPart] = {}
    for one in found:
        former = seen.setdefault(one.part.number, one)
        if former is not one:
            raise InputError(
                f"part {one.part.number} is given twice, here and as {former.path}",
                where=str(one.path),
                fix="Give each part once.",
            )


def _refuse_missing(found: Sequence[StoredPart]) -> None:
    of = found[0].part.of
    missing = sorted(set(range(1, of + 1)) - {one.part.number for one in found})
    if missing:
        raise InputError(
            f"{listed(missing)} of {of} {'is' if len(missing) == 1 else 'are'} missing",
            fix=f"Record {'it' if len(missing) == 1 else 'them'} with `capture --part {missing[0]}/{of}`, or name "
            "every part.",
        )
    begin = [*(one.part.prompts.start for one in found), found[0].part.whole]
    end = [0, *(one.part.prompts.stop for one in found)]
    if begin != end:
        raise InputError(
            f"their prompts overlap or leave some out: {'; '.join(str(one.part) for one in found)}",
            fix="Record all parts with the same version of Stratoscope.",
        )


def _refuse_incomplete(one: StoredPart) -> None:
    held, planned = one.prompts, len(one.part.prompts)
    if one.attrs["state"] != COMPLETE or held != planned:
        raise InputError(
            f"part {one.part.number} is not complete: it holds {held:,} of its {planned:,} prompts",
            where=str(one.path),
            fix=f"Go on with `capture --part {one.part.number}/{one.part.of} --resume`, otherwise as it was begun.",
        )
