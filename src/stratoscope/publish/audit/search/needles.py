"""What an original holds that a published file must not: each text or number as it is searched for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope import names
from stratoscope.names import Level
from stratoscope.publish.audit.search.own_words import OwnWords
from stratoscope.publish.audit.search.texts import WORD, letters
from stratoscope.trace.format.attributes import object_in

if TYPE_CHECKING:
    import xarray as xr

WORDS, RUNS, IDS = "rare words of the prompts", "runs of their tokens", "token ids"
PROMPTS, PAIRS, TEMPLATE = "ids of prompts", "pairs and groups", "the chat template"
VALUES = "numbers of single tokens and prompts"
LINKS, PLACES = "what links it to the original", "paths of the original"
MACHINE = "this computer and its user"
GONE_AT: Mapping[str, Level] = {  # the first level that has none of them
    WORDS: names.NO_TEXT,
    RUNS: names.NO_TEXT,
    IDS: names.NO_TEXT,
    PROMPTS: names.NO_TEXT,
    PAIRS: names.NO_TEXT,
    TEMPLATE: names.NO_TEXT,
    VALUES: names.AGGREGATE,
}  # all other things are gone at every level

_RARE = 6  # letters of a word by itself
_SHORT = 4  # characters of an id, a name or a path …
_RUN, _RUN_LETTERS, _LONGEST_RUN = 3, 16, 10  # tokens of a run, its letters (bytes), and the most tokens for these
_EXACT = 12  # bytes that are searched for as they are
_ID_RUN = 6  # token ids in a row
_SAMPLED, _VALUES_IN_A_ROW = 500, 4  # rows of a quantity, and numbers of each
_IN_A_ROW = 3  # ids end to end
_TEMPLATE_LINE = 24  # characters of a piece of a template
_ID_TYPES = ("<i4", "<i8", "<u2", ">i4")
_WIDE = ("utf-16-le", "utf-16-be")


@dataclass
class Needles:
    """What is searched for.

    Attributes
    ----------
    words
        Texts that stand between characters that are no letters or digits → their kinds.
    runs
        Letters in a row, whatever stands between them → their kinds and what they are letters of.
    exact
        Bytes → their kinds and what they stand for.
    too_short
        How many of each kind are too short, or too usual, to tell anything.
    """

    words: dict[bytes, str] = field(default_factory=dict)
    runs: dict[bytes, tuple[str, str]] = field(default_factory=dict)
    exact: dict[bytes, tuple[str, str]] = field(default_factory=dict)
    too_short: Counter[str] = field(default_factory=Counter)
    sought: Counter[str] = field(default_factory=Counter)

    def word(self, kind: str, text: str, own: OwnWords, least: int = _SHORT) -> None:
        """Search for a text by itself, and in two bytes a letter."""
        encoded = text.encode("utf-8", "surrogateescape")
        if encoded in self.words:
            return
        if len(text) < least or not WORD.search(encoded) or text.isdecimal() or encoded in own:
            self.too_short[kind] += 1
            return
        self.words[encoded] = kind
        self.sought[kind] += 1
        for codec in _WIDE:
            self.exactly(kind, text.encode(codec, "replace"), text)

    def exactly(self, kind: str, string: bytes, shown: str) -> None:
        """Search for bytes as they are."""
        if len(string) >= _EXACT:
            self.exact.setdefault(string, (kind, shown))


def of_original(dataset: xr.Dataset, own: OwnWords) -> Needles:
    """What a trace holds that tells who, where, when, or what was said.

    Parameters
    ----------
    dataset
        The original.
    own
        What stands in files of Stratoscope whatever was recorded: it tells nothing.
    """
    found = Needles()
    _add_prompts(found, dataset, own)
    _add_tokens(found, dataset, own)
    _add_values(found, dataset)
    _add_attributes(found, dataset.attrs, own)
    return found


def _add_prompts(found: Needles, dataset: xr.Dataset, own: OwnWords) -> None:
    for name, kind in (("prompt_id", PROMPTS), ("pair", PAIRS), ("group", PAIRS)):
        texts = [str(text) for text in dataset[name].values] if name in dataset.variables else []
        for text in filter(None, dict.fromkeys(texts)):
            found.word(kind, text, own)
        for start in range(len(texts) - _IN_A_ROW + 1):  # as a column of texts is stored
            row = "".join(texts[start : start + _IN_A_ROW])
            found.exactly(kind, row.encode("utf-8", "surrogateescape"), row)


def _add_tokens(found: Needles, dataset: xr.Dataset, own: OwnWords) -> None:
    texts = [str(text) for text in dataset["text"].values]
    of_prompt, spans = dataset["prompt"].values, dataset["span"].values
    same = {names.SPANS.index(one) for one in names.TEMPLATE_SPANS}
    own_text = [span not in same for span in spans.tolist()]
    for text in dict.fromkeys(text.strip() for text, wanted in zip(texts, own_text, strict=True) if wanted):
        if text:
            found.word(WORDS, text, own, _RARE)
    runs: dict[bytes, str] = {}
    for first, last in _stretches(of_prompt, own_text):
        for shown in _runs(texts[first:last]):
            runs.setdefault(letters(shown.encode("utf-8", "surrogateescape")), shown)
        _add_ids(found, dataset["token_id"].values[first:last])
    told = own.without({run: shown for run, shown in runs.items() if len(run) >= _RUN_LETTERS})
    found.runs |= {run: (RUNS, shown) for run, shown in told.items()}
    found.sought[RUNS] += len(told)
    found.too_short[RUNS] += len(runs) - len(told)
    for shown in told.values():
        for codec in ("utf-8", *_WIDE) if not shown.isascii() else ():
            found.exactly(RUNS, shown.encode(codec, "replace"), shown)


def _stretches(of_prompt: np.ndarray, wanted: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Where tokens of one prompt that are no template follow each other."""
    start = 0
    for end in range(1, len(wanted) + 1):
        if end == len(wanted) or of_prompt[end] != of_prompt[start] or wanted[end] != wanted[start]:
            if wanted[start]:
                yield start, end
            start = end


def _runs(texts: Sequence[str]) -> Iterator[str]:
    """From each token on, the shortest run of at least three that has enough letters."""
    sizes = [len(letters(text.encode("utf-8", "surrogateescape"))) for text in texts]
    for start in range(len(texts) - _RUN + 1):
        for end in range(start + _RUN, min(start + _LONGEST_RUN, len(texts)) + 1):
            if sum(sizes[start:end]) >= _RUN_LETTERS or end in (len(texts), start + _LONGEST_RUN):
                yield "".join(texts[start:end])
                break


def _add_ids(found: Needles, ids: np.ndarray) -> None:
    for start in range(len(ids) - _ID_RUN + 1):
        run = ids[start : start + _ID_RUN]
        steps = {*np.diff(run).tolist()}
        if len(steps) < _ID_RUN - 2 or run.min() < 0 or run.max() >= 2**16:  # as places and ranks are
            found.too_short[IDS] += 1
            continue
        found.sought[IDS] += 1
        shown = " ".join(map(str, run.tolist()))
        for dtype in _ID_TYPES:
            found.exact.setdefault(run.astype(dtype).tobytes(), (IDS, shown))


def _add_values(found: Needles, dataset: xr.Dataset) -> None:
    """The first numbers of some rows of each quantity: rows that are left anywhere are left together."""
    for name in map(str, dataset.data_vars):
        variable, quantity = dataset[name], names.QUANTITIES.get(name)
        if quantity is None or names.is_streamed(name) or variable.dtype != np.float32 or variable.ndim < 2:
            continue
        rows, *others = map(str, variable.dims)
        if rows not in (names.TOKEN, names.PROMPT):
            continue
        step = max(1, dataset.sizes[rows] // _SAMPLED)
        first = [*[0] * (len(others) - 1), slice(0, _VALUES_IN_A_ROW)]
        some = variable[(slice(None, None, step), *first)].values
        for place, row in zip(range(0, dataset.sizes[rows], step), some, strict=True):
            if len({*row.tolist()}) < _VALUES_IN_A_ROW or not np.isfinite(row).all():
                found.too_short[VALUES] += 1
                continue
            found.sought[VALUES] += 1
            for dtype in ("<f4", "<f8"):
                found.exactly(VALUES, row.astype(dtype).tobytes(), f"{name} of {rows} {place:,}")


def _add_attributes(found: Needles, attrs: Mapping[Any, Any], own: OwnWords) -> None:
    plan, model, tokenizer = (object_in(attrs.get(name)) for name in ("plan", "model", "tokenizer"))
    of_prompts = plan.get("prompts_sha256")  # without it the other is of settings alone, which are published
    links = [attrs.get("uuid"), attrs.get("digest"), of_prompts, attrs.get("recording_sha256") if of_prompts else ""]
    for link in links:
        _add_link(found, str(link or ""), own)
    for value in strings([plan, model, tokenizer, attrs.get("receipt")]):
        if re.match(r"(?:[A-Za-z]:)?[/\\~]\S", value) and len(value) < 4096:
            found.word(PLACES, value, own)
    for line in str(tokenizer.get("chat_template") or "").splitlines():
        for start in range(0, len(line) - _TEMPLATE_LINE + 1, _TEMPLATE_LINE):
            found.exact.setdefault(line[start : start + _TEMPLATE_LINE].encode(), (TEMPLATE, line[start:][:60]))
            found.sought[TEMPLATE] += 1


def _add_link(found: Needles, text: str, own: OwnWords) -> None:
    """An identifier or a fingerprint: as text, and as the bytes that it stands for."""
    if text:
        found.word(LINKS, text, own)
        plain = text.replace("-", "")
        if re.fullmatch(r"(?:[0-9a-fA-F]{2}){8,}", plain):
            found.exactly(LINKS, bytes.fromhex(plain), text)
            found.exactly(LINKS, plain.encode(), text)


def strings(value: Any) -> Iterator[str]:
    """Every text in objects and lists."""
    match value:
        case str():
            yield value
        case Mapping():
            yield from (text for one in value.values() for text in strings(one))
        case list() | tuple():
            yield from (text for one in value for text in strings(one))
