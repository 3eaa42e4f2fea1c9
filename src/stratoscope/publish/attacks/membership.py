"""Who was in the mean? Tells prompts that a published mean was made of from others of the same kind.

Two tests are made and the stronger is reported, as an attacker would: the inner product with the mean's deviation from
the population (Homer et al. 2008; Dwork et al. 2015), and the likelihood ratio of both hypotheses for normal values
(Sankararaman et al. 2009), each with the covariance of the attacker's reference prompts, shrunk (Ledoit and Wolf 2004).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stratoscope import defaults
from stratoscope.publish.attacks.outcome import Attack, Share, not_run
from stratoscope.trace.arrays import AnyFloats, Floats

NAME, HOLDS, UNIT = "membership from means", "candidate prompts, and others of the same kind", "prompts"
_FALSE_ALARMS = 0.01  # share of the others that are taken for members
_FAR = 5.0  # spreads: what is farther out counts as that, or a neuron silent in the reference would decide alone
_LEAST = 8  # prompts on each side: of fewer nothing is said
_DRAWS = 1000


@dataclass(frozen=True)
class Population:
    """What an attacker knows of prompts like those published, from reference prompts.

    Attributes
    ----------
    mean, scale
        Of each value, over the reference prompts; [value].
    rows
        The reference prompts' deviations in units of `scale`; [prompt, value].
    shrinkage
        How much of the covariance is taken for independent values: 1 = all of it.
    """

    mean: Floats
    scale: Floats
    rows: Floats
    shrinkage: float

    @classmethod
    def of(cls, reference: AnyFloats) -> Population:
        """The population as the reference prompts show it; [prompt, value]."""
        reference = np.asarray(reference, np.float64)
        mean, scale = reference.mean(axis=0), reference.std(axis=0, ddof=1)
        rows = np.clip((reference - mean) / np.where(scale > 0, scale, 1.0), -_FAR, _FAR)
        return cls(mean, scale, rows, _shrinkage(rows))

    def deviations(self, values: AnyFloats, spread: AnyFloats | float = 1.0) -> Floats:
        """Values in units of the population's spread, cut where they are far out of their own; [prompt, value]."""
        found = (np.asarray(values, np.float64) - self.mean) / np.where(self.scale > 0, self.scale, 1.0)
        return np.clip(found, -_FAR * spread, _FAR * spread)

    def products(self, a: Floats, b: Floats, noise: Floats | float = 0.0) -> Floats:
        """⟨a, (Σ + noise)⁻¹ b⟩ of rows a with one row b, Σ the shrunk correlation, noise a variance of each value."""
        own, weighted, middle = self._inverse(noise)
        return np.asarray(a @ (b / own) - (a @ weighted.T) @ np.linalg.solve(middle, weighted @ b))

    def lengths(self, a: Floats, noise: Floats | float = 0.0) -> Floats:
        """⟨a, (Σ + noise)⁻¹ a⟩ of each row."""
        own, weighted, middle = self._inverse(noise)
        along = a @ weighted.T
        return np.asarray((a * a / own).sum(axis=1) - np.einsum("pr,rp->p", along, np.linalg.solve(middle, along.T)))

    def _inverse(self, noise: Floats | float) -> tuple[Floats | float, Floats, Floats]:
        """What Woodbury's identity needs: never larger than prompts × prompts and prompts × values."""
        count, own = len(self.rows), self.shrinkage + noise
        weighted = self.rows / own * (1.0 if self.shrinkage < 1 else 0.0)
        return own, weighted, count / max(1 - self.shrinkage, 1e-12) * np.eye(count) + self.rows @ weighted.T


def membership(
    published_profile: AnyFloats,
    members: AnyFloats,
    non_members: AnyFloats,
    reference: AnyFloats,
    *,
    count: int | None = None,
    name: str = NAME,
) -> Attack:
    """Attack one published mean.

    Parameters
    ----------
    published_profile
        The mean as published: of layers, of several profiles one after the other, or of neurons; [value].
    members, non_members
        Profiles of the prompts it was made of, and of others of the same kind; [prompt, value].
    reference
        Profiles of the attacker's own prompts, none of them among the others; [prompt, value].
    count
        How many prompts the file says were averaged; by default the number of members.
    name
        What the attack is called.

    Returns
    -------
    Attack
        `recovered` is the area under the ROC curve with DeLong's interval, `at_one_percent` the members found where 1 %
        of the others are taken for members. The stronger of two tests is told, slightly in the attacker's favour.

    Examples
    --------
    >>> import numpy as np
    >>> prompts = np.random.default_rng(0).normal(size=(120, 2000))
    >>> attack = membership(prompts[:20].mean(axis=0), prompts[:20], prompts[20:70], prompts[70:])
    >>> attack.recovered.value > 0.95, attack.baseline.value
    (True, 0.5)
    """
    return membership_of_classes([Side(published_profile, members, non_members, reference, count)], name)


@dataclass(frozen=True)
class Side:
    """One class that is attacked; attributes are the arguments of `membership`, and of `scores`."""

    published: AnyFloats
    members: AnyFloats
    non_members: AnyFloats
    reference: AnyFloats
    count: int | None = None
    noise: AnyFloats | None = None


def membership_of_classes(sides: Sequence[Side], name: str = NAME) -> Attack:
    """Attack the published means of several classes together.

    Scores of a class are put in units of its non-members', so that those of all classes stand on one scale.
    """
    found: dict[str, list[tuple[Floats, Floats]]] = {}
    for side in sides:
        few = min(len(side.members), len(side.non_members), len(side.reference))
        if few < _LEAST:
            return not_run(name, HOLDS, UNIT, f"it needs {_LEAST} prompts or more on each side, and there are {few}")
        tests = scores(
            side.published, side.members, side.non_members, side.reference, count=side.count, noise=side.noise
        )
        for test, pair in tests.items():
            centre, spread = pair[1].mean(), pair[1].std() or 1.0
            found.setdefault(test, []).append(((pair[0] - centre) / spread, (pair[1] - centre) / spread))
    if not found:
        return not_run(name, HOLDS, UNIT, "no value is known of all prompts")
    together = {
        test: (np.concatenate([inner for inner, _ in pairs]), np.concatenate([outer for _, outer in pairs]))
        for test, pairs in found.items()
    }
    best = max(together, key=lambda one: auc(*together[one]).value)
    return _outcome(name, *together[best], f"The stronger test: {best}.")


def nearness(published: AnyFloats, members: AnyFloats, non_members: AnyFloats, *, name: str) -> Attack:
    """Attack rows of single prompts: a member is a prompt that one of them is next to.

    Parameters
    ----------
    published
        A row a prompt, as published; [prompt, value].
    members, non_members
        As of `membership`.
    """
    known = np.isfinite(np.concatenate([published, members, non_members])).all(axis=0)
    few = min(len(members), len(non_members))
    if few < _LEAST or not known.any():
        return not_run(name, HOLDS, UNIT, f"it needs {_LEAST} prompts or more on each side, and there are {few}")
    scale = non_members[:, known].std(axis=0)
    rows, *sides = (one[:, known] / np.where(scale > 0, scale, 1.0) for one in (published, members, non_members))
    apart = [np.array([np.square(rows - one).sum(axis=1).min() for one in side]) for side in sides]
    return _outcome(name, -apart[0], -apart[1], "Told by the distance to the nearest row.")


def scores(
    published: AnyFloats,
    members: AnyFloats,
    non_members: AnyFloats,
    reference: AnyFloats,
    *,
    count: int | None = None,
    noise: AnyFloats | None = None,
) -> dict[str, tuple[Floats, Floats]]:
    """How much each member and each other looks like a member, by the name of the test; none where nothing is known.

    Parameters
    ----------
    published, members, non_members, reference, count
        As of `membership`.
    noise
        Standard deviation of the noise that was added to each published value, as a file with noise says; [value].
    """
    known = np.isfinite(published)
    for rows in (members, non_members, reference):
        known &= np.isfinite(rows).all(axis=0)
    if not known.any():
        return {}
    people, number = Population.of(reference[:, known]), max(2, count or len(members))
    added: Floats | float = 0.0  # variance of the noise, as if it were added to each prompt
    if noise is not None:
        added = number * np.square(noise[known] / np.where(people.scale > 0, people.scale, 1.0))
    mean = people.deviations(published[known][None], np.sqrt((1 + added) / number))[0]
    sides = [people.deviations(rows[:, known]) for rows in (members, non_members)]
    plain = [side @ mean - np.einsum("pv,pv->p", side, side) / (2 * number) for side in sides]
    whole = [people.products(side, mean, added) - people.lengths(side, added) / (2 * number) for side in sides]
    return {"inner product": (plain[0], plain[1]), "likelihood ratio": (whole[0], whole[1])}


def membership_within(profiles: AnyFloats, *, count: int, repeats: int = 20, seed: int = defaults.SEED) -> Attack:
    """Attack means of `count` prompts as they would be published, drawn from these, the others serving as others.

    What a person can learn before publishing who has no other prompts. Half of what is not drawn is the attacker's
    reference, half is tested as non-members.

    Parameters
    ----------
    profiles
        One row a prompt; [prompt, value].
    count
        Prompts of each mean; at most half of them are drawn.
    repeats, seed
        How many means, and where the draws start.
    """
    count = min(count, len(profiles) // 2)
    rest = len(profiles) - count
    if min(count, rest // 2) < _LEAST:
        reason = f"it needs {4 * _LEAST} prompts or more, and there are {len(profiles)}"
        return not_run(NAME, HOLDS, UNIT, reason)
    found: dict[str, list[tuple[Floats, Floats]]] = {}
    random = np.random.default_rng(seed)
    for _ in range(repeats):
        order = random.permutation(len(profiles))
        inside, others, own = np.split(order, [count, count + rest // 2])
        tests = scores(profiles[inside].mean(axis=0), profiles[inside], profiles[others], profiles[own])
        for test, sides in tests.items():
            found.setdefault(test, []).append(sides)
    if not found:
        return not_run(NAME, HOLDS, UNIT, "no value is known of all prompts")
    areas = {test: [auc(*sides) for sides in pairs] for test, pairs in found.items()}
    best = max(areas, key=lambda one: float(np.mean([area.value for area in areas[one]])))
    inner, outer = (np.concatenate(side) for side in zip(*found[best], strict=True))
    whole = _outcome(NAME, inner, outer, f"The stronger test: {best}.")
    area = Share(*(float(np.mean([getattr(one, field) for one in areas[best]])) for field in ("value", "low", "high")))
    said = f"Mean over {repeats} draws of {count} prompts."
    return Attack(
        NAME, HOLDS, area, whole.baseline, len(profiles), UNIT,
        gain=_less_chance(area), at_one_percent=whole.at_one_percent, note=f"{whole.note} {said}",
    )  # fmt: skip


def auc(members: Floats, others: Floats) -> Share:
    """Chance that a member's score is above another's, ties counting half; DeLong's interval on the logit scale."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    count, rest = len(members), len(others)
    ranks = rankdata(np.concatenate([members, others]))
    above = (ranks[:count] - rankdata(members)) / rest  # of each member: the share of the others below it
    below = 1 - (ranks[count:] - rankdata(others)) / count
    value = float(above.mean())
    variance = float(above.var(ddof=1) / count + below.var(ddof=1) / rest)
    if variance == 0 or not 0 < value < 1:  # told apart without an error: Hanley and McNeil's bound for so few
        least = (defaults.ALPHA / 2) ** (1 / min(count, rest))
        return Share(value, least if value == 1 else 0.0, 1 - least if value == 0 else 1.0)
    logit = np.log(value / (1 - value))
    half = ndtri(1 - defaults.ALPHA / 2) * np.sqrt(variance) / (value * (1 - value))
    low, high = (float(1 / (1 + np.exp(-(logit + side)))) for side in (-half, half))
    return Share(value, low, high)


def found_at(members: Floats, others: Floats, false_alarms: float = _FALSE_ALARMS) -> Share:
    """Share of members above the score that this share of the others exceeds, with a bootstrap over both."""
    random = np.random.default_rng(defaults.SEED)
    again = others[random.integers(len(others), size=(_DRAWS, len(others)))]
    limits = np.quantile(again, 1 - false_alarms, axis=1, method="higher")
    drawn = (members[random.integers(len(members), size=(_DRAWS, len(members)))] > limits[:, None]).mean(axis=1)
    value = float((members > np.quantile(others, 1 - false_alarms, method="higher")).mean())
    low, high = np.quantile(drawn, [defaults.ALPHA / 2, 1 - defaults.ALPHA / 2])
    return Share(value, float(low), float(high))


def _outcome(name: str, members: Floats, others: Floats, note: str) -> Attack:
    area = auc(members, others)
    return Attack(
        name, HOLDS, area, Share(0.5, 0.5, 0.5), len(members) + len(others), UNIT,
        gain=_less_chance(area), at_one_percent=found_at(members, others), note=note,
    )  # fmt: skip


def _less_chance(area: Share) -> Share:
    return Share(area.value - 0.5, area.low - 0.5, area.high - 0.5)


def _shrinkage(rows: Floats) -> float:
    """Ledoit and Wolf's share of the identity, from products of prompts only: values may be many."""
    count, width = rows.shape
    gram = rows @ rows.T
    square = float((gram**2).sum()) / count**2  # ‖S‖²
    trace = float(np.trace(gram)) / count
    apart = square - trace**2 / width  # ‖S − mI‖²
    noise = (float((np.diag(gram) ** 2).sum()) / count - square) / count
    return float(np.clip(noise / apart, 1e-3, 1.0)) if apart > 0 else 1.0
