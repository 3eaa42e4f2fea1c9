"""Neurons and heads as a person names them: 22:394, the names of other tools, pairs of numbers. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from stratoscope.errors import UsageError
from stratoscope.trace.arguments import is_whole, several
from stratoscope.words import head_name, neuron_name

Kind = Literal["neuron", "head"]
_PLACES = {  # what comes before the number of a neuron or a head, in other tools
    "neuron": r"blocks\.(\d+)\.mlp\.hook_post|mlp_act\.(\d+)",
    "head": r"blocks\.(\d+)\.attn\.hook_(?:z|result)",
}
_EXAMPLE = {"neuron": "22:394", "head": "5:3"}
_ELSEWHERE = {"neuron": "blocks.22.mlp.hook_post:394", "head": "blocks.5.attn.hook_z:3"}


@dataclass(frozen=True, order=True)
class Member:
    """A neuron (flat, as on the axis `neuron`) or a head.

    Attributes
    ----------
    kind, layer, number
        Which of the two, and where.
    expert
        The expert that `number` counts within, as a person may give it; −1 = none.
    """

    kind: Kind
    layer: int
    number: int
    expert: int = -1

    def __str__(self) -> str:
        return neuron_name(self.layer, self.number) if self.kind == "neuron" else head_name(self.layer, self.number)


def named_members(given: Any, kind: Kind) -> tuple[Member, ...]:
    """The neurons or heads that are asked for, in order.

    Parameters
    ----------
    given
        Pairs (layer, number), texts such as "22:394" or another tool's name, or one text with commas; None = none.
    kind
        Which of the two.

    Raises
    ------
    InputError
        One cannot be read, or stands there twice.
    """
    where = f"{kind}s"
    if given is None:
        return ()
    parts: Iterable[Any] = given.split(",") if isinstance(given, str) else several(given, where, f"[{_pair(kind)}]")
    found = [_member(one, kind) for one in parts]
    for place, one in enumerate(found):
        if one in found[:place]:
            raise UsageError(f"{kind} {one.layer}:{one.number} stands there twice", where=where, fix="Name each once.")
    return tuple(found)


def _member(given: Any, kind: Kind) -> Member:
    if isinstance(given, str):
        text = re.sub(rf"^(?:{_PLACES[kind]})(?=:)", lambda found: next(filter(None, found.groups())), given.strip())
        numbers: list[Any] = [int(part) if re.fullmatch(r"[0-9]{1,9}", part) else part for part in text.split(":")]
    else:
        numbers = list(given) if isinstance(given, tuple | list) else [given]
    if len(numbers) in (2, 3 if kind == "neuron" else 2) and all(is_whole(one) and one >= 0 for one in numbers):
        layer, *expert, number = map(int, numbers)
        return Member(kind, layer, number, *expert)
    fix = f"Write LAYER:{kind.upper()}, such as {_EXAMPLE[kind]} or {_ELSEWHERE[kind]}; in Python also {_pair(kind)}."
    raise UsageError(f"{given!r} is no {kind}", where=f"{kind}s", fix=fix)


def _pair(kind: Kind) -> str:
    return f"({_EXAMPLE[kind].replace(':', ', ')})"
