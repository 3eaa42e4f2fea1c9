"""Positions that older files store beside their weights: held against those that the model computes anew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stratoscope.errors import ModelError
from stratoscope.model.files.contents import stored_numbers, stored_tensors
from stratoscope.model.files.model_files import ModelFiles

if TYPE_CHECKING:
    from torch import Tensor

_STORED = re.compile(r"(^|\.)(rotary_emb|rotary_pos_emb)\.(inv_freq|cos_cached|sin_cached)$")
_CLOSE, _LEAST = 0.01, 1e-6  # relative and absolute: the files may hold 16-bit floats
_ROWS, _CLOSE_WAVE = 64, 0.05  # of a table of cosines or sines: how many positions are compared, and how closely


def refuse_other_positions(model: Any, files: ModelFiles) -> None:
    """Refuse files that were trained with positions that turn otherwise than the configuration says.

    Raises
    ------
    ModelError
        They store such positions, which the model would not use.
    """
    own: list[Tensor] | None = None
    for path in () if files.gguf else files.weights:
        names = [name for name in stored_tensors(path, files.name) if _STORED.search(name)]
        for name, stored in stored_numbers(path, names).items() if names else ():
            if own is None:
                own = [*_frequencies(model)]
            if not any(_agree(name, stored.double().cpu(), frequencies) for frequencies in own):
                what = f"the positions that the file stores ({name}) are not those of config.json"
                fix = "Use the config.json that belongs to these weights (rope_theta, rope_parameters)."
                raise ModelError(what, where=files.name, fix=fix)


def _frequencies(model: Any) -> Iterator[Tensor]:
    """Radians per token, as the model turns, and without scaling: older versions scaled the positions instead."""
    import torch

    for name, buffer in model.named_buffers():
        if name.endswith("inv_freq"):
            yield buffer.detach().double().cpu()
    parameters = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    kinds = [one for one in parameters.values() if isinstance(one, dict)] or [parameters]
    for one in kinds:
        if one.get("rope_type", "default") == "default" or "rope_theta" not in one:
            continue
        for name, buffer in model.named_buffers():
            if name.endswith("inv_freq"):
                turned = 2 * buffer.numel()
                yield one["rope_theta"] ** (-torch.arange(0, turned, 2, dtype=torch.float64) / turned)


def _agree(name: str, stored: Tensor, frequencies: Tensor) -> bool:
    """Whether stored frequencies, or a stored table of cosines or sines of them, are these."""
    import torch

    if name.endswith("inv_freq"):
        stored = stored.flatten()
        return stored.shape == frequencies.shape and torch.allclose(stored, frequencies, rtol=_CLOSE, atol=_LEAST)
    half = frequencies.numel()
    rows = stored.reshape(-1, stored.shape[-1])[:_ROWS] if stored.dim() > 1 else stored[None]
    if rows.shape[1] < half:
        return False
    wave = torch.cos if name.endswith("cos_cached") else torch.sin
    wanted = wave(torch.outer(torch.arange(len(rows), dtype=torch.float64), frequencies))
    return torch.allclose(rows[:, :half], wanted, rtol=0, atol=_CLOSE_WAVE)
