"""One prompt's Jacobians: ∂ of what the last block gives, summed over later tokens, by what stands at each depth.

A vector–Jacobian product whose cotangent stands at all counted tokens gives, of a model whose tokens do not depend on
later ones, that sum for every depth and token at once. So a direction of the output costs about one forward, and many
directions are rows of one batch, which holds the prompt as often.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stratoscope.errors import CaptureError, is_out_of_memory
from stratoscope.model.devices import input_device
from stratoscope.model.hooks import BlockHooks
from stratoscope.model.sites import ModelSites
from stratoscope.probe.lens.asked import SKIPPED_FIRST, SKIPPED_LAST
from stratoscope.recorder.effects.gradients import differentiable
from stratoscope.recorder.input.batches import Batch, GivenTokens, make_batch
from stratoscope.recorder.memory import must_fit
from stratoscope.recorder.observe import forward, last_logits_only

_TOKENS_AT_ONCE = 1024  # of a batch: more is no faster on a processor
_APART = 0.02  # how far a token's x_L may be off without the tokens behind it, relative: rounding, not what they say
_OTHERWISE = "Load the model with another attention implementation, or in float32."

Receive = Callable[[slice, Tensor], None]


class Jacobians:
    """A model that is differentiated, prompt by prompt.

    Parameters
    ----------
    model, sites
        The model, and its proved sites.
    """

    def __init__(self, model: nn.Module, sites: ModelSites) -> None:
        self._model, self._sites = model, sites
        self._device = input_device(model)
        self._blocks = [(layer.block_in, layer.block_out) for layer in sites.layers]
        self._at_once = _TOKENS_AT_ONCE

    def streams(self, ids: np.ndarray) -> list[Tensor]:
        """The residual stream of a prompt at every depth, the last included, at counted tokens: [token, d_model]."""
        with self._seen() as seen:
            forward(self._model, self._batch(ids, 1), **last_logits_only(self._model))
        return [rows[_counted(ids)] for rows in seen.rows]

    def refuse_looking_ahead(self, ids: np.ndarray) -> None:
        """Raise where what a token becomes depends on later tokens: sums over later tokens would miss those."""
        with self._seen() as seen:
            forward(self._model, self._batch(ids, 1), **last_logits_only(self._model))
        with self._seen() as without:
            forward(self._model, self._batch(ids[:-1], 1), **last_logits_only(self._model))
        there, here = seen.rows[-1][:-1].double(), without.rows[-1].double()
        if float(((there - here).norm(dim=-1) / there.norm(dim=-1)).nan_to_num().max()) > _APART:
            raise CaptureError(
                "what a token becomes depends on the tokens behind it, and a Jacobian lens is of models without that",
                where="fit_lens",
                fix="Use the logit lens.",
            )

    def run(self, ids: np.ndarray, directions: Tensor, receive: Receive) -> None:
        """Give out the rows of the Jacobians of a prompt, a few directions at a time.

        Parameters
        ----------
        ids
            The prompt.
        directions
            Of the output, [direction, d_model].
        receive
            Called with which of the directions, and the mean over counted tokens of what they give: float32 (of a
            model in float64, float64), [depth, direction, d_model], without the last depth.

        Raises
        ------
        CaptureError
            The model cannot be differentiated, or not even one direction fits into memory.
        """
        done = 0

        def received(which: slice, rows: Tensor) -> None:
            nonlocal done
            receive(which, rows)
            done = which.stop

        while done < len(directions):
            rows = max(1, min(self._at_once // len(ids), len(directions) - done))
            try:
                self._in_rows(ids, directions, done, rows, received)
            except (CaptureError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or rows == 1:
                    raise
                self._at_once = rows // 2 * len(ids)

    def _in_rows(self, ids: np.ndarray, directions: Tensor, first: int, rows: int, receive: Receive) -> None:
        """The directions from `first` on, by one forward of so many rows."""
        width, counted = self._sites.d_model, _counted(ids)
        with must_fit(f"a prompt of {len(ids)} tokens"), differentiable(self._model, where="fit_lens", fix=_OTHERWISE):
            with self._seen() as seen:
                self._model(**self._batch(ids, rows).inputs(), use_cache=False, **last_logits_only(self._model))
            *leaves, last = seen.rows
            for start in range(first, len(directions), rows):
                here = directions[start : start + rows].to(last.device, last.dtype)
                cotangent = torch.zeros(rows, len(ids), width, device=last.device, dtype=last.dtype)
                cotangent[: len(here), counted] = here[:, None]
                found = torch.autograd.grad(
                    last, leaves, cotangent.view_as(last), retain_graph=True, allow_unused=True, materialize_grads=True
                )
                means = [one.view(rows, len(ids), width)[: len(here), counted].mean(1) for one in found]
                wide = torch.float64 if last.dtype == torch.float64 else torch.float32
                receive(slice(start, start + len(here)), torch.stack([one.to("cpu", wide) for one in means]))

    def _batch(self, ids: np.ndarray, rows: int) -> Batch:
        given = GivenTokens(ids, np.zeros(len(ids), np.int8))
        return make_batch([given] * rows, pad_id=0, padding_side="right", device=self._device)

    def _seen(self) -> _Streams:
        return _Streams(self._model, self._blocks)


class _Streams:
    """While open, a forward's residual streams are kept, [row, d_model], and gradients are counted from the first."""

    def __init__(self, model: nn.Module, blocks: Any) -> None:
        self.rows: list[Tensor] = []
        self._last = len(blocks) - 1
        self._hooks = BlockHooks(model, blocks, enter=self._enter, leave=self._leave)

    def __enter__(self) -> _Streams:
        self._hooks.__enter__()
        return self

    def __exit__(self, *failed: Any) -> None:
        self._hooks.__exit__(*failed)

    def _enter(self, number: int, rows: Tensor) -> Tensor:
        if number == 0 and torch.is_grad_enabled():
            rows = rows.detach().requires_grad_()
        self.rows.append(rows)
        return rows

    def _leave(self, number: int, rows: Tensor) -> None:
        if number == self._last:
            self.rows.append(rows)


def _counted(ids: np.ndarray) -> slice:
    """The positions that count, as where gradients are taken and as where they lead."""
    return slice(SKIPPED_FIRST, len(ids) - SKIPPED_LAST)
