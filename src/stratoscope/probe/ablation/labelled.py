"""What `ablate` found as a labelled Dataset: named axes, means with intervals, and what was done as attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from stratoscope import names
from stratoscope.analysis.contrast.family import BAND, half_width
from stratoscope.probe.ablation.asked import AblationSettings
from stratoscope.probe.ablation.cumulative import Curves, bootstrapped
from stratoscope.probe.ablation.run import CONTROLS, Found, Set
from stratoscope.probe.ablation.sentence import sentence
from stratoscope.probe.ablation.subject import Subject
from stratoscope.recorder.input.spelling import literals
from stratoscope.recorder.targets.tokens import MEAN
from stratoscope.trace.arrays import Floats
from stratoscope.trace.format.attributes import software
from stratoscope.trace.labels import object_array
from stratoscope.trace.targets import OWN, in_words
from stratoscope.words import listed

MEASURED = "measured"
_TARGET, _SET, _KIND = ("set", names.PROMPT, names.TARGET), "set", "control_kind"


def labelled(subject: Subject, found: Found, asked: AblationSettings) -> xr.Dataset:
    """The Dataset that `ablate` returns."""
    named = names.TARGET
    arrays: dict[str, Any] = {
        MEASURED: (_TARGET, found.measured[..., : subject.targets].mean(1)),
        "first_order": (_TARGET, found.first_order),
        "direct": (_TARGET, found.direct),
        "control": ((_KIND, _SET, "draw", names.PROMPT, named), found.control[..., : subject.targets]),
        "unablated": ((names.PROMPT, named), found.own[:, : subject.targets]),
        "floor": ((named,), found.floor[: subject.targets]),
    }
    if subject.openers:
        here = slice(subject.targets, None)
        arrays |= {
            "opener_measured": ((_SET, names.PROMPT, names.OPENER), found.measured[..., here].mean(1)),
            "opener_control": ((_KIND, _SET, "draw", names.PROMPT, names.OPENER), found.control[..., here]),
            "opener_unablated": ((names.PROMPT, names.OPENER), found.own[:, here]),
            "opener_floor": ((names.OPENER,), found.floor[here]),
        }
    for name in (MEASURED, "first_order", "direct", "opener_measured"):
        if name in arrays:
            arrays |= _means(name, *arrays[name])
    arrays |= _matches(found, asked.draws)
    if asked.how == names.RESAMPLE:
        arrays["donor"] = ((names.PROMPT, "draw"), found.donors)
        arrays["measured_draws"] = ((_SET, "draw", *_TARGET[1:]), found.measured[..., : subject.targets])
    if found.curves is not None:
        arrays |= _of_curves(found.curves, asked.seed)
    made = xr.Dataset(arrays, _coordinates(subject, found, asked), _attributes(subject, found, asked))
    return made.assign_attrs(found=sentence(made))


def _means(name: str, dims: tuple[str, ...], values: Floats) -> dict[str, Any]:
    """Means over prompts, with t intervals."""
    by_prompt = np.moveaxis(values, 1, 0)
    mean, half = by_prompt.mean(0), half_width(by_prompt)
    rest = (dims[0], *dims[2:])
    return {f"{name}_mean": (rest, mean), f"{name}_low": (rest, mean - half), f"{name}_high": (rest, mean + half)}


def _matches(found: Found, draws: int) -> dict[str, Any]:
    """Which random sets there were, and how like they are."""
    ratios, members = np.full((len(found.sets), draws), np.nan), np.full((len(found.sets), draws), "", object)
    for number, match in enumerate(found.matches):
        for draw, (some, ratio) in enumerate(zip(match.sets, match.ratios, strict=True)):
            ratios[number, draw], members[number, draw] = ratio, ", ".join(map(str, some))
    return {
        "match_ratio": ((_SET, "draw"), ratios),
        "best_ratio": ((_SET,), np.array([match.best for match in found.matches])),
        "matched_members": ((_SET, "draw"), members),
    }


def _of_curves(curves: Curves, seed: int) -> dict[str, Any]:
    dims = ("order", "step", names.TARGET)
    faithful, complete = bootstrapped(curves, seed)
    found: dict[str, Any] = {
        "removed": (("order", "step", names.PROMPT, names.TARGET), curves.removed),
        "taken": (("order", "rank"), np.array([[str(one) for one in order] for order in curves.orders], object)),
        "kept": (("order", "step", names.PROMPT, names.TARGET), curves.kept),
        "faithfulness": (dims, curves.faithfulness),
        "completeness": (dims, curves.completeness),
    }
    for name, ends in (("faithfulness", faithful), ("completeness", complete)):
        found |= {f"{name}_{end}": (dims[1:], ends[place]) for place, end in enumerate(("low", "high"))}
    return found


def _coordinates(subject: Subject, found: Found, asked: AblationSettings) -> dict[str, Any]:
    prompts = subject.recording.prompts
    targets = found.own.shape[1] - len(subject.openers)
    coordinates: dict[str, Any] = {
        _SET: object_array([label_of(one) for one in found.sets]),
        "members": (_SET, object_array([", ".join(map(str, one)) for one in found.sets])),
        names.PROMPT: object_array(subject.ids),
        "prompt_class": (names.PROMPT, object_array([one.prompt_class for one in prompts])),
        "pair": (names.PROMPT, object_array([one.pair for one in prompts])),
        names.TARGET: object_array(_target_names(subject, asked, targets)),
        "target_text": ((names.PROMPT, names.TARGET), _texts(subject, subject.token.numpy())),
        "against_text": ((names.PROMPT, names.TARGET), _texts(subject, subject.against.numpy())),
        _KIND: object_array(CONTROLS),
    }
    if subject.openers:
        coordinates[names.OPENER] = object_array([one.text for one in subject.openers])
    if found.curves is not None:
        random = [f"random {number + 1}" for number in range(len(found.curves.removed) - 1)]
        coordinates["order"] = object_array(["strongest first", *random])
        coordinates["step"] = np.array(found.curves.steps)
    return coordinates


def label_of(members: Set) -> str:
    """A set, as tables call it."""
    return str(members[0]) if len(members) == 1 else "all of them"


def _target_names(subject: Subject, asked: AblationSettings, count: int) -> list[str]:
    """“I” against “To”; of each prompt's own likeliest token, that, unless it is the same in all."""
    against = asked.targets.against
    if asked.targets.texts:
        return [in_words(text, against or "") for text in asked.targets.texts][:count]
    texts = (_texts(subject, ids.numpy())[:, 0] for ids in (subject.token, subject.against))
    own = {*zip(*texts, strict=True)}
    return [in_words(*own.pop()) if len(own) == 1 else OWN]


def _texts(subject: Subject, ids: np.ndarray) -> np.ndarray:
    """Tokens as text; "" in place of one where the mean over the vocabulary stands."""
    known = {
        int(one): "" if one == MEAN else literals([int(one)], subject.tokenizer)[0].decode("utf-8", "replace")
        for one in np.unique(ids)
    }
    texts = np.empty(ids.shape, object)
    for place in np.ndindex(ids.shape):
        texts[place] = known[int(ids[place])]
    return texts


def _attributes(subject: Subject, found: Found, asked: AblationSettings) -> dict[str, Any]:
    loaded = subject.loaded
    return {
        "kind": "ablation",
        "model": loaded.identity,
        "tokenizer": loaded.tokenizer_identity,
        "how": asked.how,
        "positions": asked.positions,
        "first_token": asked.first_token,
        "seed": asked.seed,
        "draws": asked.draws,
        "cumulative": asked.cumulative,
        "mean_of": "" if asked.mean_of is None else asked.mean_of.name,
        "answer_prefix": asked.targets.answer_prefix,
        "level": BAND,
        "limits": [*loaded.limits],
        "remarks": _remarks(subject, found, asked),
        "software": software("torch", "transformers", "numpy", "xarray"),
    }


def _remarks(subject: Subject, found: Found, asked: AblationSettings) -> list[str]:
    """What must be said of how it was ablated, in sentences."""
    said = [note["text"] for note in subject.recording.batch_notes]
    lengths = np.array([len(one.ids) for one in subject.tokens])
    if asked.how == names.RESAMPLE and subject.everywhere:
        short = [subject.ids[at] for at in np.flatnonzero((lengths[found.donors] < lengths[:, None]).any(1))]
        if short:
            said.append(
                f"No other prompt is as long as {listed(short)}: its first tokens, to which no other reaches back, "
                "stay as they are."
            )
    if asked.how == names.RESAMPLE and any(len(one.token_ids) > 1 for one in subject.openers):
        said.append("Tokens of an opener that stand before its last are not resampled.")
    if not np.isfinite(found.direct).all():
        said.append("Where a norm behind an MLP or attention is not proved, direct contributions are not known.")
    return said
