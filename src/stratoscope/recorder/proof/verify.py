"""Recorded values against replays: how far apart they may be, and where a recording is not what the model does.

Two replays of a sample before anything is recorded: of the same batch with the model's own attention, where only the
last bits may differ whatever the dtype; and of each prompt alone, without padding, with eager attention, where the
model's own rounding differs. `--verify full` does the second to every prompt of the finished trace, as it is read back
from disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from stratoscope.errors import CaptureError
from stratoscope.model.devices import input_device
from stratoscope.model.identity import attention_implementation
from stratoscope.model.sites import ModelSites, unit_roundoff
from stratoscope.names import BY_SOURCE, EDGE, PROMPT, QUANTITIES, ROW_LETTERS, TARGETS, TOKEN, edges, is_streamed
from stratoscope.recorder.groups import group_of
from stratoscope.recorder.input.batches import Batch, GivenTokens, PromptTokens, make_batch
from stratoscope.recorder.observe import last_logits_only
from stratoscope.recorder.proof.replay import Replay, eager_attention
from stratoscope.recorder.reference.differences import Replayed, by_layer, differences
from stratoscope.recorder.reference.lenses import Transport
from stratoscope.trace.prompts import Prompts
from stratoscope.words import capital

Arrays = Mapping[str, np.ndarray]

# Eager attention of an unpadded prompt against the recorded batch, measured on 22 tiny architectures and SmolLM2-135M:
# at most 3e-4 of a value's size in float32. In half precision single tokens differ by up to 0.6 of it, because the
# model itself rounds so, and the median over the tokens of a layer by up to 0.004 (float16) and 0.05 (bfloat16).
_EAGER = {torch.float64: 5e-3, torch.float32: 5e-3, torch.float16: 0.05, torch.bfloat16: 0.25}
_FEWEST_TOKENS = 8  # for a median
_SAME_BATCH = "same batch"


_NOT_COMPLETE = (
    "Nothing is kept as complete, as something changes what the model computes from one forward to the next: take "
    "hooks, wrappers and compilation off it."
)


class Differs(CaptureError):
    """A replay gives other values than were recorded."""


class DiffersAlone(Differs):
    """A prompt alone gives other values than were recorded, with eager attention and with the model's own."""

    def of_batch(self) -> DependsOnBatch:
        """The same, where the batch that it was recorded in gives what was recorded."""
        return DependsOnBatch(self.what, where=self.where, fix=f"{_ON_BATCH} Record it again with --batch-size 1.")


class DependsOnBatch(CaptureError):
    """A prompt alone gives other values than beside those it was recorded with, or than with padding."""


@dataclass(frozen=True)
class Standard:
    """What a replay must satisfy.

    Attributes
    ----------
    what
        What is replayed, in words.
    attention
        The implementation of attention that it runs with.
    tolerance
        Largest relative difference.
    median
        Whether it is that of the median token of each layer rather than of every token.
    """

    what: str
    attention: str
    tolerance: float
    median: bool = False

    def __str__(self) -> str:
        return f"{self.what}, {self.attention} attention"

    def to_json(self) -> dict[str, Any]:
        """For the receipt."""
        return {"replay": self.what, "tolerance": self.tolerance, "median": self.median}


def plain_standard(model: nn.Module) -> Standard:
    """For the same forward once more: what is summed differently, and W a that the model rounds to its dtype."""
    dtype = next(model.parameters()).dtype
    return Standard(_SAME_BATCH, attention_implementation(model), 4 * unit_roundoff(dtype) + 1e-4)


def eager_standard(model: nn.Module, sites: ModelSites) -> Standard:
    """For each prompt alone, with eager attention if the model can be set to it."""
    try:
        with eager_attention(model) as attention:
            pass
    except Exception:  # the replays will say what it was
        attention = "eager"
    return _alone(model, sites, attention)


def _alone(model: nn.Module, sites: ModelSites, attention: str) -> Standard:
    dtype = next(model.parameters()).dtype
    # where experts are chosen, rounding may tip the choice for single tokens
    median = dtype.itemsize < 4 or bool(sites.choices)
    return Standard("each prompt alone", attention, _EAGER[dtype], median=median)


@dataclass
class Outcome:
    """What replays found.

    Attributes
    ----------
    standard
        What they had to satisfy.
    largest
        Quantity → largest relative difference.
    prompts, tokens
        Ids of the prompts that were replayed, and how many tokens.
    failed
        Id of a prompt → why it could not be replayed.
    instead
        Why another replay took the place of this one, "" where none did.
    attention
        The implementations of attention that were compared: of another replay that took its place, that of the other.
    """

    standard: Standard
    largest: dict[str, float] = field(default_factory=dict)
    prompts: list[str] = field(default_factory=list)
    tokens: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    instead: str = ""
    attention: list[str] = field(default_factory=list)

    def add(self, ids: Sequence[str], recorded: Arrays, again: Replayed, lengths: Sequence[int]) -> None:
        """Compare what was recorded of some prompts; CaptureError where it differs too much."""
        if self.standard.median and sum(lengths) < _FEWEST_TOKENS:
            self.failed[", ".join(ids)] = f"fewer than {_FEWEST_TOKENS} tokens, too few for a median"
            return
        for name, difference, layers in differences(recorded, again):
            found = by_layer(difference, QUANTITIES[name], median=self.standard.median)
            worst = int(np.argmax(found))
            if found[worst] > self.standard.tolerance:
                axis = "".join(QUANTITIES[name].dims[1:2])
                place = f", {axis} {layers[worst]}" if axis in ROW_LETTERS else ""  # one number a prompt has none
                raise Differs(
                    f"{QUANTITIES[name].label} differs from a replay ({self.standard}) by {found[worst]:.2g} of "
                    f"its size; at most {self.standard.tolerance:.2g} is rounding",
                    where=f"{'prompt ' + _owner(difference[:, worst], name, ids, lengths)}{place}",
                    fix=_NOT_COMPLETE,
                )
            self.largest[name] = max(self.largest.get(name, 0.0), float(found[worst]))
        self._count(ids, sum(lengths), [self.standard.attention])

    def take(self, other: Outcome, why: str) -> None:
        """Count what another replay found as found by this one, which it takes the place of for these prompts."""
        for name, largest in other.largest.items():
            self.largest[name] = max(self.largest.get(name, 0.0), largest)
        self._count(other.prompts, other.tokens, other.attention)
        self.instead = self.instead or why

    def _count(self, ids: Sequence[str], tokens: int, attention: Sequence[str]) -> None:
        self.prompts += ids
        self.tokens += tokens
        self.attention = list(dict.fromkeys([*self.attention, *attention]))

    def to_json(self) -> dict[str, Any]:
        """For the receipt."""
        largest = {name: self.largest[name] for name in sorted(self.largest, key=lambda key: -self.largest[key])}
        return {
            **self.standard.to_json(),
            "attention": self.attention,
            "prompts": self.prompts,
            "tokens": self.tokens,
            "largest_differences": largest,
        }

    def limits(self, wanted: Iterable[str]) -> list[str]:
        """What could not be compared, in sentences."""
        missing = [name for name in wanted if name not in self.largest and not _is_of_the_model(name)]
        said = [f"Not replayed ({self.standard}): {', '.join(missing)}."] if missing and self.prompts else []
        if self.instead:
            said.append(self.instead)
        for why in dict.fromkeys(self.failed.values()):
            ids = [one for one, reason in self.failed.items() if reason == why]
            which = f"prompt {ids[0]}" + (f" and {len(ids) - 1} more" if len(ids) > 1 else "")
            said.append(f"Not replayed ({self.standard}): {which} ({why}).")
        return said


def _is_of_the_model(name: str) -> bool:
    """Indices have no distance: what they point at is compared instead. Logits of targets are the model's own.

    Parts by source token are compared by their sums, in every batch.
    """
    return name in BY_SOURCE or QUANTITIES[name].dtype.startswith("int") or QUANTITIES[name].group == TARGETS


# --- the two verifications --------------------------------------------------------------------------------------------


def verify_sample(
    model: nn.Module,
    sites: ModelSites,
    batch: Batch,
    prompts: Sequence[PromptTokens],
    ids: Sequence[str],
    recorded: Arrays,
    *,
    reproducible: bool,
    transport: Transport | None = None,
) -> list[Outcome]:
    """Replay the probe batch as it is, and each of its prompts alone with eager attention.

    Parameters
    ----------
    batch, prompts, ids
        The probe batch, its prompts and their ids.
    recorded
        What the observer made of the batch.
    reproducible
        Whether the machine gives the same bits twice; where not, the same batch is held to the tolerance of eager.
    transport
        As that of `Replay`.

    Raises
    ------
    DependsOnBatch
        Each prompt alone gives other values than the batch, with eager attention and with the model's own.
    CaptureError
        A replay differs beyond its tolerance.
    """
    lengths = [len(prompt.ids) for prompt in prompts]
    eager = Outcome(eager_standard(model, sites))
    plain = Outcome(plain_standard(model))
    if not reproducible:
        loose = eager.standard
        plain = Outcome(replace(plain.standard, tolerance=loose.tolerance, median=loose.median))
    again = _try(partial(_replay, model, sites, batch, recorded, transport, eager=False), plain, ids)
    if again is not None:
        plain.add(ids, recorded, again, lengths)
    try:
        _replay_each(model, sites, prompts, ids, _split(recorded, lengths), eager, transport)
    except DiffersAlone as error:
        if len(prompts) == 1:
            raise
        raise error.of_batch() from None
    return [plain, eager]


def verify_trace(
    model: nn.Module,
    sites: ModelSites,
    trace: xr.Dataset,
    progress: Callable[[str, int, int | None], None],
    beside: Callable[[int], tuple[Sequence[int], Batch] | None],
    transport: Transport | None = None,
) -> Outcome:
    """Replay every prompt of a trace alone, with eager attention, against the values on disk.

    Parameters
    ----------
    model, sites, trace, progress
        The model, its sites, what was recorded of it, and who is told.
    beside
        Gives, for the place of a prompt in the trace, the places of those that ran together, and their batch; None
        where it ran alone, or in forwards that are not run again.
    transport
        As that of `Replay`.

    Raises
    ------
    DependsOnBatch
        A prompt alone gives other values, while its batch gives those on disk.
    CaptureError
        A value on disk differs from its replay beyond the tolerance.
    """
    outcome = Outcome(eager_standard(model, sites))
    names = [str(name) for name in trace.data_vars if QUANTITIES[str(name)].dims[0] in (TOKEN, PROMPT, EDGE)]
    prompts = Prompts(trace)
    ids = prompts.ids

    def stored(number: int) -> xr.Dataset:
        return prompts.part(number, number + 1)

    for number in range(len(ids)):
        progress("verifying", number, len(ids))
        part = stored(number)
        prompt = GivenTokens(part["token_id"].values, part["span"].values)
        # what is streamed is too large to be read at once
        recorded: dict[str, Any] = {name: part[name] if is_streamed(name) else part[name].values for name in names}
        try:
            _replay_each(model, sites, [prompt], ids[number : number + 1], [recorded], outcome, transport)
        except DiffersAlone as error:
            together = beside(number)
            if together is None:
                raise
            whole = [name for name in names if not is_streamed(name)]
            parts = [{name: stored(one)[name].values for name in whole} for one in together[0]]
            _replay_batch(model, sites, together[1], [ids[one] for one in together[0]], parts, transport)
            raise error.of_batch() from None
    progress("verifying", len(ids), len(ids))
    return outcome


def _replay_batch(
    model: nn.Module,
    sites: ModelSites,
    batch: Batch,
    ids: Sequence[str],
    recorded: Sequence[Arrays],
    transport: Transport | None,
) -> None:
    """Differs where a batch, run again as it was, does not give what was recorded of its prompts."""
    outcome = Outcome(replace(_alone(model, sites, attention_implementation(model)), what=_SAME_BATCH))
    together = {name: np.concatenate([one[name] for one in recorded]) for name in recorded[0]}
    again = _try(partial(_replay, model, sites, batch, together, transport, eager=False), outcome, ids)
    if again is not None:
        outcome.add(ids, together, again, batch.mask.sum(1).tolist())


def _replay_each(
    model: nn.Module,
    sites: ModelSites,
    prompts: Sequence[PromptTokens],
    ids: Sequence[str],
    recorded: Sequence[Arrays],
    outcome: Outcome,
    transport: Transport | None,
) -> None:
    """Replay prompts one by one with eager attention; where that differs, with the model's own, to know the cause.

    Where only eager attention differs, what was recorded is what the model does: then that is in the outcome.
    """
    try:
        _replay_alone(model, sites, prompts, ids, recorded, outcome, transport, eager=True)
        return
    except Differs as error:
        differs = error
    own = Outcome(_alone(model, sites, attention_implementation(model)))
    try:
        _replay_alone(model, sites, prompts, ids, recorded, own, transport, eager=False)
    except Differs as error:
        raise DiffersAlone(error.what, where=error.where, fix=error.fix) from None
    if not own.prompts or own.failed:
        raise differs
    shown = [QUANTITIES[name].group for name in recorded[0] if group_of(name).shown_by_eager(name)]
    if shown:
        raise Differs(
            differs.what,
            where=differs.where,
            fix="Only eager attention shows its weights, so it is not known whether that or what was observed is off. "
            f"Record without {' and '.join(dict.fromkeys(shown))}.",
        )
    outcome.take(own, f"{capital(differs.where)}: {differs.what}. {_ON_EAGER}, so that is what it was held against.")


_ON_BATCH = "Alone, this model gives other values for this prompt than beside others."
_ON_EAGER = "With the attention it was loaded with the model alone gives what was recorded, with eager attention not"


def _replay_alone(
    model: nn.Module,
    sites: ModelSites,
    prompts: Sequence[PromptTokens],
    ids: Sequence[str],
    recorded: Sequence[Arrays],
    outcome: Outcome,
    transport: Transport | None,
    *,
    eager: bool,
) -> None:
    """Replay prompts one by one, and compare them all together: a median needs tokens."""
    device = input_device(model)
    done: list[int] = []
    found: list[Replayed] = []
    for number, prompt in enumerate(prompts):
        batch = make_batch([prompt], pad_id=0, padding_side="right", device=device)
        run = partial(_replay, model, sites, batch, recorded[number], transport, eager=eager)
        again = _try(run, outcome, [ids[number]])
        if again is not None:
            done.append(number)
            found.append(again)
    if done:
        some = [recorded[number] for number in done]
        together = {name: np.concatenate([one[name] for one in some]) for name in some[0] if not is_streamed(name)}
        lengths = [len(prompts[number].ids) for number in done]
        outcome.add([ids[number] for number in done], together, _joined(found), lengths)


def _try(run: Callable[[], Replayed], outcome: Outcome, ids: Sequence[str]) -> Replayed | None:
    """What a replay found; None where this architecture or this machine cannot do it, which is noted."""
    try:
        return run()
    except Exception as error:  # foreign model code may raise anything
        why = " ".join(str(error).split())[:120] or type(error).__name__
        outcome.failed |= dict.fromkeys(ids, why)
        return None


def _replay(
    model: nn.Module, sites: ModelSites, batch: Batch, recorded: Arrays, transport: Transport | None, *, eager: bool
) -> Replayed:
    with eager_attention(model) if eager else nullcontext():
        return Replay(model, sites, batch, recorded, transport, **last_logits_only(model)).run()


def _owner(difference: np.ndarray, name: str, ids: Sequence[str], lengths: Sequence[int]) -> str:
    """The prompt of the largest difference."""
    worst = int(np.argmax(np.nan_to_num(difference, posinf=np.inf)))
    counts = {PROMPT: [1] * len(ids), TOKEN: lengths, EDGE: [edges(length) for length in lengths]}
    return ids[int(np.repeat(range(len(ids)), counts[QUANTITIES[name].dims[0]])[worst])]


def _split(recorded: Arrays, lengths: Sequence[int]) -> list[dict[str, np.ndarray]]:
    """What was recorded of each prompt of a batch."""
    token = edge = 0
    parts = []
    for number, length in enumerate(lengths):
        rows = {
            PROMPT: slice(number, number + 1),
            TOKEN: slice(token, token + length),
            EDGE: slice(edge, edge + edges(length)),
        }
        token, edge = token + length, edge + edges(length)
        parts.append({name: values[rows[QUANTITIES[name].dims[0]]] for name, values in recorded.items()})
    return parts


def _joined(parts: Sequence[Replayed]) -> Replayed:
    """Replays of several prompts as one; what one of them lacks is left out."""
    shared = set.intersection(*(set(part) for part in parts))
    return {
        name: {layer: torch.cat([part[name][layer] for part in parts]) for layer in parts[0][name]}
        for name in parts[0]
        if name in shared
    }
