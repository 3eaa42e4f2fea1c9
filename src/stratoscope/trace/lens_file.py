"""A fitted lens on disk: a safetensors file of mean Jacobians, whose metadata say what they are of. No torch.

Prompts are kept apart in cells, one for each half of each corpus; a part of the lens (all of it, a half, a corpus) is
the mean over its cells, weighted by their prompts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from stratoscope.errors import InputError, ascii_json
from stratoscope.trace.format import strict_json
from stratoscope.trace.lenses import JACOBIAN_LENS, name_of_corpus, name_of_half, name_of_part

VERSION = "1.0"
HALVES = 2
READ, WRITE, MOVED = "read", "write", "moved"  # arrays of a file, besides those of `matrix_name`
_ABOUT = "stratoscope_lens"  # of the metadata
_LONGEST_HEADER = 16 * 2**20
_MOST_CELLS, _MOST_DEPTHS, _WIDEST = 1_000, 10_000, 1_000_000
_AGAIN = "Fit it again (`stratoscope fit-lens`), or fetch it again."


@dataclass(frozen=True)
class Cell:
    """The prompts of one half of one corpus, and how many they are."""

    corpus: int
    half: int
    prompts: int


@dataclass(frozen=True)
class LensFile:
    """What a file of a fitted lens holds.

    Attributes
    ----------
    facts
        What it is: `kind`, `weights_sha256`, `d_model`, `depths`, `corpora`, `prompts`, `rank`, …
    arrays
        Name to array, read from the file where it is used.
    """

    facts: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    @property
    def unfinished(self) -> bool:
        """Whether a fit is to go on from it: not all of its prompts are in it."""
        return bool(self.facts.get("unfinished"))

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Its cells, none of them empty."""
        return tuple(Cell(*numbers) for numbers in self.facts["cells"])

    def parts(self) -> dict[str, tuple[Cell, ...]]:
        """Name of each part of the lens, all of it first, to the cells whose mean it is."""
        corpora = self.facts["corpora"]
        found = {JACOBIAN_LENS: self.cells}
        for half in range(HALVES):
            mine = tuple(cell for cell in self.cells if cell.half == half)
            found[name_of_part(JACOBIAN_LENS, name_of_half(half))] = mine
        if len(corpora) > 1:
            for number, corpus in enumerate(corpora):
                mine = tuple(cell for cell in self.cells if cell.corpus == number)
                found[name_of_part(JACOBIAN_LENS, name_of_corpus(corpus["name"]))] = mine
        return {name: cells for name, cells in found.items() if cells}

    def mean(self, cells: Sequence[Cell], depth: int) -> np.ndarray:
        """Mean over the prompts of some cells: float32, [rows, d_model]."""
        prompts = sum(cell.prompts for cell in cells)
        found = np.zeros(self.arrays[matrix_name(cells[0], depth)].shape, np.float32)
        for cell in cells:
            found += np.float32(cell.prompts / prompts) * self.arrays[matrix_name(cell, depth)]
        return found


def matrix_name(cell: Cell, depth: int) -> str:
    """Name of the array that holds the mean of a cell at a depth."""
    return f"corpus {cell.corpus} half {cell.half} depth {depth}"


# --- written --------------------------------------------------------------------------------------------------------


def write_lens_file(path: Path, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a file that nobody reads yet; arrays are float32."""
    header: dict[str, Any] = {"__metadata__": {_ABOUT: ascii_json({**facts, "format_version": VERSION})}}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + 4 * array.size
        header[name] = {"dtype": "F32", "shape": [*array.shape], "data_offsets": [start, end]}
    head = ascii_json(header).encode()
    head += b" " * (-len(head) % 8)  # so that numbers stand where a computer reads them fast
    with path.open("wb") as stream:
        stream.write(len(head).to_bytes(8, "little") + head)
        for array in arrays.values():
            stream.write(np.ascontiguousarray(array, "<f4").data)


# --- read -----------------------------------------------------------------------------------------------------------


def is_lens_file(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a file that begins as one of a fitted lens does."""
    try:
        if not Path(path).is_file():
            return False
        with Path(path).open("rb") as stream:
            start = stream.read(8 + 4096)
    except (OSError, ValueError):
        return False
    return start[8:9] == b"{" and f'"{_ABOUT}"'.encode() in start


def read_lens_file(path: str | os.PathLike[str]) -> LensFile:
    """What a file of a fitted lens holds, also one from a stranger: it can at worst be refused.

    Raises
    ------
    InputError
        It is none, is damaged, or was written by a newer version.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= min(_LONGEST_HEADER, size - 8):
                raise _refusal(path, "it is no file of a fitted lens")
            head = stream.read(length)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), fix="Check the path.") from None
    try:
        header = strict_json.load(head)
        facts = strict_json.load(header.pop("__metadata__")[_ABOUT])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _refusal(path, "it is no file of a fitted lens") from None
    if not isinstance(facts, dict) or not isinstance(facts.get("format_version"), str):
        raise _refusal(path, "it is no file of a fitted lens")
    if facts["format_version"].partition(".")[0] != VERSION.partition(".")[0]:
        fix = "Install a newer Stratoscope."
        raise InputError("it was written by another version of Stratoscope", where=str(path), fix=fix)
    try:
        places = dict(_places(header, size - 8 - length))
        found = LensFile(facts, {name: _mapped(path, 8 + length + at, shape) for name, (at, shape) in places.items()})
        _check(found)
    except KeyError as error:
        raise _refusal(path, f"it is damaged ({error} is missing)") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise _refusal(path, f"it is damaged ({error})") from None
    return found


def _places(header: Mapping[str, Any], size: int) -> Iterator[tuple[str, tuple[int, tuple[int, ...]]]]:
    """Name, place behind the head, and shape of each array."""
    for name, entry in header.items():
        shape, (start, end) = tuple(entry["shape"]), entry["data_offsets"]
        if not all(isinstance(number, int) and 0 <= number <= size for number in (*shape, start, end)):
            raise ValueError(f"{name!r} does not fit into the file")
        if entry["dtype"] != "F32" or prod(shape) * 4 != end - start or end > size:
            raise ValueError(f"{name!r} does not fit into the file")
        yield name, (start, shape)


def _mapped(path: Path, start: int, shape: tuple[int, ...]) -> np.ndarray:
    if prod(shape) == 0:
        return np.zeros(shape, np.float32)
    return np.memmap(path, "<f4", "r", start, shape)


def _check(lens: LensFile) -> None:
    """Raise ValueError where facts and arrays do not agree."""
    facts = lens.facts
    _check_types(facts)
    d_model, depths, rank, rows = (facts[name] for name in ("d_model", "depths", "rank", "rows"))
    _whole("d_model", d_model, _WIDEST)
    _whole("depths", depths, _MOST_DEPTHS)
    if facts["kind"] != JACOBIAN_LENS or not isinstance(facts["weights_sha256"], str):
        raise ValueError("it does not say what it is")
    _whole("rows", rows, d_model)
    if rank is not None:
        _whole("rank", rank, rows)
        if lens.arrays[WRITE].shape != (d_model, rank) or lens.arrays[READ].shape != (rows, d_model):
            raise ValueError(f"{READ!r} or {WRITE!r} has another shape than it says")
    if not lens.unfinished and rows != (rank or d_model):
        raise ValueError("it has more or fewer rows than it says")
    if lens.arrays[MOVED].ndim != 2 or lens.arrays[MOVED].shape[1] != depths - 1:
        raise ValueError(f"{MOVED!r} has another shape than it says")
    corpora, cells = facts["corpora"], lens.cells
    if not 0 < len(cells) <= _MOST_CELLS or not all(isinstance(corpus["name"], str) for corpus in corpora):
        raise ValueError("it does not say which prompts it is of")
    if len({corpus["name"] for corpus in corpora}) < len(corpora):
        raise ValueError("two of its corpora have one name")
    for cell in cells:
        if not (0 <= cell.corpus < len(corpora) and 0 <= cell.half < HALVES):
            raise ValueError("it does not say which prompts it is of")
        _whole("prompts", cell.prompts, 2**40)
        for depth in range(depths - 1):
            if lens.arrays[matrix_name(cell, depth)].shape != (rows, d_model):
                raise ValueError(f"{matrix_name(cell, depth)!r} has another shape than it says")


def _check_types(facts: Mapping[str, Any]) -> None:
    """Raise ValueError where a fact that is told or computed with is of another type than it has."""
    model, skipped, corpora = facts["model"], facts["skipped"], facts["corpora"]
    texts = [facts["basis"], model["name"], model["dtype"]]
    counts = [facts["prompts"], facts["positions"], skipped["first"], skipped["last"]]
    counts += [facts["planned"]] if facts.get("unfinished") else []
    for corpus in corpora:
        texts += [corpus["name"], corpus["sha256"]]
        counts += [corpus["prompts"], corpus["too_short"], corpus["cut"]]
        counts += [corpus[name] for name in ("repeated", "max_tokens") if name in corpus]
    if not all(isinstance(text, str) for text in texts) or not all(type(count) is int for count in counts):
        raise ValueError("it does not say what it is of in words and numbers")
    for name in ("apart", "outside"):
        shares = facts.get(name)
        if shares is not None and not (
            isinstance(shares, list)
            and len(shares) == facts["depths"] - 1
            and all(isinstance(share, int | float) and not isinstance(share, bool) for share in shares)
        ):
            raise ValueError(f"{name!r} is no number of each depth")


def _whole(name: str, value: object, most: int) -> None:
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(f"{name} is {json.dumps(value)[:40]}")


def _refusal(path: Path, what: str) -> InputError:
    return InputError(what, where=str(path), fix=_AGAIN)
