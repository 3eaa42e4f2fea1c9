"""The running means of a fit, cell by cell, and the file that holds them while it is not finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stratoscope.errors import InputError
from stratoscope.probe.lens.corpora import Text
from stratoscope.replacing import new_files, refused
from stratoscope.trace.lens_file import MOVED, Cell, LensFile, matrix_name, read_lens_file, write_lens_file


class Means:
    """Mean Jacobians over the prompts so far.

    Parameters
    ----------
    depths
        How many depths have a matrix.
    rows, d_model
        Size of a matrix.

    Attributes
    ----------
    depths
        How many depths have a matrix.
    moved
        Of each prompt, by how much it moved the mean over all prompts, relative to that mean's size, by depth.
    """

    def __init__(self, depths: int, rows: int, d_model: int) -> None:
        self.depths = depths
        self._shape = (depths, rows, d_model)
        self._means: dict[tuple[int, int], Tensor] = {}
        self._counts: dict[tuple[int, int], int] = {}
        self.moved: list[np.ndarray] = []

    @property
    def prompts(self) -> int:
        """How many prompts there are in it."""
        return len(self.moved)

    @property
    def cells(self) -> list[Cell]:
        """The cells that have a prompt."""
        return [Cell(corpus, half, count) for (corpus, half), count in sorted(self._counts.items())]

    def add(self, text: Text, found: Tensor) -> None:
        """Add a prompt's Jacobians, [depth, row, d_model]."""
        key = (text.corpus, text.half)
        self.moved.append(np.full(self._shape[0], np.nan, np.float32))
        before = self.prompts - 1
        if before:
            step = torch.stack([(found[depth] - self.mean(self.cells, depth)).norm() for depth in range(len(found))])
        count = self._counts[key] = self._counts.get(key, 0) + 1
        mean = self._means.setdefault(key, torch.zeros(self._shape, dtype=torch.float32))
        mean += (found.float() - mean) / count
        if before:
            size = torch.stack([self.mean(self.cells, depth).norm() for depth in range(len(found))])
            self.moved[-1] = (step / self.prompts / size).float().numpy()

    def mean(self, cells: Sequence[Cell], depth: int) -> Tensor:
        """Mean over the prompts of some cells at a depth."""
        prompts = sum(cell.prompts for cell in cells)
        return sum(
            (self._means[cell.corpus, cell.half][depth] * (cell.prompts / prompts) for cell in cells), torch.zeros(())
        )

    def arrays(self, rows: int | None = None) -> dict[str, np.ndarray]:
        """As a file holds them; of each matrix the first so many rows."""
        found = {
            matrix_name(cell, depth): self._means[cell.corpus, cell.half][depth, :rows].numpy()
            for cell in self.cells
            for depth in range(self._shape[0])
        }
        return {**found, MOVED: np.stack(self.moved)}

    def take(self, file: LensFile) -> None:
        """Go on from what a file holds.

        Raises
        ------
        ValueError
            It is of another size.
        """
        for cell in file.cells:
            key = (cell.corpus, cell.half)
            stack = [np.asarray(file.arrays[matrix_name(cell, depth)]) for depth in range(self._shape[0])]
            self._means[key] = torch.from_numpy(np.stack(stack)).view(self._shape)
            self._counts[key] = cell.prompts
        self.moved = list(np.asarray(file.arrays[MOVED]))


def write(path: Path, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray], *, overwrite: bool) -> None:
    """Write a file of a lens: the old or the new is there, never a part."""
    with new_files([path], overwrite=overwrite) as (file,), refused(path):
        write_lens_file(file, facts, arrays)


def begun(path: Path, plan: Mapping[str, Any]) -> LensFile:
    """The file of a fit that is not finished.

    Raises
    ------
    InputError
        It was begun otherwise than is asked now.
    """
    file = read_lens_file(path)
    for name, value in plan.items():
        if file.facts["plan"].get(name) != value:
            raise InputError(
                f"it was begun with another {name.replace('_', ' ')}",
                where=str(path),
                fix="Ask for the same, or begin anew (`--overwrite`, overwrite=True).",
            )
    return file
