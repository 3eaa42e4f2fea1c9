"""What every batch must show before it is stored: the prompts' own tokens went in, and finite numbers came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from stratoscope.errors import CaptureError, InputError
from stratoscope.names import ATTENTION, DEPTH, PROMPT, QUANTITIES
from stratoscope.recorder.batches import Batch
from stratoscope.recorder.tokens import TokenisedPrompt

# undefined, and so NaN, where they would divide by zero; their norms are checked
_MAY_BE_UNDEFINED = ("ratio", "cos", "share", "explained")


def _undefined(name: str, values: np.ndarray) -> np.ndarray:
    """Where a summary of attention is NaN by its definition: most of them somewhere, the others in whole layers."""
    somewhere = not name.endswith(("attn_distance", "attn_value_norm"))
    nan: np.ndarray = np.isnan(values)
    return nan if somewhere else nan & nan.all(axis=(0, 2), keepdims=True)


def refuse_unknown_tokens(model: Any, prompts: Sequence[TokenisedPrompt], ids: Sequence[str]) -> None:
    """Raise InputError where the tokenizer gives a token that the model's embedding does not have."""
    known = vocabulary(model)
    for prompt, name in zip(prompts, ids, strict=True):
        unknown = np.flatnonzero(prompt.ids >= known)
        if len(unknown):
            place = int(unknown[0])
            raise InputError(
                f"token {place} ({prompt.texts[place]!r}) is number {prompt.ids[place]}, the model has only {known}",
                where=f"prompt {name}",
                fix="Use the tokenizer that belongs to the model",
            )


def vocabulary(model: Any) -> int:
    """How many tokens a model's embedding has."""
    return int(model.get_input_embeddings().weight.shape[0])


def check_tokens(batch: Batch, prompts: Sequence[TokenisedPrompt]) -> None:
    """The tokens that the mask lets through are the tokenizer's, in order."""
    given = batch.input_ids.reshape(-1)[batch.valid].cpu().numpy()
    if not np.array_equal(given, np.concatenate([prompt.ids for prompt in prompts])):
        raise CaptureError(
            "the tokens given to the model are not the tokenizer's", fix="This is a fault in stratoscope"
        )


def check_finite(
    arrays: Mapping[str, np.ndarray],
    ids: Sequence[str],
    prompts: Sequence[TokenisedPrompt],
    undefined: Mapping[str, Sequence[int]],
) -> None:
    """Raise CaptureError naming prompt, layer and quantity where a number is NaN or infinite and may not be.

    Parameters
    ----------
    arrays
        Name of each quantity to its values, token or prompt first, layer or depth second.
    ids, prompts
        Ids and tokens of the prompts of the batch.
    undefined
        Name to the layers where NaN means that the block does not have the quantity.
    """
    prompt_of = np.repeat(np.arange(len(prompts)), [len(prompt.ids) for prompt in prompts])
    for name, values in arrays.items():
        quantity = QUANTITIES[name]
        if quantity.dtype.startswith("int") or name.endswith(_MAY_BE_UNDEFINED):
            continue
        by_prompt = quantity.dims[0] == PROMPT
        finite = torch.from_numpy(values).isfinite().numpy()
        if quantity.group == ATTENTION:
            finite |= _undefined(name, values)
        absent = list(undefined.get(name, ()))
        finite[:, absent] |= np.isnan(values[:, absent])
        if by_prompt:  # no word of the prompt's own: undefined as a whole
            finite |= np.isnan(values).all(axis=(1, 2), keepdims=True)
        if finite.all():
            continue
        broken = np.argwhere(~finite)
        first, layer = broken[broken[:, 1].argmin()][:2]  # where it began
        place = f"{'depth' if quantity.dims[1] == DEPTH else 'layer'} {layer}"
        raise CaptureError(
            f"{quantity.label} is not finite ({values[~finite][0]})",
            where=f"prompt {ids[first if by_prompt else prompt_of[first]]}, {place}",
            fix="The weights or the dtype are broken: check the download, or try --dtype float32",
        )
