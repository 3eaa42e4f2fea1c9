"""A model object that somebody already holds, with the same identity a loaded one has."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.errors import InputError
from stratoscope.model.devices import weights_at_hand
from stratoscope.model.files.model_files import ModelFiles
from stratoscope.model.identity import model_identity, tokenizer_identity
from stratoscope.model.load import LoadedModel
from stratoscope.model.plain import refuse_unless_plain


def given_model(model: nn.Module, tokenizer: Any) -> LoadedModel:
    """Wrap a Hugging Face model and its tokenizer; the hash is of the weights as they are in memory.

    Raises
    ------
    InputError
        The tokenizer is missing, or the model is wrapped, compiled or in training mode, where dropout makes every run
        different.
    ModelError
        Its weights are packed, it has an adapter that is not merged, or its layers share one module.
    """
    if tokenizer is None:
        raise InputError("a model object needs its tokenizer", fix="Give it as `tokenizer=`.")
    refuse_unless_plain(model, type(model).__name__)
    name = Path(getattr(model.config, "_name_or_path", "") or type(model).__name__).name
    files = ModelFiles(name=name, folder=Path(), weights=())
    identity = model_identity(model, files, _state_sha256(model))
    return LoadedModel(model, tokenizer, identity, tokenizer_identity(tokenizer))


def _state_sha256(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name in sorted(model.state_dict()):
        tensor = _tensor(model, name)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensor(model: nn.Module, name: str) -> Tensor:
    """A tensor of the state, fetched where it waits on disk."""
    module = model.get_submodule(name.rpartition(".")[0])
    with weights_at_hand(module):
        tensor: Tensor = getattr(module, name.rpartition(".")[2])
        return tensor.detach()
