"""A recording with lenses against the same without: SmolLM2-135M, float32, one thread.

All record norms, the residual stream and peaks of the same prompts, interleaved: tokenising, observed forwards, checks,
and the trace with whatever commits fall due. First the reading itself, of what a batch of 8 prompts keeps at the
default positions, against its product with the unembedding alone. Beside the logit lens: four targets, of which every
token's logits are read at every depth; and with `--all` every position.

The last line is the ratio for the default positions, of batches.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from _models import smollm2, some_prompts
from _recordings import Running
from _timing import interleaved, interval, parser, ratio_interval, rounds

from stratoscope import defaults, names
from stratoscope.model.load import LoadedModel
from stratoscope.model.search.find import find_sites
from stratoscope.recorder.lens.asked import LensSettings
from stratoscope.recorder.lens.tokens import read
from stratoscope.recorder.lens.unembedding import Unembedding
from stratoscope.recorder.targets.asked import TargetSettings

GOAL, GOAL_OF_READING = 1.15, 1.25
BATCH, TOKENS, WINDOW = 8, 64, 4  # windows: batches that are appended at once
RECORD = (names.NORMS, names.RESIDUAL, names.PEAKS)
FOUR = TargetSettings(("Sorry", "Sure", "I", "The"))
WITHOUT, DEFAULT, ALL = "peaks, without lenses", "+ lens", "+ lens, every position"
WAYS: dict[str, dict[str, object]] = {
    WITHOUT: {},
    DEFAULT: {"lens": LensSettings()},
    "+ lens of four targets": {"lens": LensSettings(), "targets": FOUR},
    ALL: {"lens": LensSettings(every_position=True)},
}


def reading(loaded: LoadedModel, pairs: int) -> None:
    """What a batch keeps, read, against its product with the unembedding alone."""
    sites = find_sites(loaded.model, torch.arange(20)[None])
    unembedding = Unembedding(loaded.model, sites.head, len(loaded.tokenizer))
    rows = len(sites.layers) * BATCH * defaults.LENS_POSITIONS
    normed = torch.randn(rows, sites.d_model, generator=torch.Generator().manual_seed(0))
    tokens = torch.arange(rows)[:, None]
    weight = loaded.model.get_submodule(sites.head.unembedding).weight.detach()
    out = torch.empty(unembedding.at_once, len(weight))

    def ours() -> None:
        for some, logits in unembedding.logits(normed):
            read(logits, tokens[some], defaults.LENS_TOKENS)

    def product() -> None:
        for some in torch.split(normed, unembedding.at_once):
            torch.mm(some, weight.T, out=out[: len(some)])

    times = interleaved(ours, product, pairs=pairs)
    ratio, low, high = ratio_interval(times)
    ms = np.median(times, axis=0) * 1e3
    print(f"reading {rows} rows: {ms[0]:.0f} ms, their product {ms[1]:.0f} ms")
    print(f"  reading / product {ratio:.3f} [{low:.3f}, {high:.3f}] goal <={GOAL_OF_READING:g}", flush=True)


def recording(loaded: LoadedModel, pairs: int, folder: Path, ways: list[str]) -> float:
    """The ratio for the default positions."""
    prompts = some_prompts(loaded.tokenizer, WINDOW * BATCH * (pairs + 1), TOKENS)
    running = {
        name: Running(
            loaded,
            prompts,
            folder / str(number),
            record=(*RECORD, names.LENSES) if WAYS[name] else RECORD,
            batch_size=BATCH,
            **WAYS[name],
        )
        for number, name in enumerate(ways)
    }
    times = rounds(running, pairs=pairs)
    for one in running.values():
        one.close()
    print(f"  {WITHOUT:<28} {np.median(times[WITHOUT]) / WINDOW * 1e3:.0f} ms a batch, {pairs} rounds")
    ratios = {name: interval(times[name] / times[WITHOUT]) for name in ways if name != WITHOUT}
    for name, (ratio, low, high) in ratios.items():
        print(f"  {name:<28} {ratio:.3f} [{low:.3f}, {high:.3f}]", flush=True)
    return ratios[DEFAULT][0]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--model", default=None, help="folder or GGUF file of SmolLM2 (default: the installed one)")
    options.add_argument("--all", action="store_true", help="measure every position too, which takes long")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    loaded = smollm2(arguments.model)
    reading(loaded, arguments.pairs)
    folder = Path(tempfile.mkdtemp(prefix="lens-", dir=arguments.folder))
    try:
        ways = [name for name in WAYS if arguments.all or name != ALL]
        print(f"batches of {BATCH} prompts of {TOKENS} tokens")
        ratio = recording(loaded, arguments.pairs, folder, ways)
    finally:
        shutil.rmtree(folder)
    print(f"ratio: {ratio:.3f} goal <={GOAL:g}")


if __name__ == "__main__":
    main()
