"""Observes a model's attention while it runs: groups `attention` and `attention-full`. Logits stay bit-identical."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional

from stratoscope.errors import CaptureError, ModelError
from stratoscope.model.devices import input_device
from stratoscope.model.hooks import ModuleHooks
from stratoscope.model.identity import attention_implementation
from stratoscope.recorder.attention.check import AttentionChecks
from stratoscope.recorder.attention.full import PairRows
from stratoscope.recorder.attention.given import WITHOUT, GivenScores, GivenWeights
from stratoscope.recorder.attention.interface import OBSERVABLE, InterfaceAttention
from stratoscope.recorder.attention.layer import LayerAttention, head_factors
from stratoscope.recorder.attention.own import OwnAttention
from stratoscope.recorder.reduce.scratch import Scratch

_LOAD_OTHERWISE = "Load the model with attn_implementation='sdpa' or 'eager', or record without the group attention."


class AttentionObserver:
    """While open, reduces the attention of every layer of a model to the `attn_*` quantities.

    The model keeps its own attention function; what that function was given is reduced once it has answered: see
    `attention.interface`. Models with attention in their own code are observed where that code calls softmax or torch's
    fused attention: see `attention.own`. Calls by other models pass through. Open one observer at a time.

    Parameters
    ----------
    model
        A Hugging Face causal language model.
    n_layers
        Number of its blocks.
    out_projections
        Attention's last linear map of each block, None where a block has no attention. With them `attn_value_norm` is
        recorded: ‖W_O z‖₂ of each head, z what reaches W_O of it (Kobayashi et al. 2020, summed over the keys).
    pairs
        Where every weight goes, if somebody wants them.

    Attributes
    ----------
    changes_implementation : str or None
        What observing changes about how the model computes; None, as it changes nothing.
    without : list of int
        Layers in which the last batch showed no attention (Mamba mixers, convolutions).
    source : str
        Where attention was observed, in words.

    Raises
    ------
    ModelError
        The model's attention cannot be observed.
    """

    changes_implementation: str | None = None

    def __init__(
        self,
        model: nn.Module,
        n_layers: int,
        out_projections: Sequence[nn.Module | None] = (),
        pairs: PairRows | None = None,
    ) -> None:
        self._pairs = pairs
        self._name = type(model).__name__
        self._model = model
        self._n_layers = n_layers
        self._projections = {str(layer): module for layer, module in enumerate(out_projections) if module is not None}
        self._parents = _parents(model, self._projections)
        self._layer_of = _layers_of_modules(model, self._projections)
        self._modules = set(model.modules())
        self._interface = InterfaceAttention(self._modules, self._watching, self._looked_up)
        self._own = OwnAttention(self._expected, self._keep) if self._in_own_code() else None
        if not self._interface and self._own is None:
            self._refuse("this architecture computes attention in its own code, and its output projections are unknown")
        implementation = attention_implementation(model)
        if implementation not in OBSERVABLE:
            self._refuse(f"attention under {implementation!r} cannot be recorded", _LOAD_OTHERWISE)
        self.source = "its own code" if self._own is not None else f"its attention function {implementation!r}"
        self.without: list[int] = []
        self._factors: dict[str, Tensor] = {}
        self._layers: dict[int, LayerAttention] = {}
        self._valid: Tensor | None = None
        self._forwards = 0
        self._pending: list[GivenScores | GivenWeights] = []
        self._inside = False
        self._queries = 0
        self._checks = AttentionChecks()
        self._scratch = Scratch(input_device(model))
        self._open = ExitStack()

    def __enter__(self) -> AttentionObserver:
        self._checks.restart()
        with ExitStack() as stack:
            stack.enter_context(self._interface)
            stack.enter_context(ModuleHooks(self._projections, before=self._projected, after=None))
            if self._own is not None:
                stack.enter_context(ModuleHooks({"": self._model}, before=self._enter_model, after=self._leave_model))
                stack.enter_context(self._own)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._reset(None)
        self._open.close()

    def begin(self, valid: Tensor) -> None:
        """Observe the next forward, the first of a batch.

        Parameters
        ----------
        valid
            Bool [B, T] on the model's device: which tokens are real rather than padding.
        """
        self._reset(valid.bool())
        self._checks.forget()
        self._next_forward(valid, goes_on=False)

    def extend(self, valid: Tensor) -> None:
        """Observe a further forward over the same prompts, of new tokens with the earlier ones in the model's cache.

        Parameters
        ----------
        valid
            Bool [B, T_new]: which of the new tokens are real; those of a prompt that has ended are not.

        Raises
        ------
        CaptureError
            Nothing was begun, or the prompts are not those of `begin`.
        """
        if self._valid is None or len(valid) != len(self._valid):
            raise CaptureError(f"{len(valid)} prompts go on that were not begun", fix="Call begin(valid) first.")
        self._valid = torch.cat((self._valid, valid.bool().to(self._valid.device)), 1)
        self._next_forward(valid, goes_on=True)

    def take(self) -> dict[str, list[Tensor]]:
        """What the forwards since `begin` showed.

        Returns
        -------
        dict
            Name to one float32 tensor [B, T, H] per layer, T the tokens of all forwards and H the largest number of
            heads; NaN where a quantity is not defined, at padding, and in layers without attention (`without`).
            `attn_null` is there only for models with a learned sink.

        Raises
        ------
        ModelError
            No attention was seen, or a layer like others that have attention showed none.
        CaptureError
            Rows of weights do not sum to 1, weights do not give the model's output, or a layer missed a forward.
        """
        layers, valid, forwards = self._layers, self._valid, self._forwards
        self._reset(None)
        if not layers or valid is None:
            self._refuse("no layer showed attention: it has none, or computes it where it cannot be observed")
        self._checks.settle()
        for number, layer in layers.items():
            if layer.forwards != forwards:
                seen = f"attention seen in {layer.forwards} of {forwards} forwards"
                raise CaptureError(seen, where=f"layer {number}", fix=WITHOUT)
        self.without = self._without(layers)
        if self._pairs is not None:
            self._pairs.fill(self.without)
        heads = max(layer.heads for layer in layers.values())
        results = {number: layer.result() for number, layer in layers.items()}
        names = sorted({name for values in results.values() for name in values})
        missing = torch.full((*valid.shape, heads), torch.nan, device=valid.device)

        def of(layer: int, name: str) -> Tensor:
            values = results.get(layer, {}).get(name, missing).to(valid.device)
            narrower = heads - values.shape[-1]
            return functional.pad(values, (0, narrower), value=torch.nan) if narrower else values

        return {name: [of(layer, name) for layer in range(self._n_layers)] for name in names}

    def forget(self) -> None:
        """Let go of what a forward that failed has left."""
        self._reset(None)
        self._checks.forget()
        self._scratch.clear()
        if self._own is not None:
            self._own.forget()

    @property
    def checked(self) -> Mapping[str, Any]:
        """What was compared so far, with the largest errors and the share of their limits that they reached.

        `row_sums` counts rows of weights that the model computed itself, `outputs` what was compared in the sample of
        forwards 1, 2, 4, 8, …: see `recorder.attention.check`.
        """
        return {"source": self.source, "layers_without": list(self.without), **self._checks.summary()}

    # --- what is seen -----------------------------------------------------------------------------------------------

    def _watching(self, module: nn.Module) -> bool:
        return module in self._modules and self._valid is not None

    def _looked_up(self, module: nn.Module, given: GivenScores | GivenWeights) -> None:
        """An attention of a function that the model looked up."""
        layer = self._layer_of.get(module, getattr(module, "layer_idx", None))
        if not isinstance(layer, int) or layer >= self._n_layers:
            self._refuse(f"attention in {type(module).__name__}, which is not in a numbered layer")
        self._add(layer, given)

    def _keep(self, given: GivenScores | GivenWeights) -> None:
        """An attention of the model's own code: the layer is known when its output projection is called."""
        self._pending.append(given)

    def _projected(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Attention's output projection of layer `name` is called."""
        if self._valid is None:
            return
        pending, self._pending = self._pending, []
        if len(pending) > 1:
            self._refuse(f"{len(pending)} attentions in layer {name}")
        if pending:
            self._add(int(name), pending[0])
        layer = self._layers.get(int(name))
        if layer is not None:
            if name not in self._factors:
                self._factors[name] = head_factors(self._projections[name], layer.heads)
            layer.add_flow(args[0] if args else next(iter(kwargs.values())), self._factors[name])

    def _add(self, number: int, given: GivenScores | GivenWeights) -> None:
        assert self._valid is not None
        valid = self._valid.to(given.output.device)
        if number not in self._layers:
            heads = given.output.shape[1]
            self._layers[number] = LayerAttention(number, valid, heads)
        layer = self._layers[number]
        if layer.forwards == self._forwards:
            self._refuse(f"attention of layer {number} came twice in one forward")
        if (given.output.shape[0], given.output.shape[2]) != (len(valid), self._queries):
            raise CaptureError(
                f"attention of {given.output.shape[2]} queries, where {self._queries} were announced",
                where=f"layer {number}",
                fix="Announce every forward with begin or extend.",
            )
        layer.add(given, valid, self._checks, self._scratch, self._pairs)

    # --- state ------------------------------------------------------------------------------------------------------

    def _reset(self, valid: Tensor | None) -> None:
        self._valid, self._layers, self._pending = valid, {}, []
        self._forwards, self._inside = 0, False

    def _next_forward(self, valid: Tensor, *, goes_on: bool) -> None:
        self._forwards += 1
        self._queries = valid.shape[1]
        real = valid.bool().cpu().numpy()  # before the model runs: inside, its devices would wait for the host
        self._checks.begin(real)
        if self._pairs is not None:
            self._pairs.begin(real, goes_on=goes_on)

    def _expected(self) -> tuple[int, int] | None:
        """Prompts and queries of the present forward, None outside of one."""
        return (len(self._valid), self._queries) if self._valid is not None and self._inside else None

    def _enter_model(self, name: str, args: Any, kwargs: Any) -> None:
        self._inside = True

    def _leave_model(self, name: str, args: Any, kwargs: Any, output: Any) -> None:
        self._inside = False

    def _without(self, layers: Mapping[int, Any]) -> list[int]:
        """Layers without attention; ModelError if one is of the same kind as others that have it."""
        kinds = {type(self._parents[str(number)]) for number in layers if str(number) in self._parents}
        missing = [number for number in range(self._n_layers) if number not in layers]
        for number in missing:
            if type(self._parents.get(str(number))) in kinds:
                self._refuse(f"attention of layer {number} was not seen, unlike that of the other layers")
        return missing

    def _in_own_code(self) -> bool:
        """Whether the code of some attention does not look functions up."""
        homes = (sys.modules.get(type(parent).__module__) for parent in self._parents.values())
        return not all(hasattr(home, "ALL_ATTENTION_FUNCTIONS") for home in homes)

    def _refuse(self, what: str, fix: str = WITHOUT) -> NoReturn:
        raise ModelError(what, where=self._name, fix=fix)


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
