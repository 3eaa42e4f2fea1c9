"""Hooks of forwards that are differentiated: what passes a site, and the gradient that a backward brings there."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.errors import CaptureError
from stratoscope.model.experts import Routed
from stratoscope.model.hooks import BlockHooks, ExpertsHooks, ModuleHooks, stand_in
from stratoscope.model.sites import Site


class GradientHooks:
    """While open, a forward begins a graph in front of the first block, and its backwards are seen at sites.

    Parameters
    ----------
    model
        The model.
    start
        The sites of the first block's input and output.
    sites
        Where gradients are read: every tensor there gets a hook of its own, which goes with the forward's graph.
    experts
        Name to experts module, whose chosen neurons are read too.
    receive
        Called in every backward with a site, or the name of an experts module and what its call was, and the gradient
        that arrived there, in the tensor's own shape; of experts [token × choice, width], in the order of its rows.
    """

    def __init__(
        self,
        model: nn.Module,
        start: tuple[Site, Site],
        sites: Sequence[Site],
        experts: Mapping[str, nn.Module],
        receive: Callable[[Site | str, Tensor | Routed, Tensor], None],
    ) -> None:
        self._sites, self._receive = tuple(sites), receive
        self._start = BlockHooks(model, [start], enter=self._enter, leave=lambda *_: None)
        self._experts = ExpertsHooks(experts, self._routed)
        self._at: dict[str, defaultdict[str, list[Site]]] = {"input": defaultdict(list), "output": defaultdict(list)}
        for site in sites:
            self._at[site.side][site.module].append(site)
        modules = {side: {path: model.get_submodule(path) for path in at} for side, at in self._at.items()}
        self._inputs = ModuleHooks(modules["input"], before=self._before, after=None)
        self._outputs = ModuleHooks(modules["output"], before=None, after=self._after)
        self._seen: Counter[Site] = Counter()
        self._values: dict[Site, Tensor] = {}
        self._calls: dict[str, Routed] = {}
        self._parts: defaultdict[str, dict[int, Tensor]] = defaultdict(dict)
        self._forwarding = False
        self._keeps = True
        self.leaf: Tensor | None = None  # what went into the first block
        self._open = ExitStack()

    def __enter__(self) -> GradientHooks:
        with ExitStack() as stack:
            stack.callback(self.forget)
            for hooks in (self._start, self._experts, self._inputs, self._outputs):
                stack.enter_context(hooks)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._open.close()

    @contextmanager
    def forward(self, *, keeps: bool) -> Iterator[None]:
        """Around the forward; without `keeps`, tensors are taken when blocks are computed again in a backward.

        Raises
        ------
        CaptureError
            The forward did not pass every site, or call all experts, exactly once.
        """
        self.forget()
        self._forwarding, self._keeps = True, keeps
        try:
            yield
        finally:
            self._forwarding = False
        self._experts.expect_once()
        for site in self._sites:
            if self._seen[site] != 1:
                raise CaptureError(
                    f"the model computed it {self._seen[site]} times in one forward instead of once",
                    where=str(site),
                    fix="The model runs differently from when its sites were found; nothing of this batch was kept.",
                )

    def forget(self) -> None:
        """Let go of all tensors."""
        self._seen.clear()
        self._values.clear()
        self._calls.clear()
        self._parts.clear()
        self._experts.forget()
        self.leaf = None

    def _enter(self, number: int, rows: Tensor) -> Tensor | None:
        if not self._forwarding:
            return None
        self.leaf = rows.detach().requires_grad_()
        return self.leaf

    def _before(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        for site in self._at["input"][name]:
            self._passed(site, site.tensor(args, kwargs))

    def _after(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        for site in self._at["output"][name]:
            self._passed(site, site.tensor(args, kwargs, output))

    def _passed(self, site: Site, tensor: Tensor) -> None:
        if self._keeps or site.side == "output" or not self._forwarding:
            self._values[site] = tensor.detach()
        self._seen[site] += self._forwarding
        if self._forwarding and tensor.requires_grad:
            tensor.register_hook(partial(self._arrived, site))  # type: ignore[no-untyped-call]

    def _arrived(self, site: Site, gradient: Tensor) -> None:
        kept = self._keeps or site.side == "output"  # gradients of outputs arrive before a block is computed again
        self._receive(site, self._values[site] if kept else self._values.pop(site), gradient)

    def _routed(self, name: str, call: Routed) -> None:
        if self._keeps or not self._forwarding:
            whole = call.rows.detach()
            self._calls[name] = replace(call, rows=whole, weights=call.weights.detach(), output=whole[:0], parts=())
        if self._forwarding:
            for number, part in enumerate(call.parts):
                if part.requires_grad:
                    arrived = partial(self._part_arrived, name, number, len(call.parts))
                    part.register_hook(arrived)  # type: ignore[no-untyped-call]

    def _part_arrived(self, name: str, number: int, count: int, gradient: Tensor) -> None:
        parts = self._parts[name]
        parts[number] = gradient
        if len(parts) == count:
            together = [parts[place] for place in range(count)]
            parts.clear()
            self._receive(name, self._calls[name], together[0] if len(together) == 1 else torch.cat(together))


class ForwardHooks:
    """While open, a function is called around the forward of every given module, hooks on the module left outside.

    Parameters
    ----------
    modules
        Name to module.
    around
        Called with the name, the module's own forward, and positional and keyword arguments; gives what the module is
        to give.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        around: Callable[[str, Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], Any],
    ) -> None:
        self._modules, self._around = modules, around
        self._open = ExitStack()

    def __enter__(self) -> ForwardHooks:
        with ExitStack() as stack:
            for name, module in self._modules.items():
                self._put(stack, name, module)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._open.close()

    def _put(self, stack: ExitStack, name: str, module: Any) -> None:
        original = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            return self._around(name, original, args, kwargs)

        stand_in(stack, module, "forward", forward)
