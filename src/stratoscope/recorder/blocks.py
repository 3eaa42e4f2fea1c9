"""Recorded prompts become a block for the trace's writer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stratoscope import names
from stratoscope.recorder.input.tokens import TokenisedPrompt
from stratoscope.recorder.prompts.prompt import Prompt
from stratoscope.trace.format.schema import Block


def to_block(
    prompts: Sequence[Prompt], tokenised: Sequence[TokenisedPrompt], arrays: Sequence[Mapping[str, np.ndarray]]
) -> Block:
    """Join whole prompts, in the order given.

    Parameters
    ----------
    prompts, tokenised
        The prompts and their tokens.
    arrays
        Per prompt: name of each quantity to its values, token (or prompt) first.
    """
    lengths = [len(prompt.ids) for prompt in tokenised]
    coordinates = {
        "prompt": np.repeat(np.arange(len(prompts), dtype=np.int32), lengths),
        "position": np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        "token_id": np.concatenate([prompt.ids for prompt in tokenised]),
        "span": np.concatenate([prompt.spans for prompt in tokenised]),
        "char_start": np.concatenate([prompt.starts for prompt in tokenised]),
        "char_end": np.concatenate([prompt.ends for prompt in tokenised]),
    }
    quantities = {name: _joined([found[name] for found in arrays]) for name in arrays[0]}
    texts = {
        "text": [text for prompt in tokenised for text in prompt.texts],
        "prompt_id": [prompt.id for prompt in prompts],
        "prompt_class": [prompt.prompt_class for prompt in prompts],
        "pair": [prompt.pair for prompt in prompts],
        "group": [prompt.group for prompt in prompts],
    }
    return Block(arrays={**coordinates, **quantities}, texts=texts)


def shapes_of(arrays: Mapping[str, np.ndarray], record: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """The quantities that this model gives, and the lengths of their fixed dimensions."""
    groups = [*record, *([names.TARGETS] if "target_token" in arrays else [])]
    wanted = {one.name for one in names.quantities_of(groups) if one.group in record}
    present = [name for name in names.QUANTITIES if name in arrays and name in wanted]
    sizes: dict[str, int] = {}
    for name in present:
        sizes |= dict(zip(names.QUANTITIES[name].dims[1:], arrays[name].shape[1:], strict=True))
    return [name for name in present if not names.is_streamed(name)], sizes


def of_prompt(name: str, values: np.ndarray, number: int, tokens: slice) -> np.ndarray:
    """What a batch's values hold of one of its prompts, by its number and tokens there."""
    return values[number : number + 1] if names.QUANTITIES[name].dims[0] == names.PROMPT else values[tokens]


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """One after the other; a single one as it is, because one prompt alone may be very long."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
