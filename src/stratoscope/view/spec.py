"""`ViewSpec`: a picture as data (JSON and named little-endian buffers), complete, so that a renderer computes no statistic."""  # noqa: E501

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.errors import ascii_json
from stratoscope.trace.notes import Note, notes_of
from stratoscope.version import __version__

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Note", "Provenance", "ViewSpec", "notes_of", "provenance_of", "public_name"]

SPEC_VERSION = "1.0"
_MAGIC = b"stratoscope-view\n"
_LONGEST_LINE = 400  # characters of a receipt in a footer


@dataclass(frozen=True)
class Provenance:
    """Where the numbers come from; no path, user or machine name is ever part of it."""

    uuid: str = ""
    source: str = ""  # one of names.SOURCES; "" = the data do not say
    model: str = ""
    receipt: str = ""
    software: str = f"stratoscope {__version__}"


@dataclass(frozen=True)
class ViewSpec:
    """A picture as data.

    Attributes
    ----------
    kind
        "heatmap", "engagement" or "peaks3d".
    title, subtitle
        Words above the picture.
    content
        What is drawn, JSON-able: panels, scales, limits, labels. Arrays are named here and held in `buffers`.
    buffers
        Arrays by name.
    notes, provenance
        What every renderer writes in the footer and stores in the file.
    facts
        How the numbers became a picture (scale, limits, pooling, what was left out), JSON-able; stored in the file.
    """

    kind: str
    title: str
    subtitle: str
    content: Mapping[str, Any]
    buffers: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def metadata(self) -> dict[str, Any]:
        """What a file of this picture says about itself, under the key `stratoscope`."""
        return {
            "view_version": SPEC_VERSION,
            "kind": self.kind,
            "title": self.title,
            "subtitle": self.subtitle,
            "facts": dict(self.facts),
            "notes": [asdict(note) for note in self.notes],
            "provenance": asdict(self.provenance),
        }

    def to_json(self) -> str:
        """`metadata` and `content` as one line of JSON; equal specs give equal text."""
        return _compact(self.metadata() | {"content": dict(self.content)})

    def metadata_json(self) -> str:
        """`metadata` as one line of JSON."""
        return _compact(self.metadata())

    def to_bytes(self) -> bytes:
        """The whole spec: a header line, the JSON's length and text, then the buffers, little-endian, 8-byte aligned."""  # noqa: E501
        arrays = {name: _little_endian(array) for name, array in sorted(self.buffers.items())}
        index, offset = {}, 0
        for name, array in arrays.items():
            index[name] = {"dtype": array.dtype.str, "shape": list(array.shape), "offset": offset}
            offset += -(-array.nbytes // 8) * 8
        document = json.loads(self.to_json()) | {"buffers": index}
        text = _compact(document).encode()
        text += b" " * (-(len(_MAGIC) + 8 + len(text)) % 8)
        body = b"".join(array.tobytes() + bytes(-array.nbytes % 8) for array in arrays.values())
        return _MAGIC + len(text).to_bytes(8, "little") + text + body

    @classmethod
    def from_bytes(cls, data: bytes) -> ViewSpec:
        """The spec that `to_bytes` wrote."""
        if not data.startswith(_MAGIC):
            raise ValueError("these bytes are no ViewSpec")
        start = len(_MAGIC) + 8
        length = int.from_bytes(data[len(_MAGIC) : start], "little")
        document = json.loads(data[start : start + length].decode())
        buffers = {
            name: np.frombuffer(
                data, entry["dtype"], int(np.prod(entry["shape"])), start + length + entry["offset"]
            ).reshape(entry["shape"])
            for name, entry in document["buffers"].items()
        }
        return cls(
            document["kind"],
            document["title"],
            document["subtitle"],
            document["content"],
            buffers,
            tuple(Note(**note) for note in document["notes"]),
            Provenance(**document["provenance"]),
            document["facts"],
        )


def provenance_of(dataset: xr.Dataset) -> Provenance:
    """The provenance of a picture of `dataset`."""
    attrs = dataset.attrs
    model = attrs.get("model") or {}
    receipt = attrs.get("receipt") or {}
    return Provenance(
        uuid=str(attrs.get("uuid", "")),
        source=str(attrs.get("source", "")),
        model="" if attrs.get("source") == names.SIMULATED else public_name(str(model.get("name", ""))),
        receipt=_one_line(receipt.get("receipt_line", "")),
    )


def public_name(name: str) -> str:
    """A model's name without the folders it lay in; a hub name such as `org/model` stays whole."""
    local = name.startswith(("/", ".", "~")) or "\\" in name or name[1:2] == ":" or name.count("/") > 1
    return PureWindowsPath(PurePosixPath(name).name).name if local else name


def _little_endian(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def _compact(document: Mapping[str, Any]) -> str:
    return ascii_json(document, separators=(",", ":"), sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    """NumPy scalars and arrays as JSON-able Python."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be part of a ViewSpec")


def _one_line(text: object) -> str:
    """A stranger's line for a footer: nothing that is not printed, and no longer than a footer can hold."""
    line = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(text))
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"
