"""What recording costs: norms, residual and peaks into a trace on disk, against the plain forward of the same batches.

SmolLM2-135M in float32, 256 tokens a prompt, one thread. Recording is everything after the model is loaded and its
sites are proved: tokenising, the observed forwards, the checks, and the trace, created, committed and finished. The
plain side is the forwards alone, with the same options (no cache, logits of the last token only); the usual forward
with all logits is timed beside it. Peak memory is that of a process of its own, from the loaded model on. The last line
is the worse of the two batch sizes.
"""

from __future__ import annotations

import inspect
import shutil
import tempfile
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _timing import interleaved, parser, ratio_interval, report, seconds

from stratoscope.doors.demo import find_model
from stratoscope.model.load import LoadedModel, load_model
from stratoscope.names import NORMS, PEAKS, RESIDUAL
from stratoscope.recorder.prompts import Prompt
from stratoscope.recorder.recording import Recording

TOKENS = 256
FORWARDS = {1: 16, 8: 3}  # batch size: forwards in one timed run
GOAL = 1.10
MEMORY_TOKENS, FEW, MANY = 64, 32, 256


def load(model: str) -> LoadedModel:
    torch.set_num_threads(1)
    return load_model(model, dtype="float32", device="cpu")


def some_prompts(tokenizer: Any, count: int, tokens: int) -> list[Prompt]:
    """Pieces of Python source that are exactly that many tokens long."""
    source, found, start = inspect.getsource(inspect), [], 0
    while len(found) < count:
        start = (start + 701) % (len(source) - 12 * tokens)
        text = tokenizer.decode(tokenizer(source[start : start + 12 * tokens])["input_ids"][:tokens])
        if len(tokenizer(text)["input_ids"]) == tokens:
            found.append(Prompt(f"p{len(found)}", text=text))
    return found


def make_recording(loaded: LoadedModel, prompts: list[Prompt], batch_size: int) -> Recording:
    return Recording(
        loaded,
        prompts,
        record=(NORMS, RESIDUAL, PEAKS),
        top_k=10,
        batch_size=batch_size,
        chat=False,
        progress=lambda *_: None,
    )


def plain(loaded: LoadedModel, batches: list[torch.Tensor], **options: Any) -> None:
    with torch.no_grad():
        for ids in batches:
            loaded.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **options)


def overhead(loaded: LoadedModel, batch_size: int, folder: Path, pairs: int) -> np.ndarray:
    prompts = some_prompts(loaded.tokenizer, batch_size * FORWARDS[batch_size], TOKENS)
    ids = torch.tensor([loaded.tokenizer(prompt.text)["input_ids"] for prompt in prompts])
    batches = list(ids.split(batch_size))
    recording = make_recording(loaded, prompts, batch_size)
    times = interleaved(
        lambda: recording.run(folder / "t.trace", resume=False, overwrite=True),
        partial(plain, loaded, batches, logits_to_keep=1),
        pairs=pairs,
    )
    full = np.median([seconds(partial(plain, loaded, batches)) for _ in range(5)])
    print(f"plain forward with all logits            median {full:8.4f} s")
    return times


def peak_memory(model: str, count: int, folder: Path) -> float:
    """Peak resident memory, MiB, while that many prompts are recorded."""
    loaded = load(model)
    recording = make_recording(loaded, some_prompts(loaded.tokenizer, count, MEMORY_TOKENS), 8)
    Path("/proc/self/clear_refs").write_text("5")  # forget earlier peaks
    recording.run(folder / "m.trace", resume=False, overwrite=True)
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) / 1024


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--model", default=None, help="folder or GGUF file (default: the installed SmolLM2)")
    arguments = options.parse_args()
    model = arguments.model or str(find_model())
    loaded = load(model)
    folder = Path(tempfile.mkdtemp(prefix="capture_overhead-"))
    try:
        timed = {}
        for batch_size in FORWARDS:
            times = timed[batch_size] = overhead(loaded, batch_size, folder, arguments.pairs)
            ratio, low, high = ratio_interval(times)
            print(f"batch {batch_size} x {TOKENS}: ratio {ratio:.3f} [{low:.3f}, {high:.3f}]")
        for count in (FEW, MANY):
            with get_context("spawn").Pool(1) as process:
                peak = process.apply(peak_memory, (model, count, folder))
            print(f"peak memory, {count:4d} prompts of {MEMORY_TOKENS} tokens: {peak:.0f} MiB")
        worst = max(timed, key=lambda size: ratio_interval(timed[size])[0])
        report(timed[worst], ours=f"recording, batch {worst}", theirs="plain forward", goal=GOAL)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
