"""Find a model's head, and norms anywhere, by what they compute on the probe prompt; no architecture is named."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.model.devices import weights_at_hand
from stratoscope.model.head import ONE_PLUS, PLAIN, Head, Norm, Unproved, scaled
from stratoscope.model.search.calls import Call, Tail, same
from stratoscope.model.sites import unit_roundoff

_LARGEST_EPS = 0.01


def rows(tensor: Tensor) -> Tensor:
    """All leading axes as one."""
    return tensor.reshape(-1, tensor.shape[-1])


def named(model: nn.Module, path: str) -> str:
    """A module's path and class, in words."""
    return f"{path} ({type(model.get_submodule(path)).__name__})"


# --- norms ------------------------------------------------------------------------------------------------------------


def find_norm(model: nn.Module, call: Call) -> Norm | None:
    """The norm that a call is of; None where its output over its input is not s_t·γ_d.

    The error may be 1e-5 (the largest seen in float32) and three roundings to the model's dtype: of the normed value,
    of 1 + weight or the product with the weight, and of the sum with β.
    """
    x, y = call.x, call.y
    if x is None or y is None or x.shape != y.shape:
        return None
    module = model.get_submodule(call.path)
    with weights_at_hand(module):
        own = [*module.named_parameters(recurse=False)]
        vectors = {name: part.detach().to(y.device).float() for name, part in own if part.shape == y.shape[-1:]}
    kept = [value for value in vars(module).values() if isinstance(value, float) and 0 < value <= _LARGEST_EPS]
    kept = kept or [0.0, torch.finfo(x.dtype).eps]  # a norm that keeps no eps adds none, or what torch adds
    tried = (_tried(norm, vectors, x.to(y.device), y) for norm in _norms(call.path, [*vectors], kept))
    best = min(tried, key=lambda norm: norm.error)
    return best if best.error <= 1e-5 + 3 * unit_roundoff(y.dtype) else None


def _norms(path: str, vectors: Sequence[str], kept: Sequence[float]) -> Iterator[Norm]:
    """Every formula that these parameters allow."""
    gains = [*itertools.product(vectors, (PLAIN, ONE_PLUS)), ("", PLAIN)]
    for (gain, gain_is), centred, eps in itertools.product(gains, (False, True), kept):
        for bias in (*(name for name in vectors if name != gain), ""):
            yield Norm(path, gain, gain_is, bias, centred, eps)


def _tried(norm: Norm, vectors: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Norm:
    """The norm with its largest error; sizes are those of the numbers that are added, so that cancelling counts."""
    scale = norm.scale(x) * (norm.gamma(vectors[norm.gain]) if norm.gain else 1.0)
    centred = norm.centre(x)
    expected, size = scale * centred, scale.abs() * (x.float().abs() + (x.float() - centred).abs())
    if norm.bias:
        expected, size = expected + vectors[norm.bias], size + vectors[norm.bias].abs()
    return replace(norm, error=_worst(expected, y, size))


def _worst(expected: Tensor, y: Tensor, size: Tensor | None = None) -> float:
    """The largest error relative to size, or to what is expected; infinity where it is no number."""
    size = expected.float().abs() if size is None else size
    error = ((expected.float() - y.float()).abs() / (size + torch.finfo(y.dtype).tiny)).max()
    return float(error.nan_to_num(nan=torch.inf))


# --- linear maps ------------------------------------------------------------------------------------------------------


def is_linear(weight: Tensor, bias: Tensor | None, call: Call) -> bool:
    """Whether what a call gave is W x + b of what it was given, within what rounding can do."""
    if call.x is None or call.y is None or weight.shape != (call.y.shape[-1], call.x.shape[-1]):
        return False
    x, y = (rows(tensor) for tensor in (call.x, call.y))
    again = nn.functional.linear(x, weight, bias)
    return bool(((again - y).float().abs() <= linear_error(weight, x, y)).all())


def linear_error(weight: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """What rounding may do to y = W x + b, elementwise, float32: sums of numbers are rounded as y is, twice."""
    wide = torch.promote_types(x.dtype, torch.float32)
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
    size = size * torch.linalg.vector_norm(weight, dim=-1, dtype=wide)
    typical = size / x.shape[-1] ** 0.5  # size of a sum of numbers of random signs
    error: Tensor = 2 * unit_roundoff(y.dtype) * (y.float().abs() + typical) + 1e-6 * size
    return error


# --- the head ---------------------------------------------------------------------------------------------------------


def find_head(model: nn.Module, stream: Tensor, tail: Tail) -> Head | Unproved:
    """The head of a model whose last block gave `stream`, or why it is not one.

    unembed(norm(x_L)) is computed by the model's own modules and compared with the model's logits: bit-equal, or, where
    a factor or a soft-cap is computed anew, within four roundings.
    """
    path = _unembedding(model, tail)
    call = next((call for call in tail.calls if call.path == path), None)
    if tail.logits is None or call is None or call.x is None or call.y is None:
        return Unproved("the model gives no logits, or not by a linear map of its own")
    transposed = _orientation(model, call)
    if transposed is None:
        return Unproved(f"{named(model, path)} is not W x + b")
    readers = [one for one in tail.calls if one.x is not None and same(one.x, stream.to(one.x.dtype))]
    if not readers:
        return Unproved("no module reads what the last block gives")
    norms = ((norm, one) for one in readers if (norm := find_norm(model, one)) is not None)
    norm, reader = (None, call) if call in readers else next(norms, (None, None))
    if reader is None:
        return Unproved(f"{named(model, readers[0].path)} reads what the last block gives, and is no norm")
    known, caps = _numbers(model), _numbers(model, "cap")
    before, behind = (
        _scaling(reader.y if norm else reader.x, call.x, known),
        _scaling(call.y, tail.logits, known, caps),
    )
    if before is None:
        between = [named(model, one.path) for one in tail.calls[: tail.calls.index(call)] if _is_matrix(model, one)]
        return Unproved(
            f"more than a factor stands between the final norm and {path}: {', '.join(between) or 'a function'}"
        )
    if behind is None:
        return Unproved(f"the logits are not the output of {path} times a factor, nor a soft-cap of that")
    head = Head(norm, path, transposed, before[0], *behind)
    again = head.unembed(model, head.normed(model, reader.x))  # type: ignore[arg-type]
    exact = same(again, tail.logits) or same(again.to(tail.logits.dtype), tail.logits)
    if not exact and _worst(again, tail.logits) > 4 * unit_roundoff(call.y.dtype):
        return Unproved("unembedding the final norm of the last block's output does not give the logits")
    return replace(head, exact=exact)


def _unembedding(model: Any, tail: Tail) -> str:
    """Path of the model's output embedding, or of the last linear map that is as wide as the logits."""
    try:
        output = model.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        output = None
    width = 0 if tail.logits is None else tail.logits.shape[-1]
    wide = [one for one in tail.calls if one.y is not None and one.y.shape[-1] == width and _is_matrix(model, one)]
    own = (one.path for one in tail.calls if model.get_submodule(one.path) is output)
    return next(own, wide[-1].path if wide else "")


def _is_matrix(model: nn.Module, call: Call) -> bool:
    weight = getattr(model.get_submodule(call.path), "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 2


def _orientation(model: nn.Module, call: Call) -> bool | None:
    """Whether a map stores its weight [in, out]; None where it is no linear map."""
    module: Any = model.get_submodule(call.path)
    if not _is_matrix(model, call):
        return None
    with weights_at_hand(module):
        weight, bias = module.weight.detach(), getattr(module, "bias", None)
    return next((way for way in (False, True) if is_linear(weight.T if way else weight, bias, call)), None)


# --- factors and soft-caps --------------------------------------------------------------------------------------------


def _scaling(
    one: Tensor | None, other: Tensor, known: Sequence[float], caps: Sequence[float] = ()
) -> tuple[float, float | None] | None:
    """The factor, and the soft-cap if there is one, that make one tensor the other within four roundings.

    The formula with the least error; a factor is a known number or 1 over one where it nearly is, and always where
    there is a soft-cap. What is no arithmetic must be bit-equal, and no error may grow with what is scaled.
    """
    if one is None or one.numel() != other.numel():
        return None
    one, other = rows(one).to(other.device), rows(other)
    if same(one.to(other.dtype), other):
        return 1.0, None
    largest = float(other.abs().max())
    factor = _factor(one, other, known)
    tried: list[tuple[float, float | None]] = [(factor, None)] if factor != 1 else []
    for cap in (cap for cap in caps if cap >= largest):
        uncapped = torch.atanh((other.float() / cap).clamp(-1 + 1e-6, 1 - 1e-6)) * cap
        factors = {1.0, _factor(one, uncapped, known)} & {1.0, *known, *(1 / number for number in known)}
        tried += [(factor, cap) for factor in factors]
    made = [scaled(one, *formula) for formula in tried]
    errors = [_worst(expected, other) for expected in made]
    best = errors.index(min(errors)) if tried else 0
    roundoff = max(unit_roundoff(one.dtype), unit_roundoff(other.dtype))
    proved = bool(tried) and errors[best] <= 4 * roundoff and not _systematic(one, made[best], other, roundoff)
    return tried[best] if proved else None


def _systematic(one: Tensor, expected: Tensor, other: Tensor, roundoff: float) -> bool:
    """Whether the relative error grows with the numbers or their squares, beyond chance and half a rounding."""
    values, order = one.float().flatten().sort()
    first = order[torch.cat([values[:1] == values[:1], values[1:] != values[:-1]])]  # equal numbers have equal errors
    size, made = expected.float().flatten()[first], other.float().flatten()[first]
    error = (made - size)[size != 0] / size[size != 0]
    for grown in (size[size != 0], size[size != 0].square()):
        grown = grown - grown.mean()
        covariance, chance = (error * grown).sum(), 5 * (error * grown).square().sum().sqrt()
        at_most = covariance.abs() / grown.square().sum() * grown.abs().max()
        if bool((covariance.abs() > chance) & (at_most > roundoff / 2)):
            return True
    return False


def _factor(one: Tensor, other: Tensor, known: Sequence[float]) -> float:
    """What makes one tensor the other, by least squares."""
    one, other = one.float().flatten(), other.float().flatten()
    factor = float(one @ other) / max(float(one @ one), torch.finfo(torch.float32).tiny)
    nearest = min((1.0, *known, *(1 / number for number in known)), key=lambda number: abs(number - factor))
    return nearest if abs(nearest - factor) <= 1e-3 * abs(factor) else factor


def _numbers(model: Any, setting: str = "") -> list[float]:
    """The positive numbers that the model's configuration keeps, in settings of this name."""
    settings = model.config.get_text_config().to_dict().items()
    kept = [number for name, number in settings if setting in name.replace("capacity", "")]
    return [float(one) for one in kept if isinstance(one, (int, float)) and not isinstance(one, bool) and one > 0]
