"""What somebody asks of `publish`, and why some of it is refused before anything is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stratoscope import defaults, names
from stratoscope.errors import InputError, UsageError, refuse_unknown
from stratoscope.names import AGGREGATE, LEVELS, PRIVATE, Level
from stratoscope.progress import Progress, silent
from stratoscope.publish.levels import OF_MEANS
from stratoscope.trace.format.schema import PUBLISHED

_NOT_OFFERED = {
    "coarse": "from two bits of each number 80 % of the tokens came back",
    "permuted": "from other text of its kind 79 % of all neurons were put back in their places",
    "rounded": "from one digit of each number 84 % of the tokens came back",
}
_ONLY_AT = {  # an option → the levels at which it says something
    "neurons": (AGGREGATE,),
    "quantity": OF_MEANS,
    "prompt_class": OF_MEANS,
    **dict.fromkeys(("centre", "bands", "epsilon", "delta", "clip"), (PRIVATE,)),
}


@dataclass(frozen=True)
class Asked:
    """The options of a publication, as `publish` documents them."""

    level: Level = defaults.LEVEL
    traces: tuple[Path, ...] = ()
    chat_template: bool = defaults.CHAT_TEMPLATE
    private_model: bool = False
    quantity: str | Sequence[str] | None = None
    prompt_class: str | Sequence[str] | None = None
    neurons: bool = False
    epsilon: float | None = None
    delta: float | None = None
    clip: float | None = None
    centre: Path | None = None
    bands: int | None = None
    allow_overlap: bool = False
    overwrite: bool = False
    progress: Progress = field(default=silent)

    def __post_init__(self) -> None:
        if self.level in _NOT_OFFERED:
            fix = f"It would promise nothing: {_NOT_OFFERED[self.level]}. Choose one of: {', '.join(LEVELS)}."
            raise UsageError(f"there is no level '{self.level}'", where="level", fix=fix)
        refuse_unknown(self.level, LEVELS, "level")
        for option, levels in _ONLY_AT.items():
            if getattr(self, option) not in (None, False) and self.level not in levels:
                what = f"says nothing at the level {self.level}"
                raise UsageError(what, where=option, fix=f"Leave it out, or take --level {' or '.join(levels)}.")

    @property
    def budget(self) -> tuple[float, float]:
        """ε and δ of a private publication."""
        epsilon = defaults.EPSILON if self.epsilon is None else self.epsilon
        return epsilon, defaults.DELTA if self.delta is None else self.delta

    @property
    def quantities(self) -> list[str] | None:
        """The quantities whose means are published; None = the usual ones."""
        return [self.quantity] if isinstance(self.quantity, str) else list(self.quantity) if self.quantity else None


def refuse_again(attrs: Mapping[Any, Any], level: Level, path: Path) -> None:
    """Raise where what is to be published was published already and cannot be, or need not be, at this level."""
    before = attrs.get(PUBLISHED)
    known = before.get("level") if isinstance(before, Mapping) else None
    if known not in LEVELS:
        return
    if LEVELS.index(level) <= LEVELS.index(known):
        fix = "Copy it as it is." if level == known else "Publish the original: what is gone does not come back."
        raise InputError(f"was published already at '{known}'", where=str(path), fix=fix)
    if known != names.PROVENANCE:
        what = f"was published at '{known}', so that nobody can tell which of its prompts are alike"
        raise InputError(what, where=str(path), fix="Publish the original.")
