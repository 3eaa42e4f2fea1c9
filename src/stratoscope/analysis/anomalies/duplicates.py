"""One thing is one finding: what is far out of the same token, prompt, layer or twin is told once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from stratoscope import names
from stratoscope.analysis.anomalies.finding import Finding, Index, Look, Member
from stratoscope.analysis.anomalies.usual import spans

_SENTENCES = 3  # about the strongest of as many detectors


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
    strongest = {}  # of each detector
    for place, (look, index, _) in enumerate(cells):
        if look.describe and look.detector not in strongest:
            strongest[look.detector] = place, *look.describe(index)
    described = list(strongest.values())[:_SENTENCES]
    rest = [member for place, member in enumerate(members) if place not in {place for place, _, _ in described}]
    words = [sentence for _, sentence, _ in described] + _others(members[0], rest)
    return Finding(members, " ".join(words), cells[0][0].of_model, described[0][2])


def _score(cell: tuple[Look, Index, float]) -> float:
    look, index, _ = cell
    return 0.0 if look.scores is None else float(look.scores[index])


def _others(first: Member, rest: Sequence[Member]) -> list[str]:
    """What else belongs to a finding, by quantity and place, in a sentence."""
    here = [one for one in rest if _whose(one) in (_whose(first), (_whose(first)[0], -1))]
    by_label: dict[str, list[Member]] = {}
    for one in here:
        by_label.setdefault(names.QUANTITIES[one.quantity].label, []).append(one)
    parts = [f"{label} {_where(members)}" for label, members in by_label.items()]
    others = len({_whose(one) for one in rest} - {_whose(one) for one in here} - {_whose(first)})
    if others:
        what = "token" if "position" in first.place else "prompt"
        parts.append(f"the same at {others} other {what}{'s' * (others > 1)}")
    return [f"Also: {'; '.join(parts)}."] if parts else []


def _where(members: Sequence[Member]) -> str:
    """Layers of some members, and how many heads or neurons they are."""
    row = names.QUANTITIES[members[0].quantity]
    words = spans(sorted({one.place["layer"] for one in members}), names.ROW_LETTERS[row.row_kind])
    for what in ("head", "neuron", "expert"):
        count = sum(what in one.place for one in members)
        if count:
            words += f" ({count} {what}{'s' * (count > 1)})"
    return words


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
