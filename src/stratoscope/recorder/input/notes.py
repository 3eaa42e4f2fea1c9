"""The notes of a trace on its prompts: what their tokens are that was not written, and the reverse."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from stratoscope.recorder.input.remarks import INFO, Remark, notes
from stratoscope.recorder.input.template import switches
from stratoscope.recorder.input.tokens import TokenisedPrompt
from stratoscope.recorder.prompts import Prompt

_SWITCHES = "the chat template has settings that are left at its own defaults"
_NO_BOS = "no beginning-of-text token stands in front: the tokenizer adds one to raw text, the chat template does not"


def notes_on(
    prompts: Sequence[Prompt], encoded: Sequence[TokenisedPrompt], tokenizer: Any, *, chat: bool, day: date
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
    """
    in_chat = [chat or prompt.messages is not None for prompt in prompts]
    settings = switches(tokenizer, day) if any(in_chat) else []
    of_template = [Remark(INFO, _SWITCHES, tuple(settings))] if settings else []
    bos = tokenizer.bos_token_id
    wanted = any(in_chat) and bos is not None and tokenizer("a")["input_ids"][:1] == [bos]
    remarks = [
        [
            *tokens.remarks,
            *(of_template if chatting else []),
            *([Remark(INFO, _NO_BOS, id="L17")] if chatting and wanted and tokens.ids[0] != bos else []),
        ]
        for tokens, chatting in zip(encoded, in_chat, strict=True)
    ]
    return notes(remarks, [prompt.id for prompt in prompts])
