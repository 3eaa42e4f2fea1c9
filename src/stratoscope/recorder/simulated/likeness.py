"""What a simulation must be like so that its class profiles come out as those that were published.

The additions to the residual stream are rehearsed layer by layer on tokens that are drawn once: writes are made as
large as published, and sizes and cosines are correlated over tokens so that the stream grows as published. Nothing but
the published profiles enters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stratoscope.recorder.simulated.activity import START_SPREAD, carried, growth, neuron_norm_per_output, resid_cosine
from stratoscope.recorder.simulated.attention_likeness import like_attention
from stratoscope.recorder.simulated.cast import Cast
from stratoscope.recorder.simulated.model import SimulationSize, heads_at_random
from stratoscope.recorder.simulated.published import Published
from stratoscope.recorder.simulated.strengths import Likeness, Strengths, Writes, usual
from stratoscope.trace.arrays import Floats

_TOKENS = 1024  # that are rehearsed, each with its mirror image
_SPREAD, _COS_SPREAD = 0.25, 0.12  # over tokens, of the logarithm of a write and of its cosine …
_BETWEEN = 0.2  # … and over prompts, as a share of these: about those of small Llama models
# … and times both, where no correlation makes the stream grow as published
_WIDER = ((1, 1), (1, 2), (1.5, 1.5), (2, 2), (3, 2), (0.5, 1))
_LARGEST_COS = 0.98
_TOGETHER = np.linspace(-0.95, 0.95, 39)  # correlations that are tried
_OTHER_COS = np.linspace(-0.25, 0.25, 51)  # … and, where none will do, so much is added to the cosine
_LARGEST_RATIO = 6.0  # ±, of the logarithm
_SAME = 0.02  # logarithms that are so near each other are those of one thing
_LENGTHS_SPREAD = 0.2  # ±, of the tokens of a prompt, as a share of the published mean


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
    sink, reach = heads_at_random(shape.random("likeness"), (shape.layers, shape.heads))
    middle = sink.mean(axis=1)
    begun = replace(usual(shape.layers, shape.d_model), head_sink=middle)
    profiles = [published.of_class(number) for number in range(len(published.classes))]
    columns, strengths = _neurons(published, [_fitted(begun, one) for one in profiles], shape)
    lengths = [tokens or _lengths(one.tokens) for one in published.classes]
    sink -= middle[:, None]
    strengths = [
        like_attention(one, profiles[number], sink, reach, round(sum(lengths[number]) / 2))
        for number, one in enumerate(strengths)
    ]
    counts = _shared([one.prompts for one in published.classes], prompts)
    cast = Cast.of_classes([one.name for one in published.classes], counts)
    return Likeness(cast, tuple(lengths), tuple(strengths), columns, sink, reach)


def _lengths(tokens: int) -> tuple[int, int]:
    """The fewest and the most tokens of a prompt of about so many, and a first one, which none of them counts."""
    spread = round(_LENGTHS_SPREAD * tokens)
    return tokens - spread + 1, tokens + spread + 1


def _shared(published: Sequence[int], prompts: int | None) -> list[int]:
    """Prompts of each class; at least one."""
    if prompts is None:
        return list(published)
    ends = np.round(np.cumsum(published) * (prompts / sum(published))).astype(int)
    return [int(count) for count in np.maximum(1, np.diff(ends, prepend=0))]


# --- the residual stream ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Aims:
    """What is published of the writes of attention, or of the MLPs: logarithms, (layer,), NaN where nothing is.

    `cos` is no logarithm; `after` is the length of the stream behind the write.
    """

    ratio: Floats
    write: Floats
    cos: Floats
    after: Floats

    def size(self, layer: int, stream: float, usual: Writes) -> float:
        """The typical write to a stream of this length: as published, else the usual one."""
        size = self.ratio[layer] + stream if np.isfinite(self.ratio[layer]) else self.write[layer]
        size = size if np.isfinite(size) else np.log(usual.size[layer]) + stream
        return float(np.clip(size, stream - _LARGEST_RATIO, stream + _LARGEST_RATIO))


def _fitted(begun: Strengths, profiles: Mapping[str, Floats]) -> Strengths:
    """The strengths of one class as its profiles say them; `begun`: those of what no profile says."""
    layers = len(begun.output)
    known = {name: profiles.get(name, np.full(layers + extra, np.nan)) for name, extra in _OF_THE_STREAM.items()}
    of_attention, of_mlp = _aims(known)
    begins = known["resid_norm"][0]
    start = float(np.exp(begins)) if np.isfinite(begins) else begun.start
    random = np.random.default_rng(0)
    stream = np.log(start) + START_SPREAD * _mirrored(random)
    attn: list[tuple[float, ...]] = []
    mlp: list[tuple[float, ...]] = []
    turn = []
    drawn = [_mirrored(random), _mirrored(random)]
    for layer in range(layers):
        additions = []
        drawn = [carried(before, _mirrored(random)) for before in drawn] if layer else drawn
        parts = ((begun.attn, of_attention, attn), (begun.mlp, of_mlp, mlp))
        for (usually, aims, rows), of_size in zip(parts, drawn, strict=True):
            size = aims.size(layer, stream.mean(), usually)
            tokens = _Tokens(size - stream, of_size, _mirrored(random))
            spread, *cosines = _grown(tokens, aims.cos[layer], usually.cos[layer], aims.after[layer] - stream.mean())
            rows.append((float(np.exp(size)), spread, *cosines))
            additions.append((tokens.ratio(spread), tokens.cosines(*cosines)))
            stream = stream + np.log(growth(*additions[-1]))
        turn.append(_turn(additions[0], additions[1], known["resid_cos"][layer]))
    writes = Writes(*np.array(mlp).T)
    output = known["mlp_out_norm"] - np.log(writes.size)
    is_write = np.isnan(output) | (np.abs(output) < _SAME)
    return replace(
        begun,
        start=start,
        attn=Writes(*np.array(attn).T),
        mlp=writes,
        steady=True,
        between=_BETWEEN,
        turn=np.array(turn),
        output=np.where(is_write, 1, np.exp(output)),
    )


_OF_THE_STREAM = {  # quantity → rows beyond those of layers
    **dict.fromkeys(("mlp_write_norm", "mlp_out_norm", "attn_write_norm", "mlp_write_ratio", "attn_write_ratio"), 0),
    **dict.fromkeys(("mlp_write_cos", "attn_write_cos", "resid_cos"), 0),
    "resid_norm": 1,
}


def _aims(known: Mapping[str, Floats]) -> tuple[_Aims, _Aims]:
    """What is published of attention's writes and of the MLPs'."""
    resid, attn, mlp = known["resid_norm"], known["attn_write_ratio"], known["mlp_write_ratio"]
    written = known["mlp_write_norm"]
    if np.isnan(written).all():  # without a norm behind the MLP, its output is what it writes
        before = known["mlp_out_norm"] - mlp - resid[:-1]
        most = np.log1p(np.exp(attn)) + _SAME
        written = np.where((np.abs(before) <= most).mean() > 0.5, known["mlp_out_norm"], written)
    middle = written - mlp
    return (
        _Aims(attn, known["attn_write_norm"], known["attn_write_cos"], middle),
        _Aims(mlp, written, known["mlp_write_cos"], resid[1:]),
    )


def _mirrored(random: np.random.Generator) -> Floats:
    """Standard normal numbers and their opposites, so that their mean is 0."""
    numbers = random.standard_normal(_TOKENS)
    return np.concatenate([numbers, -numbers])


@dataclass(frozen=True)
class _Tokens:
    """Tokens whose writes are rehearsed: typical sizes / residual, as logarithms, and the random numbers; [token]."""

    size: Floats
    of_size: Floats
    of_cos: Floats

    def ratio(self, spread: float) -> Floats:
        return np.asarray(np.exp(self.size + spread * self.of_size))

    def cosines(self, location: float, spread: float, together: float) -> Floats:
        mixed = together * self.of_size + np.sqrt(1 - together**2) * self.of_cos
        return np.asarray(np.tanh(location + spread * mixed))

    def growth(self, spread: float, location: float, cos_spread: float, together: float) -> float:
        """Mean logarithm of how much longer the stream becomes."""
        return float(np.log(growth(self.ratio(spread), self.cosines(location, cos_spread, together))).mean())


def _grown(tokens: _Tokens, cos: float, usual: float, aim: float) -> tuple[float, float, float, float]:
    """Spread of the sizes, location and spread of the cosines, correlation of both: so that the stream grows by `aim`.

    Parameters
    ----------
    tokens
        Those that are rehearsed.
    cos
        The mean cosine; NaN: any that makes the stream grow so.
    usual
        Where cosines lie that nothing is known of.
    aim
        Mean logarithm of the growth; NaN: any.
    """
    if np.isnan(aim):
        location = usual if np.isnan(cos) else _location(cos, tokens.of_cos, _COS_SPREAD)
        return _SPREAD, location, _COS_SPREAD, 0.0
    nearest, off = (_SPREAD, _COS_SPREAD, 0.0), np.inf
    for times, cos_times in () if np.isnan(cos) else _WIDER:
        spread, cos_spread = _SPREAD * times, _COS_SPREAD * cos_times
        location = _location(cos, tokens.of_cos, cos_spread)
        low, high = (tokens.growth(spread, location, cos_spread, together) for together in _TOGETHER[[0, -1]])
        if low <= aim <= high:
            grows = [tokens.growth(spread, location, cos_spread, together) for together in _TOGETHER]
            return spread, location, cos_spread, float(np.interp(aim, grows, _TOGETHER))
        if max(low - aim, aim - high) < off:
            nearest, off = (spread, cos_spread, float(_TOGETHER[0 if aim < low else -1])), max(low - aim, aim - high)
    spread, cos_spread, together = nearest
    others = np.linspace(-_LARGEST_COS, _LARGEST_COS, 99) if np.isnan(cos) else cos + _OTHER_COS
    locations = [_location(one, tokens.of_cos, cos_spread) for one in others]
    grows = [tokens.growth(spread, one, cos_spread, together) for one in locations]
    return spread, float(np.interp(aim, grows, locations)), cos_spread, together


def _location(cos: float, of_cos: Floats, spread: float) -> float:
    """Mean of the inverse hyperbolic tangents of cosines of this mean, which are spread so far."""
    cos = float(np.clip(cos, -_LARGEST_COS, _LARGEST_COS))
    location = float(np.arctanh(cos))
    for _ in range(3):
        location += (cos - float(np.tanh(location + spread * of_cos).mean())) / (1 - cos**2)
    return location


def _turn(attn: tuple[Floats, Floats], mlp: tuple[Floats, Floats], cos: float) -> float:
    """How far the MLP goes on where attention went, so that block input and output have this mean cosine."""
    if np.isnan(cos):
        return 0.0
    without, further = (resid_cosine(attn, mlp, turn).mean() for turn in (0.0, 1.0))
    return float(np.clip((cos - without) / max(further - without, 1e-9), -1, 1))


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
