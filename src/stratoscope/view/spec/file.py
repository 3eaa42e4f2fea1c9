"""The bytes of a ViewSpec: a header line, length and text of the JSON, little-endian buffers (docs/viewspec.md)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stratoscope.errors import InputError, ascii_json, first_line
from stratoscope.trace.format import strict_json
from stratoscope.view.spec.buffers import DTYPES, MOST_AXES
from stratoscope.view.spec.check import check
from stratoscope.view.spec.document import Json, Packing, Unfit, Unpacking, shortened
from stratoscope.view.spec.viewspec import SPEC_VERSION, ViewSpec

MAGIC = b"stratoscope-view\n"
ALIGNED = 8  # bytes: where each buffer begins
_LONGEST = 2**31  # bytes of the whole


def to_bytes(spec: ViewSpec) -> bytes:
    """A whole spec as bytes; equal specs give equal bytes."""
    packing = Packing()
    document = {"view_version": SPEC_VERSION, "view": packing.pack(spec)}
    index, offset = [], 0
    for array in packing.arrays:
        index.append({"dtype": array.dtype.str, "shape": list(array.shape), "offset": offset})
        offset += _padded(array.nbytes)
    text = ascii_json(document | {"buffers": index}, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()
    text += b" " * (-(len(MAGIC) + 8 + len(text)) % ALIGNED)
    body = b"".join(array.tobytes() + bytes(-array.nbytes % ALIGNED) for array in packing.arrays)
    return MAGIC + len(text).to_bytes(8, "little") + text + body


def from_bytes(data: bytes) -> ViewSpec:
    """The spec that `to_bytes` wrote.

    Raises
    ------
    InputError
        These are other bytes, of another version, cut, or not what the format allows.
    """
    try:
        view, arrays = _parts(data)
        unpacking = Unpacking(arrays)
        spec: ViewSpec = unpacking.unpack(ViewSpec, view)
        check(spec)
        unpacking.finish()
    except Unfit as error:
        raise InputError(f"no ViewSpec: {error}", where="view", fix="Make it again.") from None
    return spec


def _parts(data: bytes) -> tuple[Json, list[NDArray[Any]]]:
    """The JSON of a view, and its buffers."""
    start = len(MAGIC) + 8
    if not data.startswith(MAGIC):
        raise Unfit("it does not begin as one" if data else "it is empty")
    if len(data) > _LONGEST:
        raise Unfit("it is too long")
    body = start + int.from_bytes(data[len(MAGIC) : start], "little")
    if max(start, body) > len(data):
        raise Unfit("it is cut off")
    if body % ALIGNED:
        raise Unfit("its JSON does not end where a buffer may begin")
    document = _json(data[start:body])
    version = document.get("view_version") if isinstance(document, dict) else None
    if not isinstance(version, str):
        raise Unfit("it does not say of which version it is")
    if version != SPEC_VERSION:
        raise Unfit(f"it is of version {shortened(version)}, and here {SPEC_VERSION} is known")
    if set(document) != {"view_version", "view", "buffers"}:
        raise Unfit("it is not made of a version, a view and buffers")
    return document["view"], _arrays(document["buffers"], data, body)


def _json(text: bytes) -> Any:
    try:
        return strict_json.load(text.decode())
    except RecursionError:
        raise Unfit("its JSON nests too deep") from None
    except ValueError as error:
        raise Unfit(f"its JSON cannot be read: {first_line(error)}") from None


def _arrays(index: Any, data: bytes, start: int) -> list[NDArray[Any]]:
    """The buffers, which must lie one after the other and end with the bytes."""
    arrays, offset = [], start
    if not isinstance(index, list):
        raise Unfit("its buffers are no list")
    for place, entry in enumerate(index):
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "offset"}:
            raise Unfit(f"buffer {place} is not described by dtype, shape and offset")
        dtype, shape = entry["dtype"], entry["shape"]
        if dtype not in DTYPES:
            raise Unfit(f"buffer {place} is of an unknown type")
        if not isinstance(shape, list) or not 1 <= len(shape) <= MOST_AXES or not _are_sizes(shape):
            raise Unfit(f"buffer {place} has no shape")
        if type(entry["offset"]) is not int or entry["offset"] != offset - start:
            raise Unfit(f"buffer {place} does not lie where it should")
        count = math.prod(shape)
        end = offset + _padded(count * np.dtype(dtype).itemsize)
        if end > len(data):
            raise Unfit(f"buffer {place} is cut off")
        arrays.append(np.frombuffer(data, dtype, count, offset).reshape(shape))
        offset = end
    if offset != len(data):
        raise Unfit("something follows its last buffer")
    return arrays


def _are_sizes(shape: list[Any]) -> bool:
    """Whether these are lengths of axes; only the first may be 0, so that no shape is larger than its bytes."""
    return all(type(size) is int and size >= 0 for size in shape) and 0 not in shape[1:]


def _padded(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED
