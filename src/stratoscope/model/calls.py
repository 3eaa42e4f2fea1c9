"""One probe forward, written down: every module call inside the blocks, with copies of what went in and came out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.model.hooks import ModuleHooks

Key = int | str | None


@dataclass(frozen=True)
class Call:
    """One call of a module.

    Attributes
    ----------
    path
        Path of the module in the model.
    x, x_key
        Copy of the first floating-point tensor among the arguments (None: there is none), and where it stands.
    y, y_key
        The same of the output.
    """

    path: str
    x: Tensor | None
    x_key: Key
    y: Tensor | None
    y_key: Key


@dataclass(frozen=True)
class BlockCall:
    """One call of a block, with the calls inside it in the order in which they ended."""

    call: Call
    inner: tuple[Call, ...]


def probe(model: nn.Module, blocks: str, input_ids: Tensor, receive: Callable[[int, BlockCall], None]) -> None:
    """Run the model once and hand over each call of a block; only one block's copies are alive at a time.

    Parameters
    ----------
    blocks
        Path of the list of blocks.
    input_ids
        Integer, shape (1, tokens).
    receive
        Called with the block's number and its calls when the block ends.
    """
    number = {f"{blocks}.{index}": index for index in range(len(model.get_submodule(blocks)))}  # type: ignore[arg-type]
    inside = {path: module for path, module in model.named_modules() if path.startswith(f"{blocks}.")}
    started: list[tuple[Tensor | None, Key]] = []
    ended: list[Call] = []

    def before(path: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if path in number:
            ended.clear()
        started.append(_first_tensor([*enumerate(args), *kwargs.items()]))

    def after(path: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        (x, x_key), (y, y_key) = started.pop(), _first_output(output)
        if x is not None and y is not None:
            x = x.to(y.device)  # what comes from another device is taken where the module computes
        call = Call(path, x, x_key, y, y_key)
        if path in number:
            receive(number[path], BlockCall(call, tuple(ended)))
            ended.clear()
        else:
            ended.append(call)

    with torch.no_grad(), ModuleHooks(inside, before=before, after=after):
        model(input_ids=input_ids, use_cache=False)


def _first_tensor(items: Iterable[tuple[Any, Any]]) -> tuple[Tensor | None, Key]:
    for key, value in items:
        if isinstance(value, Tensor) and value.is_floating_point() and value.ndim >= 2:
            return value.detach().clone(), key
    return None, None


def _first_output(output: Any) -> tuple[Tensor | None, Key]:
    if isinstance(output, Tensor):
        return _first_tensor([(None, output)])
    if isinstance(output, Mapping):
        return _first_tensor(output.items())
    return _first_tensor(enumerate(output)) if isinstance(output, (tuple, list)) else (None, None)


def same(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two tensors hold the same numbers in the same order, however their leading axes are shaped."""
    if one is None or other is None or one.numel() != other.numel() or one.dtype != other.dtype:
        return False
    return torch.equal(one.reshape(-1), other.reshape(-1).to(one.device))
