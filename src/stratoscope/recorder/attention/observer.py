"""Observes a model's attention while it runs: groups `attention` and `attention-full`. Logits stay bit-identical."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stratoscope.errors import CaptureError
from stratoscope.model.devices import input_device
from stratoscope.recorder.attention.check import AttentionChecks
from stratoscope.recorder.attention.full import PairRows
from stratoscope.recorder.attention.given import WITHOUT, GivenScores, GivenWeights
from stratoscope.recorder.attention.layer import LayerAttention, head_factors
from stratoscope.recorder.attention.seen import SeenAttention
from stratoscope.recorder.reduce.scratch import Scratch


class AttentionObserver:
    """While open, reduces the attention of every layer of a model to the `attn_*` quantities.

    The model keeps its own attention function; what that function was given is reduced once it has answered: see
    `attention.seen`. Open one observer at a time.

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
        self._n_layers = n_layers
        self._seen = SeenAttention(model, n_layers, out_projections, self._add, self._add_flow)
        self.without: list[int] = []
        self._factors: dict[int, Tensor] = {}
        self._layers: dict[int, LayerAttention] = {}
        self._valid: Tensor | None = None
        self._forwards = 0
        self._queries = 0
        self._checks = AttentionChecks()
        self._scratch = Scratch(input_device(model))
        self._open = ExitStack()

    def __enter__(self) -> AttentionObserver:
        self._checks.restart()
        with ExitStack() as stack:
            stack.enter_context(self._seen)
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
            self._seen.refuse("no layer showed attention: it has none, or computes it where it cannot be observed")
        self._checks.settle()
        for number, layer in layers.items():
            if layer.forwards != forwards:
                seen = f"attention seen in {layer.forwards} of {forwards} forwards"
                raise CaptureError(seen, where=f"layer {number}", fix=WITHOUT)
        self.without = self._seen.without(layers)
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
        self._seen.forget()

    @property
    def source(self) -> str:
        """Where attention is observed, in words."""
        return self._seen.source

    @property
    def checked(self) -> Mapping[str, Any]:
        """What was compared so far, with the largest errors and the share of their limits that they reached.

        `row_sums` counts rows of weights that the model computed itself, `outputs` what was compared in the sample of
        forwards 1, 2, 4, 8, …: see `recorder.attention.check`.
        """
        return {"source": self.source, "layers_without": list(self.without), **self._checks.summary()}

    # --- what is seen -----------------------------------------------------------------------------------------------

    def _add_flow(self, number: int, flow: Tensor) -> None:
        """What reaches the output projection of a layer."""
        layer = self._layers.get(number)
        if layer is not None:
            if number not in self._factors:
                self._factors[number] = head_factors(self._seen.projections[str(number)], layer.heads)
            layer.add_flow(flow, self._factors[number])

    def _add(self, number: int, given: GivenScores | GivenWeights) -> None:
        assert self._valid is not None
        valid = self._valid.to(given.output.device)
        if number not in self._layers:
            heads = given.output.shape[1]
            self._layers[number] = LayerAttention(number, valid, heads)
        layer = self._layers[number]
        if layer.forwards == self._forwards:
            self._seen.refuse(f"attention of layer {number} came twice in one forward")
        if (given.output.shape[0], given.output.shape[2]) != (len(valid), self._queries):
            raise CaptureError(
                f"attention of {given.output.shape[2]} queries, where {self._queries} were announced",
                where=f"layer {number}",
                fix="Announce every forward with begin or extend.",
            )
        layer.add(given, valid, self._checks, self._scratch, self._pairs)

    # --- state ------------------------------------------------------------------------------------------------------

    def _reset(self, valid: Tensor | None) -> None:
        self._valid, self._layers, self._forwards = valid, {}, 0
        self._seen.expect(None)

    def _next_forward(self, valid: Tensor, *, goes_on: bool) -> None:
        self._forwards += 1
        self._queries = valid.shape[1]
        self._seen.expect((len(valid), self._queries))
        real = valid.bool().cpu().numpy()  # before the model runs: inside, its devices would wait for the host
        self._checks.begin(real)
        if self._pairs is not None:
            self._pairs.begin(real, goes_on=goes_on)
