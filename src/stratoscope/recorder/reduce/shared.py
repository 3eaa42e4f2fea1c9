"""What the reducers of one observer share."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from stratoscope.model.sites import ModelSites
from stratoscope.recorder.lens.lenses import Lenses
from stratoscope.recorder.reduce.arrivals import Arrivals
from stratoscope.recorder.reduce.products import Products
from stratoscope.recorder.reduce.scratch import Scratch
from stratoscope.recorder.reduce.streams import Streams
from stratoscope.recorder.targets.batch import BatchTargets


@dataclass
class Turn:
    """Which forward of a batch is in hand: `goes_on` where its tokens follow those of the forwards before."""

    goes_on: bool = False


@dataclass(frozen=True)
class Shared:
    """The model and its sites, what is recorded of it, and where results are put.

    Attributes
    ----------
    model, sites, record, top_k
        As the observer was given them.
    scratch, products
        Room for results, and lengths and products of pairs of rows.
    targets
        Whose logits are explained; None where no group does that.
    lenses
        With which the residual stream is read; None where no group does that.
    streams, arrivals
        Where the rows of streamed quantities go, and how tensors come from their device.
    turn
        Which forward of a batch is in hand.
    """

    model: nn.Module
    sites: ModelSites
    record: frozenset[str]
    top_k: int
    scratch: Scratch
    products: Products
    streams: Streams
    arrivals: Arrivals
    targets: BatchTargets | None = None
    turn: Turn = field(default_factory=Turn)
    lenses: Lenses | None = None
