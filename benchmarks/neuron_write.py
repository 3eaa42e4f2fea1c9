"""Writing all neurons into a trace against writing the same bytes into one file, both made durable at the end.

Rows of SmolLM2-135M's shape (30 layers of 1,536 neurons, float32), layer by layer, a prompt of 256 tokens at a time, as
a model gives them; the other side writes the same buffers one after the other and calls fsync. One process, one thread.

The last line is the raw write's time over ours.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from _timing import interleaved, parser, report

from stratoscope.names import REAL
from stratoscope.trace.format.schema import Block
from stratoscope.trace.write.writer import TraceWriter

LAYERS, NEURONS, TOKENS = 30, 1536, 256
GOAL = 1 / 0.6  # ours over raw: 0.6 of its speed


def block() -> Block:
    """One prompt without other quantities."""
    numbers = np.arange(TOKENS, dtype=np.int32)
    arrays = {"prompt": np.zeros_like(numbers), "position": numbers, "token_id": numbers}
    texts = {"text": ["a"] * TOKENS, **{name: ["p"] for name in ("prompt_id", "prompt_class", "pair", "group")}}
    return Block({**arrays, "span": np.zeros(TOKENS, np.int8)}, texts)


def ours(folder: Path, layers: list[np.ndarray], prompts: int) -> None:
    writer = TraceWriter(
        folder / "t.trace",
        attrs={"source": REAL},
        layers=range(LAYERS),
        sizes={"neuron": NEURONS},
        variables=[],
        streams={"neurons": "float32"},
        overwrite=True,
    )
    with writer:
        rows = writer.stream("neurons")
        for _ in range(prompts):
            for layer, values in enumerate(layers):
                rows.write(layer, rows.next_row, values)
            writer.append(block())
        writer.finish()


def raw(folder: Path, layers: list[np.ndarray], prompts: int) -> None:
    with (folder / "raw").open("wb", buffering=0) as file:
        for _ in range(prompts):
            for values in layers:
                file.write(values.data)
        os.fsync(file.fileno())


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--prompts", type=int, default=16, help="prompts of 256 tokens: 47 MB each")
    arguments = options.parse_args()
    random = np.random.default_rng(0)
    layers = [random.normal(size=(TOKENS, NEURONS)).astype(np.float32) for _ in range(LAYERS)]
    folder = Path(tempfile.mkdtemp(prefix="neuron_write-", dir=arguments.folder))

    def ours_anew() -> None:
        shutil.rmtree(folder / "t.trace", ignore_errors=True)
        ours(folder, layers, arguments.prompts)

    def raw_anew() -> None:
        (folder / "raw").unlink(missing_ok=True)
        raw(folder, layers, arguments.prompts)

    try:
        times = interleaved(ours_anew, raw_anew, pairs=arguments.pairs)
    finally:
        shutil.rmtree(folder)
    size = sum(values.nbytes for values in layers) * arguments.prompts / 1e6
    print(f"{size:.0f} MB; raw {size / np.median(times[:, 1]):.0f} MB/s, ours {size / np.median(times[:, 0]):.0f} MB/s")
    report(times, ours="a trace's neurons", theirs="one file", goal=GOAL)


if __name__ == "__main__":
    main()
