"""What a recording does about answers: generate them, measure what they are likely to open with, or neither."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
from torch import Tensor

from stratoscope import names
from stratoscope.errors import CaptureError, InputError, ModelError
from stratoscope.model.load import LoadedModel
from stratoscope.recorder.answers.generate import Generator, can_generate
from stratoscope.recorder.answers.outcome import opener_log_odds, refusals, tokenised_openers
from stratoscope.recorder.answers.settings import Answers
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.input.grouping import ANY_LENGTH, EQUAL_LENGTH
from stratoscope.recorder.input.remarks import Remark
from stratoscope.recorder.input.tokens import TokenisedPrompt
from stratoscope.recorder.observe import Observer, forward, last_logits_only
from stratoscope.recorder.prompts.prompt import Prompt
from stratoscope.recorder.proof import receipt as receipts
from stratoscope.recorder.proof.batching import BatchingRule
from stratoscope.recorder.proof.checks import TokenWatch, check_tokens

MakeBatch = Callable[[Sequence[TokenisedPrompt]], Batch]


class Answering:
    """The part of a recording that is about answers; where nothing is asked about them, batches just run.

    Parameters
    ----------
    answers
        What is asked.
    loaded
        The model and its tokenizer.
    pad_id
        Token that stands where there is none.
    first_logits
        Whether somebody else asks for the logits that predict the answers' first tokens.
    last_tokens
        As that of `Generator`.

    Attributes
    ----------
    follow : int
        The most tokens that must fit into the context behind a prompt.
    variables, sizes
        Quantities of the outcome, and the lengths of their fixed dimensions.

    Raises
    ------
    ModelError
        The model cannot generate text.
    InputError
        An opener has no token, or settings of generation have values that transformers refuses.
    """

    def __init__(
        self, answers: Answers, loaded: LoadedModel, pad_id: int, *, first_logits: bool = False, last_tokens: int = 1
    ) -> None:
        self._answers, self._model, self._tokenizer = answers, loaded.model, loaded.tokenizer
        self._name = str(loaded.identity["name"])
        self._first_logits = first_logits or bool(answers.openers)
        self._openers = tokenised_openers(answers.openers, self._tokenizer)
        if answers and not can_generate(self._model):
            raise ModelError(
                "cannot generate text", where=self._name, fix="Record it without --generate and --openers."
            )
        self._generator = self._new_generator(pad_id, last_tokens) if answers.new_tokens else None
        self.follow = max([answers.new_tokens, *(len(opener.token_ids) - 1 for opener in self._openers)])
        self.sizes = {names.OPENER: len(self._openers)} if self._openers else {}
        self.variables = ["opener_log_odds"] if self._openers else []
        self.variables += ["opens_as_refusal", "refusal_pattern"] if self._generator is not None else []

    def _new_generator(self, pad_id: int, last_tokens: int) -> Generator:
        answers = self._answers
        how: dict[str, Any] = {"new_tokens": answers.new_tokens, "settings": answers.settings, "seed": answers.seed}
        return Generator(self._model, self._tokenizer, pad_id=pad_id, last_tokens=last_tokens, **how)

    def plan(self) -> dict[str, Any]:
        """The fields of the plan that are about answers."""
        plan: dict[str, Any] = {}
        if self._openers:
            plan["openers"] = [{"text": one.text, "token_ids": list(one.token_ids)} for one in self._openers]
        if self._generator is not None:
            plan |= {"generate": self._answers.new_tokens, "generation": self._generator.settings}
            plan |= {"seed": self._answers.seed, "refusal_patterns": list(self._answers.patterns)}
        return plan

    def refuse_unanswerable(self, prompts: Sequence[Prompt], encoded: Sequence[TokenisedPrompt]) -> None:
        """InputError where something is asked about the answer to a conversation that has been answered."""
        for prompt, tokens in zip(prompts, encoded, strict=True):
            if self._answers and not tokens.answers:
                raise InputError(
                    "ends with an assistant's message, so no answer comes next",
                    where=f"prompt {prompt.id}",
                    fix="Remove that message, or record without --generate and --openers.",
                )

    def remarks(self, *, chat: bool, day: date) -> list[Remark]:
        """What a prompt's answer is written without, where one is generated; `chat`: in the chat template."""
        return [] if self._generator is None else self._generator.remarks(chat=chat, day=day)

    def rehearse(self, batch: Batch, answer: Sequence[int]) -> None:
        """Run a batch as those of the recording are run, unobserved; where answers are written, this is theirs."""
        if self._generator is None:
            forward(self._model, batch, **last_logits_only(self._model))
        else:
            self._generator.rehearse(batch, answer)

    def narrowed(self, finding: BatchingRule) -> BatchingRule:
        """The finding, where a setting of the answers looks at padding: then what is written would depend on it."""
        looking = [] if self._generator is None else self._generator.looks_at_padding
        if finding.together != ANY_LENGTH or not looking:
            return finding
        why = (
            f"What is written with {' and '.join(looking)} would change with padding: prompts were batched only with "
            "others of equal length."
        )
        return replace(finding, together=EQUAL_LENGTH, why=why, facts={**finding.facts, "settings": looking})

    def prove(self, receipt: receipts.Receipt, observer: Observer, batch: Batch) -> receipts.Receipt:
        """The receipt, with what is proved about generating, if anything is generated."""
        if self._generator is None:
            return receipt
        return receipts.of_generation(receipt, *self._generator.prove(observer, batch, where=self._name))

    def record(
        self,
        observer: Observer,
        batch: Batch,
        prompts: Sequence[TokenisedPrompt],
        ids: Sequence[str],
        options: Mapping[str, Any],
        watch: TokenWatch,
    ) -> tuple[Sequence[TokenisedPrompt], dict[str, np.ndarray], Tensor | None]:
        """Record a batch of prompts with those ids; the tokens that the model embedded are compared.

        Returns
        -------
        prompts, arrays, first
            The prompts with their answers, their quantities as `Observer.record` gives them, and the logits that
            predict the answers' first tokens, [prompt, vocabulary], None where nobody asks for them.
        """
        if self._generator is not None:
            return self._generator.record(observer, batch, prompts, ids, watch)
        arrays, output = observer.record(batch, **options)
        check_tokens(watch, batch, prompts)
        return prompts, arrays, output.logits[:, -1] if self._first_logits else None

    def outcome(
        self,
        observer: Observer,
        prompts: Sequence[TokenisedPrompt],
        whole: Sequence[TokenisedPrompt],
        first: Tensor | None,
        make_batch: MakeBatch,
    ) -> dict[str, np.ndarray]:
        """The outcome's quantities of a batch; its further forwards are not observed.

        Raises
        ------
        CaptureError
            A log-odds is not finite.
        """
        found: dict[str, np.ndarray] = {}
        if self._generator is not None:
            found |= refusals(whole, self._answers.patterns, self._tokenizer)
        if first is None or not self._openers:
            return found

        def logits(sequences: Sequence[TokenisedPrompt], last: int) -> Tensor:
            options = dict.fromkeys(last_logits_only(self._model), last)
            seen: Tensor = forward(self._model, make_batch(sequences), **options).logits
            return seen[:, -last:]

        with observer.aside():
            odds = opener_log_odds(self._openers, prompts, first, logits, self._tokenizer)
        if not np.isfinite(odds).all():
            raise CaptureError(
                "the log-odds of an opener are not finite",
                where=f"opener {self._openers[int(np.argwhere(~np.isfinite(odds))[0, 1])].text!r}",
                fix="The weights or the dtype are broken: check the download, or try --dtype float32.",
            )
        return found | {"opener_log_odds": odds}
