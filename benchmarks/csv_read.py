"""Time to read a CSV of 1.4 million rows, checked and as a Dataset, against polars `read_csv`, which checks nothing.

The values are full-precision doubles, the tokens 3,000 words and the awkward ones (`null`, `NA`, quotes, commas).
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from _timing import interleaved, parser, report

from stratoscope.names import CSV_COLUMNS
from stratoscope.trace.csv.read import read_csv

TOKENS, LAYERS, TOP_K, NEURONS = 4667, 30, 10, 1536
GOAL = 2.0


def make(path: Path) -> None:
    rng = np.random.default_rng(0)
    words = [f"▁word{number}" for number in range(3000)] + ["<s>", "null", "NA", "", '"', ",", "\n", "$", "<0xE4>"]
    tokens = rng.choice(np.array(words, dtype=object), TOKENS)
    neurons = rng.integers(0, NEURONS, (TOKENS, LAYERS, TOP_K)).tolist()
    values = np.abs(rng.standard_t(3, (TOKENS, LAYERS, TOP_K))).tolist()
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for token, text in enumerate(tokens):
            for layer in range(LAYERS):
                cells = zip(neurons[token][layer], values[token][layer], strict=True)
                writer.writerows((token, text, layer, neuron, repr(value)) for neuron, value in cells)


def main() -> None:
    pairs = parser(__doc__).parse_args().pairs
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prompt.csv"
        make(path)
        dataset, frame = read_csv(path), pl.read_csv(path)
        assert np.array_equal(dataset["imported_norm"].values, frame["Activation_Norm"].to_numpy())
        print(
            f"{dataset.sizes['row']:,} rows, {path.stat().st_size / 1e6:.0f} MB, {pl.thread_pool_size()} polars threads"
        )
        times = interleaved(lambda: read_csv(path), lambda: pl.read_csv(path), pairs=pairs)
    report(times, ours="stratoscope read_csv", theirs="polars read_csv", goal=GOAL)


if __name__ == "__main__":
    main()
