"""The cells of a picture of lenses: colours of probabilities, and the readable texts of the likeliest tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

import numpy as np

from stratoscope import names
from stratoscope.analysis.lens.finding import probability_of, text_of
from stratoscope.analysis.lens.reading import NONE, Reading
from stratoscope.trace.lenses import LOGIT_LENS
from stratoscope.trace.prompts import Prompts
from stratoscope.view.choose.tokens import shown_tokens
from stratoscope.view.lens.chosen import ChosenTokens
from stratoscope.view.spec.buffers import IndexTable, indices
from stratoscope.view.spec.figures import Figures
from stratoscope.view.spec.look import FirstTokens
from stratoscope.view.spec.maps import Colouring, DrawnQuantity, Map, MapMarks, MapPanel, MapQuantity, Maps
from stratoscope.view.spec.scale import Distribution, Limits
from stratoscope.view.spec.tokens import ShownTokens
from stratoscope.words import readable

if TYPE_CHECKING:
    import xarray as xr

_OPEN_BOX = "␣"
SCALE: names.Scale = "linear"  # the only one: probabilities from 0 to 1
_FORMULA, _FITTED = "softmax(unembed(norm(x)))", "softmax(unembed(norm(J x)))"


@dataclass(frozen=True, eq=False)
class Cells:
    """What stands in the cells.

    Attributes
    ----------
    maps
        Their colours.
    tokens
        The picture's table of tokens.
    texts, likeliest
        Readable texts, and which of them stands in each cell, of shape (columns, rows); −1 = none.
    """

    maps: Maps
    tokens: ShownTokens
    texts: tuple[str, ...]
    likeliest: IndexTable


def cells_of(dataset: xr.Dataset, chosen: ChosenTokens, read: Reading) -> Cells:
    """The cells of a reading."""
    prompts = Prompts(dataset)
    probability = probability_of(read.logprob).astype(np.float32)
    ids, places = np.unique(read.likeliest[read.likeliest != NONE], return_inverse=True)
    likeliest = np.full(read.likeliest.shape, NONE)
    likeliest[read.likeliest != NONE] = places
    tokens = shown_tokens(prompts, chosen.tokens, [chosen.prompt])
    return Cells(
        Maps((_quantity(read, probability),), (_panel(prompts, chosen),), (_map(probability),)),
        replace(tokens, prompt=np.zeros(len(chosen.tokens), np.int32)),
        tuple(_word(text_of(dataset, one)) for one in ids.tolist()),
        indices(likeliest),
    )


def _word(text: str) -> str:
    """A token in a cell; of one that is nothing but spaces they are seen, which `·` alone would not be."""
    label = readable(text)
    return label if text.strip(" ") else label.replace(readable(" "), _OPEN_BOX)


def _quantity(read: Reading, probability: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> MapQuantity:
    formula = _FORMULA if read.name == LOGIT_LENS else _FITTED
    described = DrawnQuantity(
        "lens_logprob", "probability of the likeliest token", "1", formula, row_kind=names.DEPTH, rows=read.depths
    )
    limits, values = Limits("linear", np.zeros(1), np.ones(1)), Distribution([probability])
    edges, counts = values.histogram(limits)
    colouring = Colouring(limits, values.clipped(limits), edges, indices(counts), False)
    return MapQuantity(described, False, False, Figures(), {SCALE: dict.fromkeys(get_args(FirstTokens), colouring)})


def _map(probability: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Map:
    marks = MapMarks((), (), indices(np.empty((0, 2))), 0, 0)
    both = dict.fromkeys(get_args(FirstTokens), marks)
    cells = dict.fromkeys(get_args(FirstTokens), probability)
    return Map(0, 0, cells, {SCALE: both}, (), bool(np.isnan(probability).any()), 0)


def _panel(prompts: Prompts, chosen: ChosenTokens) -> MapPanel:
    generated = prompts.in_spans(["generated"])[chosen.tokens]
    dim = np.flatnonzero(prompts.in_spans(names.TEMPLATE_SPANS)[chosen.tokens])
    begins = np.flatnonzero(generated[1:] & ~generated[:-1]) + 1
    label, named = prompts.labels[chosen.prompt], prompts.classes[chosen.prompt]
    detail, count = "" if named == label else named, len(chosen.tokens)
    return MapPanel(label, detail, 0, count, 1, dim=tuple(dim.tolist()), answers=tuple(begins.tolist()))
