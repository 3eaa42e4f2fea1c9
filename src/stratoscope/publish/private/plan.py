"""What a private publication would hold, and how much noise: known before any value is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stratoscope import defaults, names
from stratoscope.errors import InputError, UsageError
from stratoscope.publish.averaged import LOG, banded, profiled, scale_of
from stratoscope.publish.private.centre import KNOWN, Centre, centre_of
from stratoscope.publish.private.noise import Mechanism, calibrated
from stratoscope.publish.profiles.classes import described, members, refuse_few
from stratoscope.trace.arguments import is_whole
from stratoscope.trace.arrays import Floats, Ints
from stratoscope.words import capital, counted, listed, number

if TYPE_CHECKING:
    import xarray as xr

_MOST_CLIP = 1000  # with more, nothing is left but noise


@dataclass(frozen=True, eq=False)
class Column:
    """A quantity as it is published.

    Attributes
    ----------
    quantity
        Its name.
    bands
        Numbers of the layers (or depths) that each of its numbers is the mean of.
    centre
        Around which its values are clipped.
    """

    quantity: str
    bands: tuple[Ints, ...]
    centre: Centre

    def apart(self, values: Floats) -> Floats:
        """Values by layer [prompt, layer] as means of bands, in distances from the centre."""
        return banded((values - self.centre.of_row) / self.centre.unit, len(self.bands))

    def told(self, apart: Floats) -> Floats:
        """Distances by band as the values that they stand for."""
        centre: Floats = banded(self.centre.of_row[None], len(self.bands))[0]
        return centre + apart * self.centre.unit

    @property
    def rows(self) -> Ints:
        """The number that stands for each band: its middle one."""
        return np.array([band[len(band) // 2] for band in self.bands], np.int64)


@dataclass(frozen=True, eq=False)
class ClassPlan:
    """One class.

    Attributes
    ----------
    name
        Of the class; "" where no prompt has one.
    prompts
        Which are in it. Near-duplicates count as they are: what is done with one prompt may not depend on another.
    mechanism
        What makes its noisy mean.
    """

    name: str
    prompts: Ints
    mechanism: Mechanism


@dataclass(frozen=True, eq=False)
class Plan:
    """A private publication.

    Attributes
    ----------
    columns
        Its quantities.
    classes
        Its classes. A prompt is in one of them only, so that ε is for all of them together.
    """

    columns: tuple[Column, ...]
    classes: tuple[ClassPlan, ...]

    @property
    def numbers(self) -> int:
        """How many numbers are published of each class."""
        return sum(len(one.bands) for one in self.columns)

    def in_words(self) -> list[str]:
        """How much noise the means of each class will have, a sentence each."""
        return [self._in_words(one) for one in self.classes]

    def _in_words(self, one: ClassPlan) -> str:
        noise = [
            f"±{number(one.mechanism.sigma * column.centre.unit)}"
            f"{' (log2)' if scale_of(column.quantity) == LOG else ''} of {column.quantity}"
            for column in self.columns
        ]
        ratio = number(one.mechanism.signal_to_noise(self.numbers))
        return (
            f"{capital(described(one.name))}: {counted(len(one.prompts), 'prompt')}, "
            f"{counted(self.numbers, 'number')}, predicted signal-to-noise at most {ratio}; noise {', '.join(noise)}."
        )


def planned(
    dataset: xr.Dataset,
    *,
    epsilon: float = defaults.EPSILON,
    delta: float = defaults.DELTA,
    quantities: Sequence[str] | None = None,
    prompt_class: str | Sequence[str] | None = None,
    centre: xr.DataTree | None = None,
    clip: float = defaults.CLIP,
    bands: int | None = None,
) -> Plan:
    """What `private_profiles` would publish; arguments and errors are its own."""
    if clip > _MOST_CLIP:
        fix = f"Give a number of at most {_MOST_CLIP:,}: the noise grows with it."
        raise UsageError(f"{clip} is out of range", where="clip", fix=fix)
    asked = profiled(dataset, quantities or _usual(dataset))
    columns = tuple(_column(dataset, quantity, centre, bands) for quantity in asked)
    numbers = sum(len(one.bands) for one in columns)
    prompts_of = members(dataset, prompt_class)
    refuse_few({name: len(prompts) for name, prompts in prompts_of.items()}, "prompts", names.PRIVATE)
    classes = []
    for name, prompts in prompts_of.items():
        mechanism = calibrated(len(prompts), clip * float(np.sqrt(numbers)), epsilon, delta)
        if mechanism.signal_to_noise(numbers) < 1:
            raise _too_noisy(name, mechanism, numbers, len(columns))
        classes.append(ClassPlan(name, prompts, mechanism))
    return Plan(columns, tuple(classes))


def _usual(dataset: xr.Dataset) -> tuple[str, ...]:
    """What is published where nobody says what: the usual quantity, or the first that something is known of."""
    there = [name for name in (defaults.PRIVATE_QUANTITY, *KNOWN) if name in dataset]
    if not there:
        fix = "Record norms: `stratoscope capture MODEL --prompts FILE --record norms -o TRACE`."
        raise InputError("it holds nothing of which private means are made", where="trace", fix=fix)
    return (there[0],)


def _column(dataset: xr.Dataset, quantity: str, published: xr.DataTree | None, bands: int | None) -> Column:
    kind = names.QUANTITIES[quantity].row_kind
    rows = np.asarray(dataset[kind].values, np.int64)
    if bands is not None and not (is_whole(bands) and 1 <= bands <= len(rows)):
        fix = f"Give a whole number from 1 to {len(rows)}."
        raise UsageError(f"{bands} is no number of bands of {counted(len(rows), kind)}", where="bands", fix=fix)
    parts = tuple(np.array_split(rows, len(rows) if bands is None else bands))
    return Column(quantity, parts, centre_of(quantity, kind, rows, published))


def _too_noisy(name: str, mechanism: Mechanism, numbers: int, columns: int) -> InputError:
    most, ratio = mechanism.most_numbers, mechanism.signal_to_noise(numbers)
    needed = int(np.ceil(mechanism.prompts / ratio))
    ways = [f"Give --bands {most // columns} to average neighbouring layers"] if most >= columns else []
    ways += ["give fewer of --quantity"] if columns > 1 else []
    ways.append(f"record {needed:,} prompts of each class")
    return InputError(
        f"{described(name)}: {mechanism.prompts} prompts carry {counted(most, 'number')} above the noise, "
        f"not {numbers} (predicted signal-to-noise {number(ratio)})",
        where=f"level {names.PRIVATE}",
        fix=f"{capital(listed(ways, joined='or'))}.",
    )
