"""The arguments of `capture` and `plan_capture`, stated and checked once. No torch."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import date as Day
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from stratoscope import defaults, names
from stratoscope.errors import InputError, UsageError, refuse_unknown
from stratoscope.progress import Progress
from stratoscope.recorder.answers.settings import Answers, answers_of, checked_day
from stratoscope.recorder.effects.asked import EffectSettings, effect_settings
from stratoscope.recorder.lens.asked import LensSettings, lens_settings
from stratoscope.recorder.parts import checked_part
from stratoscope.recorder.prompts.prompt import GIVEN_AS_A_LIST, Prompt, PromptList, given_prompts, read_prompts
from stratoscope.recorder.targets.asked import TargetSettings, target_settings
from stratoscope.trace.arguments import at_least, chosen

if TYPE_CHECKING:
    from torch import nn

    from stratoscope.model.devices import DeviceMap

P = ParamSpec("P")
A = TypeVar("A")
R = TypeVar("R")

_OF_EFFECTS = ("baseline", "effect_steps", "calibration")  # fields of the plan


@dataclass(frozen=True)
class RecordingSettings:
    """What is recorded and how, checked: what a `Recording` is made with.

    Attributes
    ----------
    record, top_k, batch_size, chat, part
        As those of `capture`.
    answers
        What is generated and measured of answers.
    day
        What a chat template is told; None = today.
    targets
        Which logits are explained; None where no recorded group does that.
    effects
        How total effects are taken; None where they are not recorded.
    lens
        With which lenses the residual stream is read; None where that is not recorded.
    """

    record: tuple[str, ...]
    top_k: int
    batch_size: int
    chat: bool
    answers: Answers
    part: tuple[int, int] | None
    day: Day | None
    targets: TargetSettings | None = None
    effects: EffectSettings | None = None
    lens: LensSettings | None = None

    @property
    def planned(self) -> dict[str, Any]:
        """What the plan of the trace will hold of it, known before the model is loaded, which may take long."""
        known: dict[str, Any] = {
            name: getattr(self, name) for name in ("record", "top_k", "batch_size", "chat", "part")
        }
        answers = self.answers
        known |= {"answer_prefix": None, "positions": None} if self.targets is None else self.targets.planned
        known |= {} if self.lens is None else self.lens.planned
        known |= dict.fromkeys(_OF_EFFECTS) if self.effects is None else self.effects.planned
        return known | {"generate": answers.new_tokens or None, "seed": answers.seed if answers.new_tokens else None}


@dataclass(frozen=True)
class PlanArguments:
    """The arguments of `plan_capture`, all of which `capture` has; its docstring says what they are."""

    model: str | Path | nn.Module
    prompts: str | Path | Sequence[Prompt | str | Mapping[str, Any]]
    out: str | Path
    _: KW_ONLY
    column: str | None = None
    record: str | Iterable[str] = defaults.RECORD
    top_k: int = defaults.TOP_K
    dtype: str | None = None
    device: str | None = None
    device_map: DeviceMap | None = None
    batch_size: int = defaults.BATCH_SIZE
    chat: bool = False
    date: str | None = None
    generate: int = defaults.GENERATE
    generation: str | Path | Mapping[str, Any] | None = None
    seed: int = defaults.SEED
    openers: Sequence[str] | None = None
    refusal_patterns: str | Path | Sequence[str] | None = None
    targets: Sequence[str] | None = None
    against: str | None = None
    answer_prefix: str | None = None
    positions: names.Positions | None = None
    lens: str | Path | None = None
    baseline: names.Baseline | None = None
    mean_of: str | Path | None = None
    effect_steps: int | None = None
    calibration: int | None = None
    part: str | tuple[int, int] | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    tokenizer: Any = None
    progress: Progress | None = None

    def settings(self) -> RecordingSettings:
        """What decides the recording, checked before anything is read."""
        record = chosen(self.record, names.RECORD_GROUPS, "record")
        part = checked_part(self.part)
        of_targets = [group for group in record if group in names.OF_TARGETS]
        lens = lens_settings(record, self.lens, self.positions)
        if lens is not None and self.targets is not None:
            of_targets.append(names.LENSES)
        where = self.positions if of_targets or lens is None else None
        return RecordingSettings(
            record=record,
            top_k=at_least(1, self.top_k, "top_k"),
            batch_size=at_least(1, self.batch_size, "batch_size"),
            chat=self.chat,
            answers=answers_of(self.generate, self.generation, self.seed, self.openers, self.refusal_patterns),
            part=part,
            day=checked_day(self.date),
            targets=target_settings(of_targets, self.targets, self.against, self.answer_prefix, where),
            effects=effect_settings(record, self.baseline, self.mean_of, self.effect_steps, self.calibration, part),
            lens=lens,
        )

    def read_prompts(self) -> PromptList:
        """The prompts, of a file or as they were given."""
        return prompts_as_given(self.prompts, self.column, self.progress)


@dataclass(frozen=True, kw_only=True)
class CaptureArguments(PlanArguments):
    """The arguments of `capture`."""

    verify: names.Verify = defaults.VERIFY
    floor: bool = False
    resume: bool = False
    overwrite: bool = False

    def settings(self) -> RecordingSettings:
        """What decides the recording, checked before anything is read."""
        refuse_unknown(self.verify, names.VERIFY, "verification", where="verify")
        if self.resume and self.overwrite:
            raise UsageError("it keeps what overwrite would replace", where="resume", fix="Ask for one of the two.")
        return super().settings()


def taking(arguments: Callable[P, A]) -> Callable[[Callable[[A], R]], Callable[P, R]]:
    """Make a verb of one object a function of that object's arguments, which its signature shows."""

    def decorate(verb: Callable[[A], R]) -> Callable[P, R]:
        @wraps(verb)
        def called(*given: P.args, **named: P.kwargs) -> R:
            try:
                asked = arguments(*given, **named)
            except TypeError as error:  # an argument is missing or unknown
                raise TypeError(str(error).replace(arguments.__qualname__ + ".__init__", verb.__name__)) from None
            return verb(asked)

        result = inspect.signature(verb).return_annotation
        called.__signature__ = inspect.signature(arguments).replace(return_annotation=result)  # type: ignore[attr-defined]
        return called

    return decorate


def prompts_as_given(given: Any, column: str | None, progress: Progress | None) -> PromptList:
    """The prompts of a file or a list; `column` as that of `capture`.

    Raises
    ------
    InputError
        They cannot be read, or a column is named of what is no file.
    """
    if progress:
        progress("reading the prompts", 0, None)
    prompts = file_or_list(given)
    if isinstance(prompts, str | Path):
        return read_prompts(prompts, column=column)
    if column is not None:
        raise InputError("column names a column of a file, and the prompts are no file", fix="Leave column out.")
    return given_prompts(prompts)


def file_or_list(prompts: Any) -> Any:
    """The prompts as they were given, where they are a file or can be listed one by one.

    Raises
    ------
    InputError
        They are a single prompt, or nothing of the kind.
    """
    if isinstance(prompts, str) and not Path(prompts).suffix and not _exists(prompts):
        shown = repr(prompts if len(prompts) <= 60 else prompts[:59] + "…")
        raise InputError(f"there is no file {shown}", where="prompts", fix=f"Check the path. {GIVEN_AS_A_LIST}")
    if isinstance(prompts, str):
        return prompts
    if isinstance(prompts, os.PathLike):
        return Path(prompts)
    if isinstance(prompts, bytes) or not isinstance(prompts, Iterable | Prompt):
        raise InputError(f"a {type(prompts).__name__} is no list of prompts", where="prompts", fix=GIVEN_AS_A_LIST)
    return prompts


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long for a name, or with a zero byte: a text
        return False


def dtype_name(dtype: Any) -> str | None:
    """The name of a dtype that torch or numpy made; a text is taken as it is."""
    if dtype is None or isinstance(dtype, str):
        return None if dtype is None else dtype.removeprefix("torch.")
    try:
        return str(np.dtype(dtype).name)
    except TypeError:
        return str(dtype).removeprefix("torch.")
