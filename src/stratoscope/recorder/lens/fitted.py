"""A fitted lens: what a file says of how the residual stream at a depth becomes the one behind the last block."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stratoscope.errors import InputError
from stratoscope.recorder.lens.transformer_lens import TransformerLensFile, open_transformer_lens
from stratoscope.trace.lens_file import WRITE, LensFile, is_lens_file, read_lens_file

_KEPT = 2**31  # bytes of matrices that are held once they were asked for; of a larger lens each is read every time
_ANEW = "Fit one to this model: `stratoscope fit-lens`."


class FittedLens:
    """A lens unembed(norm(J_l x_l)) whose matrices were fitted to a model.

    Parameters
    ----------
    parts
        Names of what is in it: all of it first, then what shows how far it is the corpus's.
    facts
        What it is, as JSON holds it.
    depths
        Places of the residual stream in the model, 0 in front of its first block, the last behind its last.
    fitted
        The depths that it has a matrix of, the last aside.
    matrix
        Gives the matrix of a part at a depth: float32, [d_model, d_model], or [rank, d_model].
    write
        Of a low-rank lens, what makes [d_model] of [rank]: float32, [d_model, rank].
    """

    def __init__(
        self,
        parts: tuple[str, ...],
        facts: Mapping[str, Any],
        depths: int,
        fitted: Collection[int],
        matrix: Callable[[int, int], Tensor],
        write: Tensor | None = None,
    ) -> None:
        self.parts, self.facts, self.depths = parts, facts, depths
        self._fitted = frozenset(fitted)
        self._write = write
        d_model = int(facts["d_model"])
        rows = d_model if write is None else write.shape[1]
        held = _KEPT // max(1, 4 * rows * d_model)
        self._matrix = lru_cache(maxsize=None if held >= len(parts) * depths else 0)(partial(_placed, matrix, write))

    def fitted(self, depth: int) -> bool:
        """Whether it reads a depth; the last it always does, as the model."""
        return depth == self.depths - 1 or depth in self._fitted

    def apply(self, part: int, depth: int, x: Tensor) -> Tensor:
        """J x of residuals at a depth, [..., d_model], float32; at the last depth x itself."""
        if depth == self.depths - 1:
            return x
        read, write = self._matrix(part, depth, x.device)
        y = torch.nn.functional.linear(x.float(), read)
        return y if write is None else torch.nn.functional.linear(y, write)


def _placed(
    matrix: Callable[[int, int], Tensor], write: Tensor | None, part: int, depth: int, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """The one or two matrices of a part and depth, where they are used."""
    return matrix(part, depth).to(device), None if write is None else write.to(device)


def open_lens(path: str | os.PathLike[str], *, weights_sha256: str | None, d_model: int, depths: int) -> FittedLens:
    """A fitted lens of a model, of a file of `fit-lens` or in TransformerLens's form, also one from a stranger.

    Parameters
    ----------
    path
        The file.
    weights_sha256
        Of the model that it is to read; None where that is not known.
    d_model
        Width of the model's residual stream.
    depths
        Its places: one more than there are blocks.

    Raises
    ------
    InputError
        The file is no lens, is damaged or holds code, or is a lens of another model.
    """
    path = Path(path)
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise InputError(what, where=str(path), fix="Give a file that `stratoscope fit-lens` wrote, or a .pt file.")
    if is_lens_file(path):
        return _own(path, read_lens_file(path), weights_sha256, d_model, depths)
    return _transformer_lens(path, open_transformer_lens(path, d_model=d_model, depths=depths), depths)


def _own(path: Path, file: LensFile, weights: str | None, d_model: int, depths: int) -> FittedLens:
    facts = file.facts
    if file.unfinished:
        what = f"not all of its prompts are in it: {facts['prompts']:,} of {facts['planned']:,}"
        raise InputError(what, where=str(path), fix="Go on with it: `stratoscope fit-lens … --resume`.")
    if weights is not None and facts["weights_sha256"] != weights:
        raise InputError(
            f"it was fitted to another model ({facts['model']['name']}): its weights are others",
            where=str(path),
            fix=_ANEW,
        )
    if (facts["d_model"], facts["depths"]) != (d_model, depths):
        raise InputError("it was fitted to a model of another size", where=str(path), fix=_ANEW)
    parts = file.parts()
    cells = tuple(parts.values())

    def matrix(part: int, depth: int) -> Tensor:
        found = torch.from_numpy(file.mean(cells[part], depth))
        if not bool(torch.isfinite(found).all()):
            raise InputError(f"its matrix of depth {depth} holds what is no number", where=str(path), fix=_ANEW)
        return found

    write = None if facts["rank"] is None else torch.from_numpy(file.arrays[WRITE].copy())
    if write is not None and not bool(torch.isfinite(write).all()):
        raise InputError("its low-rank matrix holds what is no number", where=str(path), fix=_ANEW)
    known = {**facts, "sha256": _sha256(path)}
    return FittedLens(tuple(parts), known, depths, range(depths - 1), matrix, write)


def _transformer_lens(path: Path, file: TransformerLensFile, depths: int) -> FittedLens:
    def matrix(_: int, depth: int) -> Tensor:
        return file.matrices[depth].float()

    return FittedLens((file.kind,), {**file.facts, "sha256": _sha256(path)}, depths, file.matrices, matrix)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
