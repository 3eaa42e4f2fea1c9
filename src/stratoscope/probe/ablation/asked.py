"""The arguments of `ablate`, checked before anything is loaded. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import date as Day
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stratoscope import defaults, names
from stratoscope.errors import UsageError, refuse_unknown
from stratoscope.probe.ablation.members import Member, named_members
from stratoscope.progress import Progress
from stratoscope.recorder.answers.settings import Answers, answers_of, checked_day
from stratoscope.recorder.targets.asked import TargetSettings, target_settings
from stratoscope.trace.arguments import at_least

if TYPE_CHECKING:
    from torch import nn

    from stratoscope.model.devices import DeviceMap
    from stratoscope.recorder.prompts.prompt import Prompt


@dataclass(frozen=True)
class AblationSettings:
    """What is ablated and what is measured, checked.

    Attributes
    ----------
    members
        Neurons and heads that are named, in order.
    how, positions, first_token
        What they are set to, where, and whether at first tokens too.
    cumulative
        How many are ablated one after the other; 0 = none.
    draws, seed
        Of what is random: how often, and from which seed.
    mean_of
        The trace whose means neurons are set to; None = the means of these prompts.
    batch_size, chat, day, answers, targets
        As those of a recording.
    """

    members: tuple[Member, ...]
    how: names.How
    positions: names.Positions
    first_token: bool
    cumulative: int
    draws: int
    seed: int
    batch_size: int
    chat: bool
    day: Day | None
    answers: Answers
    targets: TargetSettings
    mean_of: Path | None = None


@dataclass(frozen=True)
class AblateArguments:
    """The arguments of `ablate`; its docstring says what they are."""

    model: str | Path | nn.Module
    prompts: str | Path | Sequence[Prompt | str | Mapping[str, Any]]
    _: KW_ONLY
    neurons: str | Sequence[Any] | None = None
    heads: str | Sequence[Any] | None = None
    how: names.How = defaults.HOW
    positions: names.Positions = defaults.ABLATED_POSITIONS
    first_token: bool = defaults.FIRST_TOKEN
    targets: Sequence[str] | None = None
    against: str | None = None
    answer_prefix: str | None = None
    openers: Sequence[str] | None = None
    cumulative: int | None = None
    mean_of: str | Path | None = None
    draws: int = defaults.ABLATION_DRAWS
    seed: int = defaults.SEED
    column: str | None = None
    chat: bool = False
    date: str | None = None
    batch_size: int = defaults.BATCH_SIZE
    dtype: str | None = None
    device: str | None = None
    device_map: DeviceMap | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    tokenizer: Any = None
    progress: Progress | None = None

    def settings(self) -> AblationSettings:
        """What is asked, checked before anything is read.

        Raises
        ------
        InputError
            Nothing is named to be ablated, a name cannot be read or stands there twice, or another argument is wrong.
        """
        members = named_members(self.neurons, "neuron") + named_members(self.heads, "head")
        refuse_unknown(self.how, names.HOW, "way to ablate", where="how")
        refuse_unknown(self.positions, names.POSITIONS, "positions", where="positions")
        cumulative = 0 if self.cumulative is None else at_least(1, self.cumulative, "cumulative")
        if not members and not cumulative:
            fix = "Name some: neurons 22:394, or heads 5:3; or let cumulative find the strongest neurons."
            raise UsageError("there is no neuron and no head to ablate", where="neurons", fix=fix)
        if members and cumulative > len(members):
            what = f"{cumulative} are to be ablated one after the other, and {len(members)} are named"
            raise UsageError(what, where="cumulative", fix="Name more, or none: then the strongest neurons are found.")
        if self.mean_of is not None and self.how != names.MEAN:
            raise UsageError("it says what neurons are set to, and how is not mean", where="mean_of",
                             fix="Leave it out, or ablate to the mean.")  # fmt: skip
        if self.mean_of is not None and any(one.kind == "head" for one in members):
            raise UsageError("a trace holds means of neurons, and none of heads", where="mean_of",
                             fix="Leave it out, or the heads.")  # fmt: skip
        targets = target_settings([_VERB], self.targets, self.against, self.answer_prefix, None)
        assert targets is not None
        return AblationSettings(
            members=members,
            how=self.how,
            positions=self.positions,
            first_token=self.first_token,
            cumulative=cumulative,
            draws=at_least(1, self.draws, "draws"),
            seed=at_least(0, self.seed, "seed"),
            batch_size=at_least(1, self.batch_size, "batch_size"),
            chat=self.chat,
            day=checked_day(self.date),
            answers=answers_of(0, None, 0, self.openers),
            targets=targets,
            mean_of=None if self.mean_of is None else Path(self.mean_of),
        )


_VERB = "ablate"  # the reader of targets
