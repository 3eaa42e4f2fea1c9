"""One thing is one finding: what is far out of the same token, prompt, layer or twin is told once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from stratoscope import names
from stratoscope.analysis.anomalies.finding import Finding, Index, Look, Member
from stratoscope.analysis.anomalies.usual import spans


def merged(looks: Sequence[Look], most_expected: float) -> list[Finding]:
    """What the looks find, least expected first; units that share a thing are one finding."""
    cells = [(look, index, expected) for look in looks for index, expected in look.beyond(most_expected)]
    parents = list(range(len(cells)))
    owner: dict[Hashable, int] = {}
    for number, (look, index, _) in enumerate(cells):
        for thing in look.things(index):
            _join(parents, number, owner.setdefault(thing, number))
    groups: dict[int, list[tuple[Look, Index, float]]] = {}
    for number, cell in enumerate(cells):
        groups.setdefault(_root(parents, number), []).append(cell)
    findings = [_finding(group) for group in groups.values()]
    return sorted(findings, key=lambda one: (one.first.expected, -one.first.ratio))


def _finding(cells: list[tuple[Look, Index, float]]) -> Finding:
    cells.sort(key=lambda cell: (cell[2], -_score(cell)))
    members = tuple(look.tell(index, expected) for look, index, expected in cells if look.tell)
    look, index, _ = cells[0]
    assert look.describe is not None
    words, picture = look.describe(index)
    return Finding(members, " ".join([words, *_others(members)]), look.of_model, picture)


def _score(cell: tuple[Look, Index, float]) -> float:
    look, index, _ = cell
    return 0.0 if look.scores is None else float(look.scores[index])


def _others(members: Sequence[Member]) -> list[str]:
    """What else belongs to a finding, by quantity and place, in a sentence."""
    first, rest = members[0], members[1:]
    if not rest:
        return []
    here = [one for one in rest if _whose(one) == _whose(first)]
    parts = []
    for quantity, count in Counter(one.quantity for one in here).items():
        row = names.QUANTITIES[quantity]
        same = [one for one in here if one.quantity == quantity]
        layers = sorted({one.place["layer"] for one in same})
        letter = "D" if names.DEPTH in row.dims else "L"
        what = {"neuron": "neuron", "head": "head"}.get(next((key for key in ("neuron", "head") if key in same[0].place), ""))
        size = f" ({count} {what}s)" if what and count > 1 else ""
        parts.append(f"{row.label} {spans(layers, letter)}{size}")
    others = len({_whose(one) for one in rest} - {_whose(first)})
    if others:
        what = "token" if "position" in first.place else "prompt"
        parts.append(f"the same at {others} other {what}{'s' * (others > 1)}")
    return [f"Also {'; '.join(parts)}."]


def _whose(member: Member) -> tuple[int, int]:
    """The prompt and token that a member is of."""
    return member.place.get("prompt", -1), member.place.get("position", -1)


def _root(parents: list[int], number: int) -> int:
    while parents[number] != number:
        parents[number] = parents[parents[number]]
        number = parents[number]
    return number


def _join(parents: list[int], one: int, other: int) -> None:
    parents[_root(parents, one)] = _root(parents, other)
