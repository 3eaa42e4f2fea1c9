"""Which tokens of which prompt a picture of lenses shows: as many around the chosen one as have room for words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.analysis.lens.reading import Ids, recorded_tokens
from stratoscope.analysis.top.tokens import at_position
from stratoscope.errors import InputError
from stratoscope.trace.arguments import is_whole, span_names
from stratoscope.trace.prompts import Prompts, some_prompts
from stratoscope.view.spec.selected import Selected
from stratoscope.words import counted, listed, number_ranges

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.view.choose.selection import TextChoice

_MOST_RANGES = 8  # of positions in a sentence
_MOST = 600  # columns of a picture: two dots of a bitmap each


@dataclass(frozen=True, eq=False)
class ChosenTokens:
    """The tokens of a picture.

    Attributes
    ----------
    prompt
        Index of the prompt.
    tokens
        Places on the dimension `token`, in reading order.
    token
        Which of them has its trajectories drawn.
    selected
        What the picture says of it.
    """

    prompt: int
    tokens: Ids
    token: int
    selected: Selected


def chosen_tokens(
    dataset: xr.Dataset,
    *,
    prompt: str | int | None,
    token: int | None,
    span: TextChoice,
    columns: int | None,
    most: int,
) -> ChosenTokens:
    """The tokens to show.

    Parameters
    ----------
    columns
        How many; None = `most`, which have room for words.

    Raises
    ------
    InputError
        There is no such prompt or token, or no lens was read there.
    """
    prompts = some_prompts(dataset)
    (index,) = prompts.find_all(0 if prompt is None else prompt)[:1]
    recorded = recorded_tokens(dataset, prompts.tokens(index))
    wanted = span_names(span)
    found = recorded[prompts.in_spans(wanted)[recorded]] if wanted else recorded
    if not len(found):
        where = f"in the {'spans' if wanted[1:] else 'span'} {listed(wanted)} of" if wanted else "in"
        what = f"no lens was read {where} {prompts.labels[index]}"
        raise InputError(what, where="span" if wanted else "prompt", fix=_there(prompts, recorded))
    place = _place(prompts, index, found, token)
    shown = _window(len(found), place, _checked(columns) or most)
    tokens = found[shown]
    return ChosenTokens(index, tokens, place - shown.start, _selected(prompts, index, wanted, recorded, found, tokens))


def _checked(columns: int | None) -> int | None:
    if columns is None:
        return None
    if not is_whole(columns) or not 1 <= columns <= _MOST:
        raise InputError(f"{columns!r} columns cannot be drawn", where="most_tokens", fix=f"Give 1 to {_MOST}.")
    return int(columns)


def _place(prompts: Prompts, prompt: int, found: Ids, token: int | None) -> int:
    """Where among the tokens found the chosen one is: the one asked for, the answer position, else the last."""
    if token is None:
        answer = np.flatnonzero(found == prompts.answer[prompt])
        return int(answer[0]) if len(answer) else len(found) - 1
    asked = at_position(prompts, prompt, token)
    there = np.flatnonzero(found == asked)
    if not len(there):
        raise InputError(f"no lens was read at token {token}", where="token", fix=_there(prompts, found))
    return int(there[0])


def _there(prompts: Prompts, recorded: Ids) -> str:
    """Where lenses were read, and how to have them read elsewhere."""
    everywhere = "`capture --record lens --positions all` reads them at every token"
    if not len(recorded):
        return f"{everywhere[:1].upper()}{everywhere[1:]}."
    return f"They were read at {_ranges(prompts.position[recorded].tolist())}; {everywhere}."


def _ranges(positions: list[int]) -> str:
    """Positions as ranges; of many ranges the first and the last position."""
    ranges = number_ranges(positions)
    return ranges if ranges.count(",") < _MOST_RANGES else f"from {positions[0]} to {positions[-1]}"


def _window(count: int, place: int, columns: int) -> slice:
    """So many of the tokens, the chosen one in their middle, or as near to it as there are tokens."""
    start = max(0, min(place - columns // 2, count - columns))
    return slice(start, min(count, start + columns))


def _selected(prompts: Prompts, prompt: int, spans: list[str], recorded: Ids, found: Ids, tokens: Ids) -> Selected:
    parts = []
    if len(prompts) > 1:
        parts.append(f"1 of {counted(len(prompts), 'prompt')}")
    if len(tokens) < len(recorded):
        of = f" (spans {listed(spans)})" if spans[1:] else f" (span {spans[0]})" if spans else ""
        numbers = _ranges(prompts.position[tokens].tolist())
        parts.append(f"{len(tokens):,} of the {len(recorded):,} tokens at which lenses were read{of}: {numbers}")
    there = int(prompts.lengths[prompt])
    if len(recorded) < there:
        parts.append(f"lenses were read at {len(recorded):,} of {counted(there, 'token')}")
    return Selected((prompts.labels[prompt],), spans=tuple(spans), of_trace="; ".join(parts))
