"""What stands in a GGUF file: its settings, its tensors, and whether it is whole."""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from stratoscope.errors import ModelError

MAGIC = b"GGUF"
_AGAIN = "Fetch it again."
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9
_FLOATS: dict[int, np.dtype[Any]] = {
    0: np.dtype("<f4"),
    1: np.dtype("<f2"),
}  # tensor types that small tensors of settings are stored in
_LONGEST_NAME = 1 << 26  # a length beyond this is no length: the file is damaged
_LONGEST_LIST = 1 << 21  # numbers of a setting: each word of a vocabulary has one
_DEEPEST = 4  # lists in lists; llama.cpp reads none


class Counted(int):
    """How many texts or lists a list of them holds; they themselves are not kept."""


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies: shape as torch has it, ggml type, first byte in the file."""

    shape: tuple[int, ...]
    kind: int
    start: int


@dataclass(frozen=True)
class GgufFile:
    """The settings and the list of tensors of a GGUF file; of a list of texts or lists only the number is kept."""

    path: Path
    settings: dict[str, Any]
    tensors: dict[str, GgufTensor]

    @property
    def architecture(self) -> str:
        """Which settings and tensors it has, by llama.cpp's name; empty where it says none."""
        return str(self.settings.get("general.architecture", ""))

    def own(self) -> dict[str, Any]:
        """The settings of the architecture, without its name in front."""
        prefix = f"{self.architecture}."
        return {key.removeprefix(prefix): value for key, value in self.settings.items() if key.startswith(prefix)}

    def values(self, name: str) -> NDArray[np.float64]:
        """The numbers of a small tensor that is stored as floats.

        Raises
        ------
        ModelError
            It is quantised.
        """
        tensor = self.tensors[name]
        dtype = _FLOATS.get(tensor.kind)
        if dtype is None:
            raise ModelError(
                f"its tensor {name} is quantised", where=self.path.name, fix="Use another GGUF file of it."
            )
        with self.path.open("rb") as stream:
            stream.seek(tensor.start)
            stored = np.frombuffer(stream.read(prod(tensor.shape) * dtype.itemsize), dtype)
        values: NDArray[np.float64] = stored.astype(np.float64).reshape(tensor.shape)
        return values


def read_gguf(path: Path) -> GgufFile:
    """Read the head of a GGUF file, and check that all of its tensors are in it.

    Raises
    ------
    ModelError
        It is damaged or cut off, of another version, or not a whole model.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as stream:
            settings, table = _read_head(stream)
            data = _data_start(stream.tell(), settings)
    except _CutOff:
        raise ModelError(f"is cut off within its head ({size:,} bytes)", where=path.name, fix=_AGAIN) from None
    except (ValueError, struct.error, KeyError) as error:
        raise ModelError(f"is a damaged GGUF file: {error}", where=path.name, fix=_AGAIN) from None
    tensors = {name: GgufTensor(shape, kind, data + offset) for name, shape, kind, offset in table}
    needed = max((tensor.start + _bytes(tensor) for tensor in tensors.values()), default=0)
    if needed > size:
        what = f"is cut off: it holds {size:,} of at least {needed:,} bytes"
        raise ModelError(what, where=path.name, fix=_AGAIN)
    return GgufFile(path, settings, tensors)


def _data_start(head: int, settings: dict[str, Any]) -> int:
    """The first byte after a head of this size at which tensors may lie."""
    alignment = settings.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"its general.alignment is {alignment!r:.40}, not a power of two")
    return -(-head // alignment) * alignment


class _CutOff(Exception):
    """The file ends before what it announces."""


def _read_head(stream: BinaryIO) -> tuple[dict[str, Any], list[tuple[str, tuple[int, ...], int, int]]]:
    if _take(stream, 4) != MAGIC:
        raise ValueError("it does not begin with the letters GGUF")
    (version,) = _unpack(stream, "I")
    if version not in (2, 3):
        raise ValueError(f"its version {version} is neither 2 nor 3")
    tensor_count, setting_count = _unpack(stream, "QQ")
    settings: dict[str, Any] = {}
    for _ in range(setting_count):
        key = _name(stream, settings)
        settings[key] = _value(stream, *_unpack(stream, "I"))
    table, seen = [], set[str]()
    for _ in range(tensor_count):
        name = _name(stream, seen)
        seen.add(name)
        (dims,) = _unpack(stream, "I")
        if dims > 8:
            raise ValueError(f"its tensor {name!r} has {dims} dimensions")
        shape = tuple(reversed(_unpack(stream, f"{dims}Q")))
        if 0 in shape:
            raise ValueError(f"its tensor {name!r} holds no number")
        kind, offset = _unpack(stream, "IQ")
        table.append((name, shape, kind, offset))
    return settings, table


def _value(stream: BinaryIO, kind: int, depth: int = 0) -> Any:
    if kind in _NUMBERS:
        return _unpack(stream, _NUMBERS[kind])[0]
    if kind == _TEXT:
        return _text(stream)
    if kind != _LIST:
        raise ValueError(f"a setting is of the unknown type {kind}")
    if depth == _DEEPEST:
        raise ValueError(f"a setting holds lists in lists, more than {_DEEPEST} deep")
    of, count = _unpack(stream, "IQ")
    if of in _NUMBERS and count > _LONGEST_LIST:
        raise ValueError(f"a list of {count:,} numbers is announced")
    if of in _NUMBERS:
        return list(_unpack(stream, f"{count}{_NUMBERS[of]}"))
    for _ in range(count):
        if of == _TEXT:
            stream.seek(_length(stream), 1)
        else:
            _value(stream, of, depth + 1)
    return Counted(count)


def _name(stream: BinaryIO, known: Collection[str]) -> str:
    """The name of a setting or tensor, which none before it has."""
    name = _take(stream, _length(stream)).decode("utf-8")
    if name in known:
        raise ValueError(f"it holds {name!r} twice")
    return name


def _text(stream: BinaryIO) -> str:
    return _take(stream, _length(stream)).decode("utf-8", "replace")


def _length(stream: BinaryIO) -> int:
    """The length of a text, as the file announces it."""
    return _plausible(int(_unpack(stream, "Q")[0]))


def _plausible(length: int) -> int:
    if length > _LONGEST_NAME:
        raise ValueError(f"a text or list of {length:,} bytes is announced")
    return length


def _unpack(stream: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(f"<{form}", _take(stream, struct.calcsize(f"<{form}")))


def _take(stream: BinaryIO, length: int) -> bytes:
    taken = stream.read(_plausible(length))
    if len(taken) < length:
        raise _CutOff
    return taken


def _bytes(tensor: GgufTensor) -> int:
    """Bytes of a tensor; 0 where its type is not known, which the loader then refuses by name."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.kind)]
    except (ValueError, KeyError):
        return 0
    return int(prod(tensor.shape) // block * size)
