"""What an observed forward costs on a CUDA device, over the plain forward, beside nnsight and eager with outputs.

A Llama of a billion random parameters in bfloat16; 1 and 8 prompts of 256 and 2,048 tokens. Times are those of CUDA
events, from the start of a call until its results are there; every round runs all ways in turn, and begins with another
one. All of them run the forward without a cache and with the logits of the last token only:

- plain: the forward, and nobody looks;
- Stratoscope: the observed forward until every array is in the host's memory, as a recording takes it. Nothing is
  written: the rows of neurons arrive and are dropped, there is no folder and no commit. What a recording adds by
  writing is in `capture_overhead.py`, and does not depend on the device;
- eager with outputs: `output_attentions` and `output_hidden_states`, left on the device;
- nnsight: a trace that saves the residual stream, both writes and the neurons of each block, left on the device. Where
  it is not installed (`pip install nnsight`) its column is left out.

`memory` is the peak of the device's memory above that of the plain forward, with what a recording keeps between
batches. What does not fit is said so. The rounds are as many as fit into `--seconds`, `--rounds` (5) to 25.

On a machine without CUDA `--device cpu --tiny` rehearses every line with a small model and the clock of the CPU, and
claims no ratio. The last line is the largest ratio of norms, residual and peaks.
"""

from __future__ import annotations

import argparse
import copy
import gc
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from _timing import interval
from capture_overhead import GROUPS
from transformers import LlamaConfig, LlamaForCausalLM

from stratoscope import __version__
from stratoscope.model.search.find import find_sites
from stratoscope.names import SPANS
from stratoscope.recorder.input.batches import Batch, make_batch
from stratoscope.recorder.observe import Observer, forward, last_logits_only

SHAPES = [(1, 256), (8, 256), (1, 2048), (8, 2048)]  # prompts, tokens
TINY_SHAPES = [(2, 16)]
TOP_K = 10
ROUNDS, MOST_ROUNDS = 5, 25
EAGER, NNSIGHT = "eager with outputs", "nnsight"
JUDGED = "+ top-10 peaks"
MIB = 2**20
OUT_OF_MEMORY = "does not fit"


@dataclass(frozen=True)
class Prompt:
    """Tokens of a prompt, all of them its user's."""

    ids: np.ndarray
    spans: np.ndarray


class Dropped:
    """Where rows of neurons go here: nowhere."""

    next_row = 0

    def write(self, layer: int, row: int, values: np.ndarray) -> None:
        """Have them, and let go of them."""

    def fill(self, layer: int, row: int, count: int) -> None:
        """Nothing."""


class Clock:
    """Seconds of a call on a device: by CUDA events, or on a CPU by its clock."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"

    def __call__(self, work: Callable[[], object]) -> float:
        """Of one call."""
        gc.collect()
        if not self._cuda:
            start = time.perf_counter()
            work()
            return time.perf_counter() - start
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begun.record()
        work()
        ended.record()
        ended.synchronize()
        return begun.elapsed_time(ended) / 1e3


def llama(device: torch.device, *, tiny: bool) -> Any:
    """A Llama with random weights, of 1.1 billion parameters unless tiny."""
    torch.manual_seed(0)
    wide = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "vocab_size": 32_000}
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 300}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2} if tiny else {
        "num_attention_heads": 32, "num_key_value_heads": 8,
    }  # fmt: skip
    config = LlamaConfig(**(small if tiny else wide), **heads, max_position_embeddings=4096, pad_token_id=0)
    with torch.device(device):
        return LlamaForCausalLM(config).to(torch.bfloat16).eval()


def twin(model: Any) -> Any:
    """A model of its own with the same weights: what is hooked or set there changes nothing here."""
    return copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})


def some_batch(model: Any, prompts: int, tokens: int) -> Batch:
    """Random tokens."""
    ids = np.random.default_rng(tokens).integers(3, model.config.vocab_size, (prompts, tokens), np.int32)
    spans = np.full(tokens, SPANS.index("user"), np.int8)
    return make_batch([Prompt(one, spans) for one in ids], pad_id=0, padding_side="right", device=model.device)


# --- ways to run a batch --------------------------------------------------------------------------------------------


class Plain:
    """The forward alone."""

    def __init__(self, model: Any) -> None:
        self._model, self._options = model, last_logits_only(model)

    def ready(self, batch: Batch) -> Any:
        """Nothing to prepare."""
        return nullcontext(lambda: forward(self._model, batch, **self._options))


class Stratoscope:
    """An observed forward, and its arrays in the host's memory."""

    def __init__(self, model: Any, record: tuple[str, ...]) -> None:
        self._model = twin(model)
        sites = find_sites(self._model, torch.arange(3, 19, device=model.device)[None])
        self._observer = Observer(self._model, sites, record, TOP_K)
        self._options = last_logits_only(self._model)

    @contextmanager
    def ready(self, batch: Batch) -> Iterator[Callable[[], object]]:
        """With its hooks on."""
        streams, lengths = self._observer.streams, batch.mask.sum(1).tolist()
        streams.stream_into({name: Dropped() for name in streams.names}, Path())
        with self._observer, streams.window(lengths, answers=0):
            streams.batch(range(len(lengths)))
            yield lambda: self._observer.record(batch, **self._options)


class Eager:
    """transformers, which gives attention only of its eager implementation."""

    def __init__(self, model: Any) -> None:
        self._model = twin(model)
        self._model.set_attn_implementation("eager")
        self._options = {**last_logits_only(model), "output_attentions": True, "output_hidden_states": True}

    def ready(self, batch: Batch) -> Any:
        """Nothing to prepare."""
        return nullcontext(lambda: forward(self._model, batch, **self._options))


class NNsight:
    """A trace that saves what Stratoscope reduces."""

    def __init__(self, model: Any) -> None:
        import nnsight

        self._save = nnsight.save
        self._traced = nnsight.NNsight(twin(model))
        self._options = {**last_logits_only(model), "use_cache": False}

    def ready(self, batch: Batch) -> Any:
        """Nothing to prepare."""
        return nullcontext(lambda: self._trace(batch))

    def _trace(self, batch: Batch) -> object:
        with torch.no_grad(), self._traced.trace(**batch.inputs(), **self._options):
            kept = []
            for block in self._traced.model.layers:  # in the order in which the model computes them
                x, attn = block.input, block.self_attn.o_proj.output
                kept += [(x, attn, block.mlp.down_proj.input, block.mlp.output)]
            self._save(kept)
        return kept


def ways() -> dict[str, Callable[[Any], Any]]:
    """Name to what makes it of a model; nnsight only where it is installed."""
    found: dict[str, Callable[[Any], Any]] = {"plain": Plain}
    for name, record in GROUPS.items():
        found[name] = lambda model, record=record: Stratoscope(model, record)
    found[EAGER] = Eager
    if find_spec("nnsight"):
        found[NNSIGHT] = NNsight
    return found


# --- what is measured -----------------------------------------------------------------------------------------------


def memory(model: Any, make: Callable[[Any], Any], batch: Batch) -> int | None:
    """Peak of the device's memory above the model's own; None where it does not fit, 0 on a CPU."""
    cuda = model.device.type == "cuda"
    gc.collect()
    before = 0
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    try:
        way = make(model)
        for _ in range(2):  # the second finds what the first keeps
            with way.ready(batch) as work:
                work()
    except (torch.OutOfMemoryError, MemoryError):
        return None
    return torch.cuda.max_memory_allocated() - before if cuda else 0


def fits(model: Any, makers: dict[str, Callable[[Any], Any]], batch: Batch) -> dict[str, int | None]:
    """Memory of every way, each alone, above that of the plain forward; None where it does not fit."""
    found = {name: memory(model, make, batch) for name, make in makers.items()}
    plain = found["plain"]
    if plain is None:
        raise SystemExit(f"the plain forward of {tuple(batch.input_ids.shape)} tokens does not fit into this device")
    return {name: None if peak is None else peak - plain for name, peak in found.items()}


def times(running: dict[str, Any], batch: Batch, clock: Clock, *, least: int, seconds: float) -> dict[str, np.ndarray]:
    """Seconds of every way, round by round, in at least so many rounds; a first one is thrown away."""
    names = list(running)
    found: dict[str, list[float]] = {name: [] for name in names}
    start, number = time.monotonic(), -1
    while number < least or (number < MOST_ROUNDS and time.monotonic() - start < seconds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            with running[name].ready(batch) as work:
                taken = clock(work)
            if number >= 0:
                found[name].append(taken)
        number += 1
    return {name: np.array(one) for name, one in found.items()}


def about(device: torch.device) -> str:
    """Machine and versions, in one line."""
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, stratoscope {__version__}"
    if device.type != "cuda":
        return f"REHEARSAL on the CPU ({platform.machine()}) with a tiny model: no figure here is a result; {versions}"
    total = torch.cuda.get_device_properties(device).total_memory / 2**30
    return f"{torch.cuda.get_device_name(device)}, {total:.0f} GiB, driver {driver()}, {versions}"


def driver() -> str:
    """Version of the driver."""
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return f"for CUDA {torch.version.cuda}"


def options() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a rehearsal (default: cuda)")
    parser.add_argument("--tiny", action="store_true", help="a tiny model and few tokens, to rehearse")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"the fewest of each shape (default {ROUNDS})")
    parser.add_argument("--seconds", type=float, default=200, help="of measuring, all in all (default 200)")
    return parser.parse_args()


def main() -> None:
    asked = options()
    device = torch.device(asked.device)
    rehearsal = device.type != "cuda"
    if rehearsal and not asked.tiny:
        sys.exit("On a CPU only a rehearsal runs: --device cpu --tiny")
    if not rehearsal and not torch.cuda.is_available():
        sys.exit("This needs a machine with CUDA; --device cpu --tiny rehearses it without")
    if rehearsal:
        torch.set_num_threads(1)
    print(about(device))
    if not find_spec("nnsight"):
        print("left out: nnsight, which is not installed")
    model, makers, clock = llama(device, tiny=asked.tiny), ways(), Clock(device)
    print(f"Llama, {sum(weight.numel() for weight in model.parameters()) / 1e9:.2f} billion parameters, bfloat16")
    gc.freeze()  # or every collection goes through all of torch and transformers
    shapes = TINY_SHAPES if asked.tiny else SHAPES
    lines, judged = [], []
    for prompts, tokens in shapes:
        batch = some_batch(model, prompts, tokens)
        peaks = fits(model, makers, batch)
        running = {name: make(model) for name, make in makers.items() if peaks[name] is not None}
        taken = times(running, batch, clock, least=asked.rounds, seconds=asked.seconds / len(shapes))
        plain, cells = taken["plain"], []
        title = f"{prompts} × {tokens:,}"
        print(f"\n{title} tokens: plain forward {np.median(plain) * 1e3:.2f} ms, {len(plain)} rounds")
        for name in list(makers)[1:]:
            if name not in taken:
                print(f"  {name:<24} {OUT_OF_MEMORY}")
                cells.append(OUT_OF_MEMORY)
                continue
            ratio, low, high = interval(taken[name] / plain)
            peak = peaks[name] or 0
            print(f"  {name:<24} {ratio:.3f} [{low:.3f}, {high:.3f}]   memory +{peak / MIB:,.0f} MiB", flush=True)
            cells.append(f"{ratio:.2f} [{low:.2f}, {high:.2f}]")
            judged += [(ratio, low, high)] * (name == JUDGED)
        lines.append([title, f"{np.median(plain) * 1e3:.2f} ms", *cells])
        del running
    print("\n" + table(["prompts × tokens", "plain forward", *list(makers)[1:]], lines))
    if rehearsal:
        print("rehearsal: every line has run; no ratio is claimed")
        return
    ratio, low, high = max(judged)
    print(f"ratio: {ratio:.3f} [{low:.3f}, {high:.3f}] the largest of norms, residual and peaks over the plain forward")


def table(head: list[str], lines: list[list[str]]) -> str:
    """Markdown, to be pasted into docs/recording.md."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


if __name__ == "__main__":
    main()
