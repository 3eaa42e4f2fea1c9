"""The bytes of a ViewSpec: a header line, length and text of the JSON, little-endian buffers (docs/viewspec.md)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stratoscope.errors import InputError, ascii_json
from stratoscope.view.spec.buffers import DTYPES
from stratoscope.view.spec.document import Packing, Unfit, unpack
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
        return _read(data)
    except (Unfit, ValueError, RecursionError) as error:
        what = str(error) if isinstance(error, Unfit) else "its JSON cannot be read"
        raise InputError(f"no ViewSpec: {what}", where="view", fix="Make it again.") from None


def _read(data: bytes) -> ViewSpec:
    start = len(MAGIC) + 8
    if not data.startswith(MAGIC) or len(data) > _LONGEST:
        raise Unfit("it does not begin as one" if len(data) <= _LONGEST else "it is too long")
    length = int.from_bytes(data[len(MAGIC) : start], "little")
    if start + length > len(data):
        raise Unfit("it is cut off")
    document = json.loads(data[start : start + length].decode())
    if not isinstance(document, dict) or set(document) != {"view_version", "view", "buffers"}:
        raise Unfit("it does not say what it is")
    if document["view_version"] != SPEC_VERSION:
        raise Unfit(f"it is of version {str(document['view_version'])[:20]!r}, and here {SPEC_VERSION} is known")
    view = unpack(ViewSpec, document["view"], _arrays(document["buffers"], data, start + length))
    assert isinstance(view, ViewSpec)
    return view


def _arrays(index: Any, data: bytes, start: int) -> list[NDArray[Any]]:
    """The buffers, which must lie one after the other and end with the bytes."""
    arrays, offset = [], start
    if not isinstance(index, list):
        raise Unfit("its buffers are no list")
    for number, entry in enumerate(index):
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "offset"}:
            raise Unfit(f"buffer {number} is not described")
        dtype, shape = entry["dtype"], entry["shape"]
        if dtype not in DTYPES:
            raise Unfit(f"buffer {number} is of an unknown type")
        if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < _LONGEST for size in shape):
            raise Unfit(f"buffer {number} has no shape")
        count = 1
        for size in shape:
            count *= size
        end = offset + _padded(count * np.dtype(dtype).itemsize)
        if entry["offset"] != offset - start or end > len(data):
            raise Unfit(f"buffer {number} does not lie where it should, or is cut off")
        arrays.append(np.frombuffer(data, dtype, count, offset).reshape(shape))
        offset = end
    if offset != len(data):
        raise Unfit("something follows its last buffer")
    return arrays


def _padded(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED
