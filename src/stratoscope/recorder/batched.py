"""The prompts of a recording: as tokens, in windows that are stored at once, and in batches that run together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

from stratoscope.model.devices import input_device
from stratoscope.model.load import LoadedModel
from stratoscope.recorder.effects.all_prompts import AllPrompts
from stratoscope.recorder.input.batches import Batch, PromptTokens, make_batch
from stratoscope.recorder.input.grouping import Batching, windows
from stratoscope.recorder.input.tokens import TokenisedPrompt, cut, encode
from stratoscope.recorder.parts import prompts_of
from stratoscope.recorder.prompts.prompt import Prompt
from stratoscope.recorder.proof.checks import vocabulary

_PROBE_PROMPTS, _PROBE_TOKENS = 2, 64
_WINDOW_BATCHES = 4


class BatchedPrompts:
    """Prompts as a recording runs them.

    Parameters
    ----------
    prompts
        At least one.
    loaded
        The model and its tokenizer.
    batch_size
        The most prompts of a batch.
    chat, day, answer_prefix
        As those of `encode`.
    padding_side
        Where padding stands.

    Attributes
    ----------
    ids
        Of the prompts.
    lengths
        Tokens of each, answers not counted; of all `read`.
    window
        The most prompts that are stored at once.
    mine
        Indices of the prompts that are recorded: those of the part, once that is chosen.
    batching
        Which prompts run together; whoever finds out more of it says so here.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        loaded: LoadedModel,
        *,
        batch_size: int,
        chat: bool,
        day: date,
        answer_prefix: str,
        padding_side: str,
    ) -> None:
        self.prompts, self._model, self._tokenizer = prompts, loaded.model, loaded.tokenizer
        self._chat, self._day, self._prefix = chat, day, answer_prefix
        self.padding_side, self.window = padding_side, _WINDOW_BATCHES * batch_size
        self.ids, self.batching = [prompt.id for prompt in prompts], Batching(batch_size)
        self.lengths: list[int] = []
        self.mine = range(len(prompts))

    def read(self) -> list[TokenisedPrompt]:
        """The tokens of all prompts."""
        encoded = [self.encoded(index) for index in range(len(self.prompts))]
        self.lengths = [len(prompt.ids) for prompt in encoded]
        return encoded

    def choose(self, part: tuple[int, int] | None) -> None:
        """Record only a part of the prompts, as (2, 5); None: all."""
        self.mine = prompts_of(part, [*windows(self.lengths, self.window)], self.lengths)

    # --- one prompt, and some -----------------------------------------------------------------------------------------

    def encoded(self, index: int) -> TokenisedPrompt:
        """Tokens of a prompt."""
        prompt, prefix = self.prompts[index], self._prefix
        return encode(prompt, self._tokenizer, chat=self._chat, day=self._day, answer_prefix=prefix)

    @property
    def pad_id(self) -> int:
        """The token that stands where there is none."""
        known = (self._tokenizer.pad_token_id, self._tokenizer.eos_token_id, 0)
        most = vocabulary(self._model)
        return next(token for token in known if token is not None and (most is None or token < most))

    def batch(self, prompts: Sequence[PromptTokens]) -> Batch:
        """Prompts as one padded rectangle, as those that are recorded are padded."""
        device = input_device(self._model)
        return make_batch(prompts, pad_id=self.pad_id, padding_side=self.padding_side, device=device)

    def batch_of(self, chosen: Sequence[int]) -> Batch:
        """The batch of these prompts."""
        return self.batch([self.encoded(index) for index in chosen])

    def first(self) -> list[tuple[str, TokenisedPrompt]]:
        """Ids and tokens of the longest of the first prompts and another one, cut short: the proof is made on these."""
        first = range(min(self.batching.size, len(self.prompts)))
        chosen = sorted(first, key=lambda index: -self.lengths[index])[:_PROBE_PROMPTS]
        return [(self.ids[index], cut(self.encoded(index), _PROBE_TOKENS)) for index in chosen]

    # --- all of them --------------------------------------------------------------------------------------------------

    def windows(self, done: int = 0) -> Iterator[range]:
        """Runs of prompts of this part, after those that are done; each is recorded and appended at once."""
        return windows(self.lengths[: self.mine.stop], self.window, self.mine.start + done)

    def of_window(self, window: Sequence[int]) -> list[list[int]]:
        """Indices of the prompts of a window that run together."""
        chosen = self.batching.batches([self.lengths[index] for index in window])
        return [[window[place] for place in batch] for batch in chosen]

    @property
    def batches(self) -> list[list[int]]:
        """Indices of the prompts of every batch of this part."""
        return [batch for window in self.windows() for batch in self.of_window(window)]

    def beside(self, number: int) -> list[int]:
        """Indices of the prompts that run together with the one of this number in the trace, itself among them."""
        return next(one for one in self.batches if self.mine.start + number in one)

    @property
    def all_prompts(self) -> AllPrompts:
        """All prompts of the file, whichever part of them is recorded."""
        return AllPrompts(self.ids, self.lengths, self.encoded, self.batch_of, self.batches, self.batching)
