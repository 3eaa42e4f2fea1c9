"""The only place that puts hooks on a torch model: opened together, all removed whatever happens."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.errors import CaptureError
from stratoscope.model.experts import Routed, chosen, implementation_of
from stratoscope.model.sites import Site

Before = Callable[[str, tuple[Any, ...], Mapping[str, Any]], None]
After = Callable[[str, tuple[Any, ...], Mapping[str, Any], Any], None]


def stand_in(stack: ExitStack, module: nn.Module, method: str, function: Callable[..., Any]) -> None:
    """Have a function called in the place of a method of one module, until the stack closes."""
    original, own = getattr(module, method), method in vars(module)

    def restore() -> None:
        if own:
            setattr(module, method, original)
        else:
            delattr(module, method)

    setattr(module, method, function)
    stack.callback(restore)


class ModuleHooks:
    """While open, `before` and `after` are called around every call of the given modules.

    Parameters
    ----------
    modules
        Name to module; the callbacks get the name.
    before, after
        Called with the name, positional and keyword arguments, and (after) the output. They change nothing.
    """

    def __init__(self, modules: Mapping[str, nn.Module], *, before: Before | None, after: After | None) -> None:
        self._modules, self._before, self._after = modules, before, after
        self._open = ExitStack()

    def __enter__(self) -> ModuleHooks:
        with ExitStack() as stack:  # a hook that cannot be put on takes the earlier ones off again
            for name, module in self._modules.items():
                self._put(stack, name, module)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._open.close()

    def _put(self, stack: ExitStack, name: str, module: nn.Module) -> None:
        before, after = self._before, self._after
        if before is not None:

            def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                before(name, args, kwargs)

            stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
        if after is not None:

            def leave(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
                after(name, args, kwargs, output)

            stack.callback(module.register_forward_hook(leave, with_kwargs=True).remove)


class SiteHooks:
    """While open, every site's tensor, [rows, width], is given to `receive` when the model computes it."""

    def __init__(self, model: nn.Module, sites: Iterable[Site], receive: Callable[[Site, Tensor], None]) -> None:
        self._sites = tuple(sites)
        self._receive = receive
        self._seen = [0] * len(self._sites)  # how often each was
        self._at: dict[str, defaultdict[str, list[tuple[int, Site]]]] = {
            "input": defaultdict(list),
            "output": defaultdict(list),
        }
        for number, site in enumerate(self._sites):
            self._at[site.side][site.module].append((number, site))
        self._hooks = [
            ModuleHooks(self._modules(model, "input"), before=self._before, after=None),
            ModuleHooks(self._modules(model, "output"), before=None, after=self._after),
        ]
        self._open = ExitStack()

    def __enter__(self) -> SiteHooks:
        with ExitStack() as stack:
            for hooks in self._hooks:
                stack.enter_context(hooks)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._open.close()

    def __len__(self) -> int:
        return len(self._sites)

    def expect_once(self) -> None:
        """Check that one forward passed every site exactly once, and start counting anew.

        Raises
        ------
        CaptureError
            A site was missed or passed twice: what was recorded would not be what happened.
        """
        seen = self._seen
        self.forget()
        for site, times in zip(self._sites, seen, strict=True):
            if times != 1:
                raise CaptureError(
                    f"the model computed it {times} times in one forward instead of once",
                    where=str(site),
                    fix="The model runs differently from when its sites were found; nothing of this batch was kept.",
                )

    def forget(self) -> None:
        """Start counting anew."""
        self._seen = [0] * len(self._sites)

    def _modules(self, model: nn.Module, side: str) -> dict[str, nn.Module]:
        return {site.module: model.get_submodule(site.module) for site in self._sites if site.side == side}

    def _before(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        for number, site in self._at["input"][name]:
            self._seen[number] += 1
            self._receive(site, site.pick(args, kwargs))

    def _after(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        for number, site in self._at["output"][name]:
            self._seen[number] += 1
            self._receive(site, site.pick(args, kwargs, output))


class BlockHooks:
    """While open, what goes into each block may be put in the place of what the model hands it.

    Parameters
    ----------
    model
        The model.
    blocks
        Of each block, the sites of its input and of its output.
    enter
        Called with the block's number and its input, [rows, width]; gives another one, or None to leave it.
    leave
        Called with the block's number and its output, [rows, width].
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: Sequence[tuple[Site, Site]],
        *,
        enter: Callable[[int, Tensor], Tensor | None],
        leave: Callable[[int, Tensor], None],
    ) -> None:
        self._model, self._blocks, self._enter, self._leave = model, blocks, enter, leave
        self._open = ExitStack()

    def __enter__(self) -> BlockHooks:
        with ExitStack() as stack:
            for number, (into, out) in enumerate(self._blocks):
                self._put(stack, number, into, out)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._open.close()

    def _put(self, stack: ExitStack, number: int, into: Site, out: Site) -> None:
        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            rows = self._enter(number, into.pick(args, kwargs))
            if rows is None:
                return None
            return _with_input(into, args, kwargs, rows)

        def leave(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            self._leave(number, out.pick(args, kwargs, output))

        for site, put in ((into, "register_forward_pre_hook"), (out, "register_forward_hook")):
            module = self._model.get_submodule(site.module)
            hook = enter if site is into else leave
            stack.callback(getattr(module, put)(hook, with_kwargs=True).remove)


class ReplacingHooks:
    """While open, another tensor takes the place of what passes a site: in memory, and in no other forward.

    Parameters
    ----------
    model
        The model.
    replace
        Of each site, what makes another tensor, [rows, width], of the one that passes it. That one is not to be
        changed itself.
    """

    def __init__(self, model: nn.Module, replace: Sequence[tuple[Site, Callable[[Tensor], Tensor]]]) -> None:
        self._model, self._replace = model, replace
        self._seen: Counter[str] = Counter()
        self._open = ExitStack()

    def __enter__(self) -> ReplacingHooks:
        with ExitStack() as stack:
            for site, replace in self._replace:
                self._put(stack, site, replace)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._open.close()

    def expect_once(self) -> None:
        """Check that one forward passed every site exactly once, and start counting anew.

        Raises
        ------
        CaptureError
            A site was missed or passed twice.
        """
        seen, self._seen = self._seen, Counter()
        for site, _ in self._replace:
            if seen[str(site)] != 1:
                raise CaptureError(
                    f"the model computed it {seen[str(site)]} times in one forward instead of once",
                    where=str(site),
                    fix="The model runs differently from when its sites were found; nothing of this batch was kept.",
                )

    def _put(self, stack: ExitStack, site: Site, replace: Callable[[Tensor], Tensor]) -> None:
        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            self._seen[str(site)] += 1
            return _with_input(site, args, kwargs, replace(site.pick(args, kwargs)))

        def leave(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            self._seen[str(site)] += 1
            key = site.key
            tensor = output if key is None else output[key]
            other = replace(tensor.reshape(-1, tensor.shape[-1])).view(tensor.shape)
            if key is None:
                return other
            assert isinstance(key, int)
            return (*output[:key], other, *output[key + 1 :])

        module = self._model.get_submodule(site.module)
        if site.side == "input":
            stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
        else:
            stack.callback(module.register_forward_hook(leave, with_kwargs=True).remove)


def _with_input(site: Site, args: tuple[Any, ...], kwargs: Mapping[str, Any], rows: Tensor) -> tuple[Any, Any]:
    """The arguments of a module with these rows in the place of its site."""
    key = site.key or 0
    if isinstance(key, str):
        return args, {**kwargs, key: rows.view(kwargs[key].shape)}
    return (*args[:key], rows.view(args[key].shape), *args[key + 1 :]), kwargs


class ExpertsHooks:
    """While open, every call of a fused experts module is given to `receive` with the neurons of its experts.

    Parameters
    ----------
    modules
        Name to experts module (`model.experts.is_fused`).
    receive
        Called with the name and what the call was.
    replace
        Called with the name, the ids of the chosen experts, [token, choice], some of their neurons, [rows, width], and
        how many rows were computed before these; gives others, which take their place.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        receive: Callable[[str, Routed], None],
        replace: Callable[[str, Tensor, Tensor, int], Tensor] | None = None,
    ) -> None:
        self._modules, self._receive, self._replace = modules, receive, replace
        self._choice: dict[str, tuple[Tensor, Tensor]] = {}
        self._rows: defaultdict[str, list[Tensor]] = defaultdict(list)
        self.counts: Counter[str] = Counter()
        self._open = ExitStack()

    def __enter__(self) -> ExpertsHooks:
        with ExitStack() as stack:
            stack.enter_context(ModuleHooks(self._modules, before=self._before, after=self._after))
            for name, module in self._modules.items():
                watch = self._watch_gate if module.has_gate else self._watch_activation
                watch(stack, name, module)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.forget()
        self._open.close()

    def forget(self) -> None:
        """Let go of what a forward that failed has left."""
        self._choice.clear()
        self._rows.clear()
        self.counts.clear()

    def expect_once(self) -> None:
        """Check that one forward called every module exactly once, and start counting anew.

        Raises
        ------
        CaptureError
            A module was passed by or called twice.
        """
        counts, self.counts = self.counts, Counter()
        for name in self._modules:
            if counts[name] != 1:
                raise CaptureError(
                    f"the model called these experts {counts[name]} times in one forward instead of once",
                    where=name,
                    fix="The model runs differently from when its sites were found; nothing of this batch was kept.",
                )

    def _watch_gate(self, stack: ExitStack, name: str, module: Any) -> None:
        """Put a function in front of the module's gate; it is no module, so torch has no hook for it."""
        original = module._apply_gate

        def gate(*args: Any, **kwargs: Any) -> Any:
            return self._computed(name, original(*args, **kwargs))

        stand_in(stack, module, "_apply_gate", gate)

    def _watch_activation(self, stack: ExitStack, name: str, module: Any) -> None:
        """Where there is no gate, the activation is a module of its own."""

        def activated(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            return self._computed(name, output)

        stack.callback(module.act_fn.register_forward_hook(activated).remove)

    def _before(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._choice.pop(name, None)
        choice = chosen(args, kwargs)
        if choice is not None:
            self._choice[name] = choice
        self._rows[name].clear()

    def _computed(self, name: str, neurons: Tensor) -> Tensor:
        """Take neurons of some experts; what goes on in their place."""
        choice = self._choice.get(name)
        if self._replace is not None and choice is not None:
            neurons = self._replace(name, choice[0], neurons, sum(map(len, self._rows[name])))
        self._rows[name].append(neurons)
        return neurons

    def _after(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        choice, rows = self._choice.pop(name, None), self._rows.pop(name, [])
        if choice is None or sum(len(part) for part in rows) != choice[0].numel():
            return  # counted as missed
        self.counts[name] += 1
        together = rows[0] if len(rows) == 1 else torch.cat(rows)
        output = output if isinstance(output, Tensor) else output[0]
        flat = output.reshape(-1, output.shape[-1])
        self._receive(name, Routed(*choice, together, flat, implementation_of(self._modules[name]), tuple(rows)))
