"""Checkpoints with quantised weights: dequantised where the forward uses those floats, else refused by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod
from typing import Any

from stratoscope.errors import ModelError
from stratoscope.model.files.checkpoint import Unused
from stratoscope.model.files.contents import stored_tensors
from stratoscope.model.files.model_files import ModelFiles
from stratoscope.model.gguf.file import GgufFile

_ROUNDED = "the model's own 8-bit kernels would also round what goes into each layer, which was not done here"
_UNPACKED = {  # methods that transformers unpacks into floats while loading, and what their own kernels do besides
    "fp8": _ROUNDED,
    "mxfp8": _ROUNDED,
    "mxfp4": "",
}
_BLOCKS = ("fp8", "mxfp8")
_GGUF_FLOATS = ("F32", "F16", "BF16")
_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_HELD_BY = {  # dtypes that hold every number of a stored dtype
    "F64": ("float64",),
    "F32": ("float32", "float64"),
    "F16": ("float16", "float32", "float64"),
    "BF16": ("bfloat16", "float32", "float64"),
}
_KERNELS = "its kernels compute with packed weights, so what would be recorded is not what it does"
_FIX = "Use the unquantised model, or a GGUF file."


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
        It can only run with packed weights.
    """
    for holder in (config, config.get_text_config()):
        stored = getattr(holder, "quantization_config", None)
        if stored is None:
            continue
        if not stored:
            del holder.quantization_config  # an empty one says nothing, and transformers fails on it
            continue
        settings = dict(stored if isinstance(stored, Mapping) else stored.to_dict())
        method = _method(settings)
        if method not in _UNPACKED:
            what = f"its weights are quantised ({method or 'unknown method'}): {_KERNELS}"
            raise ModelError(what, where=files.name, fix=_FIX)
        holder.quantization_config = {**settings, "dequantize": True}
        return f"{method}, dequantised", _UNPACKED[method]
    return "", ""


def refuse_packed(model: Any, files: ModelFiles, unused: Collection[str]) -> None:
    """Refuse integers and 8-bit floats in the place of weights, of a model that says nothing of how to unpack them.

    Raises
    ------
    ModelError
        Such numbers were taken for the weights themselves.
    """
    whole = [name for name, tensor in model.state_dict().items() if not tensor.is_floating_point()]
    for path in files.weights:
        for name, tensor in stored_tensors(path, files.name).items():
            if tensor.dtype in _NAMES or tensor.dtype == "C64":
                continue
            if any(_same(name, other) for other in (*whole, *unused)):
                continue
            what = (
                f"weights stored as {tensor.dtype} without a scale, such as {name}, which config.json says nothing of"
            )
            raise ModelError(what, where=files.name, fix=_FIX)


def _same(stored: str, name: str) -> bool:
    """Whether a name of a file and one of the model are the same but for what is before them."""
    return f".{stored}".endswith(f".{name}") or f".{name}".endswith(f".{stored}")


def block_of(config: Any) -> tuple[int, int]:
    """The size of the blocks that share a scale, in an 8-bit model."""
    for holder in (config, config.get_text_config()):
        stored = getattr(holder, "quantization_config", None)
        if isinstance(stored, Mapping) and _method(stored) in _BLOCKS:
            size = stored.get("weight_block_size") or (1, 1)
            return int(size[0]), int(size[1])
    return 1, 1


def gguf_words(file: GgufFile) -> str:
    """How the weights of a GGUF file are stored, in words."""
    from gguf import LlamaFileType

    try:
        stored = LlamaFileType(file.settings["general.file_type"]).name
    except (KeyError, ValueError):
        return "GGUF, dequantised"
    kind = stored.removeprefix("MOSTLY_").removeprefix("ALL_")
    return f"GGUF {kind}" if kind in _GGUF_FLOATS else f"GGUF {kind}, dequantised"


def rounded(files: ModelFiles, model: Any) -> tuple[Unused, ...]:
    """What is not used of the weights where the configuration's dtype cannot hold what most are stored as."""
    sizes: dict[str, int] = {}
    for path in files.weights:
        for tensor in stored_tensors(path, files.name).values():
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + prod(tensor.shape)
    stored = max(sizes, key=lambda dtype: sizes[dtype], default="")
    now = str(model.dtype).removeprefix("torch.")
    if stored not in _HELD_BY or now in _HELD_BY[stored]:
        return ()
    name = _NAMES[stored]
    text = f"Weights stored as {name} were rounded to {now}, as config.json says: --dtype {name} keeps them."
    return (Unused(text, differs=True),)


def _method(settings: Mapping[str, Any]) -> str:
    if settings.get("load_in_4bit") or settings.get("load_in_8bit"):
        return "bitsandbytes"
    return str(getattr(settings.get("quant_method", ""), "value", settings.get("quant_method", "")))
