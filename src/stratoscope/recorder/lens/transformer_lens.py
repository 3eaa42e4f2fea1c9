"""A Jacobian lens in TransformerLens's form: a file of torch.save with `J`, `n_prompts`, `source_layers`, `d_model`.

`J` has one matrix a layer, [to, from], whose index l is the output of block l: depth l + 1. The last block has none.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stratoscope.errors import InputError, ModelError
from stratoscope.model.files.contents import open_torch_file, refuse_broken_weights
from stratoscope.trace.lenses import JACOBIAN_LENS

RAW = "raw_huggingface"  # TransformerLens's word for weights that it has not processed
_MOST_BESIDES = 2**20  # bytes of such a file that are no numbers
_MOST_TEXT = 200
_STATED = "the model's own weights, as Hugging Face runs them (the file says so)"
_NOT_STATED = "not stated in the file; such files are made on the model's own weights, as Hugging Face runs them"
_FIX = "Give a file with J, n_prompts, source_layers and d_model, or one that `stratoscope fit-lens` wrote."


@dataclass(frozen=True)
class TransformerLensFile:
    """What such a file holds: its matrices by depth, and what it says of itself."""

    kind: str
    facts: Mapping[str, Any]
    matrices: Mapping[int, Tensor]


def open_transformer_lens(path: Path, *, d_model: int, depths: int) -> TransformerLensFile:
    """Open a file of unknown origin, whose code is not run, for a model of that size.

    Raises
    ------
    InputError
        It is no such file, holds code, is larger than a lens of this model can be, or is of a model of another size.
    """
    _refuse_too_large(path, 8 * d_model**2 * depths + _MOST_BESIDES)
    try:
        refuse_broken_weights(path, path.name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of torch, of files that it then refuses
            content = open_torch_file(path, numbers=True)
    except ModelError as error:
        raise InputError(error.what, where=str(path), fix=_FIX) from None
    except Exception:  # torch refuses what is not numbers in many ways
        what = "it cannot be opened as numbers alone, so it may hold code, which is never run"
        raise InputError(what, where=str(path), fix=_FIX) from None
    if not isinstance(content, Mapping) or not isinstance(content.get("J"), Mapping) or not content["J"]:
        raise InputError("it is no Jacobian lens", where=str(path), fix=_FIX)
    width, prompts = content.get("d_model", d_model), content.get("n_prompts")
    if (
        type(width) is not int
        or width != d_model
        or (prompts is not None and (type(prompts) is not int or prompts < 1))
    ):
        what = f"it says d_model {_text(width)} and n_prompts {_text(prompts)}, which cannot be those of its matrices"
        raise InputError(what, where=str(path), fix=_FIX)
    about = content.get("metadata")
    about = about if isinstance(about, Mapping) else {}
    _refuse_other_basis(path, about, depths)
    facts = {
        "kind": JACOBIAN_LENS,
        "basis": _basis(about),
        "form": "TransformerLens",
        "model": {"name": _text(about.get("model_name")), "revision": _text(about.get("model_revision"))},
        "weights_sha256": None,
        "d_model": d_model,
        "depths": depths,
        "rank": None,
        "corpora": [{"name": _text(about.get("corpus")) or "not stated", "sha256": None}],
        "prompts": prompts,
    }
    return TransformerLensFile(JACOBIAN_LENS, facts, dict(_matrices(path, content["J"], d_model, depths)))


def _refuse_too_large(path: Path, most: int) -> None:
    """Raise where a file, or what it unpacks to, is larger than a lens of that model can be."""
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = max(size, sum(entry.file_size for entry in archive.infolist()))
            pickles = sum(entry.file_size for entry in archive.infolist() if entry.filename.endswith(".pkl"))
        size = most + 1 if pickles > _MOST_BESIDES else size
    if size > most:
        raise InputError("it is larger than a lens of this model can be", where=str(path), fix=_FIX)


def _refuse_other_basis(path: Path, about: Mapping[Any, Any], depths: int) -> None:
    basis, target = _stated_basis(about), about.get("target_layer", depths - 2)
    if basis not in (None, RAW):
        what = f"it was fitted in another basis ({basis}) than that of the model's own weights"
        raise InputError(what, where=str(path), fix="Fit it to weights that were not processed.")
    if target != depths - 2:
        what = f"its matrices lead to layer {_text(target)}, and a lens of this model leads to layer {depths - 2}"
        raise InputError(what, where=str(path), fix="Give a lens of this model that leads to its last layer.")


def _stated_basis(about: Mapping[Any, Any]) -> str | None:
    processing = about.get("processing")
    if not isinstance(processing, Mapping):
        return None
    if processing.get("compatibility_mode"):
        return "compatibility mode"
    return _text(processing.get("weight_basis"))


def _basis(about: Mapping[Any, Any]) -> str:
    return _NOT_STATED if _stated_basis(about) is None else _STATED


def _matrices(path: Path, found: Mapping[Any, Any], d_model: int, depths: int) -> dict[int, Tensor]:
    """Matrix of each depth that has one."""
    matrices = {}
    for layer, matrix in found.items():
        if not isinstance(matrix, Tensor) or matrix.layout is not torch.strided or not matrix.is_floating_point():
            raise InputError("its matrices are no matrices of numbers", where=str(path), fix=_FIX)
        if tuple(matrix.shape) != (d_model, d_model) or type(layer) is not int or not 0 <= layer < depths - 2:
            what = "it was fitted to a model of another size"
            fix = f"This one has {depths - 1} layers and a residual stream of {d_model:,} numbers."
            raise InputError(what, where=str(path), fix=fix)
        if not bool(torch.isfinite(matrix).all()):
            raise InputError("its matrices hold what is no number", where=str(path), fix=_FIX)
        matrices[layer + 1] = matrix
    return matrices


def _text(value: object) -> str | None:
    return str(value)[:_MOST_TEXT] if isinstance(value, str | int) else None
