"""What every batch must show before it is stored: the prompts' own tokens went in, and finite numbers came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stratoscope import names
from stratoscope.errors import CaptureError, InputError
from stratoscope.model.devices import input_embedding
from stratoscope.model.hooks import ModuleHooks
from stratoscope.model.sites import ModelSites
from stratoscope.names import DEPTH, PROMPT, QUANTITIES
from stratoscope.recorder.groups import group_of, groups_of
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.input.tokens import TokenisedPrompt


def refuse_impossible(sites: ModelSites, record: Sequence[str], top_k: int, *, where: str) -> None:
    """InputError where the model has nothing of what is asked for."""
    groups = groups_of(record)
    of_neurons = [group.name for group in groups if group.needs_mlp]
    if of_neurons and not sites.d_ff:
        rest = [group.name for group in groups if not group.needs_mlp] or [names.NORMS, names.RESIDUAL]
        raise InputError(
            f"this model has no MLP, so no neurons for {' and '.join(of_neurons)}",
            where=where,
            fix=f"Use --record {','.join(rest)}.",
        )
    for group in groups:
        refusal = group.refusal(sites, tuple(record), top_k)
        if refusal is not None:
            raise InputError(refusal[0], where=where, fix=refusal[1])


def refuse_unknown_tokens(model: Any, prompts: Sequence[TokenisedPrompt], ids: Sequence[str]) -> None:
    """Raise InputError where the tokenizer gives a token that the model's embedding does not have."""
    known = vocabulary(model)
    if known is None:
        return
    for prompt, name in zip(prompts, ids, strict=True):
        unknown = np.flatnonzero(prompt.ids >= known)
        if len(unknown):
            place = int(unknown[0])
            raise InputError(
                f"token {place} ({prompt.texts[place]!r}) is number {prompt.ids[place]}, the model has only {known}",
                where=f"prompt {name}",
                fix="Use the tokenizer that belongs to the model.",
            )


def refuse_too_long(prompts: Sequence[TokenisedPrompt], ids: Sequence[str], context: int | None, follow: int) -> None:
    """Raise CaptureError where a prompt, and `follow` tokens of its answer, do not fit into the model's context."""
    long = [number for number, one in enumerate(prompts) if context and len(one.ids) + follow > context]
    if not long:
        return
    others = f" (and {len(long) - 1} more prompts are too long)" if len(long) > 1 else ""
    more = f" and {follow} of the answer" if follow else ""
    raise CaptureError(
        f"has {len(prompts[long[0]].ids)} tokens{more}, the model's context holds {context}{others}",
        where=f"prompt {ids[long[0]]}",
        fix=("Ask for a shorter answer, or s" if follow else "S") + "horten it, split it, or leave it out.",
    )


def vocabulary(model: Any) -> int | None:
    """How many tokens a model's embedding has; None where it has none that is known."""
    weight = getattr(input_embedding(model), "weight", None)
    return int(weight.shape[0]) if isinstance(weight, Tensor) else None


_REMOVE = "Something changes what the model is fed: remove hooks and wrappers from it."


class TokenWatch:
    """While open, keeps the token ids that the model's input embedding is really given.

    Attributes
    ----------
    limit : str
        Why the embedding cannot be watched, "" where it can.
    calls : int
        How often one forward calls the embedding.
    """

    def __init__(self, model: nn.Module) -> None:
        self._seen: list[Tensor] = []
        self.limit, self.calls = "", 1
        embedding = input_embedding(model)
        if embedding is None:
            self._without("The model has no input embedding")
        modules = {} if embedding is None else {"embedding": embedding}
        self._hooks = ModuleHooks(modules, before=self._before, after=None)

    def __enter__(self) -> TokenWatch:
        self._hooks.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._hooks.__exit__(kind, error, tb)

    def learn(self) -> None:
        """Take the one forward since the last `take` as the rule; without a call, go on without watching."""
        self.calls = len(self._seen)
        if not self.calls and not self.limit:
            self._without("The model does not call its input embedding")

    def _without(self, why: str) -> None:
        self.limit = f"{why}: token ids are compared as they are handed to the model, not as it embeds them."

    def take(self) -> list[Tensor]:
        """The ids of each call of the embedding since the last `take`."""
        seen, self._seen = self._seen, []
        return seen

    def _before(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._seen += [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)][:1]


def check_tokens(watch: TokenWatch, batch: Batch, prompts: Sequence[TokenisedPrompt]) -> None:
    """The tokens that the last forward embedded, padding aside, are the tokenizer's, in order; else CaptureError."""
    check_embedded(watch, [batch])
    if not np.array_equal(_tokens(batch.input_ids, batch), np.concatenate([prompt.ids for prompt in prompts])):
        raise CaptureError("the tokens given to the model are not the tokenizer's", fix=_REMOVE)


def check_embedded(watch: TokenWatch, batches: Sequence[Batch]) -> None:
    """The forwards since the last check embedded the tokens of these batches, padding aside.

    Raises
    ------
    CaptureError
        They embedded others, or the embedding was not called as often as when the model was proved.
    """
    seen = watch.take()
    if watch.limit:
        return
    if len(seen) != watch.calls * len(batches):
        what = f"it embedded token ids {len(seen)} times in {len(batches)} forwards instead of {watch.calls} each"
        raise CaptureError(what, fix=_REMOVE)
    for number, ids in enumerate(seen):
        batch = batches[number // watch.calls]
        if ids.numel() != batch.rows or not np.array_equal(_tokens(ids, batch), _tokens(batch.input_ids, batch)):
            raise CaptureError("the token ids that the model embedded are not those it was given", fix=_REMOVE)


def _tokens(ids: Tensor, batch: Batch) -> np.ndarray:
    return ids.detach().reshape(-1)[batch.valid.to(ids.device)].cpu().numpy()


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
        if quantity.dtype.startswith("int") or name in group_of(name).quotients:
            continue
        by_prompt = quantity.dims[0] == PROMPT
        values = values[:, None] if values.ndim == 1 else values  # one number a prompt
        finite = torch.from_numpy(values).isfinite().numpy()
        elsewhere = group_of(name).undefined_cells(name, values)
        if elsewhere is not None:
            finite |= elsewhere
        absent = list(undefined.get(name, ()))
        finite[:, absent] |= np.isnan(values[:, absent])
        if finite.all():
            continue
        broken = np.argwhere(~finite)
        first, layer = broken[broken[:, 1].argmin()][:2]  # where it began
        place = f"{'depth' if DEPTH in quantity.dims else 'layer'} {layer}"
        raise CaptureError(
            f"{quantity.label} is not finite ({values[~finite][0]})",
            where=f"prompt {ids[first if by_prompt else prompt_of[first]]}, {place}",
            fix="The weights or the dtype are broken: check the download, or try --dtype float32.",
        )
