"""What kind of checkpoint a folder or repository is, told from the names of its files and from its config.json."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stratoscope.errors import ModelError
from stratoscope.words import listed

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")

_STORED = r"\.(safetensors|bin|pth?|npz)"  # endings of files that hold weights
_LIKE_ADAPTER = re.compile(rf"(.*[_.-])?(adapters?|lora|qlora|dora)([_.-].*)?{_STORED}", re.IGNORECASE)
_TRAINING = re.compile(
    rf"(optimizer|scheduler|rng_state|random_states|scaler|training_args|trainer_state).*{_STORED}", re.IGNORECASE
)
_MOST_NAMED = 6
_NO_NAME = re.compile(  # folder and file names that do not say which model it is
    r"(checkpoint|ckpt|step|epoch|global_step)[-_]?\d*|final|last|best|latest|models?|outputs?|merged|hf|weights|export"
    r"|(final|best|merged)[-_](model|checkpoint)|((ggml-)?model|unsloth)([-_.].*)?\.gguf",
    re.IGNORECASE,
)
_HOMES = ("/", "/home", "/Users", "/root")
_CAUSAL = re.compile(r"CausalLM|LMHead|ConditionalGeneration|Model$")
_TRANSFORMERS = "Give the folder that save_pretrained wrote."
_CONVERT = "Load it with an older transformers (from_tf, from_flax), and save_pretrained it."
_OTHER_WEIGHTS = (  # a name that is found, what it means, and the step that helps
    (r"tf_model\.h5", "TensorFlow weights", _CONVERT),
    (r"flax_model\.msgpack", "Flax weights", _CONVERT),
    (r"zero_to_fp32\.py|global_step\d+", "a DeepSpeed checkpoint", "Run `python zero_to_fp32.py . .` in it first."),
    (r"pytorch_model_fsdp_\d+|.*\.distcp", "a distributed checkpoint", "Run `accelerate merge-weights` first."),
    (
        r"consolidated.*",
        "weights in their maker's own format",
        "Give the version for transformers (-hf), or convert it.",
    ),
    (r"rust_model\.ot", "Rust weights", "Give a version with .safetensors files."),
    (r"onnx|.*\.onnx", "an ONNX model, which cannot be looked into", "Give a version with .safetensors files."),
    (r"model\..+\.safetensors|pytorch_model\..+\.bin", "a variant of its weights", "Rename {name} to {plain}."),
    (r"optimizer.*|scheduler.*|rng_state.*", "what training goes on from", _TRANSFORMERS),
    (
        r".*\.safetensors|(?!training_args).*\.bin|.*\.pth?|.*\.ckpt",
        "{name}, which is not the usual name",
        "Rename it.",
    ),
)


@dataclass(frozen=True)
class Unused:
    """Something that the files of a model hold and that was not used.

    Attributes
    ----------
    text
        A sentence that names it.
    differs
        Whether the model that the name stands for may compute something else because of it.
    """

    text: str
    differs: bool


def identifying_name(path: Path) -> tuple[str, str]:
    """What the record calls a local model, and its commit where the path tells it.

    The last part of the path, with what is before it where that says nothing, as `checkpoint-500` does; the hub's name
    in the hub's cache. Never the name of a person's home folder.
    """
    whole = path.resolve()
    if whole.parent.name == "snapshots" and whole.parent.parent.name.startswith("models--"):
        return whole.parent.parent.name.removeprefix("models--").replace("--", "/", 1), whole.name
    name, here = whole.name, whole
    while _NO_NAME.fullmatch(here.name) and not _private(here.parent):
        here = here.parent
        name = f"{here.name}/{name}"
    return name, ""


def _private(folder: Path) -> bool:
    return folder == Path.home() or str(folder) in _HOMES or str(folder.parent) in _HOMES[1:3]


def refuse_adapter(names: Collection[str], where: str, base: str = "") -> None:
    """Refuse an adapter, alone or beside the weights that it changes; whether peft is installed plays no part.

    Raises
    ------
    ModelError
        Some of the files are an adapter's.
    """
    found = next((name for name in ADAPTERS if name in names), None)
    if found is None and not any(name.lower().endswith(".gguf") for name in names):
        found = next((name for name in sorted(names) if _LIKE_ADAPTER.fullmatch(name)), None)
    if found is None:
        return
    if any(name in names for name in WEIGHTS):
        raise ModelError(
            f"has an adapter that is not merged ({found}) beside its weights",
            where=where,
            fix="Merge it with peft: save_pretrained what PeftModel.from_pretrained(model, folder).merge_and_unload() "
            "returns, and give that folder; to record the model without it, move the adapter's files away.",
        )
    raise ModelError(
        f"is an adapter, not a whole model{f': it changes {base}' if base else ''}",
        where=where,
        fix="Load its base model, then save_pretrained what PeftModel.from_pretrained(base, folder).merge_and_unload() "
        "returns together with the tokenizer, and give that folder.",
    )


def no_weights(names: Collection[str], where: str) -> ModelError:
    """What a folder or repository holds instead of weights that can be loaded."""
    for pattern, what, fix in _OTHER_WEIGHTS:
        name = next((name for name in sorted(names) if re.fullmatch(pattern, name)), None)
        if name is not None:
            ending = name.rpartition(".")[2]
            plain = f"{name.partition('.')[0]}.{ending}"
            what, fix = what.format(name=name), fix.format(name=name, plain=plain)
            return ModelError(f"holds no weights that can be loaded, only {what}", where=where, fix=fix)
    return ModelError(
        "holds no weights (no model.safetensors and no pytorch_model.bin)",
        where=where,
        fix="Give a folder or repository with .safetensors files.",
    )


def no_config(names: Collection[str], where: str, folders: Collection[str] = ()) -> ModelError:
    """What a folder without config.json is; `folders` are those in it that have one."""
    if {"snapshots", "refs"} <= {*names}:
        return ModelError("is a folder of the hub's cache", where=where, fix="Give the model's hub name.")
    if "model_index.json" in names:
        return ModelError("is a model that makes pictures (diffusers)", where=where, fix="Give one that writes text.")
    if folders:
        some = ", ".join(sorted(folders)[:5])
        return ModelError(f"holds no model itself, its folders do: {some}", where=where, fix="Give one of these.")
    if any(re.fullmatch(r"consolidated.*|optimizer.*", name) for name in names):
        return no_weights(names, where)
    return ModelError("has no config.json", where=where, fix=_TRANSFORMERS)


def unread(names: Collection[str], weights: Collection[str]) -> tuple[Unused, ...]:
    """Other files that hold weights, which were not read; the state of training is none."""
    stored = {name for name in names if "/" not in name and re.fullmatch(f".*{_STORED}", name, re.IGNORECASE)}
    left = [name for name in sorted(stored - {*weights}) if not _TRAINING.fullmatch(name)]
    if not left:
        return ()
    some = listed(left, _MOST_NAMED)
    # most often the same weights once more, for another library: worth knowing, and no warning
    return (Unused(f"The weights in {some} were not read: those in {sorted(weights)[0]} were.", differs=False),)


def refuse_other_kind(config: Mapping[str, Any], names: Collection[str], where: str) -> None:
    """Refuse what is no causal language model by what its config.json says, before anything is loaded.

    Raises
    ------
    ModelError
        It reads, classifies, sees or translates instead.
    """
    heads = config.get("architectures") or []
    head = str(heads[0]) if isinstance(heads, list) and heads else str(config.get("model_type", "model"))
    if problem := _other_kind(config, names, head, bool(heads)):
        what, fix = problem
        raise ModelError(what, where=where, fix=fix)
    quantised = config.get("quantization")
    if isinstance(quantised, Mapping) and "bits" in quantised:
        what = f"its weights are packed for MLX ({quantised['bits']} bits)"
        raise ModelError(what, where=where, fix="Use the unquantised model, or a GGUF file.")


def _other_kind(config: Mapping[str, Any], names: Collection[str], head: str, named: bool) -> tuple[str, str] | None:
    from transformers.models.auto import modeling_auto as auto

    kind = str(config.get("model_type", ""))
    causal = kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    not_causal, writes = "not a causal language model", "Give a model that writes text, one token after the other."
    for part, what in (("vision_config", "pictures"), ("audio_config", "sound")):
        if part in config and not causal:
            return (
                f"is a model of text and {what} ({head}), which is not recorded",
                "Give its language model, saved alone.",
            )
    if config.get("is_encoder_decoder") or (kind in auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES and not causal):
        return f"is an encoder-decoder model ({head}), {not_causal}", writes
    sentences = "modules.json" in names or "config_sentence_transformers.json" in names
    encoder = kind in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.get("is_decoder") and kind != "xlm"
    encoder = encoder and not re.search("CausalLM|LMHead", head)
    if encoder or (sentences and kind in auto.MODEL_MAPPING_NAMES and not causal):
        what = "a sentence-transformers model, which gives one vector for a text" if sentences else "an encoder"
        return f"is {what} ({head}), {not_causal}", writes
    if named and not any(_CAUSAL.search(str(one)) for one in config["architectures"]):
        return f"is a {head}, {not_causal}", writes
    return None
