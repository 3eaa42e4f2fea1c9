"""Simulated traces that hold contributions and effects, and pieces taken out of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

import stratoscope
from stratoscope.recorder.simulated.activity import peaks as drawn_peaks
from stratoscope.recorder.simulated.contributions import SimulatedContributions
from stratoscope.recorder.simulated.model import SimulatedModel, SimulationSize
from stratoscope.recorder.simulated.prompt import SimulatedPrompt
from stratoscope.recorder.simulated.vocabulary import WORDS

T, P, L, H, K = "token", "prompt", "layer", "head", "target"
DIMS: dict[str, tuple[str, ...]] = {
    "target_token": (P, K), "against_token": (P, K), "answer_logit": (P, K), "final_scale": (P,),
    "target_logit": (T, K), "embed_logit": (T, K), "attn_logit": (T, L, K), "mlp_logit": (T, L, K),
    "head_logit": (T, L, H, K), "source_logit": (T, L, H, K), "neuron_logit": (T, L, K, "logit_rank"),
    "logit_neuron": (T, L, K, "logit_rank"), "other_neurons_logit": (T, L, K), "norm_bias_logit": (P, K),
    "head_bias_logit": (P, K), "effect_neuron": (T, L, K, "effect_rank"), "neuron_effect": (T, L, K, "effect_rank"),
    "mlp_effect": (T, L, K), "attn_effect": (T, L, K), "head_effect": (T, L, H, K),
    **dict.fromkeys(("strongest_position", "strongest_layer", "strongest_neuron", "strongest_value", "strongest_effect",
                     "strongest_logit"), (P, K, "strongest")),
    "write_token": (P, K, "strongest", "write_rank"), "write_logit": (P, K, "strongest", "write_rank"),
    "neuron_read": (T, K, "strongest", "read_part"), "read_through": (T, K, "strongest", "read_part"),
    "read_component": (P, K, "strongest", "read_part", "component"),
}  # fmt: skip


def explained(*, targets: tuple[str, ...] = ("Sorry",), record: str = "logits,effects", **sizes: Any) -> xr.Dataset:
    asked = {"prompts": 4, "tokens": (12, 20), "layers": 6, "d_model": 64, "d_ff": 128, "heads": 4, **sizes}
    base = stratoscope.simulate(**asked, record="peaks")
    tokens = asked["tokens"] if isinstance(asked["tokens"], tuple) else (asked["tokens"],) * 2
    shape = SimulationSize(**{**asked, "tokens": tokens}, top_k=10, seed=0, targets=targets)
    model = SimulatedModel(shape)
    blocks = []
    for index in range(shape.prompts):
        prompt = SimulatedPrompt(model, index, lambda: None)
        of = SimulatedContributions(model, prompt.text, drawn_peaks(model, prompt.text, prompt.norms["mlp_out_norm"]))
        own = {
            "target_token": np.array([[len(WORDS) + n for n in range(len(targets))]]),
            "against_token": np.full((1, len(targets)), -1),
            "answer_logit": of.answer_logit,
            **({"final_scale": of.final_scale} | of.logits if "logits" in record else {}),
            **(of.effects if "effects" in record else {}),
        }
        blocks.append(own)
    arrays = {name: (DIMS[name], np.concatenate([block[name] for block in blocks])) for name in blocks[0]}
    found = base.assign(arrays)
    found.attrs["token_texts"] = {str(n): word for n, word in enumerate((*WORDS, *targets))}
    found.attrs["plan"] = {
        **base.attrs["plan"],
        "targets": [{"text": text, "token_id": len(WORDS) + n, "against": None, "against_id": -1}
                    for n, text in enumerate(targets)],
    }  # fmt: skip
    found.attrs["planted"] = base.attrs["planted"] + model.planted({"suppressor"})
    return found
