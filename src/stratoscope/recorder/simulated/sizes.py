"""The sizes of a simulation as they are asked for, by themselves or to resemble what was published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from stratoscope import defaults
from stratoscope.errors import UsageError, refuse_unknown
from stratoscope.names import ALL_POSITIONS, LENSES, LOGITS, OF_TARGETS, POSITIONS, ROUTES
from stratoscope.recorder.simulated.likeness import likeness
from stratoscope.recorder.simulated.model import SimulationSize
from stratoscope.recorder.simulated.published import Published
from stratoscope.recorder.targets.asked import target_settings
from stratoscope.trace.arguments import at_least, several, whole_numbers

_USUAL = {
    "layers": defaults.SIMULATED_LAYERS,
    "d_model": defaults.SIMULATED_D_MODEL,
    "d_ff": defaults.SIMULATED_D_FF,
    "heads": defaults.SIMULATED_HEADS,
}
_OF_NO_PROFILE = (*OF_TARGETS, LENSES, ROUTES)
Tokens = int | str | tuple[int, int] | None


def simulation_size(
    sizes: Mapping[str, int | None], prompts: int | None, tokens: Tokens, *, seed: int, anomaly: bool
) -> SimulationSize:
    """The sizes of a simulation, each checked.

    Parameters
    ----------
    sizes
        `layers`, `d_model`, `d_ff`, `heads` and `top_k`; None = by default.
    prompts, tokens
        How many, and how many of each prompt; None = by default.
    seed, anomaly
        As of `simulate`.
    """
    given = {name: _USUAL[name] if size is None else size for name, size in sizes.items()}
    given["prompts"] = defaults.SIMULATED_PROMPTS if prompts is None else prompts
    counts: dict[str, Any] = {name: at_least(1, count, name) for name, count in given.items()}
    low, high = _fewest_and_most(defaults.SIMULATED_TOKENS if tokens is None else tokens)
    top_k, d_ff = counts["top_k"], counts["d_ff"]
    check(top_k <= d_ff, f"{top_k} peaks of {d_ff} neurons", "top_k", f"Give at most {d_ff}, or a larger d_ff.")
    return SimulationSize(tokens=(low, high), seed=at_least(0, seed, "seed"), anomaly=anomaly, **counts)


def size_of_look_alike(
    published: Published, sizes: Mapping[str, int | None], prompts: int | None, tokens: Tokens, *, seed: int
) -> SimulationSize:
    """The sizes of a simulation that resembles what was published, and its likeness.

    Parameters
    ----------
    published
        Class profiles.
    sizes, prompts, tokens, seed
        As of `simulation_size`. Sizes of the model are the published ones, and none may be given; by default there are
        as many prompts and tokens as published.
    """
    for name in _USUAL:
        what = "the model of a look-alike has the published sizes"
        check(sizes[name] is None, what, name, "Leave it out, or make a trace that is like no other.")
    given = {**sizes, **published.sizes}
    there = {one.name: one.prompts for one in published.classes}
    wanted = sum(there.values()) if prompts is None else at_least(len(there), prompts, "prompts")
    shape = simulation_size(given, wanted, tokens, seed=seed, anomaly=False)
    like = likeness(published, shape, prompts=prompts, tokens=None if tokens is None else shape.tokens)
    return replace(shape, prompts=sum(like.cast.counts), like=like)


def explained(
    recorded: Sequence[str], targets: Iterable[str] | None, against: str | None, positions: str | None
) -> dict[str, Any]:
    """What is explained and read where, checked as `capture` does."""
    explaining = [name for name in recorded if name in OF_TARGETS]
    if positions is not None:
        refuse_unknown(positions, POSITIONS, "positions", where="positions")
        check(LENSES in recorded, "nothing that is simulated is read at positions", "positions", "Record lens too.")
        what = "the neurons of simulated logits stand at the answer position only"
        check(LOGITS not in recorded or positions != ALL_POSITIONS, what, "positions", "Leave out logits, or it.")
    named = defaults.SIMULATED_TARGETS if targets is None and explaining else targets
    reading = [LENSES] if LENSES in recorded and named is not None else []
    asked = target_settings([*explaining, *reading], named, against, None, None)
    found = {} if asked is None else {"targets": asked.texts, "against": asked.against}
    return {**found, "every_position": positions == ALL_POSITIONS}


def refuse_unlike(record: Sequence[str], **of_targets: Any) -> None:
    """Raise where something is asked of a look-alike that no published profile says anything of."""
    for group in record:
        what = f"published averages say nothing of {group}, so a look-alike has none"
        check(group not in _OF_NO_PROFILE, what, "record", "Leave it out.")
    for name, value in of_targets.items():
        check(value is None, "a look-alike explains no targets and has no lenses", name, "Leave it out.")


def _fewest_and_most(tokens: int | str | Iterable[int]) -> tuple[int, int]:
    given = whole_numbers(tokens, "-") if isinstance(tokens, str) else several(tokens, "tokens", "24, or (20, 32)")
    counts = [at_least(1, count, "tokens") for count in given]
    fix = "Write 24, or 20-32, in Python (20, 32)."
    check(len(counts) in (1, 2), f"{tokens!r} is no number of tokens", "tokens", fix)
    low, high = counts[0], counts[-1]
    check(low <= high, f"the fewest ({low}) are more than the most ({high})", "tokens", "Swap them.")
    return low, high


def check(holds: bool, what: str, where: str, fix: str) -> None:
    """Raise about an argument unless what is asked of it holds."""
    if not holds:
        raise UsageError(what, where=where, fix=fix)
