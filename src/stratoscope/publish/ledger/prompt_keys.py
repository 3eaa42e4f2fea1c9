"""What makes a prompt the same one in another file: its token ids, the words of its user, or all its text."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from stratoscope.errors import InputError
from stratoscope.words import plain_text

if TYPE_CHECKING:
    import xarray as xr

Contents: TypeAlias = frozenset[bytes]  # of a prompt: whatever it has in common with a copy of it
Keys: TypeAlias = frozenset[str]
_KEY_BYTES = 16  # that are kept of a digest: two prompts of a thousand million share one with chance 1e-20


def prompt_contents(dataset: xr.Dataset) -> list[Contents]:
    """What tells each prompt of a trace from others, whatever file it is in and whatever model read it.

    Another model has other token ids, a CSV file none, and a chat template surrounds the same words with others, so
    that two prompts count as one where any of the three is equal. Generated tokens do not count: the same prompt may
    be answered otherwise.

    Parameters
    ----------
    dataset
        A trace with the ids or the texts of its tokens.

    Raises
    ------
    InputError
        A prompt has neither.

    Examples
    --------
    >>> import stratoscope
    >>> contents = prompt_contents(stratoscope.simulate(prompts=4, layers=2))
    >>> len(contents), len(contents[0] & contents[1])
    (4, 0)
    """
    from stratoscope.trace.prompts import Prompts

    prompts = Prompts(dataset)
    asked = ~prompts.in_spans(["generated"])
    user = prompts.in_spans(["user"])
    ids = np.asarray(dataset["token_id"].values, "<i8") if "token_id" in dataset.variables else None
    spelling = str(dataset.attrs.get("token_spelling", "text"))
    texts = [plain_text(str(text), spelling) for text in dataset["text"].values] if "text" in dataset.variables else []
    found = []
    for number, label in enumerate(prompts.labels):
        own = np.arange(prompts.starts[number], prompts.stops[number])
        own = own[asked[own]]
        contents = set[bytes]()
        if ids is not None and len(own) and (ids[own] >= 0).all():
            contents.add(b"ids" + ids[own].tobytes())
        for tokens in (own[user[own]], own) if texts else ():
            text = "".join(texts[token] for token in tokens).strip()
            contents |= {b"text" + text.encode("utf-8", "surrogatepass")} if text else set()
        if not contents:
            fix = "Publish from the record that holds them."
            raise InputError("neither the ids nor the texts of its tokens are known", where=label, fix=fix)
        found.append(frozenset(contents))
    return found


def keyed(contents: Sequence[Contents], key: bytes) -> list[Keys]:
    """The same as digests (HMAC-SHA256), which say nothing to whoever does not have the key."""
    return [frozenset(hmac.digest(key, one, "sha256")[:_KEY_BYTES].hex() for one in own) for own in contents]
