"""The memory that one prompt of 32,768 tokens takes: recorded (norms, residual, peaks, prompts), and just run.

A random Llama with 12 layers, residual width 128 and 512 neurons a layer, in float32. Both are measured in fresh
processes, as the peak of resident memory (VmHWM) above that of the loaded model. What a recording gives, and so must
hold once, is printed beside it, and so is what keeping the neurons of all layers would take. The last line is the
recording's peak over that of the plain forward.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).parent.parent / "tests" / "capture"))
from tiny import byte_tokenizer, tiny_model

from stratoscope import capture, defaults

TOKENS, LAYERS, D_MODEL, D_FF = 32_768, 12, 128, 512
GOAL = 2.0
MIB = 2**20
MODES = ("plain", "recorded")


def build(tokens: int, layers: int, d_model: int, d_ff: int) -> Any:
    torch.set_num_threads(1)
    shape = {"num_hidden_layers": layers, "hidden_size": d_model, "intermediate_size": d_ff, "num_attention_heads": 4}
    special = {"vocab_size": 300, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    return tiny_model("LlamaConfig", {**shape, **special, "max_position_embeddings": tokens})


def peak(mode: str, tokens: int, layers: int, d_model: int, d_ff: int) -> tuple[int, int]:
    """Peak of resident memory above the loaded model's, and the bytes of the arrays that came out."""
    model, size = build(tokens, layers, d_model, d_ff), 0
    text = "The quick brown fox. " * (tokens // 21 + 1)
    with torch.no_grad():
        model(torch.ones(1, 64, dtype=torch.int64), use_cache=False, logits_to_keep=1)  # what torch itself loads
    Path("/proc/self/clear_refs").write_text("5")  # forget earlier peaks
    before = status("VmRSS:")
    if mode == "plain":
        ids = torch.tensor([byte_tokenizer()(text[:tokens])["input_ids"]])
        with torch.no_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, logits_to_keep=1)
    else:
        with tempfile.TemporaryDirectory() as folder:
            trace = capture(model, [text[:tokens]], Path(folder) / "t.trace", tokenizer=byte_tokenizer())
            size = sum(variable.nbytes for variable in trace.data_vars.values())
    return status("VmHWM:") - before, size


def status(key: str) -> int:
    words = Path("/proc/self/status").read_text().split()
    return int(words[words.index(key) + 1]) * 1024


def in_a_fresh_process(*arguments: Any) -> tuple[int, int]:
    with get_context("spawn").Pool(1) as process:
        return process.apply(peak, arguments)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tokens", type=int, default=TOKENS, help=f"of the prompt (default {TOKENS})")
    options.add_argument("--repeats", type=int, default=3, help="processes for each (default 3)")
    arguments = options.parse_args()
    shape = (arguments.tokens, LAYERS, D_MODEL, D_FF)
    found = {mode: [in_a_fresh_process(mode, *shape) for _ in range(arguments.repeats)] for mode in MODES}
    extra = {mode: sorted(value for value, _ in values) for mode, values in found.items()}
    for mode, values in extra.items():
        print(f"{mode:<9} peak above the loaded model, MiB: " + ", ".join(f"{value / MIB:.0f}" for value in values))
    print(f"arrays of the trace ({', '.join(defaults.RECORD)}), MiB: {found['recorded'][0][1] / MIB:.0f}")
    print(f"neurons of all layers at once would take, MiB: {4 * arguments.tokens * LAYERS * D_FF / MIB:.0f}")
    plain, recorded = extra["plain"], extra["recorded"]
    middle = recorded[len(recorded) // 2] / plain[len(plain) // 2]
    print(f"ratio: {middle:.3f} [{recorded[0] / plain[-1]:.3f}, {recorded[-1] / plain[0]:.3f}] goal <={GOAL:g}")


if __name__ == "__main__":
    main()
