"""A recording in parts: which run of prompts each is. Whole windows, so that every batch is as in one recording."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from stratoscope.errors import InputError, UsageError
from stratoscope.trace.arguments import is_whole, whole_numbers
from stratoscope.words import counted


def checked_part(part: str | tuple[int, int] | None) -> tuple[int, int] | None:
    """The argument `part` of `capture`, (2, 5) or "2/5", checked.

    Raises
    ------
    InputError
        It is no pair of numbers, or there is no such part.
    """
    if part is None:
        return None
    pair = whole_numbers(part, "/") if isinstance(part, str) else part
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(map(is_whole, pair)):
        raise UsageError(f"{part!r} is no part", where="part", fix="Write 2/5, in Python (2, 5): the second of five.")
    number, of = map(int, pair)
    if not 1 <= number <= of:
        fix = f"Parts are counted from 1 to {max(1, of)}."
        raise UsageError(f"there is no part {number} of {of}", where="part", fix=fix)
    return number, of


def prompts_of(part: tuple[int, int] | None, windows: Sequence[range], lengths: Sequence[int]) -> range:
    """The run of prompts that a part is; all of them where there is none.

    Parameters
    ----------
    part
        Which of how many, from 1, as `checked_part` gives it.
    windows
        Those of the whole recording.
    lengths
        Tokens of each prompt.

    Raises
    ------
    InputError
        There are more parts than windows.
    """
    if part is None:
        return range(len(lengths))
    number, of = part
    if of > len(windows):
        raise InputError(
            f"{of} parts are asked for, and these prompts make {len(windows)} at most: whole runs of up to "
            f"{max(map(len, windows))} prompts that are batched together",
            where=f"--part {number}/{of}",
            fix=f"Use {counted(len(windows), 'part')} or fewer."
            if len(windows) > 1
            else "Record it without parts: there are too few prompts to divide.",
        )
    chosen = divided([sum(lengths[window.start : window.stop]) for window in windows], of)[number - 1]
    return range(windows[chosen.start].start, windows[chosen.stop - 1].stop)


def divided(tokens: Sequence[int], parts: int) -> list[range]:
    """Consecutive runs of windows, as many as parts, none empty, of about the same number of tokens.

    Each run ends where the tokens so far are nearest to its share of them.
    """
    so_far = list(accumulate(tokens))
    bounds = [0]
    for number in range(1, parts):  # in whole numbers, which are the same on every machine
        distances = [abs(reached * parts - so_far[-1] * number) for reached in so_far]
        nearest = distances.index(min(distances)) + 1
        bounds.append(min(max(nearest, bounds[-1] + 1), len(tokens) - (parts - number)))
    return [range(first, last) for first, last in pairwise([*bounds, len(tokens)])]
