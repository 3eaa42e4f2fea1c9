"""`suppression`: what promotes and what suppresses a target token, from what a trace holds; no model is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stratoscope import defaults, names
from stratoscope.errors import InputError, UsageError, refuse_unknown
from stratoscope.progress import Progress, silent
from stratoscope.trace.prompts import PromptChoice
from stratoscope.trace.targets import TargetChoice

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.trace.opened import Inputs

KIND = "suppression"


def suppression(
    trace: Inputs,
    *,
    target: TargetChoice = None,
    prompt: PromptChoice = None,
    prompt_class: str | Sequence[str] | None = None,
    groups: bool = defaults.AVERAGE_GROUPS,
    unequal: names.Unequal = defaults.UNEQUAL,
    alpha: float = defaults.ALPHA,
    permutations: int = defaults.PERMUTATIONS,
    seed: int = defaults.SEED,
    progress: Progress | None = None,
) -> xr.DataTree:
    """Say what promotes and what suppresses a target token: layers, neurons, heads, and what set them off.

    Two measures stand beside each other and are never one ranking. The *direct contribution* is what a write adds to
    the target's logit at the answer position, with the final norm frozen; all of them sum to that logit. The *total
    effect* is, to first order, what taking a part away would change, through everything behind it. Of one prompt all is
    told. Of several the prompt is the unit: means of each class; of two classes their differences, tested as `contrast`
    tests, those of direct contributions at one factor of the final norm, which has a row of its own. `save_result`
    writes the page.

    Parameters
    ----------
    trace
        A trace recorded with the groups "logits", "effects" or both.
    target
        The target, by its text or number, as 0; by default the first.
    prompt
        Prompts by id or index; by default all.
    prompt_class
        Only prompts of this class; of two, also their difference, the first − the second. Without it two classes that
        are all there are, are compared.
    groups
        Whether prompts of one `group` are one observation of a comparison.
    unequal
        Of classes of more than 2 : 1: "subsample" compares as many of either, "rank-sum" all of them by ranks.
    alpha
        Level of discoveries.
    permutations
        Random sign flips or exchanges of labels for family-wise p-values; all there are where they are few.
    seed
        Of subsamples and permutations.
    progress
        Is told what is being done.

    Returns
    -------
    xarray.DataTree
        A Result of kind "suppression", a node a table (docs/results.md lists all variables). `depth`: attention and
        MLP of each layer, of each prompt, direct and total. `sum`: the terms of the logit, their sum and its error.
        `neurons`: the ten strongest of either sign by total effect, what they write and what set them off;
        `direct_neurons`: by direct contribution. `heads`: the strongest heads and their sources. `means`: of classes.
        `direct_compared`, `total_compared`, `heads_compared`: two classes. `calibration`: how far effects agree with
        really ablating.

    Raises
    ------
    InputError
        The trace explains no target, or not this one, or there is no such prompt.

    Examples
    --------
    >>> import stratoscope
    >>> trace = stratoscope.simulate(prompts=4, layers=4, record="logits,effects", targets=["Sorry"])
    >>> result = stratoscope.suppression(trace, prompt="critical-1")
    >>> int(result["depth"]["mlp_total"].values.argmin())  # the layer of a neuron that the simulation planted
    3
    >>> strongest = result["neurons"].to_dataset().isel(listed=10)  # behind ten that promote
    >>> int(strongest["layer"]), float(strongest["total"])
    (3, -6.0)
    """
    from stratoscope.analysis.suppression import assemble, recorded
    from stratoscope.analysis.suppression.chosen import choose_prompts
    from stratoscope.analysis.suppression.explained import Explained, comparison
    from stratoscope.analysis.suppression.targets import RECORD, choose_target
    from stratoscope.analysis.values.finite import finite_trace
    from stratoscope.trace.opened import opened

    refuse_unknown(unequal, names.UNEQUAL, "way with unequal classes", "unequal")
    if not 1e-6 <= alpha <= 0.5:
        raise UsageError(f"{alpha} is out of range", where="alpha", fix="Give a number from 1e−6 to 0.5.")
    if permutations < 99:
        raise UsageError(f"{permutations} are too few", where="permutations", fix="Give 99 or more.")
    report = progress or silent
    seen = finite_trace(opened(trace))
    dataset = seen.dataset
    chosen = choose_target(dataset, target)
    prompts = choose_prompts(dataset, prompt, prompt_class, groups=groups)
    report("reading contributions and effects", 0, None)
    direct = recorded.direct(dataset, chosen.index, prompts.prompts)
    total = recorded.total(dataset, chosen.index, prompts.prompts)
    if direct is None and total is None:
        raise InputError("it holds neither contributions nor effects", where="trace", fix=RECORD)
    parts = Explained(dataset, chosen, prompts, direct, total)
    if prompts.units is not None:
        report("comparing classes", 0, None)
    compared = comparison(parts, unequal=unequal, alpha=alpha, permutations=permutations, seed=seed)
    asked = None if prompt is None else [str(one) for one in np.atleast_1d(np.asarray(prompt, object))]
    parameters = {
        "target": target,
        "prompt": asked,
        "prompt_class": None if prompt_class is None else list(np.atleast_1d(prompt_class)),
        "groups": groups,
        "unequal": unequal,
        "alpha": alpha,
        "permutations": permutations,
        "seed": seed,
    }
    return seen.with_note(assemble.result(parts, compared, parameters))
