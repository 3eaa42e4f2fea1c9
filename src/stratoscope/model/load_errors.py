"""Why a model could not be loaded, told from what its files are and from whose code failed."""

from __future__ import annotations

import re
import traceback
from collections.abc import Collection, Iterator, Mapping
from importlib.util import find_spec

from stratoscope.errors import ModelError, first_line, is_out_of_memory
from stratoscope.model.files.contents import open_torch_file
from stratoscope.model.files.model_files import ModelFiles

_SENTENCEPIECE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model")
_NEWER = "Update transformers if the model is new; else fetch it again."


def load_error(error: Exception, files: ModelFiles) -> ModelError:
    """What went wrong while the configuration or the weights were loaded, and the one step that helps."""
    known = _own_code(error) or _cause(error) or _settings(error, files) or _pickle(files)
    what, fix = known or (f"cannot be loaded: {_words(error)}", _NEWER)
    return ModelError(what, where=files.name, fix=fix)


def tokenizer_error(error: BaseException, files: ModelFiles) -> ModelError:
    """What went wrong while the tokenizer was loaded."""
    what, fix = _own_code(error) or _no_tokenizer(error, files)
    return ModelError(what, where=files.name, fix=fix)


def _no_tokenizer(error: BaseException, files: ModelFiles) -> tuple[str, str]:
    what = f"its tokenizer cannot be loaded: {_words(error)}"
    if files.gguf:
        return what, "Give the model's own folder, from which this file was made."
    names = [path.name for path in files.folder.iterdir()]
    if not any(re.match(r"tokenizer\.|vocab\.|merges\.|spiece|sentencepiece|.*tiktoken", name) for name in names):
        return (
            "has no tokenizer",
            "Add its tokenizer.json: save_pretrained the tokenizer of its base model into the folder.",
        )
    for wanted in _tokenizer_packages(names, str(error)):
        lacking = [package for package, module in wanted.items() if not _is_installed(module)]
        if lacking:
            return f"its tokenizer needs {' and '.join(lacking)}", f"Install it: `pip install {' '.join(lacking)}`."
    return what, "Fetch its tokenizer.json again." if "tokenizer.json" in names else "Add its tokenizer.json."


def _words(error: BaseException) -> str:
    """What an error says, with its kind where it says nothing without."""
    bare = isinstance(error, (LookupError, ArithmeticError, TypeError, AttributeError, RecursionError))
    return f"{type(error).__name__}: {first_line(error)}" if bare else first_line(error)


def _settings(error: Exception, files: ModelFiles) -> tuple[str, str] | None:
    """The cause, where what describes the model cannot be, or not of these weights."""
    text = str(error)
    described = "its list of settings" if files.gguf else "its config.json"
    fix = "Give the model's own folder." if files.gguf else "Use the config.json that belongs to these weights."
    if found := re.search(r"alidation error for (?:field|validator) '(\w+)':\s*(.+)", text):
        return f"{described} cannot be right ({found[1]}): {found[2]}", fix
    if isinstance(error, RecursionError):
        return "its files are nested too deeply to be read", "Fetch it again."
    if isinstance(error, ZeroDivisionError) or "modulo by zero" in text or "negative dimension" in text:
        return f"{described} has a number where only a size can stand: {first_line(error)}", fix
    if "deserializing header" in text:
        return f"its weights have a damaged head: {first_line(error)}", "Fetch them again."
    if "ignore_mismatched_sizes" in text:
        return f"{described} describes weights of other shapes than there are", fix
    return None


def _tokenizer_packages(names: Collection[str], text: str) -> Iterator[dict[str, str]]:
    """Packages, and the modules that they bring, that a tokenizer may lack: by its files, then by what was said."""
    if "tokenizer.json" not in names and any(name in _SENTENCEPIECE for name in names):
        yield {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}
    for package, module in (
        ("sentencepiece", "sentencepiece"),
        ("tiktoken", "tiktoken"),
        ("protobuf", "google.protobuf"),
    ):
        if package in text:
            yield {package: module}


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False


def _pickle(files: ModelFiles) -> tuple[str, str] | None:
    """What a torch file is, where it holds no named weights."""
    for path in files.weights:
        if path.suffix == ".safetensors" or files.gguf:
            continue
        try:
            content = open_torch_file(path)
        except Exception as error:
            return _cause(error) or (f"its {path.name} is damaged: {first_line(error)}", "Fetch it again.")
        if not isinstance(content, Mapping):
            what = f"its {path.name} holds a {type(content).__name__}, not named weights"
            return what, "Save the state_dict of the model, with save_pretrained."
    return None


def _own_code(error: BaseException) -> tuple[str, str] | None:
    """The cause, where Python code that comes with the model is needed, was not allowed, or failed."""
    text = str(error)
    if "trust_remote_code" in text:
        return "needs Python code that comes with it", "Read that code, then allow it with trust_remote_code."
    packages = re.search(
        r"requires the following packages that were not found in your environment: ([\w\-., ]+?)\. Run", text
    )
    if packages:
        names = packages[1].replace(",", "")
        return f"its own Python code needs {packages[1]}", f"Install it: `pip install {names}`."
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    own = [name for name in files if "transformers_modules" in name]
    if not own and "transformers_modules" not in text:
        return None
    from transformers import __version__

    name = re.split(r"[\\/]", own[-1])[-1] if own else "its code"
    return (
        f"its own Python code ({name}) does not run with transformers {__version__}: {first_line(error)}",
        "Install the transformers version that its config.json names, or give a version of the model without own code.",
    )


def _cause(error: Exception) -> tuple[str, str] | None:
    text = str(error)
    if found := re.search(r"Unsupported (?:global|class)[^\w]*(?:GLOBAL )?([\w.]+)", text):
        return (
            f"its weights hold more than numbers ({found[1]}), which could run code when they are opened",
            "Use a version of it with .safetensors files.",
        )
    if "Weights only load failed" in text or type(error).__name__ == "UnpicklingError":
        return "its weights are a damaged pickle", "Fetch them again, or use a version with .safetensors files."
    if "Unrecognized configuration class" in text:
        return "is not a causal language model", "Give a model that writes text."
    if found := re.search(r"model type `([^`]+)` but Transformers does not recognize", text):
        from transformers import __version__

        return f"is of the type {found[1]}, which transformers {__version__} does not know", "Update transformers."
    if "Should have a `model_type`" in text or "Unrecognized model in" in text:
        return "its config.json names no model_type", "Give the folder that save_pretrained wrote."
    if found := re.search(r"GGUF (?:model|file).*architecture '?([\w.-]+)'?", text):
        return (
            f"is a GGUF file of the architecture {found[1]}, which transformers cannot read",
            "Give the model's own folder, from which this file was made.",
        )
    if unknown := _unknown_activation(error):
        return (
            f"its config.json names the activation {unknown}, which transformers does not know",
            "Correct hidden_act (or activation_function) there, or update transformers.",
        )
    if is_out_of_memory(error):
        return "does not fit into memory", "Use dtype bfloat16, a device map or a smaller model."
    return None


def _unknown_activation(error: Exception) -> str:
    """The activation that transformers' table of them lacks; its error says nothing but the name."""
    frames = traceback.extract_tb(error.__traceback__)
    is_lookup = isinstance(error, KeyError) and any(frame.filename.endswith("activations.py") for frame in frames)
    return str(error.args[0]) if is_lookup else ""
