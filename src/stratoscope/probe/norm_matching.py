"""Which token has these norms? The model is run over its whole vocabulary behind the true beginning of the prompt.

The attacker is given the text before each token, so that one error does not spoil the next guess, and learns from it
how published values follow from the model's own: by a straight line, whatever was rounded, averaged or made up. A
token is then as likely as the model itself finds it there, times how well its norms fit what was published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from stratoscope import defaults
from stratoscope.errors import ModelError
from stratoscope.model import sites as s
from stratoscope.model.devices import input_device
from stratoscope.model.hooks import SiteHooks
from stratoscope.model.search.find import find_sites
from stratoscope.model.sites import Site
from stratoscope.progress import Progress, silent
from stratoscope.trace.arrays import Floats, Ints
from stratoscope.trace.prompts import Prompts

_MIDDLE = "norm between attention and MLP"  # is not recorded itself
_KINDS = {  # what the norm of a site is called, and whether it stands on the axis of depths, behind the block
    s.NEURONS: ("neuron_norm", 0),
    s.MLP_OUT: ("mlp_out_norm", 0),
    s.MLP_WRITE: ("mlp_write_norm", 0),
    s.ATTN_WRITE: ("attn_write_norm", 0),
    s.BLOCK_IN: ("resid_norm", 0),
    s.BLOCK_OUT: ("resid_norm", 1),
    s.MIDDLE: (_MIDDLE, 0),
}
_RATIOS = {"attn_write_ratio": "attn_write_norm", "mlp_write_ratio": "mlp_write_norm"}
QUANTITIES = (*dict.fromkeys(name for name, _ in _KINDS.values() if name != _MIDDLE), *_RATIOS)
_TOGETHER = 1024  # entries of the vocabulary that run at once through the first block, fewer through several
_PROBE_TOKENS = 64  # on which the sites are found
_FINEST = 1e-6  # of log2: no published number is more precise than float32
_FITS = 4.0  # standard deviations within which a candidate is left

Row = tuple[str, int]  # a quantity, and its layer or depth


@dataclass(frozen=True)
class NormMatches:
    """What norm matching found of some tokens.

    Attributes
    ----------
    tokens, ids
        Places of the tokens on the trace's axis, and what they are.
    guesses
        The token that is likeliest by the model and the norms together.
    by_norms
        The one whose norms fit best, whatever the model expects.
    blind
        The one that the model expects, whatever the norms.
    left
        How many entries of the vocabulary fit what was published.
    """

    tokens: Ints
    ids: Ints
    guesses: Ints
    by_norms: Ints
    blind: Ints
    left: Ints


class _Enough(Exception):
    """The last block that is needed has run."""


class NormMatcher:
    """Runs a model up to one block, behind a beginning that is kept.

    Parameters
    ----------
    model
        A Hugging Face model that keeps keys and values.
    probe
        Token ids on which its sites are found.
    layer
        The block whose norms are computed; all before it run too.
    """

    def __init__(self, model: Any, probe: Ints, layer: int) -> None:
        self._model, self._device, self._layer = model, input_device(model), layer
        sites = find_sites(model, torch.tensor(probe[None], device=self._device))
        self._sites = [site for site in sites.layers[layer] if site.kind in _KINDS]
        self.vocabulary = int(model.get_input_embeddings().weight.shape[0])

    @torch.no_grad()
    def begin(self, ids: Ints) -> tuple[dict[Row, Floats], Floats, Any]:
        """Norms of all tokens of a beginning, log-probabilities of the next, and what the model keeps of it."""
        with self._norms() as found:
            output = self._model(input_ids=self._batch(ids[None]), use_cache=True)
        log_probabilities = torch.log_softmax(output.logits[0, -1].double(), dim=-1).cpu().numpy()
        return dict(found), np.asarray(log_probabilities), _checked(output.past_key_values, self._layer)

    @torch.no_grad()
    def every_token(self, kept: Any) -> dict[Row, Floats]:
        """Norms of each entry of the vocabulary as the next token; [entry]."""
        step = max(16, _TOGETHER // (self._layer + 1))
        parts: list[dict[Row, Floats]] = []
        for start in range(0, self.vocabulary, step):
            entries = np.arange(start, min(start + step, self.vocabulary))
            cache = _repeated(kept, len(entries), self._layer)
            with self._norms(stop=True) as found, suppress(_Enough):
                self._model(input_ids=self._batch(entries[:, None]), past_key_values=cache, use_cache=True)
            parts.append(dict(found))
        return {row: np.concatenate([part[row] for part in parts]) for row in parts[0]}

    def _batch(self, ids: Ints) -> Tensor:
        return torch.tensor(ids, dtype=torch.long, device=self._device)

    @contextmanager
    def _norms(self, *, stop: bool = False) -> Iterator[dict[Row, Floats]]:
        """While open, fills what is given with the logarithms of the norms of what runs."""
        found: dict[Row, Floats] = {}

        def receive(site: Site, tensor: Tensor) -> None:
            name, behind = _KINDS[site.kind]
            norm = torch.linalg.vector_norm(tensor.float(), dim=-1)
            found[name, self._layer + behind] = np.log2(norm.double().cpu().numpy())
            if site.kind == s.BLOCK_OUT:
                found.update(_ratios(found, self._layer))
                if stop:
                    raise _Enough

        with SiteHooks(self._model, self._sites, receive):
            yield found


def match_norms(
    original: xr.Dataset,
    model: Any,
    published: Mapping[Row, Floats],
    tokens: Ints,
    *,
    progress: Progress = silent,
) -> NormMatches:
    """Recover tokens from published norms with the model.

    Parameters
    ----------
    original
        The trace that was published, whose text says what is right.
    model
        Its Hugging Face model, in the dtype of the trace.
    published
        Quantity of `QUANTITIES` and layer or depth to the logarithm to base 2 of what was published of each token of
        the original, NaN where nothing was; [token].
    tokens
        Places of the tokens to recover; none is the first of its prompt.
    progress
        Told how many are done.

    Raises
    ------
    ModelError
        The model keeps no keys and values of the text before a token.
    """
    ids, prompts = np.asarray(original["token_id"].values, np.int64), Prompts(original)
    layer = min((row for name, row in published if name != "resid_norm"), default=0)
    matcher = NormMatcher(model, ids[prompts.tokens(int(prompts.lengths.argmax()))][:_PROBE_TOKENS], layer)
    begun = []
    for number, token in enumerate(tokens.tolist()):
        progress("reading the text before each token", number, len(tokens))
        start = int(prompts.starts[prompts.of_token[token]])
        begun.append((np.arange(start, token), *matcher.begin(ids[start:token])))
    lines = _lines(published, [(before[1:], {row: of[1:] for row, of in own.items()}) for before, own, _, _ in begun])
    found = np.empty((4, len(tokens)), np.int64)
    for number, (token, (_, _, expected, kept)) in enumerate(zip(tokens.tolist(), begun, strict=True)):
        progress("trying every token", number, len(tokens))
        every = matcher.every_token(kept)
        expected = expected[: matcher.vocabulary]
        fits, left = np.zeros(matcher.vocabulary), np.ones(matcher.vocabulary, bool)
        for row, (slope, constant, spread) in lines.items():
            apart = (published[row][token] - constant - slope * every[row]) / spread
            known = np.isfinite(apart)
            fits -= np.where(known, np.square(np.clip(apart, -1e6, 1e6)), 0.0) / 2
            left &= ~known | (np.abs(apart) <= _FITS)
        best = (int((fits + expected).argmax()), int(fits.argmax()), int(expected.argmax()))
        found[:, number] = (*best, int(left.sum()))
    return NormMatches(tokens, ids[tokens], *found)


def sampled_tokens(original: xr.Dataset, counted: np.ndarray, count: int, seed: int = defaults.SEED) -> Ints:
    """A seeded sample of the counted tokens, of as many prompts as there are before any gives a second one."""
    random, prompts = np.random.default_rng(seed), Prompts(original)
    places = random.permutation(np.flatnonzero(counted & (prompts.place > 0)))
    of = prompts.of_token[places]
    rank = np.empty(len(places), np.int64)  # how many of its prompt come before it
    order = np.argsort(of, kind="stable")
    starts = np.searchsorted(of[order], of[order])
    rank[order] = np.arange(len(places)) - starts
    return np.sort(places[np.argsort(rank, kind="stable")[:count]])


def _ratios(norms: Mapping[Row, Floats], layer: int) -> dict[Row, Floats]:
    """Writes as shares of what they are added to: the block's input, of a sequential MLP input and attention."""
    base = {"attn_write_ratio": ("resid_norm", layer)}
    base["mlp_write_ratio"] = (_MIDDLE, layer) if (_MIDDLE, layer) in norms else ("resid_norm", layer)
    return {
        (ratio, layer): norms[write, layer] - norms[base[ratio]]
        for ratio, write in _RATIOS.items()
        if (write, layer) in norms and base[ratio] in norms
    }


def _lines(
    published: Mapping[Row, Floats], known: Sequence[tuple[Ints, Mapping[Row, Floats]]]
) -> dict[Row, tuple[float, float, float]]:
    """How each published quantity follows from the model's own on known text: slope, constant, spread about it."""
    lines = {}
    for row, values in published.items():
        if any(row not in own for _, own in known):
            continue
        theirs = np.concatenate([values[places] for places, _ in known])
        own = np.concatenate([of[row] for _, of in known])
        there = np.isfinite(theirs) & np.isfinite(own)
        if there.sum() < 3 or np.ptp(own[there]) == 0:
            continue
        slope, constant = np.polyfit(own[there], theirs[there], 1)
        rest = theirs[there] - constant - slope * own[there]
        lines[row] = float(slope), float(constant), max(float(np.sqrt(np.square(rest).mean())), _FINEST)
    return lines


def _checked(cache: Any, layer: int) -> Any:
    """What a model keeps of a beginning, if it is keys and values of each block."""
    layers = getattr(cache, "layers", None)
    if layers is None or any(getattr(one, "keys", None) is None for one in layers[: layer + 1]):
        raise ModelError(
            "it keeps no keys and values of the text before a token",
            where="norm matching",
            fix="Leave the model out: all other attacks run without it.",
        )
    return cache


def _repeated(kept: Any, count: int, layer: int) -> Any:
    """The same beginning for each of so many next tokens, in the blocks that run."""
    cache = deepcopy(kept)
    for one in cache.layers[: layer + 1]:
        one.batch_repeat_interleave(count)
    return cache
