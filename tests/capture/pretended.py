"""An accelerator that a CPU only pretends to have: real numbers, several devices, and the habits of a fast one.

Tensors on it compute what they would on the CPU, but an operation that mixes devices is refused, memory is never shared
with NumPy, and a copy to the host that need not be waited for arrives only when somebody waits. Everything for which
the host would have to wait is counted. Import this in a process of its own: torch cannot forget a device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

_TYPE = "pretend"
# whose result's size, or number, the host must know: CUDA waits for each of them
_WAITS = {"_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "bincount", "_linalg_check_errors"}
_WAITS |= {"_unique", "_unique2", "unique_dim", "unique_consecutive"}
_VIEWS = {"view", "_unsafe_view", "_reshape_alias", "alias", "detach", "as_strided", "lift_fresh", "slice", "select"}
_VIEWS |= {"t", "transpose", "permute", "expand", "unsqueeze", "squeeze", "diagonal", "unbind", "split", "narrow"}
_BY_INDEX = {"index", "index_put", "index_put_", "_index_put_impl_"}


class PretendedTensor(Tensor):
    """A tensor that says it is on a pretended device; `inner` holds its numbers."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor, device: torch.device) -> PretendedTensor:
        """Put numbers on a device."""
        made: PretendedTensor = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=device,
        )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # results are made by `_run` alone

    def tolist(self) -> Any:
        """Torch has none for tensors like this."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Outside of a mode nothing is counted."""
        return _run(func, args, kwargs or {})


class _Module(_DummyBackendModule):
    """What `torch.cuda` is to a CUDA device; nothing random happens on a pretended one."""

    def get_rng_state(self, device: Any) -> Tensor:
        return torch.zeros(1, dtype=torch.uint8)

    def set_rng_state(self, state: Tensor, device: Any) -> None:
        pass


def pretend_devices() -> None:
    """Make torch believe in the devices pretend:0, pretend:1, …"""
    _setup_privateuseone_for_python_backend(_TYPE, backend_module=_Module())
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device=…) then copies, as it does to any accelerator
    torch.accelerator.synchronize = lambda device=None: _arrive()  # type: ignore[assignment]


def device(number: int) -> torch.device:
    """One of them."""
    return torch.device(_TYPE, number)


def put(model: Any, *places: torch.device) -> Any:
    """The model with its blocks spread over the devices, all else on the first; it moves what passes between them."""
    blocks = next(part for part in model.modules() if isinstance(part, torch.nn.ModuleList))
    where = dict.fromkeys(model.modules(), places[0])
    for number, block in enumerate(blocks):
        where |= dict.fromkeys(block.modules(), places[number * len(places) // len(blocks)])
    inside = {part for block in blocks for part in block.modules()} - {*blocks}
    for module, place in where.items():
        weights, buffers = [*module.named_parameters(recurse=False)], [*module.named_buffers(recurse=False)]
        for name, weight in weights:
            module._parameters[name] = torch.nn.Parameter(PretendedTensor(weight.data, place), requires_grad=False)
        for name, buffer in buffers:
            module._buffers[name] = PretendedTensor(buffer, place)
        if len(places) > 1 and module not in inside and (weights or module in {*blocks}):
            module.register_forward_pre_hook(_moved(place), with_kwargs=True)
    return model


def _moved(place: torch.device) -> Any:
    def moved(one: Any) -> Any:
        return one.to(place) if isinstance(one, PretendedTensor) and one.device != place else one

    def move(_: Any, args: Any, kwargs: Any) -> Any:
        return tree_map(moved, (args, kwargs))

    return move


class Watch(TorchDispatchMode):
    """While open, torch makes tensors where it is told to, and what is computed is counted by name.

    Attributes
    ----------
    waits
        For what the host had to wait.
    operators, views
        What else was computed, and what only looked at the same numbers in another way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.operators: Counter[str] = Counter()
        self.views: Counter[str] = Counter()
        self._counting = False

    @contextmanager
    def counting(self) -> Iterator[Watch]:
        """Count from nothing."""
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def start(self) -> None:
        """Count from nothing."""
        self.waits, self.operators, self.views = Counter(), Counter(), Counter()
        self._counting = True

    def stop(self) -> None:
        """Count no longer."""
        self._counting = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count, then compute."""
        kwargs = kwargs or {}
        if self._counting:
            name = func.overloadpacket.__name__
            if why := _why_waiting(name, args, kwargs):
                self.waits[why] += 1
            (self.views if name in _VIEWS else self.operators)[name] += 1
        return _run(func, args, kwargs)


_on_their_way: list[tuple[Tensor, Tensor]] = []  # to the host: where to, and what


def _arrive() -> None:
    for target, values in _on_their_way:
        target.copy_(values)
    _on_their_way.clear()


def _why_waiting(name: str, args: Any, kwargs: Any) -> str:
    """What the host waits for; empty where it goes on at once."""
    flat = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
    ours = [one for one in flat if isinstance(one, PretendedTensor)]
    hurry = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
    if name == "_to_copy":
        target = kwargs.get("device")
        crosses = target is not None and torch.device(target).type != args[0].device.type
        return f"{name} {args[0].device.type} to {torch.device(target).type}" if crosses and not hurry else ""
    if name == "copy_":
        to, of = args[0].device.type, args[1].device.type
        return f"{name} {of} to {to}" if to != of and not hurry else ""
    if not ours:
        return ""
    if name in _WAITS:
        return name
    if name in _BY_INDEX:
        given = [one for one in args[1] if one is not None]
        if any(one.dtype in (torch.bool, torch.uint8) for one in given):
            return f"{name} by a mask"
        if any(not isinstance(one, PretendedTensor) for one in given):
            return f"{name} by numbers of the host"
    if name == "repeat_interleave" and kwargs.get("output_size") is None:
        return name
    return ""


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    name = func.overloadpacket.__name__
    flat = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
    places = {one.device for one in flat if isinstance(one, PretendedTensor)}
    asked = kwargs.get("device")
    asked = None if asked is None else torch.device(asked)
    if name == "copy_":
        return _copied(*args, **kwargs)
    if name != "_to_copy" and places:
        strangers = [one for one in flat if one.ndim and one.device not in places]
        if len(places) > 1 or (strangers and name not in _BY_INDEX):
            raise RuntimeError(f"{name} mixes devices: {sorted({str(one.device) for one in flat})}")
    place = asked or next(iter(places), torch.device("cpu"))
    inner_args, inner_kwargs = tree_map(_inner, (args, kwargs))
    if "device" in inner_kwargs and inner_kwargs["device"] is not None:
        inner_kwargs["device"] = torch.device("cpu") if place.type == _TYPE else place
    inner_kwargs.pop("pin_memory", None)
    if name == "_to_copy" and asked is not None and places and asked not in places:
        if asked.type != _TYPE:
            _arrive()
        given = inner_kwargs.pop("device")
        result = func(*inner_args, **inner_kwargs, device=given)
        result = result.clone() if result is inner_args[0] else result
        return PretendedTensor(result, place) if place.type == _TYPE else result
    if name in _WAITS and places:
        _arrive()
    if name == "histc" and not inner_args[0].is_floating_point():  # which CUDA can and the CPU cannot
        inner_args = (inner_args[0].double(), *inner_args[1:])
    result = func(*inner_args, **inner_kwargs)
    if name == "histc":
        result = result.to(args[0].dtype)
    if place.type != _TYPE:
        return result
    result = tree_map(lambda one: PretendedTensor(one, place) if isinstance(one, Tensor) else one, result)
    return return_and_correct_aliasing(func, args, kwargs, result) if places else result


def _copied(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    values = _inner(source)
    if isinstance(source, PretendedTensor) and not isinstance(target, PretendedTensor):
        if non_blocking:
            target.fill_(-77 if target.dtype != torch.uint8 else 77)  # nobody may look at it yet
            _on_their_way.append((target, values.clone()))
            return target
        _arrive()
    _inner(target).copy_(values)
    return target


def _inner(one: Any) -> Any:
    return one.inner if isinstance(one, PretendedTensor) else one
