"""How answers are generated: settings in the words of transformers, checked by name before anything runs. No torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from stratoscope import defaults
from stratoscope.errors import InputError, UsageError, refuse_unknown
from stratoscope.recorder.answers.refusals import checked_patterns
from stratoscope.trace.arguments import at_least

# settings that choose the next token or say when to stop: they change nothing about which forwards are run
KNOWN = (
    "do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff",
    "repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
    "bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "sequence_bias", "forced_bos_token_id",
    "forced_eos_token_id", "exponential_decay_length_penalty", "remove_invalid_values", "renormalize_logits",
    "min_length", "min_new_tokens", "stop_strings", "eos_token_id",
)  # fmt: skip
_OF_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
_FRACTIONS = ("temperature", "top_p", "min_p", "typical_p", "repetition_penalty", "encoder_repetition_penalty")
# what a model's own generation_config.json also holds, and what does not choose tokens
_ASIDE = ("_from_model_config", "transformers_version", "bos_token_id", "pad_token_id", "output_attentions",
          "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate")  # fmt: skip
_ROWS = "makes more or other sequences than there are prompts"
_FORWARDS = "runs forwards that are not of the text that is written"
_CACHE = "is not the growing cache with which generation is recorded"
_LENGTH = "is given by --generate"
_REFUSED = {
    **dict.fromkeys(("num_beams", "num_return_sequences", "num_beam_groups", "early_stopping", "length_penalty",
                     "diversity_penalty", "constraints", "force_words_ids"), _ROWS),
    **dict.fromkeys(("assistant_model", "prompt_lookup_num_tokens", "use_mtp", "assistant_early_exit", "dola_layers",
                     "penalty_alpha", "guidance_scale", "is_assistant", "speculation_type"), _FORWARDS),
    **dict.fromkeys(("use_cache", "cache_implementation", "cache_config", "max_cache_len"), _CACHE),
    **dict.fromkeys(("max_length", "max_new_tokens"), _LENGTH),
    "max_time": "makes the answer depend on how fast the machine is",
    "prefill_chunk_size": "cuts a prompt into several forwards",
    "token_healing": "rewrites the end of the prompt",
    "watermarking_config": "changes what the model says",
}  # fmt: skip
_HARMLESS = {
    "num_beams": 1, "num_return_sequences": 1, "num_beam_groups": 1, "early_stopping": False, "length_penalty": 1.0,
    "diversity_penalty": 0.0, "use_cache": True, "cache_implementation": "dynamic", "guidance_scale": 1.0,
    "penalty_alpha": 0.0, "token_healing": False, "is_assistant": False, "use_mtp": False,
}  # fmt: skip


@dataclass(frozen=True)
class Answers:
    """What is asked about answers.

    Attributes
    ----------
    new_tokens
        The most tokens of an answer; 0 = none is generated.
    settings
        As `checked_settings` returns them.
    seed
        Of sampling.
    openers
        Beginnings of an answer whose log-odds are recorded.
    patterns
        How a refusal opens, as `refusals.checked_patterns` gives them.
    """

    new_tokens: int = defaults.GENERATE
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = defaults.SEED
    openers: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.new_tokens or self.openers)


NO_ANSWERS = Answers()


def answers_of(
    generate: int,
    generation: str | os.PathLike[str] | Mapping[str, Any] | None,
    seed: int,
    openers: Iterable[str] | None,
    refusal_patterns: str | os.PathLike[str] | Sequence[str] | None = None,
) -> Answers:
    """The arguments of `capture` about answers, checked; the default openers come with every generated answer.

    Raises
    ------
    InputError
        A number is negative, or settings are given for an answer that is not generated, or cannot be recorded.
    """
    generate, seed = at_least(0, generate, "generate"), at_least(0, seed, "seed")
    if isinstance(generation, str | os.PathLike):
        generation = parse_settings(os.fspath(generation))
    for name, value in (("refusal_patterns", refusal_patterns), ("generation", generation)):
        if value and not generate:
            fix = "Say how many tokens: generate, --generate N."
            raise UsageError("it says something of answers, and none is generated", where=name, fix=fix)
    if isinstance(openers, str):
        raise UsageError("openers are one text, not several", fix=f"Use {openers.split('|')}.")
    chosen = (defaults.OPENERS if generate else ()) if openers is None else tuple(openers)
    patterns = checked_patterns(*([] if refusal_patterns is None else [refusal_patterns])) if generate else ()
    return Answers(generate, checked_settings(generation or {}), seed, chosen, patterns)


def parse_settings(text: str) -> dict[str, Any]:
    """Settings from the command line: a JSON object, or the path of a `.json` file that holds one.

    Raises
    ------
    InputError
        It is neither, or a setting cannot be recorded.
    """
    where = "generation"
    if not text.lstrip().startswith("{"):
        where = text
        path = Path(text)
        if path.exists() and not path.is_file():
            raise InputError("is no file but a folder, a pipe or a device", where=where, fix=_WRITE)
        if path.is_file() and path.stat().st_size > _LARGEST_FILE:
            raise InputError(f"has more than {_LARGEST_FILE:,} bytes", where=where, fix=_WRITE)
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise InputError(f"cannot be read: {reason}", where=where, fix=_WRITE) from None
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError) as error:
        why = error if isinstance(error, json.JSONDecodeError) else "a number is too long, or it is nested too deeply"
        raise InputError(f"is not valid JSON: {why}", where=where, fix=_WRITE) from None
    if not isinstance(settings, dict):
        raise InputError("is not a JSON object", where=where, fix=_WRITE)
    return checked_settings(settings)


_LARGEST_FILE = 2**20  # bytes of generation settings
_WRITE = 'Write {"do_sample": true, "temperature": 0.7}, or give a file that holds it.'


def chooses_tokens(name: str, value: Any) -> bool:
    """Whether a setting of a model's own file decides what is written; how long it may be is said by --generate."""
    if value is None or (name in _HARMLESS and value == _HARMLESS[name]):
        return False
    return name in KNOWN or _REFUSED.get(name, _LENGTH) not in (_LENGTH, _CACHE)


def checked_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that choose tokens; neutral ones and those of a model's own file that choose none are left out.

    Raises
    ------
    InputError
        A setting is unknown or does nothing, or its answers could not be recorded as one row of tokens for each prompt.
    """
    kept: dict[str, Any] = {}
    for name, value in settings.items():
        if name in _ASIDE or value is None or (name in _HARMLESS and value == _HARMLESS[name]):
            continue
        if name in _REFUSED:
            raise UsageError(f"{name} {_REFUSED[name]}", where="generation", fix=f"Leave {name} out.")
        refuse_unknown(name, KNOWN, "setting", where="generation")
        value = value.tolist() if hasattr(value, "tolist") else value  # numpy's numbers and arrays
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        kept[name] = float(value) if name in _FRACTIONS and is_whole else value
    idle = next((name for name in kept if name in _OF_SAMPLING), None)
    if idle and not kept.get("do_sample"):
        raise UsageError(f"{idle} does nothing without do_sample", where="generation", fix="Add do_sample: true.")
    return kept


def checked_day(text: str | None) -> date | None:
    """The day that a chat template is told, from YYYY-MM-DD; InputError where it is none."""
    try:
        return None if text is None else date.fromisoformat(text)
    except (ValueError, TypeError):
        raise UsageError(f"there is no day {text!r}", where="date", fix="Write YYYY-MM-DD, as 2026-01-31.") from None
