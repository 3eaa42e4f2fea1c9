"""Simulated attention: real attention matrices whose summaries have closed forms, so that long prompts cost little.

Query q gives the first token the mass f_q and each other visible token k the mass (1 − f_q)·g_k / Σ_{1≤j≤q} g_j. All
quantities below are sums over that matrix, which is never built; `matrix` builds it, for tests and small examples.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stratoscope.recorder.simulated.model import ANOMALY_MASS, SimulatedModel, SimulatedTokens

FIRST_SPREAD = 0.4  # of the log odds of the first token
_ANOMALY_FIRST = 0.1  # mass that the odd head leaves for the first token
_ANOMALY_WEIGHT = ANOMALY_MASS / (1 - _ANOMALY_FIRST - ANOMALY_MASS)  # of the unusual token, relative to all others
_CELLS_AT_ONCE = 2**16  # keeps long prompts within the processor's cache
_PAIRS_AT_ONCE = 2**20  # times heads: keeps them small in memory


def first_and_weights(model: SimulatedModel, text: SimulatedTokens) -> tuple[np.ndarray, np.ndarray]:
    """f and g of every layer and head, both of shape (token, layer, head); g of the first token is 0."""
    shape, length = model.shape, len(text.words)
    strengths = model.strengths[text.prompt_class]
    random = shape.random("attention", model.drawn_as(text.index))
    size = (length, shape.layers, shape.heads)
    sink = strengths.head_contrast[:, None] * model.head_sink + strengths.head_sink[:, None]
    sign = model.sign(text.index)
    first = 1 / (1 + np.exp(-sink - sign * random.normal(0, FIRST_SPREAD, size)))
    nearness = np.arange(length)[:, None, None] / length
    reach = model.head_reach + strengths.head_reach[:, None]
    weight = np.exp(sign * random.normal(0, strengths.head_spread[:, None], size) + reach * nearness)
    first[0], weight[0] = 1, 0
    at = model.anomaly
    if at and at.prompt == text.index:
        weight[at.token, at.layer, at.head] = 0
        weight[at.token, at.layer, at.head] = _ANOMALY_WEIGHT * weight[:, at.layer, at.head].sum()
        first[at.token :, at.layer, at.head] = _ANOMALY_FIRST
    return first, weight


def matrix(first: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The attention matrix A[query, key] of one head, from its f and g of shape (token,)."""
    visible = np.tril(np.broadcast_to(weight, (len(weight), len(weight))))
    visible[0, 0] = 1  # the first token sees only itself
    rows: np.ndarray = visible / visible.sum(axis=1, keepdims=True) * (1 - first[:, None])
    rows[:, 0] += first
    return rows


def pairs(first: np.ndarray, weight: np.ndarray) -> Iterator[np.ndarray]:
    """A[q, k] of one layer for k ≤ q, query by query, in runs of queries: float16, shape (pair, head).

    Parameters
    ----------
    first, weight
        f and g of the layer, shape (token, head).
    """
    length, heads = first.shape
    total = np.cumsum(weight, axis=0)
    total[0] = 1  # the first token sees only itself
    step = max(1, _PAIRS_AT_ONCE // (length * heads))
    for begin in range(0, length, step):
        query, key = np.tril_indices(min(step, length - begin), begin, min(begin + step, length))
        query += begin
        found = (1 - first[query]) * weight[key] / total[query]
        found[key == 0] += first[query[key == 0]]
        yield found.astype(np.float16)


def attention(model: SimulatedModel, text: SimulatedTokens, attn_write_norm: np.ndarray) -> dict[str, np.ndarray]:
    """Every `attn_*` quantity that a model without a learned sink has, float32, shape (token, layer, head)."""
    first, weight = first_and_weights(model, text)
    values = {"attn_first": first.astype(np.float32), "attn_value_norm": _value_norm(model, text, attn_write_norm)}
    step = max(1, _CELLS_AT_ONCE // first[:, 0].size)
    for layer in range(0, model.shape.layers, step):
        here = np.s_[:, layer : layer + step]
        for name, part in summaries(first[here], weight[here]).items():
            values.setdefault(name, np.empty(first.shape, np.float32))[here] = part
    return values


def summaries(first: np.ndarray, weight: np.ndarray) -> dict[str, np.ndarray]:
    """What f and g of shape (token, …) make of each quantity that is about attention weights."""
    query = np.arange(len(first), dtype=float)[:, None, None]
    rest, total = 1 - first, np.cumsum(weight, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # 0/0 is NaN: undefined, as the quantities want it
        own = weight / total
        spread = np.log(total) - np.cumsum(_x_log_x(weight), axis=0) / total
        reach = query - np.cumsum(weight * query, axis=0) / total
        values = {
            "attn_received": _received(first, rest, weight, total, own, query),
            "attn_received_nosink": weight * _later(1 / total) / _later((1 - own) / (query - 1)),
            "attn_entropy": ((rest * spread - _x_log_x(first) - _x_log_x(rest)) / np.log(query + 1)).clip(0, 1),
            "attn_entropy_nosink": (spread / np.log(query)).clip(0, 1),
            "attn_distance": first * query + rest * reach,
            "attn_distance_nosink": reach,
        }
    values["attn_received_nosink"][:1] = values["attn_entropy_nosink"][:2] = values["attn_entropy"][:1] = np.nan
    values["attn_received"][-1:] = values["attn_received_nosink"][-1:] = np.nan  # nobody else sees the last token
    values["attn_distance"][0] = 0  # the first token sees only itself
    return values


def _received(
    first: np.ndarray, rest: np.ndarray, weight: np.ndarray, total: np.ndarray, own: np.ndarray, query: np.ndarray
) -> np.ndarray:
    got = weight * _later(rest / total)
    got[0] = first[1:].sum(axis=0)
    return np.asarray(got / _later((1 - rest * own) / query))


def _later(terms: np.ndarray) -> np.ndarray:
    """Σ over all later queries, q > t."""
    sums = np.zeros_like(terms)
    sums[:-1] = np.cumsum(terms[:0:-1], axis=0)[::-1]
    return sums


def _x_log_x(values: np.ndarray) -> np.ndarray:
    return values * np.log(np.where(values > 0, values, 1))


def _value_norm(model: SimulatedModel, text: SimulatedTokens, attn_write_norm: np.ndarray) -> np.ndarray:
    """Heads that write at right angles, so that their squares add up to the square of the attention write."""
    shape = model.shape
    random = shape.random("attention", shape.prompts + text.index)
    share = shares_of_heads(random, (len(text.words), shape.layers, shape.heads))
    moved = model.strengths[text.prompt_class].moved
    return np.asarray((attn_write_norm * moved)[..., None] * np.sqrt(share))


def shares_of_heads(random: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Which share of the square of an attention write is each head's; heads along the last axis."""
    share: np.ndarray = np.exp(random.normal(0, 0.7, size))
    share /= share.sum(axis=-1, keepdims=True)
    return share
