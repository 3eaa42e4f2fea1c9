"""Group `neurons`: every activation as the model computed it, written down the moment a layer has it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stratoscope.errors import CaptureError
from stratoscope.model import sites as s
from stratoscope.model.sites import Site
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.reduce.mixture import Mixture
from stratoscope.recorder.reduce.shared import Shared

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class NeuronRows:
    """Streams `neurons`, or in a model with a mixture of experts `active_neurons`: `name` says which.

    Those of a mixture are the neurons of each token's chosen experts side by side, in the router's order, then the
    shared expert's. A block without MLP has none.
    """

    kinds = frozenset({s.NEURONS})

    def __init__(self, shared: Shared, name: str) -> None:
        self._streams, self._arrivals, self._name = shared.streams, shared.arrivals, name
        self._missing = shared.sites.without(s.MLP_OUT)
        self._mixed = {number for number, layer in enumerate(shared.sites.layers) if layer.experts}

    def begin(self, batch: Batch) -> None:
        """Nothing is held."""

    def receive(self, site: Site, tensor: Tensor) -> None:
        """Write the neurons of a dense block, [rows, neurons]."""
        if self._name in self._streams and site.layer not in self._mixed:
            self._send(site.layer, tensor)

    def receive_mixture(self, layer: int, mixture: Mixture) -> None:
        """Write the active neurons of a mixture of experts."""
        if self._name in self._streams:
            parts = [mixture.routed.flatten(1), *([] if mixture.shared is None else [mixture.shared])]
            self._send(layer, torch.cat(parts, 1))

    def forget(self) -> None:
        """Nothing is held."""

    def result(self) -> dict[str, Tensor]:
        """No arrays; says of blocks without MLP that they have no neurons."""
        if self._name in self._streams:
            for layer in self._missing:
                self._streams.fill(self._name, layer)
        return {}

    def _send(self, layer: int, neurons: Tensor) -> None:
        def write(arrived: Tensor) -> None:
            self._streams.write(self._name, layer, stored(arrived))

        self._arrivals.bring(neurons.detach().contiguous(), write)


def stored(tensor: Tensor) -> np.ndarray:
    """The numbers of a tensor on the CPU in their own dtype, without a copy; of bfloat16 the bits, as uint16.

    Raises
    ------
    CaptureError
        The dtype is none that traces store.
    """
    if tensor.dtype not in _DTYPES:
        raise CaptureError(
            f"neurons in {str(tensor.dtype).removeprefix('torch.')} cannot be stored without loss",
            fix="Use --dtype float32, or record without the group neurons.",
        )
    bits = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
    values: np.ndarray = bits.numpy()
    return values
