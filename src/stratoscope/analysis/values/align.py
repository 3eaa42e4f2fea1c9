"""Which token of one prompt is which token of another: runs of equal tokens are paired, and gaps stay gaps.

Two prompts of different lengths compared place by place give noise (L11). Only equal tokens are compared; a token
before the first edit has seen the same tokens in both prompts, so that a causal model must treat it alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray as xr

GAP = -1


@dataclass(frozen=True)
class Alignment:
    """Two prompts side by side, column by column, in reading order.

    Attributes
    ----------
    a, b
        Place of the column's token in either prompt, `GAP` where that prompt has none; int64 [column].
    equal
        Whether both have the same token; bool [column]. A column with two different tokens stands for a replacement
        of equally many tokens.
    before
        How many columns stand before the first edit; all of them where the prompts are the same.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    equal: NDArray[np.bool_]
    before: int

    def __len__(self) -> int:
        return len(self.a)


def align(a: Sequence[Any] | NDArray[Any], b: Sequence[Any] | NDArray[Any]) -> Alignment:
    """Align two prompts on runs of equal tokens (Ratcliff and Obershelp, as Python's difflib has it).

    What both begin with is paired first: those tokens have seen the same tokens, and the first of them, the sink, must
    not be taken for a later one of the same text (of two chat templates one may begin with a system prompt).

    Parameters
    ----------
    a, b
        Token ids, or texts where ids are not known.
    """
    one, other = np.asarray(a).tolist(), np.asarray(b).tolist()
    shared = next((place for place, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), None)
    same = min(len(one), len(other)) if shared is None else shared
    columns = [(place, place) for place in range(same)]
    for kind, start, stop, first, last in SequenceMatcher(None, one[same:], other[same:], autojunk=False).get_opcodes():
        if kind == "equal" or stop - start == last - first:
            columns += zip(range(same + start, same + stop), range(same + first, same + last), strict=True)
        else:
            columns += [(place, GAP) for place in range(same + start, same + stop)]
            columns += [(GAP, place) for place in range(same + first, same + last)]
    places = np.array(columns, dtype=np.int64).reshape(-1, 2)
    equal = np.array([GAP not in pair and one[pair[0]] == other[pair[1]] for pair in columns], dtype=bool)
    edits = np.flatnonzero(~equal)
    return Alignment(places[:, 0], places[:, 1], equal, int(edits[0]) if len(edits) else len(equal))


def token_keys(dataset: xr.Dataset, tokens: NDArray[np.int64] | slice) -> NDArray[Any]:
    """What makes two tokens equal: their ids, or their texts where a tokenizer's ids are not known."""
    if "token_id" in dataset.variables:
        ids = np.asarray(dataset["token_id"].values)[tokens]
        if (ids >= 0).all() or "text" not in dataset.coords:
            return ids
    return np.asarray(dataset["text"].values)[tokens]
