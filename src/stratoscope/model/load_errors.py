"""Why a model could not be loaded, told from what its files are and from whose code failed."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from importlib.util import find_spec

from stratoscope.errors import ModelError, first_line, is_out_of_memory
from stratoscope.model.contents import open_torch_file
from stratoscope.model.files import ModelFiles

_NEWER = "Update transformers if the model is new; else fetch it again"


def load_error(error: Exception, files: ModelFiles) -> ModelError:
    """What went wrong while the configuration or the weights were loaded, and the one step that helps."""
    known = _own_code(error) or _cause(error) or _pickle(files)
    what, fix = known or (f"cannot be loaded: {first_line(error)}", _NEWER)
    return ModelError(what, where=files.name, fix=fix)


def tokenizer_error(error: Exception, files: ModelFiles) -> ModelError:
    """What went wrong while the tokenizer was loaded."""
    what, fix = _own_code(error) or _no_tokenizer(error, files)
    return ModelError(what, where=files.name, fix=fix)


def _no_tokenizer(error: Exception, files: ModelFiles) -> tuple[str, str]:
    what = f"its tokenizer cannot be loaded: {first_line(error)}"
    if files.gguf:
        return what, "Give the model's own folder, from which this file was made"
    names = [path.name for path in files.folder.iterdir()]
    if not any(re.match(r"tokenizer\.|vocab\.|merges\.|spiece|sentencepiece|.*tiktoken", name) for name in names):
        return (
            "has no tokenizer",
            "Add its tokenizer.json: save_pretrained the tokenizer of its base model into the folder",
        )
    for package in ("sentencepiece", "tiktoken", "protobuf"):
        if package in str(error) and find_spec("google.protobuf" if package == "protobuf" else package) is None:
            return f"its tokenizer needs {package}", f"pip install {package}"
    return what, "Fetch its tokenizer.json again" if "tokenizer.json" in names else "Add its tokenizer.json"


def _pickle(files: ModelFiles) -> tuple[str, str] | None:
    """What a torch file is, where it holds no named weights."""
    for path in files.weights:
        if path.suffix == ".safetensors" or files.gguf:
            continue
        try:
            content = open_torch_file(path)
        except Exception as error:
            return _cause(error) or (f"its {path.name} is damaged: {first_line(error)}", "Fetch it again")
        if not isinstance(content, Mapping):
            what = f"its {path.name} holds a {type(content).__name__}, not named weights"
            return what, "Save the state_dict of the model, with save_pretrained"
    return None


def _own_code(error: BaseException) -> tuple[str, str] | None:
    """The cause, where Python code that comes with the model is needed, was not allowed, or failed."""
    text = str(error)
    if "trust_remote_code" in text:
        return "needs Python code that comes with it", "Read that code, then allow it with trust_remote_code"
    packages = re.search(
        r"requires the following packages that were not found in your environment: ([\w\-., ]+?)\. Run", text
    )
    if packages:
        names = packages[1].replace(",", "")
        return f"its own Python code needs {packages[1]}", f"pip install {names}"
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    own = [name for name in files if "transformers_modules" in name]
    if not own and "transformers_modules" not in text:
        return None
    from transformers import __version__

    name = re.split(r"[\\/]", own[-1])[-1] if own else "its code"
    return (
        f"its own Python code ({name}) does not run with transformers {__version__}: {first_line(error)}",
        "Install the transformers version that its config.json names, or give a version of the model without own code",
    )


def _cause(error: Exception) -> tuple[str, str] | None:
    text = str(error)
    if found := re.search(r"Unsupported (?:global|class)[^\w]*(?:GLOBAL )?([\w.]+)", text):
        return (
            f"its weights hold more than numbers ({found[1]}), which could run code when they are opened",
            "Use a version of it with .safetensors files",
        )
    if "Weights only load failed" in text or type(error).__name__ == "UnpicklingError":
        return "its weights are a damaged pickle", "Fetch them again, or use a version with .safetensors files"
    if "Unrecognized configuration class" in text:
        return "is not a causal language model", "Give a model that writes text"
    if found := re.search(r"model type `([^`]+)` but Transformers does not recognize", text):
        from transformers import __version__

        return f"is of the type {found[1]}, which transformers {__version__} does not know", "Update transformers"
    if "Should have a `model_type`" in text or "Unrecognized model in" in text:
        return "its config.json names no model_type", "Give the folder that save_pretrained wrote"
    if found := re.search(r"GGUF (?:model|file).*architecture '?([\w.-]+)'?", text):
        return (
            f"is a GGUF file of the architecture {found[1]}, which transformers cannot read",
            "Give the model's own folder, from which this file was made",
        )
    if is_out_of_memory(error):
        return "does not fit into memory", "Use dtype bfloat16, a device map or a smaller model"
    return None
