"""A fit from the first prompt to the file: Jacobians of prompt after prompt into running means, kept as they come."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stratoscope.errors import CaptureError, InputError, UsageError
from stratoscope.model.devices import input_device
from stratoscope.model.load import LoadedModel
from stratoscope.model.search.find import find_sites
from stratoscope.probe.lens.asked import SKIPPED_FIRST, SKIPPED_LAST, FitLensArguments, unfinished
from stratoscope.probe.lens.corpora import Corpora
from stratoscope.probe.lens.directions import LowRank, low_rank, metric_of
from stratoscope.probe.lens.jacobian import Jacobians
from stratoscope.probe.lens.means import Means, begun, write
from stratoscope.progress import Progress
from stratoscope.trace.lens_file import HALVES, READ, WRITE, LensFile
from stratoscope.trace.lenses import JACOBIAN_LENS
from stratoscope.version import __version__

_PROBE_TOKENS = 64  # on which the sites are found
_TINY = 1e-300
_BASIS = "the model's own weights, as Hugging Face runs them"


class Fit:
    """A lens that is being fitted.

    Parameters
    ----------
    loaded
        The model.
    corpora
        Its texts.
    asked
        What was asked.
    progress
        Called with (stage, done, total or None).
    """

    def __init__(self, loaded: LoadedModel, corpora: Corpora, asked: FitLensArguments, progress: Progress) -> None:
        self._loaded, self._corpora, self._asked, self._progress = loaded, corpora, asked, progress
        progress("finding the model's places", 0, None)
        probe = torch.tensor(corpora.texts[0].ids[None, :_PROBE_TOKENS], device=input_device(loaded.model))
        self._sites = find_sites(loaded.model, probe)
        self._jacobians = Jacobians(loaded.model, self._sites)
        self._jacobians.refuse_looking_ahead(corpora.texts[0].ids)
        rank, width = asked.rank, self._sites.d_model
        if rank is not None and rank > width:
            what = f"{rank} directions are more than there are: the residual stream is {width} wide"
            raise UsageError(what, where="rank", fix=f"Give fewer than {width}, or leave it out to fit all of them.")
        self._rank = None if rank == width else rank

    def run(self) -> None:
        """Fit, and write the file.

        Raises
        ------
        InputError
            A fit is there that is not finished and was begun otherwise, or the file may not be written.
        CaptureError
            The model cannot be differentiated, or what comes out is not finite.
        """
        out = Path(self._asked.out).absolute()
        state = begun(unfinished(out), self._plan) if self._goes_on(out) else None
        texts, chosen = self._corpora.texts, self._directions(state)
        rows = torch.eye(self._sites.d_model) if chosen is None else chosen.rows.float()
        means = Means(len(self._sites.layers), len(rows), self._sites.d_model)
        if state is not None:
            means.take(state)
        replaces = self._asked.overwrite or (state is not None and bool(state.facts["replaces"]))
        directions = {} if chosen is None else {READ: rows.numpy(), WRITE: chosen.write.float().numpy()}
        for number in range(means.prompts, len(texts)):
            found = self._one(f"fitting on {len(texts)} texts", number, len(texts), rows)
            means.add(texts[number], found)
            facts = {**self._facts(means, len(rows)), "unfinished": True, "planned": len(texts), "replaces": replaces}
            write(unfinished(out), facts, {**means.arrays(), **directions}, overwrite=True)
        kept = len(rows) if chosen is None else len(chosen.read)
        facts = self._facts(means, kept) | {"apart": _apart(means), "outside": self._outside(chosen, means)}
        if chosen is not None:
            directions[READ] = directions[READ][:kept]
        write(out, facts, {**means.arrays(kept), **directions}, overwrite=replaces)
        unfinished(out).unlink(missing_ok=True)

    def _goes_on(self, out: Path) -> bool:
        """Whether there is a fit to go on with; refuse to lose one."""
        there = unfinished(out).exists()
        if there and not (self._asked.resume or self._asked.overwrite):
            fix = "Go on with it (`--resume`, resume=True), or begin anew (`--overwrite`, overwrite=True)."
            raise InputError("a fit is there that is not finished", where=str(unfinished(out)), fix=fix)
        return there and self._asked.resume

    def _one(self, stage: str, number: int, of: int, rows: Tensor) -> Tensor:
        """The Jacobians of one text along directions, float32, [depth, direction, d_model]."""
        before, total = (number if of > 1 else 0) * len(rows), of * len(rows)
        found = torch.empty(len(self._sites.layers), *rows.shape)

        def receive(which: slice, part: Tensor) -> None:
            found[:, which] = part
            self._progress(stage, before + which.stop, total)

        self._progress(stage, before, total)
        self._jacobians.run(self._corpora.texts[number].ids, rows, receive)
        if not bool(torch.isfinite(found).all()):
            what = f"the gradients of text {number + 1} of those that are long enough are not finite"
            raise CaptureError(what, where="fit_lens", fix="Fit in float32, or leave that text out.")
        return found

    # --- low rank ---------------------------------------------------------------------------------------------------

    def _directions(self, found: LensFile | None) -> LowRank | None:
        """The directions of a low-rank fit, or those that it was begun with.

        They are chosen to lose little of the logits of what a lens gives, as the Jacobians of one text say it, half at
        all depths together and half at the last. (By what the last block gives alone about twice as much was lost.)
        """
        if self._rank is None:
            return None
        width = self._sites.d_model
        if found is not None:
            rows, back = (torch.tensor(np.asarray(found.arrays[name])) for name in (READ, WRITE))
            return LowRank(rows[: self._rank], rows[self._rank :], width - self._rank, back)
        metric = metric_of(self._loaded.model, self._sites.head, width)
        pilot = self._one("choosing directions by the first text", 0, 1, torch.eye(width)).double()
        moments = torch.zeros(width, width, dtype=torch.float64)
        for number, text in enumerate(self._corpora.texts):
            self._progress("choosing directions by all texts", number, len(self._corpora.texts))
            *streams, last = (x.double().cpu() for x in self._jacobians.streams(text.ids))
            read = [x @ matrix.T for x, matrix in zip(streams, pilot, strict=True)]
            for share, y in [*((0.5 / len(read), one) for one in read), (0.5, last)]:
                moments += share * (y.T @ y) / ((y @ metric) * y).sum().clamp(min=_TINY)
        return low_rank(moments, metric, self._rank)

    def _outside(self, chosen: LowRank | None, means: Means) -> list[float] | None:
        """By depth, the share of the squared logits of J x that lies outside the chosen directions; None at full rank.

        Logits less their mean over the vocabulary, in front of the norm's scale, of all counted tokens. What lies
        outside is estimated from random directions there.
        """
        if chosen is None:
            return None
        inside, outside = torch.zeros(len(self._sites.layers)), torch.zeros(len(self._sites.layers))
        matrices = [means.mean(means.cells, depth) for depth in range(len(self._sites.layers))]
        for number, text in enumerate(self._corpora.texts):
            self._progress("measuring what a low rank loses", number, len(self._corpora.texts))
            for depth, x in enumerate(self._jacobians.streams(text.ids)[:-1]):
                squares = (x.float().cpu() @ matrices[depth].T).square().sum(0)
                inside[depth] += squares[: len(chosen.read)].sum()
                outside[depth] += squares[len(chosen.read) :].sum()
        outside *= chosen.others / max(1, len(chosen.outside))
        return [float(share) for share in outside / (inside + outside)]

    # --- facts ------------------------------------------------------------------------------------------------------

    @property
    def _plan(self) -> dict[str, Any]:
        """What a fit that goes on must agree in."""
        return {
            "weights": self._loaded.identity["weights_sha256"],
            "dtype": self._loaded.identity["dtype"],
            "rank": self._rank,
            "texts": [[one["sha256"], one["tokens_sha256"]] for one in self._corpora.facts],
            "max_tokens": self._asked.max_tokens,
            "chat": self._asked.chat,
        }

    def _facts(self, means: Means, rows: int) -> dict[str, Any]:
        identity: Mapping[str, Any] = self._loaded.identity
        done = self._corpora.texts[: means.prompts]
        return {
            "kind": JACOBIAN_LENS,
            "basis": _BASIS,
            "model": dict(identity),
            "tokenizer_sha256": self._loaded.tokenizer_identity["sha256"],
            "weights_sha256": identity["weights_sha256"],
            "d_model": self._sites.d_model,
            "depths": len(self._sites.layers) + 1,
            "rank": self._rank,
            "rows": rows,
            "corpora": list(self._corpora.facts),
            "cells": [[cell.corpus, cell.half, cell.prompts] for cell in means.cells],
            "prompts": means.prompts,
            "positions": sum(len(text.ids) - SKIPPED_FIRST - SKIPPED_LAST for text in done),
            "skipped": {"first": SKIPPED_FIRST, "last": SKIPPED_LAST},
            "plan": self._plan,
            "software": {"stratoscope": __version__, "torch": torch.__version__},
        }


def _apart(means: Means) -> list[float]:
    """By depth, how far the two halves are apart, relative to the size of the mean over all prompts."""
    halves = [[cell for cell in means.cells if cell.half == half] for half in range(HALVES)]
    found = []
    for depth in range(means.depths):
        one, other = (means.mean(cells, depth) for cells in halves)
        found.append(float((one - other).norm() / means.mean(means.cells, depth).norm()))
    return found
