"""What routes cost: every edge of attention of every token, the 16 largest kept. SmolLM2-135M, float32, one thread.

Interleaved, on the same batch: the plain forward; one that is observed for the residual stream alone, as the smallest
recording is; the same with routes; a recording's norms, residual and peaks; and these with routes. Without tokenising
and writing: those are measured by `--plan`, with the bytes that routes take.

With `--long`, one prompt of 3,700 tokens instead: how much more memory its forward takes with routes than without.

The last line is what routes add to observing the residual stream, over the plain forward, of batches of 8 × 64 tokens.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _models import smollm2, some_prompts
from _timing import interval, parser, rounds

from stratoscope import names
from stratoscope.model.load import LoadedModel
from stratoscope.model.search.find import find_sites
from stratoscope.recorder.input.batches import Batch, GivenTokens, make_batch
from stratoscope.recorder.observe import Observer, forward, last_logits_only

GOAL = 0.10
CASES = {"8 prompts of 64 tokens": (8, 64), "one prompt of 512 tokens": (1, 512)}
LONG = 3700
PLAIN = "plain forward"
SMALLEST, PEAKS = (names.RESIDUAL,), (names.NORMS, names.RESIDUAL, names.PEAKS)


class Watched:
    """The model, and observers of it by what they record."""

    def __init__(self, loaded: LoadedModel, batch: Batch) -> None:
        self._model, self._batch, self._options = loaded.model, batch, last_logits_only(loaded.model)
        self._sites = find_sites(loaded.model, batch.input_ids[:1, :64])

    def plain(self) -> None:
        """Nobody looks."""
        forward(self._model, self._batch, **self._options)

    def recording(self, record: tuple[str, ...]) -> Callable[[], Any]:
        """A forward of which these groups are recorded."""
        observer = Observer(self._model, self._sites, record, 10)

        def run() -> None:
            with observer:
                observer.record(self._batch, **self._options)

        return run


def batch_of(loaded: LoadedModel, prompts: int, tokens: int) -> Batch:
    """Prompts of exactly that many tokens."""
    tokenizer = loaded.tokenizer
    ids = [tokenizer(one.text)["input_ids"] for one in some_prompts(tokenizer, prompts, tokens)]
    given = [GivenTokens(np.array(one, np.int32), np.zeros(tokens, np.int8)) for one in ids]
    return make_batch(given, pad_id=0, padding_side="right", device=torch.device("cpu"))


def case(loaded: LoadedModel, shape: tuple[int, int], pairs: int) -> float:
    """Measure one shape of batches; what routes add, over the plain forward."""
    watched = Watched(loaded, batch_of(loaded, *shape))
    ways = [record + more for record in (SMALLEST, PEAKS) for more in ((), (names.ROUTES,))]
    work = {PLAIN: watched.plain} | {" + ".join(way): watched.recording(way) for way in ways}
    times = rounds(work, pairs=pairs)
    for name, taken in times.items():
        ratio, low, high = interval(taken / times[PLAIN])
        print(
            f"  {name:<40} {np.median(taken) * 1e3:7.0f} ms   {ratio:.3f} [{low:.3f}, {high:.3f}] of the plain forward"
        )
    added = []
    for record in (SMALLEST, PEAKS):
        without = " + ".join(record)
        ratio, low, high = interval((times[f"{without} + {names.ROUTES}"] - times[without]) / times[PLAIN])
        print(f"  routes add to {without:<26} {ratio:.3f} [{low:.3f}, {high:.3f}] of the plain forward", flush=True)
        added.append(ratio)
    return added[0]


def long(loaded: LoadedModel) -> None:
    """How much more memory one long prompt takes."""
    rng = np.random.default_rng(0)
    ids = rng.integers(100, 40_000, LONG).astype(np.int32)
    batch = make_batch(
        [GivenTokens(ids, np.zeros(LONG, np.int8))], pad_id=0, padding_side="right", device=torch.device("cpu")
    )
    watched = Watched(loaded, batch)
    before = peak_mib()
    for name, work in {
        PLAIN: watched.plain,
        "residual": watched.recording(SMALLEST),
        "residual + routes": watched.recording((*SMALLEST, names.ROUTES)),
    }.items():
        work()
        print(f"  {name:<20} peak {peak_mib():.0f} MiB (+{peak_mib() - before:.0f})")


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--model", default=None, help="folder or GGUF file of SmolLM2 (default: the installed one)")
    options.add_argument("--only", default="", help="only cases whose name has this in it")
    options.add_argument("--long", action="store_true", help="memory of one long prompt instead")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    loaded = smollm2(arguments.model)
    if arguments.long:
        long(loaded)
        return
    found = []
    for name, shape in CASES.items():
        if arguments.only in name:
            print(name)
            found.append(case(loaded, shape, arguments.pairs))
    print(f"ratio: {found[0]:.3f} goal <={GOAL:g}")


if __name__ == "__main__":
    main()
