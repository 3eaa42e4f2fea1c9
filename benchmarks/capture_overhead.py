"""What recording costs while it goes on, against the plain forwards of the same prompts: group after group.

One thread, one prompt of 256 tokens at a time (of attention also 1,024). Models: SmolLM2-135M in float32, and a Llama
with random weights of residual width 2,048 with 8,192 neurons in each of 4 layers, in float32 and bfloat16. A round
runs four plain forwards and, with each set of groups, a recording's next four prompts: tokenising, observed forwards,
checks, and the trace with whatever commits fall due, so that a slow minute of a shared machine falls on all. What a
recording costs only once (to begin and to finish a trace) is printed by itself, in seconds. Both sides run the forward
without a cache and with the logits of the last token only.

The last line is the largest ratio over its goal.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from _models import plain_forward, smollm2, some_prompts, wide_llama
from _recordings import Running
from _timing import interval, parser, rounds

from stratoscope.model.load import LoadedModel
from stratoscope.names import ATTENTION, NEURONS, NORMS, PEAKS, RESIDUAL

WINDOW = 4  # prompts that a recording of batches of one prompt appends at once
GROUPS = {
    "norms + residual": (NORMS, RESIDUAL),
    "+ top-10 peaks": (NORMS, RESIDUAL, PEAKS),
    "+ all neurons": (NORMS, RESIDUAL, PEAKS, NEURONS),
    "+ attention summaries": (NORMS, RESIDUAL, PEAKS, NEURONS, ATTENTION),
}
CASES = {  # name: tokens, goals of GROUPS
    "SmolLM2 float32": (256, (1.02, 1.05, 1.07, 1.15)),
    "SmolLM2 float32, 1,024 tokens": (1024, (None, None, None, 1.20)),
    "d=2048 float32": (256, (1.01, 1.02, 1.04, 1.06)),
    "d=2048 bfloat16": (256, (1.03, 1.08, 1.12, 1.20)),
}


def case(name: str, loaded: LoadedModel, pairs: int, folder: Path) -> list[float]:
    """Measure one model; gives each ratio over its goal."""
    folder.mkdir()
    tokens, goals = CASES[name]
    prompts = some_prompts(loaded.tokenizer, WINDOW * (pairs + 1), tokens)
    ids = torch.tensor([loaded.tokenizer(prompt.text)["input_ids"] for prompt in prompts[:WINDOW]])
    running = {
        label: Running(loaded, prompts, folder / str(number), record=record, batch_size=1)
        for number, (label, record) in enumerate(GROUPS.items())
        if goals[number] is not None
    }
    times = rounds({"plain": plain_forward(copy.deepcopy(loaded.model), ids), **running}, pairs=pairs)
    plain = times["plain"]
    print(f"\n{name}, {tokens} tokens: plain forward {np.median(plain) / WINDOW * 1e3:.1f} ms, {pairs} rounds")
    over = []
    for label, goal in zip(GROUPS, goals, strict=True):
        if goal is not None:
            ratio, low, high = interval(times[label] / plain)
            once = running[label].finish()
            print(f"  {label:<24} {ratio:.3f} [{low:.3f}, {high:.3f}] goal {goal:.2f}   once {once:.2f} s", flush=True)
            over.append(ratio / goal)
    return over


def main() -> None:
    options = parser(__doc__, pairs=25)
    options.add_argument("--model", default=None, help="folder or GGUF file of SmolLM2 (default: the installed one)")
    options.add_argument("--only", default="", help="only cases whose name has this in it")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    small = smollm2(arguments.model)
    folder = Path(tempfile.mkdtemp(prefix="capture_overhead-", dir=arguments.folder))
    over: list[float] = []
    try:
        for name in CASES:
            if arguments.only in name:
                loaded = small if name.startswith("SmolLM2") else wide_llama(small.tokenizer, name.split()[-1])
                over += case(name, loaded, arguments.pairs, folder / name.replace(" ", "-"))
                shutil.rmtree(folder / name.replace(" ", "-"))
        print(f"\nratio: {max(over):.3f} of its goal, the largest of {len(over)}; goal <=1")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
