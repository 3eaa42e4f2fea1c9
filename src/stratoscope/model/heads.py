"""Attention heads: where what each of them gives stands beside the others, in front of attention's last linear map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from stratoscope.model.search.block_calls import ATTENTION
from stratoscope.model.sites import RESIDUAL_AXES, ModelSites, Site

HEADS = "what the heads give"  # z: the input of attention's last linear map
ATTN_OUT = "output of attention's last linear map"
_HEAD_AXES = ("token", "head × its width")


@dataclass(frozen=True)
class Heads:
    """The heads of one block.

    Attributes
    ----------
    site
        The input of attention's last linear map: head after head.
    count, width
        How many heads there are, and how many numbers each gives.
    """

    site: Site
    count: int
    width: int

    def columns(self, head: int) -> slice:
        """Where a head stands."""
        return slice(head * self.width, (head + 1) * self.width)

    @property
    def output(self) -> Site:
        """What attention's last linear map gives, in front of any norm."""
        return Site(self.site.layer, ATTN_OUT, self.site.module, "output", None, RESIDUAL_AXES)


def heads_of(model: nn.Module, sites: ModelSites, layer: int) -> Heads | None:
    """The heads of a block; None where it has none, or its last map does not take equal shares of each."""
    block = sites.layers[layer]
    if block.attn_out is None or not ATTENTION.search(block.mixer):
        return None
    last: Any = model.get_submodule(block.attn_out)
    config: Any = model.config
    count = getattr(config.get_text_config(), "num_attention_heads", None)
    whole = last.weight.numel() // sites.d_model  # what it takes, however its weight is stored
    if not isinstance(count, int) or count < 1 or whole % count:
        return None
    site = Site(layer, HEADS, block.attn_out, "input", 0, _HEAD_AXES)
    return Heads(site, count, whole // count)


def normed_behind(model: nn.Module, sites: ModelSites, layer: int) -> bool:
    """Whether a norm, proved or not, stands between attention's last linear map and what attention adds."""
    block = sites.layers[layer]
    if sites.maps[layer].attn_post_norm is not None:
        return True
    if (
        block.attn_write is None
        or block.attn_out is None
        or f"{block.attn_out}.".startswith(f"{block.attn_write.module}.")
    ):
        return False
    return any(True for _ in model.get_submodule(block.attn_write.module).parameters())  # a dropout has none
