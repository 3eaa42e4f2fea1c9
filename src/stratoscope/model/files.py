"""Which files a model's name stands for (hub name, local folder or GGUF file), and the hash of its weights."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stratoscope.errors import ModelError, first_line
from stratoscope.progress import Progress, silent

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_SMALL = (".json", ".jinja", ".txt", ".model", ".tiktoken")  # configuration and tokenizer
_GIVE_FILES = "Give a local folder or a GGUF file, or check the name, the connection and HF_TOKEN"
_READ_SIZE = 1 << 22


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model on this machine.

    Attributes
    ----------
    name
        What the record calls it: the hub name, or the last part of the path.
    folder
        Holds the configuration, the tokenizer and the weights.
    weights
        The weight files that will be loaded, sorted by name.
    gguf
        Whether they are one GGUF file.
    revision
        Commit on the hub, "" where unknown.
    """

    name: str
    folder: Path
    weights: tuple[Path, ...]
    gguf: bool = False
    revision: str = ""


def find_files(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False, progress: Progress = silent
) -> ModelFiles:
    """Find, and if need be fetch, the files of a model.

    A path that ends in `.gguf` is a GGUF file, an existing folder is a local model, and anything else that looks like
    `owner/name` is looked up on the hub (`HF_ENDPOINT`), or in its cache when the hub cannot be reached.

    Raises
    ------
    ModelError
        There is no such file, folder or repository, or no weights in it.
    """
    path = Path(name).expanduser()
    local = path.suffix.lower() == ".gguf" or path.is_dir()
    if local and revision:
        raise ModelError("only a model on the hub has revisions", where=name, fix="Leave the revision out")
    if path.suffix.lower() == ".gguf":
        return _gguf_file(path)
    if path.is_dir():
        return _local_folder(path)
    if path.exists():
        raise ModelError(
            "is neither a folder nor a GGUF file", where=name, fix="Give the folder that holds config.json"
        )
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise ModelError("no such folder", where=name, fix="Check the path, or give a hub name such as owner/name")
    return _hub_files(name, revision, trust_remote_code, progress)


def weights_sha256(files: ModelFiles, progress: Progress = silent) -> str:
    """SHA-256 of the weights' bytes: of one file its own, of several that of the `sha256sum` listing sorted by name."""
    total, done = sum(path.stat().st_size for path in files.weights), 0
    digests = []
    for path in files.weights:
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while chunk := stream.read(_READ_SIZE):
                digest.update(chunk)
                done += len(chunk)
                progress("hashing the weights", done, total)
        digests.append(digest.hexdigest())
    if len(digests) == 1:
        return digests[0]
    listing = "".join(f"{digest}  {path.name}\n" for digest, path in zip(digests, files.weights, strict=True))
    return hashlib.sha256(listing.encode()).hexdigest()


def _gguf_file(path: Path) -> ModelFiles:
    if not path.is_file():
        raise ModelError("no such GGUF file", where=str(path), fix="Check the path")
    with path.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise ModelError("is not a GGUF file", where=str(path), fix="Fetch it again; it may be incomplete")
    if re.search(r"-\d{5}-of-\d{5}\.gguf$", path.name, re.IGNORECASE):
        raise ModelError(
            "is one part of a split GGUF file", where=str(path), fix="Join the parts with llama-gguf-split"
        )
    return ModelFiles(path.name, path.parent, (path,), gguf=True)


def _local_folder(path: Path) -> ModelFiles:
    names = {item.name for item in path.iterdir()}
    if "config.json" not in names:
        raise ModelError("has no config.json", where=str(path), fix="Give the folder that save_pretrained wrote")
    weights = _weight_names(names, lambda index: (path / index).read_text(), str(path))
    for name in weights:
        if name not in names:
            raise ModelError(f"the weight file {name} is missing", where=str(path), fix="Fetch the model again")
    return ModelFiles(path.resolve().name, path, tuple(path / name for name in weights))


def _weight_names(names: Collection[str], read: Callable[[str], str], where: str) -> list[str]:
    """The weight files that transformers loads of those there are: safetensors before torch, one file before shards."""
    chosen = next((name for name in _WEIGHTS if name in names), None)
    if chosen is None:
        what = "holds no weights (no model.safetensors and no pytorch_model.bin)"
        raise ModelError(what, where=where, fix=_instead(names, "Give a folder or repository with .safetensors files"))
    if not chosen.endswith(".json"):
        return [chosen]
    try:
        return sorted(set(json.loads(read(chosen))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ModelError(f"{chosen} is damaged", where=where, fix="Fetch the model again") from None


def _instead(names: Collection[str], otherwise: str) -> str:
    gguf = next((name for name in sorted(names) if name.endswith(".gguf")), None)
    return f"Give the path of {gguf}" if gguf else otherwise


# --- the hub --------------------------------------------------------------------------------------------------------


def _hub_files(name: str, revision: str | None, trust_remote_code: bool, progress: Progress) -> ModelFiles:
    from huggingface_hub import HfApi, errors

    progress(f"looking up {name}", 0, None)
    try:
        info = HfApi().model_info(name, revision=revision, timeout=20)
    except errors.GatedRepoError:
        raise ModelError("access must be asked for on its page", where=name, fix="Then set HF_TOKEN") from None
    except errors.RepositoryNotFoundError:
        raise ModelError("no such model on the hub, or it is private", where=name, fix=_GIVE_FILES) from None
    except errors.RevisionNotFoundError:
        raise ModelError(f"has no revision {revision}", where=name, fix="Give a branch, tag or commit") from None
    except errors.HFValidationError:
        raise ModelError("is no hub name, and no such folder exists", where=name, fix=_GIVE_FILES) from None
    except Exception as error:  # offline mode, no network, a proxy, an outage: each client version has its own errors
        return _cached(name, revision, error)
    names = [item.rfilename for item in info.siblings or []]
    if "config.json" not in names:
        raise ModelError("holds no transformers model (no config.json)", where=name, fix=_instead(names, _GIVE_FILES))

    # by its own name once, so that the cache knows which commit a branch or tag meant when the hub is out of reach
    folder = _download(name, "config.json", revision, progress).parent

    def fetch(file: str) -> Path:
        return _download(name, file, folder.name, progress)

    weights = _weight_names(names, lambda index: fetch(index).read_text(), name)
    endings = (*_SMALL, ".py") if trust_remote_code else _SMALL
    for item in names:
        if item.endswith(endings) and ("/" not in item or item.endswith(".jinja")):
            fetch(item)
    return ModelFiles(name, folder, tuple(map(fetch, weights)), revision=folder.name)


def _download(name: str, file: str, revision: str | None, progress: Progress) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, file, revision=revision, tqdm_class=_bar(file, progress)))
    except OSError as error:
        raise ModelError(
            f"{file} could not be fetched: {error}", where=name, fix="Check connection and disk space"
        ) from None
    except Exception as error:
        raise ModelError(f"{file} could not be fetched: {first_line(error)}", where=name, fix=_GIVE_FILES) from None


def _cached(name: str, revision: str | None, error: Exception) -> ModelFiles:
    """The copy that an earlier fetch left in the hub's cache."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except Exception:
        what = f"the hub cannot be reached ({first_line(error)}) and its cache does not hold this model"
        raise ModelError(what, where=name, fix=_GIVE_FILES) from None
    found = _local_folder(folder)
    return ModelFiles(name, folder, found.weights, revision=folder.name)


def _bar(file: str, progress: Progress) -> type[Any]:
    """A tqdm that tells `progress` instead of printing, as the hub's client knows no other way to report."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **{**options, "file": io.StringIO(), "disable": False})

        def display(self, *_: Any, **__: Any) -> None:
            progress(f"fetching {file}", int(self.n), None if self.total is None else int(self.total))

    return Bar
