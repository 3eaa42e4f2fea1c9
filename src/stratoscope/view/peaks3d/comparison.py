"""Two prompts laid on each other: which token is which, and for every neuron how much higher it is in the second.

A list of peaks names the strongest neurons only. A neuron that one of two lists names and the other does not is not
zero there: its difference is not known, and it is kept apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stratoscope import names
from stratoscope.analysis.values.align import GAP, Alignment, align, token_keys
from stratoscope.trace.arrays import AnyFloats, Bools, Floats, Ints
from stratoscope.trace.prompts import Prompts
from stratoscope.view.peaks3d.heights import ABOVE, ROOF, Squeezed
from stratoscope.view.peaks3d.points import Points
from stratoscope.view.peaks3d.ticks import round_ticks
from stratoscope.view.spec.buffers import indices
from stratoscope.view.spec.look import FirstTokens
from stratoscope.view.spec.peaks import Heights, PeakComparison, PeakScale
from stratoscope.view.spec.scale import INNERMOST, Distribution

if TYPE_CHECKING:
    import xarray as xr

BOTH, ONLY_A, ONLY_B = 0, 1, 2  # which lists name a neuron
_WORDS: dict[names.Scale, str] = {
    "robust": (
        f"Differences are linear between limits that clip at most about {100 * INNERMOST[0]:g} % of them, fitted after "
        "the first different token; beyond the limits they are closer together, and the colour stays that of the limit."
    ),
    "linear": "Differences are linear.",
}


def compare(
    dataset: xr.Dataset,
    tokens: tuple[Ints, Ints],
    bearing: Ints,
    drawn: Points,
    recorded: Points,
    *,
    signed: bool,
    sides: tuple[str, str],
    title: str,
) -> PeakComparison:
    """Where the tokens of two prompts stand when one is laid on the other, and how their peaks differ.

    Parameters
    ----------
    dataset
        A trace or an import.
    tokens
        Ascending indices on `token` of each prompt.
    bearing
        The tokens of the picture: indices on `token`.
    drawn, recorded
        The peaks of both that are drawn, and all that are known.
    signed
        Whether it is the signed value that is compared, not the height.
    sides
        What the two prompts are called.
    title
        What the height is, in words.
    """
    alignment = align(*(token_keys(dataset, one) for one in tokens))
    of_token = np.full(dataset.sizes["token"], GAP)
    in_b = np.zeros(dataset.sizes["token"], bool)
    for places, here in ((alignment.a, tokens[0]), (alignment.b, tokens[1])):
        there = places != GAP
        of_token[here[places[there]]] = np.flatnonzero(there)
    in_b[tokens[1]] = True
    peak, listed, difference = _differences(of_token, in_b, alignment, drawn, recorded, signed=signed)
    column = of_token[drawn.token[peak]]
    first = Prompts(dataset).first[drawn.token[peak]]
    can_differ = (listed == BOTH) & (column >= alignment.before)
    return PeakComparison(
        *sides,
        column=indices(of_token[bearing]),
        equal=alignment.equal[of_token[bearing]].astype(np.uint8),
        peak=indices(peak),
        listed=listed.astype(np.uint8),
        difference=difference,
        scales=_scales(difference, can_differ, first, title),
    )


def _differences(
    of_token: Ints, in_b: Bools, alignment: Alignment, drawn: Points, recorded: Points, *, signed: bool
) -> tuple[Ints, Ints, AnyFloats]:
    """Each drawn peak on an equal token once: with the same neuron of the other prompt, or alone."""
    value, known = (drawn.value, recorded.value) if signed else (drawn.height, recorded.height)
    keys, known_keys = _keys(of_token, drawn, recorded)
    is_b, known_is_b = in_b[drawn.token], in_b[recorded.token]
    mate = np.where(
        is_b,
        _found(keys, known_keys, np.flatnonzero(~known_is_b)),
        _found(keys, known_keys, np.flatnonzero(known_is_b)),
    )
    drawn_twice = is_b & (mate >= 0) & np.isin(keys, keys[~is_b])
    peak = np.flatnonzero(alignment.equal[of_token[drawn.token]] & ~drawn_twice)
    mate, is_b = mate[peak], is_b[peak]
    sign = np.where(is_b, 1, -1).astype(value.dtype)
    difference = np.where(mate >= 0, sign * (value[peak] - known[mate]), sign * drawn.height[peak])
    return peak, np.where(mate >= 0, BOTH, np.where(is_b, ONLY_B, ONLY_A)), difference


def _keys(of_token: Ints, *points: Points) -> list[Ints]:
    """A number for each column, layer, expert and neuron, of each of the points."""
    parts = [
        [of_token[one.token], one.layer, one.expert if len(one.expert) else np.zeros_like(one.layer), one.neuron]
        for one in points
    ]
    keys = np.zeros(sum(len(one.token) for one in points), np.int64)
    for columns in zip(*parts, strict=True):  # ranks, not the numbers themselves: of those a product can be too large
        ranks = np.unique(np.concatenate(columns), return_inverse=True)[1]
        keys = np.unique(keys * (ranks.max(initial=0) + 1) + ranks, return_inverse=True)[1]
    return np.split(keys, np.cumsum([len(one.token) for one in points])[:-1])


def _found(keys: Ints, among: Ints, places: Ints) -> Ints:
    """Where each key stands among others, of which only those in some places count; −1 = nowhere."""
    if not len(places):
        return np.full(len(keys), -1)
    ordered = places[np.argsort(among[places], kind="stable")]
    at = ordered[np.searchsorted(among[ordered], keys).clip(max=len(ordered) - 1)]
    return np.where(among[at] == keys, at, -1)


def _scales(difference: AnyFloats, can_differ: Bools, first: Bools, title: str) -> dict[names.Scale, PeakScale]:
    """The scales of differences, with first tokens in the limits and without."""
    size = np.abs(difference.astype(np.float64))
    without = can_differ & ~first
    every = np.ones(len(size), bool)
    counted: dict[FirstTokens, Bools] = {
        "with_first": can_differ if can_differ.any() else every,
        "without_first": without if without.any() else ~first if not first.all() else every,
    }
    return {
        scale: PeakScale(
            title, _WORDS[scale], {name: _placed(difference, size, one, scale) for name, one in counted.items()}
        )
        for scale in _WORDS
    }


def _placed(difference: AnyFloats, size: Floats, counted: Bools, scale: names.Scale) -> Heights:
    """Differences about zero; those that are larger than every counted one are a little beyond the ceiling."""
    most = float(size[counted].max(initial=0)) or 1.0
    limit = most
    if scale == "robust" and counted.any():
        fitted = Distribution([difference[counted].astype(np.float64)[:, np.newaxis]]).fit("diverging", "robust")
        limit = min(float(fitted.high[0]), most) if fitted.state == "ok" else most
    axis = Squeezed(-most, -limit, limit, most, below=ABOVE / 2, above=ABOVE / 2)
    place, ceiling = axis.place(difference), axis.at(most)
    beyond = np.flatnonzero(size > most)
    place[beyond] = np.sign(difference[beyond]) * ROOF * ceiling
    upper = round_ticks(limit / 20, most, axis.at, floor=0.0)
    ticks = (
        *((-at, f"−{words}") for at, words in reversed(upper)),
        (0.0, "0"),
        *((at, f"+{words}") for at, words in upper),
    )
    as_given = scale == "linear" and not len(beyond)  # the same array travels once
    return Heights(
        difference if as_given else place.astype(np.float32),
        indices(beyond),
        size[beyond] / most,
        -ceiling,
        ceiling,
        -limit,
        limit,
        ticks,
    )
