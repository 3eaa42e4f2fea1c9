"""A hub name, a local folder or a GGUF file becomes a model that is ready to be observed, with its exact identity."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from stratoscope.errors import ModelError, UsageError, first_line, is_out_of_memory, refuse_unknown
from stratoscope.model.files.checkpoint import Unused
from stratoscope.model.files.model_files import ModelFiles, find_files, weights_sha256
from stratoscope.model.load_errors import load_error, tokenizer_error
from stratoscope.progress import Progress, silent

if TYPE_CHECKING:  # this module must be importable without torch, to say how to install it
    from stratoscope.model.devices import DeviceMap
    from stratoscope.model.files.leftover import Keys

DTYPES = ("float32", "bfloat16", "float16", "float64")
_INSTALL = "Install it: `pip install 'stratoscope[capture]'`."


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
        Sentences that name what is not as in the model's own way of running, with those of `unused`.
    unused
        What the files hold and was not used.
    """

    model: Any
    tokenizer: Any
    identity: dict[str, Any]
    tokenizer_identity: dict[str, Any]
    limits: tuple[str, ...] = ()
    unused: tuple[Unused, ...] = ()


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
        Hub name, local folder (safetensors preferred; torch files are read without running code) or GGUF file. All
        that the files hold is used, or named in `limits`, or the model is refused.
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
    if dtype is not None:
        refuse_unknown(dtype, DTYPES, "dtype")
    if device is not None and device_map is not None:
        raise UsageError(
            "a device map says which devices", where="device", fix="Give the device or the device map, not both."
        )
    _check_libraries(name, device_map)
    progress("loading libraries", 0, None)
    import torch

    from stratoscope.model.devices import one_device, read_device_map
    from stratoscope.model.identity import model_identity, tokenizer_identity

    place = one_device(device) if device_map is None else read_device_map(device_map)
    files = find_files(name, revision=revision, trust_remote_code=trust_remote_code, progress=progress)
    with _quiet(), torch.no_grad():
        config = _load_config(files, trust_remote_code)
        progress("loading the tokenizer", 0, None)
        tokenizer, split = _load_tokenizer(files, trust_remote_code)
        progress("loading the model", 0, None)
        model, quantisation, limits, unused = _load_weights(files, config, dtype, place, trust_remote_code)
    digest = weights_sha256(files, progress)
    identity = model_identity(model, files, digest, quantisation)
    unused = (*files.unused, *unused)
    limits = (*(one.text for one in unused), *limits, *split)
    return LoadedModel(model, tokenizer, identity, tokenizer_identity(tokenizer), limits, unused)


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


def _load_config(files: ModelFiles, trust_remote_code: bool) -> Any:
    """The configuration, of a causal language model and with all that a GGUF file says."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    from stratoscope.model.files.checkpoint import CONFIG, refuse_other_kind
    from stratoscope.model.files.config_values import refuse_impossible_config
    from stratoscope.model.files.contents import parsed_json
    from stratoscope.model.gguf.positions import apply_positions
    from stratoscope.model.gguf.settings import apply_settings, refuse_uneven_layers

    if not files.gguf:
        config = parsed_json((files.folder / CONFIG).read_text("utf-8-sig"))
        refuse_impossible_config(config, files)
        refuse_other_kind(config, {item.name for item in files.folder.iterdir()}, files.name)
        _refuse_other_weights(config, files)
    file = files.gguf_file
    if file is not None:
        refuse_uneven_layers(file)
    try:
        config = AutoConfig.from_pretrained(files.folder, **_options(files, trust_remote_code))
    except Exception as error:
        raise load_error(error, files) from None
    if file is not None:
        try:
            apply_settings(config, file)
            apply_positions(config, file)
        except StrictDataclassError as error:  # the configuration refuses what the file says
            raise load_error(error, files) from None
    return config


def _refuse_other_weights(config: dict[str, Any], files: ModelFiles) -> None:
    """Refuse a config.json that sends transformers to other weights than those that are found and hashed."""
    other = config.get("transformers_weights")
    if other is not None and {other} != {path.name for path in files.weights}:
        what = f"its config.json names other weights ({other}) than the usual ones"
        raise ModelError(what, where=files.name, fix="Take transformers_weights out of it, or rename the file.")


def _load_tokenizer(files: ModelFiles, trust_remote_code: bool) -> tuple[Any, tuple[str, ...]]:
    """The tokenizer, and what limits a GGUF file's brings."""
    from transformers import AutoTokenizer

    from stratoscope.model.gguf.tokenizer import split_as_the_file_says

    try:
        tokenizer = AutoTokenizer.from_pretrained(files.folder, **_options(files, trust_remote_code))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in the Rust code of tokenizers is no Exception
        raise tokenizer_error(error, files) from None
    if not tokenizer.is_fast or len(tokenizer) <= len(tokenizer.added_tokens_decoder):
        raise ModelError("has no usable tokenizer", where=files.name, fix="Add its tokenizer.json.")
    limits = split_as_the_file_says(tokenizer, files.gguf_file) if files.gguf_file else ()
    return tokenizer, limits


def _load_weights(
    files: ModelFiles, config: Any, dtype: str | None, place: Any, trust_remote_code: bool
) -> tuple[Any, str, tuple[str, ...], tuple[Unused, ...]]:
    """The model where it belongs, how its weights were stored, what limits that brings, and what was not used."""
    from transformers import AutoModelForCausalLM, GgufConfig

    from stratoscope.model.devices import Spread
    from stratoscope.model.files.cut_blocks import unpacked_rightly
    from stratoscope.model.files.leftover import Keys, every_key, placed_tensors, refuse_unlike
    from stratoscope.model.files.quantised import block_of, gguf_words, refuse_packed, rounded, unpack
    from stratoscope.model.identity import FLOAT
    from stratoscope.model.plain import refuse_unless_plain

    options = _options(files, trust_remote_code)
    words, limit = "", ""
    keys, placed = Keys(), set[str]()
    try:
        if files.gguf:  # or architectures of the new loader would keep their blocks where its kernels are installed
            options["quantization_config"] = GgufConfig(dequantize=True)
        else:
            options["use_safetensors"] = files.weights[0].suffix == ".safetensors"
            words, limit = unpack(config, files)
        chosen = dtype or ("float32" if files.gguf else "auto")
        own = placed_tensors(placed) if files.gguf else nullcontext()
        with Spread(place) as spread, unpacked_rightly(files, block_of(config)), every_key(keys), own:
            model, report = AutoModelForCausalLM.from_pretrained(
                files.folder, config=config, dtype=chosen, output_loading_info=True, **spread.options, **options
            )
            spread.keep_for(model)
    except ModelError:
        raise
    except Exception as error:
        refuse_unlike(keys, files)
        raise load_error(error, files) from None
    if files.gguf_file:
        words = gguf_words(files.gguf_file)
    unused = _used_or_named(model, files, keys, {*report["missing_keys"]}, placed)
    if not words:
        refuse_packed(model, files, keys.unused)
    if words and dtype is not None:
        _cast(model, dtype)
    model = model.eval().requires_grad_(False)
    refuse_unless_plain(model, files.name)
    if not spread.options:
        model = _moved(model, place, files.name)
    if not dtype and not words:
        unused = (*unused, *rounded(files, model))
    limits = (f"Weights are stored as {words}: {limit}.",) if limit else ()
    return model, words or FLOAT, limits, unused


def _used_or_named(
    model: Any, files: ModelFiles, keys: Keys, missing: set[str], placed: set[str]
) -> tuple[Unused, ...]:
    """Check that all that the files hold is in the model, and nothing else; gives what need not be."""
    from stratoscope.model.files.leftover import named_unused, refuse_lost, refuse_twice, refuse_unlike, unused_of_gguf
    from stratoscope.model.files.stored_positions import refuse_other_positions
    from stratoscope.model.gguf.positions import prove_positions

    unused = keys.unused
    if files.gguf_file:
        prove_positions(model, files.gguf_file)
        unused = unused | unused_of_gguf(placed, files.gguf_file)
    refuse_unlike(keys, files)
    refuse_lost(missing | keys.missing, unused, model.config, files)
    refuse_twice(model, files)
    refuse_other_positions(model, files)
    return named_unused(unused, model, files)


def _cast(model: Any, dtype: str) -> None:
    """Bring to `dtype` what was stored as floats beside the packed weights, which alone were unpacked into it."""
    import torch

    stored = model.dtype
    for parameter in model.parameters():
        if parameter.dtype == stored:
            parameter.data = parameter.data.to(getattr(torch, dtype))


def _moved(model: Any, device: Any, name: str) -> Any:
    try:
        return model.to(device)
    except RuntimeError as error:
        if is_out_of_memory(error):
            what, fix = f"does not fit onto {device}", "Use dtype bfloat16, a device map or cpu."
        else:
            what, fix = f"cannot be moved to {device}: {first_line(error)}", "Use another device, or cpu."
        raise ModelError(what, where=name, fix=fix) from None
