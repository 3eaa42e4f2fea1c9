"""Which of a trace's targets is explained, and what tokens are called that stand in no prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.errors import InputError, choices
from stratoscope.names import TARGET, TOP
from stratoscope.trace.arrays import Ints
from stratoscope.words import listed, readable

if TYPE_CHECKING:
    import xarray as xr

MEAN = -1  # in the place of a token: the mean over the vocabulary
_TOKEN_TEXTS = "token_texts"  # attribute of a trace: texts of tokens that are in no prompt, by their ids
RECORD = 'Record it: `stratoscope capture MODEL --prompts FILE --record logits,effects --targets "Sorry" -o TRACE`.'


@dataclass(frozen=True)
class Chosen:
    """The target that is explained.

    Attributes
    ----------
    index
        Its place on the dimension `target`.
    tokens, against
        Its token in each prompt, and the one that it is compared with; `MEAN` = the mean over the vocabulary. [prompt]
    texts
        Texts of tokens by their ids.
    own
        Whether it is each prompt's own likeliest token against its second.
    """

    index: int
    tokens: Ints
    against: Ints
    texts: Mapping[int, str]
    own: bool

    def text(self, token: int) -> str:
        """The text of a token; of one that nothing names its id."""
        return self.texts.get(token, f"token {token}")

    def name(self, prompts: Ints) -> str:
        """What is explained of these prompts, as a title has it: “Sorry” against “Sure”, “Sorry”."""
        tokens, against = np.unique(self.tokens[prompts]), np.unique(self.against[prompts])
        if self.own and (len(tokens) > 1 or len(against) > 1):
            return "each prompt's likeliest token against its second"
        called = f"“{readable(self.text(int(tokens[0])))}”"
        return called if against[0] == MEAN else f"{called} against “{readable(self.text(int(against[0])))}”"


def choose_target(dataset: xr.Dataset, wanted: str | None) -> Chosen:
    """The target that a person names by its text, else the first.

    Raises
    ------
    InputError
        The trace explains no target, or none of that text.
    """
    if "target_token" not in dataset:
        raise InputError("it explains no target token", where="trace", fix=RECORD)
    tokens, against = (np.asarray(dataset[name].values, np.int64) for name in ("target_token", "against_token"))
    asked = (dataset.attrs.get("plan") or {}).get("targets")
    texts = token_texts(dataset)
    named = [str(one.get("text", "")) for one in asked if isinstance(one, Mapping)] if isinstance(asked, list) else []
    if len(named) != dataset.sizes[TARGET]:
        named = [texts.get(int(column[0]), "") if len(set(column.tolist())) == 1 else TOP for column in tokens.T]
    index = _place(named, wanted)
    for place, text in enumerate(named):
        texts.update({int(one): text for one in np.unique(tokens[:, place]) if text != TOP and int(one) not in texts})
    return Chosen(index, tokens[:, index], against[:, index], texts, own=asked == TOP or named[index] == TOP)


def _place(named: list[str], wanted: str | None) -> int:
    if wanted is None:
        return 0
    found = [place for place, text in enumerate(named) if text == wanted]
    found = found or [place for place, text in enumerate(named) if text.strip() == wanted.strip() and wanted.strip()]
    if len(found) == 1:
        return found[0]
    if found:
        spelled = listed((repr(named[place]) for place in found), len(found))
        raise InputError(f"{wanted!r} may be {spelled}", where="target", fix="Write its blanks, too.")
    raise InputError(f"no target {wanted!r}", where="target", fix=choices(wanted, named, there="This trace explains"))


def token_texts(dataset: xr.Dataset) -> dict[int, str]:
    """Texts of tokens by their ids: of those in the prompts, and of those that the trace names besides."""
    found: dict[int, str] = {}
    if "text" in dataset.variables:
        ids = np.asarray(dataset["token_id"].values)
        _, where = np.unique(ids, return_index=True)
        texts = np.asarray(dataset["text"].values, object)[where]
        found = {int(one): str(text) for one, text in zip(ids[where], texts, strict=True) if one >= 0}
    listed_there = dataset.attrs.get(_TOKEN_TEXTS)
    if isinstance(listed_there, Mapping):
        found |= {int(one): str(text) for one, text in listed_there.items() if str(one).lstrip("-").isdecimal()}
    return found
