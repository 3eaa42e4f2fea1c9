"""Targets as tokens: one each, of those that the model can write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stratoscope.errors import InputError
from stratoscope.recorder.input.spelling import literals
from stratoscope.recorder.input.tokens import ids_of, special_ids
from stratoscope.recorder.targets.asked import TargetSettings

MEAN = -1  # in place of a token: the mean over the vocabulary


@dataclass(frozen=True)
class Target:
    """A token whose logit is explained, and what it is compared with: a token, or the mean over the vocabulary."""

    text: str
    token_id: int
    against: str | None
    against_id: int

    def to_json(self) -> dict[str, Any]:
        """For the plan."""
        return asdict(self)


def tokenised_targets(asked: TargetSettings, tokenizer: Any, vocabulary: int | None) -> tuple[Target, ...]:
    """The targets as tokens; none where each prompt's own are explained.

    Parameters
    ----------
    asked
        Texts, as `asked.target_settings` checked them.
    tokenizer
        A fast Hugging Face tokenizer.
    vocabulary
        How many tokens the model knows; None where that is not known.

    Raises
    ------
    InputError
        A text is not exactly one token, or one that stands for no text or that the model does not have; or two are the
        same token.
    """
    against = MEAN if asked.against is None else _one_token(asked.against, "against", tokenizer, vocabulary)
    targets: list[Target] = []
    for text in asked.texts:
        token = _one_token(text, "target", tokenizer, vocabulary)
        same = next((one.text for one in targets if one.token_id == token), None)
        if same is not None:
            raise InputError(f"{same!r} and {text!r} are the same token", where="targets", fix="Name one of them.")
        if token == against:
            what = f"{text!r} and {asked.against!r} are the same token"
            raise InputError(what, where="against", fix="Name another token.")
        targets.append(Target(text, token, asked.against, against))
    return tuple(targets)


def _one_token(text: str, what: str, tokenizer: Any, vocabulary: int | None) -> int:
    where = f"{what} {text!r}"
    ids = ids_of(text, tokenizer, where)
    if len(ids) > 1:
        pieces = literals(ids, tokenizer)
        told = ", ".join(repr(piece.decode("utf-8", "backslashreplace")) for piece in pieces)
        other = next((repr(one) for one in _spellings(text) if _is_one(one, tokenizer, vocabulary)), "")
        fix = f"Use {other}, which is one token." if other else _last_behind_others(pieces, what, tokenizer, vocabulary)
        raise InputError(f"is {len(ids)} tokens: {told}", where=where, fix=fix)
    if ids[0] in special_ids(tokenizer):
        raise InputError("is a special token, which stands for no text", where=where, fix="Name a word.")
    if vocabulary is not None and ids[0] >= vocabulary:
        raise InputError(
            f"is token {ids[0]}, and the model has only {vocabulary}",
            where=where,
            fix="Use the tokenizer that belongs to the model.",
        )
    return ids[0]


def _last_behind_others(pieces: Sequence[bytes], what: str, tokenizer: Any, vocabulary: int | None) -> str:
    """What to do about a text of several tokens: the first of them would be the target of many other texts, too."""
    first, last = (piece.decode("utf-8", "replace") for piece in (b"".join(pieces[:-1]), pieces[-1]))
    if what != "target" or "\ufffd" in first + last or not _is_one(last, tokenizer, vocabulary):
        return "Name a text of one token."
    return (
        f'Name the last, and put what comes before it behind the prompts: --answer-prefix "{first}" --targets "{last}".'
    )


def _spellings(text: str) -> Iterator[str]:
    """The same word with or without a space in front, and with another capital letter."""
    word = text.strip()
    for lead in ("" if text.startswith(" ") else " ", text[: len(text) - len(text.lstrip())]):
        for spelled in dict.fromkeys((word, word.lower(), word.capitalize(), word.upper())):
            if word and lead + spelled != text:
                yield lead + spelled


def _is_one(text: str, tokenizer: Any, vocabulary: int | None) -> bool:
    """Whether a text is a token that could be named."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    known = len(ids) == 1 and ids[0] != tokenizer.unk_token_id and ids[0] not in special_ids(tokenizer)
    return known and (vocabulary is None or ids[0] < vocabulary)
