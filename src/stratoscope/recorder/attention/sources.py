"""What attention brings to chosen tokens, split by the token that it came from; where it cannot be split, why.

A head gives z_q = Σ_k A[q,k]·v_k, and the output projection reads it, perhaps behind a norm or a gate that multiplies
each number of z. With that factor as the query has it, what reaches any direction of the residual stream is a sum over
source tokens k.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.errors import StratoscopeError
from stratoscope.model import sites as s
from stratoscope.model.search.find import in_layers
from stratoscope.model.sites import ModelSites, unit_roundoff
from stratoscope.recorder.attention.given import GivenScores, GivenWeights
from stratoscope.recorder.attention.rows import float32_unit
from stratoscope.recorder.attention.seen import SeenAttention
from stratoscope.recorder.reduce.scratch import Scratch
from stratoscope.words import capital

_PROBE_TOKENS = 8
_OTHERWISE = "its attention weights times its values are not what its attention gave"
_UNIT = 2.0**-24  # unit roundoff of float32
_ELEMENTWISE = 1e-4  # what float32 may leave of a derivative that should be 0, relative to the others


@dataclass(frozen=True)
class HeadSources:
    """What the heads of one layer took from every token of the batch, at N chosen tokens of each prompt.

    Attributes
    ----------
    weights, values
        A [B, H, N, K] of each query, 0 where it does not see a key, and v [B, H or fewer, K, D], float32.
    factor
        By what each number of z is multiplied before the output projection, [B, N, H, D]; NaN where Σ_k A v is not
        what the model's own attention gave.
    reaching
        What reached the output projection, [B, N, H·D] float32.
    wrong
        Whether Σ_k A v is not what the model's own attention gave: bool [B, N].
    """

    weights: Tensor
    values: Tensor
    factor: Tensor
    reaching: Tensor
    wrong: Tensor

    def along(self, vectors: Tensor) -> Tensor:
        """A[q,k]·⟨v_k, factor ⊙ u⟩ of vectors u that z is read along, [B, N, V, H·D]: [B, H, N, V, K]."""
        (batch, heads, queries, keys), count = self.weights.shape, vectors.shape[2]
        groups, width = self.values.shape[1], self.values.shape[3]
        read = vectors.view(batch, queries, count, heads, width) * self.factor[:, :, None]
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
        parts = (self.weights, self.values, self.factor, self.reaching, self.wrong)
        return HeadSources(*(part[prompt : prompt + 1] for part in parts))


class AttentionSources:
    """While open, and while a forward is expected, `receive` gets what each layer's heads took from which token.

    Parameters
    ----------
    model, sites
        The model and its proved sites.
    receive
        Called with a layer and its heads' sources when the layer's output projection is called.

    Attributes
    ----------
    limits
        Layer to why its attention cannot be split by source token: these layers are never handed over.
    """

    def __init__(self, model: nn.Module, sites: ModelSites, receive: Callable[[int, HeadSources], None]) -> None:
        self._receive, self._layers = receive, len(sites.layers)
        self.limits = why_not_split(model, sites)
        self._seen = None
        if len(self.limits) < self._layers:
            self._seen = SeenAttention(model, self._layers, _projections(model, sites), self._attended, self._projected)
        self._scratch = Scratch(sites.devices(model)[0])
        self._given: dict[int, GivenScores | GivenWeights] = {}
        self._valid = self._queries = torch.empty(0)
        self._open = ExitStack()

    def __enter__(self) -> AttentionSources:
        with ExitStack() as stack:
            if self._seen is not None:
                stack.enter_context(self._seen)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
        self._open.close()

    def begin(self, valid: Tensor, queries: Tensor) -> None:
        """Split the next forward, one without earlier tokens in a cache.

        Parameters
        ----------
        valid
            Bool [B, T]: which tokens are no padding.
        queries
            Int [B, N]: the columns of the tokens whose attention is split.
        """
        self.stop()
        self._valid, self._queries = valid, queries
        if self._seen is not None:
            self._seen.expect((valid.shape[0], valid.shape[1]))

    def stop(self) -> None:
        """Split no further forward."""
        self._given.clear()
        if self._seen is not None:
            self._seen.expect(None)

    def forget(self) -> None:
        """Let go of what a forward that failed has left."""
        self.stop()
        self._scratch.clear()
        if self._seen is not None:
            self._seen.forget()

    def _attended(self, layer: int, given: GivenScores | GivenWeights) -> None:
        self._given[layer] = given

    def _projected(self, layer: int, reaching: Tensor) -> None:
        given = self._given.pop(layer, None)
        if given is not None and layer not in self.limits:
            self._receive(layer, _split(given, reaching.detach(), self._valid, self._queries, self._scratch))


def _split(
    given: GivenScores | GivenWeights, reaching: Tensor, valid: Tensor, queries: Tensor, scratch: Scratch
) -> HeadSources:
    """What heads took from which token: of an attention, and of what reached the output projection."""
    device, tokens = reaching.device, valid.shape[1]
    valid, queries = valid.to(device), queries.to(device)
    if given.value.shape[2] > tokens:  # a cache of fixed size
        given = given.cropped(tokens)
    chosen = given.chosen(queries)
    rows, mask = chosen.over(valid.gather(1, queries), valid, 0, 0)
    visible = mask.rows(0, queries.shape[1], 0, tokens)
    weights, relative = rows.probabilities(0, queries.shape[1], visible, scratch)
    weights, values = weights * visible[:, None], given.value.float()
    again, size, output = _attend(weights, values), _attend(weights, values.abs()), chosen.output
    rounding = max(4 * unit_roundoff(given.value.dtype), 4 * float32_unit(device)) + tokens * _UNIT
    bound = (rounding + relative) * size + torch.finfo(torch.float32).tiny
    wrong = ~((again - output.float()).abs() <= bound).all(-1).all(1)  # [B, N]; also of what is not finite

    index = queries[:, :, None].expand(-1, -1, reaching.shape[-1])
    reaching = reaching.view(*valid.shape, -1).gather(1, index)
    by_head = reaching.view(*queries.shape, *output.shape[1::2]).transpose(1, 2)
    factor = torch.where(output == 0, torch.where(size == 0, 0.0, torch.nan), by_head.float() / output.float())
    untouched = (by_head == output).all(-1).all(1)  # nothing stands in between
    factor = factor.masked_fill(untouched[:, None, :, None], 1.0).masked_fill(wrong[:, None, :, None], torch.nan)
    return HeadSources(weights, values, factor.transpose(1, 2), reaching.float(), wrong)


def in_sentences(limits: Mapping[int, str], wrong: Collection[int] = ()) -> list[str]:
    """Where attention is not split by source token, for the receipt: in `wrong` layers, at times."""
    found = [
        f"{in_layers([layer for layer, why in limits.items() if why == one])}: not split by source token: {one}"
        for one in dict.fromkeys(limits.values())
    ]
    if wrong:
        found.append(f"{in_layers(sorted(wrong))}: at some tokens not split by source token: {_OTHERWISE}")
    return [f"{capital(one)}." for one in found]


def output_weight(projection: Any) -> Tensor:
    """W_O of an output projection, [residual, head × width]."""
    from transformers.pytorch_utils import Conv1D

    weight: Tensor = projection.weight.detach()
    return weight.T if isinstance(projection, Conv1D) else weight


# --- where attention cannot be split ----------------------------------------------------------------------------------


def why_not_split(model: nn.Module, sites: ModelSites) -> dict[int, str]:
    """Layer to why what its attention writes cannot be split by source token; found out on a few tokens.

    What stands between a layer's attention and its output projection must multiply each number by itself, or be a norm:
    then its factor, as the query has it, splits as well. Automatic differentiation says so, whatever the code is.
    """
    probe, projections = _Probe(model, sites), _projections(model, sites)
    try:
        seen = SeenAttention(model, len(sites.layers), projections, probe.attended, probe.projected)
        ids = _some_tokens(model)
        with torch.enable_grad(), seen:
            seen.expect((1, _PROBE_TOKENS))
            model(input_ids=ids, use_cache=False)
    except StratoscopeError as error:
        return dict.fromkeys(_with_attention(sites), error.what)
    except Exception as error:  # nothing else needs this: it stops no recording
        why = f"the proof failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        return dict.fromkeys(_with_attention(sites), why)
    return probe.limits()


class _Probe:
    """Looks at the attention of each layer in one forward with gradients."""

    def __init__(self, model: nn.Module, sites: ModelSites) -> None:
        self._sites, self._scratch = sites, Scratch(sites.devices(model)[0])
        self._given: dict[int, GivenScores | GivenWeights] = {}
        self._why: dict[int, str] = {}

    def attended(self, layer: int, given: GivenScores | GivenWeights) -> None:
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
        with torch.no_grad():
            if _split(given, reaching, valid, queries, self._scratch).wrong.any():
                self._why[layer] = _OTHERWISE

    def limits(self) -> dict[int, str]:
        """What was found."""
        found = dict(self._why)
        for layer in _with_attention(self._sites):
            if layer not in self._given:
                mixer = self._sites.layers[layer].mixer
                found[layer] = f"{mixer} moves information between tokens by other than attention weights"
        return dict(sorted(found.items()))


def _is_elementwise(given: GivenScores | GivenWeights, reaching: Tensor) -> bool:
    """Whether each number that reaches the output projection is one of z, times a factor.

    The factor may be a norm's, that is, depend on z by its length: then its derivative is parallel to z in every head.
    """
    output = given.output.transpose(1, 2)  # [B, Q, H, D]
    if reaching.numel() != output.numel():
        return False
    by_head = reaching.reshape(output.shape)
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
