"""How far the total effects of a trace agree with really ablating a sample of them, and the words that say so.

`receipt["calibration"]` (docs/format.md) holds it. Every figure that shows effects says `Calibration.sentence`, and
`Calibration.mark` in its title.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from stratoscope.names import BASELINES, Baseline
from stratoscope.trace.format.attributes import count_in, objects_in, to_json
from stratoscope.words import capital, counted, number

Kind = Literal["neuron", "mlp", "head", "attn"]

KINDS: dict[Kind, str] = {"neuron": "neuron", "mlp": "MLP", "head": "head", "attn": "attention"}
_SEVERAL: dict[Kind, str] = {"neuron": "neurons", "mlp": "MLPs", "head": "heads", "attn": "attention"}
_HOW: dict[Baseline, str] = {"zero": "set to zero", "mean": "set to their means"}
KIND_OF: dict[str, Kind] = {
    "neuron_effect": "neuron",
    "effect_neuron": "neuron",
    "strongest_effect": "neuron",
    "mlp_effect": "mlp",
    "head_effect": "head",
    "attn_effect": "attn",
    "route_effect": "head",
    "route_effect_other": "head",
}  # what of a figure's quantities was ablated

CALIBRATION = "calibration"  # in a receipt
NOT_CALIBRATED = "not calibrated"
LEAST_SPEARMAN, LEAST_SIGN = 0.5, 0.6  # of the lower bounds: below, effects are not to be believed
FEWEST = 8  # items: of fewer there is no interval worth the name
FEW_PROMPTS = 5  # with fewer, an interval says nothing of other prompts


@dataclass(frozen=True)
class Bounded:
    """A number with its interval of 95 %; NaN where it is not known."""

    value: float
    low: float
    high: float

    @property
    def correlation(self) -> str:
        """As 0.97 [0.94, 0.99]; of nearly 1, >0.99."""
        value, low, high = (_two(one) for one in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"

    @property
    def percent(self) -> str:
        """As 97 % [94, 99]."""
        value, low, high = (_percent(one) for one in (self.value, self.low, self.high))
        return f"{value} % [{low}, {high}]"

    @property
    def ratio(self) -> str:
        """As 1.02 [0.97, 1.08]."""
        value, low, high = (_decimals(one, 2, math.inf) for one in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"


def _two(value: float) -> str:
    return _decimals(value, 2, 1)


def _percent(share: float) -> str:
    return _decimals(100 * share, 0, 100)


def _decimals(value: float, decimals: int, whole: float) -> str:
    """With so many decimals; what is nearly, but not quite, `whole` is not called so."""
    if math.isnan(value):
        return "?"
    if abs(value) >= 1000:
        return number(value)
    text = f"{abs(value):.{decimals}f}"
    if float(text) == whole and abs(value) < whole:
        text = f">{whole - 10**-decimals:.{decimals}f}"
    return f"−{text.replace('>', '<')}" if value < 0 and float(text.strip("<>")) else text


def _below(value: float, bound: float, decimals: int) -> str:
    """A number below a bound, with as many decimals as show that it is: 0.499 of a bound of 0.5."""
    for more in range(decimals, 9):
        text = _decimals(value, more, math.inf)
        if math.isnan(value) or float(text.replace("−", "-")) < bound:
            return text
    return f"just below {bound:g}"


_UNKNOWN = Bounded(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Agreement:
    """How well first-order effects agree with measured ones.

    Attributes
    ----------
    count
        Items that were ablated.
    decided
        Those whose measured effect is larger than the floor, so that it has a sign.
    spearman
        Rank correlation.
    sign
        Share of the decided whose sign is that of the first-order effect.
    slope
        Theil–Sen slope of the measured on the first-order effect: 1 = of equal size.
    """

    count: int = 0
    decided: int = 0
    spearman: Bounded = _UNKNOWN
    sign: Bounded = _UNKNOWN
    slope: Bounded = _UNKNOWN

    @property
    def doubts(self) -> list[str]:
        """Why effects of this kind are not to be believed, in clauses; none where they are calibrated."""
        if self.count < FEWEST:
            return [f"{self.count} are too few" if self.count else "none was ablated"]
        found = []
        if not self.spearman.low >= LEAST_SPEARMAN:
            found.append(f"lower bound of ρ {_below(self.spearman.low, LEAST_SPEARMAN, 2)} < {LEAST_SPEARMAN}")
        if not self.sign.low >= LEAST_SIGN:
            low, least = _below(100 * self.sign.low, 100 * LEAST_SIGN, 0), f"{100 * LEAST_SIGN:g}"
            found.append(f"lower bound of equal signs {low} % < {least} %")
        return found

    @property
    def calibrated(self) -> bool:
        """Whether the lower bounds of rank correlation and sign agreement are high enough."""
        return not self.doubts

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        bounded = {name: getattr(self, name) for name in STATISTICS}
        numbers = {name: [one.value, one.low, one.high] for name, one in bounded.items()}
        return {"count": self.count, "decided": self.decided, **numbers}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Agreement:
        """What was stored; unknown where a stranger's file has something else in its place."""
        counts = count_in(stored.get("count")), count_in(stored.get("decided"))
        return cls(*counts, *(_bounded(stored.get(name)) for name in STATISTICS))


STATISTICS = ("spearman", "sign", "slope")


TABLE_COLUMNS = ("n", "ρ", "equal signs", "of", "slope")


def table_row(kind: Kind, baseline: Baseline, one: Agreement) -> tuple[str, ...]:
    """A row of a table of agreements: what was ablated and how, `TABLE_COLUMNS`, whether that is enough."""
    numbers = f"{one.count:,}", one.spearman.correlation, one.sign.percent, f"{one.decided:,}", one.slope.ratio
    return f"{_SEVERAL[kind]}, {baseline}", *numbers, "yes" if one.calibrated else NOT_CALIBRATED


@dataclass(frozen=True)
class Calibration:
    """What a sample of the total effects of a trace says about all of them.

    Attributes
    ----------
    prompts
        Ids of the prompts on which items were ablated.
    asked
        How many items of each kind were asked for (`capture --calibration`).
    baseline
        That of the recorded effects.
    floor
        How much the target changes when nothing is ablated.
    agreements
        Kind, baseline and number of the target to how well they agree.
    """

    prompts: tuple[str, ...] = ()
    asked: int = 0
    baseline: Baseline = "zero"
    floor: float = math.nan
    agreements: Mapping[tuple[Kind, Baseline, int], Agreement] = field(default_factory=dict)

    @classmethod
    def from_receipt(cls, receipt: Any) -> Calibration:
        """The calibration that a trace's `attrs["receipt"]` holds; without one, of nothing: "not calibrated"."""
        stored = receipt.get(CALIBRATION) if isinstance(receipt, Mapping) else None
        if not isinstance(stored, Mapping):
            return cls()
        prompts = stored.get("prompts")
        found: dict[tuple[Kind, Baseline, int], Agreement] = {}
        for one in objects_in(stored.get("agreement")):
            kind, baseline, target = one.get("kind"), one.get("baseline"), one.get("target")
            if kind in [*KINDS] and baseline in BASELINES and type(target) is int:
                found[kind, baseline, target] = Agreement.from_json(one)
        return cls(
            prompts=tuple(map(str, prompts)) if isinstance(prompts, list) else (),
            asked=count_in(stored.get("asked")),
            baseline="mean" if stored.get("baseline") == "mean" else "zero",
            floor=_float(stored.get("floor")),
            agreements=found,
        )

    # --- of what a figure shows ---------------------------------------------------------------------------------------

    def of(self, kind: Kind, baseline: Baseline | None = None, target: int | None = None) -> Agreement:
        """How well effects agree.

        Parameters
        ----------
        kind
            What was ablated; `KIND_OF` has that of a quantity.
        baseline
            By default that of the recorded effects.
        target
            Number of the target; by default the one that agrees worst.
        """
        baseline = baseline or self.baseline
        if target is not None:
            return self.agreements.get((kind, baseline, target), Agreement())
        found = [one for (of, how, _), one in self.agreements.items() if (of, how) == (kind, baseline)]
        return min(found, key=_strength, default=Agreement())

    def mark(self, kind: Kind, baseline: Baseline | None = None, target: int | None = None) -> str:
        """What a title says: "not calibrated", or ""."""
        return "" if self.of(kind, baseline, target).calibrated else NOT_CALIBRATED

    @property
    def calibrated(self) -> bool:
        """Whether effects of every kind agree with ablating, for every target, on the recorded baseline."""
        found = [one for (_, how, _), one in self.agreements.items() if how == self.baseline]
        return bool(found) and all(one.calibrated for one in found)

    def sentence(self, kind: Kind, baseline: Baseline | None = None, target: int | None = None) -> str:
        """What a figure says below itself: what was ablated, how well it agrees, and whether that is enough."""
        baseline, one = baseline or self.baseline, self.of(kind, baseline, target)
        name = KINDS[kind]
        if not one.count:
            return f"Total effects of {_SEVERAL[kind]} are {NOT_CALIBRATED}: none was ablated."
        few = ""
        if len(self.prompts) == 1:
            few = f"; intervals are over these {one.count:,} pairs of one prompt and say nothing of other prompts"
        elif len(self.prompts) < FEW_PROMPTS:
            few = "; intervals are over pairs, not over other prompts"
        several = self._targets(kind, baseline) if target is None else 0
        words = (
            f"{counted(one.count, f'({name}, token) pair')} of {counted(len(self.prompts), 'prompt')} "
            f"{_HOW[baseline]}: first-order and measured effects have ρ {one.spearman.correlation}, equal signs "
            f"{one.sign.percent} of {one.decided:,}, slope {one.slope.ratio}"
            f"{f' (the worst of {several} targets)' if several > 1 else ''}{few}."
        )
        return words if one.calibrated else f"{capital(NOT_CALIBRATED)} ({', '.join(one.doubts)}): {words}"

    def _targets(self, kind: Kind, baseline: Baseline) -> int:
        return sum((of, how) == (kind, baseline) for of, how, _ in self.agreements)

    @property
    def explained(self) -> str:
        """What the numbers of `rows` are, in sentences."""
        words = (
            f"Effects to first order against really ablating, on {counted(len(self.prompts), 'prompt')}: rank "
            "correlation ρ, equal signs of those whose effect is larger than the floor "
            f"({number(self.floor)}), slope of the measured on the first-order effect, each with its interval of 95 %."
        )
        if len(self.prompts) >= FEW_PROMPTS:
            return words
        of = "of one prompt" if len(self.prompts) == 1 else "of so few prompts"
        return f"{words} The intervals are over the pairs {of} and say nothing of other prompts."

    def rows(self) -> list[tuple[str, ...]]:
        """A table for `info`, its header first: of each kind, baseline and target what agrees."""
        several = len({target for _, _, target in self.agreements}) > 1
        rows: list[tuple[str, ...]] = [("target" if several else "", *TABLE_COLUMNS, "")]
        for (kind, baseline, target), one in self.agreements.items():
            name, *cells = table_row(kind, baseline, one)
            rows.append((f"{target}: {name}" if several else name, *cells[:-1], "" if one.calibrated else cells[-1]))
        return rows


@dataclass(frozen=True)
class Samples:
    """What was ablated: one row an item, and of each baseline and target its effects.

    Attributes
    ----------
    kind, prompt
        Of each item, what it is, and the id of its prompt.
    position, layer, index
        Place of its token in the prompt, its layer, and its neuron or head (−1 = all of the layer).
    first_order, measured
        Baseline and number of the target to one number an item, positive = it promotes the target: the effect as
        it is recorded, and the change that ablating it makes.
    direct
        Number of the target to direct contributions; NaN before the answer position.
    """

    kind: tuple[str, ...]
    prompt: tuple[str, ...]
    position: np.ndarray
    layer: np.ndarray
    index: np.ndarray
    first_order: Mapping[tuple[str, int], np.ndarray]
    measured: Mapping[tuple[str, int], np.ndarray]
    direct: Mapping[int, np.ndarray]

    @classmethod
    def from_receipt(cls, receipt: Mapping[str, Any]) -> Samples:
        """The samples that a trace's `attrs["receipt"]` holds; ValueError or KeyError where it holds none."""
        stored = receipt[CALIBRATION]["samples"]
        effects = {(str(one["baseline"]), int(one["target"])): one for one in stored["effects"]}
        position, layer, index = (np.asarray(stored[name], np.int64) for name in ("position", "layer", "index"))
        first, measured = (
            {key: np.asarray(one[name], np.float64) for key, one in effects.items()}
            for name in ("first_order", "measured")
        )
        direct = {target: np.asarray(one, np.float64) for target, one in enumerate(stored["direct"])}  # null is NaN
        return cls(tuple(stored["kind"]), tuple(stored["prompt"]), position, layer, index, first, measured, direct)

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "kind": list(self.kind),
            "prompt": list(self.prompt),
            **{name: getattr(self, name).tolist() for name in ("position", "layer", "index")},
            "direct": to_json([self.direct[target].tolist() for target in range(len(self.direct))]),
            "effects": [
                {"baseline": baseline, "target": target, "first_order": first.tolist(), "measured": measured.tolist()}
                for (baseline, target), first in self.first_order.items()
                for measured in [self.measured[baseline, target]]
            ],
        }


def _strength(one: Agreement) -> tuple[bool, float]:
    low = one.spearman.low
    return one.calibrated, -math.inf if math.isnan(low) else low


def _bounded(value: Any) -> Bounded:
    return Bounded(*map(_float, value)) if isinstance(value, Sequence) and len(value) == 3 else _UNKNOWN


def _float(value: Any) -> float:
    return float(value) if isinstance(value, float) or type(value) is int else math.nan
