"""Between what a block's last linear maps give and the residual stream: a norm with its scale as it was, and a factor.

Behind that norm a part of the map's output adds s·γ ⊙ part, s one number a token: what it adds along a direction of the
residual stream is s times what the part is along another direction, which is the same for all tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stratoscope.model.head import Norm
from stratoscope.model.heads import Heads, heads_of
from stratoscope.model.precision import full_precision
from stratoscope.model.sites import ModelSites, Site


@dataclass(frozen=True)
class Passage:
    """What stands between a linear map and the residual stream.

    Attributes
    ----------
    factor
        What the model multiplies the write by.
    norm
        The norm of the map's output; None where there is none.
    gain, shift
        Its γ and β; None where γ is 1 or there is no β.
    """

    factor: float
    norm: Norm | None
    gain: Tensor | None = None
    shift: Tensor | None = None

    def before(self, direction: Tensor) -> Tensor:
        """The direction in front of the norm, of one of the residual stream, [.., residual]."""
        found = direction if self.factor == 1 else direction * self.factor
        if self.norm is None:
            return found
        found = found if self.gain is None else found * self.gain.to(found.device)
        return found - found.mean(-1, keepdim=True) if self.norm.centred else found

    def scale(self, output: Tensor) -> Tensor:
        """s of the map's output, [rows, residual]: [rows, 1]; 1 where there is no norm."""
        return output.new_ones(len(output), 1, dtype=torch.float32) if self.norm is None else self.norm.scale(output)

    def shifted(self, direction: Tensor) -> Tensor | None:
        """What β adds along a direction of the residual stream; None where there is no β."""
        return None if self.shift is None else self.factor * exact(direction, self.shift.to(direction.device)[:, None])


def split_heads(model: nn.Module, sites: ModelSites) -> dict[int, Heads]:
    """The blocks whose attention is the sum of what its heads write, and their heads."""
    found: dict[int, Heads] = {}
    for layer, block in enumerate(sites.layers):
        heads = heads_of(model, sites, layer) if block.attn_transposed is not None else None
        if heads is not None and _is_split(sites, layer, "attention writes other"):
            found[layer] = heads
    return found


def why_unsplit(model: nn.Module, sites: ModelSites) -> dict[int, str]:
    """The other blocks with a token mixer, and why what it writes is no sum of what heads write, as far as is known."""
    split, found = split_heads(model, sites), {}
    for layer, block in enumerate(sites.layers):
        if block.attn_write is None or layer in split:
            continue
        if block.attn_transposed is None:
            found[layer] = f"the last map of {block.mixer} is not a matrix and a bias"
        elif heads_of(model, sites, layer) is None:
            found[layer] = f"how many heads {block.mixer} has is not known"
        else:
            found[layer] = "what its heads write is not all that attention writes, but for one norm"
    return found


def passages_of(model: nn.Module, sites: ModelSites) -> dict[tuple[str, int], Passage]:
    """By part, "attn" or "mlp", and block: what stands behind the linear map whose output can be split."""
    found = {}
    heads = split_heads(model, sites)
    for layer, (block, maps) in enumerate(zip(sites.layers, sites.maps, strict=True)):
        if block.attn_write is not None and layer in heads:
            found["attn", layer] = _passage(model, block.attn_write, maps.attn_post_norm)
        if block.mlp_write is not None and _is_split(sites, layer, "the MLP writes other"):
            found["mlp", layer] = _passage(model, block.mlp_write, maps.mlp_post_norm)
    return found


def split_sites(model: nn.Module, sites: ModelSites) -> list[Site]:
    """Where heads are seen, and the output that a norm of attention's output is given."""
    return [heads.site for heads in split_heads(model, sites).values()] + normed_outputs(model, sites)


def normed_outputs(model: nn.Module, sites: ModelSites) -> list[Site]:
    """The outputs of attention's last linear map that a norm is given."""
    heads = split_heads(model, sites)
    return [own.output for layer, own in heads.items() if sites.maps[layer].attn_post_norm is not None]


def has_bias(model: nn.Module, sites: ModelSites, part: str, layer: int) -> bool:
    """Whether a block's last linear maps, or a norm of their output, add a bias."""
    block, maps = sites.layers[layer], sites.maps[layer]
    norm = maps.attn_post_norm if part == "attn" else maps.mlp_post_norm
    if norm is not None and norm.bias:
        return True
    if part == "attn":
        return sites.attn_weight(model, layer)[1] is not None
    own = block.neurons is not None and sites.mlp_weight(model, layer)[1] is not None
    return own or (block.experts is not None and block.experts.weight(model)[1] is not None)


def _passage(model: nn.Module, write: Site, norm: Norm | None) -> Passage:
    vectors = (None, None) if norm is None else norm.vectors(model)
    return Passage(write.scale, norm, *vectors)


def _is_split(sites: ModelSites, layer: int, words: str) -> bool:
    """Whether nothing stands in front of a block's write but a proved norm."""
    unproved = (words, "what it is given is 0", "the proof failed")
    return not any(reason in limit for limit in sites.maps[layer].limits for reason in unproved)


def exact(one: Tensor, other: Tensor) -> Tensor:
    """Their product as matrices, in float32 whatever torch was told about TF32 and bfloat16."""
    with full_precision():
        return torch.matmul(one, other)


class Fixed:
    """Vectors that are made once where the targets are the same in every batch, and for each batch where not."""

    def __init__(self, *, always: bool) -> None:
        self._always, self._known = always, dict[object, Tensor]()

    def get(self, key: object, make: Callable[[], Tensor]) -> Tensor:
        """The vectors of that name."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def begin(self) -> None:
        """Another batch."""
        if not self._always:
            self._known.clear()
