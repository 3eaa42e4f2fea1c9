"""Group `effects`: how much each neuron, head, MLP and attention pushes the logit of a target up or down, in all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.names import EFFECTS
from stratoscope.recorder.groups.group import RecordGroup

if TYPE_CHECKING:
    from stratoscope.recorder.simulated.prompt import SimulatedPrompt


class EffectsGroup(RecordGroup):
    """Recorded by forwards of its own, with gradients (`recorder.effects`); nothing of it is observed.

    A block without an MLP or attention has none of its effects; nor have tokens of an answer. Where fewer neurons have
    an effect than are kept, `neuron_effect` is NaN.
    """

    name = EFFECTS
    planted = ("suppressor",)

    def undefined_cells(self, name: str, values: np.ndarray) -> np.ndarray | None:
        """Where no neuron has an effect; that gradients are finite is checked where they arrive."""
        return np.asarray(np.isnan(values)) if name == "neuron_effect" else None

    def simulated(self, prompt: SimulatedPrompt) -> Mapping[str, np.ndarray]:
        """Two suppressing neurons are planted, and what sets them off."""
        return prompt.contributions.effects


GROUP = EffectsGroup()
