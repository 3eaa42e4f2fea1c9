"""Draw the figures of organisms for docs/effects.md: trained, recorded and shown in a temporary folder."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import torch

import stratoscope
from stratoscope import defaults

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "organisms"))

from planted import ONE_HEAD, ONE_MLP, TWO_MLPS  # noqa: E402
from truth_organisms import Lab  # noqa: E402

SEED, PAIRS, STEPS = 0, 20, 64
FIGURES = (("one-mlp", ONE_MLP, False), ("one-head", ONE_HEAD, False), ("two-mlps-integrated", TWO_MLPS, True))


def main() -> None:
    """Draw all of them."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        lab = Lab(Path(name), SEED, PAIRS, STEPS, defaults.CALIBRATION)
        for figure, kind, integrated in FIGURES:
            found = stratoscope.suppression(lab.trace(kind, integrated=integrated), prompt_class="trigger")
            page = stratoscope.save_result(found, Path(name) / figure)
            (picture,) = sorted((Path(page) / "figures").glob("*.png"))
            shutil.copyfile(picture, HERE / f"{figure}.png")


if __name__ == "__main__":
    main()
