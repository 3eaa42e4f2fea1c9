"""What a patch claims to touch, against what changed: there, elsewhere, and not at all.

A claims file is CSV with the columns Layer, Neuron_ID, Old_Norm, New_Norm. A norm is taken for that of the neuron's
column of the down projection, which the recorded peaks show (peak_write / |peak_value|); whether it is, is checked.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from stratoscope.errors import InputError

Floats: TypeAlias = NDArray[np.float64]
COLUMNS = ("Layer", "Neuron_ID", "Old_Norm", "New_Norm")
AS_CLAIMED = 0.01  # relative: a norm that differs by less is the claimed one
_CHANGED = 0.002  # relative change of a column's norm that rounding to bfloat16 cannot make (half of 2⁻⁸)
CHANGED, OTHERWISE, NOT = "as claimed", "changed, not as claimed", "not changed"
GONE, UNSEEN = "gone from the peaks", "not seen"
VERDICTS = (CHANGED, OTHERWISE, GONE, NOT, UNSEEN)


@dataclass(frozen=True)
class Claim:
    """One row of a claims file; `line` is where it stands."""

    layer: int
    neuron: int
    old: float
    new: float
    line: int


def read_claims(path: str | os.PathLike[str]) -> list[Claim]:
    """Read a claims file.

    Raises
    ------
    InputError
        The file cannot be read, lacks a column, or a row is no claim; says which line.
    """
    file = Path(path)
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    f"has no column {missing[0]}", where=str(file), fix=f"The first line is {','.join(COLUMNS)}."
                )
            claims = [_claim(row, f"{file}:{reader.line_num}", reader.line_num) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read: {error}", where=str(file), fix="Give a CSV file in UTF-8.") from None
    if not claims:
        raise InputError("claims nothing", where=str(file), fix="Write one neuron a line.")
    seen: dict[tuple[int, int], int] = {}
    for claim in claims:
        first = seen.setdefault((claim.layer, claim.neuron), claim.line)
        if first != claim.line:
            raise InputError(
                f"neuron {claim.neuron} of layer {claim.layer} is already that of line {first}",
                where=f"{file}:{claim.line}",
                fix="Claim each neuron once.",
            )
    return claims


def check_claims(claims: Sequence[Claim], layers: NDArray[np.int64], neurons: int) -> None:
    """Raise where a claim is about a neuron that the traces do not have."""
    for claim in claims:
        if claim.layer not in layers:
            raise InputError(
                f"there is no layer {claim.layer}", where=f"claims, line {claim.line}", fix="Check the file."
            )
        if not 0 <= claim.neuron < neurons:
            raise InputError(
                f"neuron {claim.neuron} is not one of {neurons:,}",
                where=f"claims, line {claim.line}",
                fix="Neuron_ID is an index of the MLP's neurons; a residual coordinate is something else.",
            )


@dataclass(frozen=True)
class Effects:
    """What became of each claim, [claim]; and what changed besides.

    Attributes
    ----------
    norm_a, norm_b
        Norm of the neuron's column as either trace shows it; NaN where it is not among the peaks.
    times
        Largest change of its mean activation over the noise floor; NaN without a floor.
    rank
        Its place among the neurons of its layer by that change, 1 = the largest.
    verdict
        One of `VERDICTS`.
    norms_are_columns
        Whether the old norms are those of the columns in trace a; None where none of them is seen.
    columns_changed_elsewhere, columns_seen_elsewhere
        Neurons not claimed whose column norm changed, and whose columns are seen at all.
    neurons_changed_elsewhere
        Neurons not claimed whose mean activation changed by more than the floor; −1 without a floor.
    share_claimed
        Share of the whole change of mean activations that is in claimed neurons.
    first_layer
        The first layer that is claimed.
    """

    norm_a: Floats
    norm_b: Floats
    times: Floats
    rank: NDArray[np.int64]
    verdict: tuple[str, ...]
    norms_are_columns: bool | None
    columns_changed_elsewhere: int
    columns_seen_elsewhere: int
    neurons_changed_elsewhere: int
    share_claimed: float
    first_layer: int


def compare_claims(
    claims: Sequence[Claim],
    layers: NDArray[np.int64],
    largest: Floats,
    times: Floats,
    norms: tuple[Floats, Floats] | None,
) -> Effects:
    """Hold claims against what changed.

    Parameters
    ----------
    claims, layers
        The claims, and the numbers of the layers.
    largest, times
        Largest change of each neuron's mean activation, and that over the floor (NaN without one), [layer, neuron].
    norms
        Column norms in either trace, [layer, neuron], NaN where not seen.
    """
    row = np.array([int(np.flatnonzero(layers == claim.layer)[0]) for claim in claims])
    neuron = np.array([claim.neuron for claim in claims])
    old, new = (np.array([getattr(claim, name) for claim in claims]) for name in ("old", "new"))
    unseen = np.full(largest.shape, np.nan)
    before, after = norms if norms is not None else (unseen, unseen)
    norm_a, norm_b = before[row, neuron], after[row, neuron]
    changed = _apart(before, after) > _CHANGED
    seen = np.isfinite(before) & np.isfinite(after)
    verdict = [
        _verdict(a, b, was, to, moved)
        for a, b, was, to, moved in zip(norm_a, norm_b, old, new, times[row, neuron], strict=True)
    ]
    known = np.isfinite(norm_a)
    claimed = np.zeros(largest.shape, bool)
    claimed[row, neuron] = True
    order = np.argsort(np.argsort(-np.nan_to_num(largest[row], nan=-1.0), axis=1, kind="stable"), axis=1)
    total = np.nansum(largest)
    return Effects(
        norm_a,
        norm_b,
        times[row, neuron],
        order[np.arange(len(claims)), neuron] + 1,
        tuple(verdict),
        bool((_apart(norm_a[known], old[known]) <= AS_CLAIMED).mean() >= 0.5) if known.any() else None,
        int((changed & seen & ~claimed).sum()),
        int((seen & ~claimed).sum()),
        int(((times > 1) & ~claimed).sum()) if np.isfinite(times).any() else -1,
        float(np.nansum(largest[claimed]) / total) if total > 0 else np.nan,
        min(claim.layer for claim in claims),
    )


def _verdict(norm_a: float, norm_b: float, old: float, new: float, times: float) -> str:
    if math.isfinite(norm_a) and math.isfinite(norm_b):
        if float(_apart(np.array(norm_a), np.array(norm_b))) <= _CHANGED:
            return NOT if not times > 1 else OTHERWISE
        ratio = (norm_b / norm_a) / (new / old) if old and new else np.inf
        return CHANGED if abs(ratio - 1) <= AS_CLAIMED else OTHERWISE
    if math.isfinite(norm_a):  # a column that was scaled down writes too little to be a peak
        return GONE
    return OTHERWISE if times > 1 else UNSEEN  # a patched column leaves its own neuron's activation alone


def _apart(a: Floats, b: Floats) -> Floats:
    """|b − a| relative to the larger; NaN where either is."""
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.maximum(np.abs(a), np.abs(b))
        apart: Floats = np.where(size > 0, np.abs(b - a) / size, 0.0 * (a + b))
    return apart


def _claim(row: dict[str, str], where: str, line: int) -> Claim:
    try:
        layer, neuron = (int((row[name] or "").strip()) for name in COLUMNS[:2])
        old, new = (float((row[name] or "").strip()) for name in COLUMNS[2:])
    except (ValueError, AttributeError):
        raise InputError("is no claim", where=where, fix="Whole numbers, then two norms.") from None
    if not (math.isfinite(old) and math.isfinite(new) and old >= 0 and new >= 0):
        raise InputError("a norm is not a finite number of 0 or more", where=where, fix="Check the file.")
    return Claim(layer, neuron, old, new, line)
