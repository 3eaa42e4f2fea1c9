"""Group `lens`: residuals of chosen tokens at every depth are kept until the forward ends, and then read all at once.

One product of all of them with the unembedding, some rows after others. Of every token only the logits of targets are
read, by one product with their directions, while the residual is there.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from stratoscope.defaults import LENS_TOKENS
from stratoscope.model import sites as s
from stratoscope.model.head import Head
from stratoscope.model.sites import Site
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.lens.tokens import Read, read
from stratoscope.recorder.lens.unembedding import Unembedding
from stratoscope.recorder.reduce.mixture import Mixture
from stratoscope.recorder.reduce.passages import Fixed, exact
from stratoscope.recorder.reduce.shared import Shared


class LensReducer:
    """What lenses read of the tokens of each batch.

    Depths are those of the residual stream: in front of the first block, and behind each.
    """

    kinds = frozenset({s.BLOCK_IN, s.BLOCK_OUT})

    def __init__(self, shared: Shared) -> None:
        assert shared.lenses is not None
        head = shared.sites.head
        assert isinstance(head, Head)
        self._lenses, self._scratch, self._targets = shared.lenses, shared.scratch, shared.targets
        self._turn = shared.turn
        self._depths, self._count = len(shared.sites.layers) + 1, len(shared.lenses.names)
        self._unembedding = Unembedding(shared.model, head, head.vocabulary)
        self._fixed = Fixed(always=shared.targets is not None and not shared.targets.need_a_forward)
        self._prompts = self._length = 0
        self._columns: slice | None = None
        self._kept: dict[int, Tensor] = {}  # depth -> residuals of the chosen columns, [prompt × column, residual]
        self._logits: dict[int, Tensor] = {}  # depth -> logits of the targets of all rows, [row, target]

    # --- a batch ----------------------------------------------------------------------------------------------------

    def begin(self, batch: Batch) -> None:
        """Make room for a batch."""
        self._fixed.begin()
        self._prompts, self._length = batch.input_ids.shape
        self._columns = self._lenses.columns(self._length, goes_on=self._turn.goes_on)
        self._kept, self._logits = {}, {}

    def receive(self, site: Site, tensor: Tensor) -> None:
        """Keep what is read of one depth."""
        if site.kind == s.BLOCK_IN and site.layer:
            return  # the output of the block before: proved
        depth = 0 if site.kind == s.BLOCK_IN else site.layer + 1
        if self._columns is not None:
            rows = tensor.view(self._prompts, self._length, -1)[:, self._columns]
            room = self._scratch.get(f"lens {depth}", *rows.shape, dtype=tensor.dtype, device=tensor.device)
            self._kept[depth] = room.copy_(rows).flatten(0, 1)
        if self._targets is not None:
            self._logits[depth] = self._target_logits(tensor, self._length).to(self._scratch.device)

    def receive_mixture(self, layer: int, mixture: Mixture) -> None:
        """Nothing of it."""

    def forget(self) -> None:
        """Let go of what a forward that failed has left."""
        self._kept, self._logits = {}, {}
        self._lenses.forget()

    def _target_logits(self, x: Tensor, length: int) -> Tensor:
        """y of residuals [prompt × length, residual] at any depth, [row, target], float32."""
        assert self._targets is not None
        targets, device = self._targets, x.device
        vectors = self._fixed.get(("directions", device), lambda: targets.vectors().to(device))
        constants = self._fixed.get(("constants", device), lambda: torch.stack(targets.constants()).sum(0).to(device))
        x = x.float()
        scale = targets.directions.scale(x)
        if len(vectors) == 1:
            return exact(x, vectors[0].T) * scale + constants
        along = exact(x.view(self._prompts, length, -1), vectors.mT) * scale.view(self._prompts, length, 1)
        return (along + constants[:, None]).flatten(0, 1)

    # --- the end ----------------------------------------------------------------------------------------------------

    def result(self) -> dict[str, Tensor]:
        """The quantities of the batch, [depth, row, lens, …]."""
        kept, self._kept = self._kept, {}
        rows, targets = self._prompts * self._length, 0 if self._targets is None else len(self._targets)
        shape = (self._depths, rows, self._count)
        found = {
            "lens_token": self._missing(*shape, LENS_TOKENS, dtype=torch.int32),
            "lens_logprob": self._missing(*shape, LENS_TOKENS),
            "lens_answer_logprob": self._missing(*shape),
            "lens_answer_rank": self._missing(*shape, dtype=torch.int32),
        }
        if targets:
            found["lens_target_logprob"] = self._missing(*shape, targets)
            found["lens_target_rank"] = self._missing(*shape, targets, dtype=torch.int32)
            found["lens_target_logit"] = logits = self._missing(*shape, targets)
            for depth, values in self._logits.items():
                logits[depth, :, 0] = values
            logits[-1] = logits[-1, :, :1]
        if self._columns is not None and kept:
            self._read(found, kept, self._columns)
        self._logits = {}
        self._lenses.forget()
        return found

    def _missing(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.full(shape, -1 if dtype == torch.int32 else torch.nan, dtype=dtype, device=self._scratch.device)

    def _read(self, found: dict[str, Tensor], kept: dict[int, Tensor], columns: slice) -> None:
        """Read the kept residuals, and put what was read where it belongs."""
        last, width = self._depths - 1, columns.stop - columns.start
        rows = torch.arange(self._prompts * self._length).view(self._prompts, -1)[:, columns].flatten()
        rows = rows.to(self._scratch.device)
        own = self._lenses.own_logits(columns)
        targets = self._target_tokens(width)
        of_last = self._read_own(own, targets)
        self._put(found, of_last, last, slice(None), rows)
        tokens = torch.cat((of_last.token[:, :1], targets), 1)
        for cells, normed in self._together(kept, last):
            parts = [
                read(logits, tokens.repeat(len(cells), 1)[some], LENS_TOKENS)
                for some, logits in self._unembedding.logits(normed)
            ]
            whole = Read(*(torch.cat(values) for values in zip(*parts, strict=True)))
            for place, (depth, lens) in enumerate(cells):
                each = slice(place * len(rows), (place + 1) * len(rows))
                self._put(found, Read(*(values[each] for values in whole)), depth, slice(lens, lens + 1), rows)
        if "lens_target_logit" in found:
            self._fitted_logits(found["lens_target_logit"], kept, width, rows)
        ends = (torch.arange(self._prompts) + 1) * width - 1
        self._compare(kept[last][ends.to(kept[last].device)], own[ends.to(own.device)])

    def _together(self, kept: dict[int, Tensor], last: int) -> Iterator[tuple[list[tuple[int, int]], Tensor]]:
        """Depths and lenses whose rows are read at once, and what the unembedding is given of them."""
        cells: list[tuple[int, int]] = []
        stacked: list[Tensor] = []
        for depth in range(last):
            for lens in range(self._count):
                if not self._lenses.reads(lens, depth):
                    continue
                cells.append((depth, lens))
                stacked.append(self._unembedding.normed(self._lenses.transported(lens, depth, kept[depth])))
                if sum(map(len, stacked)) >= self._unembedding.at_once:
                    yield cells, torch.cat(stacked)
                    cells, stacked = [], []
        if cells:
            yield cells, torch.cat(stacked)

    def _target_tokens(self, width: int) -> Tensor:
        """The targets of each row, [row, target]; none where none are explained."""
        device = self._unembedding.device
        if self._targets is None:
            return torch.empty(self._prompts * width, 0, dtype=torch.int64, device=device)
        return self._targets.token.to(device).repeat_interleave(width, 0)

    def _read_own(self, own: Tensor, targets: Tensor) -> Read:
        """The model's own logits, as they are: its likeliest token is the answer."""
        unembedding = self._unembedding
        step = unembedding.at_once
        parts = [
            read(unembedding.padded(own[first : first + step]), targets[first : first + step], LENS_TOKENS)
            for first in range(0, len(own), step)
        ]
        found = Read(*(torch.cat(values) for values in zip(*parts, strict=True)))
        answer, first = found.logprob[:, :1], torch.ones_like(found.token[:, :1])
        return found._replace(
            logprob_of=torch.cat((answer, found.logprob_of), 1), rank_of=torch.cat((first, found.rank_of), 1)
        )

    def _fitted_logits(self, into: Tensor, kept: dict[int, Tensor], width: int, rows: Tensor) -> None:
        """Logits of targets as fitted lenses read them, at chosen tokens alone: J x of every one would take long."""
        for depth in range(self._depths - 1):
            for lens in range(1, self._count):
                if self._lenses.reads(lens, depth):
                    moved = self._lenses.transported(lens, depth, kept[depth])
                    into[depth, rows, lens] = self._target_logits(moved, width).to(into.device)

    def _compare(self, x: Tensor, own: Tensor) -> None:
        """How far the last depth, read as all others are, is from the model's own logits where prompts end."""
        vocabulary = self._unembedding.vocabulary
        for rows, logits in self._unembedding.logits(self._unembedding.normed(x)):
            wanted = own[rows, :vocabulary].to(logits.device).float()
            error = (logits[:, :vocabulary] - wanted).abs().amax(1) / wanted.abs().amax(1)
            self._lenses.errors[rows] = torch.fmax(self._lenses.errors[rows], error.cpu())

    def _put(self, found: dict[str, Tensor], some: Read, depth: int, lenses: slice, rows: Tensor) -> None:
        values = Read(*(one.to(self._scratch.device)[:, None] for one in some))
        found["lens_token"][depth, rows, lenses] = values.token.int()
        found["lens_logprob"][depth, rows, lenses] = values.logprob
        found["lens_answer_logprob"][depth, rows, lenses] = values.logprob_of[..., 0]
        found["lens_answer_rank"][depth, rows, lenses] = values.rank_of[..., 0].int()
        if "lens_target_rank" in found:
            found["lens_target_logprob"][depth, rows, lenses] = values.logprob_of[..., 1:]
            found["lens_target_rank"][depth, rows, lenses] = values.rank_of[..., 1:].int()
