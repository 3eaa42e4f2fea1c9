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


@dataclass(frozen=True)
class Tail:
    """What was called outside the blocks after the last one, in the order in which it ended, and the model's logits."""

    calls: tuple[Call, ...]
    logits: Tensor | None


def probe(model: nn.Module, blocks: str, input_ids: Tensor, receive: Callable[[int, BlockCall], None]) -> Tail:
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
    modules = {path: module for path, module in model.named_modules() if path}
    outside = {path for path in modules if not path.startswith(f"{blocks}.")}
    started: list[tuple[Tensor | None, Key] | None] = []
    ended: list[Call] = []
    to_come = set(number.values())

    def before(path: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if path in number:
            ended.clear()
        kept = path not in outside or not to_come
        started.append(_first_tensor([*enumerate(args), *kwargs.items()]) if kept else None)

    def after(path: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        begun = started.pop()
        if begun is None:
            return
        (x, x_key), (y, y_key) = begun, _first_output(output)
        if x is not None and y is not None:
            x = x.to(y.device)  # what comes from another device is taken where the module computes
        call = Call(path, x, x_key, y, y_key)
        if path in number:
            receive(number[path], BlockCall(call, tuple(ended)))
            ended.clear()
            to_come.discard(number[path])
        else:
            ended.append(call)

    with torch.no_grad(), ModuleHooks(modules, before=before, after=after):
        output = model(input_ids=input_ids, use_cache=False)
    return Tail(tuple(ended), getattr(output, "logits", None))


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
