"""What was called in one block on the probe prompt, and which of it are linear maps, gates and token mixers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.model.devices import weights_at_hand
from stratoscope.model.experts import Routed
from stratoscope.model.search.calls import BlockCall, Call

# what classes of modules that move information between tokens are called, once the model's own name is taken off
MIXER = re.compile("attention|attn|mixer|mamba|shortconv|deltanet|recurrent|rwkv|retention", re.IGNORECASE)
ATTENTION = re.compile("attention|attn", re.IGNORECASE)
_CHECKED_TOKENS = 8  # enough to tell W a from anything else


class BlockCalls:
    """What was called in one block.

    Parameters
    ----------
    model, layer
        The model and the block's number.
    block
        What was called in the block on the probe prompt.
    routed
        Path of each fused experts module of the block to what its call was.
    """

    def __init__(self, model: nn.Module, layer: int, block: BlockCall, routed: Mapping[str, Routed]) -> None:
        assert block.call.x is not None
        assert block.call.y is not None
        self.model, self.layer, self.block, self.routed = model, layer, block, routed
        self.out = block.call.y
        self.x = block.call.x.to(self.out.dtype)  # Mamba keeps the residual in float32 from the first block on
        paths = [call.path for call in block.inner]
        self.calls = [call for call in block.inner if paths.count(call.path) == 1]
        self.mixers = _mixers(model, block.call.path)

    def is_wide(self, call: Call) -> bool:
        """Whether a call gives something as wide as the residual for each token."""
        return call.y is not None and call.y.numel() == self.x.numel() and call.y.shape[-1] == self.x.shape[-1]

    def source(self, call: Call) -> Call | None:
        """The last linear map (or fused experts) that ended before this call did, or is it."""
        ended = self.calls[: self.calls.index(call) + 1]
        return next((other for other in reversed(ended) if self.is_map(other) or other.path in self.routed), None)

    def is_map(self, call: Call) -> bool:
        """Whether a call is of a linear map with a floating-point weight."""
        weight = getattr(self.model.get_submodule(call.path), "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point():
            return False
        return call.x is not None and call.y is not None and {call.x.shape[-1], call.y.shape[-1]} == {*weight.shape}

    def mixer_of(self, call: Call) -> str | None:
        """Path of the token mixer that a call belongs to."""
        return next((path for path in self.mixers if call.path == path or call.path.startswith(f"{path}.")), None)

    def dense_maps(self) -> list[Call]:
        """Linear maps outside the mixers that give something as wide as the residual."""
        return [c for c in self.calls if self.is_wide(c) and self.is_map(c) and self.mixer_of(c) is None]

    def gates(self) -> list[Call]:
        """Linear maps outside the mixers that give one number a token."""
        rows = self.x.shape[:-1].numel()
        return [c for c in self.calls if c.y is not None and c.y.shape[-1] == 1 and c.y.numel() == rows]

    def orientation(self, last: Call) -> bool | None:
        """Whether a map's weight is stored [in, out]; None where its output is not W a + bias (an adapter)."""
        module: Any = self.model.get_submodule(last.path)
        assert last.x is not None
        assert last.y is not None
        a, y = (tensor.reshape(-1, tensor.shape[-1])[:_CHECKED_TOKENS] for tensor in (last.x, last.y))
        with weights_at_hand(module):
            stored, bias = module.weight.detach(), getattr(module, "bias", None)
        excess = []
        for transposed, weight in ((False, stored), (True, stored.T)):
            if weight.shape == (y.shape[1], a.shape[1]):
                error = (nn.functional.linear(a, weight, bias) - y).float().abs()
                wide = torch.promote_types(weight.dtype, torch.float32)
                scale = a.float().norm(dim=-1)[:, None] * torch.linalg.vector_norm(weight, dim=-1, dtype=wide)
                excess.append((float((error - 8 * torch.finfo(y.dtype).eps * scale).max()), transposed))
        worst, transposed = min(excess, default=(1.0, False))
        return transposed if worst <= 0 else None


def _mixers(model: nn.Module, block: str) -> list[str]:
    """Paths of the modules in a block that move information between tokens, by their class."""
    inside = model.get_submodule(block)
    own = _shared_beginning(type(model).__name__, type(inside).__name__)
    return [
        f"{block}.{path}"
        for path, part in inside.named_modules()
        if path and MIXER.search(type(part).__name__.removeprefix(own))
    ]


def _shared_beginning(one: str, other: str) -> str:
    equal = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(character for character, _ in equal)
