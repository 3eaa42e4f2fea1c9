"""Observes a model's attention while it runs: the record group `attention`, with logits that stay bit-identical."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.errors import CaptureError, ModelError
from stratoscope.model.hooks import ModuleHooks
from stratoscope.recorder.attention_sums import Mask, Scratch, reduce_scores, reduce_weights

_OBSERVABLE = ("sdpa", "eager")
_WITHOUT = "Record without the group attention"


class AttentionObserver:
    """While open, reduces the attention of every layer of a model to the `attn_*` quantities.

    The model keeps its own attention function; what that function was given is reduced once it has answered. The
    function is looked up by the model in transformers' `AttentionInterface`, and there a wrapper stands in for it as
    long as the observer is open. Calls by other models pass through. Open one observer at a time.

    Parameters
    ----------
    model
        A Hugging Face causal language model.
    n_layers
        Number of its blocks.
    out_projections
        Attention's last linear map of each block, None where a block has no attention. With them `attn_value_norm` is
        recorded: ‖W_O z‖₂ of each head, z what reaches W_O of it (Kobayashi et al. 2020, summed over the keys).

    Raises
    ------
    ModelError
        The model's attention cannot be observed.
    """

    def __init__(self, model: nn.Module, n_layers: int, out_projections: Sequence[nn.Module | None] = ()) -> None:
        self._name = type(model).__name__
        self._modules = set(model.modules())
        self._interfaces = _interfaces(self._modules)
        if not self._interfaces:
            raise ModelError("this architecture computes attention in its own code", where=self._name, fix=_WITHOUT)
        text_config = model.config.get_text_config()  # type: ignore[operator, union-attr]
        implementation = text_config._attn_implementation
        if implementation not in _OBSERVABLE:
            raise ModelError(f"attention under {implementation!r} cannot be recorded", where=self._name, fix=_WITHOUT)
        self._n_layers = n_layers
        self._projections = {str(layer): module for layer, module in enumerate(out_projections) if module is not None}
        self._factors: dict[str, Tensor] = {}
        self._layers: dict[int, dict[str, Tensor]] = {}
        self._valid: Tensor | None = None
        self._scratch = Scratch()
        self._open = ExitStack()

    def __enter__(self) -> AttentionObserver:
        with ExitStack() as stack:
            for interface in self._interfaces:
                for name in _OBSERVABLE:
                    self._stand_in(stack, interface, name)
            stack.enter_context(ModuleHooks(self._projections, before=self._projected, after=None))
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._valid = None
        self._layers = {}
        self._open.close()

    def begin(self, valid: Tensor) -> None:
        """Observe the next forward.

        Parameters
        ----------
        valid
            Bool [B, T] on the model's device: which tokens are real rather than padding.
        """
        self._valid = valid.bool()
        self._layers = {}

    def take(self) -> dict[str, list[Tensor]]:
        """What the forward since `begin` showed.

        Returns
        -------
        dict
            Name to one float32 tensor [B, T, H] per layer; NaN where a quantity is not defined, at padding, and in
            layers without attention. `attn_null` is there only for models with a learned sink.

        Raises
        ------
        ModelError
            The model did not use the attention function it looked up.
        """
        layers, self._layers, valid, self._valid = self._layers, {}, self._valid, None
        if not layers or valid is None:
            raise ModelError("no layer used the attention interface", where=self._name, fix=_WITHOUT)
        names = {name for values in layers.values() for name in values}
        some = next(iter(layers.values()))
        missing = torch.full_like(next(iter(some.values())), torch.nan)
        return {
            name: [layers.get(layer, {}).get(name, missing) for layer in range(self._n_layers)]
            for name in sorted(names)
        }

    def _stand_in(self, stack: ExitStack, interface: Any, name: str) -> None:
        """Put a wrapper where the model looks up the attention function `name`, and take it off with the stack."""
        local = interface._local_mapping.get(name)
        original = interface.get(name)

        def observed(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            # "eager" is not in the interface: each model has its own, beside its attention class
            function = original or _eager(module)
            answer = function(module, *args, **kwargs)
            if module in self._modules and self._valid is not None:
                self._observe(name, module, args, kwargs, answer[1])
            return answer

        def restore() -> None:
            if local is None:
                del interface[name]
            else:
                interface[name] = local

        interface[name] = observed
        stack.callback(restore)

    def _observe(
        self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], weights: Tensor | None
    ) -> None:
        given = dict(zip(("query", "key", "value", "attention_mask"), args, strict=False)) | dict(kwargs)
        query, key = given["query"], given["key"]
        layer = getattr(module, "layer_idx", None)
        if not isinstance(layer, int) or layer in self._layers or layer >= self._n_layers:
            raise ModelError(
                f"attention of layer {layer} came twice or without a number", where=self._name, fix=_WITHOUT
            )
        assert self._valid is not None
        if query.shape[2] != key.shape[2] or tuple(self._valid.shape) != (query.shape[0], query.shape[2]):
            raise CaptureError(
                f"attention of {query.shape[2]} queries over {key.shape[2]} keys is not one whole prompt",
                where=f"layer {layer}",
                fix="Run the model without a cache",
            )
        mask = self._mask(name, module, given)
        sink = given.get("s_aux") is not None
        if weights is not None:
            found = reduce_weights(weights, mask, sink, self._scratch)
        elif sink:
            raise ModelError("sdpa ignores this model's learned attention sinks", where=self._name, fix=_WITHOUT)
        else:
            scaling = given.get("scaling")
            scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
            found = reduce_scores(query, key, mask, float(scaling), given.get("position_bias"), self._scratch)
        self._layers[layer] = found

    def _mask(self, name: str, module: nn.Module, given: Mapping[str, Any]) -> Mask:
        assert self._valid is not None
        mask = given.get("attention_mask")
        if mask is not None and (mask.ndim != 4 or mask.shape[1] != 1):
            raise ModelError(f"an attention mask of shape {tuple(mask.shape)}", where=self._name, fix=_WITHOUT)
        causal = given.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        return Mask(self._valid, mask, causal=bool(causal) and name == "sdpa")  # eager adds the mask and nothing else

    def _projected(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """‖W_O z‖₂ per head from the projection's input [.., heads·D], as ‖R z‖₂ with W_O = QR of each head."""
        found = self._layers.get(int(name))
        if found is None or self._valid is None:
            return
        batch, length, heads = next(iter(found.values())).shape
        if name not in self._factors:
            self._factors[name] = _head_factors(self._projections[name], heads)
        flow = args[0] if args else next(iter(kwargs.values()))
        flow = flow.detach().float().reshape(batch * length, heads, -1).transpose(0, 1)
        norms = torch.linalg.vector_norm(flow @ self._factors[name], dim=-1)
        found["attn_value_norm"] = norms.T.reshape(batch, length, heads).masked_fill(~self._valid[..., None], torch.nan)


def _interfaces(modules: set[nn.Module]) -> list[Any]:
    """The attention interfaces that the code of these modules looks functions up in (nearly always just one)."""
    homes = {type(module).__module__ for module in modules}
    found = [getattr(sys.modules.get(home), "ALL_ATTENTION_FUNCTIONS", None) for home in sorted(homes)]
    return list({id(interface): interface for interface in found if interface is not None}.values())


def _eager(module: nn.Module) -> Callable[..., Any]:
    function = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    if function is None:
        raise ModelError("its own attention function was not found", where=type(module).__name__, fix=_WITHOUT)
    return function  # type: ignore[no-any-return]


def _head_factors(projection: nn.Module, heads: int) -> Tensor:
    """Rᵀ [H, D, min(D, d_model)] with W_O[:, head] = QR: the norm of what a head writes at a fraction of the cost."""
    from transformers.pytorch_utils import Conv1D

    weight = projection.weight
    assert isinstance(weight, Tensor)
    weight = weight.detach().float() if isinstance(projection, Conv1D) else weight.detach().float().T  # [H·D, d_model]
    by_head = weight.reshape(heads, -1, weight.shape[-1])
    factors: Tensor = torch.linalg.qr(by_head.transpose(1, 2), mode="r").R
    return factors.transpose(1, 2).contiguous()
