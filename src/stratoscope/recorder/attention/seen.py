"""Where a model's attention is seen: in the function that it looks up, or in its own code; layer by layer."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, NoReturn

from torch import Tensor, nn

from stratoscope.errors import ModelError
from stratoscope.model.hooks import ModuleHooks
from stratoscope.model.identity import attention_implementation
from stratoscope.recorder.attention.given import WITHOUT, GivenScores, GivenWeights
from stratoscope.recorder.attention.interface import OBSERVABLE, InterfaceAttention
from stratoscope.recorder.attention.own import OwnAttention

_LOAD_OTHERWISE = "Load the model with attn_implementation='sdpa' or 'eager', or record without the group attention."


class SeenAttention:
    """While open, and while a forward is expected, each layer's attention is handed over; nothing is changed.

    The model keeps its own attention function: see `attention.interface`. Models with attention in their own code are
    watched where that code calls softmax or torch's fused attention: see `attention.own`. Calls by other models pass
    through.

    Parameters
    ----------
    model
        A Hugging Face causal language model.
    n_layers
        Number of its blocks.
    out_projections
        Attention's last linear map of each block, None where a block has no attention.
    attended
        Called with a layer and its attention, once the model has its result.
    projected
        Called with a layer and what its output projection is given, behind `attended`.

    Attributes
    ----------
    source : str
        Where attention is seen, in words.
    projections : dict
        Layer, as text, to output projection.

    Raises
    ------
    ModelError
        The model's attention cannot be observed.
    """

    def __init__(
        self,
        model: nn.Module,
        n_layers: int,
        out_projections: Sequence[nn.Module | None],
        attended: Callable[[int, GivenScores | GivenWeights], None],
        projected: Callable[[int, Tensor], None],
    ) -> None:
        self._model, self._name, self._n_layers = model, type(model).__name__, n_layers
        self._attended, self._projected_to = attended, projected
        self.projections = {str(layer): module for layer, module in enumerate(out_projections) if module is not None}
        self._parents = _parents(model, self.projections)
        self._layer_of = _layers_of_modules(model, self.projections)
        self._modules = set(model.modules())
        self._interface = InterfaceAttention(self._modules, self._watching, self._looked_up)
        self._own = OwnAttention(self._inside_forward, self._keep) if self._in_own_code() else None
        if not self._interface and self._own is None:
            self.refuse("this architecture computes attention in its own code, and its output projections are unknown")
        implementation = attention_implementation(model)
        if implementation not in OBSERVABLE:
            self.refuse(f"attention under {implementation!r} cannot be recorded", _LOAD_OTHERWISE)
        self.source = "its own code" if self._own is not None else f"its attention function {implementation!r}"
        self._expected: tuple[int, int] | None = None
        self._inside = False
        self._pending: list[GivenScores | GivenWeights] = []
        self._open = ExitStack()

    def __enter__(self) -> SeenAttention:
        with ExitStack() as stack:
            stack.enter_context(self._interface)
            stack.enter_context(ModuleHooks(self.projections, before=self._projected, after=None))
            if self._own is not None:
                stack.enter_context(ModuleHooks({"": self._model}, before=self._enter_model, after=self._leave_model))
                stack.enter_context(self._own)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.expect(None)
        self._open.close()

    def expect(self, forward: tuple[int, int] | None) -> None:
        """See forwards of so many prompts and queries; None: none.

        One that goes on may be announced when the model has been entered, as `generate` does.
        """
        self._expected, self._pending = forward, []
        self._inside = self._inside and forward is not None

    def forget(self) -> None:
        """Let go of what a forward that failed has left."""
        self.expect(None)
        if self._own is not None:
            self._own.forget()

    def without(self, seen: Mapping[int, Any]) -> list[int]:
        """Layers that showed no attention; ModelError if one is of the same kind as others that did."""
        kinds = {type(self._parents[str(number)]) for number in seen if str(number) in self._parents}
        missing = [number for number in range(self._n_layers) if number not in seen]
        for number in missing:
            if type(self._parents.get(str(number))) in kinds:
                self.refuse(f"attention of layer {number} was not seen, unlike that of the other layers")
        return missing

    def refuse(self, what: str, fix: str = WITHOUT) -> NoReturn:
        """Raise a ModelError about this model."""
        raise ModelError(what, where=self._name, fix=fix)

    # --- what is seen -----------------------------------------------------------------------------------------------

    def _watching(self, module: nn.Module) -> bool:
        return module in self._modules and self._expected is not None

    def _looked_up(self, module: nn.Module, given: GivenScores | GivenWeights) -> None:
        """An attention of a function that the model looked up."""
        layer = self._layer_of.get(module, getattr(module, "layer_idx", None))
        if not isinstance(layer, int) or layer >= self._n_layers:
            self.refuse(f"attention in {type(module).__name__}, which is not in a numbered layer")
        self._attended(layer, given)

    def _keep(self, given: GivenScores | GivenWeights) -> None:
        """An attention of the model's own code: the layer is known when its output projection is called."""
        self._pending.append(given)

    def _projected(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Attention's output projection of layer `name` is called."""
        if self._expected is None:
            return
        pending, self._pending = self._pending, []
        if len(pending) > 1:
            self.refuse(f"{len(pending)} attentions in layer {name}")
        if pending:
            self._attended(int(name), pending[0])
        self._projected_to(int(name), args[0] if args else next(iter(kwargs.values())))

    def _inside_forward(self) -> tuple[int, int] | None:
        """Prompts and queries of the present forward, None outside of one."""
        return self._expected if self._inside else None

    def _enter_model(self, name: str, args: Any, kwargs: Any) -> None:
        self._inside = True

    def _leave_model(self, name: str, args: Any, kwargs: Any, output: Any) -> None:
        self._inside = False

    def _in_own_code(self) -> bool:
        """Whether the code of some attention does not look functions up."""
        homes = (sys.modules.get(type(parent).__module__) for parent in self._parents.values())
        return not all(hasattr(home, "ALL_ATTENTION_FUNCTIONS") for home in homes)


def _parents(model: nn.Module, projections: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Layer to the module that its output projection is part of."""
    paths = {module: path for path, module in model.named_modules()}
    return {name: model.get_submodule(paths[module].rpartition(".")[0]) for name, module in projections.items()}


def _layers_of_modules(model: nn.Module, projections: Mapping[str, nn.Module]) -> dict[nn.Module, int]:
    """Layer of each module that holds the output projection of just one."""
    paths = {module: path for path, module in model.named_modules()}
    layers: defaultdict[nn.Module, set[int]] = defaultdict(set)
    for name, projection in projections.items():
        path = paths[projection]
        while path:
            path = path.rpartition(".")[0]
            layers[model.get_submodule(path)].add(int(name))
    return {module: found.pop() for module, found in layers.items() if len(found) == 1}
