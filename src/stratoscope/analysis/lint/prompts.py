"""Checks of the prompts: how many, how long, how they were put into tokens, and what their labels hold."""

from __future__ import annotations

import unicodedata
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from stratoscope import defaults, names
from stratoscope.analysis.classes.chance import chance_in
from stratoscope.analysis.classes.design import MOST_RATIO, alike_in_length, make_design, testable
from stratoscope.analysis.classes.units import make_units, with_values
from stratoscope.analysis.lint.check import COMPARISONS, EVERYTHING, LOOKED_AT, check, class_sizes
from stratoscope.analysis.statistics.permutation import smallest_p
from stratoscope.analysis.values.finite import finite_trace
from stratoscope.trace.format.attributes import objects_in
from stratoscope.trace.notes import INFO, WARNING
from stratoscope.trace.prompts import Prompts
from stratoscope.words import counted, number, percent

if TYPE_CHECKING:
    import xarray as xr

_FEW_QUERIES, _MOST_RARELY_SEEN = 4, 0.25  # fewer later tokens rest on too little; such tokens may be a quarter of all
_MOST_TEMPLATE = 0.3  # of the tokens: 30 of 56 in a short chat
_MOST_CHANCE = 1.0  # |g| of noise that a reader would take for a large effect (Cohen: 0.8)
_ALPHABETICAL = 8  # different tokens in order: by chance once in 8! = 40,320 prompts
_PICTURED = 1_500  # tokens that a picture shows one by one


@check("L02", INFO, "A token that few others can see seems ignored or favoured by chance.", {"attn_received"})
def short_prompts(dataset: xr.Dataset) -> str | None:
    """Most prompts are so short that attention received rests on a handful of queries."""
    if not any(name in dataset for name in ("attn_received", "attn_received_nosink")):
        return None
    counts = Prompts(dataset).lengths
    rarely_seen = np.minimum(counts, _FEW_QUERIES).sum() / max(counts.sum(), 1)
    if rarely_seen <= _MOST_RARELY_SEEN:
        return None
    share = percent(rarely_seen)
    return f"{share} of the tokens are seen by fewer than {_FEW_QUERIES} later ones, because prompts are short."


@check("L04", WARNING, "Repeated words were merged, so a column is not one token at one place.", EVERYTHING)
def grouped_by_text(dataset: xr.Dataset) -> str | None:
    """An import whose tokens were grouped or sorted by their text."""
    if dataset.attrs.get("source") != names.IMPORTED or "text" not in dataset.coords:
        return None
    prompts, words = Prompts(dataset), dataset["text"].values
    for prompt, length in enumerate(prompts.lengths.tolist()):
        here = prompts.tokens(prompt)
        own = [str(word) for word in words[here]]
        if len(set(prompts.position[here].tolist())) < length:
            return f"In prompt {prompt} several tokens claim the same position."
        if len(own) >= _ALPHABETICAL and all(one < other for one, other in pairwise(own)):
            return f"The tokens of prompt {prompt} stand in alphabetical order and none repeats: grouped by text?"
    return None


@check("L06", INFO, "A picture with fewer columns than tokens must pool them.", EVERYTHING)
def more_tokens_than_columns(dataset: xr.Dataset) -> str | None:
    """Pictures of the whole trace are pooled."""
    tokens = dataset.sizes.get(names.TOKEN, 0)
    if tokens <= _PICTURED:
        return None
    return f"{tokens:,} tokens: a picture of all of them pools columns by their maximum and says the factor."


@check("L11", INFO, "Prompts of unequal length compared place by place give noise.", COMPARISONS)
def unequal_twins(dataset: xr.Dataset) -> str | None:
    """Pairs whose members have different numbers of tokens."""
    prompts = Prompts(dataset)
    lengths: dict[str, set[int]] = {}
    for pair, count in zip(prompts.pairs, prompts.lengths.tolist(), strict=True):
        if pair:
            lengths.setdefault(pair, set()).add(count)
    unequal = sum(len(found) > 1 for found in lengths.values())
    return f"In {unequal} of {len(lengths)} pairs lengths differ: compare aligned tokens only." if unequal else None


@check("L12", WARNING, "Tokens are counted as samples where only prompts are.", COMPARISONS)
def too_few_prompts(dataset: xr.Dataset) -> str | None:
    """A class of so few prompts that no test of prompts could find anything."""
    prompts = Prompts(dataset)
    sizes = class_sizes(prompts)
    if len(sizes) < 2:
        return None
    fewest = min(sizes, key=lambda name: sizes[name])
    twins = min(sizes.values()) == max(sizes.values()) and all(prompts.pairs)
    least = smallest_p(sizes[fewest]) if twins else smallest_p(*sorted(sizes.values())[:2])
    if least <= 0.05:
        return None
    return (
        f"{counted(sizes[fewest], 'prompt')} of {fewest}: no test between prompts gives p below {number(least)}, and "
        "tokens of a prompt are no samples."
    )


@check("L13", WARNING, "A difference between classes may be one of length.", COMPARISONS)
def unequal_lengths(dataset: xr.Dataset) -> str | None:
    """Classes whose prompts differ in length."""
    prompts = Prompts(dataset)
    classes, counts = np.array(prompts.classes), prompts.lengths
    means = {name: counts[classes == name] for name in class_sizes(prompts)}
    known = {name: found for name, found in means.items() if len(found) > 1}
    if len(known) < 2:
        return None
    short, long = (pick(known, key=lambda name: known[name].mean()) for pick in (min, max))
    if alike_in_length(known[long], known[short]):
        return None
    average = {name: number(known[name].mean()) for name in (long, short)}
    return f"Prompts of {long} have {average[long]} tokens on average, of {short} {average[short]}."


@check("L17", WARNING, "Special tokens that were added twice, or to some prompts only, look like content.", EVERYTHING)
def special_tokens(dataset: xr.Dataset) -> str | None:
    """A first token that is there twice, or a chat template around some prompts only."""
    if not {"span", "token_id"} <= set(dataset.coords):
        return None
    prompts, ids = Prompts(dataset), np.asarray(dataset["token_id"].values)
    second = np.flatnonzero(prompts.first[:-1] & (prompts.place[1:] == 1)) + 1
    doubled = (ids[second] == ids[second - 1]) & prompts.in_spans(["special"])[second] & (ids[second] >= 0)
    if doubled.any():
        return f"The same special token stands twice at the beginning of {counted(int(doubled.sum()), 'prompt')}."
    with_template = len(set(prompts.of_token[prompts.in_spans(["template"])].tolist()))
    if 0 < with_template < len(prompts):
        return f"A chat template is around {with_template} of {len(prompts)} prompts, and not around the others."
    return None


@check("L17", INFO, "It is guessed which tokens are the user's.", EVERYTHING)
def unknown_spans(dataset: xr.Dataset) -> str | None:
    """Tokens of which nobody knows what part of the prompt they are."""
    if "span" not in dataset.coords or not dataset.sizes.get(names.TOKEN):
        return None
    unknown = (Prompts(dataset).spans < 0).mean()
    if not unknown:
        return None
    return f"For {percent(unknown)} of the tokens it is not known to which part of the prompt they belong."


@check("L19", INFO, "Labels with invisible, reordering or broken characters read as something else.", EVERYTHING)
def strange_labels(dataset: xr.Dataset) -> str | None:
    """Tokens that hold control characters, right-to-left text or stray bytes."""
    if "text" not in dataset.coords:
        return None
    words = dataset["text"].isel({names.TOKEN: slice(LOOKED_AT)}).values
    count = sum(_is_strange(str(word)) for word in words)
    return (
        f"Shown escaped: control, right-to-left or broken characters in {counted(count, 'token')}." if count else None
    )


@check("L21", INFO, "Template and system tokens dominate averages.", EVERYTHING)
def much_template(dataset: xr.Dataset) -> str | None:
    """A large part of the tokens are the template's."""
    if "span" not in dataset.coords:
        return None
    fixed = Prompts(dataset).in_spans((*names.TEMPLATE_SPANS, "system"))
    share = fixed.mean() if len(fixed) else 0.0
    if share <= _MOST_TEMPLATE:
        return None
    return f"{percent(share)} of the tokens are system, template or special tokens: choose a span before averaging."


@check("L22", WARNING, "Tests of classes of very unequal size discover what is not there.", COMPARISONS)
def unequal_classes(dataset: xr.Dataset) -> str | None:
    """Classes of more than two to one."""
    sizes = class_sizes(Prompts(dataset))
    if len(sizes) < 2 or max(sizes.values()) <= MOST_RATIO * min(sizes.values()):
        return None
    most, fewest = (pick(sizes, key=lambda name: sizes[name]) for pick in (max, min))
    return f"Classes {most} ({sizes[most]}) and {fewest} ({sizes[fewest]}) differ in size: balance them or use ranks."


@check("L23", INFO, "The strongest of very many neurons are noise when prompts are few.", COMPARISONS)
def noise_looks_strong(dataset: xr.Dataset) -> str | None:
    """Noise alone would show a large effect somewhere: of the units that `contrast` would compare, as it says it."""
    sizes = class_sizes(Prompts(dataset))
    if len(sizes) < 2 or defaults.STATISTIC not in dataset:
        return None
    fewest = sorted(sizes, key=lambda name: sizes[name])[:2]
    first, second = (name for name in sizes if name in fewest)
    dataset = finite_trace(dataset).dataset
    units = with_values(dataset, defaults.STATISTIC, make_units(dataset, first, second))
    if not testable(units, defaults.ALPHA):
        return None  # no contrast is made of so few (L12)
    design = make_design(
        units, unequal=defaults.UNEQUAL, held_out=defaults.HELD_OUT, alpha=defaults.ALPHA, seed=defaults.SEED
    )
    chance = chance_in(dataset, defaults.STATISTIC, design, range(dataset[defaults.STATISTIC].sizes[names.LAYER]))
    return chance.sentence() if chance.middle > _MOST_CHANCE else None


@check("L24", INFO, "A target of several tokens is not its first one.", {"opener_log_odds"})
def openers_of_several_tokens(dataset: xr.Dataset) -> str | None:
    """Openers whose log-odds are over several tokens."""
    openers = objects_in((dataset.attrs.get("plan") or {}).get("openers"))
    ids = [one.get("token_ids") for one in openers]
    several = [
        str(one.get("text")) for one, of in zip(openers, ids, strict=True) if isinstance(of, list) and len(of) > 1
    ]
    if "opener_log_odds" not in dataset or not several:
        return None
    return f"Openers of several tokens ({', '.join(map(repr, several[:4]))}): log-odds are of all of them together."


def _is_strange(word: str) -> bool:
    return any(
        0xD800 <= ord(char) <= 0xDFFF
        or (unicodedata.category(char) in ("Cc", "Cf") and char not in "\n\t\r")
        or unicodedata.bidirectional(char) in ("R", "AL", "AN")
        for char in word
    )
