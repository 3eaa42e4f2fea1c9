"""A recording with direct contributions of four targets against the same without: SmolLM2-135M, float32, one thread.

All record norms, the residual stream and peaks of the same prompts, interleaved: tokenising, observed forwards, checks,
and the trace with whatever commits fall due. Beside it: targets that each prompt chooses, which takes a forward more
for each batch, and `--positions all`.

The last line is the ratio for four named targets at the answer position, of batches.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from _models import smollm2, some_prompts
from _recordings import Running
from _timing import interval, parser, rounds

from stratoscope import names
from stratoscope.model.load import LoadedModel
from stratoscope.recorder.targets.asked import TargetSettings

GOAL = 1.05
WINDOW = 4  # batches that are appended at once
RECORD = (names.NORMS, names.RESIDUAL, names.PEAKS)
FOUR = ("Sorry", "Sure", "I", "The")
CASES = {"batches of 8 prompts of 64 tokens": (8, 64), "prompts of 512 tokens, one by one": (1, 512)}
WITHOUT, FOUR_TARGETS = "peaks, without contributions", "+ four targets"
WAYS = {
    WITHOUT: None,
    FOUR_TARGETS: TargetSettings(FOUR),
    "+ each prompt's own target": TargetSettings(),
    "+ four targets, every position": TargetSettings(FOUR, every_position=True),
}


def case(loaded: LoadedModel, shape: tuple[int, int], pairs: int, folder: Path, ways: list[str]) -> float:
    """Measure one shape of batches; the ratio for four targets."""
    batch, tokens = shape
    prompts = some_prompts(loaded.tokenizer, WINDOW * batch * (pairs + 1), tokens)
    folder.mkdir()
    running = {
        name: Running(
            loaded,
            prompts,
            folder / str(number),
            record=RECORD if WAYS[name] is None else (*RECORD, names.LOGITS),
            batch_size=batch,
            targets=WAYS[name],
        )
        for number, name in enumerate(ways)
    }
    times = rounds(running, pairs=pairs)
    for one in running.values():
        one.close()
    print(f"  {WITHOUT:<32} {np.median(times[WITHOUT]) / WINDOW * 1e3:.0f} ms a batch, {pairs} rounds")
    ratios = {name: interval(times[name] / times[WITHOUT]) for name in ways if name != WITHOUT}
    for name, (ratio, low, high) in ratios.items():
        print(f"  {name:<32} {ratio:.3f} [{low:.3f}, {high:.3f}]", flush=True)
    return ratios[FOUR_TARGETS][0]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--model", default=None, help="folder or GGUF file of SmolLM2 (default: the installed one)")
    options.add_argument("--only", default="", help="only cases whose name has this in it")
    options.add_argument("--ways", type=int, default=len(WAYS), help="only the first of the ways")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    loaded, found = smollm2(arguments.model), []
    folder = Path(tempfile.mkdtemp(prefix="direct_contributions-", dir=arguments.folder))
    try:
        for number, (name, shape) in enumerate(CASES.items()):
            if arguments.only in name:
                print(name)
                ways = list(WAYS)[: arguments.ways]
                found.append(case(loaded, shape, arguments.pairs, folder / str(number), ways))
    finally:
        shutil.rmtree(folder)
    print(f"ratio: {found[0]:.3f} goal <={GOAL:g}")


if __name__ == "__main__":
    main()
