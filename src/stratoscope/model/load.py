"""A hub name, a local folder or a GGUF file becomes a model that is ready to be observed, with its exact identity."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from stratoscope.errors import InputError, ModelError
from stratoscope.model.files import ModelFiles, Progress, _first_line, _report, find_files, weights_sha256

DTYPES = ("float32", "bfloat16", "float16", "float64")
_CAUSAL = re.compile(r"CausalLM|LMHead|ConditionalGeneration|Model$")
_INSTALL = "pip install 'stratoscope[capture]'"


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model in evaluation mode, without gradients, and what it is.

    Attributes
    ----------
    model, tokenizer
        Hugging Face objects.
    identity, tokenizer_identity
        JSON objects that say exactly what they are; they hold no path.
    """

    model: Any
    tokenizer: Any
    identity: dict[str, Any]
    tokenizer_identity: dict[str, Any]


def load_model(
    name: str,
    *,
    dtype: str | None = None,
    device: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> LoadedModel:
    """Load a model and its tokenizer.

    Parameters
    ----------
    name
        Hub name, local folder (safetensors preferred; torch files are read without running code) or GGUF file
        (dequantised).
    dtype
        `float32`, `bfloat16`, `float16` or `float64`; by default the checkpoint's, float32 for GGUF.
    device
        By default the first of `cuda`, `mps`, `cpu` that is there.
    revision
        Branch, tag or commit on the hub.
    trust_remote_code
        Whether Python code that comes with the model may run.
    progress
        Called with (stage, done, total or None).

    Raises
    ------
    InputError
        The dtype or the device is none.
    ModelError
        The model cannot be found or loaded, is not a causal language model, or lacks part of its weights.
    """
    _check_libraries(name)
    _report(progress, "loading libraries", 0, None)
    import torch

    place = _device(device)
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}", fix=f"Use one of {', '.join(DTYPES)}")
    files = find_files(name, revision=revision, trust_remote_code=trust_remote_code, progress=progress)
    with _quiet(), torch.no_grad():
        _report(progress, "loading the tokenizer", 0, None)
        tokenizer = _load_tokenizer(files, trust_remote_code)
        _report(progress, "loading the model", 0, None)
        model = _load_weights(files, dtype, trust_remote_code)
        model = _moved(model, place, files.name)
    digest = weights_sha256(files, progress)
    return LoadedModel(model, tokenizer, _identity(model, files, digest), _tokenizer_identity(tokenizer))


def _check_libraries(name: str) -> None:
    needed = ["torch", "transformers", "safetensors"]
    if name.lower().endswith(".gguf"):
        needed += ["gguf", "accelerate"]
    missing = [package for package in needed if find_spec(package) is None]
    if missing:
        raise ModelError(f"recording needs {' and '.join(missing)}", fix=_INSTALL)


def _device(name: str | None) -> Any:
    """The asked device, or the best there is."""
    import torch

    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(f"this machine has no device {name!r}", fix="Use cpu, or leave the device out") from None
    if device.type == "meta":
        raise InputError("the device 'meta' holds no numbers", fix="Use cpu, or leave the device out")
    return device


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers: its warnings while loading are about training and packed weights, and mislead here."""
    from transformers import modeling_gguf_pytorch_utils as gguf
    from transformers.utils import logging

    level, bars, gguf_bar = logging.get_verbosity(), logging.is_progress_bar_enabled(), gguf.tqdm
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    gguf.tqdm = lambda tensors, **_: tensors  # it draws whatever the verbosity
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        gguf.tqdm = gguf_bar
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _options(files: ModelFiles, trust_remote_code: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    if files.gguf:
        options["gguf_file"] = files.weights[0].name
    return options


def _load_tokenizer(files: ModelFiles, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(files.folder, **_options(files, trust_remote_code))
    except Exception as error:  # whatever a damaged or unknown tokenizer raises, the cure is the same
        raise ModelError(
            f"its tokenizer cannot be loaded: {_first_line(error)}", where=files.name, fix="Add its tokenizer.json"
        ) from None
    if not tokenizer.is_fast or len(tokenizer) <= len(tokenizer.added_tokens_decoder):
        raise ModelError("has no usable tokenizer", where=files.name, fix="Add its tokenizer.json")
    return tokenizer


def _load_weights(files: ModelFiles, dtype: str | None, trust_remote_code: bool) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

    options = _options(files, trust_remote_code)
    try:
        config = AutoConfig.from_pretrained(files.folder, **options)
        _check_config(config, files)
        if files.gguf:
            options["quantization_config"] = GgufConfig(dequantize=True)
        else:
            options["use_safetensors"] = files.weights[0].suffix == ".safetensors"
        chosen = dtype or ("float32" if files.gguf else "auto")
        model, report = AutoModelForCausalLM.from_pretrained(
            files.folder, config=config, dtype=chosen, output_loading_info=True, **options
        )
    except ModelError:
        raise
    except Exception as error:
        raise _load_error(error, files) from None
    lost = sorted(report.get("missing_keys", ())) + sorted(str(key) for key in report.get("mismatched_keys", ()))
    if lost:
        raise ModelError(
            f"{len(lost)} of its weights are missing or of the wrong shape, such as {lost[0]}",
            where=files.name,
            fix="Fetch the model again; without them it would run on random numbers",
        )
    floats = {getattr(torch, name) for name in DTYPES}
    packed = next((key for key, value in model.named_parameters() if value.dtype not in floats), None)
    if packed:
        raise ModelError(f"the weight {packed} is packed, not float", where=files.name, fix="Use an unquantised copy")
    return model.eval().requires_grad_(False)


def _check_config(config: Any, files: ModelFiles) -> None:
    quantised = getattr(config, "quantization_config", None)
    if quantised is not None and not files.gguf:
        method = quantised.get("quant_method", "") if isinstance(quantised, dict) else ""
        raise ModelError(
            f"its weights are quantised ({method or 'unknown method'})",
            where=files.name,
            fix="Use the unquantised model, or a GGUF file",
        )
    heads = getattr(config, "architectures", None) or []
    if heads and not any(_CAUSAL.search(head) for head in heads):
        raise ModelError(
            f"is a {heads[0]}, not a causal language model", where=files.name, fix="Give one that writes text"
        )


def _load_error(error: Exception, files: ModelFiles) -> ModelError:
    text = str(error)
    if "trust_remote_code" in text:
        what, fix = "needs Python code that comes with it", "Read that code, then allow it with trust_remote_code"
    elif "Unrecognized configuration class" in text:
        what, fix = "is not a causal language model", "Give a model that writes text"
    elif isinstance(error, MemoryError) or "can't allocate memory" in text:
        what, fix = "does not fit into memory", "Use dtype bfloat16 or a smaller model"
    else:
        what, fix = f"cannot be loaded: {_first_line(error)}", "Fetch it again, or update transformers if it is new"
    return ModelError(what, where=files.name, fix=fix)


def _moved(model: Any, device: Any, name: str) -> Any:
    try:
        return model.to(device)
    except RuntimeError as error:
        raise ModelError(
            f"does not fit onto {device}: {_first_line(error)}", where=name, fix="Use dtype bfloat16, or the device cpu"
        ) from None


# --- identity -------------------------------------------------------------------------------------------------------


def _identity(model: Any, files: ModelFiles, digest: str) -> dict[str, Any]:
    config = model.config.get_text_config()

    def known(*names: str) -> int | None:
        return next((value for name in names if isinstance(value := getattr(config, name, None), int)), None)

    heads = known("num_attention_heads")
    return {
        "name": files.name,
        "revision": files.revision,
        "weights_sha256": digest,
        "architecture": type(model).__name__,
        "d_model": known("hidden_size"),
        "d_ff": known("intermediate_size", "ffn_dim", "n_inner"),
        "n_layers": known("num_hidden_layers"),
        "n_heads": heads,
        "n_kv_heads": known("num_key_value_heads") or heads,
        "vocab": known("vocab_size"),
        "context": known("max_position_embeddings", "max_seq_len"),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "quantisation": _quantisation(files),
        "attention_implementation": model.config._attn_implementation,
    }


def _quantisation(files: ModelFiles) -> str:
    if not files.gguf:
        return "none"
    from gguf import LlamaFileType
    from transformers.integrations.gguf.reader import read_gguf_metadata

    metadata, _ = read_gguf_metadata(str(files.weights[0]))
    try:
        kind = LlamaFileType(int(metadata["general.file_type"])).name
    except (KeyError, ValueError):
        return "GGUF, dequantised"
    return f"GGUF {kind.removeprefix('MOSTLY_').removeprefix('ALL_')}, dequantised"


def _tokenizer_identity(tokenizer: Any) -> dict[str, Any]:
    return {
        "sha256": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "class": type(tokenizer).__name__,
        "vocab": len(tokenizer),
        "chat_template": tokenizer.chat_template,
        "padding_side": tokenizer.padding_side,
        "bos_token": tokenizer.bos_token,
        "eos_token": tokenizer.eos_token,
    }
