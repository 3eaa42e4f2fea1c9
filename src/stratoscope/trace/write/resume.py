"""What must be equal before a recording goes on: the same source, plan, model, tokenizer, arrays and layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from stratoscope.errors import InputError, TraceError
from stratoscope.trace.format.attributes import differences, to_json
from stratoscope.trace.format.document import Document, read_document
from stratoscope.trace.format.place import is_trace
from stratoscope.trace.format.schema import COMPLETE, FORMAT_VERSION
from stratoscope.trace.read.reader import reading

_SAME_ATTRIBUTES = ("source", "plan", "model", "tokenizer")
_SAME_IN_ARRAYS = ("data_type", "chunk_grid", "codecs", "dimension_names", "shape", "fill_value", "chunk_key_encoding")


def refuse_other_version(document: Document) -> None:
    """Raise when a trace was begun in another format, whose arrays this program does not write."""
    version = document.attrs["format_version"]
    if version != FORMAT_VERSION:
        raise TraceError(
            f"it was begun in format {version}, and this program writes {FORMAT_VERSION}",
            where=str(document.path),
            fix="Go on with the version of Stratoscope that began it, or record anew with --overwrite.",
        )


def refuse_other_recording(document: Document, attrs: Mapping[str, Any]) -> None:
    """Raise when a trace was begun with another source, plan, model or tokenizer than `attrs`."""
    found = (differences(document.attrs.get(key), attrs.get(key), key) for key in _SAME_ATTRIBUTES)
    if words := "; ".join(part for part in found if part):
        _refuse(document.path, words)


def refuse_other_plan(path: Path, known: Mapping[str, Any]) -> None:
    """Raise when the trace at `path`, if there is one, was begun with another plan, as far as `known` says it."""
    if not is_trace(path):
        return
    document = read_document(path)
    refuse_other_version(document)
    plan = document.attrs.get("plan")
    stored = {key: plan.get(key) for key in known} if isinstance(plan, Mapping) else {}
    if words := differences(stored, to_json(known), "plan"):
        _refuse(path, words)


def planned(path: Path, key: str) -> Any:
    """An entry of the plan of the trace at `path`; None where there is none."""
    plan = read_document(path).attrs.get("plan") if is_trace(path) else None
    return plan.get(key) if isinstance(plan, Mapping) else None


def refuse_complete(path: Path) -> None:
    """Raise when there is a trace at `path` that is complete, so that nothing can be added to its receipt."""
    if is_trace(path) and read_document(path).attrs["state"] == COMPLETE:
        raise InputError(
            "the trace is complete, and a complete trace is not verified again",
            where=str(path),
            fix="Leave --verify full out, or record anew with --overwrite.",
        )


def refuse_other_layout(document: Document, wanted: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise when a trace has other arrays than `wanted` (metadata documents by name), or lays one out differently."""
    stored = {name: array.raw for name, array in document.arrays.items()}
    others = sorted(wanted.keys() ^ stored.keys())
    for name in wanted.keys() & stored.keys():
        others += [name for key in _SAME_IN_ARRAYS if wanted[name][key] != stored[name].get(key)]
    if others:
        _refuse(document.path, f"'{others[0]}' is laid out differently")


def refuse_other_axes(path: Path, arrays: Mapping[str, zarr.Array[Any]], axes: Mapping[str, np.ndarray]) -> None:
    """Raise when a trace records other layers, or has other noise floors."""
    for name, values in axes.items():
        with reading(name):
            stored = np.asarray(arrays[name][:])
        if not np.array_equal(stored, values, equal_nan=values.dtype.kind == "f"):
            _refuse(path, f"its '{name}' holds other values")


def _refuse(path: Path, what: str) -> None:
    raise TraceError(
        f"it cannot be resumed: {what}",
        where=str(path),
        fix="Resume with what it was started with, or use --overwrite or another output.",
    )
