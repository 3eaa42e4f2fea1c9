"""What the files of a model really hold, read from their first bytes before any library is asked to open them."""

from __future__ import annotations

import json
import re
import zipfile
from codecs import BOM_UTF8
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from stratoscope.errors import ModelError, first_line
from stratoscope.model.gguf.file import MAGIC

_LOOK = 512  # bytes that tell what a file is
_POINTER = b"version https://git-lfs.github.com/spec/"
_LFS = "Run `git lfs pull` in its folder, or fetch it again with `hf download`."
_AGAIN = "Fetch it again."
_BITS = {
    **{"F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16},
    **{"U16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I8": 8, "U8": 8},
    **{"BOOL": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4},
}
_MOST_DIGITS = 4_000  # of a whole number
_MOST_JSON = {  # bytes, and about how many values; far more than any known model has
    "config.json": (8 * 2**20, 300_000),
    "generation_config.json": (8 * 2**20, 300_000),
    "tokenizer_config.json": (32 * 2**20, 2_000_000),
    "tokenizer.json": (128 * 2**20, 8_000_000),
    "model.safetensors.index.json": (64 * 2**20, 1_000_000),
}
_LONGEST_HEADER, _MOST_TENSORS = 32 * 2**20, 200_000  # of one weight file; the library itself takes 100 MB
_LARGEST = 1 << 48  # beyond it, no number is a size


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a weight file stores it: its shape and the file's word for its dtype."""

    shape: tuple[int, ...]
    dtype: str


def refuse_unreadable(path: Path, model: str) -> None:
    """Check that a file of a model is the file itself: not a pointer to it, a web page, empty or out of reach.

    Raises
    ------
    ModelError
        It is something else; the message says what, and the one step that helps.
    """
    if path.exists() and not path.is_file():
        fix = "Put the file itself there."
        raise ModelError("is no file but a folder, a pipe or a device", where=_named(path, model), fix=fix)
    try:
        with path.open("rb") as stream:
            start = stream.read(_LOOK)
    except FileNotFoundError:
        raise ModelError("is missing", where=_named(path, model), fix=_AGAIN) from None
    except OSError as error:
        what = f"cannot be read: {error.strerror or first_line(error)}"
        raise ModelError(
            what, where=_named(path, model), fix="Check that you may read it, and that its disk is there."
        ) from None
    if problem := _not_itself(start):
        what, fix = problem
        raise ModelError(what, where=_named(path, model), fix=fix)


def _named(path: Path, model: str) -> str:
    """A file of a model as an error names it."""
    return path.name if path.name == model else f"{model}, {path.name}"


def _not_itself(start: bytes) -> tuple[str, str] | None:
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "is empty", _AGAIN
    if start.startswith(_POINTER):
        return "is a Git LFS pointer, not the file that it stands for", _LFS
    if re.match(rb"[^\n]*/annex/objects/", start):
        return "is a git-annex pointer, not the file that it stands for", "Run `git annex get` in its folder."
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return (
            "is a web page, not the file",
            "Fetch it again, from its download link (on the hub: /resolve/, not /blob/).",
        )
    if not start.strip(b"\0"):
        return "begins with nothing but zeros, as an unfinished download does", _AGAIN
    return None


def parsed_json(text: str | bytes) -> Any:
    """What a JSON text of unknown origin says.

    Raises
    ------
    ValueError
        It is not valid, or nested more deeply than can be read.
    """
    try:
        return json.loads(text, parse_int=_whole_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _whole_number(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number has {len(digits):,} digits")
    return int(digits)


def refuse_broken_json(path: Path, model: str) -> None:
    """Check that a file holds one JSON object.

    Raises
    ------
    ModelError
        It does not.
    """
    refuse_unreadable(path, model)
    most_bytes, most_values = _MOST_JSON.get(path.name, _MOST_JSON["model.safetensors.index.json"])
    size = path.stat().st_size
    if size > most_bytes:
        what = f"has {size:,} bytes; it may have {most_bytes:,}"
        raise ModelError(what, where=_named(path, model), fix=_AGAIN)
    raw = path.read_bytes()
    if (values := raw.count(b",") + raw.count(b":")) > most_values:
        what = f"holds about {values:,} values; it may hold {most_values:,}"
        raise ModelError(what, where=_named(path, model), fix=_AGAIN)
    if raw.startswith(BOM_UTF8):
        what = "begins with a byte-order mark, which transformers cannot read"
        raise ModelError(what, where=_named(path, model), fix="Save it again as UTF-8 without a BOM.")
    try:
        content = parsed_json(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise ModelError("is not UTF-8 text", where=_named(path, model), fix="Save it again as UTF-8.") from None
    except ValueError as error:
        raise ModelError(f"is not valid JSON: {first_line(error)}", where=_named(path, model), fix=_AGAIN) from None
    needs_object = path.name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
    if not isinstance(content, dict if needs_object else (dict, list)):
        raise ModelError(f"holds a {type(content).__name__}, not an object", where=_named(path, model), fix=_AGAIN)
    if path.name == "tokenizer.json" and "model" not in content:
        raise ModelError("holds no tokenizer", where=_named(path, model), fix=_AGAIN)


def refuse_broken_weights(path: Path, model: str) -> None:
    """Check that a weight file is what its name says, and whole as far as that can be seen without reading it all.

    Raises
    ------
    ModelError
        It is not.
    """
    refuse_unreadable(path, model)
    if path.suffix == ".safetensors":
        stored_tensors(path, model)
    else:
        _refuse_broken_pickle(path, model)


def refuse_unlike_index(index: Path, shards: Sequence[Path], model: str) -> None:
    """Check that weights in several files are those that their index names, each once.

    Where one of the files cannot be opened nothing is said: loading it tells why.

    Raises
    ------
    ModelError
        A weight stands in two files, or in none.
    """
    found: dict[str, Path] = {}
    for shard in shards:
        stored = stored_tensors(shard, model)
        if not stored:
            return
        for name in stored:
            if name in found:
                what = f"the weight {name} stands in {found[name].name} and in {shard.name}"
                raise ModelError(what, where=model, fix=f"{_AGAIN} Files of two versions are mixed.")
            found[name] = shard
    named = parsed_json(index.read_text("utf-8"))["weight_map"]
    lost = next((name for name in named if name not in found), None)
    if lost:
        what = f"{index.name} names the weight {lost}, which none of its files holds"
        raise ModelError(what, where=model, fix=f"{_AGAIN} Files of two versions are mixed.")


def stored_tensors(path: Path, model: str) -> dict[str, StoredTensor]:
    """The tensors of a weight file, without their numbers; none of a torch file that holds no named weights.

    Raises
    ------
    ModelError
        It is a safetensors file whose head is damaged, or that ends before its last tensor does.
    """
    if path.suffix != ".safetensors":
        about = path.stat()
        return _torch_tensors(path, about.st_size, about.st_mtime_ns)
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        if other := _other_format(start):
            raise ModelError(
                f"is {other}, not safetensors", where=_named(path, model), fix="Fetch it again, or give it its name."
            )
        if 8 + length > size or length > _LONGEST_HEADER:
            what = f"has a damaged head: it announces {length:,} bytes of a file of {size:,}"
            raise ModelError(what, where=_named(path, model), fix=_AGAIN)
        head = stream.read(length)
    if (tensors := head.count(b"data_offsets")) > _MOST_TENSORS or head.count(b",") > 8 * max(tensors, 10_000):
        raise ModelError(f"has a head of {tensors:,} tensors that no model has", where=_named(path, model), fix=_AGAIN)
    try:
        found, end = _read_entries(parsed_json(head))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"has a damaged head: {first_line(error)}", where=_named(path, model), fix=_AGAIN) from None
    if 8 + length + end > size:
        what = f"is cut off: it holds {size:,} of {8 + length + end:,} bytes"
        raise ModelError(what, where=_named(path, model), fix=_AGAIN)
    return found


@cache
def _torch_tensors(path: Path, size: int, changed: int) -> dict[str, StoredTensor]:
    """The named weights of a file that torch.save wrote; it is opened again only where it has changed since."""
    try:
        content = open_torch_file(path)
    except Exception:  # loading it fails too, and is asked why
        return {}
    if not isinstance(content, Mapping):
        return {}
    return {
        str(name): StoredTensor(tuple(tensor.shape), _torch_word(tensor.dtype))
        for name, tensor in content.items()
        if hasattr(tensor, "dtype") and hasattr(tensor, "shape")
    }


def stored_numbers(path: Path, names: Collection[str]) -> dict[str, Any]:
    """Some of the tensors of a weight file, with their numbers."""
    if path.suffix != ".safetensors":
        content = open_torch_file(path, numbers=True)
        return {name: content[name] for name in names}
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in names}


def open_torch_file(path: Path, *, numbers: bool = False) -> Any:
    """What torch.save wrote, opened without running code; its tensors have numbers only where `numbers` are wanted."""
    import torch

    place = "cpu" if numbers else "meta"
    return torch.load(path, map_location=place, weights_only=True, mmap=zipfile.is_zipfile(path))


def _torch_word(dtype: object) -> str:
    """The word of safetensors for a dtype of torch."""
    name = str(dtype).removeprefix("torch.")
    if name.startswith("float8_"):
        kind = name.removeprefix("float8_").upper()
        return f"F8_{kind if kind.endswith('FNUZ') else kind.removesuffix('FNU').removesuffix('FN')}"
    for start, letter in (("bfloat", "BF"), ("float", "F"), ("uint", "U"), ("int", "I"), ("complex", "C")):
        if name.startswith(start):
            return f"{letter}{name.removeprefix(start)}"
    return name.upper()


def _read_entries(entries: Mapping[str, Any]) -> tuple[dict[str, StoredTensor], int]:
    """The tensors that a head lists, and where the last one ends."""
    found, end = {}, 0
    for name, entry in entries.items():
        if name == "__metadata__":
            continue
        shape, dtype, (first, last) = tuple(entry["shape"]), str(entry["dtype"]), entry["data_offsets"]
        if not all(isinstance(number, int) and 0 <= number < _LARGEST for number in (*shape, first, last)):
            raise ValueError(f"{name!r} has no possible shape and place")
        if dtype in _BITS and prod(shape) * _BITS[dtype] != (last - first) * 8:
            raise ValueError(f"{name!r} has {last - first:,} bytes, which do not fit its shape")
        found[name] = StoredTensor(shape, dtype)
        end = max(end, last)
    return found, end


def _other_format(start: bytes) -> str:
    if start.startswith(b"PK\x03\x04"):
        return "a zip archive, as torch.save writes one"
    if start.startswith(b"\x80"):
        return "a pickle, as torch.save writes one" if start[1] in range(2, 6) and start[2:] != bytes(6) else ""
    if start.startswith(MAGIC):
        return "a GGUF file"
    if start.startswith(b"\x1f\x8b"):
        return "a gzip archive"
    return "a HDF5 file" if start.startswith(b"\x89HDF") else ""


def _refuse_broken_pickle(path: Path, model: str) -> None:
    with path.open("rb") as stream:
        start = stream.read(9)
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        fix = f"Rename it to {path.with_suffix('.safetensors').name.replace('pytorch_model', 'model')}."
        raise ModelError("is safetensors, not what torch.save writes", where=_named(path, model), fix=fix)
    if start.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(path):
            raise ModelError("is cut off: it is a zip archive without its end", where=_named(path, model), fix=_AGAIN)
        with zipfile.ZipFile(path) as archive:
            if not any(name.endswith("data.pkl") for name in archive.namelist()):
                what = "is a zip archive, but not one that torch.save wrote"
                raise ModelError(what, where=_named(path, model), fix="Unpack it, and give the folder that it holds.")
        return
    if not start.startswith(b"\x80"):
        what = f"is {_other_format(start) or 'nothing that torch.save wrote'}"
        raise ModelError(what, where=_named(path, model), fix=_AGAIN)
