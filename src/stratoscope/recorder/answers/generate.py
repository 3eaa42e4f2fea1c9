"""Records answers while the model writes them: every forward of its own `generate`, prefill and decode steps alike."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from datetime import date
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GenerationConfig
from transformers.generation.logits_process import LogitsProcessor, LogitsProcessorList
from transformers.generation.stopping_criteria import EosTokenCriteria, StoppingCriteria, StopStringCriteria

from stratoscope.errors import CaptureError, InputError
from stratoscope.model.hooks import ModuleHooks
from stratoscope.model.prove import LogitProof, prove_unchanged
from stratoscope.names import PROMPT, QUANTITIES
from stratoscope.recorder.answers.sampling import OwnStreams, seeded
from stratoscope.recorder.answers.settings import chooses_tokens
from stratoscope.recorder.input.batches import Batch
from stratoscope.recorder.input.remarks import INFO, WARNING, Remark, quoted
from stratoscope.recorder.input.template import end_of_answer
from stratoscope.recorder.input.tokens import TokenisedPrompt, continued
from stratoscope.recorder.observe import Observer, last_logits_only, memory_guard
from stratoscope.recorder.proof.checks import TokenWatch, check_embedded

_PROOF_TOKENS = 3  # prefill, decode steps and the forward of the last token
# what is not asked for does nothing: neither transformers' defaults nor the model's own settings change the answer
_NEUTRAL = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}

# settings that look at all tokens in front of the next, and the value with which each does nothing
_COUNTING: dict[str, float] = {
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty"), 1.0),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length"), 0),
}

Before = Callable[[Batch], Any]
After = Callable[[Batch, Any], Any]

_CACHES = ("past_key_values", "cache_params", "state")  # what a model's output may call it


class Generator:
    """Runs a model's `generate` so that each token of prompt and answer passes through the model exactly once.

    `generate` runs the prompt, then each token it has written, but never the last one; that one gets a forward of its
    own, with the cache that `generate` returns. Prompts that have ended go on with padding, which is not recorded.

    Parameters
    ----------
    model, tokenizer
        A Hugging Face causal language model and its tokenizer.
    new_tokens
        The most tokens of an answer.
    settings
        As `settings.checked_settings` returns them; without any, the likeliest token is taken each time. The model's
        own sampling settings are not used, only its end-of-text tokens.
    seed
        Of sampling. Each prompt has its own stream of random numbers, made of the seed and its id.
    pad_id
        Token that stands where there is none.
    last_tokens
        Of how many of a forward's last tokens somebody reads the logits; 0 = of all.

    Attributes
    ----------
    settings : dict
        Everything that decides what is written, with the end-of-text tokens.

    Raises
    ------
    InputError
        A setting has a value that transformers refuses, or no effect.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        new_tokens: int,
        settings: Mapping[str, Any],
        seed: int,
        pad_id: int,
        last_tokens: int = 1,
    ) -> None:
        self._model, self._tokenizer, self._seed = model, tokenizer, seed
        own = model.generation_config.eos_token_id
        chosen = {"do_sample": False, **settings}
        chosen.setdefault("eos_token_id", tokenizer.eos_token_id if own is None else own)
        if chosen["do_sample"]:
            chosen = {**_NEUTRAL, **chosen}
        self.settings = dict(sorted(chosen.items()))
        self._config = _config(chosen, new_tokens, pad_id)
        self._logits_kept = {} if last_tokens == 1 else last_logits_only(model, last_tokens)  # it keeps one by itself

    def remarks(self, *, chat: bool, day: date) -> list[Remark]:
        """What of the model's own settings is left out, and where its answers do not end though the template says so.

        Parameters
        ----------
        chat
            Whether the prompts stand in the chat template.
        day
            What that is told.
        """
        found = []
        own = self._model.generation_config.to_diff_dict()
        mine = self.settings
        unused = {name: value for name, value in own.items() if chooses_tokens(name, value) and mine.get(name) != value}
        if unused:
            words = "the answer is written without the generation settings that the model brings along"
            examples = tuple(f"{name} {json.dumps(value, default=str)}" for name, value in sorted(unused.items()))
            found.append(Remark(INFO, words, examples))
        end = end_of_answer(self._tokenizer, day) if chat else None
        ends = self.settings["eos_token_id"]
        if end is not None and end not in (ends if isinstance(ends, list) else [ends]):
            words = "the answer does not end at the token with which the chat template ends answers"
            found.append(Remark(WARNING, words, (quoted(self._tokenizer.decode([end])),)))
        return found

    def record(
        self,
        observer: Observer,
        batch: Batch,
        prompts: Sequence[TokenisedPrompt],
        ids: Sequence[str],
        watch: TokenWatch,
    ) -> tuple[list[TokenisedPrompt], dict[str, np.ndarray], Tensor]:
        """Generate and record a batch.

        Parameters
        ----------
        observer
            Open.
        batch, prompts
            The prompts, padded on the left.
        ids
            Those of the prompts.
        watch
            Open: what the model embeds.

        Returns
        -------
        prompts, arrays, logits
            The prompts with their answers; name of each quantity to its values, token (or prompt) first, the tokens of
            a prompt and its answer together; logits that predict the first token of each answer, [prompt, vocabulary].

        Raises
        ------
        CaptureError
            A site was not passed exactly once in a forward, the tokens that passed through the model are not those
            that it wrote, or there is not enough memory.
        """
        observer.prepare(batch)
        steps: list[Batch] = []
        found: list[dict[str, np.ndarray]] = []
        logits: list[Tensor] = []

        def after(step: Batch, output: Any) -> None:
            found.append(observer.take(step, output))
            steps.append(step)
            if not logits:
                logits.append(output.logits[:, -1].clone())

        answers = self._run(
            batch, ids, before=lambda step: observer.begin(step, goes_on=step is not batch), after=after
        )
        check_embedded(watch, steps)
        whole = [continued(prompt, answer, self._tokenizer) for prompt, answer in zip(prompts, answers, strict=True)]
        owner = np.concatenate([_owner(step) for step in steps])
        order = np.argsort(owner, kind="stable")  # prompt by prompt, in the order of time
        passed = np.concatenate([step.input_ids.reshape(-1)[step.valid].cpu().numpy() for step in steps])[order]
        if not np.array_equal(passed, np.concatenate([prompt.ids for prompt in whole])):
            raise CaptureError(
                "the tokens that passed through the model are not those it was given and wrote",
                where="generation",
                fix="This architecture cannot be recorded while it generates: leave --generate out.",
            )
        arrays = {
            name: values
            if QUANTITIES[name].dims[0] == PROMPT
            else np.concatenate([values, *(step[name] for step in found[1:])])[order]
            for name, values in found[0].items()
        }
        return whole, arrays | observer.take_attention(_real(steps)), logits[0]

    def prove(self, observer: Observer, batch: Batch, *, where: str) -> tuple[int, LogitProof]:
        """Prove on a probe batch that the logits of every forward are the same, observed or not.

        Returns
        -------
        tokens, proof
            How many tokens each prompt was continued by, and how the logits compare.

        Raises
        ------
        ModelError
            Observing changes the logits.
        CaptureError
            The recorded attention is not the model's.
        InputError
            A setting has a value that transformers refuses.
        """
        few = min(_PROOF_TOKENS, self._config.max_new_tokens)

        def unobserved() -> Tensor:
            try:
                return self._logits(batch, few, _nothing, _nothing)
            except (ValueError, TypeError) as error:  # what transformers looks at only now
                raise _refused(error) from None

        def observed() -> Tensor:
            steps: list[Batch] = []

            def after(step: Batch, output: Any) -> None:
                observer.take(step, output)
                steps.append(step)

            with observer:
                observer.prepare(batch)
                logits = self._logits(batch, few, lambda step: observer.begin(step, goes_on=step is not batch), after)
                observer.take_attention(_real(steps))
            return logits

        return few, prove_unchanged(unobserved, observed, where=where)

    @property
    def looks_at_padding(self) -> list[str]:
        """Names of the settings that count the tokens in front of an answer, padding among them."""
        return [name for name, nothing in _COUNTING.items() if self.settings.get(name) not in (None, nothing)]

    def rehearse(self, batch: Batch, ids: Sequence[int]) -> None:
        """Generate, unobserved, with the first of these tokens as every answer, whatever the model would write.

        Raises
        ------
        InputError
            A setting has a value that transformers refuses.
        """
        ids = ids[: min(_PROOF_TOKENS, self._config.max_new_tokens)]
        said = _Said(ids, batch.input_ids.shape[1])
        try:
            self._run(
                batch,
                [*map(str, range(len(batch.input_ids)))],
                before=_nothing,
                after=_nothing,
                new_tokens=len(ids),
                processors=[said],
            )
        except (ValueError, TypeError) as error:  # what transformers looks at only now
            raise _refused(error) from None

    def _logits(self, batch: Batch, few: int, before: Before, after: After) -> Tensor:
        """The logits of every forward of a short generation, [rows, vocabulary]."""
        kept: list[Tensor] = []

        def watch(step: Batch, output: Any) -> None:
            kept.append(output.logits[:, -1].clone())
            after(step, output)

        self._run(batch, [*map(str, range(len(batch.input_ids)))], before=before, after=watch, new_tokens=few)
        return torch.cat(kept)

    def _run(
        self,
        batch: Batch,
        ids: Sequence[str],
        *,
        before: Before,
        after: After,
        new_tokens: int | None = None,
        processors: Sequence[LogitsProcessor] = (),
    ) -> list[list[int]]:
        """Generate; `before` and `after` are called around every forward with its tokens. The ids of each answer."""
        model, steps = self._model, [batch]
        ends = _ends(self._tokenizer, self.settings["eos_token_id"], self.settings.get("stop_strings"), batch)
        config = self._config if new_tokens is None else _with(self._config, max_new_tokens=new_tokens)
        fed, cache = 0, ""

        def enter(_: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            if fed:
                steps[0] = _step(kwargs["input_ids"], ends.real)
                before(steps[0])

        def leave(_: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
            nonlocal fed, cache
            cache = next((name for name in _CACHES if name in output), "")
            fed += kwargs["input_ids"].shape[1]
            after(steps[0], output)

        with (
            torch.no_grad(),
            memory_guard(batch),
            _own_settings_aside(model),
            seeded(self._seed, batch.input_ids.device),
            OwnStreams(self._seed, ids, batch.input_ids.device) if self.settings["do_sample"] else nullcontext(),
            warnings.catch_warnings(),
            ModuleHooks({"model": model}, before=enter, after=leave),
        ):
            warnings.simplefilter("ignore")
            before(batch)
            written = model.generate(
                input_ids=batch.input_ids,
                attention_mask=batch.mask,
                generation_config=config,
                logits_processor=LogitsProcessorList(processors),
                stopping_criteria=[ends],
                **self._logits_kept,
            )
            if fed < written.sequences.shape[1]:
                self._last(batch, written, cache)
        length = batch.input_ids.shape[1]
        rows = zip(written.sequences.tolist(), ends.lengths.tolist(), strict=True)
        return [row[length : length + count] for row, count in rows]

    def _last(self, batch: Batch, written: Any, cache: str) -> None:
        """Run the newest token, which `generate` has chosen but not run."""
        model, sequences = self._model, written.sequences
        new = batch.mask.new_ones(len(sequences), sequences.shape[1] - batch.mask.shape[1])
        mask = torch.cat([batch.mask, new], dim=1)
        given = {cache: written.past_key_values, "attention_mask": mask, "use_cache": True}
        if "position_ids" in signature(model.forward).parameters:
            given["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
        model(**model.prepare_inputs_for_generation(sequences, next_sequence_length=1, **given), return_dict=True)


def can_generate(model: Any) -> bool:
    """Whether a model writes text: it has a head that predicts the next token."""
    return bool(getattr(model, "can_generate", lambda: False)())


def _nothing(*_: Any) -> None:
    """Done before or after a forward."""


class _Said(LogitsProcessor):  # type: ignore[misc]
    """Leaves no choice: the tokens of an answer that is known, for prompts padded to a length."""

    def __init__(self, ids: Sequence[int], length: int) -> None:
        self._ids, self._length = ids, length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        only = torch.full_like(scores, -torch.inf)
        only[:, self._ids[input_ids.shape[1] - self._length]] = 0.0
        return only


class _Ends(StoppingCriteria):  # type: ignore[misc]
    """Follows which prompts are still being answered; `generate` asks it after each token.

    Attributes
    ----------
    real
        Bool, shape (prompts,): whose newest token belongs to the answer and is not padding behind its end.
    lengths
        int64, shape (prompts,): tokens of each answer, its end-of-text token included.
    """

    def __init__(self, criteria: Sequence[StoppingCriteria], prompts: int, device: torch.device) -> None:
        self._criteria = criteria
        self._open = torch.ones(prompts, dtype=torch.bool, device=device)
        self.real = self._open
        self.lengths = torch.zeros(prompts, dtype=torch.int64, device=device)

    def __call__(self, input_ids: Tensor, scores: Any, **options: Any) -> Tensor:
        self.real = self._open
        self.lengths += self.real
        for criterion in self._criteria:
            self._open = self._open & ~criterion(input_ids, scores, **options).to(self._open.device)
        return ~self._open


def _ends(tokenizer: Any, eos: Any, stop_strings: Any, batch: Batch) -> _Ends:
    device = batch.input_ids.device
    criteria: list[StoppingCriteria] = []
    if eos is not None:
        criteria.append(EosTokenCriteria(torch.tensor([eos] if isinstance(eos, int) else eos, device=device)))
    if stop_strings:
        criteria.append(StopStringCriteria(tokenizer, stop_strings))
    return _Ends(criteria, len(batch.input_ids), device)


def _config(settings: Mapping[str, Any], new_tokens: int, pad_id: int) -> GenerationConfig:
    """For `generate`; refuses what transformers refuses, and settings that would do nothing."""
    given = {name: value for name, value in settings.items() if name != "stop_strings"}
    try:
        config = GenerationConfig(**given)
        config.validate(strict=True)
        return _with(config, max_new_tokens=new_tokens, pad_token_id=pad_id)
    except (ValueError, TypeError) as error:
        raise _refused(error) from None


def _refused(error: Exception) -> InputError:
    return InputError(f"transformers refuses them: {' '.join(str(error).split())}", where="generation")


def _with(config: GenerationConfig, **changes: Any) -> GenerationConfig:
    config = copy(config)
    config.update(return_dict_in_generate=True, use_cache=True, disable_compile=True, **changes)
    return config


def _step(ids: Tensor, real: Tensor) -> Batch:
    """A decode step: one token of each prompt, those behind an answer's end as padding."""
    mask = real[:, None].long()
    return Batch(input_ids=ids, mask=mask, position_ids=None, valid=real.nonzero()[:, 0], user_rows=(), answers=())


def _real(steps: Sequence[Batch]) -> Tensor:
    """Bool, shape (prompts, tokens of all forwards): which are no padding."""
    return torch.cat([step.mask for step in steps], dim=1).bool()


def _owner(step: Batch) -> np.ndarray:
    """Number of the prompt that each recorded row of a forward belongs to."""
    owner: np.ndarray = step.valid.cpu().numpy() // step.input_ids.shape[1]
    return owner


@contextmanager
def _own_settings_aside(model: nn.Module) -> Iterator[None]:
    """Without the model's own generation settings, which would fill in whatever is not given."""
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own
