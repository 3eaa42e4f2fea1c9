"""What a simulation must be like so that its class profiles come out as those that were published.

The additions to the residual stream are rehearsed layer by layer on tokens that are drawn once: writes are made as
large as published, and sizes and cosines are correlated over tokens so that the stream grows as published. Nothing but
the published profiles enters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stratoscope.recorder.simulated.activity import START_SPREAD, growth, neuron_norm_per_output, resid_cosine
from stratoscope.recorder.simulated.attention_likeness import like_attention
from stratoscope.recorder.simulated.cast import Cast
from stratoscope.recorder.simulated.model import SimulationSize, heads_at_random
from stratoscope.recorder.simulated.published import Published
from stratoscope.recorder.simulated.strengths import Likeness, Strengths, Writes, usual
from stratoscope.trace.arrays import Floats

_TOKENS = 1024  # that are rehearsed, each with its mirror image
_SPREADS = {"mlp": 0.25, "attn": 0.25}  # of the logarithm of a write over tokens: about that of small Llama models
_COS_SPREAD = 0.1
_LARGEST_COS = 0.98
_TOGETHER = np.linspace(-0.95, 0.95, 39)  # correlations that are tried
_OTHER_COS = np.linspace(-0.25, 0.25, 51)  # … and, where none will do, so much is added to the cosine
_LARGEST_RATIO = 6.0  # ±, of the logarithm
_LENGTHS = (0.8, 1.2)  # fewest and most tokens of a prompt, times the published mean


def likeness(
    published: Published, shape: SimulationSize, *, prompts: int | None = None, tokens: tuple[int, int] | None = None
) -> Likeness:
    """What a simulation must be to resemble published profiles.

    Parameters
    ----------
    published
        The profiles.
    shape
        Sizes of the pretended model.
    prompts
        How many in all, shared by the classes as they share the published ones; None: as many as published.
    tokens
        The fewest and the most of a prompt; None: about as many as published.
    """
    begun = usual(shape.layers, shape.d_model)
    profiles = [published.of_class(number) for number in range(len(published.classes))]
    columns, strengths = _neurons(published, [_fitted(begun, one) for one in profiles], shape)
    lengths = [tokens or _lengths(one.tokens) for one in published.classes]
    sink, reach = heads_at_random(shape.random("likeness"), (shape.layers, shape.heads))
    strengths = [
        like_attention(one, profiles[number], sink, reach, round(sum(lengths[number]) / 2))
        for number, one in enumerate(strengths)
    ]
    counts = _shared([one.prompts for one in published.classes], prompts)
    cast = Cast.of_classes([one.name for one in published.classes], counts)
    return Likeness(cast, tuple(lengths), tuple(strengths), columns, sink, reach)


def _lengths(tokens: int) -> tuple[int, int]:
    """The fewest and the most tokens of a prompt of about so many, and a first one, which none of them counts."""
    low, high = (max(1, round(tokens * times)) for times in _LENGTHS)
    return low + 1, high + 1


def _shared(published: Sequence[int], prompts: int | None) -> list[int]:
    """Prompts of each class; at least one."""
    if prompts is None:
        return list(published)
    ends = np.round(np.cumsum(published) * (prompts / sum(published))).astype(int)
    return [int(count) for count in np.maximum(1, np.diff(ends, prepend=0))]


# --- the residual stream ----------------------------------------------------------------------------------------------


def _fitted(begun: Strengths, profiles: dict[str, Floats]) -> Strengths:
    """The strengths of one class as its profiles say them; `begun`: those of what no profile says."""
    layers = len(begun.output)
    known = {name: profiles.get(name, np.full(layers + (name == "resid_norm"), np.nan)) for name in _NEEDED}
    mlp_write = np.where(np.isnan(known["mlp_write_norm"]), known["mlp_out_norm"], known["mlp_write_norm"])
    resid = known["resid_norm"]
    middle = mlp_write - known["mlp_write_ratio"]
    start = resid[0] if np.isfinite(resid[0]) else np.log(begun.start)
    random = np.random.default_rng(0)
    stream = start + START_SPREAD * _mirrored(random.standard_normal(_TOKENS))
    found: dict[str, list[tuple[float, float, float]]] = {"attn": [], "mlp": []}
    turns = []
    for layer in range(layers):
        turned = []
        parts = ("attn", known["attn_write_norm"], middle[layer]), ("mlp", mlp_write, resid[layer + 1])
        for part, write, aim in parts:
            of_size, of_cos = (_mirrored(random.standard_normal(_TOKENS)) for _ in range(2))
            usually: Writes = getattr(begun, part)
            size = known[f"{part}_write_ratio"][layer] + stream.mean()
            size = write[layer] if np.isnan(size) else size
            size = np.log(usually.size[layer]) + stream.mean() if np.isnan(size) else size
            size = np.clip(size - stream.mean(), -_LARGEST_RATIO, _LARGEST_RATIO) + stream.mean()
            ratio = np.exp(size + _SPREADS[part] * of_size - stream)
            cos, free = known[f"{part}_write_cos"][layer], False
            if np.isnan(cos):
                cos, free = float(np.tanh(usually.cos[layer])), True
            location, together = _grown(ratio, of_size, of_cos, cos, aim - stream.mean(), free=free)
            cosines = np.tanh(_mixed(of_size, of_cos, location, together))
            found[part].append((float(np.exp(size)), location, together))
            stream = stream + np.log(growth(ratio, cosines))
            turned.append((ratio, cosines))
        turns.append(_turn(turned, known["resid_cos"][layer]))
    writes = {part: _writes(part, rows) for part, rows in found.items()}
    output = known["mlp_out_norm"] - known["mlp_write_norm"]
    return replace(
        begun,
        start=float(np.exp(start)),
        attn=writes["attn"],
        mlp=writes["mlp"],
        steady=True,
        output=np.exp(np.where(np.isfinite(output), output, 0)),
        turn=np.array(turns),
    )


_NEEDED = ("mlp_write_norm", "mlp_out_norm", "attn_write_norm", "mlp_write_ratio", "attn_write_ratio", "mlp_write_cos",
           "attn_write_cos", "resid_norm", "resid_cos")  # fmt: skip


def _mirrored(numbers: Floats) -> Floats:
    """Numbers and their opposites, so that their mean is 0."""
    return np.concatenate([numbers, -numbers])


def _mixed(of_size: Floats, of_cos: Floats, location: float, together: float) -> Floats:
    return np.asarray(location + _COS_SPREAD * (together * of_size + np.sqrt(1 - together**2) * of_cos))


def _grown(
    ratio: Floats, of_size: Floats, of_cos: Floats, cos: float, aim: float, *, free: bool
) -> tuple[float, float]:
    """Where the cosines of writes lie, and their correlation with sizes, so that the stream grows by `aim` in the mean.

    Parameters
    ----------
    ratio
        Writes / residual, [token].
    of_size, of_cos
        The random numbers behind them, and behind the cosines.
    cos
        The mean cosine.
    aim
        Mean logarithm of the growth; NaN: any.
    free
        Whether the cosine is not known, and may be any that makes the stream grow so.
    """
    location = _location(cos, of_cos)
    if np.isnan(aim):
        return location, 0.0

    def grows(location: float, together: float) -> float:
        return float(np.log(growth(ratio, np.tanh(_mixed(of_size, of_cos, location, together)))).mean())

    if not free:
        tried = [grows(location, together) for together in _TOGETHER]
        if tried[0] <= aim <= tried[-1]:
            return location, float(np.interp(aim, tried, _TOGETHER))
    together = 0.0 if free else float(_TOGETHER[0 if aim < tried[0] else -1])
    others = np.linspace(-_LARGEST_COS, _LARGEST_COS, 99) if free else cos + _OTHER_COS
    locations = [_location(one, of_cos) for one in others]
    tried = [grows(one, together) for one in locations]
    return float(np.interp(aim, tried, locations)), together


def _location(cos: float, of_cos: Floats) -> float:
    """Mean of the inverse hyperbolic tangents of cosines of this mean."""
    cos = float(np.clip(cos, -_LARGEST_COS, _LARGEST_COS))
    location = float(np.arctanh(cos))
    for _ in range(3):
        location += (cos - float(np.tanh(location + _COS_SPREAD * of_cos).mean())) / (1 - cos**2)
    return location


def _turn(additions: Sequence[tuple[Floats, Floats]], cos: float) -> float:
    """How far the MLP goes on where attention went, so that block input and output have this mean cosine."""
    if np.isnan(cos):
        return 0.0
    without, further = (resid_cosine(*additions, turn).mean() for turn in (0.0, 1.0))
    return float(np.clip((cos - without) / max(further - without, 1e-9), -1, 1))


def _writes(part: str, rows: Sequence[tuple[float, float, float]]) -> Writes:
    size, cos, together = np.array(rows).T
    return Writes(size, np.full(len(size), _SPREADS[part]), cos, np.full(len(size), _COS_SPREAD), together)


# --- neurons ----------------------------------------------------------------------------------------------------------


def _neurons(
    published: Published, strengths: Sequence[Strengths], shape: SimulationSize
) -> tuple[Floats, list[Strengths]]:
    """Column norms and coherence that give the neurons the published norm: the model's part, and each class's own."""
    profile = published.profiles.get("neuron_norm")
    if profile is None:
        return np.ones(published.sizes["layers"]), list(strengths)
    output = np.log([one.typical_output() for one in strengths])
    excess = profile - output - np.log(neuron_norm_per_output(shape.d_ff, shape.top_k))
    common = np.array([column[np.isfinite(column)].mean() if np.isfinite(column).any() else 0 for column in excess.T])
    own = np.where(np.isfinite(excess), excess - common, 0)
    return np.exp(-common), [replace(one, coherence=np.exp(-2 * row)) for one, row in zip(strengths, own, strict=True)]
