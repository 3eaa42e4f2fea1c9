"""How many bytes a recording takes on disk, as far as that is known before anything runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path

import numpy as np

from stratoscope.errors import TraceError
from stratoscope.names import PROMPT, QUANTITIES, REAL
from stratoscope.recorder.reduce.streams import Shape, rows_of
from stratoscope.trace.format.schema import quantity_layout
from stratoscope.words import size_text

LEAST_COMPRESSED = 0.6  # of floating-point quantities, compression leaves at least this share: 0.7 to 0.9 were seen


def streamed_bytes(shapes: Mapping[str, Shape], lengths: Sequence[int]) -> dict[str, int]:
    """Bytes of each streamed quantity of prompts of these lengths: exact, as nothing is compressed."""
    found = {}
    for name, shape in shapes.items():
        layout = quantity_layout(name, REAL, shape.dtype)
        shards = layout.shards(dict(zip(layout.dims[1:], (shape.layers, shape.width), strict=True)))
        found[name] = shards.disk_bytes(sum(rows_of(name, length) for length in lengths))
    return found


def uncompressed_bytes(variables: Iterable[str], sizes: Mapping[str, int], lengths: Sequence[int]) -> dict[str, int]:
    """Bytes of every other quantity before it is compressed.

    Parameters
    ----------
    variables
        Names of quantities of tokens and prompts.
    sizes
        Lengths of their fixed dimensions.
    lengths
        Tokens of each prompt.
    """
    tokens, found = sum(lengths), {}
    for name in variables:
        quantity = QUANTITIES[name]
        rows = len(lengths) if quantity.dims[0] == PROMPT else tokens
        found[name] = np.dtype(quantity.dtype).itemsize * rows * prod(sizes[dim] for dim in quantity.dims[1:])
    return found


def least_bytes(
    shapes: Mapping[str, Shape],
    variables: Iterable[str],
    sizes: Mapping[str, int],
    lengths: Sequence[int],
    done: int = 0,
) -> dict[str, int]:
    """Bytes that each quantity of the prompts from `done` on takes on disk at least, answers not counted.

    Parameters
    ----------
    shapes
        Of streamed quantities.
    variables, sizes
        All others, and the lengths of their fixed dimensions.
    lengths
        Tokens of each prompt, those that are done too.
    """
    needed, there = streamed_bytes(shapes, lengths), streamed_bytes(shapes, lengths[:done])
    left = uncompressed_bytes(variables, sizes, lengths[done:])
    return {name: size - there[name] for name, size in needed.items()} | {
        name: int(size * LEAST_COMPRESSED) for name, size in left.items()
    }


def refuse_full_disk(target: Path, needed: Mapping[str, int]) -> None:
    """Raise where what must be written at least, name by name, is more than the disk of `target` has left.

    Raises
    ------
    TraceError
        It is, so the recording would end with a full disk.
    """
    free, total = shutil.disk_usage(target.parent).free, sum(needed.values())
    if total <= free:
        return
    largest = max(needed, key=lambda name: needed[name])
    raise TraceError(
        f"needs at least {size_text(total)}, and {size_text(free)} are free on its disk; {largest} alone takes "
        f"{size_text(needed[largest])}",
        where=str(target),
        fix=f"Record without the group {QUANTITIES[largest].group}, fewer prompts, or on another disk; "
        "capture --plan says what each group takes.",
    )
