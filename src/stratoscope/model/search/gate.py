"""Find what stands in front of an MLP's neurons, and the norms in a block, by what was computed on the probe prompt."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.model.experts import Routed
from stratoscope.model.gate import HALVES, INTERLEAVED, ONE, SEPARATE, BlockMaps, Gate, LinearMap, split
from stratoscope.model.head import Norm
from stratoscope.model.search.calls import BlockCall, Call, same
from stratoscope.model.search.head import find_norm, is_linear, linear_error, named, rows
from stratoscope.model.sites import Experts, LayerSites, Site, unit_roundoff

_EXPERT_ROWS = 8  # neurons of routed experts that are computed anew, each of another expert while there are any
_MUCH = 1000.0  # beyond every clamp
_FUSED = ((HALVES, True), (HALVES, False), (INTERLEAVED, True), (INTERLEAVED, False))

Places = tuple[Tensor, Tensor] | None  # of g and of u in what a function is given

# for a model that calls a function rather than a module
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": nn.functional.silu,
    "gelu": nn.functional.gelu,
    "gelu_tanh": lambda x: nn.functional.gelu(x, approximate="tanh"),
    "relu": nn.functional.relu,
    "relu2": lambda x: nn.functional.relu(x).square(),
}


def find_maps(model: nn.Module, block: BlockCall, sites: LayerSites, routed: Mapping[str, Routed]) -> BlockMaps:
    """The norms of a block and the maps of its neurons, each proved, or a clause that says why not."""
    return _MapSearch(model, block, sites, routed).maps()


@dataclass(frozen=True)
class _Part:
    """What a linear map gave, or every second number or one half of that: perhaps g or u."""

    call: Call
    values: Tensor
    layout: str = SEPARATE
    gate_first: bool = True  # if these are g


class _MapSearch:
    """The search in one block."""

    def __init__(self, model: nn.Module, block: BlockCall, sites: LayerSites, routed: Mapping[str, Routed]) -> None:
        self.model, self.block, self.sites, self.routed = model, block, sites, routed
        self.calls = {call.path: call for call in block.inner}
        self.limits: list[str] = []

    def maps(self) -> BlockMaps:
        """What was found."""
        sites = self.sites
        tried = [self._dense(sites.neurons.module)] if sites.neurons else []
        tried += [self._experts(sites.experts)] if sites.experts else []
        gates = tuple(gate for gate in tried if gate is not None)
        residual = self.calls[sites.middle.module] if sites.middle else self.block.call
        read = None if not gates else self.calls[gates[-1].module].x
        return BlockMaps(
            self._norm(residual.x, read, "norm not proved: the MLP reads other than one norm of the residual stream"),
            self._norm(
                self._y(sites.attn_out),
                self._y(sites.attn_write),
                "norm not proved: attention writes other than one norm",
            ),
            self._norm(
                self._y(sites.mlp_out), self._y(sites.mlp_write), "norm not proved: the MLP writes other than one norm"
            ),
            gates,
            tuple(self.limits),
        )

    def _y(self, place: Site | str | None) -> Tensor | None:
        path = place.module if isinstance(place, Site) else place
        return self.calls[path].y if path in self.calls else None

    def _norm(self, x: Tensor | None, y: Tensor | None, limit: str) -> Norm | None:
        """The norm that makes y of x; None where they are the same, or there is none."""
        if x is None or y is None:
            return None
        made = [c for c in self.calls.values() if c.x is not None and same(c.y, y) and same(c.x, x.to(c.x.dtype))]
        if not x.any() and any(getattr(self.model.get_submodule(c.path), "weight", x).ndim == 1 for c in made):
            self.limits.append("norm not proved: what it is given is 0 on the probe prompt")
            return None
        if same(x.to(y.dtype), y):
            return None
        norm = next((norm for call in made if (norm := find_norm(self.model, call)) is not None), None)
        if norm is None:
            self.limits.append(limit)
        return norm

    # --- dense MLPs ---------------------------------------------------------------------------------------------------

    def _dense(self, last: str) -> Gate | None:
        """The maps whose outputs make the input of this linear map."""
        before = [*itertools.takewhile(lambda call: call.path != last, self.block.inner)][::-1]
        given = self.calls[last].x
        assert given is not None
        a = rows(given)
        if not a.any():
            self.limits.append("gate not proved: its neurons are 0 on the probe prompt")
            return None
        parts = [part for call in before for part in self._parts(call, a)]
        for name, g, activated in self._activated(before, parts, a):
            for gate in self._products(name, g, activated, parts, a):
                if (proved := self._linear(gate)) is not None:
                    return proved
        made = next((f", but what {named(self.model, call.path)} gives" for call in before if same(call.y, a)), "")
        self.limits.append(
            f"gate not proved: neurons are not act(g)·u of what linear maps give{made}".replace(
                f"{self.block.call.path}.", ""
            )
        )
        return None

    def _parts(self, call: Call, a: Tensor) -> Iterator[_Part]:
        """What a linear map gave, if it is as wide as the neurons or twice as wide."""
        weight = getattr(self.model.get_submodule(call.path), "weight", None)
        if call.y is None or not isinstance(weight, Tensor) or weight.ndim != 2:
            return
        y = rows(call.y)
        if y.shape == a.shape:
            yield _Part(call, y)
        elif y.shape == (a.shape[0], 2 * a.shape[1]):
            yield from (_Part(call, split(y, *how)[0], *how) for how in _FUSED)

    def _activated(self, before: list[Call], parts: list[_Part], a: Tensor) -> Iterator[tuple[str, _Part, Tensor]]:
        """An activation's name, what it was given, and what it made of that: modules first, then functions."""
        maps = {part.call.path for part in parts}
        for call in before:
            if call.path not in maps and call.x is not None and call.y is not None and call.y.numel() == a.numel():
                module, made = self.model.get_submodule(call.path), call.y.reshape(a.shape)
                for part in parts:
                    if same(call.x, part.values) and _by_neuron(module, part.values, made):
                        yield type(module).__name__, part, made
        for name, function in _FUNCTIONS.items():
            yield from ((name, part, function(part.values)) for part in parts)

    def _products(self, name: str, g: _Part, activated: Tensor, parts: list[_Part], a: Tensor) -> Iterator[Gate]:
        """The ways in which this is act(g), and the neurons act(g) or act(g)·u."""
        if g.layout == SEPARATE and _equal(activated, a):
            yield Gate(g.call.path, ONE, name)
        for u in parts:
            if _may_be_pair(g, u) and _equal(activated * u.values, a):
                up = u.call.path if g.layout == SEPARATE else None
                yield Gate(g.call.path, g.layout, name, up, gate_first=g.gate_first)

    def _linear(self, gate: Gate) -> Gate | None:
        """The gate, if what its modules gave is W x + b of what they were given."""
        paths = [path for path in (gate.module, gate.up) if path]
        for way in (gate, replace(gate, transposed=True)):
            if all(is_linear(*way.stored(self.model, path), self.calls[path]) for path in paths):
                return way
        return None

    # --- routed experts -----------------------------------------------------------------------------------------------

    def _experts(self, experts: Experts) -> Gate | None:
        """The stacked maps whose outputs make the neurons of routed experts."""
        module: Any = self.model.get_submodule(experts.module)
        x, routed = self.calls[experts.module].x, self.routed[experts.module]
        name = "gate_up_proj" if module.has_gate else "up_proj"
        function = module._apply_gate if module.has_gate else module.act_fn
        activation = getattr(module, "act_fn", None)
        named_as = type(activation if isinstance(activation, nn.Module) else module).__name__
        form = Gate(experts.module, ONE, named_as, None, name, f"{name}_bias", transposed=experts.transposed)
        if x is not None and isinstance(getattr(module, name, None), Tensor):
            maps, (token, choice) = form.stored(self.model, experts.module), _sample(routed.experts)
            x, a, ids = rows(x)[token], routed.neurons(experts.order)[token, choice], routed.experts[token, choice]
            if not a.any():
                self.limits.append("gate not proved: neurons of routed experts are 0 on the probe prompt")
                return None
            found = _outputs(maps, ids.tolist(), x) if maps.weight.shape[-1] == x.shape[-1] else None
            if found is not None and _gives(function, *found, a):
                gate = _form_of(function, form, found[0], function(found[0]))
                if gate is not None:
                    return gate
        self.limits.append(
            f"gate not proved: neurons of routed experts are not act(g)·u of {name} times what they read"
        )
        return None


def _may_be_pair(g: _Part, u: _Part) -> bool:
    """Whether two parts may be gate and up of one MLP: both of one fused map, or two maps of one input."""
    if g.layout == SEPARATE:
        return u.layout == SEPARATE and g.call is not u.call and same(g.call.x, u.call.x)
    return g.layout == u.layout and g.call is u.call and g.gate_first != u.gate_first


def _equal(product: Tensor, a: Tensor) -> bool:
    """Whether the neurons are that product, within two roundings."""
    limit = 2 * unit_roundoff(a.dtype) * product.float().abs() + torch.finfo(a.dtype).tiny
    return same(product, a) or bool(((product.float() - a.float()).abs() <= limit).all())


def _by_neuron(function: Callable[[Tensor], Tensor], given: Tensor, made: Tensor, places: Places = None) -> bool:
    """Whether a function makes each number of one neuron (of its g and u, if they have places) of one token alone."""
    random = torch.Generator().manual_seed(0)
    rows_, neurons = (torch.randperm(size, generator=random).to(given.device) for size in made.shape)
    kept = (torch.rand(made.shape, generator=random) < 0.5).to(given.device)
    moved, mixed = given[rows_], given.clone()
    for place in places or (torch.arange(given.shape[1], device=given.device),):
        moved[:, place] = moved[:, place[neurons]]
        # what a sum, a mean, or a maximum of a row or a column is made of, becomes another
        mixed[:, place] = torch.where(kept, given[:, place], 2 * moved[:, place].abs())
    errors = (made[rows_][:, neurons].float() - function(moved).float(), (made.float() - function(mixed).float())[kept])
    return all(bool((error.abs() <= 8 * unit_roundoff(made.dtype) * made.abs().max()).all()) for error in errors)


def _sample(experts: Tensor) -> tuple[Tensor, Tensor]:
    """Token and choice of some neurons, each of another expert while there are any."""
    flat = experts.flatten().tolist()
    first = sorted({expert: place for place, expert in reversed([*enumerate(flat)])}.values())
    places = torch.tensor(first[:_EXPERT_ROWS], device=experts.device)
    return places // experts.shape[1], places % experts.shape[1]


def _outputs(maps: LinearMap, experts: list[int], x: Tensor) -> tuple[Tensor, Tensor]:
    """W_e x + b_e of each row with its own expert, and what rounding may do to it."""
    pairs = [
        (maps.weight[e], None if maps.bias is None else maps.bias[e], row[None])
        for e, row in zip(experts, x, strict=True)
    ]
    given = [nn.functional.linear(row, weight, bias) for weight, bias, row in pairs]
    errors = [linear_error(weight, row, y) for (weight, _, row), y in zip(pairs, given, strict=True)]
    return torch.cat(given), torch.cat(errors)


def _gives(function: Callable[[Tensor], Tensor], given: Tensor, error: Tensor, a: Tensor) -> bool:
    """Whether the neurons are what a function makes of what it is given, which may be off by an error of any sign."""
    again = function(given).float()
    place = torch.arange(given.shape[1], device=given.device)
    signs = torch.stack([torch.ones_like(place), 1 - 2 * (place % 2), 1 - 2 * (2 * place // len(place))])
    moved = (function((given.float() + sign * error).to(given.dtype)).float() for sign in (*signs, *-signs))
    change = torch.stack([(other - again).abs() for other in moved]).amax(0)
    limit = 2 * change + 4 * unit_roundoff(a.dtype) * again.abs() + torch.finfo(a.dtype).tiny
    return bool(((again - a.float()).abs() <= limit).all())


def _form_of(function: Callable[[Tensor], Tensor], form: Gate, given: Tensor, made: Tensor) -> Gate | None:
    """The form in which a function of a map's output is act(g), or act(g)·(u + offset) of a fused one's."""
    if given.shape == made.shape:
        return form if _by_neuron(function, given, made) else None
    for layout, gate_first in _FUSED:
        places = split(torch.arange(given.shape[1], device=given.device), layout, gate_first)

        def with_up(number: float, places: tuple[Tensor, Tensor] = places) -> Tensor:
            return function(given.index_fill(1, places[1], number)).float()

        none, one, much = with_up(0.0), with_up(1.0), with_up(_MUCH)
        act, u = one - none, given[:, places[1]].float()
        size = act.square().sum().clamp(min=torch.finfo(torch.float32).tiny)
        offset, largest = (round(float((part * act).sum() / size), 3) for part in (none, much))
        clamp = None if largest - offset > 0.99 * _MUCH else largest - offset
        up = u if clamp is None else u.clamp(-clamp, clamp)
        limit = (
            4
            * unit_roundoff(given.dtype)
            * (act.abs() * (up.abs() + abs(offset)) + (none.abs() + one.abs()) * up.abs())
        )
        error = (act * (up + offset) - made.float()).abs()
        if bool((error <= limit + torch.finfo(given.dtype).tiny).all()) and _by_neuron(function, given, made, places):
            return replace(form, layout=layout, gate_first=gate_first, offset=offset + 0.0, clamp=clamp)
    return None
