"""Where a neuron is among the peaks besides: in how many prompts, and at which tokens it is strongest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stratoscope.analysis.top.peaks import NEURON, peaks_in
from stratoscope.trace.arrays import Bools
from stratoscope.trace.numbers import choose_layers

if TYPE_CHECKING:
    import pandas as pd

    from stratoscope.trace.prompts import Prompts

SHOWN = 3  # other tokens of each neuron
_READ = 4 * SHOWN  # of which many may read the same


def found_again(prompts: Prompts, neurons: pd.DataFrame, counted: Bools, by: str) -> pd.DataFrame:
    """Where some neurons are among the peaks of the whole trace.

    Parameters
    ----------
    neurons
        Their layer, expert and neuron, each once.
    counted
        Whether a token takes part; [token].
    by
        As of `strength_of`.

    Returns
    -------
    pandas.DataFrame
        `which` (row of `neurons`), `prompt`, `token`, `value` and `strength`: of each neuron and prompt the strongest
        tokens, strongest first, one more than are shown.
    """
    import pandas as pd

    wanted = neurons[NEURON].reset_index(drop=True).rename_axis("which").reset_index()
    layers = choose_layers(prompts.dataset["layer"].values, sorted(set(wanted["layer"].tolist())))
    among = np.unique(wanted["neuron"].to_numpy(np.int64))
    found: list[pd.DataFrame] = []
    for block in peaks_in(prompts, 0, len(prompts), layers, among, by=by):
        matches = block[counted[block["token"].to_numpy()]].merge(wanted, on=NEURON)
        matches["prompt"] = prompts.of_token[matches["token"].to_numpy()]
        found = [_strongest(pd.concat([*found, matches[["which", "prompt", "token", "value", "strength"]]]))]
    return found[0]


def _strongest(matches: pd.DataFrame) -> pd.DataFrame:
    """The strongest few tokens of each neuron in each prompt; whatever order they came in."""
    ranked = matches.sort_values(["strength", "token"], ascending=[False, True], kind="stable")
    each = ranked.drop_duplicates(["which", "token"])  # a CSV may name a neuron twice at a token
    return each.groupby(["which", "prompt"], sort=False).head(SHOWN + 1)


def other_tokens(prompts: Prompts, found: pd.DataFrame, which: int, token: int) -> pd.DataFrame:
    """The strongest tokens of a neuron besides one: first the strongest of each prompt, then the next of each.

    Twins say nearly the same, and count as one prompt.
    """
    others = found[(found["which"] == which) & (found["token"] != token)]
    alike = [prompts.pairs[one] or one for one in others["prompt"].tolist()]
    place = others.groupby(np.array(alike, object), sort=False).cumcount()
    return others.assign(place=place).sort_values("place", kind="stable").head(_READ)
