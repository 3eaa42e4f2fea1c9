"""How a GGUF file turns positions into angles: its settings and tensors are applied, and proved on the loaded model."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stratoscope.errors import ModelError
from stratoscope.model.gguf.file import GgufFile

_FIX = "Give the model's own folder, from which this file was made."
_DEFAULT_BASE = 10_000.0  # llama.cpp's where the file says none
_LOCAL_BASE = {"gemma3": 10_000.0}  # llama.cpp's for layers with a window, where the file says none
FACTORS = "rope_freqs.weight"
_LONG, _SHORT = "rope_factors_long.weight", "rope_factors_short.weight"
POSITION_TENSORS = (FACTORS, _LONG, _SHORT)
_KNOWN = {
    *("dimension_count", "dimension_count_swa", "dimension_sections", "freq_base", "freq_base_swa", "scale_linear"),
    *("scaling.type", "scaling.factor", "scaling.attn_factor", "scaling.original_context_length", "scaling.finetuned"),
    *("scaling.yarn_ext_factor", "scaling.yarn_attn_factor", "scaling.yarn_beta_fast", "scaling.yarn_beta_slow"),
}
_CLOSE = 1e-4  # relative; the files hold 32-bit floats


def apply_positions(config: Any, file: GgufFile) -> None:
    """Set in the configuration how the file scales positions, of which transformers reads at most the base.

    Raises
    ------
    ModelError
        It scales them in a way that transformers does not have.
    """
    config = config.get_text_config()
    rope, own = _rope(file), getattr(config, "rope_parameters", None)
    unknown = next((name for name in rope if name not in _KNOWN), None)
    if unknown:
        raise _refused(file, f"rope.{unknown} ({rope[unknown]})")
    if not own:
        _refuse_any(file, rope)
        return
    full, local = own.get("full_attention", own), own.get("sliding_attention")
    full["rope_theta"] = rope.get("freq_base", _DEFAULT_BASE)
    if isinstance(local, dict):
        base = _LOCAL_BASE.get(file.architecture, full["rope_theta"])
        local["rope_theta"] = rope.get("freq_base_swa", base)
    elif "freq_base_swa" in rope and rope["freq_base_swa"] != full["rope_theta"]:
        raise _refused(file, f"rope.freq_base_swa ({rope['freq_base_swa']})")
    share = _turned(config, file) / _head_width(config)
    if share != full.get("partial_rotary_factor", 1.0) and full.get("rope_type") != "proportional":
        full["partial_rotary_factor"] = share
    scaling = _scaling(config, file)
    if scaling:
        stated = {key: full[key] for key in ("rope_theta", "partial_rotary_factor", "truncate") if key in full}
        full.clear()
        full.update({**stated, **scaling})
        if hasattr(config, "original_max_position_embeddings") and "original_max_position_embeddings" in scaling:
            config.original_max_position_embeddings = scaling["original_max_position_embeddings"]


def prove_positions(model: Any, file: GgufFile) -> None:
    """Compare the frequencies that the loaded model turns by with those that the file stands for.

    Raises
    ------
    ModelError
        They differ, or cannot be found.
    """
    config = model.config.get_text_config()
    own = getattr(config, "rope_parameters", None)
    if not own:
        return
    found = {
        name: buffer for name, buffer in model.named_buffers() if name.endswith("inv_freq") and "original" not in name
    }
    if not found:
        _refuse_any(file, _rope(file))
        return
    for name, buffer in found.items():
        is_local = "sliding_attention" in name
        parameters = own.get("sliding_attention" if is_local else "full_attention", own)
        wanted = _frequencies(config, file, parameters, is_local)
        now = buffer.detach().double().cpu().numpy()
        if wanted is not None and (wanted.shape != now.shape or not np.allclose(now, wanted, rtol=_CLOSE, atol=1e-12)):
            raise _refused(file, f"turning of positions ({name} is not what the file stands for)")


def _frequencies(config: Any, file: GgufFile, parameters: dict[str, Any], is_local: bool) -> NDArray[np.float64] | None:
    """Radians per token of each pair of dimensions, by llama.cpp's formulas; None for yarn: its ramp is not redone."""
    rope = _rope(file)
    turned = _turned(config, file)
    frequencies: NDArray[np.float64] = parameters["rope_theta"] ** (-np.arange(0, turned, 2) / turned)
    if is_local:
        return frequencies
    if rope.get("scaling.type") == "yarn" or parameters.get("rope_type") == "proportional":
        return None
    factor = _linear_factor(rope)
    name = FACTORS if FACTORS in file.tensors else _SHORT
    return np.asarray(frequencies / (file.values(name) if name in file.tensors else 1.0) / factor)


def _scaling(config: Any, file: GgufFile) -> dict[str, Any]:
    """The parameters of transformers that stand for the file's scaling; none where there is none."""
    rope = _rope(file)
    context = file.own().get("context_length", config.max_position_embeddings)
    original = rope.get("scaling.original_context_length") or context
    kind = rope.get("scaling.type") or ("longrope" if _SHORT in file.tensors else "linear")
    if FACTORS in file.tensors and (kind == "yarn" or _SHORT in file.tensors):
        raise _refused(file, f"{FACTORS} beside {kind} scaling")
    if kind == "longrope" or _SHORT in file.tensors:
        attention = rope.get("scaling.attn_factor") or rope.get("scaling.yarn_attn_factor") or 1.0
        return _by_dimension(file, _SHORT, _LONG, original, attention, config)
    if kind == "yarn":
        return _yarn(rope, original, file)
    if kind not in ("none", "linear"):
        raise _refused(file, f"rope.scaling.type ({kind})")
    if rope.get("scaling.attn_factor", 1.0) not in (0, 1):
        raise _refused(file, f"rope.scaling.attn_factor ({rope['scaling.attn_factor']})")
    factor = _linear_factor(rope)
    if FACTORS in file.tensors:
        return _by_dimension(file, FACTORS, FACTORS, context, 1.0, config, factor)
    return {"rope_type": "linear", "factor": factor} if factor != 1 else {}


def _by_dimension(
    file: GgufFile, short: str, long: str, original: int, attention: float, config: Any, factor: float = 1.0
) -> dict[str, Any]:
    """A factor for each pair of dimensions, as longrope has it and llama3's scaling comes down to."""
    if short not in file.tensors or long not in file.tensors:
        raise _refused(file, f"longrope without its tensors ({_LONG}, {_SHORT})")
    both = [file.values(name) * factor for name in (short, long)]
    for name, factors in zip((short, long), both, strict=True):
        if factors.shape != (_turned(config, file) // 2,) or not (factors > 0).all():
            raise _refused(file, f"{name} of shape {factors.shape}")
    if (both[0] == 1).all() and (both[1] == 1).all() and attention == 1:
        return {}
    return {
        "rope_type": "longrope",
        "short_factor": both[0].tolist(),
        "long_factor": both[1].tolist(),
        "factor": 1.0,  # its only use is the attention factor, which is given
        "attention_factor": float(attention),
        "original_max_position_embeddings": original,
    }


def _yarn(rope: dict[str, Any], original: int, file: GgufFile) -> dict[str, Any]:
    factor = rope.get("scaling.factor") or 1.0
    if rope.get("scaling.yarn_ext_factor", 1.0) not in (-1, 1):
        raise _refused(file, f"rope.scaling.yarn_ext_factor ({rope['scaling.yarn_ext_factor']})")
    if factor == 1:
        return {}
    attention = (rope.get("scaling.attn_factor") or 1.0) * (rope.get("scaling.yarn_attn_factor") or 1.0)
    return {
        "rope_type": "yarn",
        "factor": float(factor),
        "original_max_position_embeddings": original,
        "attention_factor": float(attention * (1 + 0.1 * np.log(factor))),
        "beta_fast": float(rope.get("scaling.yarn_beta_fast", 32.0)),
        "beta_slow": float(rope.get("scaling.yarn_beta_slow", 1.0)),
    }


def _linear_factor(rope: dict[str, Any]) -> float:
    if rope.get("scaling.type") not in (None, "linear"):
        return 1.0
    return float(rope.get("scaling.factor") or rope.get("scale_linear") or 1.0)


def _turned(config: Any, file: GgufFile) -> int:
    """How many dimensions of a head are turned."""
    return int(_rope(file).get("dimension_count") or _head_width(config))


def _head_width(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _rope(file: GgufFile) -> dict[str, Any]:
    return {name.removeprefix("rope."): value for name, value in file.own().items() if name.startswith("rope.")}


def _refuse_any(file: GgufFile, rope: dict[str, Any]) -> None:
    """Refuse scaled positions of a model that turns none."""
    scaled = rope.get("scaling.type") not in (None, "none") or _linear_factor(rope) != 1
    tensor = next((name for name in POSITION_TENSORS if name in file.tensors), None)
    if scaled or tensor:
        raise _refused(file, tensor or f"rope.scaling.type ({rope.get('scaling.type')})")


def _refused(file: GgufFile, what: str) -> ModelError:
    return ModelError(f"its {what} has no place in transformers' model", where=file.path.name, fix=_FIX)
