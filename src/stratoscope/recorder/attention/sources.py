"""What attention brings to chosen tokens, split by the token that it came from; where it cannot be split, why.

A head gives z_q = Σ_k A[q,k]·v_k, and the output projection reads it, perhaps behind a norm or a gate that multiplies
each number of z. With that factor as the query has it, what reaches any direction of the residual stream is a sum over
source tokens k.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.errors import StratoscopeError
from stratoscope.model import sites as s
from stratoscope.model.search.find import in_layers
from stratoscope.model.sites import ModelSites, unit_roundoff
from stratoscope.recorder.attention.given import Given, GivenScores
from stratoscope.recorder.attention.rows import float32_unit
from stratoscope.recorder.attention.seen import SeenAttention
from stratoscope.recorder.reduce.scratch import Scratch
from stratoscope.words import capital

_PROBE_TOKENS = 8
_OTHERWISE = "its attention weights times its values are not what its attention gave"
_UNIT = 2.0**-24  # unit roundoff of float32
_ELEMENTWISE = 1e-4  # what float32 may leave of a derivative that should be 0, relative to the others

ReceiveHeld = Callable[[int, Given, Tensor, bool], None]


@dataclass(frozen=True)
class HeadSources:
    """What the heads of one layer took from every token of the batch, at N chosen tokens of each prompt.

    Attributes
    ----------
    weights, values
        A [B, H, N, K] of each query, 0 where it does not see a key, and v [B, H or fewer, K, D], float32. Both are
        valid until the next layer's.
    factor
        By what each number of z is multiplied before the output projection, [B, N, H, D]; None: by nothing.
    wrong
        Whether Σ_k A v was found not to be what the model's own attention gave: bool [B, N]; None: not compared. There
        the factor is NaN.
    """

    weights: Tensor
    values: Tensor
    factor: Tensor | None = None
    wrong: Tensor | None = None

    def along(self, vectors: Tensor) -> Tensor:
        """A[q,k]·⟨v_k, factor ⊙ u⟩ of vectors u that z is read along, [B, N, V, H·D]: [B, H, N, V, K]."""
        (batch, heads, queries, keys), count = self.weights.shape, vectors.shape[2]
        groups, width = self.values.shape[1], self.values.shape[3]
        read = vectors.view(batch, queries, count, heads, width)
        read = read if self.factor is None else read * self.factor[:, :, None]
        read = read.permute(0, 3, 1, 2, 4).reshape(batch * groups, -1, width)
        moved = torch.bmm(read, self.values.reshape(batch * groups, keys, width).transpose(1, 2))
        return moved.view(batch, heads, queries, count, keys) * self.weights[:, :, :, None]

    def along_all_heads(self, vectors: Tensor) -> Tensor:
        """The same, summed over the heads: [B, N, V, K], prompt by prompt."""
        found = vectors.new_empty(*vectors.shape[:3], self.weights.shape[3])
        for prompt in range(len(vectors)):
            found[prompt] = self.of_prompt(prompt).along(vectors[prompt : prompt + 1])[0].sum(0)
        return found

    def of_prompt(self, prompt: int) -> HeadSources:
        """Those of one prompt."""
        one = slice(prompt, prompt + 1)
        factor = None if self.factor is None else self.factor[one]
        return HeadSources(self.weights[one], self.values[one], factor)


class HeldAttention:
    """While open, and while a forward is expected, `receive` gets what each layer's attention was computed from.

    Parameters
    ----------
    model, sites
        The model and its proved sites.
    receive
        Called with a layer, its attention, what its output projection is given, and whether a factor stands between the
        two, when that projection is called.

    Attributes
    ----------
    limits
        Layer to why its attention cannot be split by source token: these layers are never handed over.
    """

    def __init__(self, model: nn.Module, sites: ModelSites, receive: ReceiveHeld) -> None:
        self._receive, self._layers = receive, len(sites.layers)
        self.limits, self._factors = probe_split(model, sites)
        self._seen = None
        if len(self.limits) < self._layers:
            self._seen = SeenAttention(model, self._layers, _projections(model, sites), self._attended, self._projected)
        self._given: dict[int, Given] = {}
        self._open = ExitStack()

    def __enter__(self) -> HeldAttention:
        with ExitStack() as stack:
            if self._seen is not None:
                stack.enter_context(self._seen)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
        self._open.close()

    def begin(self, valid: Tensor) -> None:
        """Expect a forward without earlier tokens in a cache; `valid` is bool [B, T], which tokens are no padding."""
        self.stop()
        if self._seen is not None:
            self._seen.expect((valid.shape[0], valid.shape[1]))

    def stop(self) -> None:
        """Expect no further forward."""
        self._given.clear()
        if self._seen is not None:
            self._seen.expect(None)

    def forget(self) -> None:
        """Let go of what a forward that failed has left."""
        self.stop()
        if self._seen is not None:
            self._seen.forget()

    def _attended(self, layer: int, given: Given) -> None:
        self._given[layer] = given

    def _projected(self, layer: int, reaching: Tensor) -> None:
        given = self._given.pop(layer, None)
        if given is not None and layer not in self.limits:
            self._receive(layer, given, reaching.detach(), layer in self._factors)


class AttentionSources:
    """While open, and while a forward is expected, `receive` gets what each layer's heads took from which token.

    Parameters
    ----------
    model, sites
        The model and its proved sites.
    receive
        Called with a layer and its heads' sources when the layer's output projection is called.
    """

    def __init__(self, model: nn.Module, sites: ModelSites, receive: Callable[[int, HeadSources], None]) -> None:
        self._receive = receive
        self._held = HeldAttention(model, sites, self._computed)
        self._scratch = Scratch(sites.devices(model)[0])
        self._valid = self._queries = torch.empty(0)
        self._begun = 0

    @property
    def limits(self) -> Mapping[int, str]:
        """Layer to why its attention cannot be split by source token: these layers are never handed over."""
        return self._held.limits

    def __enter__(self) -> AttentionSources:
        self._held.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._held.__exit__(kind, error, tb)

    def begin(self, valid: Tensor, queries: Tensor) -> None:
        """Split the next forward, one without earlier tokens in a cache.

        Parameters
        ----------
        valid
            Bool [B, T]: which tokens are no padding.
        queries
            Int [B, N]: the columns of the tokens whose attention is split.
        """
        self._held.begin(valid)
        self._valid, self._queries = valid, queries
        self._begun += 1

    def stop(self) -> None:
        """Split no further forward."""
        self._held.stop()

    def forget(self) -> None:
        """Let go of what a forward that failed has left."""
        self._held.forget()
        self._scratch.clear()

    def _computed(self, layer: int, given: Given, reaching: Tensor, multiplied: bool) -> None:
        compared = self._begun & (self._begun - 1) == 0  # forwards 1, 2, 4, 8, …
        split = _Split(given, reaching, self._valid, self._queries, self._scratch)
        self._receive(layer, split.sources(multiplied=multiplied, compared=compared))


class _Split:
    """One layer's attention at chosen queries, int [B, N]; `reaching` is what its output projection was given."""

    def __init__(self, given: Given, reaching: Tensor, valid: Tensor, queries: Tensor, scratch: Scratch) -> None:
        device, tokens = reaching.device, valid.shape[1]
        self._valid, self._queries, self._scratch = valid.to(device), queries.to(device), scratch
        if given.value.shape[2] > tokens:  # a cache of fixed size
            given = given.cropped(tokens)
        if isinstance(given, GivenScores):
            given = replace(given, key=self._contiguous("keys", given.key))
        self._given, self._chosen = given, given.chosen(self._queries)
        self._reaching = reaching

    def sources(self, *, multiplied: bool, compared: bool) -> HeadSources:
        """What heads took from which token, with the factors of z; compared with what the model itself computed."""
        number, tokens = self._queries.shape[1], self._valid.shape[1]
        rows, mask = self._chosen.over(self._valid.gather(1, self._queries), self._valid, 0, 0)
        visible = mask.rows(0, number, 0, tokens)
        weights = rows.applied(0, number, 0, tokens, visible, self._scratch) * visible[:, None]
        values = self._contiguous("values", self._given.value)
        if not (multiplied or compared):
            return HeadSources(weights, values)
        size, output, by_head = _attend(weights, values.abs()), self._chosen.output, self._by_head()
        factor = torch.where(output == 0, torch.where(size == 0, 0.0, torch.nan), by_head.float() / output.float())
        factor = factor if multiplied else torch.ones_like(factor)
        if not compared:
            return HeadSources(weights, values, factor.transpose(1, 2))
        rounding = max(4 * unit_roundoff(output.dtype), 4 * float32_unit(output.device)) + tokens * _UNIT
        bound = (rounding + rows.relative_error(0, number, visible)) * size + torch.finfo(torch.float32).tiny
        right = (_attend(weights, values) - output.float()).abs() <= bound
        right = right if multiplied else right & (by_head == output)
        wrong = ~right.all(-1).all(1)  # [B, N]; also of what is not finite
        return HeadSources(
            weights, values, factor.masked_fill(wrong[:, None, :, None], torch.nan).transpose(1, 2), wrong
        )

    def _by_head(self) -> Tensor:
        """What reached the output projection, [B, H, N, D]."""
        width = self._reaching.shape[-1]
        rows = self._reaching.view(*self._valid.shape, width).gather(1, self._queries[:, :, None].expand(-1, -1, width))
        return rows.view(*self._queries.shape, *self._chosen.output.shape[1::2]).transpose(1, 2)

    def _contiguous(self, name: str, tensor: Tensor) -> Tensor:
        """The tensor, float32 and contiguous; in scratch, as a fresh copy costs more than what is done with it."""
        if tensor.dtype == torch.float32 and tensor.is_contiguous():
            return tensor
        return self._scratch.get(f"sources/{name}", *tensor.shape, device=tensor.device).copy_(tensor)


def in_sentences(limits: Mapping[int, str], wrong: Collection[int] = ()) -> list[str]:
    """Where attention is not split by source token, for the receipt: in `wrong` layers, at times."""
    found = [
        f"{in_layers([layer for layer, why in limits.items() if why == one])}: not split by source token: {one}"
        for one in dict.fromkeys(limits.values())
    ]
    if wrong:
        found.append(f"{in_layers(sorted(wrong))}: at some tokens not split by source token: {_OTHERWISE}")
    return [f"{capital(one)}." for one in found]


# --- where attention cannot be split ----------------------------------------------------------------------------------


def probe_split(model: nn.Module, sites: ModelSites) -> tuple[dict[int, str], set[int]]:
    """Layer to why what its attention writes cannot be split by source token, and layers where a factor multiplies z.

    It is found out on a few tokens. What stands between a layer's attention and its output projection must multiply
    each number by itself, or be a norm: then its factor, as the query has it, splits as well. Automatic differentiation
    says so, whatever the code is.
    """
    probe, projections = _Probe(model, sites), _projections(model, sites)
    try:
        seen = SeenAttention(model, len(sites.layers), projections, probe.attended, probe.projected)
        ids = _some_tokens(model)
        with torch.enable_grad(), seen:
            seen.expect((1, _PROBE_TOKENS))
            model(input_ids=ids, use_cache=False)
    except StratoscopeError as error:
        return dict.fromkeys(_with_attention(sites), error.what), set()
    except Exception as error:  # nothing else needs this: it stops no recording
        why = f"the proof failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        return dict.fromkeys(_with_attention(sites), why), set()
    return probe.limits(), probe.multiplied


class _Probe:
    """Looks at the attention of each layer in one forward with gradients."""

    def __init__(self, model: nn.Module, sites: ModelSites) -> None:
        self._sites, self._scratch = sites, Scratch(sites.devices(model)[0])
        self._given: dict[int, Given] = {}
        self._why: dict[int, str] = {}
        self.multiplied: set[int] = set()

    def attended(self, layer: int, given: Given) -> None:
        if layer in self._given:
            self._why[layer] = "its attention is computed in several calls"
            return
        self._given[layer] = given
        given.answer.requires_grad_()  # changes no number, and only here: a forward of its own

    def projected(self, layer: int, reaching: Tensor) -> None:
        given = self._given.get(layer)
        if given is None or layer in self._why:
            return
        if not _is_elementwise(given, reaching):
            self._why[layer] = "more than a gate or a norm stands between its attention and its output projection"
            return
        valid, queries = torch.ones(1, _PROBE_TOKENS, dtype=torch.bool), torch.arange(_PROBE_TOKENS)[None]
        multiplied = not torch.equal(_laid_out(given, reaching), given.output)
        self.multiplied |= {layer} if multiplied else set()
        with torch.no_grad():
            split = _Split(given, reaching, valid, queries, self._scratch).sources(multiplied=multiplied, compared=True)
            if split.wrong is None or split.wrong.any():
                self._why[layer] = _OTHERWISE

    def limits(self) -> dict[int, str]:
        """What was found."""
        found = dict(self._why)
        for layer in _with_attention(self._sites):
            if layer not in self._given:
                mixer = self._sites.layers[layer].mixer
                found[layer] = f"{mixer} moves information between tokens by other than attention weights"
        return dict(sorted(found.items()))


def _is_elementwise(given: Given, reaching: Tensor) -> bool:
    """Whether each number that reaches the output projection is one of z, times a factor.

    The factor may be a norm's, that is, depend on z by its length: then its derivative is parallel to z in every head.
    """
    if reaching.numel() != given.output.numel():
        return False
    by_head, output = _laid_out(given, reaching).transpose(1, 2), given.output.transpose(1, 2)  # [B, Q, H, D]
    if torch.equal(by_head, output):
        return True
    random = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output)
    (slope,) = torch.autograd.grad((by_head * random).sum(), given.answer)
    slope = (slope if given.by_token else slope.reshape(given.output.shape).transpose(1, 2)).float()
    z = output.detach().float()
    expected = random.float() * by_head.detach().float() / z
    rest = slope - expected
    along = (rest * z).sum(-1, keepdim=True) / z.square().sum(-1, keepdim=True)
    left = (rest - along * z).norm(dim=-1)
    limit = max(_ELEMENTWISE, 16 * unit_roundoff(output.dtype)) * (expected.norm(dim=-1) + slope.norm(dim=-1))
    return bool((left <= limit).all())


def factor_between(given: Given, reaching: Tensor) -> Tensor:
    """By what each number of z is multiplied before the output projection, [B, Q, H, D]; 0 where it is 0."""
    batch, heads, queries, width = given.output.shape
    z = given.output.detach().transpose(1, 2).float()
    return torch.where(z == 0, 0.0, reaching.float().reshape(batch, queries, heads, width) / z)


def _laid_out(given: Given, reaching: Tensor) -> Tensor:
    """What reaches the output projection, [B, H, Q, D] as attention's output."""
    batch, heads, queries, width = given.output.shape
    return reaching.reshape(batch, queries, heads, width).transpose(1, 2)


def _attend(weights: Tensor, values: Tensor) -> Tensor:
    """Σ_k A v of weights [B, H, N, K] and values [B, H or fewer, K, D]: [B, H, N, D]."""
    batch, groups, keys, width = values.shape
    together = weights.reshape(batch * groups, -1, keys)
    return torch.bmm(together, values.reshape(batch * groups, keys, width)).view(*weights.shape[:3], width)


def _projections(model: nn.Module, sites: ModelSites) -> list[nn.Module | None]:
    return [None if layer.attn_out is None else model.get_submodule(layer.attn_out) for layer in sites.layers]


def _with_attention(sites: ModelSites) -> list[int]:
    """Layers that have a token mixer."""
    missing = sites.without(s.ATTN_WRITE)
    return [layer for layer in range(len(sites.layers)) if layer not in missing]


def _some_tokens(model: Any) -> Tensor:
    """Ids from the middle of the vocabulary, where tokens are words, [1, tokens]."""
    table = model.get_input_embeddings().weight
    first, last = len(table) // 8, len(table) // 2
    return torch.linspace(first, last, _PROBE_TOKENS).long()[None].to(table.device)
