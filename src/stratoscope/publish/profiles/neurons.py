"""Means of single neurons, which tell far more of prompts than profiles do: never without our own attack on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import defaults, names
from stratoscope.analysis.values.layers import by_layer
from stratoscope.errors import InputError
from stratoscope.publish.attacks.membership import membership_within
from stratoscope.publish.averaged import NEURONS
from stratoscope.publish.profiles.classes import ClassPrompts
from stratoscope.trace.arrays import AnyFloats, Floats
from stratoscope.trace.notes import WARNING, Note
from stratoscope.words import number, percent

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.publish.attacks.outcome import Attack

_MOST_ATTACKED = 128  # prompts of a class that are attacked: with more, the attack is not stronger
_REPEATS = 5  # means that are attacked


def neuron_means(dataset: xr.Dataset, classes: Sequence[ClassPrompts]) -> tuple[Floats, dict[str, Attack]]:
    """The mean of each neuron in each class, and what our own attack on such means found, by class.

    The attack is on means of half of a class' prompts, tested on the other half. To the same attacker the mean of
    all of them gives less away; whoever has more prompts of the kind (a quarter of the class serves here) finds more.

    Returns
    -------
    means, attacks
        Of shape (class, layer, neuron), and the outcome for each class.

    Raises
    ------
    InputError
        The trace holds no means of neurons, or a class has too few prompts for the attack to be measured.
    """
    if NEURONS not in dataset:
        fix = "Leave the neurons out, or record prompts too: `stratoscope capture … --record norms,prompts`."
        raise InputError(f"it holds no {NEURONS}", where="neurons", fix=fix)
    layers, width = dataset.sizes[names.LAYER], dataset.sizes[names.NEURON]
    means, attacks = np.full((len(classes), layers, width), np.nan), {}
    for place, one in enumerate(classes):
        attacked = np.sort(np.random.default_rng(defaults.SEED).permutation(len(one))[:_MOST_ATTACKED])
        profiles = np.empty((len(attacked), layers, width), np.float32)
        for row, values in by_layer(dataset, NEURONS, one.prompts, range(layers)):
            means[place, row] = one.mean(values)
            profiles[:, row] = one.each(values)[attacked]
        attacks[one.name] = _attacked(one, profiles.reshape(len(attacked), -1))
    return means, attacks


def told(attacks: dict[str, Attack]) -> Note:
    """The note that stands beside means of neurons: the class whose prompts are told apart best."""
    name, worst = max(attacks.items(), key=lambda one: _area(one[1]))
    area, found = worst.recovered, worst.at_one_percent
    assert area is not None
    of = f" of class {name}" if name else ""
    at = f", and found {percent(found.value)} of them with 1 % false alarms" if found is not None else ""
    return Note(
        "L10",
        WARNING,
        f"Means of neurons tell far more of prompts than profiles do. Our own attack told the prompts of a mean{of} "
        f"from others with AUC {number(area.value)} (95 % interval {number(area.low)} to {number(area.high)}; "
        f"0.5 is guessing){at}. It was measured on this trace, on means of half of the prompts: "
        "whoever has more prompts like them tells them better.",
    )


def stored(attacks: dict[str, Attack]) -> list[dict[str, Any]]:
    """The same for `summary`: a class, and what was measured."""
    return [
        {
            "prompt_class": name,
            "attack": one.name,
            "auc": _bounded(one.recovered),
            "found_at_one_percent": _bounded(one.at_one_percent),
            "note": one.note,
        }
        for name, one in attacks.items()
    ]


def _attacked(one: ClassPrompts, profiles: AnyFloats) -> Attack:
    found = membership_within(profiles, count=len(profiles) // 2, repeats=_REPEATS)
    if found.recovered is None:
        raise InputError(
            f"what means of neurons give away of {one.described} cannot be measured: {found.reason}",
            where="neurons",
            fix="Leave the neurons out, or record more prompts.",
        )
    return found


def _area(attack: Attack) -> float:
    return attack.recovered.value if attack.recovered is not None else 0.0


def _bounded(share: Any) -> list[float] | None:
    return None if share is None else [round(one, 3) for one in (share.value, share.low, share.high)]
