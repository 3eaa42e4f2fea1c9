"""Checkpoints with quantised weights: dequantised where the forward uses those floats, else refused by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stratoscope.errors import ModelError
from stratoscope.model.files import ModelFiles

_ROUNDED = "its own 8-bit kernels would also round what goes into each layer, which was not done here"
_UNPACKED = {  # methods that transformers unpacks into floats while loading, and what their own kernels do besides
    "fp8": _ROUNDED,
    "mxfp8": _ROUNDED,
    "mxfp4": "",
}
_GGUF_FLOATS = ("F32", "F16", "BF16")
_KERNELS = "its kernels compute with packed weights, so what would be recorded is not what it does"
_FIX = "Use the unquantised model, or a GGUF file"
_SCALE = "_scale_inv"  # the grid of scales of an 8-bit weight is stored under the weight's name with this


def unpack(config: Any, files: ModelFiles) -> tuple[str, str]:
    """Ask for float weights, and say in words how they were stored, and what the model's own kernels do besides.

    Parameters
    ----------
    config
        The model's configuration; told to dequantise where it is quantised.
    files
        Its files.

    Raises
    ------
    ModelError
        It can only run with packed weights, or would be unpacked wrongly.
    """
    for holder in (config, config.get_text_config()):
        stored = getattr(holder, "quantization_config", None)
        if stored is None:
            continue
        told = dict(stored if isinstance(stored, Mapping) else stored.to_dict())
        method = _method(told)
        if method not in _UNPACKED:
            what = f"its weights are quantised ({method or 'unknown method'}): {_KERNELS}"
            raise ModelError(what, where=files.name, fix=_FIX)
        if method in ("fp8", "mxfp8"):
            _refuse_ragged_blocks(files, told.get("weight_block_size") or (1, 1))
        holder.quantization_config = {**told, "dequantize": True}
        return f"{method}, dequantised", _UNPACKED[method]
    return "", ""


def gguf_words(files: ModelFiles) -> str:
    """How the weights of a GGUF file are stored, in words."""
    from gguf import LlamaFileType
    from transformers.integrations.gguf.reader import read_gguf_metadata

    metadata, _ = read_gguf_metadata(str(files.weights[0]))
    try:
        stored = LlamaFileType(int(metadata["general.file_type"])).name
    except (KeyError, ValueError):
        return "GGUF, dequantised"
    kind = stored.removeprefix("MOSTLY_").removeprefix("ALL_")
    return f"GGUF {kind}" if kind in _GGUF_FLOATS else f"GGUF {kind}, dequantised"


def _method(told: Mapping[str, Any]) -> str:
    if told.get("load_in_4bit") or told.get("load_in_8bit"):
        return "bitsandbytes"
    return str(getattr(told.get("quant_method", ""), "value", told.get("quant_method", "")))


def _refuse_ragged_blocks(files: ModelFiles, block: tuple[int, int]) -> None:
    """Refuse weights whose last block is cut off: transformers spreads their scales evenly, over wrong blocks."""
    shapes = {name: shape for path in files.weights for name, shape in _shapes(path).items()}
    for name, scales in shapes.items():
        weight = shapes.get(name.removesuffix(_SCALE), ()) if name.endswith(_SCALE) else ()
        for rows, parts, size in zip(weight[-2:], scales[-2:], block, strict=False):
            if parts > 1 and rows != parts * size:
                raise ModelError(
                    f"the weight {name.removesuffix(_SCALE)} of shape {tuple(weight)} is not made of whole blocks of "
                    f"{size}, and transformers would unpack it wrongly",
                    where=files.name,
                    fix=_FIX,
                )


def _shapes(path: Any) -> dict[str, list[int]]:
    """Name to shape of each tensor of a safetensors file, from its header; of any other file nothing."""
    if path.suffix != ".safetensors":
        return {}
    with path.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
