"""Which of a trace's targets is explained, and what tokens are called that stand in no prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.errors import InputError
from stratoscope.trace.arrays import Ints
from stratoscope.trace.notes import recorded_anew
from stratoscope.trace.targets import TOKEN_TEXTS, TargetChoice, Targets

if TYPE_CHECKING:
    import xarray as xr

RECORD = 'Record it: `stratoscope capture MODEL --prompts FILE --record logits,effects --targets "Sorry" -o TRACE`.'


@dataclass(frozen=True)
class Chosen:
    """The target that is explained.

    Attributes
    ----------
    index
        Its place on the dimension `target`.
    of
        All targets of the trace.
    tokens, against
        Its token in each prompt, and the one that it is compared with; −1 = the mean over the vocabulary. [prompt]
    texts
        Texts of tokens by their ids.
    """

    index: int
    of: Targets
    tokens: Ints
    against: Ints
    texts: Mapping[int, str]

    def text(self, token: int) -> str:
        """The text of a token; of one that nothing names its id."""
        return self.texts.get(token, f"token {token}")

    def name(self, prompts: Ints) -> str:
        """What is explained of these prompts, as a title has it: “Sorry” against “Sure”, “Sorry”."""
        return self.of.label_of(prompts.tolist(), self.index)


def choose_target(dataset: xr.Dataset, wanted: TargetChoice) -> Chosen:
    """The target that a person names by its text or number, else the first.

    Raises
    ------
    InputError
        The trace explains no target, or none of that text.
    """
    if "target_token" not in dataset:
        fix = recorded_anew(dataset.attrs, RECORD)
        raise InputError("it explains no target token", where="trace", fix=fix)
    targets, texts = Targets(dataset), token_texts(dataset)
    index = 0 if wanted is None else targets.find(wanted)
    tokens, against = (np.asarray(dataset[name].values, np.int64) for name in ("target_token", "against_token"))
    if not targets.own:  # the plan names them
        for place, pair in enumerate(zip(targets.texts, targets.against, strict=True)):
            for text, ids in zip(pair, (tokens, against), strict=True):
                texts |= {int(one): text for one in np.unique(ids[:, place]) if one >= 0 and text}
    return Chosen(index, targets, tokens[:, index], against[:, index], texts)


def token_texts(dataset: xr.Dataset) -> dict[int, str]:
    """Texts of tokens by their ids: of those in the prompts, and of those that the trace names besides."""
    found: dict[int, str] = {}
    if "text" in dataset.variables:
        ids = np.asarray(dataset["token_id"].values)
        _, where = np.unique(ids, return_index=True)
        texts = np.asarray(dataset["text"].values, object)[where]
        found = {int(one): str(text) for one, text in zip(ids[where], texts, strict=True) if one >= 0}
    named = dataset.attrs.get(TOKEN_TEXTS)
    if isinstance(named, Mapping):
        found |= {int(one): str(text) for one, text in named.items() if str(one).isascii() and str(one).isdecimal()}
    return found
