"""All attacks that a published file can be put to without the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stratoscope.progress import Progress, silent
from stratoscope.publish.attacks import differencing, look_up, membership, permutation, weights
from stratoscope.publish.attacks.class_means import look_up_attack, membership_attacks
from stratoscope.publish.attacks.outcome import Attack, not_run

if TYPE_CHECKING:
    import xarray as xr

_ORIGINAL = "it needs the original, which says what is right"
_REFERENCE = "it needs other prompts recorded with the same model"


def attacks_on(
    published: xr.Dataset | xr.DataTree,
    *,
    original: xr.Dataset | None = None,
    reference: xr.Dataset | None = None,
    earlier: Sequence[xr.Dataset | xr.DataTree] = (),
    progress: Progress | None = None,
) -> list[Attack]:
    """Attack what was published.

    Parameters
    ----------
    published
        A trace, or a Result of class profiles, as it was written.
    original
        The trace that it was made of. It says what is right, and its prompts are the candidates.
    reference
        The attacker's: other prompts recorded with the same model, none of the original's among them.
    earlier
        What was published before of prompts that may overlap.
    progress
        Is told what is being done.

    Returns
    -------
    list of Attack
        One for each, those that could not run with the reason.

    Examples
    --------
    >>> import stratoscope
    >>> from stratoscope.publish.attacks.attacks import attacks_on
    >>> original = stratoscope.simulate(prompts=24, layers=3)
    >>> other = stratoscope.simulate(prompts=24, layers=3, seed=1)
    >>> found = attacks_on(original.drop_vars(["text", "token_id"]), original=original, reference=other)
    >>> [one.recovered.value for one in found if one.name == "membership from rows of prompts"]
    [1.0]
    """
    import xarray as xr

    report, found = progress or silent, []
    report("looking tokens up in other prompts", 0, None)
    if original is None or reference is None:
        found.append(not_run("look-up", look_up.HOLDS, look_up.UNIT, _lacking(original)))
    elif not all(_ids_known(one) for one in (original, reference)):
        found.append(not_run("look-up", look_up.HOLDS, look_up.UNIT, "the ids of the tokens are not known"))
    elif isinstance(published, xr.DataTree):
        found.append(look_up_attack(published, original, reference))
    else:
        found += look_up.look_up(published, original, reference)
    report("telling members from others", 0, None)
    if original is None or reference is None:
        found.append(not_run("membership", membership.HOLDS, membership.UNIT, _lacking(original)))
    else:
        found += membership_attacks(published, original, reference)
    report("comparing with earlier publications", 0, None)
    among = [one for one in (original, reference) if one is not None]
    if not earlier or not among:
        reason = _ORIGINAL if earlier else "no earlier publication is given"
        found.append(not_run(differencing.NAME, differencing.HOLDS, differencing.UNIT, reason))
    else:
        found.append(differencing.differencing(published, earlier, among))
    report("matching neurons", 0, None)
    if reference is None:
        found.append(not_run(permutation.NAME, permutation.HOLDS, permutation.UNIT, _REFERENCE))
    else:
        found.append(permutation.permutation_attack(published, reference))
    report("solving for weights", 0, None)
    if isinstance(published, xr.DataTree):
        reason = "the file holds no row of a single token"
        found.append(not_run("columns of W", weights.HOLDS, weights.UNIT, reason))
    else:
        found += weights.weight_attacks(published)
    return found


def _ids_known(dataset: xr.Dataset) -> bool:
    """Whether the tokens of a trace are told by a tokenizer's ids, as those of an import are not."""
    return "token_id" in dataset.variables and bool((dataset["token_id"].values >= 0).all())


def _lacking(original: xr.Dataset | None) -> str:
    return _ORIGINAL if original is None else _REFERENCE
