"""The classes of prompts of which means may be published: near-duplicates count once, and 20 must differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stratoscope import defaults, names
from stratoscope.analysis.classes.units import unit_means
from stratoscope.errors import InputError, refuse_unknown
from stratoscope.names import Level
from stratoscope.publish.profiles.duplicates import duplicates
from stratoscope.trace.arrays import AnyFloats, Floats, Ints
from stratoscope.trace.prompts import Prompts
from stratoscope.words import listed

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True, eq=False)
class ClassPrompts:
    """The prompts of a class that are averaged.

    Attributes
    ----------
    name
        Of the class; "" where no prompt has one.
    prompts
        Their indices, ascending.
    cluster
        Which of them are near-duplicates of each other: the number of the cluster of each, from 0.
    tokens
        Tokens of each that are counted.
    """

    name: str
    prompts: Ints
    cluster: Ints
    tokens: Ints

    def __len__(self) -> int:
        return int(self.cluster.max(initial=-1)) + 1

    @property
    def about(self) -> int:
        """How many prompts differ, as it is published."""
        step = defaults.ROUNDED_PROMPTS
        return (len(self) + step // 2) // step * step

    @property
    def tokens_each(self) -> int:
        """How many tokens of a prompt are counted on average, as it is published."""
        return round(float(unit_means(self.tokens.astype(np.float64), self.cluster, len(self)).mean()))

    @property
    def described(self) -> str:
        """What an error calls it."""
        return described(self.name)

    def each(self, values: AnyFloats) -> AnyFloats:
        """The means over the prompts of each cluster; `values` has a row for each of `prompts`."""
        found: AnyFloats = unit_means(values, self.cluster, len(self))
        return found

    def mean(self, values: AnyFloats) -> Floats:
        """The mean over clusters of the means over the prompts of each; NaN where fewer than 20 clusters have a value.

        Parameters
        ----------
        values
            Shape (prompt, …), a row for each of `prompts`.
        """
        of_cluster = self.each(values)
        known = np.isfinite(of_cluster)
        count = known.sum(axis=0)
        total = np.where(known, of_cluster, 0.0).sum(axis=0, dtype=np.float64)
        return np.where(count >= defaults.FEWEST_PROMPTS, total / np.maximum(count, 1), np.nan)


def class_prompts(
    dataset: xr.Dataset, counted: NDArray[np.bool_], prompt_class: str | Sequence[str] | None = None
) -> list[ClassPrompts]:
    """The prompts of each class that have a counted token; of a trace without classes all of them together.

    Parameters
    ----------
    counted
        Which tokens count; [token].
    prompt_class
        Only these classes.
    """
    tokens = np.bincount(Prompts(dataset).of_token[counted], minlength=len(Prompts(dataset)))
    classes = []
    for name, prompts in members(dataset, prompt_class).items():
        having = prompts[tokens[prompts] > 0]
        classes.append(ClassPrompts(name, having, duplicates(dataset, having), tokens[having]))
    return classes


def members(dataset: xr.Dataset, prompt_class: str | Sequence[str] | None = None) -> dict[str, Ints]:
    """Which prompts each class has, of all classes or of these; without classes "" has all."""
    prompts = Prompts(dataset)
    if prompts.are_single_files:
        fix = (
            f"Give {defaults.FEWEST_PROMPTS} files or more one class: `stratoscope import FILE … --class CLASS … "
            "-o TRACE`, and publish TRACE."
        )
        raise InputError("the class of a CSV file is its name, which is not published", where="class", fix=fix)
    of = np.array(prompts.classes, object)
    found = [name for name in dict.fromkeys(prompts.classes) if name] or [""]
    wanted = found
    if prompt_class is not None:
        wanted = [prompt_class] if isinstance(prompt_class, str) else list(dict.fromkeys(prompt_class))
        for name in wanted:
            refuse_unknown(name, found, "class")
    return {name: np.flatnonzero(of == name) for name in wanted}


def publishable(classes: Sequence[ClassPrompts]) -> list[ClassPrompts]:
    """The classes, each of which has enough prompts that differ.

    Raises
    ------
    InputError
        One has too few; it says how many each of those has.
    """
    refuse_few({one.name: len(one) for one in classes}, "prompts that differ", names.AGGREGATE)
    return list(classes)


def refuse_few(counts: Mapping[str, int], noun: str, level: Level) -> None:
    """Raise where a class has fewer than 20, and say how many each of those has.

    Parameters
    ----------
    counts
        How many each class has …
    noun
        … of what.
    """
    few = {name: count for name, count in counts.items() if count < defaults.FEWEST_PROMPTS}
    if few:
        said = listed([f"{described(name)} has {count} {noun}" for name, count in few.items()])
        enough = [name for name in counts if name not in few]
        leave = f", or leave {'it' if len(few) == 1 else 'them'} out with --class {enough[0]}" if enough else ""
        raise InputError(
            f"{said}, {defaults.FEWEST_PROMPTS} are needed",
            where=f"level {level}",
            fix=f"Record more prompts{leave}. The level {names.NO_TEXT} takes any number, but whoever has the model "
            "reads them back from it.",
        )


def described(name: str) -> str:
    """How an error calls a class."""
    return f"class {name!r}" if name else "the trace"
