"""What lenses say at one token, in numbers and in sentences that are as strong as what was computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope.analysis.lens.leading import Leading, leading
from stratoscope.analysis.lens.lenses import Lenses
from stratoscope.analysis.lens.reading import FEW, NONE, Ids, Reading, read
from stratoscope.trace.arrays import Floats
from stratoscope.trace.format.token_texts import token_texts
from stratoscope.trace.lenses import JACOBIAN_LENS, LOGIT_LENS
from stratoscope.trace.prompts import Prompts
from stratoscope.trace.targets import Targets
from stratoscope.words import capital, counted, isolate, percent, readable

if TYPE_CHECKING:
    import xarray as xr

_LONGEST = 40  # characters of a token in a sentence


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A token at one position, by depth, as one lens has it.

    Attributes
    ----------
    logprob, rank
        Of shape (depths,); NaN = not recorded.
    logit
        The logit less that of what it is held against, for a target; else empty.
    low_rank, high_rank, low_logprob, high_logprob
        The smallest and the largest that the parts of the lens' corpus give; empty = it has no parts.
    """

    logprob: Floats
    rank: Floats
    logit: Floats
    low_rank: Floats
    high_rank: Floats
    low_logprob: Floats
    high_logprob: Floats


@dataclass(frozen=True)
class TargetFound:
    """What lenses say of a target at one token.

    Attributes
    ----------
    name
        In words: “Sorry” against “Sure”.
    last_rank, last_probability
        What the model itself gives.
    best_rank, best_depth
        The smallest rank below the last depth that the drawn lens gives it, and the first depth that does; None = not
        recorded.
    rank_where_answer_stays
        Its rank at the depth from which the model's answer stays the first; None = there is none such.
    """

    name: str
    last_rank: int
    last_probability: float
    best_rank: int | None
    best_depth: int | None
    rank_where_answer_stays: int | None


@dataclass(frozen=True)
class Found:
    """What lenses say at one token.

    Attributes
    ----------
    prompt, position, token
        The prompt, the token's position in it and its text.
    lens
        The name of the lens that is drawn: "logit", "jacobian".
    answer, answer_id, probability
        The token that the model itself finds likeliest there: its text, its id and its probability.
    first_leads, stays_from
        The first depth at which the lens reads it as the likeliest, and the one from which it is so at every depth that
        was read, up to the last; None = nowhere, or not recorded.
    rank_below
        Its rank at the nearest depth below that was read; None = there is none.
    last_depth
        The number of the last depth.
    unread
        How many depths the lens was not read at.
    other_lens, other_rank
        Another lens, and the answer's rank at `stays_from` in it; "" and None = there is none.
    targets
        Of the targets that were asked for.
    stable_share, stable_cells, parts
        Share of the cells shown in which the parts of the lens' corpus read alike, how many cells are compared, and
        which parts these are; None, 0 and "" = the lens has no parts.
    """

    prompt: str
    position: int
    token: str
    lens: str
    answer: str
    answer_id: int
    probability: float
    first_leads: int | None
    stays_from: int | None
    rank_below: int | None
    last_depth: int
    unread: int
    other_lens: str = ""
    other_rank: int | None = None
    targets: tuple[TargetFound, ...] = ()
    stable_share: float | None = None
    stable_cells: int = 0
    parts: str = ""

    def record(self) -> dict[str, Any]:
        """It as JSON has it, with its sentences."""
        return {**asdict(self), "sentences": [*self.sentences()]}

    def sentences(self) -> Iterator[str]:
        """It in sentences."""
        answer = quoted(self.answer)
        yield (
            f"The model's answer behind token {self.position} {quoted(self.token)} is {answer} "
            f"(probability {percent(self.probability)})."
        )
        yield f"{capital(lens_in_words(self.lens))}: {answer} {self._where()}."
        if self.other_rank is not None and self.stays_from != self.last_depth:
            yield f"At D{self.stays_from} {lens_in_words(self.other_lens)} gives it rank {self.other_rank:,}."
        for one in self.targets:
            yield self._of_target(one)
        if self.stable_share is not None:
            yield f"{self.stability()}."

    def stability(self) -> str:
        """How far the lens depends on the texts that it was fitted on."""
        share, cells = percent(self.stable_share or 0.0), counted(self.stable_cells, "cell")
        return (
            f"Fitted {self.parts} instead of on all its texts, it reads the same token in {share} of the {cells} shown "
            f"below the last depth, and the same rank of the model's answer where that is among the first {FEW}"
        )

    def _where(self) -> str:
        read = f" ({counted(self.unread, 'depth')} not read)" if self.unread else ""
        if self.stays_from is None or self.first_leads is None:
            return f"is the likeliest at no depth that was read{read}"
        last, first = f"D{self.last_depth}", f"D{self.first_leads}"
        if self.stays_from == self.last_depth:
            if self.first_leads == self.last_depth:
                return f"is the likeliest at {last} alone, which is the model's own output{read}"
            return f"first leads at {first}, but not at the depth right below {last}, the model's own output{read}"
        below = "" if self.rank_below is None else f"; right below it has rank {self.rank_below:,}"
        if self.first_leads == self.stays_from:
            return f"leads from {first} on, at every depth up to {last}{below}{read}"
        return f"first leads at {first}, and from D{self.stays_from} on at every depth up to {last}{below}{read}"

    def _of_target(self, one: TargetFound) -> str:
        words = [f"rank {one.last_rank:,} at D{self.last_depth} (probability {percent(one.last_probability)})"]
        if one.best_rank is not None:
            words.append(f"best rank before D{self.last_depth}: {one.best_rank:,}, at D{one.best_depth}")
        if one.rank_where_answer_stays is not None and self.stays_from != self.last_depth:
            words.append(f"at D{self.stays_from}, where the answer begins to stay, {one.rank_where_answer_stays:,}")
        return f"Target {one.name}: {'; '.join(words)}."


def find(dataset: xr.Dataset, lenses: Lenses, shown: Reading, token: int, targets: Sequence[int]) -> Found:
    """What lenses say at a token, by its place among those of a reading, and of these targets."""
    prompts = Prompts(dataset)
    place = int(shown.tokens[token])
    where = leading(shown.answer_rank[token : token + 1])
    first, stays = _depth(shown, where.first), _depth(shown, where.stays)
    rank = shown.answer_rank[token]
    below = [one for one in rank[: max(int(where.stays[0]), 0)].tolist() if one != NONE]
    other = lenses.other(shown.name)
    ranks = read(dataset, lenses, other, shown.tokens[token : token + 1]).answer_rank[0] if other else rank
    there = int(ranks[where.stays[0]]) if other and stays is not None else NONE
    return Found(
        prompts.labels[int(prompts.of_token[place])],
        int(prompts.position[place]),
        prompts.words(np.array([place]))[0],
        shown.name,
        text_of(dataset, int(shown.answer[token])),
        int(shown.answer[token]),
        float(probability_of(shown.answer_logprob[token, -1])),
        first,
        stays,
        below[-1] if below else None,
        shown.depths[-1],
        int((shown.likeliest[token] == NONE).sum()),
        other if there != NONE else "",
        there if there != NONE else None,
        tuple(_targets(dataset, lenses, shown, token, targets, where)),
        shown.stable_share,
        int(shown.compared.sum()) if shown.changes is not None else 0,
        lenses.parts_in_words(shown.name) if shown.changes is not None else "",
    )


def _targets(
    dataset: xr.Dataset, lenses: Lenses, shown: Reading, token: int, chosen: Sequence[int], where: Leading
) -> Iterator[TargetFound]:
    targets = Targets(dataset)
    prompt = int(Prompts(dataset).of_token[shown.tokens[token]])
    for place in chosen:
        rank = target_trajectory(dataset, lenses, shown.name, int(shown.tokens[token]), place)
        below = rank.rank[:-1]
        best = int(np.nanargmin(below)) if np.isfinite(below).any() else NONE
        stays = int(where.stays[0])
        yield TargetFound(
            targets.label_in(prompt, place) or targets.label(place),
            int(rank.rank[-1]),
            float(probability_of(rank.logprob[-1])),
            int(below[best]) if best != NONE else None,
            shown.depths[best] if best != NONE else None,
            int(rank.rank[stays]) if stays != NONE and np.isfinite(rank.rank[stays]) else None,
        )


def targets_at(dataset: xr.Dataset, shown: Reading, token: int) -> list[int]:
    """The targets whose ranks are recorded at a token."""
    if "lens_target_rank" not in dataset:
        return []
    last = dataset["lens_target_rank"].isel(token=int(shown.tokens[token]), depth=-1, lens=0).values
    return [int(one) for one in np.flatnonzero(last != NONE)]


def answer_trajectory(dataset: xr.Dataset, lenses: Lenses, name: str, token: int) -> Trajectory:
    """The model's answer at a token (a place on the dimension `token`) as a lens has it."""
    return _trajectory(dataset, lenses, name, token, ("lens_answer_logprob", "lens_answer_rank"), {})


def target_trajectory(dataset: xr.Dataset, lenses: Lenses, name: str, token: int, target: int) -> Trajectory:
    """A target at a token, as a lens has it."""
    return _trajectory(
        dataset, lenses, name, token, ("lens_target_logprob", "lens_target_rank", "lens_target_logit"),
        {"target": target},
    )  # fmt: skip


def _trajectory(
    dataset: xr.Dataset, lenses: Lenses, name: str, token: int, quantities: tuple[str, ...], of: Mapping[str, int]
) -> Trajectory:
    places = [lenses.place(name), *lenses.parts(name)]
    logprob, rank, *logit = (
        _by_depth(dataset[one].isel({"token": token, **of}), places) if one in dataset else np.empty((len(places), 0))
        for one in quantities
    )
    rank = np.where(rank == NONE, np.nan, rank)
    nothing = np.empty(0)
    parted = len(places) > 1
    return Trajectory(
        logprob[0], rank[0], logit[0][0] if logit else nothing,
        rank.min(axis=0) if parted else nothing, rank.max(axis=0) if parted else nothing,
        logprob.min(axis=0) if parted else nothing, logprob.max(axis=0) if parted else nothing,
    )  # fmt: skip


def _by_depth(array: xr.DataArray, places: list[int]) -> NDArray[np.float64]:
    return np.asarray(array.isel(lens=places).transpose("lens", "depth").values, np.float64)


def _depth(shown: Reading, place: Ids) -> int | None:
    return None if place[0] == NONE else shown.depths[int(place[0])]


def probability_of(logprob: Any) -> Floats:
    """What a log-probability stands for; of what can be none, being above 0, it is that of 0."""
    probability: Floats = np.exp(np.minimum(logprob, 0.0))
    return probability


def text_of(dataset: xr.Dataset, identity: int) -> str:
    """The text of a token, else its id in words."""
    return token_texts(dataset.attrs).get(identity, f"token {identity}")


def quoted(text: str) -> str:
    """A token in a sentence: readable, in quotation marks."""
    return isolate(f"“{readable(text, width=_LONGEST)}”")


def lens_in_words(name: str) -> str:
    """The name of a lens in a sentence."""
    called = {LOGIT_LENS: "the logit lens", JACOBIAN_LENS: "the Jacobian lens"}
    return called.get(name, f"the lens “{name}”")
