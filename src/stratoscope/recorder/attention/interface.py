"""Attention of models that look their attention function up: a wrapper stands in for it and sees what it is given."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, NoReturn

import torch
from torch import nn

from stratoscope.errors import ModelError
from stratoscope.recorder.attention.given import WITHOUT, GivenScores, GivenWeights

OBSERVABLE = ("sdpa", "eager")
_SINKS = ("s_aux", "sinks")  # what attention functions call a learned sink


class InterfaceAttention:
    """While open, `receive` gets each attention once the model's own function has answered; nothing is changed.

    The functions are those of transformers' `AttentionInterface`.

    Parameters
    ----------
    modules
        The model's modules.
    watching
        Whether a call by this module is to be observed.
    receive
        Called with the module and its attention.
    """

    def __init__(
        self,
        modules: Iterable[nn.Module],
        watching: Callable[[nn.Module], bool],
        receive: Callable[[nn.Module, GivenScores | GivenWeights], None],
    ) -> None:
        self._watching, self._receive = watching, receive
        homes = {type(module).__module__ for module in modules}
        found = [getattr(sys.modules.get(home), "ALL_ATTENTION_FUNCTIONS", None) for home in sorted(homes)]
        self._interfaces = list({id(one): one for one in found if one is not None}.values())  # nearly always just one
        self._open = ExitStack()

    def __bool__(self) -> bool:
        return bool(self._interfaces)

    def __enter__(self) -> InterfaceAttention:
        with ExitStack() as stack:
            for interface in self._interfaces:
                for name in OBSERVABLE:
                    self._stand_in(stack, interface, name)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._open.close()

    def _stand_in(self, stack: ExitStack, interface: Any, name: str) -> None:
        """Put a wrapper where the model looks up the attention function `name`, and take it off with the stack."""
        local = interface._local_mapping.get(name)
        original = interface.get(name)

        def observed(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            # "eager" is not in the interface: each model has its own, beside its attention class
            function = original or _eager(module)
            answer = function(module, *args, **kwargs)
            if self._watching(module):
                self._receive(module, _given(module, args, kwargs, answer))
            return answer

        def restore() -> None:
            if local is None:
                del interface[name]
            else:
                interface[name] = local

        interface[name] = observed
        stack.callback(restore)


def _given(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], answer: Any
) -> GivenScores | GivenWeights:
    """What the attention function got and gave."""
    given = dict(zip(("query", "key", "value", "attention_mask"), args, strict=False)) | dict(kwargs)
    query, key, value, mask = (given.get(name) for name in ("query", "key", "value", "attention_mask"))
    if mask is not None and (mask.ndim != 4 or not (mask.dtype == torch.bool or mask.is_floating_point())):
        _refuse(module, f"an attention mask of shape {tuple(mask.shape)} and {mask.dtype}")
    if query is None or key is None or value is None or answer[0].ndim != 4:
        _refuse(module, "an attention function that is called in a way of its own")
    sink = any(given.get(name) is not None for name in _SINKS)
    output, weights = answer[0].transpose(1, 2), answer[1]
    if weights is not None:
        return GivenWeights(weights, mask, sink, key, value, output, answer[0], by_token=True)
    if sink:
        _refuse(module, "sdpa ignores this model's learned attention sinks")
    causal = given.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    causal = bool(causal) and query.shape[2] > 1
    scaling, bias = given.get("scaling"), given.get("position_bias")
    return GivenScores(query, key, value, mask, causal, scaling, bias, output, answer[0], by_token=True)


def _refuse(module: nn.Module, what: str) -> NoReturn:
    raise ModelError(what, where=type(module).__name__, fix=WITHOUT)


def _eager(module: nn.Module) -> Callable[..., Any]:
    function = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    if function is None:
        _refuse(module, "its own attention function was not found")
    return function  # type: ignore[no-any-return]
