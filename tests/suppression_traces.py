"""Simulated traces that hold contributions to the logit of a target and effects on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

import stratoscope
from stratoscope.recorder.simulated.activity import Summaries
from stratoscope.recorder.simulated.model import SimulatedModel, SimulationSize
from stratoscope.recorder.simulated.prompt import SimulatedPrompt

_READ = {  # what a trace may lack
    "source_logit": ("token", "layer", "head", "target"),
    "neuron_read": ("token", "target", "strongest", "read_part"),
    "read_through": ("token", "target", "strongest", "read_part"),
    "read_component": ("prompt", "target", "strongest", "read_part", "component"),
}


def explained(*, targets: Sequence[str] = ("Sorry",), **sizes: Any) -> xr.Dataset:
    shape = {"prompts": 4, "tokens": (12, 20), "layers": 6, "d_model": 64, "d_ff": 128, "heads": 4, **sizes}
    found = stratoscope.simulate(**shape, record="logits,effects", targets=targets)
    length = shape["tokens"] if isinstance(shape["tokens"], tuple) else (shape["tokens"],) * 2
    model = SimulatedModel(SimulationSize(**{**shape, "tokens": length}, top_k=10, seed=0, targets=tuple(targets)))
    parts = [SimulatedPrompt(model, index, lambda: Summaries(model)).contributions for index in range(shape["prompts"])]
    own = [part.logits | part.effects for part in parts]
    more = {name: (dims, np.concatenate([one[name] for one in own])) for name, dims in _READ.items()}
    return found.assign({name: of for name, of in more.items() if name not in found})
