"""Datasets that a trace may hold and that nobody would record: odd values, odd shapes, odd words; for hypothesis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from hypothesis import strategies as st

from stratoscope import names
from stratoscope.trace.labels import labelled, root_attributes

FLOAT_MAX = float(np.finfo(np.float32).max)
FILLS = ("usual", "usual", "nan", "inf", "-inf", "both infinite", "some infinite", "some nan", "tiny", "large",
         "largest", "equal", "zero", "negative", "one spike", "of every kind", "a row of each")  # fmt: skip
WORDS = (
    "",
    " the",
    "\x1b[31mred",
    "\x00",
    "\u202e",
    "👩‍👩‍👧",
    "a" * 300,
    "\n\n",
    "\udce4",
    "$x^2$",
    "<b>",
    "=1+1",
    "\ufffe",
    "ǆ",
)
IDS = ("p", "p", "", "q", "../../x", "\x1b]0;t\x07", "é" * 90, "0", "-1", 'a,b\n"c"')
CLASSES = ("critical", "neutral", "", "critical", "<i>", "x" * 200, "\u202e", "neutral")
LAYERS = ((0,), (0, 1), (0, 1, 2), tuple(range(7)), (22, 23, 31), (0, 2**31 - 1), (2**31 - 1,))
MANY = ((6, 6) * 8, (9,) * 16, (7, 3, 5, 4) * 4, (2,) * 24)
LENGTHS = (*MANY, (1,), (2,), (5,), (1, 1), (12, 12), (3, 3, 3, 3), (5, 1, 40), (2,) * 17)
ONE_BY_ONE = ("mlp_out_norm", "resid_norm", "mlp_write_cos", "mlp_write_ratio", "peak_value", "peak_write",
              "prompt_mean", "attn_received", "attn_first", "neurons", "attention")  # fmt: skip
GROUPED = (
    frozenset(names.RECORD_GROUPS),
    frozenset((*names.RECORD_GROUPS, names.OUTCOME, names.FLOOR)),
    frozenset(names.SUMMARIES),
    frozenset((*names.SUMMARIES, names.FLOOR)),
    frozenset((names.NORMS, names.PROMPTS)),
    frozenset((names.PEAKS,)),
    frozenset((names.ATTENTION, names.OUTCOME)),
    frozenset((names.PROMPTS,)),
    frozenset(),
)
Choose = Callable[[Sequence[Any]], Any]


@dataclass(frozen=True)
class Odd:
    """What an odd Dataset is made of; equal ones make equal Datasets."""

    lengths: tuple[int, ...]
    layers: tuple[int, ...]
    quantities: frozenset[str]
    fills: tuple[str, ...]
    heads: int
    neurons: int
    top_k: int
    source: str
    words: int  # which texts, ids, classes and pairs
    seed: int
    attrs: tuple[tuple[str, Any], ...] = ()

    def dataset(self, *, other: int = 0) -> xr.Dataset:
        """The Dataset; `other`: of the same shape with other values."""
        random = np.random.default_rng((self.seed, other))
        fill = [self.fills[place] for place in random.integers(0, len(self.fills), len(names.QUANTITIES))]
        tokens, prompts, layers = sum(self.lengths), len(self.lengths), len(self.layers)
        position = np.concatenate([np.arange(length) for length in self.lengths] or [np.zeros(0)]).astype("int32")
        rows = 0 if self.source != names.IMPORTED else 3 * tokens
        sizes = {
            names.TOKEN: tokens, names.PROMPT: prompts, names.LAYER: layers, names.DEPTH: layers + 1,
            names.HEAD: self.heads, names.NEURON: self.neurons, names.PEAK: self.top_k, names.OPENER: 2,
            names.CHOICE: 2, names.ACTIVE: 5, names.ROW: rows, names.TARGET: 2, names.LOGIT_RANK: 4,
            names.EFFECT_RANK: 3, names.STRONGEST: 4, names.READ_PART: 2, names.COMPONENT: 2 + 2 * layers,
            names.WRITE_RANK: 4, names.LENS: 2, names.LENS_RANK: 3, names.ROUTE: 4,
            names.EDGE: sum(names.edges(length) for length in self.lengths),
        }  # fmt: skip
        arrays: dict[str, Any] = {
            "prompt": np.repeat(np.arange(prompts), self.lengths),
            "position": position,
            "token_id": random.integers(-1, 7, tokens),
            "span": random.integers(-1, len(names.SPANS), tokens)
            if self.words % 2
            else np.full(tokens, names.SPANS.index("user")),
            "layer": np.array(self.layers),
        }
        if any(names.DEPTH in names.QUANTITIES[name].dims for name in self.quantities):
            arrays["depth"] = np.arange(layers + 1)
        if self.source == names.IMPORTED:
            arrays["row_token"] = np.sort(random.integers(0, max(tokens, 1), rows))
            arrays["row_layer"] = random.choice(np.array(self.layers), rows)
            arrays["row_neuron"] = random.integers(0, 2**31, rows)
        for number, name in enumerate(sorted(self.quantities)):
            row = names.QUANTITIES[name]
            shape = tuple(sizes[dim] for dim in row.dims)
            dtype = "float32" if row.dtype == "model" else row.dtype
            arrays[name] = (
                _integers(name, shape, random) if dtype.startswith("int") else filled(shape, fill[number], random)
            )
            with np.errstate(over="ignore"):  # float16 has no 1e38
                arrays[name] = arrays[name].astype(dtype)
        streamed = {name: arrays.pop(name) for name in self.quantities if names.QUANTITIES[name].dtype == "model"}
        dataset = labelled(arrays, self._texts(tokens, prompts, random), self._attributes())
        return dataset.assign({name: (names.QUANTITIES[name].dims, values) for name, values in streamed.items()})

    def _texts(self, tokens: int, prompts: int, random: np.random.Generator) -> dict[str, Any]:
        pick = lambda table, count: [table[place] for place in random.integers(0, len(table), count)]  # noqa: E731
        pairs = [f"pair {prompt // 2}" for prompt in range(prompts)]
        usual = {
            "prompt_id": [f"p{prompt}" for prompt in range(prompts)],
            "prompt_class": [CLASSES[prompt % 2] for prompt in range(prompts)],
            "pair": pairs if self.words % 3 else [""] * prompts,
        }
        odd = {
            "prompt_id": pick(IDS, prompts),
            "prompt_class": pick(CLASSES, prompts),
            "pair": pick((*pairs, "", "x"), prompts),
            "group": pick(("", "g", "h"), prompts),
        }
        return {"text": pick(WORDS, tokens), **(usual if self.words < 3 else odd)}

    def _attributes(self) -> dict[str, Any]:
        attrs = root_attributes(self.source, model={"name": "odd", "dtype": "float32", "d_ff": self.neurons})
        if self.source == names.IMPORTED:
            attrs["axis"] = "unknown"
        return attrs | dict(self.attrs)


def filled(shape: tuple[int, ...], how: str, random: np.random.Generator) -> Any:
    """float64 values of that kind, all of which float32 can hold."""
    values = random.lognormal(size=shape)
    anywhere = random.random(shape)
    if how == "nan":
        values[...] = np.nan
    elif how == "inf":
        values[...] = np.inf
    elif how == "-inf":
        values[...] = -np.inf
    elif how == "both infinite":
        values = np.where(anywhere < 0.5, np.inf, -np.inf)
    elif how == "some infinite":
        values[anywhere < 0.2], values[anywhere > 0.9] = np.inf, -np.inf
    elif how == "some nan":
        values[anywhere < 0.6] = np.nan
    elif how == "tiny":
        values = np.where(anywhere < 0.5, 1e-45, 3e-45)
    elif how == "large":
        values = values * 1e38 / max(1.0, values.max(initial=1))
    elif how == "largest":
        values = np.where(anywhere < 0.5, FLOAT_MAX, -FLOAT_MAX)
    elif how == "equal":
        values[...] = 3
    elif how == "zero":
        values[...] = 0
    elif how == "negative":
        values = -values
    elif how == "one spike":
        values[...] = 1e-6
        values.flat[: min(1, values.size)] = 1e30
    elif how == "of every kind":
        values = random.choice([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, FLOAT_MAX, -FLOAT_MAX, 1.0, -1.0], shape)
    elif how == "a row of each" and len(shape) > 1:
        kinds = np.array([0.0, np.nan, np.inf, 1.0, FLOAT_MAX])[np.arange(shape[1]) % 5]
        values[...] = kinds.reshape((1, -1) + (1,) * (len(shape) - 2))
    return values


def _integers(name: str, shape: tuple[int, ...], random: np.random.Generator) -> Any:
    if name in ("opens_as_refusal", "refusal_pattern"):
        return random.integers(-1, 2, shape)
    return random.choice(np.array([-1, -1, 0, 1, 2, 2, 5, 10**6, 2**31 - 1]), shape)


def some(choose: Choose, *, fit: str = "") -> Odd:
    """One odd Dataset, as what it is made of.

    `choose` gives one of a sequence; `fit`: "contrast" for one that is mostly large and plain enough to be compared.
    """
    source = choose((names.REAL, names.REAL, names.SIMULATED, names.IMPORTED))
    groups = choose((*GROUPED, *GROUPED, *ONE_BY_ONE))
    table = names.QUANTITIES.values()
    asked = {groups} if isinstance(groups, str) else {row.name for row in table if row.group in groups}
    experts = choose((True, False))
    chosen = frozenset(name for name in asked if experts or name not in names.OF_SOME_MODELS)
    attrs: dict[str, Any] = {}
    if choose(range(6)) == 0:
        attrs["state"] = "recording"
    if choose(range(6)) == 0:
        attrs["plan"] = {"prompts": 10, "part": [1, 2], "part_prompts": [0, 5], "top_k": 3}
    if experts and choose((True, False)):
        layers = {"layers": [0], "experts": 3, "expert_width": 2, "dense_width": None}
        attrs["model"] = {"name": "odd", "mlps": [layers]}
    plain = fit == "contrast" and choose(range(5)) > 0
    return Odd(
        lengths=choose(MANY if plain else LENGTHS),
        layers=choose(LAYERS),
        quantities=frozenset({"imported_norm"}) if source == names.IMPORTED else chosen,
        fills=tuple(choose(FILLS) for _ in range(choose((1, 2, 3)))),
        heads=choose((1, 2, 3)),
        neurons=choose((1, 6, 40)),
        top_k=choose((1, 2, 4)),
        source=source,
        words=choose((0, 2) if plain else range(6)),
        seed=choose(range(10**6)),
        attrs=tuple(attrs.items()),
    )


@st.composite
def odd(draw: Any, fit: str = "") -> Odd:
    """The same for hypothesis."""
    return some(lambda among: draw(st.sampled_from(among)), fit=fit)
