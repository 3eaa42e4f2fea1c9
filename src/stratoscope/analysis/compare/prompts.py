"""Which two prompts are compared: of one trace, of two traces, or of two CSV files; and what each is called."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from stratoscope import names
from stratoscope.analysis.diff.floor import dtype_of, weights_of
from stratoscope.analysis.diff.prompts import Side, sides
from stratoscope.errors import InputError, UsageError, choices
from stratoscope.trace.arguments import several
from stratoscope.trace.numbers import listing
from stratoscope.trace.opened import Inputs, input_name, opened
from stratoscope.trace.prompts import PromptChoice, Prompts
from stratoscope.trace.targets import TargetChoice, has_targets, one_target, same_targets

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.trace.csv.columns import Columns

    TwoInputs: TypeAlias = Inputs | Sequence[xr.Dataset]

_NAME_TWO = "Name two: `--prompt A --prompt B`"


@dataclass(frozen=True, eq=False)
class Two:
    """Two prompts that are compared.

    Attributes
    ----------
    sides
        The trace of either; the same twice where both are of one.
    prompts
        Their indices.
    called
        What pictures and tables call them, never the same.
    one_model
        Whether both went through one model in one dtype; None where nothing says so.
    """

    sides: tuple[Side, Side]
    prompts: tuple[int, int]
    called: tuple[str, str]
    one_model: bool | None

    @property
    def one_trace(self) -> bool:
        """Whether both are of one trace."""
        return self.sides[0].dataset is self.sides[1].dataset

    @property
    def traces(self) -> list[xr.Dataset]:
        """The traces, each once."""
        return [side.dataset for side in self.sides[: 1 if self.one_trace else 2]]

    @property
    def ids(self) -> tuple[str, str]:
        """What the prompts are called in their traces."""
        a, b = (side.labels[prompt] for side, prompt in zip(self.sides, self.prompts, strict=True))
        return a, b

    @property
    def classes(self) -> tuple[str, str]:
        """Their classes; "" = none."""
        a, b = (side.classes[prompt] for side, prompt in zip(self.sides, self.prompts, strict=True))
        return a, b


def two_prompts(inputs: TwoInputs, columns: Columns = None, prompt: PromptChoice = None) -> Two:
    """The two prompts that a person names, or those that go without saying.

    Parameters
    ----------
    inputs
        A trace, CSV or Parquet files, a Dataset; or two traces.
    columns
        Which column of CSV files is which.
    prompt
        Two prompts of one trace; of two traces one that both have, or one of each. Without it the first minimal pair of
        a trace, else the first prompt of each of its two classes; of two traces the first that both have, else the
        first of each; of two files both.

    Raises
    ------
    InputError
        These are not two prompts, or one of them does not exist.
    """
    a, b = _opened(inputs, columns)
    side_a, side_b = sides(a, b)
    if a is b:
        side_b = side_a
        first, second = _of_one(side_a, prompt)
        called = _called_in_one(side_a, first, second)
        alike = True if a.attrs.get("source") == names.REAL else None
    else:
        first, second = _of_two(side_a, side_b, prompt)
        called = _called_in_two(side_a.labels[first], side_b.labels[second], _names_of(inputs))
        alike = _one_model(a, b)
    return Two((side_a, side_b), (first, second), called, alike)


def of_one_target(two: Two, quantity: str, target: TargetChoice) -> Two:
    """The same two prompts of one target, where the quantity has targets.

    Raises
    ------
    InputError
        There is no such target, or two traces explain other tokens.
    """
    if not has_targets(quantity):
        one_target(two.sides[0].dataset, [quantity], target)  # refuses one that is named
        return two
    parts = [one_target(trace, [quantity], target) for trace in two.traces]
    a, b = (replace(side, dataset=part) for side, part in zip(two.sides, [*parts, *parts][:2], strict=True))
    if two.one_trace:
        return replace(two, sides=(a, a))
    if why := same_targets(a.dataset, b.dataset, [two.prompts]):
        raise InputError(why, where="target", fix="Record both with the same --targets, or name one that both have.")
    return replace(two, sides=(a, b))


def _opened(inputs: TwoInputs, columns: Columns) -> tuple[xr.Dataset, xr.Dataset]:
    """The trace of either prompt; the same one twice where there is one."""
    given = _listed(inputs)
    for one in given[1:]:
        if isinstance(one, str | os.PathLike) and Path(one).suffix.lower() in names.PICTURES and not Path(one).exists():
            raise UsageError("is no input", where=str(one), fix="The picture to write is named by `-o` (`out=`).")
    traces = [one for one in given if not isinstance(one, str | os.PathLike) or Path(one).is_dir()]
    if len(traces) == len(given) == 2:
        a, b = (opened(one, columns) for one in given)
        return (a, a) if _is_same(*given) or _is_copy(given, a, b) else (a, b)
    if len(traces) > 2:
        raise UsageError(
            f"{len(traces)} traces, and a comparison takes two prompts",
            where="inputs",
            fix="Give one trace and two of its prompts, or two traces.",
        )
    if traces and len(given) > len(traces):
        fix = "Give two prompts of a trace, two traces, or two CSV files (`stratoscope export` makes them of a trace)."
        raise UsageError("a trace and a CSV file hold nothing that can be compared", where="inputs", fix=fix)
    dataset = opened(given[0] if len(given) == 1 else given, columns)
    if len(given) == 2 and _is_same(*given):
        what = "is given twice, and nothing differs from itself"
        raise UsageError(what, where=str(given[0]), fix="Give two files.")
    return dataset, dataset


def _is_same(one: Any, other: Any) -> bool:
    """Whether the same Dataset or the same path is given twice."""
    if isinstance(one, str | os.PathLike) and isinstance(other, str | os.PathLike):
        return Path(one).resolve() == Path(other).resolve()
    return one is other


def _is_copy(given: Sequence[Any], a: xr.Dataset, b: xr.Dataset) -> bool:
    """Whether two folders hold one recording; a Dataset may have been changed since it was opened."""
    if not all(isinstance(one, str | os.PathLike) for one in given):
        return False
    return bool(a.attrs.get("uuid")) and a.attrs["uuid"] == b.attrs.get("uuid") and a.sizes == b.sizes


def _listed(inputs: TwoInputs) -> list[Any]:
    return list(inputs) if isinstance(inputs, list | tuple) else [inputs]


def _of_one(prompts: Prompts, choice: PromptChoice) -> tuple[int, int]:
    if choice is None:
        among = range(len(prompts))
        imported = prompts.dataset.attrs.get("source") == names.IMPORTED
        found = [*among] if imported else prompts.first_twins(among) or prompts.first_of_each_class(among)
        if len(found) == 2:
            return found[0], found[1]
        if len(prompts) < 2:
            more = "Give two files." if imported else "Give a second trace, or record a second prompt into this one."
            raise InputError("there is one prompt, and a comparison takes two", where="prompt", fix=more)
        what = f"{len(prompts)} files" if imported else f"{len(prompts)} prompts, without a pair or two classes"
        known = choices("", prompts.labels, most=8)
        raise InputError(f"there are {what}, and a comparison takes two", where="prompt", fix=f"{_NAME_TWO}. {known}")
    found = prompts.find_all(choice)
    if len(found) == 1:
        what = f"one prompt is named ({prompts.labels[found[0]]}), and a comparison takes two"
        raise UsageError(what, where="prompt", fix=_another(prompts, found[0]))
    if len(found) > 2:
        fix = f"{_NAME_TWO}; `heatmap` draws more of them side by side."
        raise UsageError(f"{len(found)} prompts are named, and a comparison takes two", where="prompt", fix=fix)
    if found[0] == found[1]:
        what = f"{prompts.labels[found[0]]} is named twice, and nothing differs from itself"
        raise UsageError(what, where="prompt", fix=_another(prompts, found[0]))
    return found[0], found[1]


def _another(prompts: Prompts, prompt: int) -> str:
    """What to add to one prompt: its twin, where it has one."""
    pair = prompts.pairs[prompt]
    twins = [one for one in range(len(prompts)) if pair and prompts.pairs[one] == pair and one != prompt]
    if twins:
        return f"Name its twin, too: `--prompt {prompts.labels[prompt]} --prompt {prompts.labels[twins[0]]}`."
    others = [label for one, label in enumerate(prompts.labels) if one != prompt]
    return f"{_NAME_TWO}. " + choices("", others, there="Others are", most=8)


def _of_two(a: Prompts, b: Prompts, choice: PromptChoice) -> tuple[int, int]:
    if choice is None:
        there = {identity: prompt for prompt, identity in reversed([*enumerate(b.ids)])}
        first = next((prompt for prompt, identity in enumerate(a.ids) if identity and identity in there), None)
        return (0, 0) if first is None else (first, there[a.ids[first]])
    asked = several(choice, "prompt", "['fire-c']")
    if len(asked) not in (1, 2):
        fix = "Name one that both traces have, or one of each: `--prompt A --prompt B`."
        raise UsageError(f"{len(asked)} prompts are named, and a comparison takes two", where="prompt", fix=fix)
    of_a = a.find(asked[0])
    if len(asked) == 1 and isinstance(asked[0], str) and asked[0] in a.ids and asked[0] not in b.ids:
        both = [identity for identity in a.ids if identity and identity in b.ids]
        fix = f"In both are: {listing(both)}." if both else "Name one of each: `--prompt A --prompt B`."
        raise InputError(f"{asked[0]!r} is only in the first trace", where="prompt", fix=fix)
    return of_a, b.find(asked[-1])


def _called_in_one(prompts: Prompts, a: int, b: int) -> tuple[str, str]:
    """Their classes where they have two, else their ids."""
    classes = prompts.classes[a], prompts.classes[b]
    if all(classes) and classes[0] != classes[1]:
        return classes
    labels = prompts.labels[a], prompts.labels[b]
    return labels if labels[0] != labels[1] else (f"prompt {a}", f"prompt {b}")


def _called_in_two(a: str, b: str, traces: tuple[str, str]) -> tuple[str, str]:
    """The names of their traces, with their own where these differ."""
    return traces if a == b else (f"{a} ({traces[0]})", f"{b} ({traces[1]})")


def _names_of(inputs: TwoInputs) -> tuple[str, str]:
    """What two traces are called: by their files where they have two names, else A and B."""
    given = _listed(inputs)
    if all(isinstance(one, str | os.PathLike) for one in given):
        a, b = (input_name(Path(one).absolute()) for one in given)
        if a != b:
            return a, b
    return "A", "B"


def _one_model(a: xr.Dataset, b: xr.Dataset) -> bool | None:
    """Whether two traces are known to be of the same weights in the same dtype, or of others."""
    weights, dtypes = [weights_of(one) for one in (a, b)], [dtype_of(one) for one in (a, b)]
    if not all(weights) or not all(dtypes):
        return None
    return weights[0] == weights[1] and dtypes[0] == dtypes[1]
