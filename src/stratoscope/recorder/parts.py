"""A recording in parts: which run of prompts each is. Whole windows, so that every batch is as in one recording."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from stratoscope.errors import InputError
from stratoscope.trace.arguments import is_whole
from stratoscope.words import counted


def checked_part(part: tuple[int, int] | None) -> tuple[int, int] | None:
    """The argument `part` of `capture`, checked.

    Raises
    ------
    InputError
        It is no pair of numbers, or there is no such part.
    """
    if part is None:
        return None
    if not isinstance(part, tuple | list) or len(part) != 2 or not all(map(is_whole, part)):
        raise InputError(f"the part is {part!r}", fix="Use two numbers: (2, 5) is the second of five.")
    number, of = map(int, part)
    if not 1 <= number <= of:
        raise InputError(f"there is no part {number} of {of}", fix=f"Parts are counted from 1 to {max(1, of)}.")
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
            fix=f"Use {counted(len(windows), 'part')} or fewer, or a smaller --batch-size for all of them.",
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
