"""Whether what a model computes of a prompt depends on the prompts beside it: found out by running one beside others.

A short prompt runs alone, and beside a longer one, so that it is padded. So that rounding cannot grow from block to
block, each block is handed what it was handed when the prompt ran alone: then whatever differs behind a block is what
that block makes of the prompts beside, or of padding. What rounding does is measured, not assumed: once more alone,
with every number that goes into a block moved by its last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stratoscope.errors import StratoscopeError, is_out_of_memory
from stratoscope.model.hooks import BlockHooks
from stratoscope.model.sites import ModelSites, unit_roundoff
from stratoscope.names import SPANS
from stratoscope.recorder.input.batches import Batch, GivenTokens
from stratoscope.recorder.input.grouping import ANY_LENGTH, EQUAL_LENGTH, NONE, Together
from stratoscope.recorder.input.tokens import cut

BESIDE_LONGER, BESIDE_EQUAL = "beside_longer", "beside_equal_length"  # in the facts: largest differences

# Times what a last bit of a block's input changes in its output; docs/receipt.md says what was measured. In half
# precision a last bit is far more than the order of a sum.
_BEYOND = {torch.float64: 32.0, torch.float32: 32.0, torch.float16: 4.0, torch.bfloat16: 4.0}
_TYPICAL = 4.0  # … and a quarter of it where all tokens and blocks are taken together (their root mean square)
_TIPPED = 8.0  # times what it does at the typical token: another expert was chosen
_LENGTHS = (24, 40)  # tokens of the prompt and of a longer one
_TEXTS = (
    "The river was low that summer, and the children of the village walked across it to the old mill every day. ",
    "A clock on the wall of the station had stopped at ten past four; nobody who waited there had ever seen it go. ",
)


WHY = {
    EQUAL_LENGTH: "This model's values change with padding: prompts were batched only with others of equal length.",
    NONE: "This model's values change with the prompts beside it: each prompt ran alone.",
}
_UNKNOWN = "Whether values depend on the batch was not found out"


@dataclass(frozen=True)
class BatchingRule:
    """What was found out.

    Attributes
    ----------
    together
        Beside which others a prompt may run.
    why
        What the note on the trace says about it, "" where any may run beside any other.
    facts
        For the receipt: what ran beside what, and the largest differences, in units of what a last bit of a block's
        input changes in its output; None where the model refused to run so.
    limits
        What could not be found out, in sentences.
    """

    together: Together
    why: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    limits: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For the receipt."""
        return {"together": self.together, **self.facts}


def narrower(finding: BatchingRule, error: StratoscopeError, *, padded: bool) -> BatchingRule:
    """What follows from a proof that failed since a prompt alone gives other values than in its batch."""
    together = EQUAL_LENGTH if padded else NONE
    facts = {**finding.facts, "found_by": f"{error.where}: {error.what}"}
    return replace(finding, together=together, why=WHY[together], facts=facts)


def probe_prompts(tokenizer: Any, known: int | None, most: int | None) -> tuple[GivenTokens, GivenTokens]:
    """A prompt and a longer one: plain words, as many tokens of them as there may be.

    Parameters
    ----------
    tokenizer
        The model's.
    known
        How many tokens the model has; None where nobody says.
    most
        Tokens that its context holds.
    """
    longer = min(_LENGTHS[1], most or _LENGTHS[1])
    prompts = []
    for text, tokens in zip(_TEXTS, (longer * _LENGTHS[0] // _LENGTHS[1], longer), strict=True):
        ids = np.array(tokenizer(text)["input_ids"], np.int32)
        ids = ids[ids < known] if known is not None else ids
        ids = np.resize(ids, max(1, tokens))  # over and over, where words are few tokens
        prompts.append(GivenTokens(ids, np.full(len(ids), SPANS.index("user"), np.int8)))
    return prompts[0], prompts[1]


def find_batching(
    model: nn.Module,
    sites: ModelSites,
    prompts: tuple[GivenTokens, GivenTokens],
    make_batch: Callable[[Sequence[GivenTokens]], Batch],
    run: Callable[[Batch], None],
) -> BatchingRule:
    """Run a prompt alone and beside others, and say beside which it gives the same.

    Parameters
    ----------
    model, sites
        The model and its proved sites.
    prompts
        As `probe_prompts` gives them.
    make_batch
        Pads prompts as those of the recording are padded.
    run
        Runs a batch as those of the recording are run: in one forward, or in several that generate.

    Raises
    ------
    OutOfMemory
        Not even these fit.
    """
    prompt, longer = prompts
    probe = _Probe(model, sites, run)
    alone = make_batch([prompt])
    base = probe.passed(alone, None)
    facts: dict[str, Any] = {
        "prompt_tokens": len(prompt.ids),
        "neighbour_tokens": len(longer.ids),
        "forwards": len(base.outputs) // probe.blocks,
    }
    if not base.finite:
        return BatchingRule(ANY_LENGTH, facts=facts, limits=[f"{_UNKNOWN}: they are not finite."])
    rounded = probe.passed(alone, base, nudged=True)
    judge = _Judge(base, rounded, probe.blocks, lenient=bool(sites.choices))
    facts["rounding_at_most"] = judge.beyond
    beside_longer = judge.of(lambda: probe.passed(make_batch([longer, prompt]), base))
    facts[BESIDE_LONGER] = beside_longer.largest
    if not beside_longer.depends:
        return BatchingRule(ANY_LENGTH, facts=facts)
    again = judge.of(lambda: probe.passed(alone, base))
    if again.depends:
        return BatchingRule(ANY_LENGTH, facts=facts, limits=[f"{_UNKNOWN}: they differ each time, even alone."])
    beside_equal = judge.of(lambda: probe.passed(make_batch([cut(longer, len(prompt.ids)), prompt]), base))
    facts[BESIDE_EQUAL] = beside_equal.largest
    together = NONE if beside_equal.depends else EQUAL_LENGTH
    return BatchingRule(together, WHY[together], facts)


# --- what passes the blocks -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Passed:
    """What of one prompt went into each block and came out, forward by forward, block by block, [tokens, width]."""

    inputs: list[Tensor]
    outputs: list[Tensor]

    @property
    def finite(self) -> bool:
        return all(bool(tensor.isfinite().all()) for tensor in self.outputs)


class _Probe:
    """Runs batches and keeps what passes the blocks of their last prompt."""

    def __init__(self, model: nn.Module, sites: ModelSites, run: Callable[[Batch], None]) -> None:
        self._model, self._run = model, run
        self._sites = [(layer.block_in, layer.block_out) for layer in sites.layers]
        self.blocks = len(self._sites)

    def passed(self, batch: Batch, held: _Passed | None, *, nudged: bool = False) -> _Passed:
        """Run a batch; with `held`, each block is handed that of its last prompt, `nudged` by a last bit."""
        prompts, length = batch.input_ids.shape
        first = batch.valid[batch.valid >= (prompts - 1) * length].cpu()
        found = _Passed([], [])
        signs = np.random.default_rng(0)

        def rows_of(tensor: Tensor) -> Tensor:
            """Rows of the last prompt: without padding in the first forward, all those of its new tokens later."""
            if len(found.inputs) <= self.blocks:
                return first.to(tensor.device)
            new = len(tensor) // prompts
            return torch.arange(len(tensor) - new, len(tensor), device=tensor.device)

        def enter(number: int, tensor: Tensor) -> Tensor | None:
            found.inputs.append(tensor)  # counted before its rows are looked up
            rows = rows_of(tensor)
            found.inputs[-1] = tensor[rows].cpu()
            if held is None or len(found.inputs) > len(held.inputs):
                return None
            wanted = held.inputs[len(found.inputs) - 1]
            if nudged:
                step = 2 * unit_roundoff(wanted.dtype) * signs.choice([-1.0, 1.0], size=tuple(wanted.shape))
                wanted = (wanted.double() * (1 + torch.from_numpy(step))).to(wanted.dtype)
            given = tensor.clone()
            given[rows] = wanted.to(tensor.device)
            return given

        def leave(number: int, tensor: Tensor) -> None:
            found.outputs.append(tensor[rows_of(tensor)].cpu())

        with BlockHooks(self._model, self._sites, enter=enter, leave=leave):
            self._run(batch)
        return found


# --- what is more than rounding ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Judgement:
    """Whether anything is more than rounding, and the largest difference in units of a last bit; None = it failed."""

    depends: bool
    largest: float | None


class _Judge:
    """Compares what passed the blocks with what passes them alone, by what rounding changes there.

    `lenient`: where experts are chosen in half precision, rounding may tip the choice for single tokens, and did so
    in the measurement of rounding about as often.
    """

    def __init__(self, alone: _Passed, rounded: _Passed, blocks: int, *, lenient: bool) -> None:
        self._alone, self._blocks = alone, blocks
        self._rounding: list[np.ndarray] = []
        tipped = 0
        for behind_block, measured in self._differences(rounded):
            if not behind_block:  # nothing was computed yet
                self._rounding.append(np.full_like(measured, 2 * unit_roundoff(alone.inputs[0].dtype)))
                continue
            typical = float(np.median(measured))
            self._rounding.append(np.maximum(measured, typical))
            tipped += int((measured > _TIPPED * typical).sum())
        dtype = alone.outputs[0].dtype
        self.beyond = _BEYOND[dtype]
        self._allowed = 2 * tipped + 1 if lenient and dtype.itemsize < 4 else 0

    def of(self, run: Callable[[], _Passed]) -> _Judgement:
        """What is to be said of a run; one that the model refuses is one that it depends on."""
        try:
            passed = run()
        except Exception as error:  # foreign model code may raise anything
            if is_out_of_memory(error):
                raise
            return _Judgement(True, None)
        shapes = [[tuple(one.shape) for one in some.outputs] for some in (passed, self._alone)]
        if not passed.outputs or any(one != other for one, other in zip(*shapes, strict=False)):
            return _Judgement(True, None)
        times = np.sort(np.concatenate([*self._times(passed)]))
        largest = float(times[-1])
        kept = times[: len(times) - self._allowed]
        typical = float(np.sqrt(np.square(kept).mean())) if len(kept) else 0.0
        depends = kept[-1:].max(initial=0.0) > self.beyond or typical > self.beyond / _TYPICAL
        return _Judgement(bool(depends), largest if np.isfinite(largest) else None)

    def _times(self, passed: _Passed) -> Iterator[np.ndarray]:
        """How many times larger differences are than those of rounding; infinite where something is not a number."""
        for (_, difference), rounding in zip(self._differences(passed), self._rounding, strict=False):
            times = np.divide(difference, rounding, out=np.where(difference > 0, np.inf, 0.0), where=rounding > 0)
            yield np.nan_to_num(times, nan=np.inf, posinf=np.inf)

    def _differences(self, passed: _Passed) -> Iterator[tuple[bool, np.ndarray]]:
        """Of each forward, [tokens]: in front of the first block, then behind each block relative to what it wrote."""
        alone = self._alone
        for place, (one, out, into) in enumerate(zip(passed.outputs, alone.outputs, alone.inputs, strict=False)):
            if place % self._blocks == 0:
                yield False, _relative(passed.inputs[place], into, into)
            yield True, _relative(one, out, out.double() - into.double())


def _relative(one: Tensor, other: Tensor, size: Tensor) -> np.ndarray:
    """Length of the difference of each row, as a share of that of `size`, or of the typical one where that is more."""
    lengths = size.double().norm(dim=-1)
    lengths = lengths.clamp(min=float(lengths.median()))
    apart: Tensor = (one.double() - other.double()).norm(dim=-1)
    return torch.where(apart == 0, 0.0, apart / lengths).numpy()
