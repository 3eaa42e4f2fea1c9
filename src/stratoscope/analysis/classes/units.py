"""What counts as one observation: a prompt, a pair of prompts, or a group of prompts that share a template.

The tokens of a prompt are not independent of each other, nor are the prompts of a group (L12): they are averaged first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope import defaults, names
from stratoscope.errors import InputError, choices, refuse_unknown
from stratoscope.trace.prompts import Prompts
from stratoscope.words import counted

if TYPE_CHECKING:
    import xarray as xr

PAIRS, CLASSES = "pairs", "classes"
_GROUP = "group "  # how the name of a unit begins that is a group


@dataclass(frozen=True)
class Units:
    """The observations of a contrast of two classes of prompts.

    Attributes
    ----------
    a, b
        Names of the classes.
    design
        "pairs": each unit has a side in either class. "classes": each unit is of one class.
    prompts
        Indices of the prompts that take part, ascending; int64 [prompt].
    unit, in_a
        Of each of them its unit, and whether it is of class a; [prompt].
    names
        What each unit is called.
    pair
        Of each prompt the number of its pair, −1 where it has none.
    left_out
        What does not take part and why, in sentences.
    """

    a: str
    b: str
    design: str
    prompts: NDArray[np.int64]
    unit: NDArray[np.int64]
    in_a: NDArray[np.bool_]
    names: tuple[str, ...]
    pair: NDArray[np.int64]
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_a(self) -> NDArray[np.bool_]:
        """Whether a unit is of class a; of pairs, all are."""
        is_a = np.zeros(len(self), bool)
        is_a[self.unit[self.in_a]] = True
        return is_a

    @property
    def sizes(self) -> tuple[int, int]:
        """Units that have a side in a, and in b."""
        return len(np.unique(self.unit[self.in_a])), len(np.unique(self.unit[~self.in_a]))

    @property
    def noun(self) -> str:
        """What one observation is, in the plural: "pairs", "groups of pairs", "prompts", …"""
        return self._noun(np.ones(len(self.prompts), bool))

    def in_words(self) -> str:
        """How many of what: "16 pairs of a and b", "6 groups of pairs of a and b (15 pairs)", "9 prompts of a …"."""
        if self.design == PAIRS:
            pairs = len(np.unique(self.pair[self.pair >= 0]))
            whole = f"{pairs} pairs" if pairs > len(self) else f"{len(self.prompts)} prompts"
            averaged = f" ({whole})" if len(self.prompts) > 2 * len(self) else ""
            of = "with prompts of" if self.noun == "groups" else "of"
            return f"{len(self)} {self.noun} {of} {self.a} and {self.b}{averaged}"
        sides = []
        for name, side, count in zip((self.a, self.b), (self.in_a, ~self.in_a), self.sizes, strict=True):
            averaged = f" ({int(side.sum())} prompts)" if side.sum() > count else ""
            sides.append(f"{count} {self._noun(side)} of {name}{averaged}")
        return " and ".join(sides)

    def _noun(self, side: NDArray[np.bool_]) -> str:
        single, grouped = ("pairs", "groups of pairs") if self.design == PAIRS else ("prompts", "groups")
        units, prompts = np.unique(self.unit[side], return_counts=True)
        if (prompts <= (2 if self.design == PAIRS else 1)).all():
            return single
        in_groups = [self.names[unit].startswith(_GROUP) for unit in units]
        if self.design == PAIRS and all(in_groups) and (self.pair < 0).any():
            return "groups"
        return grouped if all(in_groups) else f"groups and {single}" if any(in_groups) else single

    def average(self, values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Means over the prompts of each unit, NaN left out.

        Parameters
        ----------
        values
            Shape (prompt, …), a row for each of `prompts`.

        Returns
        -------
        a, b
            Shape (unit, …) each. Of pairs row i of both is the same unit; of classes the rows of either are its units.
        """
        sides = []
        for side in (self.in_a, ~self.in_a):
            units, place = np.unique(self.unit[side], return_inverse=True)
            sides.append(unit_means(values[side], place, len(units)))
        return sides[0], sides[1]

    def only(self, keep: NDArray[np.bool_]) -> Units:
        """The same with some of the units only."""
        number = np.cumsum(keep) - 1
        inside = keep[self.unit]
        called = tuple(name for name, kept in zip(self.names, keep, strict=True) if kept)
        return Units(
            self.a, self.b, self.design, self.prompts[inside], number[self.unit[inside]], self.in_a[inside], called,
            self.pair[inside], self.left_out,
        )  # fmt: skip

    def having(self, there: NDArray[np.bool_], what: str) -> Units:
        """The same without prompts that have nothing to compare, and without pairs that lose a side by that.

        Parameters
        ----------
        there
            Of each of `prompts`, whether it has what is compared.
        what
            What those left out have not, for the sentence that says so.
        """
        if there.all():
            return self
        sides = np.zeros((2, len(self)), bool)
        sides[self.in_a[there].astype(int), self.unit[there]] = True
        kept: NDArray[np.bool_] = np.asarray(sides.all(axis=0) if self.design == PAIRS else sides.any(axis=0))
        said = f"Left out: {counted(int((~there).sum()), 'prompt')} without {what}"
        also = int((~kept[self.unit] & there).sum())
        said += f", and {also} whose twin is among them." if also else "."
        inside = there & kept[self.unit]
        some = Units(
            self.a, self.b, self.design, self.prompts[inside], self.unit[inside], self.in_a[inside], self.names,
            self.pair[inside], (*self.left_out, said),
        )  # fmt: skip
        return some.only(kept)

    def halves(self, share: float, seed: int) -> tuple[Units, Units]:
        """Two seeded parts, the second with `share` of the units; of classes, of each class."""
        second = np.zeros(len(self), bool)
        random = np.random.default_rng(seed)
        strata = [np.ones(len(self), bool)] if self.design == PAIRS else [self.is_a, ~self.is_a]
        for stratum in strata:
            members = np.flatnonzero(stratum)
            second[random.permutation(members)[: round(share * len(members))]] = True
        return self.only(~second), self.only(second)

    def balanced(self, seed: int) -> Units:
        """As many units of either class: a seeded choice of the larger one."""
        is_a = self.is_a
        fewer = min(int(is_a.sum()), int((~is_a).sum()))
        keep = np.zeros(len(self), bool)
        random = np.random.default_rng(seed)
        for members in (np.flatnonzero(is_a), np.flatnonzero(~is_a)):
            keep[members if len(members) == fewer else random.permutation(members)[:fewer]] = True
        return self.only(keep)


def choose_classes(dataset: xr.Dataset, a: str | None, b: str | None) -> tuple[str, str]:
    """The two classes to compare: those asked for, else the two that there are."""
    prompts = Prompts(dataset)
    found = [name for name in dict.fromkeys(prompts.classes) if name]
    if prompts.are_single_files:
        fix = (
            "Give several files one class, `stratoscope import FILE … --class CLASS … -o TRACE`, and compare in TRACE."
        )
        raise InputError(
            "the class of a CSV file is its name, and single files are not compared", where="class", fix=fix
        )
    if not found:
        what = "the prompts of this trace have no class, so there is nothing to compare"
        fix = "Give each prompt a class in the prompts file (or import --class), and make the trace again."
        raise InputError(what, where="trace", fix=fix)
    there = f"There are: {', '.join(found)}."
    for where, wanted in (("a", a), ("b", b)):
        if wanted is not None and wanted not in found:
            raise InputError(f"no prompt of class {wanted!r}", where=where, fix=choices(wanted, found))
    others = [name for name in found if name not in (a, b)]
    missing = (a is None) + (b is None)
    if missing > len(others) or (missing and len(others) > missing):
        raise InputError("it is not clear which two classes", where="a, b", fix=f"Name both. {there}")
    first = a if a is not None else others.pop(0)
    second = b if b is not None else others.pop(0)
    if first == second:
        raise InputError(f"{first!r} is compared with itself", where="a, b", fix=there)
    return first, second


def make_units(dataset: xr.Dataset, a: str, b: str, *, groups: bool = defaults.AVERAGE_GROUPS) -> Units:
    """The units of a contrast.

    Prompts of a group are one unit (`groups`). Where every unit has a twin of the other class (by `pair`, or because
    each group holds both classes), units are pairs.

    Parameters
    ----------
    dataset
        A trace.
    a, b
        Classes.
    groups
        Whether groups count; otherwise pairs and prompts are taken for independent.
    """
    prompts = Prompts(dataset)
    classes, pairs, group = prompts.classes, prompts.pairs, prompts.groups
    chosen = [index for index, name in enumerate(classes) if name in (a, b)]
    sides: dict[str, set[str]] = {}
    for index in chosen:
        if pairs[index]:
            sides.setdefault(pairs[index], set()).add(classes[index])
    twins = {pair for pair, found in sides.items() if found == {a, b}}
    single = [index for index in chosen if pairs[index] not in twins]
    left_out: tuple[str, ...] = ()
    if twins and len(single) <= len(chosen) / 4:  # a few without a twin do not make it another design
        if single:
            left_out = (f"Left out: {counted(len(single), 'prompt')} without a twin of the other class.",)
        chosen = [index for index in chosen if pairs[index] in twins]
        called = [_unit(group[index], f"pair {pairs[index]}", groups=groups) for index in chosen]
        return _units(a, b, PAIRS, chosen, called, [classes[index] == a for index in chosen], pairs, left_out)
    grouped = {group[index]: set[str]() for index in chosen if group[index] and groups}
    for index in chosen:
        if group[index] in grouped:
            grouped[group[index]].add(classes[index])
    both = {name for name, found in grouped.items() if found == {a, b}}
    in_a = [classes[index] == a for index in chosen]
    if both and all(group[index] in both for index in chosen):
        called = [f"{_GROUP}{group[index]}" for index in chosen]
        return _units(a, b, PAIRS, chosen, called, in_a, [""] * len(pairs), left_out)
    if both:
        left_out = (f"Both classes have prompts in {counted(len(both), 'group')}; the sides count as independent.",)
    called = [f"{_unit(group[index], prompts.ids[index], groups=groups)} ({classes[index]})" for index in chosen]
    return _units(a, b, CLASSES, chosen, called, in_a, [""] * len(pairs), left_out)


def _unit(group: str, otherwise: str, *, groups: bool) -> str:
    return f"{_GROUP}{group}" if group and groups else otherwise


def _units(
    a: str,
    b: str,
    design: str,
    chosen: list[int],
    called: list[str],
    in_a: list[bool],
    pairs: list[str],
    left_out: tuple[str, ...],
) -> Units:
    order = {name: place for place, name in enumerate(dict.fromkeys(called))}
    number = {name: place for place, name in enumerate(dict.fromkeys(filter(None, pairs)))}
    unit = np.array([order[name] for name in called], dtype=np.int64)
    pair = np.array([number.get(pairs[index], -1) for index in chosen], dtype=np.int64)
    prompts = np.array(chosen, np.int64)
    return Units(a, b, design, prompts, unit, np.array(in_a, bool), tuple(order), pair, left_out)


def unit_means(values: NDArray[Any], place: NDArray[np.int64], units: int) -> NDArray[Any]:
    """Means over the rows of each unit, NaN left out; `place` is the unit of each row, counted from 0."""
    if len(values) == units and (np.diff(place) == 1).all():
        return values
    total = np.zeros((units, *values.shape[1:]))
    count = np.zeros((units, *values.shape[1:]), np.int32)
    for row, unit in zip(values, place, strict=True):  # a row at a time: no second copy of the values
        known = np.isfinite(row)
        total[unit] += np.where(known, row, 0.0)
        count[unit] += known
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total / count, np.nan).astype(values.dtype)


def with_values(dataset: xr.Dataset, summary: str, units: Units) -> Units:
    """Units of prompts whose neurons have a value; a prompt without a token of the user's but the first has none."""
    rows = dataset[summary].isel({names.LAYER: 0}).values[units.prompts]
    there = np.isfinite(rows).reshape(len(rows), -1).any(axis=1)
    return units.having(there, f"{summary} (no token of the user's but the first)")


def counted_tokens(dataset: xr.Dataset, span: str) -> NDArray[np.bool_]:
    """Which tokens count: those of the span, first tokens of prompts excluded; bool [token].

    Where no token is known to be of that span, those of which nothing is known count.
    """
    refuse_unknown(span, names.SPANS, "span")
    prompts = Prompts(dataset)
    spans, inside = prompts.spans, prompts.in_spans([span])
    counted: NDArray[np.bool_] = (inside if inside.any() else spans < 0) & ~prompts.first
    if not counted.any():
        present = sorted({names.SPANS[one] for one in np.unique(spans) if one >= 0})
        raise InputError(f"no token is of the span {span!r}", where="span", fix=f"There are: {', '.join(present)}.")
    return counted
