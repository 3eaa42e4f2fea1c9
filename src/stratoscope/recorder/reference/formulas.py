"""Every recorded quantity once more, as its formula says: whole tensors, float64, no code shared with the reducers.

What the reducers compute in pieces and in scratch is computed here at once, so that the two can be compared. All
tensors are on the CPU, and their first axis is the tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

Values = dict[str, Tensor]
ByLayer = dict[str, dict[int, Tensor]]  # quantity -> layer (or depth) -> values
States = Iterable[Tensor]  # of the residual stream before each block and behind the last, [token, d_model]

SMALLEST_REST = 1e-20  # of a row of attention beside the first token: below it, what is left is not defined


def residual(states: States) -> ByLayer:
    """How long the residual stream is, and how each block turns it."""
    found: ByLayer = {"resid_norm": {}, "resid_cos": {}}
    before: Tensor | None = None
    for depth, state in enumerate(states):
        x = state.double()
        found["resid_norm"][depth] = x.norm(dim=-1)
        if before is not None:
            found["resid_cos"][depth - 1] = (before * x).sum(-1) / (before.norm(dim=-1) * x.norm(dim=-1))
        before = x
    return found


def write(name: str, what: Tensor, base: Tensor) -> Values:
    """Norm, ratio and cosine of a write ("attn" or "mlp") and the residual it is added to, both [token, d_model]."""
    size, under = what.double().norm(dim=-1), base.double().norm(dim=-1)
    return {
        f"{name}_write_norm": size,
        f"{name}_write_ratio": torch.where(under > 0, size / under, torch.nan),  # of a zero residual there is none
        f"{name}_write_cos": (what.double() * base.double()).sum(-1) / (size * under),
    }


def neurons(a: Tensor, weight: Tensor, bias: Tensor | None) -> Values:
    """Norms of one block's neurons a [token, d_ff] and of W a + bias, W [d_model, d_ff]."""
    out = a.float() @ weight.float().T
    out = out if bias is None else out + bias.float()
    return {"neuron_norm": a.double().norm(dim=-1), "mlp_out_norm": out.double().norm(dim=-1)}


def peaks(a: Tensor, weight: Tensor, recorded: Tensor) -> tuple[Values, Tensor]:
    """The peaks of one block.

    Parameters
    ----------
    a, weight
        Neurons [token, d_ff] and W [d_model, d_ff].
    recorded
        int64 [token, k]: the recorded peak neurons.

    Returns
    -------
    values, strongest
        The quantities of just those neurons (`peak_share` of the truly strongest ones), and the k largest writes of any
        neuron [token, k]: equal to `peak_write` unless a stronger neuron was left out.
    """
    writes = a.double().abs() * weight.double().norm(dim=0)
    strongest = writes.topk(recorded.shape[1], dim=-1).values
    value = a.gather(1, recorded)
    alone = torch.zeros_like(a).scatter(1, recorded, value).float() @ weight.float().T
    whole = a.float() @ weight.float().T
    values = {
        "peak_value": value.double(),
        "peak_write": writes.gather(1, recorded),
        "peak_share": strongest.square().sum(-1) / writes.square().sum(-1),
        "peak_explained": (alone.double() * whole.double()).sum(-1) / whole.double().square().sum(-1),
    }
    return values, strongest


def summary(a: Tensor) -> Values:
    """Mean, largest and smallest activation over tokens, [d_ff] each; NaN where there is no token."""
    a = a.double() if len(a) else a.new_full((1, a.shape[1]), torch.nan).double()
    return {"prompt_mean": a.mean(0), "prompt_max": a.amax(0), "prompt_min": a.amin(0)}


def together(rows: Sequence[Values], width: int) -> Values:
    """Values of each prompt, [number], as [prompt, width], NaN where they have no number."""
    return {name: widened(torch.stack([row[name] for row in rows]), width) for name in rows[0]}


def widened(rows: Tensor, width: int) -> Tensor:
    """Rows [row, number] as [row, width], NaN where they have no number."""
    return pad(rows, (0, width - rows.shape[1]), value=torch.nan)


def attention(weights: Tensor, seen: Tensor, *, learned_sink: bool) -> Values:
    """The summaries of one layer's attention, [token, head].

    Parameters
    ----------
    weights
        [head, query, key], of one prompt without padding.
    seen
        bool [query, key]: what each query may look at.
    learned_sink
        Whether what a row lacks of 1 went to a learned sink.
    """
    found = [_of_head(head.double() * seen, seen, learned_sink=learned_sink) for head in weights]
    return {name: torch.stack([one[name] for one in found], dim=-1) for name in found[0]}


def pairs(weights: Tensor, seen: Tensor) -> Tensor:
    """Weights [head, query, key] as [pair, head], pairs (query, key ≤ query) query by query; NaN where not seen."""
    query, key = torch.tril_indices(len(seen), len(seen))
    return weights.float().masked_fill(~seen, torch.nan)[:, query, key].T


def head_writes(flow: Tensor, weight: Tensor, heads: int) -> Tensor:
    """‖W_O z‖₂ of each head, [token, head], from W_O's input [token, heads·D] and W_O [d_model, heads·D]."""
    parts = zip(flow.float().chunk(heads, dim=1), weight.float().chunk(heads, dim=1), strict=True)
    return torch.stack([(z @ w.T).double().norm(dim=-1) for z, w in parts], dim=-1)


def _of_head(weights: Tensor, seen: Tensor, *, learned_sink: bool) -> Values:
    null = (1 - weights.sum(1)).clamp(min=0) if learned_sink else torch.zeros(len(weights), dtype=torch.float64)
    total = weights.sum(1) + null
    found = _of_rows(weights / total[:, None], null / total, seen, learned_sink=learned_sink)
    found["attn_first"] = torch.where(seen[:, 0], weights[:, 0] / total, torch.nan)
    if learned_sink:
        found["attn_null"] = null / total
    rest, left = weights[1:, 1:], weights[1:, 1:].sum(1) + null[1:]
    left = torch.where(left > SMALLEST_REST, left, torch.nan)
    without = _of_rows(rest / left[:, None], null[1:] / left, seen[1:, 1:], learned_sink=learned_sink)
    undefined = torch.full((1,), torch.nan, dtype=torch.float64)
    return found | {f"{name}_nosink": torch.cat((undefined, values)) for name, values in without.items()}


def _of_rows(weights: Tensor, null: Tensor, seen: Tensor, *, learned_sink: bool) -> Values:
    """Of rows that sum to 1 together with `null`; rows of NaN are undefined and count for no key."""
    count, outcomes = seen.sum(1), seen.sum(1) + learned_sink
    place = torch.arange(len(weights))
    entropy = -(torch.special.xlogy(weights, weights).sum(1) + torch.special.xlogy(null, null))
    others, other = weights.clone().fill_diagonal_(0), seen.clone().fill_diagonal_(False)
    others = others.nan_to_num()
    even = torch.where(count > 1, others.sum(1) / (count - 1), 0.0)
    received = others.sum(0) / (other * even[:, None]).sum(0)
    return {
        "attn_entropy": torch.where(outcomes > 1, entropy / outcomes.double().log(), torch.nan),
        "attn_distance": (weights * (place[:, None] - place)).sum(1),
        "attn_received": torch.where(other.any(0), received, torch.nan),
    }
