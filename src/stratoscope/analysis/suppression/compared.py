"""Two classes of prompts compared, row by row: a prompt is one observation, and the final norm owns a row of its own.

Direct contributions hold the factor of each prompt's final norm. Rows are compared at one factor for both classes (of
pairs the mean of their two), and what the factors themselves make of all rows is the row "final norm" (L29).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stratoscope.analysis.classes.design import PAIRED_T, WELCH, Design, make_design, testable
from stratoscope.analysis.classes.units import PAIRS, Units
from stratoscope.analysis.contrast.family import Family, compare_family
from stratoscope.analysis.contrast.profiles import common_factor
from stratoscope.analysis.statistics.rescaled import at_factor
from stratoscope.analysis.suppression.recorded import Direct, Total
from stratoscope.names import Unequal
from stratoscope.trace.arrays import Floats, Ints

EMBEDDING, ATTENTION, MLP, FINAL_NORM, NORM_BIAS, HEAD_BIAS = (
    "embedding", "attention", "mlp", "final norm", "norm bias", "head bias",
)  # fmt: skip
NO_LAYER = -1


@dataclass(frozen=True)
class Rows:
    """Values of prompts, one column a row of the picture.

    Attributes
    ----------
    part, layer
        What each row is, and the number of its layer; `NO_LAYER` = of none.
    values
        [prompt, row].
    """

    part: tuple[str, ...]
    layer: Ints
    values: Floats

    def only(self, prompts: Ints) -> Rows:
        """The same of some prompts."""
        return Rows(self.part, self.layer, self.values[prompts])


@dataclass(frozen=True)
class Compared:
    """A family of rows, compared.

    Attributes
    ----------
    part, layer
        As of `Rows`.
    family
        The comparison.
    tested
        Whether its p-values may be told: so few units that none could reach alpha have none.
    """

    part: tuple[str, ...]
    layer: Ints
    family: Family
    tested: bool


def design_of(units: Units, *, unequal: Unequal, alpha: float, seed: int) -> tuple[Design, bool]:
    """How units are compared, and whether there are enough of them for a test."""
    if testable(units, alpha):
        return make_design(units, unequal=unequal, held_out=0.0, alpha=alpha, seed=seed), True
    return Design(units, units, None, PAIRED_T if units.design == PAIRS else WELCH, alpha), False


def direct_rows(direct: Direct, layers: Ints) -> Rows:
    """Embedding, attention and MLP of each layer, and the biases behind them, as they were recorded."""
    biases = [(NORM_BIAS, direct.norm_bias), (HEAD_BIAS, direct.head_bias)]
    biases = [(name, values) for name, values in biases if np.any(values)]
    part = (EMBEDDING, *[ATTENTION] * len(layers), *[MLP] * len(layers), *(name for name, _ in biases))
    layer = np.concatenate([[NO_LAYER], layers, layers, [NO_LAYER] * len(biases)]).astype(np.int64)
    columns = [direct.embed[:, None], direct.attn, direct.mlp, *(values[:, None] for _, values in biases)]
    return Rows(part, layer, np.concatenate(columns, axis=1))


def total_rows(total: Total, layers: Ints) -> Rows:
    """Attention and MLP of each layer."""
    part = (*[ATTENTION] * len(layers), *[MLP] * len(layers))
    return Rows(
        part, np.concatenate([layers, layers]).astype(np.int64), np.concatenate([total.attn, total.mlp], axis=1)
    )


def head_rows(values: Floats, layers: Ints) -> Rows:
    """Every head; `part` is its number."""
    heads = values.shape[2]
    part = tuple(str(head) for head in range(heads)) * len(layers)
    return Rows(part, np.repeat(layers, heads).astype(np.int64), values.reshape(len(values), -1))


def at_common_scale(rows: Rows, scale: Floats, units: Units) -> Rows:
    """Rows of direct contributions at one factor of the final norm, and what the factors make of them as a row.

    Parameters
    ----------
    rows, scale
        Of the prompts of the units, and the factor of each prompt's final norm.
    units
        Those that are compared.
    """
    common = common_factor(scale, units)[:, None]
    scaled = np.array([name not in (NORM_BIAS, HEAD_BIAS) for name in rows.part])
    same = np.where(scaled, at_factor(rows.values, scale[:, None], common), rows.values)
    norm = np.nansum(rows.values - same, axis=1)
    return Rows((*rows.part, FINAL_NORM), np.append(rows.layer, NO_LAYER), np.column_stack([same, norm]))


def compare(rows: Rows, design: Design, *, tested: bool, permutations: int, seed: int) -> Compared:
    """Compare all rows as one family; `rows.values` has a row for each prompt of the design's units."""
    a, b = design.units.average(rows.values)
    family = compare_family(design, design.units, a, b, permutations=permutations, seed=seed)
    return Compared(rows.part, rows.layer, family, tested)
