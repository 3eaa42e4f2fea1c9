"""Which files a model's name stands for (hub name, local folder or GGUF file), and the hash of its weights."""

from __future__ import annotations

import errno
import hashlib
import io
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stratoscope.disk import is_full
from stratoscope.errors import ModelError, first_line
from stratoscope.model.files.checkpoint import (
    ADAPTERS,
    CONFIG,
    WEIGHTS,
    Unused,
    identifying_name,
    no_config,
    no_weights,
    refuse_adapter,
    unread,
)
from stratoscope.model.files.contents import (
    parsed_json,
    refuse_broken_json,
    refuse_broken_weights,
    refuse_unlike_index,
    refuse_unreadable,
)
from stratoscope.model.gguf.file import MAGIC, GgufFile, read_gguf
from stratoscope.model.gguf.settings import refuse_other_gguf
from stratoscope.model.gguf.values import refuse_impossible
from stratoscope.progress import Progress, silent

_SMALL = (".json", ".jinja", ".txt", ".model", ".tiktoken")  # configuration and tokenizer
_OWN_FILES = re.compile(  # what transformers reads besides weights
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|merges|chat_template"
    r"|spiece|sentencepiece.*|.*tiktoken)\."
)
_FETCH_AGAIN = {
    errno.EACCES: "Set HF_HOME to a folder that you may write to.",
    errno.EROFS: "Set HF_HOME to a folder that you may write to.",
}
_GIVE_FILES = "Give a local folder or a GGUF file, or check the name, the connection and HF_TOKEN."
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
    unused
        Files beside them that also hold weights, and were not read.
    """

    name: str
    folder: Path
    weights: tuple[Path, ...]
    gguf: bool = False
    revision: str = ""
    unused: tuple[Unused, ...] = ()

    @cached_property
    def gguf_file(self) -> GgufFile | None:
        """What stands in the GGUF file, read once; None where the model is none."""
        return read_gguf(self.weights[0]) if self.gguf else None


def find_files(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False, progress: Progress = silent
) -> ModelFiles:
    """Find, and if need be fetch, the files of a model.

    A path that ends in `.gguf` is a GGUF file, an existing folder is a local model or holds one GGUF file, and anything
    else that looks like `owner/name` is looked up on the hub (`HF_ENDPOINT`), or in its cache when the hub cannot be
    reached. Every file is looked into: what cannot be the model's is refused for what it is.

    Raises
    ------
    ModelError
        There is no such file, folder or repository, no weights in it, or they are not what their names say.
    """
    files = _found(name, revision, trust_remote_code, progress)
    _refuse_damaged(files)
    return files


def _found(name: str, revision: str | None, trust_remote_code: bool, progress: Progress) -> ModelFiles:
    path = Path(name).expanduser()
    local = path.suffix.lower() == ".gguf" or path.is_dir()
    if local and revision:
        raise ModelError("only a model on the hub has revisions", where=name, fix="Leave the revision out.")
    if path.suffix.lower() == ".gguf":
        return _gguf_file(path)
    if path.is_dir():
        return _local_folder(path)
    if path.exists():
        raise ModelError(
            "is neither a folder nor a GGUF file", where=name, fix="Give the folder that holds config.json."
        )
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise ModelError("no such folder", where=name, fix="Check the path, or give a hub name such as owner/name.")
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


def _refuse_damaged(files: ModelFiles) -> None:
    """Check each file that will be read, before any library is asked to open it."""
    if files.gguf_file:
        refuse_impossible(files.gguf_file)
        refuse_other_gguf(files.gguf_file)
        return
    for path in sorted(files.folder.iterdir()):
        if path.suffix == ".json" and "." not in path.stem and path.name not in ADAPTERS and _is_read(path.name):
            refuse_broken_json(path, files.name)
        elif _is_read(path.name):
            refuse_unreadable(path, files.name)
    for path in files.weights:
        refuse_broken_weights(path, files.name)
    chosen = next((name for name in WEIGHTS if (files.folder / name).is_file()), "")
    if chosen.endswith(".json"):
        refuse_unlike_index(files.folder / chosen, files.weights, files.name)


def _is_read(name: str) -> bool:
    """Whether a small file is one that configures a model or its tokenizer."""
    return name.endswith(_SMALL) and bool(_OWN_FILES.match(name))


def _gguf_file(path: Path) -> ModelFiles:
    if not path.is_file():
        raise ModelError("no such GGUF file", where=str(path), fix="Check the path.")
    refuse_unreadable(path, path.name)
    with path.open("rb") as stream:
        start = stream.read(4)
    if start != MAGIC:
        older = ", but one of its forerunners" if start in (b"tjgg", b"lmgg", b"fmgg", b"algg") else ""
        raise ModelError(f"is not a GGUF file{older}", where=str(path), fix="Fetch a newer one, or fetch it again.")
    if re.search(r"-\d{5}-of-\d{5}\.gguf$", path.name, re.IGNORECASE):
        raise ModelError(
            "is one part of a split GGUF file", where=str(path), fix="Join the parts with llama-gguf-split."
        )
    return ModelFiles(identifying_name(path)[0], path.parent, (path,), gguf=True)


def _local_folder(path: Path) -> ModelFiles:
    try:
        items = sorted(path.iterdir())
    except OSError as error:
        what = f"cannot be read: {error.strerror or first_line(error)}"
        raise ModelError(what, where=str(path), fix="Check that you may read it.") from None
    names, where = {item.name for item in items}, str(path)
    name, revision = identifying_name(path)
    refuse_adapter(names, where, _base_of_adapter(path) if ADAPTERS[0] in names else "")
    if not any(one in names for one in WEIGHTS):
        models = [one for one in names if one.lower().endswith(".gguf") and not one.lower().startswith("mmproj")]
        if len(models) == 1:
            return _gguf_file(path / models[0])
        if models:
            listed = ", ".join(sorted(models)[:8])
            raise ModelError(
                f"holds {len(models)} GGUF files: {listed}", where=where, fix="Give the path of one of them."
            )
    if CONFIG not in names:
        raise no_config(names, where, [item.name for item in items if (item / CONFIG).is_file()])
    weights = _weight_names(names, lambda index: path / index, where)
    for one in weights:
        if one not in names:
            raise ModelError(f"the weight file {one} is missing", where=where, fix="Fetch the model again.")
    return ModelFiles(
        name, path, tuple(path / one for one in weights), revision=revision, unused=unread(names, weights)
    )


def _base_of_adapter(folder: Path) -> str:
    """The model that an adapter says that it changes, as far as that can be read."""
    try:
        base = parsed_json((folder / ADAPTERS[0]).read_text("utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        return ""
    return base if isinstance(base, str) and "/" in base and not base.startswith(("/", ".", "~")) else ""


def _weight_names(names: Collection[str], path_of: Callable[[str], Path], where: str) -> list[str]:
    """The weight files that transformers loads of those there are: safetensors before torch, one file before shards."""
    chosen = next((name for name in WEIGHTS if name in names), None)
    if chosen is None:
        raise no_weights(names, where)
    if not chosen.endswith(".json"):
        return [chosen]
    index = path_of(chosen)
    refuse_broken_json(index, where)
    try:
        document = parsed_json(index.read_text("utf-8"))
        shards = sorted(set(document["weight_map"].values()))
        if not shards or not all(isinstance(shard, str) for shard in shards):
            raise ValueError("it names no files")
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ModelError(f"{chosen} is damaged", where=where, fix="Fetch the model again.") from None
    if not isinstance(document.get("metadata"), dict):
        what, fix = f"{chosen} holds no metadata, which transformers asks for", 'Add "metadata": {} to it.'
        raise ModelError(what, where=where, fix=fix)
    if any(Path(shard).name != shard for shard in shards):
        raise ModelError(f"{chosen} names files outside of its folder", where=where, fix="Fetch the model again.")
    return shards


# --- the hub --------------------------------------------------------------------------------------------------------


def _hub_files(name: str, revision: str | None, trust_remote_code: bool, progress: Progress) -> ModelFiles:
    from huggingface_hub import HfApi, errors

    progress(f"looking up {name}", 0, None)
    try:
        info = HfApi().model_info(name, revision=revision, timeout=20)
    except errors.GatedRepoError:
        raise ModelError("access must be asked for on its page", where=name, fix="Then set HF_TOKEN.") from None
    except errors.RepositoryNotFoundError:
        raise ModelError("no such model on the hub, or it is private", where=name, fix=_GIVE_FILES) from None
    except errors.RevisionNotFoundError:
        raise ModelError(f"has no revision {revision}", where=name, fix="Give a branch, tag or commit.") from None
    except errors.HFValidationError:
        raise ModelError("is no hub name, and no such folder exists", where=name, fix=_GIVE_FILES) from None
    except Exception as error:  # offline mode, no network, a proxy, an outage: each client version has its own errors
        return _cached(name, revision, error)
    names = [item.rfilename for item in info.siblings or []]
    refuse_adapter([one for one in names if "/" not in one], name)
    ggufs = [one for one in names if one.lower().endswith(".gguf")]
    if CONFIG not in names or (ggufs and not any(one in names for one in WEIGHTS)):
        if ggufs:
            what = f"holds {len(ggufs)} GGUF file{'s' if len(ggufs) > 1 else ''} and no model of transformers"
            raise ModelError(what, where=name, fix=f"Run `hf download {name} {ggufs[0]}`, and give the path it prints.")
        raise ModelError("holds no transformers model (no config.json)", where=name, fix=_GIVE_FILES)

    # by its own name once, so that the cache knows which commit a branch or tag meant when the hub is out of reach
    folder = _download(name, "config.json", revision, progress).parent

    def fetch(file: str) -> Path:
        return _download(name, file, folder.name, progress)

    weights = _weight_names(names, fetch, name)
    endings = (*_SMALL, ".py") if trust_remote_code else _SMALL
    for item in names:
        if item.endswith(endings) and ("/" not in item or item.endswith(".jinja")):
            fetch(item)
    here = tuple(map(fetch, weights))
    return ModelFiles(name, folder, here, revision=folder.name, unused=unread(names, weights))


def _download(name: str, file: str, revision: str | None, progress: Progress) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, file, revision=revision, tqdm_class=_bar(file, progress)))
    except OSError as error:
        what = f"{file} could not be fetched: {error.strerror or first_line(error)}"
        full = "Free some disk space, or set HF_HOME to a larger disk"
        fix = full if is_full(error) else _FETCH_AGAIN.get(error.errno or 0, "Check the connection.")
        raise ModelError(what, where=name, fix=fix) from None
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
    return replace(found, name=name, revision=folder.name)


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
