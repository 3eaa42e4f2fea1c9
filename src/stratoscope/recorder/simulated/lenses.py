"""Simulated lenses of one prompt: what a logit lens, and a Jacobian lens with its halves, would read at every depth.

Logits over the words of the simulation go from noise at the first depth to the model's own at the last; the Jacobian
lens gets there earlier, and its two halves differ from it most where it reads noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stratoscope.defaults import LENS_TOKENS
from stratoscope.recorder.simulated.model import LENS_NAMES, SimulatedModel, SimulatedTokens
from stratoscope.trace.arrays import Floats

_TOKENS_AT_ONCE = 128  # keeps long prompts small in memory
_SPREAD, _NEXT = 2.0, 6.0  # of the model's own logits: standard deviation, and what the word that follows has more
_LAST_STEP = 0.12  # of the depth: how fast noise gives way
_STAYS = 0.8  # correlation of noise from one depth to the next
_HALF = 0.5  # share of the noise that is a half's own
_EARLIER = 0.3  # of the depth: what the Jacobian lens is ahead
_LEAD = 0.5  # logits by which the planted answer leads, and by which it falls short before
_GRID = 1024  # target logits are multiples of 1 / 1024, as contributions are


@dataclass(frozen=True)
class _Read:
    """Of some tokens, what one lens reads; leading axes (token, depth)."""

    token: np.ndarray
    logprob: np.ndarray
    answer_logprob: np.ndarray
    answer_rank: np.ndarray
    target_logprob: np.ndarray
    target_rank: np.ndarray
    target_logit: np.ndarray


class SimulatedLenses:
    """The quantities of the group `lens`.

    Parameters
    ----------
    model, text
        The pretended model and the prompt.
    target_logit
        The model's own logit of each target at each token, [token, target]; none where no target is explained.
    """

    def __init__(self, model: SimulatedModel, text: SimulatedTokens, target_logit: Floats | None) -> None:
        self._model, self._text, self._target_logit = model, text, target_logit
        self._length, self._depths = len(text.words), model.shape.layers + 1
        self._random = model.shape.random("lens", text.index)

    def quantities(self, first: int) -> dict[str, np.ndarray]:
        """All of them, [token, depth, lens, …]: logits of targets everywhere, the others from position `first` on."""
        runs = [
            range(begin, min(begin + _TOKENS_AT_ONCE, self._length))
            for begin in range(0, self._length, _TOKENS_AT_ONCE)
        ]
        of_runs = [self._of_run(run) for run in runs]
        found: dict[str, np.ndarray] = {}
        for name in _Read.__dataclass_fields__:
            by_lens = [
                np.concatenate([getattr(lenses[lens], name) for lenses in of_runs]) for lens in range(len(LENS_NAMES))
            ]
            values = np.stack(by_lens, axis=2)
            if name != "target_logit":
                values[:first] = -1 if values.dtype.kind == "i" else np.nan
            found[f"lens_{name}"] = values
        return found

    def _of_run(self, run: range) -> list[_Read]:
        """What each lens reads of some tokens."""
        size = (len(run), self._depths, len(self._model.token_texts))
        own = self._own_logits(run, self._random.standard_normal((size[0], size[2])))
        noise, *others = (self._noise(size) for _ in range(3))
        turn = self._random.uniform(0.5, 0.85, (size[0], 1))  # the depth at which noise and answer are equally strong
        jacobian = self._towards(own, noise, turn - _EARLIER)
        halves = [np.sqrt(1 - _HALF) * noise + np.sqrt(_HALF) * other for other in others]
        read = [
            self._towards(own, noise, turn),
            jacobian,
            *(self._towards(own, one, turn - _EARLIER) for one in halves),
        ]
        if self._length - 1 in run:
            for logits, depth in zip(read, self._model.answer_depths, strict=True):
                _plant(logits[-1], int(own[-1].argmax()), depth)
        for logits in read:
            logits[:, -1] = own
        return [self._read(logits, run) for logits in read]

    def _own_logits(self, run: range, drawn: Floats) -> Floats:
        """The model's logits: mostly for the word that follows; those of targets are what the trace says elsewhere."""
        following = np.append(self._text.words[1:], self._text.words[-1])[run.start : run.stop]
        found = _SPREAD * drawn
        found[np.arange(len(run)), following] += _NEXT
        if self._target_logit is not None:
            tokens, against = self._model.target_ids
            wanted = self._target_logit[run.start : run.stop]
            if against[0] >= 0:
                found[:, tokens] = found[:, against] + wanted
            else:  # the mean, of which they are a part
                others = np.delete(found, tokens, axis=1).sum(axis=1, keepdims=True)
                mean = (others + wanted.sum(axis=1, keepdims=True)) / (found.shape[1] - len(tokens))
                found[:, tokens] = mean + wanted
        return found

    def _noise(self, size: tuple[int, int, int]) -> Floats:
        """Normal, correlated along the depth."""
        found = self._random.standard_normal(size)
        for depth in range(1, size[1]):
            found[:, depth] = _STAYS * found[:, depth - 1] + np.sqrt(1 - _STAYS**2) * found[:, depth]
        return found

    def _towards(self, own: Floats, noise: Floats, turn: Floats) -> Floats:
        """Logits that go from noise to the model's own, [token, depth, word]."""
        depth = np.arange(self._depths) / (self._depths - 1)
        share = 1 / (1 + np.exp(-(depth - turn) / _LAST_STEP))
        return np.asarray(share[..., None] * own[:, None] + (1 - share[..., None]) * _SPREAD * noise)

    def _read(self, logits: Floats, run: range) -> _Read:
        logprob = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        top = np.argsort(-logits, axis=-1, kind="stable")[..., :LENS_TOKENS]
        answer = np.broadcast_to(top[:, -1:, :1], (*top.shape[:2], 1))
        tokens, against = (np.array(ids, np.int64) for ids in self._model.target_ids)
        targets = np.broadcast_to(tokens, (*top.shape[:2], len(tokens)))
        other = logits[..., against] if (against >= 0).any() else logits.mean(axis=-1, keepdims=True)
        wanted = np.rint((logits[..., tokens] - other) * _GRID) / _GRID
        if self._target_logit is not None:
            wanted[:, -1] = self._target_logit[run.start : run.stop]
        return _Read(
            top,
            np.take_along_axis(logprob, top, axis=-1),
            np.take_along_axis(logprob, answer, axis=-1)[..., 0],
            _rank(logits, answer)[..., 0],
            np.take_along_axis(logprob, targets, axis=-1),
            _rank(logits, targets),
            wanted,
        )


def _rank(logits: Floats, tokens: np.ndarray) -> np.ndarray:
    """1 + the number of likelier words, of each of some tokens."""
    own = np.take_along_axis(logits, tokens, axis=-1)
    return np.asarray(1 + (logits[..., None, :] > own[..., None]).sum(axis=-1))


def _plant(logits: Floats, answer: int, depth: int) -> None:
    """Let the answer lead from a depth on, and not before; [depth, word]."""
    others = np.delete(logits, answer, axis=1).max(axis=1)
    leads = np.arange(len(logits)) >= depth
    own = logits[:, answer]
    logits[:, answer] = np.where(leads, np.maximum(own, others + _LEAD), np.minimum(own, others - _LEAD))
