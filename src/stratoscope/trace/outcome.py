"""What a trace says about the model's answers: their text, which open as a refusal, and how likely openers were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from stratoscope.names import OPENER, TOP
from stratoscope.trace.prompts import Prompts

_SHOWN = 4  # answers that `info` gives word by word


def answers(dataset: xr.Dataset) -> list[str]:
    """The text that the model generated for each prompt; "" where it generated nothing.

    End-of-text tokens are part of it. Bytes that are no character by themselves stay as `surrogateescape` leaves them.
    """
    prompts = Prompts(dataset)
    parts: list[list[str]] = [[] for _ in range(len(prompts))]
    places = np.flatnonzero(prompts.in_spans(["generated"]))
    for text, prompt in zip(np.asarray(dataset["text"].values)[places], prompts.of_token[places], strict=True):
        parts[prompt].append(text)
    return ["".join(part).encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") for part in parts]


def opener_texts(plan: Any, count: int) -> list[str]:
    """Texts of the recorded openers from a trace's plan; their numbers where the plan does not name them."""
    return _texts(plan, "openers", count) or [f"opener {number}" for number in range(count)]


def target_texts(plan: Any, count: int) -> list[str]:
    """Texts of the targets from a trace's plan, "top" where each prompt has its own; numbers where there are none."""
    if isinstance(plan, Mapping) and plan.get("targets") == TOP and count == 1:
        return [TOP]
    return _texts(plan, "targets", count) or [f"target {number}" for number in range(count)]


def _texts(plan: Any, key: str, count: int) -> list[str]:
    """The texts that a plan lists, if there are as many and all are texts."""
    entries = plan.get(key) if isinstance(plan, Mapping) else None
    listed = entries if isinstance(entries, list) else []
    texts = [one.get("text") for one in listed if isinstance(one, Mapping)]
    sound = len(texts) == count and all(isinstance(text, str) for text in texts)
    return [str(text) for text in texts] if sound else []


def outcome(dataset: xr.Dataset) -> dict[str, Any] | None:
    """JSON-able facts about the answers for `info`; None where nothing was asked about them.

    Returns
    -------
    dict
        `answered`, `open_as_refusal` (prompts), `refusal_patterns` (pattern → answers that begin with it), `cut`
        (answers that were as long as they might be and had not come to their end), `openers` (text → median log-odds
        over the prompts, in nats; None = not finite), `answers` (the first few: `prompt`, `answer`,
        `opens_as_refusal`).
    """
    facts: dict[str, Any] = {}
    if "opener_log_odds" in dataset:
        texts = opener_texts(dataset.attrs.get("plan"), dataset.sizes[OPENER])
        values = np.asarray(dataset["opener_log_odds"].values)
        facts["openers"] = dict(zip(texts, map(_median, values.T), strict=True)) if len(values) else {}
    if "opens_as_refusal" in dataset:
        opens = np.asarray(dataset["opens_as_refusal"].values)
        facts |= {"answered": int((opens >= 0).sum()), "open_as_refusal": int((opens == 1).sum())}
        facts["refusal_patterns"] = _patterns(dataset)
        facts["cut"] = _cut(dataset)
        prompts = Prompts(dataset)
        first = prompts.part(0, min(_SHOWN, len(prompts)))
        rows = zip(Prompts(first).ids, answers(first), opens.tolist(), strict=False)
        facts["answers"] = [{"prompt": prompt, "answer": text, "opens_as_refusal": flag} for prompt, text, flag in rows]
    return facts or None


def _median(values: np.ndarray) -> float | None:
    """The median of what is known; None where it is not finite, as when a model is certain of half of the openers."""
    known = np.sort(values[~np.isnan(values)])
    middle = known[[(len(known) - 1) // 2, len(known) // 2]].astype(np.float64) if len(known) else known
    return float(middle.mean()) if len(middle) and np.isfinite(middle).all() else None


def _cut(dataset: xr.Dataset) -> int | None:
    """How many answers ended only because they might not be longer; None where the plan does not say how they end."""
    plan = dataset.attrs.get("plan")
    how = plan.get("generation") if isinstance(plan, Mapping) else None
    if not isinstance(plan, Mapping) or not isinstance(how, Mapping):
        return None
    of = Prompts(dataset)
    generated = np.flatnonzero(of.in_spans(["generated"]))
    prompts, counts = np.unique(of.of_token[generated], return_counts=True)
    last = generated[np.cumsum(counts) - 1]
    ended = np.isin(np.asarray(dataset["token_id"].values)[last], _listed(how.get("eos_token_id")))
    stops = tuple(str(text) for text in _listed(how.get("stop_strings")))
    texts = answers(dataset) if stops else []
    stopped = np.array([bool(stops) and any(stop in texts[prompt] for stop in stops) for prompt in prompts], bool)
    return int(((counts == plan.get("generate")) & ~ended & ~stopped).sum())


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _patterns(dataset: xr.Dataset) -> dict[str, int]:
    """How often each refusal pattern opened an answer; by number where the plan does not list them."""
    if "refusal_pattern" not in dataset:  # of a trace that was published without text
        return {}
    listed = (dataset.attrs.get("plan") or {}).get("refusal_patterns")
    found = Counter(np.asarray(dataset["refusal_pattern"].values).tolist())
    named = listed if isinstance(listed, list) else []
    return {
        str(named[index]) if index < len(named) else f"pattern {index}": count
        for index, count in sorted(found.items())
        if index >= 0
    }
