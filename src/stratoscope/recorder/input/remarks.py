"""What the model reads that the user did not write, and the reverse: remarks on prompts become notes of the trace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stratoscope.words import listed

WARNING, INFO = "warning", "info"

_IDS = 5  # prompts that a note names
_LONGEST = 60  # characters of an example


@dataclass(frozen=True)
class Remark:
    """One way in which the tokens of a prompt are not what was written.

    Attributes
    ----------
    severity
        "warning" where what the user wrote is missing, altered, or read as something else; "info" where something is
        added, or only blanks differ.
    what
        The rest of a sentence that begins with "In 3 of 12 prompts".
    examples
        Which characters or words; the words of a user are never among them.
    id
        Line of the list of pitfalls.
    """

    severity: str
    what: str
    examples: tuple[str, ...] = ()
    id: str = "L26"


def notes(remarks: Sequence[Iterable[Remark]], ids: Sequence[str]) -> list[dict[str, str]]:
    """Notes of a trace, warnings first, from the remarks on each of its prompts, whose ids are `ids`."""
    prompts: dict[tuple[str, str, str], dict[str, None]] = {}
    examples: dict[tuple[str, str, str], dict[str, None]] = {}
    for prompt, found in zip(ids, remarks, strict=True):
        for remark in found:
            key = (remark.id, remark.severity, remark.what)
            prompts.setdefault(key, {})[prompt] = None
            examples.setdefault(key, {}).update(dict.fromkeys(remark.examples))
    ordered = sorted(prompts, key=lambda key: (key[1] != WARNING, key[0]))
    return [
        {"id": key[0], "severity": key[1]}
        | {"text": f"{_which(list(prompts[key]), len(ids))} {key[2]}{_examples(examples[key])}."}
        for key in ordered
    ]


def _which(some: list[str], all_: int) -> str:
    if len(some) == all_:
        return f"In each of the {all_:,} prompts" if all_ > 1 else "In the prompt"
    more = ", …" if len(some) > _IDS else ""
    return f"In {len(some):,} of {all_:,} prompts ({', '.join(some[:_IDS])}{more})"


def _examples(some: Iterable[str]) -> str:
    return f": {words}" if (words := listed(some)) else ""


def quoted(text: str) -> str:
    """A text as an example, shortened in the middle between two words, with control characters escaped."""
    half = _LONGEST // 2
    if len(text) <= _LONGEST:
        return repr(text)
    head, tail = text[:half].rpartition(" ")[0] or text[:half], text[-half:].partition(" ")[2] or text[-half:]
    return repr(f"{head} … {tail}")
