"""What a model must be to be recorded: itself, with float weights. Everything that hides this is refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.errors import InputError, ModelError

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_PACKED_BUFFERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.uint32)  # as qweight and qzeros of GPTQ


def refuse_unless_plain(model: Any, where: str) -> None:
    """Check what can be seen without running the model.

    Parameters
    ----------
    model
        A module.
    where
        Its name, for the error.

    Raises
    ------
    InputError
        It is wrapped, compiled, or in training mode.
    ModelError
        Some of its weights are packed, an adapter is not merged, or layers share one module.
    """
    _refuse_wrapped(model, where)
    training = next((path for path, part in model.named_modules() if part.training), None)
    if training is not None:
        what = f"{training or 'the model'} is in training mode"
        raise InputError(what, where=where, fix="Call model.eval() first.")
    for check in (_adapter, _packed, _shared):
        if problem := next(check(model), None):
            what, fix = problem
            raise ModelError(what, where=where, fix=fix)


def _refuse_wrapped(model: Any, where: str) -> None:
    compiled = hasattr(model, "_orig_mod") or any(part._compiled_call_impl is not None for part in model.modules())
    if compiled:
        raise InputError("is compiled, so not all of it can be observed", where=where, fix="Give it uncompiled.")
    inner = getattr(model, "module", None)
    if isinstance(inner, nn.Module) and hasattr(inner, "config"):
        raise InputError(f"wraps a {type(inner).__name__}", where=where, fix="Give the model inside it: model.module.")
    if not hasattr(getattr(model, "config", None), "get_text_config"):
        raise InputError("is not a Hugging Face model", where=where, fix="Load it with transformers.")


def _adapter(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Low-rank and other adapters of peft, whose weights are beside those that would be recorded."""
    for path, part in model.named_modules():
        if type(part).__module__.split(".")[0] == "peft":
            yield (
                f"has an adapter that is not merged ({type(part).__name__}, {path or 'around it'})",
                ("Give what model.merge_and_unload() returns."),
            )


def _packed(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Weights that are not numbers of the forward themselves: packed integers, 8-bit floats, tensor subclasses."""
    for path, part in model.named_modules():
        own = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
        for name, tensor in own:
            kind = _packing(tensor)
            if kind:
                weight = f"{path}.{name}".lstrip(".")
                yield (
                    f"the weight {weight} of a {type(part).__name__} is packed ({kind}), not float",
                    ("Use the unquantised model, or a GGUF file."),
                )


def _packing(tensor: Tensor) -> str:
    """How a tensor is packed; empty where it holds plain numbers."""
    if hasattr(tensor, "__tensor_flatten__"):  # torchao and the like: a subclass that stands for several tensors
        return type(tensor).__name__
    stored = str(tensor.dtype).removeprefix("torch.")
    if isinstance(tensor, nn.Parameter):
        return "" if tensor.dtype in FLOATS else stored
    is_small_float = tensor.dtype.is_floating_point and tensor.dtype.itemsize == 1
    return stored if is_small_float or (tensor.dtype in _PACKED_BUFFERS and tensor.ndim == 2) else ""


def _shared(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Lists of layers in which one module stands several times, so that its calls cannot be told apart."""
    for path, part in model.named_modules():
        layers: list[nn.Module] = list(part) if isinstance(part, nn.ModuleList) else []
        for number, layer in enumerate(layers):
            first = layers.index(layer)
            if first < number:
                yield f"layers {first} and {number} of {path} are one module", "Give each layer a module of its own."
