"""Long prompts in bounded memory, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LENGTH = 4096
PROGRAM = f"""
import sys, torch
from tiny import tiny_model
from stratoscope.recorder.attention.observer import AttentionObserver

def peak():
    return int(next(line for line in open("/proc/self/status") if "VmHWM" in line).split()[1]) / 1024

torch.set_num_threads(1)
layers, length = int(sys.argv[1]), {LENGTH}
options = dict(vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=layers, num_attention_heads=2)
options |= dict(num_key_value_heads=1, max_position_embeddings=length, pad_token_id=0, bos_token_id=1, eos_token_id=1)
model = tiny_model("LlamaConfig", options)
ids = torch.randint(3, 300, (1, length))
with torch.no_grad():
    model(ids, use_cache=False, logits_to_keep=1)
    before = peak()
    with AttentionObserver(model, layers, [block.self_attn.o_proj for block in model.model.layers]) as observer:
        observer.begin(torch.ones_like(ids).bool())
        model(ids, use_cache=False, logits_to_keep=1)
        found = observer.take()
size = sum(values.untyped_storage().nbytes() for layers in found.values() for values in layers) / 2**20
print(peak() - before - size)
"""


def extra_mib(layers: int) -> float:
    """Peak memory of observing, beyond the forward and the quantities themselves."""
    folder = str(Path(__file__).parent)
    program = f"import sys; sys.path.insert(0, {folder!r}); {PROGRAM.strip()}"
    done = subprocess.run([sys.executable, "-c", program, str(layers)], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_the_peak_grows_neither_with_the_layers_nor_with_the_square_of_the_length() -> None:
    few, many = extra_mib(2), extra_mib(16)
    square = 2 * LENGTH**2 * 4 / 2**20  # one layer's weights: 128 MiB
    assert max(few, many) < 0.75 * square
    assert many < few + 20
