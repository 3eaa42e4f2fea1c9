"""Which token was it? Looked up by its row in other prompts recorded with the same model; the model itself is not run.

Peak neurons are compared as sets, rare neurons counting more; numbers as a linear discriminant does: in units of how
much they vary between two occurrences of one token (Fisher 1936). The nearest rows vote.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from stratoscope import defaults, names
from stratoscope.analysis.classes.units import counted_tokens
from stratoscope.publish.attacks.outcome import Attack, guessed, not_run
from stratoscope.trace.arrays import Floats, Ints
from stratoscope.trace.prompts import GONE, Prompts

if TYPE_CHECKING:
    import xarray as xr
    from scipy.sparse import csr_matrix

_Number = TypeVar("_Number", np.float64, np.int64)
HOLDS, UNIT = "other prompts recorded with the same model", "tokens"
_MOST_TOKENS, _MOST_ROWS = 2000, 12_000  # tokens attacked, whole prompts; and rows that they are looked up in
_VOTERS = 32  # nearest rows, each counting exp(similarity)
_TOGETHER = 512  # tokens compared at a time
_RIDGE = 1e-4  # of the mean variance, so that directions that never vary within a token do not divide by zero
_MOST_COLUMNS = 1000  # numbers of a token that are compared: those that tell tokens apart best
_REHEARSED = 500  # tokens of the attacker's own prompts on which layers are chosen


# --- on arrays --------------------------------------------------------------------------------------------------------


def guess_by_sets(published: Ints, reference: Ints, ids: Ints) -> Ints:
    """The token that each row is most likely of, by which neurons are among its peaks.

    Parameters
    ----------
    published, reference
        Neurons of each token, numbered through all layers; −1 = none; [token, peak].
    ids
        Tokens of the reference rows; [row].

    Examples
    --------
    >>> import numpy as np
    >>> guess_by_sets(np.array([[7, 9]]), np.array([[1, 2], [9, 7], [3, 4]]), np.array([10, 11, 12]))
    array([11])
    """
    width = int(max(published.max(initial=0), reference.max(initial=0))) + 1
    rows = _indicators(reference, width)
    often = np.asarray(rows.sum(axis=0)).ravel()
    rarity = np.log((len(ids) + 1) / (often + 1)).astype(np.float32)
    weighted = rows.multiply(rarity).tocsr().T.tocsc()
    found = [_vote((_indicators(some, width) @ weighted).toarray(), ids) for some in _parts(published)]
    return np.concatenate(found) if found else np.empty(0, np.int64)


def guess_by_numbers(published: Floats, reference: Floats, ids: Ints) -> Ints:
    """The token that each row is most likely of, by its numbers.

    Parameters
    ----------
    published, reference
        Numbers of each token, NaN where one is not known; [token, number].
    ids
        Tokens of the reference rows; [row].

    Examples
    --------
    >>> import numpy as np
    >>> reference = np.array([[0.0, 5.0], [0.1, -5.0], [9.0, 5.0], [9.1, -5.0]])
    >>> guess_by_numbers(np.array([[8.9, -4.0]]), reference, np.array([10, 10, 11, 11]))
    array([11])
    """
    known = np.isfinite(published).any(axis=0) & np.isfinite(reference).any(axis=0)
    if not known.any():
        return np.full(len(published), _commonest(ids), np.int64)
    published, reference = published[:, known], reference[:, known]
    mean, spread = np.nanmean(reference, axis=0), np.nanstd(reference, axis=0)
    own, other = (np.nan_to_num((rows - mean) / np.where(spread > 0, spread, 1.0)) for rows in (published, reference))
    _, token, count = np.unique(ids, return_inverse=True, return_counts=True)
    centres = np.zeros((len(count), own.shape[1]))
    np.add.at(centres, token, other)
    within = (other - (centres / count[:, None])[token])[count[token] > 1]
    if not len(within):
        within = other
    if own.shape[1] > _MOST_COLUMNS:
        columns = np.sort(np.argsort(np.square(within).mean(axis=0))[:_MOST_COLUMNS])
        own, other, within = own[:, columns], other[:, columns], within[:, columns]
    covariance = within.T @ within / len(within)
    covariance += (_RIDGE * np.trace(covariance) / len(covariance) + 1e-12) * np.eye(len(covariance))
    size, axes = np.linalg.eigh(covariance)
    whitened = axes / np.sqrt(size)
    rows = other @ whitened
    lengths = np.einsum("rv,rv->r", rows, rows) / 2
    return np.concatenate([_vote(some @ whitened @ rows.T - lengths, ids) for some in _parts(own)])


def blind_guesses(reference: xr.Dataset, original: xr.Dataset, tokens: Ints) -> dict[str, Ints]:
    """Guesses of these tokens of the original by who sees only how long its prompts are, by what they are called."""
    own, ids, _ = _counted(reference)
    theirs, mine = Prompts(original), Prompts(reference)
    return {
        "the commonest token": np.full(len(tokens), _commonest(ids)),
        "the commonest token at that place": _commonest_at(mine.place[own], ids, theirs.place[tokens]),
        "the commonest token so far from the end": _commonest_at(_to_end(mine)[own], ids, _to_end(theirs)[tokens]),
    }


# --- on what was published --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Target:
    """Tokens that are attacked: their places in the original, in what was published (−1 = not there), true ids."""

    original: xr.Dataset
    tokens: Ints
    published: Ints
    ids: Ints

    def attack(self, name: str, guesses: Ints, reference: xr.Dataset) -> Attack:
        """The outcome of guesses of these tokens, of those that are among the reference at all."""
        _, known, _ = _counted(reference)
        seen = np.isin(self.ids, known)
        hits = guesses == self.ids
        blind = blind_guesses(reference, self.original, self.tokens)
        prompts = Prompts(self.original).of_token[self.tokens]
        note = f"Tokens that occur in the other prompts; of all {len(hits)} it finds {hits.mean():.1%}."
        return guessed(
            name, HOLDS, UNIT, hits[seen], {one: (of == self.ids)[seen] for one, of in blind.items()}, prompts[seen],
            note=note,
        )  # fmt: skip


def look_up(published: xr.Dataset, original: xr.Dataset, reference: xr.Dataset) -> list[Attack]:
    """Attack the rows of tokens that a published trace, or a look-alike, holds.

    Parameters
    ----------
    published
        What was published. Its tokens are those of the original by prompt and place.
    original
        The trace that it was made of, which holds the truth.
    reference
        The attacker's: other prompts recorded with the same model.

    Returns
    -------
    list of Attack
        One for peak neurons, one for what layers say, one for what heads say.
    """
    target = _target(published, original)
    return [
        _peaks_attack(target, published, reference),
        _numbers_attack("look-up of layers", (), target, published, reference),
        _numbers_attack("look-up of heads", (names.HEAD,), target, published, reference),
    ]


def look_up_profiles(
    profiles: dict[str, Floats], candidates: Floats, original: xr.Dataset, reference: xr.Dataset
) -> Attack:
    """The best guess of tokens from class profiles: the commonest tokens of the reference prompts nearest to them.

    Parameters
    ----------
    profiles
        Class to its published profile; [value].
    candidates
        Profiles of the reference prompts; [prompt, value].
    original, reference
        As of `look_up`.
    """
    target = _target(original, original)
    guesses = np.empty(len(target.tokens), np.int64)
    of, rows = Prompts(original), Prompts(reference)
    classes = np.array(of.classes, object)[of.of_token[target.tokens]]
    own, ids, _ = _counted(reference)
    spread = np.nanstd(candidates, axis=0)
    for name in np.unique(classes):
        here = classes == name
        if (profile := profiles.get(str(name))) is None:
            profile = np.nanmean(candidates, axis=0)
        apart = np.nanmean(np.square((candidates - profile) / np.where(spread > 0, spread, 1.0)), axis=1)
        nearest = np.argsort(apart)[: max(1, len(apart) // 4)]
        some = np.isin(rows.of_token[own], nearest)
        places = _to_end(of)[target.tokens[here]]
        guesses[here] = _commonest_at(_to_end(rows)[own][some], ids[some], places)
    return target.attack("look-up of class profiles", guesses, reference)


def _peaks_attack(target: _Target, published: xr.Dataset, reference: xr.Dataset) -> Attack:
    name = "look-up of peak neurons"
    if "peak_neuron" not in published or "peak_neuron" not in reference:
        return not_run(name, HOLDS, UNIT, "no peak neurons of tokens are published, or none are in the other prompts")
    own, ids, prompt = _counted(reference)
    theirs, mine = _sets((published, target.published), (reference, own))
    layers = min(theirs.shape[1], mine.shape[1])
    half = prompt % 2 == 0
    some = np.flatnonzero(half)[:_REHEARSED]

    def rehearsed(first: int) -> float:
        flat = mine[:, :first].reshape(len(mine), -1)
        return float((guess_by_sets(flat[some], flat[~half], ids[~half]) == ids[some]).mean())

    first = max(sorted({1, min(3, layers), layers}), key=rehearsed)
    guesses = guess_by_sets(theirs[:, :first].reshape(len(theirs), -1), mine[:, :first].reshape(len(mine), -1), ids)
    return target.attack(name, np.where(target.published >= 0, guesses, _commonest(ids)), reference)


def _numbers_attack(
    name: str, more: tuple[str, ...], target: _Target, published: xr.Dataset, reference: xr.Dataset
) -> Attack:
    there = [one for one in _quantities(more) if one in published and one in reference]
    alike = [one for one in there if published[one].shape[1:] == reference[one].shape[1:]]
    if not alike:
        return not_run(name, HOLDS, UNIT, "no such numbers of tokens are published, or none are in the other prompts")
    own, ids, _ = _counted(reference)
    guesses = guess_by_numbers(_numbers(published, alike, target.published), _numbers(reference, alike, own), ids)
    return target.attack(name, np.where(target.published >= 0, guesses, _commonest(ids)), reference)


def _target(published: xr.Dataset, original: xr.Dataset) -> _Target:
    """A sample of the user's tokens, of whole prompts, and where they are in what was published."""
    of = Prompts(original)
    counted = counted_tokens(original, defaults.SPAN)
    order = np.random.default_rng(defaults.SEED).permutation(len(of))
    sizes = np.bincount(of.of_token[counted], minlength=len(of))[order]
    chosen = order[: max(1, int(np.searchsorted(np.cumsum(sizes), _MOST_TOKENS)))]
    tokens = np.flatnonzero(counted & np.isin(of.of_token, chosen))
    there = places_in(published, original, tokens)
    return _Target(original, tokens, there, np.asarray(original["token_id"].values, np.int64)[tokens])


def places_in(published: xr.Dataset, original: xr.Dataset, tokens: Ints) -> Ints:
    """Where tokens of the original are in what was published, by prompt and place in it; −1 = they are not."""
    of, other = Prompts(original), Prompts(published)
    prompt, place = of.of_token[tokens], of.place[tokens]
    inside = prompt < len(other)
    there = np.full(len(tokens), GONE, np.int64)
    lengths = other.lengths[prompt[inside]]
    there[inside] = np.where(place[inside] < lengths, other.starts[prompt[inside]] + place[inside], GONE)
    return there


def _counted(reference: xr.Dataset) -> tuple[Ints, Ints, Ints]:
    """Places, ids and prompts of the reference's user tokens."""
    tokens = np.flatnonzero(counted_tokens(reference, defaults.SPAN))[:_MOST_ROWS]
    ids = np.asarray(reference["token_id"].values, np.int64)[tokens]
    return tokens, ids, Prompts(reference).of_token[tokens].astype(np.int64)


def _quantities(more: tuple[str, ...]) -> Iterator[str]:
    """Names of the numbers that each token has in each layer or depth, with these further dimensions."""
    for name, row in names.QUANTITIES.items():
        shape = [(names.TOKEN, rows, *more) for rows in (names.LAYER, names.DEPTH)]
        if row.dims in shape and row.dtype == "float32" and row.group in names.SUMMARIES:
            yield name


def _numbers(dataset: xr.Dataset, quantities: list[str], tokens: Ints) -> Floats:
    columns = []
    for name in quantities:
        values = np.asarray(dataset[name].values, np.float64).reshape(dataset.sizes[names.TOKEN], -1)[tokens]
        columns.append(log2(values) if names.QUANTITIES[name].log else values)
    return np.concatenate(columns, axis=1)


def log2(values: np.ndarray) -> Floats:
    """Logarithms of sizes to base 2; NaN of what has none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(values > 0, np.log2(np.asarray(values, np.float64)), np.nan))


def _sets(*given: tuple[xr.Dataset, Ints]) -> list[Ints]:
    """Peak neurons of tokens of some datasets, numbered through all layers alike; [token, layer, peak] each."""
    found = [np.asarray(dataset["peak_neuron"].values, np.int64)[tokens] for dataset, tokens in given]
    width = max(int(neurons.max(initial=0)) for neurons in found) + 1
    return [
        np.where(neurons >= 0, neurons + dataset[names.LAYER].values[:, None] * width, GONE)
        for neurons, (dataset, _) in zip(found, given, strict=True)
    ]


def _indicators(sets: Ints, width: int) -> csr_matrix:
    """Which of `width` neurons are in each set; [set, neuron]."""
    from scipy import sparse

    there = sets >= 0
    row = np.broadcast_to(np.arange(len(sets))[:, None], sets.shape)[there]
    return sparse.csr_matrix((np.ones(len(row), np.float32), (row, sets[there])), shape=(len(sets), width))


def _vote(similarity: Floats, ids: Ints) -> Ints:
    """The token that most of the rows most alike are of, weighted by exp(similarity)."""
    count = min(_VOTERS, len(ids))
    nearest = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
    alike = np.take_along_axis(similarity, nearest, axis=1)
    weights = np.exp(alike - alike.max(axis=1, keepdims=True))
    tokens = ids[nearest]
    votes = ((tokens[:, :, None] == tokens[:, None]) * weights[:, None]).sum(axis=2)
    return np.asarray(tokens[np.arange(len(tokens)), votes.argmax(axis=1)], np.int64)


def _parts(rows: NDArray[_Number]) -> Iterator[NDArray[_Number]]:
    return (rows[start : start + _TOGETHER] for start in range(0, len(rows), _TOGETHER))


def _commonest(ids: Ints) -> int:
    tokens, counts = np.unique(ids, return_counts=True)
    return int(tokens[counts.argmax()])


def _commonest_at(places: Ints, ids: Ints, wanted: Ints) -> Ints:
    """The commonest token at each wanted place, of all places where nothing is known of that one."""
    known = {int(place): _commonest(ids[places == place]) for place in np.unique(places)}
    overall = _commonest(ids)
    return np.array([known.get(int(place), overall) for place in wanted], np.int64)


def _to_end(prompts: Prompts) -> Ints:
    """How many tokens of its prompt are behind each token."""
    return np.asarray(prompts.stops[prompts.of_token] - 1 - np.arange(len(prompts.of_token)), np.int64)
