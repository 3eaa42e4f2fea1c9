"""A hub name, a local folder or a GGUF file becomes a model that is ready to be observed, with its exact identity."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from stratoscope.errors import InputError, ModelError, first_line, is_out_of_memory
from stratoscope.model.files import ModelFiles, find_files, weights_sha256
from stratoscope.progress import Progress, silent

if TYPE_CHECKING:  # this module must be importable without torch, to say how to install it
    from stratoscope.model.devices import DeviceMap

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
    limits
        Sentences that name what is not as in the model's own way of running.
    """

    model: Any
    tokenizer: Any
    identity: dict[str, Any]
    tokenizer_identity: dict[str, Any]
    limits: tuple[str, ...] = ()


def load_model(
    name: str,
    *,
    dtype: str | None = None,
    device: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    device_map: DeviceMap | None = None,
    progress: Progress = silent,
) -> LoadedModel:
    """Load a model and its tokenizer.

    Parameters
    ----------
    name
        Hub name, local folder (safetensors preferred; torch files are read without running code) or GGUF file.
        Quantised weights are dequantised where the forward then uses those floats (GGUF, fp8, mxfp8, mxfp4),
        and refused otherwise.
    dtype
        `float32`, `bfloat16`, `float16` or `float64`; by default the checkpoint's, float32 for GGUF.
    device
        By default the first of `cuda`, `mps`, `cpu` that is there.
    revision
        Branch, tag or commit on the hub.
    trust_remote_code
        Whether Python code that comes with the model may run.
    device_map
        Instead of `device`, how the layers are spread over several: `auto`, `balanced` or `sequential`, or a mapping
        (or a `.json` file) from parts of the model to devices, `cpu` or `disk`.
    progress
        Called with (stage, done, total or None).

    Raises
    ------
    InputError
        The dtype, the device or the device map is none.
    ModelError
        The model cannot be found or loaded, is not a causal language model, lacks part of its weights, or runs only
        with packed ones.
    """
    _check_libraries(name, device_map)
    progress("loading libraries", 0, None)
    import torch

    from stratoscope.model.devices import one_device, read_device_map
    from stratoscope.model.identity import model_identity, tokenizer_identity

    if device is not None and device_map is not None:
        raise InputError("a device map says which devices", fix="Give the device or the device map, not both")
    place = one_device(device) if device_map is None else read_device_map(device_map)
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}", fix=f"Use one of {', '.join(DTYPES)}")
    files = find_files(name, revision=revision, trust_remote_code=trust_remote_code, progress=progress)
    with _quiet(), torch.no_grad():
        progress("loading the tokenizer", 0, None)
        tokenizer = _load_tokenizer(files, trust_remote_code)
        progress("loading the model", 0, None)
        model, quantisation, limits = _load_weights(files, dtype, place, trust_remote_code)
    digest = weights_sha256(files, progress)
    identity = model_identity(model, files, digest, quantisation)
    return LoadedModel(model, tokenizer, identity, tokenizer_identity(tokenizer), limits)


def _check_libraries(name: str, device_map: DeviceMap | None) -> None:
    needed = ["torch", "transformers", "safetensors"]
    if name.lower().endswith(".gguf"):
        needed += ["gguf"]
    if name.lower().endswith(".gguf") or device_map is not None:
        needed += ["accelerate"]
    missing = [package for package in needed if find_spec(package) is None]
    if missing:
        raise ModelError(f"recording needs {' and '.join(missing)}", fix=_INSTALL)


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
            f"its tokenizer cannot be loaded: {first_line(error)}", where=files.name, fix="Add its tokenizer.json"
        ) from None
    if not tokenizer.is_fast or len(tokenizer) <= len(tokenizer.added_tokens_decoder):
        raise ModelError("has no usable tokenizer", where=files.name, fix="Add its tokenizer.json")
    return tokenizer


def _load_weights(
    files: ModelFiles, dtype: str | None, place: Any, trust_remote_code: bool
) -> tuple[Any, str, tuple[str, ...]]:
    """The model where it belongs, how its weights were stored, and what limits that brings."""
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

    from stratoscope.model.cut_blocks import unpacked_rightly
    from stratoscope.model.devices import Spread
    from stratoscope.model.identity import FLOAT
    from stratoscope.model.plain import refuse_unless_plain
    from stratoscope.model.quantised import block_of, gguf_words, unpack

    options = _options(files, trust_remote_code)
    words, limit = "", ""
    try:
        config = AutoConfig.from_pretrained(files.folder, **options)
        _check_head(config, files)
        if files.gguf:  # or architectures of the new loader would keep their blocks where its kernels are installed
            options["quantization_config"] = GgufConfig(dequantize=True)
        else:
            options["use_safetensors"] = files.weights[0].suffix == ".safetensors"
            words, limit = unpack(config, files)
        chosen = dtype or ("float32" if files.gguf else "auto")
        with Spread(place) as spread, unpacked_rightly(files, block_of(config)):
            model, report = AutoModelForCausalLM.from_pretrained(
                files.folder, config=config, dtype=chosen, output_loading_info=True, **spread.options, **options
            )
            spread.keep_for(model)
        words = gguf_words(files) if files.gguf else words
    except ModelError:
        raise
    except Exception as error:
        raise _load_error(error, files) from None
    _refuse_lost(report, files)
    if words and dtype is not None:
        _cast(model, dtype)
    model = model.eval().requires_grad_(False)
    refuse_unless_plain(model, files.name)
    if not spread.options:
        model = _moved(model, place, files.name)
    return model, words or FLOAT, (f"weights stored as {words}: {limit}",) if limit else ()


def _check_head(config: Any, files: ModelFiles) -> None:
    heads = getattr(config, "architectures", None) or []
    if heads and not any(_CAUSAL.search(head) for head in heads):
        raise ModelError(
            f"is a {heads[0]}, not a causal language model", where=files.name, fix="Give one that writes text"
        )


def _refuse_lost(report: Any, files: ModelFiles) -> None:
    lost = sorted(report.get("missing_keys", ())) + sorted(str(key) for key in report.get("mismatched_keys", ()))
    if lost:
        raise ModelError(
            f"{len(lost)} of its weights are missing or of the wrong shape, such as {lost[0]}",
            where=files.name,
            fix="Fetch the model again; without them it would run on random numbers",
        )


def _cast(model: Any, dtype: str) -> None:
    """Bring to `dtype` what was stored as floats beside the packed weights, which alone were unpacked into it."""
    import torch

    stored = model.dtype
    for parameter in model.parameters():
        if parameter.dtype == stored:
            parameter.data = parameter.data.to(getattr(torch, dtype))


def _load_error(error: Exception, files: ModelFiles) -> ModelError:
    text = str(error)
    if "trust_remote_code" in text:
        what, fix = "needs Python code that comes with it", "Read that code, then allow it with trust_remote_code"
    elif "Unrecognized configuration class" in text:
        what, fix = "is not a causal language model", "Give a model that writes text"
    elif is_out_of_memory(error):
        what, fix = "does not fit into memory", "Use dtype bfloat16, a device map or a smaller model"
    else:
        what, fix = f"cannot be loaded: {first_line(error)}", "Fetch it again, or update transformers if it is new"
    return ModelError(what, where=files.name, fix=fix)


def _moved(model: Any, device: Any, name: str) -> Any:
    try:
        return model.to(device)
    except RuntimeError as error:
        raise ModelError(
            f"does not fit onto {device}: {first_line(error)}",
            where=name,
            fix="Use dtype bfloat16, a device map or cpu",
        ) from None
