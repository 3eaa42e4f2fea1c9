"""The targets of a trace: whose logits are explained, against what, what each is called, and how a person names one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from stratoscope import names
from stratoscope.errors import InputError, UsageError, choices
from stratoscope.names import TARGET, TOP
from stratoscope.trace.arguments import is_whole
from stratoscope.trace.notes import INFO, Note
from stratoscope.trace.outcome import target_texts
from stratoscope.words import listed, readable

if TYPE_CHECKING:
    import xarray as xr

TargetChoice: TypeAlias = "str | int | None"
OWN = "each prompt's likeliest token against its second"
TOKEN_TEXTS = "token_texts"  # attribute: id → text of tokens that need not be in a prompt
_CHOSEN = "chosen_target"  # attribute in memory: the number of the only target that was kept
_NO_TOKEN = -1  # as an id: none; of what a target is held against the mean of the vocabulary
_LONGEST = 40  # characters of a token in a sentence


def _planned(plan: Any) -> list[Mapping[str, Any]]:
    targets = plan.get("targets") if isinstance(plan, Mapping) else None
    return [one for one in targets if isinstance(one, Mapping)] if isinstance(targets, list) else []


@dataclass(frozen=True, eq=False)
class Targets:
    """The targets of a Dataset.

    Attributes
    ----------
    dataset
        A trace whose quantities may have the dimension `target`.
    """

    dataset: xr.Dataset

    def __len__(self) -> int:
        return int(self.dataset.sizes.get(TARGET, 0))

    def number(self, target: int) -> int:
        """The number of a target in the whole trace, of which one may have been chosen."""
        chosen = self.dataset.attrs.get(_CHOSEN)
        return chosen if isinstance(chosen, int) and len(self) == 1 else target

    @cached_property
    def texts(self) -> list[str]:
        """Text of each target."""
        return target_texts(self.dataset.attrs.get("plan"), len(self))

    @property
    def own(self) -> bool:
        """Whether each prompt has a target of its own: its likeliest token."""
        return self.texts == [TOP] and not _planned(self.dataset.attrs.get("plan"))

    @cached_property
    def against(self) -> list[str]:
        """What each target is held against; "" = the mean of the vocabulary."""
        planned = _planned(self.dataset.attrs.get("plan"))
        found = [one.get("against") for one in planned]
        return (
            [text if isinstance(text, str) else "" for text in found] if len(found) == len(self) else [""] * len(self)
        )

    def label(self, target: int) -> str:
        """A target as a title has it: “Sorry” against “Sure”; of each prompt's own likeliest token, that."""
        if self.own:
            return OWN
        return in_words(self.texts[target], self.against[target])

    def label_in(self, prompt: int, target: int) -> str:
        """What the target is in a prompt: as `label`, or the prompt's own token by its text; "" where none is known."""
        if not self.own or not {"target_token", "against_token"} <= {*map(str, self.dataset.variables)}:
            return self.label(target)
        ids = [int(self.dataset[name].values[prompt, target]) for name in ("target_token", "against_token")]
        if ids[0] == _NO_TOKEN:
            return ""
        text, against = (self._text_of(one) for one in ids)
        return in_words(text, against)

    def label_of(self, prompts: Iterable[int], target: int) -> str:
        """What the target is in these prompts, where it is the same in all of them; else as `label`."""
        found = {self.label_in(prompt, target) for prompt in prompts}
        return found.pop() if len(found) == 1 and "" not in found else self.label(target)

    def _text_of(self, identity: int) -> str:
        if identity == _NO_TOKEN:
            return ""
        texts = self.dataset.attrs.get(TOKEN_TEXTS)
        text = texts.get(str(identity)) if isinstance(texts, Mapping) else None
        return text if isinstance(text, str) else f"token {identity}"

    def find(self, choice: str | int) -> int:
        """The place of the target that a person names: by its text, else by its number, counted from 0.

        Raises
        ------
        InputError
            There is none such, or several have that text. It says which there are.
        """
        if isinstance(choice, str):
            named = [place for place, text in enumerate(self.texts) if text == choice]
            if len(named) == 1:
                return named[0]
            if len(named) > 1:
                raise InputError(f"{len(named)} targets are {choice!r}", where=TARGET, fix=f"Name one by its number: {listed(named)}.")  # fmt: skip  # noqa: E501
            if not choice.isdecimal() or len(choice) > 9:
                there = ["each prompt's likeliest token (0)"] if self.own else self.texts
                fix = choices(choice, there) if there else "None is recorded: name those to record with --targets."
                raise InputError(f"no target {choice!r}", where=TARGET, fix=fix)
        elif not is_whole(choice):
            raise UsageError(f"{choice!r} names no target", where=TARGET, fix="Give its text, or its number, as 0.")
        if 0 <= (place := int(choice)) < len(self):
            return place
        raise InputError(f"no target number {choice}", where=TARGET, fix=f"There are 0 to {len(self) - 1}.")


def in_words(text: str, against: str) -> str:
    """“Sorry” against “Sure”; against the mean of the vocabulary (""), “Sorry”."""
    return f"“{_shown(text)}”" + (f" against “{_shown(against)}”" if against else "")


def has_targets(quantity: str) -> bool:
    """Whether a quantity has a value for each target."""
    return quantity in names.QUANTITIES and TARGET in names.QUANTITIES[quantity].dims


def one_target(dataset: xr.Dataset, quantities: Iterable[str], choice: TargetChoice = None) -> xr.Dataset:
    """The Dataset of one of its targets, where these quantities have targets: the one that is named, else the first.

    A note says so where nobody named one of several. Without such a quantity it is the Dataset itself.

    Raises
    ------
    InputError
        There is no such target, or one is named and none of the quantities has targets.
    """
    asked = [*quantities]
    if not any(map(has_targets, asked)):
        if choice is not None:
            table = names.QUANTITIES.items()
            there = [name for name, row in table if name in dataset and row.adds_up and row.row_kind != TARGET]
            fix = f"Leave it out, or choose one of: {listed(there, joined='or')}." if there else "Leave it out."
            raise UsageError(f"{listed(asked) or 'nothing here'} has no target", where=TARGET, fix=fix)
        return dataset
    targets = Targets(dataset)
    place = 0 if choice is None else targets.find(choice)
    part = dataset.isel({TARGET: [place]}).assign_attrs({_CHOSEN: targets.number(place)})
    plan = dataset.attrs.get("plan")
    planned = _planned(plan)
    if len(planned) == len(targets) and isinstance(plan, Mapping):
        part = part.assign_attrs(plan={**plan, "targets": [planned[place]]})
    if choice is None and len(targets) > 1:
        others = listed(f"“{_shown(text)}”" for text in targets.texts[1:])
        said = Note("L24", INFO, f"The first of {len(targets)} targets; others by --target: {others}.").stored()
        stored = part.attrs.get("notes")
        part = part.assign_attrs(notes=[*(stored if isinstance(stored, list) else []), said])
    return part


def same_targets(a: xr.Dataset, b: xr.Dataset, prompts: Iterable[tuple[int, int]]) -> str:
    """Why the targets of two traces are not the same; "" where they are.

    Parameters
    ----------
    prompts
        Which prompt of A is which of B: of each prompt's own targets the tokens must be the same.
    """
    one, other = Targets(a), Targets(b)
    if len(one) != len(other) or one.own != other.own:
        return f"the targets of A are {_all(one)}, of B {_all(other)}"
    if one.own:
        pairs = [*prompts]
        differ = sum(one.label_in(p, 0) != other.label_in(q, 0) for p, q in pairs)
        return f"each prompt's own target is another token in {differ} of {len(pairs)} prompts" if differ else ""
    labels = [[side.label(place) for place in range(len(side))] for side in (one, other)]
    return "" if labels[0] == labels[1] else f"the targets of A are {_all(one)}, of B {_all(other)}"


def _all(targets: Targets) -> str:
    return listed(targets.label(place) for place in range(len(targets))) or "none"


def _shown(text: str) -> str:
    return readable(text, width=_LONGEST)
