"""What is checked of recorded attention: that its rows sum to 1, and that it gives the output which the model got."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from stratoscope.errors import CaptureError
from stratoscope.model.sites import unit_roundoff
from stratoscope.recorder.attention.rows import AttentionRows, Mask, float32_unit
from stratoscope.recorder.reduce.scratch import Scratch

_ROWS = 4  # of each layer in a forward of the sample, beside each prompt's last one
_OTHERWISE = "This architecture uses its attention in a way that is not known: record without the group attention."
_UNIT = 2.0**-24  # unit roundoff of float32
K = TypeVar("K", bound=Hashable)


class AttentionChecks:
    """The checks of one observer, counted over all that it records.

    Row sums: every row of weights that the model computed itself must sum to 1 over the keys that its mask shows,
    within 2 (u + K·2⁻²⁴), u the unit roundoff of the weights' dtype and K the number of keys; with a learned sink, to
    no more than that. Rows that are recomputed from queries and keys sum to 1 by construction: nothing is learned from
    their sums.

    Outputs: in forwards 1, 2, 4, 8, … since `restart` the recorded rows times the values must be what the model's
    attention function returned, in a few rows of every layer, head and prompt. This proves mask, scaling, cap, bias and
    the pairing of heads. In the same rows, a mask that shows later keys is wrong if not one of them is ever given
    anything.
    Elementwise |error| ≤ (4u + K·2⁻²⁴ + δ)·Σ_k A|v|, δ the error that the rounding of scores can make in A.
    """

    def __init__(self) -> None:
        self._forwards = 0  # settled
        self._begun = 0  # not settled yet
        self._queries = np.zeros((0, 0), bool)
        self._sums: dict[int, Tensor] = {}
        self._outputs: dict[int, Tensor] = {}
        self._ahead: dict[int, Tensor] = {}  # a pair: shown a later key, gave it anything
        self._never: dict[tuple[int, str], Tensor] = {}
        self._counts: Counter[str] = Counter()  # settled
        self._found: Counter[str] = Counter()  # not settled yet
        self._largest = {"row_sum": 0.0, "output": 0.0}
        self._shares = {"row_sum": 0.0, "output": 0.0}

    def restart(self) -> None:
        """Count the forwards of the sample from here: a recording begins."""
        self._forwards = 0

    def forget(self) -> None:
        """Drop what was found and not settled: the batch did not come to its end."""
        self._begun = 0
        self._found.clear()
        self._sums.clear()
        self._outputs.clear()
        self._ahead.clear()
        self._never.clear()

    def begin(self, queries: np.ndarray) -> None:
        """Another forward comes, with these queries [B, Q], real where True."""
        self._begun += 1
        self._queries = queries
        self._found["forwards"] += self.sampled

    def never(self, layer: int, why: str, happened: Tensor) -> None:
        """What must not have happened, a bool that stays on its device until all is settled: one of each layer."""
        before = self._never.get((layer, why))
        self._never[layer, why] = happened if before is None else before | happened

    @property
    def sampled(self) -> bool:
        """Whether the outputs of the present forward are compared."""
        number = self._forwards + self._begun
        return number & (number - 1) == 0

    def row_sums(self, layer: int, sums: Tensor, mask: Mask, dtype: torch.dtype, learned_sink: bool) -> None:
        """Sums [B, H, Q] of rows over the keys that the mask shows."""
        limit = 2 * (unit_roundoff(dtype) + mask.keys.shape[1] * _UNIT)
        error = sums - 1
        error = (error.clamp(min=0) if learned_sink else error.abs()).where(mask.queries[:, None], 0)
        self._keep(self._sums, layer, error, error / limit)
        self._found["rows"] += int(self._queries.sum()) * sums.shape[1]

    def output(
        self, layer: int, rows: AttentionRows, mask: Mask, value: Tensor, output: Tensor, scratch: Scratch
    ) -> None:
        """Compare a few rows with the output [B, H, Q, D] that the model's attention function gave for `value`."""
        batch, groups, keys, width = value.shape
        values = value.float().reshape(batch * groups, keys, width)
        for query in _sample(self._queries):
            visible = mask.rows(query, query + 1, 0, keys)
            weights = rows.applied(query, query + 1, 0, keys, visible, scratch)
            relative = rows.relative_error(query, query + 1, visible)
            later = visible[:, :, mask.first_query + query + 1 - mask.first_key :]
            if later.shape[-1]:  # rows that are recomputed give every key that the mask shows something
                given = weights[..., -later.shape[-1] :] * later[:, None]
                found = torch.stack((later.any(), given.any()))
                self._ahead[layer] = self._ahead[layer] | found if layer in self._ahead else found
            weights = weights.reshape(batch * groups, -1, keys)
            expected = torch.bmm(weights, values).view(batch, rows.heads, 1, width)
            size = torch.bmm(weights, values.abs()).view(batch, rows.heads, 1, width)
            rounding = max(4 * unit_roundoff(value.dtype), 4 * float32_unit(value.device)) + keys * _UNIT
            error = (output[:, :, query : query + 1].float() - expected).abs()
            bound = (rounding + relative) * size + torch.finfo(torch.float32).tiny
            real = mask.queries[:, None, query : query + 1, None]
            self._keep(self._outputs, layer, error.where(real, 0), (error / bound).where(real, 0))
            self._found["values"] += int(self._queries[:, query].sum()) * rows.heads * width

    def settle(self) -> None:
        """Raise what was found since the last time; CaptureError with layer and prompt."""
        for (layer, why), happened in _asked(self._never).items():
            if happened:
                raise positions_lost(layer, why)
        self._never.clear()
        for layer, (shown, given) in _asked(self._ahead).items():
            if shown and not given:
                raise CaptureError(
                    "the mask that was seen shows later tokens, which are given nothing",
                    where=f"layer {layer}",
                    fix=_OTHERWISE,
                )
        self._ahead.clear()
        for kept, name, what in (
            (self._sums, "row_sum", "rows of attention weights that do not sum to 1"),
            (self._outputs, "output", "attention weights that do not give the model's own attention output"),
        ):
            found, shares = _asked(kept), self._shares
            kept.clear()
            for layer, (errors, ratios) in found.items():
                for prompt, (error, ratio) in enumerate(zip(errors, ratios, strict=True)):
                    if not ratio <= 1:
                        raise CaptureError(
                            f"{what}: off by {error:.2g}, {ratio:.2g} times what rounding can do",
                            where=f"layer {layer}, prompt {prompt} of the batch",
                            fix=_OTHERWISE,
                        )
                    self._largest[name] = max(self._largest[name], error)
                    shares[name] = max(shares[name], ratio)
        self._counts += self._found
        self._forwards += self._begun
        self.forget()

    def summary(self) -> Mapping[str, Any]:
        """What was compared, the largest error, and how much of its limit it reached."""
        return {
            "row_sums": {
                "rows": self._counts["rows"],
                "max_error": self._largest["row_sum"],
                "share_of_limit": self._shares["row_sum"],
            },
            "outputs": {
                "forwards": self._counts["forwards"],
                "values": self._counts["values"],
                "max_error": self._largest["output"],
                "share_of_limit": self._shares["output"],
            },
        }

    @staticmethod
    def _keep(kept: dict[int, Tensor], layer: int, error: Tensor, ratio: Tensor) -> None:
        """Largest error and ratio of each prompt, left on the device until they are settled."""
        both = torch.stack((error.flatten(1).amax(1), ratio.flatten(1).amax(1)))  # amax keeps NaN
        kept[layer] = torch.maximum(kept[layer], both) if layer in kept else both


def positions_lost(layer: int, why: str) -> CaptureError:
    """The error of a layer whose keys cannot be told apart."""
    return CaptureError(
        f"the positions of the cached keys are not known: {why}",
        where=f"layer {layer}",
        fix="Use the model's default cache, or record without the group attention.",
    )


def _asked(kept: Mapping[K, Tensor]) -> dict[K, Any]:
    """Tensors of one dtype as numbers, in their order; each device is waited for once for all of one shape."""
    together: defaultdict[tuple[torch.device, torch.Size], list[K]] = defaultdict(list)
    for key, tensor in kept.items():
        together[tensor.device, tensor.shape].append(key)
    found: dict[K, Any] = {}
    for keys in together.values():
        found |= zip(keys, torch.stack([kept[key] for key in keys]).tolist(), strict=True)
    return {key: found[key] for key in kept}


def _sample(queries: np.ndarray) -> list[int]:
    """Rows that are compared: some of the whole length, and each prompt's last one."""
    length = queries.shape[1]
    spread = range(length - 1, -1, -max(1, length // _ROWS))
    last = length - 1 - queries[:, ::-1].argmax(1)
    return sorted({*spread, *last.tolist()})
