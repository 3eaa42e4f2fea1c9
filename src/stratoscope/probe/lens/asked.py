"""The arguments of `fit_lens`, checked before anything is loaded. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stratoscope import defaults
from stratoscope.errors import InputError, UsageError
from stratoscope.progress import Progress
from stratoscope.recorder.arguments import prompts_as_given
from stratoscope.recorder.prompts.prompt import PromptList
from stratoscope.trace.arguments import at_least
from stratoscope.trace.export.output import check_place, paths_in
from stratoscope.trace.lens_file import is_lens_file

if TYPE_CHECKING:
    from torch import nn

    from stratoscope.model.devices import DeviceMap
    from stratoscope.recorder.prompts.prompt import Prompt

SKIPPED_FIRST, SKIPPED_LAST = 16, 1  # positions of a prompt that are left out
FEWEST_TOKENS = SKIPPED_FIRST + SKIPPED_LAST + 1


@dataclass(frozen=True)
class FitLensArguments:
    """The arguments of `fit_lens`; its docstring says what they are."""

    model: str | Path | nn.Module
    prompts: str | Path | Sequence[Prompt | str | Mapping[str, Any]] | Mapping[str, Any]
    out: str | Path
    _: KW_ONLY
    rank: int | None = None
    max_tokens: int = defaults.FITTED_TOKENS
    column: str | None = None
    chat: bool = False
    dtype: str | None = None
    device: str | None = None
    device_map: DeviceMap | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    tokenizer: Any = None
    resume: bool = False
    overwrite: bool = False
    progress: Progress | None = None

    def check(self) -> None:
        """Check what can be checked before anything is read.

        Raises
        ------
        InputError
            An argument is wrong, or the file may not be written.
        """
        if self.rank is not None:
            at_least(1, self.rank, "rank")
        at_least(FEWEST_TOKENS, self.max_tokens, "max_tokens")
        if self.resume and self.overwrite:
            raise UsageError("it keeps what overwrite would replace", where="resume", fix="Ask for one of the two.")
        out = Path(self.out)
        given = self.prompts.values() if isinstance(self.prompts, Mapping) else [self.prompts]
        check_place(out, overwrite=True, inputs=[*paths_in([*given]), *paths_in(self.model)])
        for there in (out, unfinished(out)):
            if there.exists() and not is_lens_file(there):
                fix = "Give another name; only fitted lenses are overwritten."
                raise InputError("something that is no fitted lens is already there", where=str(there), fix=fix)

    def corpora(self) -> dict[str, PromptList]:
        """Name of each corpus to its prompts.

        Raises
        ------
        InputError
            There is none, or its prompts cannot be read.
        """
        given = self.prompts if isinstance(self.prompts, Mapping) else {_name(self.prompts): self.prompts}
        if not given:
            raise InputError("there is no corpus", where="prompts", fix="Give a file of texts.")
        return {str(name): prompts_as_given(one, self.column, self.progress) for name, one in given.items()}


def unfinished(out: Path) -> Path:
    """Where a fit that is not finished stands, beside the file that will be written."""
    return out.with_name(f"{out.name}.unfinished")


def _name(prompts: Any) -> str:
    """What a corpus is called that nobody named."""
    return Path(prompts).stem if isinstance(prompts, str | os.PathLike) else "corpus"
