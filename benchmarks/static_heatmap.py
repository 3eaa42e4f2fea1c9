"""100,000 tokens × 128 layers from one .npy to a PNG, whole processes: ours, with axes and legend, and datashader's.

Both take the maximum of what falls into a pixel. Before timing, both pictures are checked for 20 planted one-cell
spikes, so that neither is fast by leaving them out.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from _timing import interleaved, parser, report
from PIL import Image

TOKENS, LAYERS, SPIKES, HEIGHT = 100_000, 128, 20, 5_000.0
PLANTED = np.linspace(3_000, 97_000, SPIKES).astype(int)
RING, HIGHEST = (196, 37, 80), (255, 255, 0)  # the colours that a spike has, and only a spike
GOAL = 0.35
OURS = """
import sys, numpy as np
from stratoscope.view.maps.heatmap import heatmap_of_array
heatmap_of_array(np.load(sys.argv[1], mmap_mode="r"), sys.argv[2], log=True, overwrite=True)
"""
THEIRS = """
import sys, numpy as np, xarray as xr, datashader as ds, datashader.transfer_functions as tf
values = np.load(sys.argv[1], mmap_mode="r")
array = xr.DataArray(values.T, dims=("layer", "token"), coords={
    "layer": np.arange(values.shape[1]), "token": np.arange(values.shape[0])}, name="value")
canvas = ds.Canvas(plot_width=2400, plot_height=640)
pixels = canvas.raster(array, agg="max", interpolate="nearest")
tf.shade(pixels, cmap=["navy", "yellow"], how="log").to_pil().save(sys.argv[2])
"""


def values() -> np.ndarray:
    """Lognormal noise with spikes of one cell, the same each time."""
    rng = np.random.default_rng(0)
    noise = rng.lognormal(size=(TOKENS, LAYERS)).astype(np.float32)
    noise[PLANTED, rng.integers(45, 75, SPIKES)] = HEIGHT
    return noise


def draw(script: str, source: Path, picture: Path) -> None:
    subprocess.run([sys.executable, "-c", script, str(source), str(picture)], check=True)


def spikes_seen(script: str, colour: tuple[int, int, int], source: Path, picture: Path) -> int:
    """How many planted spikes show in their colour, at their place."""
    draw(script, source, picture)
    pixels = np.asarray(Image.open(picture).convert("RGB"), int)
    height = len(pixels)
    near = np.abs(pixels[int(height * 0.28) : int(height * 0.8)] - colour).max(axis=2) < 12
    columns = np.flatnonzero(near.any(axis=0))
    runs = np.split(columns, np.flatnonzero(np.diff(columns) > 20) + 1)
    centres = np.array([run.mean() for run in runs])
    if len(centres) != SPIKES:
        return len(centres)
    off = centres - np.polyval(np.polyfit(PLANTED, centres, 1), PLANTED)
    return int(np.count_nonzero(np.abs(off) < 4))


def main() -> None:
    pairs = parser(__doc__).parse_args().pairs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spiked, out = folder / "spiked.npy", folder / "out.png"
        np.save(spiked, values())
        for who, script, colour in (("stratoscope", OURS, RING), ("datashader", THEIRS, HIGHEST)):
            print(f"{who:<40} spikes {spikes_seen(script, colour, spiked, out)} of {SPIKES}")
        times = interleaved(lambda: draw(OURS, spiked, out), lambda: draw(THEIRS, spiked, out), pairs=pairs)
    report(times, ours="stratoscope heatmap, axes and legend", theirs="datashader max, bare picture", goal=GOAL)


if __name__ == "__main__":
    main()
