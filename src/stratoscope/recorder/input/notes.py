"""The notes of a trace on its prompts: what their tokens are that was not written, and the reverse."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, Protocol

from stratoscope.recorder.input.remarks import INFO, Remark, notes
from stratoscope.recorder.input.template import switches
from stratoscope.recorder.input.tokens import TokenisedPrompt
from stratoscope.recorder.prompts.prompt import Prompt

_SWITCHES = "the chat template has settings that are left at its own defaults"
_NO_BOS = Remark(
    INFO,
    "no beginning-of-text token stands in front: the tokenizer adds one to raw text, the chat template writes none",
    id="L17",
)


class More(Protocol):
    """Remarks that are the same for all prompts in the chat template, and for all others."""

    def __call__(self, *, chat: bool, day: date) -> list[Remark]:
        """Those of the one kind or the other."""


def notes_on(
    prompts: Sequence[Prompt], encoded: Sequence[TokenisedPrompt], tokenizer: Any, *, chat: bool, day: date, more: More
) -> list[dict[str, str]]:
    """Notes on the prompts of a recording.

    Parameters
    ----------
    prompts, encoded
        In file order, and the tokens of each.
    tokenizer
        The one that gave them.
    chat
        Whether raw text was put into the chat template.
    day
        What the chat template was told.
    more
        Gives further remarks on prompts that stand in the template, or do not.
    """
    in_chat = [chat or prompt.messages is not None for prompt in prompts]
    general = {chatting: more(chat=chatting, day=day) for chatting in dict.fromkeys(in_chat)}
    if True in general:
        settings = switches(tokenizer, day)
        general[True] += [Remark(INFO, _SWITCHES, tuple(settings))] if settings else []
    bos = tokenizer.bos_token_id
    wanted = True in general and bos is not None and tokenizer("a")["input_ids"][:1] == [bos]
    remarks = [
        [*tokens.remarks, *general[chatting], *([_NO_BOS] if chatting and wanted and tokens.ids[0] != bos else [])]
        for tokens, chatting in zip(encoded, in_chat, strict=True)
    ]
    return notes(remarks, [prompt.id for prompt in prompts])
