"""The memory that recording everything takes above the plain forward, for more and more layers and prompts.

Llamas with random weights (residual width 256, 1,024 neurons, 4 heads) over prompts of 256 tokens, one at a time, with
every record group. Each figure is from two fresh processes, one that records and one that only runs the model: the
difference of their peaks of resident memory (VmHWM) above the loaded model. Beside it stands what keeping the same
tensors of every prompt in memory, as other tools do, would take.

What waits for the next commit and for chunks that are not yet whole is held in memory, so the figure grows until those
are full, and then no more. The last line is the extra memory with 8 times the prompts over that with the fewest, of the
most layers.
"""

from __future__ import annotations

import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from _timing import parser

sys.path.append(str(Path(__file__).parent.parent / "tests" / "capture"))
from long_prompt import status
from tiny import byte_tokenizer, tiny_model

from stratoscope import capture, names

TOKENS, D_MODEL, D_FF, HEADS = 256, 256, 1024, 4
LAYERS, PROMPTS = (8, 32), (128, 1024)
GROUPS = tuple(group for group in names.RECORD_GROUPS if group != names.ATTENTION_FULL)
GOAL = 1.25
MIB = 2**20


def model_of(layers: int) -> Any:
    torch.set_num_threads(1)
    shape = {
        "num_hidden_layers": layers,
        "hidden_size": D_MODEL,
        "intermediate_size": D_FF,
        "num_attention_heads": HEADS,
    }
    special = {"vocab_size": 300, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    return tiny_model("LlamaConfig", {**shape, **special, "max_position_embeddings": TOKENS})


def peak(record: bool, layers: int, prompts: int) -> int:
    """Bytes above the loaded model."""
    model, tokenizer = model_of(layers), byte_tokenizer()
    texts = [f"{number:06} " + "The quick brown fox. " * 12 for number in range(prompts)]
    texts = [text[:TOKENS] for text in texts]
    ids = torch.tensor([tokenizer(texts[0])["input_ids"]])
    with torch.no_grad():
        model(ids[:, :32], use_cache=False, logits_to_keep=1)  # what torch itself loads
    Path("/proc/self/clear_refs").write_text("5")  # forget earlier peaks
    before = status("VmRSS:")
    if record:
        with tempfile.TemporaryDirectory() as folder:
            capture(model, texts, Path(folder) / "t", tokenizer=tokenizer, record=GROUPS, batch_size=1)
    else:
        with torch.no_grad():
            for _ in range(8):
                model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, logits_to_keep=1)
    return status("VmHWM:") - before


def main() -> None:
    parser(__doc__, pairs=1).parse_args()
    extra: dict[tuple[int, int], int] = {}
    for layers in LAYERS:
        for prompts in PROMPTS:
            with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
                recorded = pool.apply(peak, (True, layers, prompts))
            with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
                plain = pool.apply(peak, (False, layers, prompts))
            extra[layers, prompts] = recorded - plain
            kept = prompts * layers * TOKENS * 4 * (D_FF + 3 * D_MODEL + HEADS * TOKENS)
            more = f"{extra[layers, prompts] / MIB:6.0f} MiB above the plain forward"
            print(f"{layers:3} layers, {prompts:4} prompts: {more}; kept, {kept / MIB:7.0f} MiB", flush=True)
    ratio = extra[LAYERS[-1], PROMPTS[-1]] / extra[LAYERS[-1], PROMPTS[0]]
    print(f"ratio: {ratio:.3f} goal <={GOAL:g}")


if __name__ == "__main__":
    main()
